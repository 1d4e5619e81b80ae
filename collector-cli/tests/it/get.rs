// SPDX-License-Identifier: Apache-2.0
//! `get` and `check`: documents and exit codes.

use std::time::Duration;

use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use crate::fake_prometheus::{MODEL, NAMESPACE, answering, empty, with_one_model};
use crate::process::{collector_of, run};

const REPLICAS: [&str; 6] = ["get", "replicas", "-m", MODEL, "-n", NAMESPACE];

#[tokio::test]
async fn a_model_that_is_there_is_printed_with_its_age() {
    let server = with_one_model(Duration::from_secs(3)).await;
    let ended = run(collector_of(&server.uri()).args(["-o", "json"]), &REPLICAS);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let document = ended.json();
    assert_eq!(document["schemaVersion"], 1);
    assert_eq!(document["kind"], "replicas");
    assert_eq!(document["model"], MODEL);
    assert_eq!(document["status"], "fresh");
    assert_eq!(document["source"], "backend");
    assert_eq!(document["backend"], "prometheus");
    let age = document["ageSeconds"].as_f64().unwrap();
    assert!((2.9..10.0).contains(&age), "{age}");
    let replica = &document["replicas"][1];
    assert_eq!(replica["podName"], "m-1");
    assert_eq!(replica["variantName"], Value::Null);
    assert_eq!(replica["kvCacheUsage"], 0.42);
    assert_eq!(replica["queueLength"], 3);
    assert_eq!(replica["totalKvCapacityTokens"], 16_000);
}

#[tokio::test]
async fn every_form_of_a_reading_has_its_pods() {
    let server = with_one_model(Duration::ZERO).await;
    for form in ["table", "wide", "yaml", "prometheus"] {
        let ended = run(collector_of(&server.uri()).args(["-o", form]), &REPLICAS);
        assert_eq!(ended.exit, 0, "{form}: {}", ended.stderr);
        assert!(ended.stdout.contains("m-0") && ended.stdout.contains("m-1"), "{}", ended.stdout);
    }
}

