// SPDX-License-Identifier: Apache-2.0
//! Requests of clients, passed to the server with the backend's credentials.

use std::time::Duration;

use collector_core::{BackendError, ErrorKind};
use collector_prometheus::{PassedAnswer, PassedRequest};
use wiremock::ResponseTemplate;

use crate::fake::{Fake, error, vector};

async fn pass(fake: &Fake, path: &str) -> Result<PassedAnswer, BackendError> {
    let parameters = [("query".to_owned(), "up{a=\"b c\"}".to_owned())];
    let headers = [("x-scope-orgid".to_owned(), "team-b".to_owned())];
    let request = PassedRequest { path, parameters: &parameters, headers: &headers };
    fake.backend.pass(request, Duration::from_secs(20)).await
}

#[tokio::test]
async fn the_answer_is_unchanged_and_the_credentials_are_ours() {
    let fake = Fake::with(|config| {
        config.url = format!("{}/prom", config.url);
        config.bearer_token = Some("hunter2".into());
    })
    .await;
    fake.always(vector(&[]));
    let answer = pass(&fake, "api/v1/query").await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.content_type.as_deref(), Some("application/json"));
    let asked = fake.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!((&*asked[0].method, &*asked[0].path), ("POST", "/prom/api/v1/query"));
    assert_eq!(asked[0].query, "up{a=\"b c\"}");
    assert_eq!(asked[0].header("authorization"), "Bearer hunter2");
    assert_eq!(asked[0].header("x-scope-orgid"), "team-b");

    fake.always(error(422, "execution", "query of hunter2 is too wide"));
    let answer = pass(&fake, "api/v1/query").await.unwrap();
    let body = String::from_utf8(answer.body).unwrap();
    assert_eq!(answer.status, 422);
    assert!(body.contains("is too wide") && !body.contains("hunter2"), "{body}");
}

#[tokio::test]
async fn a_server_that_refuses_post_gets_the_request_with_get() {
    let fake = Fake::start().await;
    fake.always(vector(&[]));
    fake.rule(|asked| (asked.method == "POST").then(|| ResponseTemplate::new(405)));
    assert_eq!(pass(&fake, "api/v1/query").await.unwrap().status, 200);
    assert_eq!(pass(&fake, "api/v1/query").await.unwrap().status, 200);
    let asked = fake.asked();
    let methods: Vec<&str> = asked.iter().map(|asked| &*asked.method).collect();
    assert_eq!(methods, ["POST", "GET", "GET"]);
    assert!(asked.iter().all(|asked| asked.query == "up{a=\"b c\"}"), "{asked:?}");
}

#[tokio::test]
async fn a_rejected_credential_of_ours_is_an_error() {
    let fake = Fake::with(|config| config.bearer_token = Some("hunter2".into())).await;
    fake.always(ResponseTemplate::new(401));
    let failure = pass(&fake, "api/v1/query").await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Unauthorized);
    assert!(failure.to_string().contains("prometheus.bearer_token"), "{failure}");
}

#[tokio::test]
async fn no_path_leaves_the_server() {
    let elsewhere = Fake::start().await;
    let other = format!("{}/api/v1/query", elsewhere.server.uri());
    let fake = Fake::with(|config| {
        config.url = format!("{}/prom", config.url);
        config.bearer_token = Some("hunter2".into());
    })
    .await;
    for path in [&*other, "//127.0.0.1:9/api/v1/query", "/admin", "../admin", "api/../../admin"] {
        let failure = pass(&fake, path).await.unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::NotFound, "{path}");
        assert!(failure.to_string().contains("is not a path of the server"), "{failure}");
    }
    assert!(fake.asked().is_empty() && elsewhere.asked().is_empty());
}
