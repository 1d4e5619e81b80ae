// SPDX-License-Identifier: Apache-2.0
//! The examples, run as they are.

use std::fmt::Write as _;
use std::fs;

use collector::config::Loader;
use collector::prelude::ModelRef;
use collector_sim::{FleetServer, FleetSpec, Target};
use collector_testkit::{PrometheusOptions, PrometheusServer};

#[expect(dead_code, reason = "its `main` is run by users")]
#[path = "../../examples/embed.rs"]
mod embed;
#[expect(dead_code, reason = "its `main` is run by users")]
#[path = "../../examples/from_file.rs"]
mod from_file;
#[expect(dead_code, reason = "its `main` is run by users")]
#[path = "../../examples/reconcile.rs"]
mod reconcile;

/// Where there is no Prometheus the test is skipped, and says so.
#[tokio::test]
async fn embed_reads_a_prometheus() {
    let fleet = FleetServer::start(FleetSpec::demo()).await.unwrap();
    let options = PrometheusOptions::default();
    let Some(server) = PrometheusServer::start_or_skip(&fleet, options).await else { return };
    server.stored_scrape(&fleet).await.unwrap();
    let variant = &FleetSpec::demo().variants[0];
    let model = ModelRef::new(variant.model.as_str(), variant.namespace.as_str());

    let text = embed::read(&server.url(), &model).await.unwrap();
    assert!(text.starts_with("fresh, "), "{text}");
    assert!(text.contains(&format!("\n{}-0: queue Some(", variant.name)), "{text}");
    let missing = embed::read(&server.url(), &ModelRef::new("absent", "prod")).await.unwrap();
    assert!(missing.starts_with("no metrics of model \"absent\""), "{missing}");
}

#[tokio::test]
async fn from_file_reads_the_pods_that_the_file_lists() {
    let fleet = FleetServer::start(FleetSpec::demo()).await.unwrap();
    let mut toml = "backend = \"epp\"\n[epp]\ntargets = [\n".to_owned();
    for Target { address, namespace, pod, .. } in fleet.targets() {
        let url = format!("http://{address}/metrics");
        writeln!(toml, "{{ url = {url:?}, namespace = {namespace:?}, pod = {pod:?} }},").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("collector.toml");
    fs::write(&file, toml + "]\n").unwrap();

    let text = from_file::read(Loader::new().file(&file)).await.unwrap();
    for variant in FleetSpec::demo().variants {
        assert!(text.contains(&format!("model {:?}", variant.model)), "{text}");
    }
    assert!(text.contains(" replicas, fresh"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn reconcile_follows_the_directory() {
    let lines = reconcile::run().await.unwrap();
    assert_eq!(
        lines,
        [
            "h100: 2 replicas, Some(60.0) a minute",
            "l4: 1 replicas, Some(30.0) a minute",
            "h100: 2 replicas, Some(60.0) a minute",
        ]
    );
}