#[tokio::test]
async fn models_are_listed() {
    let server = with_one_model(Duration::ZERO).await;
    let ended = run(&mut collector_of(&server.uri()), &["get", "models", "-o", "json"]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let item = &ended.json()["items"][0];
    assert_eq!(item["model"], MODEL);
    assert_eq!(item["namespace"], NAMESPACE);
    assert_eq!(item["tracked"], false);
}

#[tokio::test]
async fn a_missing_model_exits_with_3_and_names_its_neighbour() {
    let server = with_one_model(Duration::ZERO).await;
    let args = ["get", "replicas", "-m", "org/modle", "-n", NAMESPACE, "-o", "json"];
    let ended = run(&mut collector_of(&server.uri()), &args);
    assert_eq!(ended.exit, 3, "{}", ended.stderr);
    assert_eq!(ended.json()["error"]["reason"], "MetricsMissing");
    assert_eq!(ended.json()["error"]["suggestions"], json!([MODEL]));
    assert!(ended.stderr.contains("org/modle"), "{}", ended.stderr);

    let nothing = empty().await;
    let ended = run(&mut collector_of(&nothing.uri()), &REPLICAS);
    assert_eq!(ended.exit, 3, "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
}

#[tokio::test]
async fn metrics_beyond_the_threshold_exit_with_4() {
    let server = with_one_model(Duration::from_secs(45)).await;
    let mut command = collector_of(&server.uri());
    command
        .env("PROMETHEUS_METRICS_CACHE_FRESH_THRESHOLD", "10s")
        .env("PROMETHEUS_METRICS_CACHE_STALE_THRESHOLD", "20s")
        .env("PROMETHEUS_METRICS_CACHE_UNAVAILABLE_THRESHOLD", "30s")
        .env("PROMETHEUS_METRICS_CACHE_TTL", "5s")
        .env("PROMETHEUS_METRICS_CACHE_FETCH_INTERVAL", "5s")
        .args(["-o", "json"]);
    let ended = run(&mut command, &REPLICAS);
    assert_eq!(ended.exit, 4, "{}", ended.stderr);
    assert_eq!(ended.json()["error"]["reason"], "MetricsStale");
}

#[tokio::test]
async fn a_failed_backend_exits_with_5_and_says_where() {
    // Port 9 of loopback is closed everywhere.
    let ended = run(collector_of("http://127.0.0.1:9").args(["-o", "json"]), &REPLICAS);
    assert_eq!(ended.exit, 5, "{}", ended.stderr);
    assert_eq!(ended.json()["error"]["reason"], "PrometheusError");
    assert!(ended.stderr.contains("127.0.0.1:9"), "{}", ended.stderr);

    let login = answering(|_| {
        let page = "<html><script>alert(1)</script></html>";
        ResponseTemplate::new(200).set_body_raw(page, "text/html")
    });
    let login = login.await;
    let ended = run(&mut collector_of(&login.uri()), &REPLICAS);
    assert_eq!(ended.exit, 5, "{}", ended.stderr);
    assert!(!ended.stderr.contains("<script>"), "{}", ended.stderr);
}

#[tokio::test]
async fn an_accelerator_stands_for_its_only_variant() {
    let server = with_one_model(Duration::ZERO).await;
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let variant = |name: &str, accelerator: &str| {
        format!(
            "[[variants]]\nname = \"{name}\"\nnamespace = \"prod\"\nmodel = \"org/model\"\n\
             accelerator = \"{accelerator}\"\npods = \"{name}-*\"\n"
        )
    };
    let variants = [variant("m", "H100"), variant("n", "A100"), variant("o", "A100")];
    std::fs::write(file.path(), variants.concat()).unwrap();
    let get = |accelerator: &str| {
        let mut command = collector_of(&server.uri());
        command.arg("--config").arg(file.path());
        let args = ["get", "allocation", "-m", MODEL, "-n", NAMESPACE, "-o", "json"];
        run(command.args(args), &["--accelerator", accelerator])
    };
    let one = get("H100");
    assert_eq!(one.exit, 0, "{}", one.stderr);
    assert_eq!(one.json()["variant"], "m");
    assert_eq!(one.json()["numReplicas"], 2);

    let two = get("A100");
    assert_eq!(two.exit, 2, "{}", two.stderr);
    assert!(two.stderr.contains(r#"["n", "o"]"#), "{}", two.stderr);
    assert_eq!(two.stdout, "");

    let none = get("L4");
    assert_eq!(none.exit, 3, "{}", none.stderr);
    assert_eq!(none.json()["error"]["suggestions"], json!(["A100", "H100"]));
}

#[tokio::test]
async fn check_answers_0_or_1_whatever_is_wrong() {
    let server = with_one_model(Duration::ZERO).await;
    let of_model = ["check", "-m", MODEL, "-n", NAMESPACE, "-o", "json"];
    let ended = run(&mut collector_of(&server.uri()), &of_model);
    assert_eq!(ended.exit, 0, "{} {}", ended.stdout, ended.stderr);
    let checks = ended.json()["checks"].as_array().unwrap().clone();
    let groups = ["configuration.", "connection.", "metrics.", "model.", "timings."];
    for group in groups {
        let has = checks.iter().any(|check| check["id"].as_str().unwrap().starts_with(group));
        assert!(has, "no {group} in {checks:?}");
    }

    let of_other = ["check", "-m", "other", "-n", NAMESPACE];
    let ended = run(&mut collector_of(&server.uri()), &of_other);
    assert_eq!(ended.exit, 1);
    assert!(ended.stdout.contains('×'), "{}", ended.stdout);

    let ended = run(&mut collector_of("http://127.0.0.1:9"), &["check", "-o", "json"]);
    assert_eq!(ended.exit, 1);
}
