// SPDX-License-Identifier: Apache-2.0
//! What every request passes before its route is looked for. These are plain calls, not layers of the router, which would
//! allocate for each request; queries of autoscalers and readings are answered here, without the router.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use tower::{Service, ServiceExt as _};

use super::api;
use super::app::App;
use super::metrics::http::Counted;

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

    async fn answer(self, request: Request) -> Response {
        let counted = Counted::new(&request);
        let app = Arc::clone(&self.app);
        let mut response = match self.app.access.refusal(&request) {
            Some(refusal) => refusal,
            None => self.permitted(request).await,
        };
        harden(&mut response);
        if app.is_stopping() {
            // The next request must not arrive on a connection that is about to end.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        counted.answered(&response);
        response
    }

    async fn permitted(self, request: Request) -> Response {
        #[cfg(feature = "promql")]
        let request = match &self.app.promql {
            Some(promql) => match promql.answer(request).await {
                Ok(response) => return response,
                Err(other) => other,
            },
            None => request,
        };
        if api::is_for_replicas(&request) {
            return api::replicas_directly(&self.app, &request.into_parts().0).await;
        }
        let Ok(response) = self.routes.oneshot(request).await;
        response
    }
}

impl Service<Request> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let front = self.clone();
        Box::pin(async move { Ok(front.answer(request).await) })
    }
}

/// No answer is taken for anything but what it says it is, nor kept by anybody on the way: its age
/// changes.
fn harden(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}
