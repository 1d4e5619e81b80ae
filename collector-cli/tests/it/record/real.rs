// SPDX-License-Identifier: Apache-2.0
//! A recording of a real Prometheus that scrapes a simulated fleet.

use std::process::Command;

use collector_core::{MetricsCollector as _, ModelRef};
use serde_json::Value;

use super::{place, pods};
use crate::process::{collector, run};
use crate::real::fixture::{World, variant};

/// Records a while of the fleet, and compares the end of it with what the server said at that time.
#[tokio::test(flavor = "multi_thread")]
async fn a_recording_of_prometheus_is_what_it_answered() {
    let Some(world) = World::start(vec![variant("m", "org/model")]).await else { return };
    let (folder, file) = place();
    let config = folder.path().join("collector.toml");
    let cache = "[cache]
ttl = \"2s\"
fetch_interval = \"2s\"
";
    std::fs::write(
        &config,
        world.toml(cache)
            + "timeout = \"1s\"
",
    )
    .unwrap();
    let recording = file.clone();
    let recorded = tokio::task::spawn_blocking(move || {
        let mut command: Command = collector();
        command.arg("--config").arg(config);
        run(&mut command, &["record", recording.to_str().unwrap(), "--duration", "6s"])
    });
    let ended = recorded.await.unwrap();
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let collector_now = world.collector("");
    let now =
        collector_now.collect_replica_metrics(&ModelRef::new("org/model", "prod")).await.unwrap();
    let mut names: Vec<&str> =
        now.value().replicas.iter().map(|replica| replica.pod_name.as_str()).collect();
    names.sort_unstable();

    let once = |more: &[&str]| {
        let mut args =
            vec!["replay", file.to_str().unwrap(), "--once", "-m", "org/model", "-n", "prod"];
        args.extend(["-o", "json"]);
        args.extend(more);
        let ended = run(&mut collector(), &args);
        assert_eq!(ended.exit, 0, "{}", ended.stderr);
        ended.json()
    };
    let end = once(&[]);
    let early = once(&["--start", "3s"]);
    for reading in [&early, &end] {
        assert_eq!(pods(reading), names);
        assert_eq!(reading["status"], "fresh");
        for row in reading["replicas"].as_array().unwrap() {
            assert!(row["queueLength"].is_u64() && row["kvCacheUsage"].is_f64(), "{row}");
            // Scraped and asked for each second.
            assert!(row["ageSeconds"].as_f64().unwrap() < 5.0, "{row}");
        }
    }
    // Time stands still: the same look is the same reading, to the last digit.
    let without_times = |mut reading: Value| {
        for key in ["collectedAt", "generation", "sampledAt"] {
            reading.as_object_mut().unwrap().remove(key);
        }
        reading
    };
    assert_eq!(without_times(once(&["--start", "3s"])), without_times(early));
}
