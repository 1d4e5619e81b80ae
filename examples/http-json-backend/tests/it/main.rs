// SPDX-License-Identifier: Apache-2.0
//! The backend through the conformance suite, and what is its own.

mod server;

use std::time::Duration;

use collector_core::{Ask, Backend, ErrorKind, ModelRef, SystemClock};
use collector_testkit::conformance::{self, BreakableServer, Breakage};
use http_json_backend::{HttpJson, InvalidToken};
use server::{Server, TOKEN};

#[tokio::test]
async fn the_backend_conforms() {
    let server = Server::start().await;
    let backend = HttpJson::new(server.url(), Some(TOKEN)).unwrap();
    conformance::backend(&backend, &server).await;
}

#[tokio::test]
async fn a_server_says_how_long_to_wait() {
    let server = Server::start().await;
    server.break_down(&Breakage::RateLimited).await;
    let backend = HttpJson::new(server.url(), None).unwrap();
    let models = [ModelRef::new("org/chat", "prod")];
    let error = backend.fetch(Ask::new(&models, &SystemClock::new())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn neither_the_token_nor_a_password_is_shown() {
    let backend = HttpJson::new("http://user:hunter2@localhost:1/fleet", Some(TOKEN)).unwrap();
    let models = [ModelRef::new("org/chat", "prod")];
    let error = backend.fetch(Ask::new(&models, &SystemClock::new())).await.unwrap_err();
    assert_eq!(error.subject(), "http://localhost:1/fleet");
    let shown = format!("{error} {error:?} {:?}", HttpJson::new("http://localhost", Some(TOKEN)));
    assert!(!shown.contains("hunter2") && !shown.contains(TOKEN), "{shown}");
    assert_eq!(HttpJson::new("http://localhost", Some("a\nb")).err(), Some(InvalidToken));
}
