// SPDX-License-Identifier: Apache-2.0
//! The states that must be told apart: nothing tracked, nothing known, nothing that answers.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{ErrorKind, ModelRef, Supports};
use collector_engine::{Builder, CachingCollector, Discovery};
use collector_testkit::{FakeBackend, TokioClock};
use serde_json::{Value, json};

use super::DiscoveryDocument;

/// Starts a collector over a backend that has two models and returns the document after a second.
async fn document_of(
    backend: impl FnOnce(FakeBackend) -> FakeBackend,
    change: impl FnOnce(Builder) -> Builder,
) -> Value {
    let clock = Arc::new(TokioClock::new());
    let fake = FakeBackend::new(clock.clone()).named("prometheus");
    fake.serve_pods(&ModelRef::new("org/m", "prod"), &["m-0"]);
    fake.serve_pods(&ModelRef::new("org/n", "dev"), &["x-0"]);
    let builder = CachingCollector::builder(Arc::new(backend(fake))).clock(clock);
    let collector = change(builder).build().unwrap();
    collector.start_background_worker().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    serde_json::to_value(DiscoveryDocument::new(&collector.state())).unwrap()
}

fn discovering(builder: Builder) -> Builder {
    builder.discover(Discovery::default())
}

#[tokio::test(start_paused = true)]
async fn models_that_are_all_tracked_need_no_message() {
    let document = document_of(|fake| fake, discovering).await;
    assert_eq!((&document["enabled"], &document["status"]), (&json!(true), &json!("models")));
    assert_eq!(document["message"], Value::Null);
    let backend = &document["backends"][0];
    assert_eq!((&backend["name"], &backend["models"]), (&json!("prometheus"), &json!(2)));
    assert_eq!((&backend["error"], backend["ageSeconds"].is_number()), (&Value::Null, true));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_fails_is_named_with_its_error() {
    let failing = |fake: FakeBackend| {
        fake.fail(ErrorKind::Connect);
        fake
    };
    let document = document_of(failing, discovering).await;
    assert_eq!(document["status"], "failed");
    let message = document["message"].as_str().unwrap();
    assert!(message.starts_with("the models of prometheus cannot be listed: "), "{message}");
    let backend = &document["backends"][0];
    assert_eq!((&backend["models"], backend["error"].is_string()), (&Value::Null, true));
    let document = document_of(|fake| failing(fake.named("kubernetes")), discovering).await;
    let message = document["message"].as_str().unwrap();
    assert!(message.starts_with("the objects of the cluster cannot be listed: "), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_without_models_is_not_one_that_fails() {
    let empty = |fake: FakeBackend| {
        fake.remove(&ModelRef::new("org/m", "prod"));
        fake.remove(&ModelRef::new("org/n", "dev"));
        fake
    };
    let document = document_of(empty, discovering).await;
    assert_eq!(
        (&document["status"], &document["backends"][0]["models"]),
        (&json!("none"), &json!(0))
    );
    let message = |document: &Value| document["message"].as_str().unwrap().to_owned();
    assert!(message(&document).contains("`collector check`"), "{document}");
    assert!(!message(&document).contains("cluster"), "{document}");
    let document = document_of(|fake| empty(fake.named("kubernetes")), discovering).await;
    assert!(message(&document).contains("does an object of the cluster describe a model?"));
}

#[tokio::test(start_paused = true)]
async fn with_one_backend_empty_and_another_failing_it_is_unknown_what_there_is() {
    let clock = Arc::new(TokioClock::new());
    let failing = FakeBackend::new(clock).named("scrape");
    failing.fail(ErrorKind::Timeout);
    let empty = |fake: FakeBackend| {
        fake.remove(&ModelRef::new("org/m", "prod"));
        fake.remove(&ModelRef::new("org/n", "dev"));
        fake
    };
    let document = document_of(empty, |it| discovering(it).also(Arc::new(failing))).await;
    assert_eq!(document["status"], "failed", "{document}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_cannot_list_is_not_one_that_fails() {
    let document = document_of(|fake| fake.supporting(Supports::REPLICAS_ONLY), discovering).await;
    assert_eq!(document["status"], "unsupported");
    assert!(document["message"].as_str().unwrap().contains("once they are read"), "{document}");
}

#[tokio::test(start_paused = true)]
async fn what_is_left_out_is_counted_with_the_key_that_leaves_it_out() {
    let document = document_of(|fake| fake, |it| discovering(it).max_tracked(1)).await;
    assert_eq!(document["leftOut"], 1);
    assert_eq!(document["message"], "1 known model is left out because of server.max_tracked");

    let of = |namespace: &str| Discovery {
        namespaces: [namespace.into()].into(),
        ..Discovery::default()
    };
    let document = document_of(|fake| fake, |it| it.discover(of("prod"))).await;
    assert_eq!((&document["excluded"], &document["message"]), (&json!(1), &Value::Null));
    let document = document_of(|fake| fake, |it| it.discover(of("prd"))).await;
    let expected = "no known model is in a namespace of tracking.namespaces";
    assert_eq!((&document["excluded"], &document["message"]), (&json!(2), &json!(expected)));
}

#[tokio::test(start_paused = true)]
async fn known_models_are_counted_where_none_is_tracked() {
    let off = Discovery { track: false, ..Discovery::default() };
    let document = document_of(|fake| fake, |it| it.discover(off)).await;
    assert_eq!((&document["enabled"], &document["status"]), (&json!(false), &json!("models")));
    assert_eq!(document["backends"][0]["models"], 2);
    let document = document_of(|fake| fake, |it| it).await;
    assert_eq!(document, Value::Null);
}
