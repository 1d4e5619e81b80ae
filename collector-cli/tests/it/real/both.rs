// SPDX-License-Identifier: Apache-2.0
//! Both backends on one fleet: they mean the same by every field, and make one reading together.

use std::sync::Arc;
use std::time::Duration;

use collector_config::Loader;
use collector_core::{
    Freshness, MetricsCollector, ModelRef, Reading, ReplicaMetrics, Replicas, SystemClock,
};
use collector_engine::CachingCollector;
use collector_sim::{Gauges, VariantSpec};

use super::fixture::{SCRAPES_OF_A_WINDOW, WINDOW, World, eventually, now, read_anew, variant};

const VARIANT: &str = "[[variants]]\nname = \"llama\"\nnamespace = \"prod\"\nmodel = \"llama\"\n";

fn llama() -> ModelRef {
    ModelRef::new("llama", "prod")
}

/// A collector over these backends, the pods scraped each second and over the same window.
fn collector(world: &World, backend: &str, more: &str) -> Arc<CachingCollector> {
    let targets: Vec<String> = world
        .fleet
        .targets()
        .into_iter()
        .map(|target| {
            format!(
                "{{ url = \"http://{}/metrics\", namespace = \"{}\", pod = \"{}\" }}",
                target.address, target.namespace, target.pod
            )
        })
        .collect();
    let toml = format!(
        "backend = {backend}\n{}timeout = \"1s\"\n[epp]\nscrape_interval = \"1s\"\nwindow = \"{}s\"\ntargets = [{}]\n",
        world.toml(more).trim_start_matches(more),
        WINDOW.as_secs(),
        targets.join(", ")
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("collector.toml");
    std::fs::write(&file, toml + more).unwrap();
    let loaded = Loader::new().file(file).load().unwrap();
    Arc::new(loaded.config.build(Arc::new(SystemClock::new())).unwrap())
}

#[track_caller]
fn near(what: &str, one: Option<f64>, other: Option<f64>) {
    let (Some(a), Some(b)) = (one, other) else { panic!("{what}: {one:?} and {other:?}") };
    assert!((a - b).abs() <= 0.05 * a.max(b), "{what}: {a} and {b}");
}

#[track_caller]
fn same_gauges(one: &ReplicaMetrics, other: &ReplicaMetrics) {
    assert_eq!(one.pod_name, other.pod_name);
    assert_eq!(one.queue_length, other.queue_length, "{}", one.pod_name);
    assert_eq!(one.running_requests, other.running_requests, "{}", one.pod_name);
    assert_eq!(one.kv_cache_usage, other.kv_cache_usage, "{}", one.pod_name);
    assert_eq!(one.num_gpu_blocks, other.num_gpu_blocks, "{}", one.pod_name);
    assert_eq!(one.block_size, other.block_size, "{}", one.pod_name);
    assert_eq!(one.variant_name, other.variant_name, "{}", one.pod_name);
}

/// Two data-parallel engines a pod, so that sums and peaks over engines are compared too.
fn data_parallel() -> VariantSpec {
    let mut spec = variant("llama", "llama");
    spec.engine.engines = 2;
    spec.load.requests_per_minute = 600.0;
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_backends_mean_the_same_by_every_field() {
    let Some(world) = World::start(vec![data_parallel()]).await else { return };
    let direct = collector(&world, "\"epp\"", VARIANT);
    let asked = collector(&world, "\"prometheus\"", VARIANT);
    direct.start_background_worker().await.unwrap();
    // Both windows see the same steady load.
    world.scrapes(SCRAPES_OF_A_WINDOW + 2).await;
    let variant = "llama".into();
    let loads = |collector: Arc<CachingCollector>| {
        let variant = &variant;
        async move { collector.collect_allocation(&llama(), variant).await.unwrap() }
    };
    let (one, other) = (loads(Arc::clone(&direct)).await, loads(Arc::clone(&asked)).await);
    let (one, other) = (one.value(), other.value());
    near("arrivals", one.load.arrival_rate, other.load.arrival_rate);
    near("input tokens", one.load.avg_input_tokens, other.load.avg_input_tokens);
    near("output tokens", one.load.avg_output_tokens, other.load.avg_output_tokens);
    near("time to first token", one.ttft_average, other.ttft_average);
    near("between tokens", one.itl_average, other.itl_average);
    assert_eq!(one.num_replicas, other.num_replicas);

    // Peaks and latest values: one engine waits more than the other, and they differ in usage.
    for (engine, waiting) in [(0, 5), (1, 9)] {
        let gauges = Gauges { waiting, running: 3, kv_cache_usage: f64::from(waiting) / 10.0 };
        world.fleet.pin("prod", "llama-0", engine, gauges).unwrap();
    }
    world.fleet.freeze();
    let frozen = now();
    eventually("only the frozen fleet is in both windows", WINDOW * 2, || async {
        world.scrapes(1).await;
        frozen.elapsed() > WINDOW + Duration::from_secs(2)
    })
    .await;
    let one = direct.collect_replica_metrics(&llama()).await.unwrap();
    let other = read_anew(&asked, &llama()).await;
    let (one, other) = (&one.value().replicas, &other.value().replicas);
    assert_eq!(one.len(), 2);
    for (one, other) in one.iter().zip(other) {
        same_gauges(one, other);
    }
    assert_eq!((one[0].queue_length, one[0].kv_cache_usage), (Some(14), Some(0.9)));
    direct.stop_background_worker().await;
}

fn backend_of(reading: &Reading<Replicas>) -> &str {
    reading.value().backend.as_str()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn together_they_are_as_new_as_the_pods_and_carry_on_when_one_fails() {
    let Some(mut world) = World::start(vec![variant("llama", "llama")]).await else { return };
    let thresholds = "[cache]\nttl = \"3s\"\nfetch_interval = \"3s\"\n[cache.freshness]\n\
                      fresh_threshold = \"4s\"\nstale_threshold = \"30s\"\n";
    let more = format!("{VARIANT}{thresholds}");
    let both = collector(&world, "[\"epp\", \"prometheus\"]", &more);
    let read = || async { both.collect_replica_metrics(&llama()).await.unwrap() };
    // The pods are scraped twice for it, which takes longer than the server's answer.
    assert_eq!(backend_of(&read().await), "epp");
    both.start_background_worker().await.unwrap();
    eventually("both have answered", Duration::from_secs(10), || async {
        both.state().backends.iter().all(|backend| backend.last_success.is_some())
    })
    .await;
    let reading = read().await;
    assert_eq!((backend_of(&reading), reading.value().replicas.len()), ("epp", 2));
    assert!(reading.age() < Duration::from_millis(2500), "{:?}", reading.age());

    // The server goes: the pods' own word is all there is, and enough.
    world.prometheus.stop();
    let stopped = now();
    while stopped.elapsed() < Duration::from_secs(6) {
        let reading = read().await;
        assert_eq!((backend_of(&reading), reading.freshness()), ("epp", Freshness::Fresh));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let down = both.state().backends.remove(1);
    assert!(down.last_error.is_some());
    both.stop_background_worker().await;
}
