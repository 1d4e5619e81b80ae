// SPDX-License-Identifier: Apache-2.0
//! A server over a scripted backend, which is asked without sockets.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use collector_config::{Loader, ServerConfig};
use collector_core::{Clock, ModelRef};
use collector_engine::{Builder, CacheConfig, CachingCollector, StaticDirectory, VariantSpec};
use collector_testkit::{FakeBackend, TokioClock};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use super::super::app::Peer;
use super::super::{Access, App, Changes, Events, Front, Lifecycle, Recorder, Reloads};

/// A server with its backend and the model `org/m` in `prod`, which has a variant.
pub(super) struct Fixture {
    pub(super) backend: FakeBackend,
    pub(super) collector: Arc<CachingCollector>,
    pub(super) app: Arc<App>,
    pub(super) lifecycle: watch::Sender<Lifecycle>,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    #[track_caller]
    pub(super) fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_str(&self.text).unwrap()
    }

    #[track_caller]
    pub(super) fn reason(&self) -> String {
        self.json()["error"]["reason"].as_str().unwrap().to_owned()
    }
}

/// As the server is by default.
pub(super) fn open_access() -> Access {
    Access::new(&ServerConfig::default()).unwrap()
}

pub(super) fn model() -> ModelRef {
    ModelRef::new("org/m", "prod")
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with(open_access(), 10)
    }

    pub(super) fn with(access: Access, max_tracked: usize) -> Self {
        Self::configured(access, max_tracked, &[])
    }

    pub(super) fn configured(access: Access, max_tracked: usize, env: &[(&str, &str)]) -> Self {
        Self::of(access, env, |builder| builder.max_tracked(max_tracked))
    }

    pub(super) fn of(
        access: Access,
        env: &[(&str, &str)],
        change: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        let backend = FakeBackend::new(Arc::clone(&clock)).named("prometheus");
        backend.serve_pods(&model(), &["m-0", "m-1"]);
        let variant = VariantSpec {
            accelerator: Some("H100".into()),
            pods: "m-*".to_owned(),
            max_batch: Some(256),
            ..VariantSpec::new("m-h100", &model())
        };
        let builder = CachingCollector::builder(Arc::new(backend.clone()))
            .config(CacheConfig::default())
            .directory(Arc::new(StaticDirectory::new(vec![variant]).unwrap()))
            .clock(Arc::clone(&clock));
        let collector = Arc::new(change(builder).build().unwrap());
        let (lifecycle, watched) = watch::channel(Lifecycle::Serving);
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let loaded = Loader::new().env(env).read().unwrap();
        #[cfg(feature = "promql")]
        let backends = [Arc::new(backend.clone()) as Arc<dyn collector_core::Backend>];
        #[cfg(feature = "promql")]
        let promql = crate::server::Promql::new(
            &loaded,
            &backends,
            Arc::clone(&collector),
            Arc::clone(&clock),
            None,
        )
        .unwrap();
        let reloads_clock = Arc::clone(&clock);
        let events = Events::new(Arc::clone(&clock), watched.clone());
        events.follow(&collector, loaded.config.cache.freshness);
        let app = Arc::new(App {
            collector: Arc::clone(&collector),
            clock,
            recorder: Recorder::detached(),
            events,
            access: Arc::new(access),
            lifecycle: watched,
            ready: AtomicBool::new(false),
            loaded,
            reloads: Arc::new(Reloads::new(Arc::clone(&reloads_clock))),
            files: Arc::new(Semaphore::new(1)),
            reads: Arc::default(),
            page: Changes::default(),
            #[cfg(feature = "promql")]
            promql: promql.map(Arc::new),
        });
        Self { backend, collector, app, lifecycle }
    }

    pub(super) async fn get(&self, uri: &str) -> Answer {
        self.ask(Request::get(uri).body(Body::empty()).unwrap(), "127.0.0.1").await
    }

    pub(super) async fn ask(&self, mut request: Request<Body>, peer: &str) -> Answer {
        request.extensions_mut().insert(Peer(peer.parse::<IpAddr>().unwrap()));
        Answer::of(Front::new(Arc::clone(&self.app)).answer(request).await.unwrap()).await
    }
}

impl Answer {
    pub(super) async fn of(response: Response) -> Self {
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Self {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }
}
