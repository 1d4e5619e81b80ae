// SPDX-License-Identifier: Apache-2.0
//! What runs of one configuration, and how the next one takes its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use collector_config::NamedBackend;
use collector_core::Backend;
use collector_engine::CachingCollector;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::commands::settings::Settings;
use crate::exit::Failure;
#[cfg(feature = "promql")]
use crate::server::Promql;
use crate::server::{
    Access, App, Changes, Door, Events, Front, Lifecycle, MAX_HEAD_BYTES,
    MAX_HEAD_WITH_QUERY_BYTES, ReadPlaces, Recorder, Reloads,
};

/// How long the fetches of a former collector are waited for. Those that take longer go on and answer their callers.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// What stays, whatever the configuration says.
pub(super) struct Fixed {
    pub(super) recorder: Recorder,
    pub(super) lifecycle: watch::Receiver<Lifecycle>,
    pub(super) reloads: Arc<Reloads>,
    pub(super) events: Arc<Events>,
    pub(super) reads: Arc<ReadPlaces>,
}

/// What runs of one configuration.
pub(super) struct Running {
    pub(super) settings: Settings,
    /// With the names of the key `backend`, in their order.
    pub(super) backends: Vec<NamedBackend>,
    pub(super) collector: Arc<CachingCollector>,
    pub(super) app: Arc<App>,
}

impl Running {
    /// Builds everything, and starts nothing. Backends of `former` whose settings are the same are kept.
    ///
    /// # Errors
    /// What in the configuration cannot be used.
    pub(super) fn build(
        fixed: &Fixed,
        settings: Settings,
        former: Option<&Self>,
    ) -> Result<Self, Failure> {
        let config = &settings.loaded.config;
        #[cfg(not(feature = "promql"))]
        if config.promql.enabled {
            return Err(Failure::usage(
                "promql.enabled: this build has no PromQL API (cargo feature promql)",
            ));
        }
        #[cfg(not(feature = "keda"))]
        if config.keda.listen.is_some() {
            return Err(Failure::usage(
                "keda.listen: this build has no external scaler (cargo feature keda)",
            ));
        }
        #[cfg(not(feature = "kubernetes"))]
        if config.external_metrics.enabled {
            return Err(Failure::usage(
                "external_metrics.enabled: this build has no External Metrics API (cargo feature kubernetes)",
            ));
        }
        let access = Arc::new(Access::new(&config.server)?);
        let named = settings.backends_besides(|name| {
            former.map(|former| former.kept(name, &settings)).unwrap_or_default()
        })?;
        let backends: Vec<_> = named.iter().map(|(_, backend)| Arc::clone(backend)).collect();
        let collector = settings.collector_over(backends.clone())?;
        let renewed = !config.cache.fetch_interval.is_zero()
            || backends.iter().any(|backend| backend.live().is_some());
        let refreshes = config.cache.enabled && renewed;
        let was_ready = former.is_some_and(|former| former.app.ready.load(Ordering::Relaxed));
        #[cfg(feature = "promql")]
        let promql = {
            let (collector, clock) = (Arc::clone(&collector), Arc::clone(&settings.clock));
            let former = former.and_then(|former| former.app.promql.as_deref());
            Promql::new(&settings.loaded, &backends, collector, clock, former)?.map(Arc::new)
        };
        let app = Arc::new(App {
            collector: Arc::clone(&collector),
            clock: Arc::clone(&settings.clock),
            recorder: fixed.recorder.clone(),
            access,
            events: Arc::clone(&fixed.events),
            lifecycle: fixed.lifecycle.clone(),
            ready: AtomicBool::new(!refreshes || was_ready),
            loaded: settings.loaded.clone(),
            reloads: Arc::clone(&fixed.reloads),
            files: Arc::new(Semaphore::new(1)),
            reads: Arc::clone(&fixed.reads),
            page: Changes::default(),
            #[cfg(feature = "promql")]
            promql,
        });
        Ok(Self { settings, backends: named, collector, app })
    }

    /// The backends of this name, if other settings describe the same ones.
    fn kept(&self, name: &str, settings: &Settings) -> Vec<Arc<dyn Backend>> {
        let (before, after) = (&self.settings.loaded, &settings.loaded);
        // A backend is told at its start whether to keep what the PromQL API needs, which depends on the others.
        let (queries, others) = (after.config.promql.enabled, &after.config.backend);
        let is_one = others.iter().any(|other| other == name);
        if is_one && (before.config.promql.enabled != queries || before.config.backend != *others) {
            return Vec::new();
        }
        let is_kept = after.keeps_backend(name, before);
        let of_name = self.backends.iter().filter(|(other, _)| is_kept && other == name);
        of_name.map(|(_, backend)| Arc::clone(backend)).collect()
    }

    /// Starts the background refresh.
    pub(super) async fn start(&self) -> Result<(), Failure> {
        self.collector.start_background_worker().await.map_err(Failure::other)?;
        self.app.events.follow(&self.collector, self.settings.loaded.config.cache.freshness);
        Ok(())
    }

    /// Starts in the place of `former`, with what that one knows. Readers go on with `former` until this returns.
    pub(super) async fn start_after(&self, former: &Self) -> Result<(), Failure> {
        if timeout(STOP_LIMIT, former.collector.stop_background_worker()).await.is_err() {
            tracing::debug!("Requests of the previous collector are still in flight");
        }
        self.collector.take_over(&former.collector);
        self.start().await
    }

    /// What the HTTP API serves.
    pub(super) fn door(&self) -> Door {
        let queries = self.settings.loaded.config.promql.enabled;
        let front = Front::new(Arc::clone(&self.app));
        Door {
            answer: Arc::new(move |request| front.answer(request)),
            max_head_bytes: if queries { MAX_HEAD_WITH_QUERY_BYTES } else { MAX_HEAD_BYTES },
        }
    }
}
