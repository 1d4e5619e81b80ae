// SPDX-License-Identifier: Apache-2.0
//! What `serve` finds in a real Prometheus by itself, and what that costs.

use std::time::Duration;

use super::fixture::{World, eventually, variant};
use crate::process::{Served, collector};

const MODELS: [&str; 2] = ["org/llama", "org/qwen"];

/// Starts a daemon, waits until `/metrics` shows both models, and returns how many queries that took.
async fn queries_until_shown(world: &World, settings: &str) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("collector.toml");
    std::fs::write(&config, world.toml(settings)).unwrap();
    let before = world.queries().await;
    let served = Served::start(collector().arg("--config").arg(&config));
    for model in MODELS {
        let labels = format!("{{model_name=\"{model}\",namespace=\"prod\"");
        let series = format!("collector_replica_queue_length{labels}");
        eventually(model, Duration::from_secs(20), || async {
            served.get("/metrics").body.contains(&series)
        })
        .await;
    }
    eventually("listed", Duration::from_secs(20), || async {
        served.get("/readyz").json()["known"] == 2
    })
    .await;
    assert_eq!(served.get("/readyz").json()["tracked"], 2);
    world.queries().await - before
}

#[tokio::test(flavor = "multi_thread")]
async fn every_model_of_a_prometheus_is_shown_for_no_more_queries_than_a_configured_list() {
    let variants = vec![variant("llama", MODELS[0]), variant("qwen", MODELS[1])];
    let Some(world) = World::start(variants).await else { return };
    let discovered = queries_until_shown(&world, "").await;
    let configured = "[tracking]\ndiscover = false\n\
                      [[variants]]\nname = \"llama\"\nnamespace = \"prod\"\nmodel = \"org/llama\"\n\
                      [[variants]]\nname = \"qwen\"\nnamespace = \"prod\"\nmodel = \"org/qwen\"\n";
    // It is listed once as well, for the log.
    let configured = queries_until_shown(&world, configured).await;
    assert!(discovered <= configured, "{discovered} queries, {configured} with a configured list");
}
