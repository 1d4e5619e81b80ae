//! The routes of the HTTP API.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{delete, get};

use super::app::App;
use super::respond::{Refusal, limit_body};
use super::{api, events, health, metrics, page};
use crate::output::ErrorDocument;

impl App {
    /// The routes.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        let router = Router::new()
            .route("/", get(page::show))
            .route("/healthz", get(health::alive))
            .route("/readyz", get(health::ready))
            .route("/metrics", get(metrics::scrape))
            .route("/api/v1/replicas", get(api::replicas))
            .route("/api/v1/allocation", get(api::allocation))
            .route("/api/v1/models", get(api::models))
            .route("/api/v1/pace", get(api::pace))
            .route("/api/v1/events", get(events::listen))
            .route("/api/v1/cache", delete(api::drop_entries))
            .fallback(no_such_path)
            .method_not_allowed_fallback(no_such_method)
            .layer(middleware::from_fn(limit_body));
        // Before the limit on bodies: a query may come as a form.
        #[cfg(feature = "promql")]
        let router = router
            .layer(middleware::from_fn_with_state(self.promql.clone(), super::promql::intercept));
        let access = Arc::clone(&self.access);
        router
            .layer(middleware::from_fn_with_state(access, super::access::check))
            .layer(middleware::from_fn(harden))
            .with_state(self)
    }
}

async fn no_such_path(uri: Uri) -> Refusal {
    // A path may be as long as a request's head may be, and an error document should not.
    let path: String = uri.path().chars().take(100).collect();
    Refusal::new(
        StatusCode::NOT_FOUND,
        ErrorDocument::new("NotFound", format!("there is nothing at {path:?}")).with_hint(
            "there are /api/v1/replicas, /api/v1/allocation, /api/v1/models, /api/v1/pace, \
             /api/v1/events, /healthz, /readyz and /metrics",
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
