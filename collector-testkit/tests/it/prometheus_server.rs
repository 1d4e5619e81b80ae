// SPDX-License-Identifier: Apache-2.0
//! A real Prometheus sees the simulated fleet as it truly is.

use collector_sim::{
    EngineKind, EngineSpec, FleetServer, FleetSpec, Gauges, MetricNames, PickerNames, PickerSpec,
    PodLabel, VariantSpec,
};
use collector_testkit::{PrometheusOptions, PrometheusServer};
use serde_json::Value;

async fn fleet() -> FleetServer {
    let variant = VariantSpec::new("llama", "meta-llama/Llama-3.1-8B-Instruct", "chat");
    let spec = FleetSpec { variants: vec![variant], ..FleetSpec::default() };
    FleetServer::start(spec).await.unwrap()
}

/// The samples of an instant query, as (labels, value).
async fn query(server: &PrometheusServer, query: &str) -> Vec<(Value, f64)> {
    let answer = server.get(&format!("/api/v1/query?query={query}")).await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer["data"]["result"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["metric"].clone(), row["value"][1].as_str().unwrap().parse().unwrap()))
        .collect()
}

/// The pods that an instant query finds, sorted.
async fn pods(server: &PrometheusServer) -> Vec<String> {
    let mut pods: Vec<_> = query(server, "vllm:num_requests_running")
        .await
        .into_iter()
        .map(|(labels, _)| labels["pod"].as_str().unwrap().to_owned())
        .collect();
    pods.sort();
    pods
}

#[tokio::test]
async fn a_stored_scrape_of_a_frozen_fleet_is_its_truth() {
    let fleet = fleet().await;
    let Some(server) = PrometheusServer::start_or_skip(&fleet, PrometheusOptions::default()).await
    else {
        return;
    };
    fleet
        .pin("chat", "llama-1", 0, Gauges { waiting: 7, running: 3, kv_cache_usage: 0.5 })
        .unwrap();
    fleet.freeze();
    server.stored_scrape(&fleet).await.unwrap();

    let rows = query(&server, "vllm:num_requests_running").await;
    assert_eq!(rows.len(), 2);
    for (labels, value) in rows {
        assert_eq!(labels["namespace"], "chat");
        assert_eq!(labels["model_name"], "meta-llama/Llama-3.1-8B-Instruct");
        assert_eq!(labels["engine"], "0");
        let truth = fleet.truth("chat", labels["pod"].as_str().unwrap()).unwrap();
        assert!((value - f64::from(truth.running())).abs() < f64::EPSILON, "{labels} {value}");
    }
}

#[tokio::test]
async fn every_kind_of_page_is_read() {
    let variant = |name: &str, engine: EngineSpec| VariantSpec {
        pods: 1,
        engine: EngineSpec { page_bytes: Some(150_000), ..engine },
        ..VariantSpec::new(name, "a\"b\\c\nd", name)
    };
    let kind = |kind| EngineSpec { kind, ..EngineSpec::default() };
    let lora_adapters = vec!["sql".to_owned(), "tweets".to_owned()];
    let variants = vec![
        variant("v1", EngineSpec { lora_adapters, ..kind(EngineKind::Vllm) }),
        variant("v0", EngineSpec { names: MetricNames::V0, ..kind(EngineKind::Vllm) }),
        variant("sglang", EngineSpec { engines: 2, ..kind(EngineKind::Sglang) }),
        variant("trtllm", kind(EngineKind::TrtllmServe)),
        variant("triton", kind(EngineKind::TritonTensorrtLlm)),
    ];
    let picker =
        |namespace: &str, names| PickerSpec { names, ..PickerSpec::new("pool", namespace) };
    let pickers = vec![
        picker("v1", PickerNames::Legacy),
        picker("v0", PickerNames::Router),
        picker("sglang", PickerNames::LlmD),
    ];
    let spec = FleetSpec { variants, pickers, ..FleetSpec::default() };
    let fleet = FleetServer::start(spec).await.unwrap();
    let Some(server) = PrometheusServer::start_or_skip(&fleet, PrometheusOptions::default()).await
    else {
        return;
    };
    server.stored_scrape(&fleet).await.unwrap();
    let up = query(&server, "up").await;
    assert_eq!(up.len(), 8);
    for (labels, up) in up {
        assert!(up > 0.5, "{labels}");
    }
}

#[tokio::test]
async fn pods_that_come_and_go_are_targets_that_come_and_go() {
    let fleet = fleet().await;
    let options = PrometheusOptions { pod_label: PodLabel::Pod, ..PrometheusOptions::default() };
    let Some(server) = PrometheusServer::start_or_skip(&fleet, options).await else {
        return;
    };
    server.stored_scrape(&fleet).await.unwrap();
    assert_eq!(pods(&server).await, ["llama-0", "llama-1"]);

    fleet.add_pod("chat", "llama").await.unwrap();
    fleet.kill_pod("chat", "llama-0").await.unwrap();
    server.stored_scrape(&fleet).await.unwrap();
    assert_eq!(pods(&server).await, ["llama-1", "llama-2"]);

    fleet.delete_pod("chat", "llama-1").await.unwrap();
    server.stored_scrape(&fleet).await.unwrap();
    assert_eq!(pods(&server).await, ["llama-2"]);
}

#[tokio::test]
async fn a_stopped_server_refuses_and_starts_again_with_its_data() {
    let fleet = fleet().await;
    let Some(mut server) =
        PrometheusServer::start_or_skip(&fleet, PrometheusOptions::default()).await
    else {
        return;
    };
    server.stored_scrape(&fleet).await.unwrap();
    let url = server.url();

    server.stop();
    let error = server.get("/-/ready").await.unwrap_err().to_string();
    assert!(error.contains(&url) && error.contains("refused"), "{error}");

    // Only what was stored before can answer now.
    for pod in ["llama-0", "llama-1"] {
        fleet.kill_pod("chat", pod).await.unwrap();
    }
    server.start_again().await.unwrap();
    assert_eq!(server.url(), url);
    assert_eq!(query(&server, "last_over_time(vllm:num_requests_running[5m])").await.len(), 2);
}

#[tokio::test]
async fn requests_are_counted_by_handler() {
    let fleet = fleet().await;
    let Some(server) = PrometheusServer::start_or_skip(&fleet, PrometheusOptions::default()).await
    else {
        return;
    };
    assert_eq!(server.requests_total("/api/v1/query").await.unwrap(), 0);
    for _ in 0..3 {
        query(&server, "up").await;
    }
    server.get("/api/v1/query?query=(").await.unwrap_err();
    assert_eq!(server.requests_total("/api/v1/query").await.unwrap(), 4);
    assert_eq!(server.requests_total("/api/v1/series").await.unwrap(), 0);
}

#[tokio::test]
async fn a_server_that_cannot_start_shows_its_log() {
    let fleet = fleet().await;
    let works = PrometheusServer::start_or_skip(&fleet, PrometheusOptions::default()).await;
    if works.is_none() {
        return;
    }
    let flags = vec!["--no-such-flag".to_owned()];
    let options = PrometheusOptions { flags, ..PrometheusOptions::default() };
    let error = PrometheusServer::start(&fleet, options).await.unwrap_err().to_string();
    assert!(error.contains("no-such-flag"), "{error}");
}
