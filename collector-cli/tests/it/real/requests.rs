// SPDX-License-Identifier: Apache-2.0
//! What a reading costs the server, by the server's own count.

use collector_core::MetricsCollector as _;
use std::sync::Arc;
use std::time::Duration;

use collector_core::ModelRef;
use collector_sim::VariantSpec;
use collector_testkit::PrometheusOptions;

use super::fixture::{World, eventually, variant};

/// Queries of one refresh at most, with every field.
const PLAN: u64 = 14;
/// Probes at start: the clock, the names, the labels.
const PROBES: u64 = 4;

fn variants(count: usize, pods: u32) -> Vec<VariantSpec> {
    (0..count)
        .map(|n| {
            let mut spec = variant(&format!("v{n}"), &format!("model-{n}"));
            spec.pods = pods;
            spec.load.requests_per_minute = 6.0;
            spec
        })
        .collect()
}

/// Configuration of so many variants, refreshed as often as makes no odds here.
fn tracked(count: usize) -> String {
    use std::fmt::Write as _;
    let mut toml = "[cache]\nfetch_interval = \"8s\"\nttl = \"8s\"\n".to_owned();
    for n in 0..count {
        let _ = write!(
            toml,
            "[[variants]]\nname = \"v{n}\"\nnamespace = \"prod\"\nmodel = \"model-{n}\"\n"
        );
    }
    toml
}

/// Queries of the second background cycle: the first one probes as well.
async fn queries_of_a_refresh(world: &World, count: usize) -> u64 {
    let collector = world.collector(&tracked(count));
    collector.start_background_worker().await.unwrap();
    let cycles = |wanted| {
        let collector = Arc::clone(&collector);
        move || {
            let done = collector.state().cycles >= wanted;
            async move { done }
        }
    };
    eventually("the first cycle", Duration::from_secs(30), cycles(1)).await;
    let before = world.queries().await;
    eventually("the second cycle", Duration::from_secs(30), cycles(2)).await;
    let queries = world.queries().await - before;
    for tracked in collector.tracked() {
        assert!(tracked.replicas.is_ok(), "{:?}", tracked.replicas);
    }
    assert_eq!(collector.tracked().len(), count);
    collector.stop_background_worker().await;
    queries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_costs_the_same_for_ten_and_for_three_hundred_variants() {
    // Six hundred pods a second would keep a small machine busy with nothing but scrapes.
    let seldom =
        PrometheusOptions { scrape_interval: Duration::from_secs(5), ..Default::default() };
    let Some(world) = World::start_scraped_as(variants(300, 2), seldom).await else { return };
    let of_ten = queries_of_a_refresh(&world, 10).await;
    let of_three_hundred = queries_of_a_refresh(&world, 300).await;
    assert_eq!(of_ten, of_three_hundred);
    assert!((1..=PLAN).contains(&of_ten), "{of_ten}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cached_read_sends_nothing_and_first_reads_share_queries() {
    let Some(world) = World::start(variants(1, 2)).await else { return };
    let collector = world.collector("");
    let model = ModelRef::new("model-0", "prod");
    let before = world.queries().await;
    let reads: Vec<_> = (0..1000)
        .map(|_| {
            let (collector, model) = (Arc::clone(&collector), model.clone());
            tokio::spawn(async move { collector.collect_replica_metrics(&model).await.unwrap() })
        })
        .collect();
    for read in reads {
        read.await.unwrap();
    }
    let plan = world.queries().await - before;
    assert!((1..=PLAN + PROBES).contains(&plan), "{plan}");

    let before = world.queries().await;
    for _ in 0..1000 {
        collector.collect_replica_metrics(&model).await.unwrap();
    }
    assert_eq!(world.queries().await, before);
}
