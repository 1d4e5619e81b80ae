// SPDX-License-Identifier: Apache-2.0
//! `explain`: which query and series each value came from.

use std::time::Duration;

use serde_json::Value;

use crate::fake_prometheus::{MODEL, NAMESPACE, empty, with_one_model};
use crate::process::{Served, collector_of, run};

const EXPLAIN: [&str; 5] = ["explain", "-m", MODEL, "-n", NAMESPACE];

#[tokio::test]
async fn each_value_has_its_query_series_and_ages() {
    let server = with_one_model(Duration::from_secs(3)).await;
    let ended = run(collector_of(&server.uri()).args(["-o", "json"]), &EXPLAIN);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let document = ended.json();
    assert_eq!((&document["kind"], &document["schemaVersion"]), (&"explain".into(), &1.into()));
    assert_eq!(document["reading"]["replicas"][0]["kvCacheUsage"], 0.42);
    let look = &document["backends"][0];
    assert_eq!((&look["backend"], &look["outcome"]), (&"prometheus".into(), &"found".into()));
    let rows = look["rows"].as_array().unwrap();
    let row = |field: &str, pod: Value| {
        let found = rows.iter().find(|row| row["field"] == field && row["pod"] == pod);
        found.unwrap_or_else(|| panic!("no row of {field} and {pod}: {look}"))
    };
    let usage = row("kvCacheUsage", "m-1".into());
    assert_eq!(usage["matched"], "vllm:kv_cache_usage_perc");
    assert_eq!((&usage["raw"], &usage["used"]), (&0.42.into(), &true.into()));
    let asked = usage["asked"].as_str().unwrap();
    assert!(asked.contains("max_over_time(vllm:kv_cache_usage_perc{"), "{asked}");
    let age = |key: &str| usage[key].as_f64().unwrap();
    assert!((2.9..10.0).contains(&age("sampledAgeSeconds")), "{usage}");
    assert!(age("askedAgeSeconds") >= age("answeredAgeSeconds"), "{usage}");
    // The load is the model's, or its pods'; whichever, it is summed and divided before it is shown.
    let load = rows.iter().find(|row| row["field"] == "arrivalRatePerMinute").unwrap();
    assert_eq!((&load["used"], &load["raw"]), (&Value::Null, &2.0.into()));
    assert_eq!(row("cacheConfig", "m-0".into())["raw"], 1000.0);
}

#[tokio::test]
async fn people_get_a_table_and_the_queries() {
    let server = with_one_model(Duration::ZERO).await;
    let ended = run(collector_of(&server.uri()).args(["-o", "wide"]), &EXPLAIN);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert!(ended.stdout.starts_with("prometheus: found"), "{}", ended.stdout);
    assert!(ended.stdout.contains("queueLength: max by ("), "{}", ended.stdout);
}

#[tokio::test]
async fn a_missing_model_is_explained_and_exits_with_3() {
    let server = empty().await;
    let ended = run(collector_of(&server.uri()).args(["-o", "json"]), &EXPLAIN);
    assert_eq!(ended.exit, 3);
    // One document, which holds the error and what each backend said.
    let document = ended.json();
    assert_eq!(document["error"]["reason"], "MetricsMissing");
    assert_eq!(document["reading"], Value::Null);
    assert_eq!(document["backends"][0]["outcome"], "missing");
    assert!(ended.stderr.contains("no metrics of model"), "{}", ended.stderr);
}

#[test]
fn a_failed_backend_is_shown() {
    let mut collector = collector_of("http://127.0.0.1:1");
    let ended = run(collector.args(["-o", "json"]), &EXPLAIN);
    assert_eq!(ended.exit, 5);
    let look = &ended.json()["backends"][0];
    assert_eq!(look["outcome"], "failed");
    assert!(look["error"].as_str().unwrap().contains("cannot connect"), "{look}");
}

#[test]
fn explain_shows_an_open_breaker() {
    // A port that nobody listens on.
    let ended = run(&mut collector_of("http://127.0.0.1:1"), &EXPLAIN);
    assert_eq!(ended.exit, 5, "{}", ended.stderr);
    let circuit = "its circuit is open: 3 of the last 3 fetches failed; it is asked again in ";
    assert!(ended.stdout.contains(circuit), "{}", ended.stdout);
    let ended = run(collector_of("http://127.0.0.1:1").args(["-o", "json"]), &EXPLAIN);
    let health = ended.json()["backends"][0]["health"].clone();
    assert_eq!((&health["breaker"], &health["recentFailures"]), (&"open".into(), &3.into()));
}

#[tokio::test]
async fn the_ttl_is_shown_with_its_reason() {
    let server = with_one_model(Duration::ZERO).await;
    let ended = run(&mut collector_of(&server.uri()), &EXPLAIN);
    assert!(ended.stdout.ends_with("\nttl 30s: cache.ttl\n"), "{}", ended.stdout);
    let ended = run(collector_of(&server.uri()).args(["-o", "json"]), &EXPLAIN);
    let pace = &ended.json()["pace"];
    assert_eq!((&pace["ttlSeconds"], &pace["reason"]), (&30.0.into(), &"configured".into()));
    assert_eq!((&pace["collector"], &pace["unknown"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn how_a_model_moves_is_asked_of_the_collector_that_runs() {
    let prometheus = with_one_model(Duration::ZERO).await;
    let mut command = collector_of(&prometheus.uri());
    let served = Served::start(command.env("COLLECTOR_CACHE__ADAPTIVE__ENABLED", "true"));
    let reading = format!("/api/v1/replicas?model={MODEL}&namespace={NAMESPACE}");
    assert_eq!(served.get(&reading).status, 200);

    let explain = |listen: &str| {
        let mut command = collector_of(&prometheus.uri());
        command.env("COLLECTOR_CACHE__ADAPTIVE__ENABLED", "true");
        run(command.env("COLLECTOR_SERVER__LISTEN", listen), &EXPLAIN).stdout
    };
    let address = served.address.to_string();
    let told = explain(&address);
    let says = format!("few fetches ago (says the collector at {address})\n");
    assert!(
        told.contains("\nttl 30s: watched, because it is new") && told.ends_with(&says),
        "{told}"
    );
    // The backend answers there as well.
    for (listen, cause) in
        [("127.0.0.1:1", "refused"), (&*prometheus.address().to_string(), "it is not a collector")]
    {
        let told = explain(listen);
        assert!(told.contains("\n  to begin with: no running collector answers at "), "{told}");
        assert!(told.contains(cause), "{told}");
    }
    let (exit, log) = served.stop("-TERM");
    assert_eq!(exit, Some(0), "{log}");
}
