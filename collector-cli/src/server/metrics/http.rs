// SPDX-License-Identifier: Apache-2.0
//! Counts the requests to the HTTP API, by route and never by path: paths are what clients make up.

use std::sync::OnceLock;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use metrics::{
    Counter, Histogram, SharedString, Unit, counter, describe_counter, describe_histogram,
    histogram,
};
use tokio::time::Instant;

const REQUESTS: &str = "collector_http_requests_total";
pub(in crate::server) const DURATION: &str = "collector_http_request_duration_seconds";
/// The route of a path that does not exist, and of a request whose path was not looked at.
const OTHER: &str = "other";

/// The route of an answer that is not the router's.
pub(in crate::server) struct Route {
    name: &'static str,
    /// The series of what most of its requests are: to look them up takes longer than to count.
    get_ok: OnceLock<(Counter, Histogram)>,
}

impl Route {
    pub(in crate::server) const fn new(name: &'static str) -> Self {
        Self { name, get_ok: OnceLock::new() }
    }
}

/// An answer, with its route; the router adds its own to the answer ([`MatchedPath`]).
pub(in crate::server) type Routed = (Response, Option<&'static Route>);

fn series(route: SharedString, method: &'static str, code: SharedString) -> (Counter, Histogram) {
    let requests = counter!(REQUESTS, "route" => route.clone(), "method" => method, "code" => code);
    (requests, histogram!(DURATION, "route" => route))
}

fn count((requests, duration): &(Counter, Histogram), took: f64) {
    requests.increment(1);
    duration.record(took);
}

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
    let (requests, _) = series("/metrics".into(), "GET", "200".into());
    requests.increment(0);
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
    pub(in crate::server) fn answered(self, response: &Response, route: Option<&Route>) {
        let took = self.begun.elapsed().as_secs_f64();
        let status = response.status();
        let code = || SharedString::from(status.as_str().to_owned());
        let of_router = || response.extensions().get::<MatchedPath>();
        match route {
            Some(route) if (self.method, status) == ("GET", StatusCode::OK) => {
                let of_route = || series(route.name.into(), "GET", "200".into());
                count(route.get_ok.get_or_init(of_route), took);
            }
            Some(route) => count(&series(route.name.into(), self.method, code()), took),
            None => {
                let route = of_router().map_or(OTHER, MatchedPath::as_str).to_owned();
                count(&series(route.into(), self.method, code()), took);
            }
        }
    }
}
