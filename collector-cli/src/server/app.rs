//! The routes, and what their handlers share.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{delete, get};
use collector_config::{LeftOut, Loaded};
use collector_core::{Clock, MetricsCollector, ModelRef};
use tokio::sync::watch;

use super::admin::{self, Admin};
use super::health::{self, Readiness};
use super::metrics::{self, Recorder};
use super::respond::{Refusal, limit_body};
use super::{pace, page, readings};
use crate::output::ErrorDocument;

/// What the handlers share.
pub(crate) struct App {
    pub(super) collector: Arc<dyn MetricsCollector>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) readiness: Readiness,
    pub(super) recorder: Recorder,
    pub(super) admin: Admin,
    pub(super) lifecycle: watch::Receiver<Lifecycle>,
    /// What the collector was made from.
    loaded: Loaded,
}

/// How far the server is from its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Lifecycle {
    /// Requests are taken.
    Serving,
    /// No connection is taken any more; requests under way go on.
    Stopping,
    /// Requests under way end with an error now, because the process is about to leave.
    Leaving,
}

/// Who sent a request.
#[derive(Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

impl App {
    /// What serves this collector's readings. `refreshes` tells whether there are background
    /// cycles to wait for before it is ready.
    pub(crate) fn new(
        collector: Arc<dyn MetricsCollector>,
        clock: Arc<dyn Clock>,
        recorder: Recorder,
        admin: Admin,
        refreshes: bool,
        lifecycle: watch::Receiver<Lifecycle>,
        loaded: Loaded,
    ) -> Arc<Self> {
        Arc::new(Self {
            collector,
            clock,
            readiness: Readiness::new(refreshes),
            recorder,
            admin,
            lifecycle,
            loaded,
        })
    }

    /// The routes.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/", get(page::show))
            .route("/healthz", get(health::alive))
            .route("/readyz", get(health::ready))
            .route("/metrics", get(metrics::scrape))
            .route("/api/v1/replicas", get(readings::replicas))
            .route("/api/v1/allocation", get(readings::allocation))
            .route("/api/v1/models", get(readings::models))
            .route("/api/v1/pace", get(pace::show))
            .route("/api/v1/cache", delete(admin::drop_entries))
            .fallback(no_such_path)
            .method_not_allowed_fallback(no_such_method)
            .layer(middleware::from_fn(limit_body))
            .layer(middleware::from_fn(harden))
            .with_state(self)
    }

    /// Refuses a model whose namespace the configuration lets no backend read.
    pub(super) fn reads_namespace_of(&self, model: &ModelRef) -> Result<(), Refusal> {
        match self.loaded.left_out(model.namespace.as_str()) {
            None => Ok(()),
            Some(LeftOut { message, remedy }) => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                ErrorDocument::new("MetricsMissing", message).with_hint(remedy),
            )),
        }
    }

    /// Resolves when requests under way have to end.
    pub(super) async fn leaving(&self) {
        Lifecycle::Leaving.reached(self.lifecycle.clone()).await;
    }
}

impl Lifecycle {
    /// Resolves when it has come so far.
    pub(crate) async fn reached(self, mut lifecycle: watch::Receiver<Self>) {
        // A sender that is gone belongs to a server that is gone, so that is the end too.
        let _ = lifecycle.wait_for(|current| *current >= self).await;
    }
}

async fn no_such_path(uri: Uri) -> Refusal {
    // A path may be as long as a request's head may be, and an error document should not.
    let path: String = uri.path().chars().take(100).collect();
    Refusal::new(
        StatusCode::NOT_FOUND,
        ErrorDocument::new("NotFound", format!("there is nothing at {path:?}")).with_hint(
            "there are /api/v1/replicas, /api/v1/allocation, /api/v1/models, /api/v1/pace, \
             /healthz, /readyz and /metrics",
        ),
    )
}

// axum adds the header `Allow` to this answer.
async fn no_such_method(method: Method) -> Refusal {
    let method: String = method.as_str().chars().take(20).collect();
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        ErrorDocument::new(
            "MethodNotAllowed",
            format!("{method} does not work here; the header Allow says what does"),
        ),
    )
}

/// No answer is taken for anything but what it says it is, nor kept by anybody on the way: its age
/// changes.
async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
