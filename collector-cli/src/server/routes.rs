// SPDX-License-Identifier: Apache-2.0
//! The routes of the HTTP API.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post};

use super::app::App;
use super::respond::{Refusal, limit_body};
use super::{api, events, health, metrics, openapi, page, read};
use crate::output::ErrorDocument;

/// The paths that docs/openapi.json describes: all but those of the page.
pub(super) fn routes() -> [(&'static str, MethodRouter<Arc<App>>); 12] {
    [
        ("/healthz", get(health::alive)),
        ("/readyz", get(health::ready)),
        ("/metrics", get(metrics::scrape)),
        ("/api/openapi.json", get(openapi::document)),
        ("/api/schemas/{name}", get(openapi::schema)),
        ("/api/v1/allocation", get(api::allocation)),
        ("/api/v1/cache", delete(api::drop_entries)),
        ("/api/v1/events", get(events::listen)),
        ("/api/v1/models", get(api::models)),
        ("/api/v1/pace", get(api::pace)),
        (read::PATH, post(read::read)),
        (api::REPLICAS, get(api::replicas)),
    ]
}

impl App {
    /// The routes, without the PromQL API.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        routes()
            .into_iter()
            .fold(page::routes(), |router, (path, method)| router.route(path, method))
            .fallback(no_such_path)
            .method_not_allowed_fallback(no_such_method)
            .layer(middleware::from_fn(answer))
            .with_state(self)
    }
}

/// Adds to an answer the route that it was found by, for the counters.
async fn answer(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = limit_body(request, next).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

async fn no_such_path(uri: Uri) -> Refusal {
    // A path may be as long as a request's head may be, and an error document should not.
    let path: String = uri.path().chars().take(100).collect();
    Refusal::new(
        StatusCode::NOT_FOUND,
        ErrorDocument::new("NotFound", format!("there is nothing at {path:?}")).with_hint(
            "there are /api/v1/replicas, /api/v1/allocation, /api/v1/models, /api/v1/pace, \
             /api/v1/events, /healthz, /readyz and /metrics; /api/openapi.json describes them",
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
