// SPDX-License-Identifier: Apache-2.0
//! What every request passes before its route is looked for. These are plain calls, not layers of the router, which would
//! allocate for each request; queries of autoscalers and readings are answered here, without the router.

use std::mem;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use collector_transport::server::Answering;
use tower::ServiceExt as _;

use super::api;
use super::app::App;
use super::metrics::http::{Counted, Routed};

/// The HTTP API as clients see it.
#[derive(Clone)]
pub(crate) struct Front {
    app: Arc<App>,
    routes: Router,
}

impl Front {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self { routes: Arc::clone(&app).router(), app }
    }

    /// Answers a request.
    pub(crate) fn answer(&self, mut request: Request) -> Answering {
        let front = self.clone();
        // Those below borrow the request: each future that it moves into would have room for it.
        Box::pin(async move { Ok(front.response(&mut request).await) })
    }

    async fn response(&self, request: &mut Request) -> Response {
        let counted = Counted::new(request);
        let (mut response, route) = match self.app.access.refusal(request) {
            Some(refusal) => (refusal, None),
            None => self.permitted(request).await,
        };
        harden(&mut response);
        if self.app.is_stopping() {
            // The next request must not arrive on a connection that is about to end.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        counted.answered(&response, route);
        response
    }

    async fn permitted(&self, request: &mut Request) -> Routed {
        #[cfg(feature = "promql")]
        if let Some(answer) = self.app.promql.as_ref().and_then(|promql| promql.answer(request)) {
            return answer.await;
        }
        if api::is_for_replicas(request) {
            return api::replicas_directly(&self.app, request).await;
        }
        let Ok(response) = Box::pin(self.routes.clone().oneshot(mem::take(request))).await;
        (response, None)
    }
}

/// No answer is taken for anything but what it says it is, nor kept by anybody on the way: its age
/// changes.
fn harden(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
