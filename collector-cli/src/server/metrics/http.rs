// SPDX-License-Identifier: Apache-2.0
//! Counts the requests to the HTTP API, by route and never by path: paths are what clients make up.

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use metrics::{SharedString, Unit, counter, describe_counter, describe_histogram, histogram};
use tokio::time::Instant;

const REQUESTS: &str = "collector_http_requests_total";
pub(in crate::server) const DURATION: &str = "collector_http_request_duration_seconds";
/// The route of a path that does not exist, and of a request whose path was not looked at.
const OTHER: &str = "other";

/// The route of an answer whose path is not one of the router's; a handler adds it to the answer, as the router does with
/// its own ([`MatchedPath`]).
#[derive(Clone, Copy)]
pub(in crate::server) struct Route(pub(in crate::server) &'static str);

/// Shows the families before there are any requests.
pub(in crate::server) fn announce() {
    describe_counter!(
        REQUESTS,
        Unit::Count,
        "Requests to the HTTP API, by route, method and status."
    );
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "Time from a request's head to its answer's, by route."
    );
    counter!(REQUESTS, "route" => "/metrics", "method" => "GET", "code" => "200").increment(0);
    let _ = histogram!(DURATION, "route" => "/metrics");
}

/// A request whose answer is not there yet.
pub(in crate::server) struct Counted {
    method: &'static str,
    begun: Instant,
}

impl Counted {
    pub(in crate::server) fn new(request: &Request) -> Self {
        let method = match *request.method() {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::DELETE => "DELETE",
            Method::OPTIONS => "OPTIONS",
            _ => OTHER,
        };
        Self { method, begun: Instant::now() }
    }

    /// Counts the request once its answer begins. One whose client goes away before is not counted.
    pub(in crate::server) fn answered(self, response: &Response) {
        let took = self.begun.elapsed().as_secs_f64();
        let of_router = || response.extensions().get::<MatchedPath>();
        let route: SharedString = match response.extensions().get::<Route>() {
            Some(Route(route)) => SharedString::const_str(route),
            None => of_router().map_or(OTHER.into(), |route| route.as_str().to_owned().into()),
        };
        let code: SharedString = match response.status() {
            StatusCode::OK => "200".into(),
            status => status.as_str().to_owned().into(),
        };
        let (to, method) = (route.clone(), self.method);
        counter!(REQUESTS, "route" => to, "method" => method, "code" => code).increment(1);
        histogram!(DURATION, "route" => route).record(took);
    }
}
