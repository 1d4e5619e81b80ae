//! Counts the requests to the HTTP API, by route and never by path: paths are what clients make up.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};
use tokio::time::Instant;

const REQUESTS: &str = "collector_http_requests_total";
pub(in crate::server) const DURATION: &str = "collector_http_request_duration_seconds";
/// The route of a path that does not exist.
const OTHER: &str = "other";

/// The route of an answer whose path is not one of the router's; a handler adds it to the answer.
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

/// Counts a request once its answer begins. One whose client goes away before is not counted.
pub(in crate::server) async fn count(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER,
    };
    let begun = Instant::now();
    let response = next.run(request).await;
    let took = begun.elapsed().as_secs_f64();
    let route = match response.extensions().get::<Route>() {
        Some(Route(route)) => (*route).to_owned(),
        None => route.map_or_else(|| OTHER.to_owned(), |route| route.as_str().to_owned()),
    };
    let code = response.status().as_str().to_owned();
    counter!(REQUESTS, "route" => route.clone(), "method" => method, "code" => code).increment(1);
    histogram!(DURATION, "route" => route).record(took);
    response
}
