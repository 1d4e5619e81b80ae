// SPDX-License-Identifier: Apache-2.0
//! Answers queries as a Prometheus would that scrapes one model, or nothing.

use std::time::Duration;

use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use crate::faults::fleet::{Fleet, vector, wall};
pub(crate) use crate::faults::fleet::{MODEL, NAMESPACE};

/// A Prometheus with two pods of [`MODEL`], last scraped so long ago.
pub(crate) async fn with_one_model(age: Duration) -> MockServer {
    of_fleet(Fleet::of_age(age.as_secs_f64())).await
}

/// What is asked at the start.
const TIME: &str = "vector(time())";

/// A Prometheus that scrapes nothing.
pub(crate) async fn empty() -> MockServer {
    of_fleet(Fleet::of_pods(&[])).await
}

async fn of_fleet(fleet: Fleet) -> MockServer {
    answering(move |request| {
        let time = parameter(request, "time").and_then(|time| time.parse().ok());
        // Other requests are answered as a query without rows.
        let document = match parameter(request, "query") {
            Some(query) => fleet.document(&query, time.unwrap_or_else(wall)),
            None => vector(&[]),
        };
        ResponseTemplate::new(200).set_body_raw(document, "application/json")
    })
    .await
}

/// A server that answers everything alike.
pub(crate) async fn answering(
    answer: impl Fn(&Request) -> ResponseTemplate + Send + Sync + 'static,
) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

/// A Prometheus that says what time it is, and answers nothing else.
pub(crate) async fn hanging() -> MockServer {
    let fleet = Fleet::of_pods(&[]);
    answering(move |request| match parameter(request, "query") {
        Some(query) if query == TIME => ResponseTemplate::new(200)
            .set_body_raw(fleet.document(&query, wall()), "application/json"),
        _ => ResponseTemplate::new(200).set_delay(Duration::from_secs(600)),
    })
    .await
}

/// Whether a server was asked for something else than its time.
pub(crate) async fn is_asked(server: &MockServer) -> bool {
    let requests = server.received_requests().await.unwrap();
    requests.iter().any(|request| parameter(request, "query").is_none_or(|query| query != TIME))
}

fn parameter(request: &Request, name: &str) -> Option<String> {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let form = request.url.query().map(str::to_owned).unwrap_or_default() + "&" + &body;
    let value = form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let value = value.replace('+', " ");
    Some(percent_encoding::percent_decode_str(&value).decode_utf8_lossy().into_owned())
}
