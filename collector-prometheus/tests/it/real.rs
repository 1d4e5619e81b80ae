// SPDX-License-Identifier: Apache-2.0
//! Tests against a real Prometheus that scrapes a simulated fleet every second.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use collector_core::{
    Answer, Ask, Backend, Clock, ModelRef, ModelSample, ReplicaMetrics, SystemClock, Tick,
};
use collector_prometheus::{PrometheusBackend, PrometheusConfig};
use collector_sim::{
    EngineSpec, FleetServer, FleetSpec, Gauges, MetricNames, PodLabel, VariantSpec,
};
use collector_testkit::{PrometheusOptions, PrometheusServer};

use crate::fake::found;

/// Rates over ten scrapes.
const WINDOW: Duration = Duration::from_secs(10);

struct World {
    fleet: FleetServer,
    server: PrometheusServer,
    clock: Arc<SystemClock>,
    backend: PrometheusBackend,
}

impl World {
    /// `None` if no Prometheus is installed and none is required.
    async fn start(variants: Vec<VariantSpec>) -> Option<Self> {
        Self::with(variants, PrometheusOptions::default()).await
    }

    async fn with(variants: Vec<VariantSpec>, options: PrometheusOptions) -> Option<Self> {
        let warm_up = Duration::from_secs(60);
        let fleet =
            FleetServer::start(FleetSpec { seed: 7, warm_up, variants, ..FleetSpec::default() })
                .await
                .unwrap();
        let scrape_interval = options.scrape_interval;
        let server = PrometheusServer::start_or_skip(&fleet, options).await?;
        server.stored_scrape(&fleet).await.unwrap();
        let clock = Arc::new(SystemClock::new());
        let config = PrometheusConfig {
            url: server.url(),
            allow_http: true,
            scrape_interval,
            window: Some(WINDOW),
            ..PrometheusConfig::default()
        };
        let backend = PrometheusBackend::new(config, clock.clone()).unwrap();
        Some(Self { fleet, server, clock, backend })
    }

    async fn fetch_all(
        &self,
        models: &[ModelRef],
        per_pod: &[ModelRef],
    ) -> Vec<(ModelRef, Answer)> {
        let per_pod: HashSet<ModelRef> = per_pod.iter().cloned().collect();
        let ask = Ask::new(models, &*self.clock).with_load_per_pod(&per_pod);
        self.backend.fetch(ask).await.unwrap().into_iter().collect()
    }

    async fn answer(&self, model: &ModelRef) -> Answer {
        self.fetch_all(std::slice::from_ref(model), &[]).await.remove(0).1
    }

    async fn sample(&self, model: &ModelRef) -> ModelSample {
        found(self.answer(model).await)
    }

    async fn scrapes(&self, count: usize) {
        for _ in 0..count {
            self.server.stored_scrape(&self.fleet).await.unwrap();
        }
    }

    /// Advances the fleet's time.
    async fn let_pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Requests for queries that the server has counted.
    async fn requests(&self) -> u64 {
        self.server.requests_total("/api/v1/query").await.unwrap()
    }

    #[track_caller]
    fn check_gauges(&self, namespace: &str, replica: &ReplicaMetrics) {
        let pod = replica.pod_name.as_str();
        let truth = self.fleet.truth(namespace, pod).unwrap();
        assert_eq!(replica.running_requests, Some(u64::from(truth.running())), "{pod}");
        assert_eq!(replica.queue_length, Some(u64::from(truth.waiting())), "{pod}");
        let for_capacity = replica.waiting_for_capacity;
        assert_eq!(for_capacity, replica.queue_length, "{pod}: no request waits for anything else");
        let usage = replica.kv_cache_usage.unwrap();
        assert!((usage - truth.kv_cache_usage()).abs() < 1e-9, "{pod}: {usage}");
    }
}

fn variant(name: &str, model: &str, pods: u32) -> VariantSpec {
    VariantSpec { pods, ..VariantSpec::new(name, model, "prod") }
}

fn in_prod(model: &str) -> ModelRef {
    ModelRef::new(model, "prod")
}

/// A fleet that did not change during the window, so that peaks equal the latest values.
async fn frozen(variants: Vec<VariantSpec>, options: PrometheusOptions) -> Option<World> {
    let world = World::with(variants, options).await?;
    world.fleet.freeze();
    world.let_pass(WINDOW).await;
    world.scrapes(1).await;
    Some(world)
}

#[tokio::test(flavor = "multi_thread")]
async fn gauges_and_sizes_of_a_frozen_fleet_are_exact_and_ages_are_true() {
    let parallel = EngineSpec { engines: 4, ..EngineSpec::default() };
    let variants = vec![
        variant("a", "org/model:7b", 3),
        VariantSpec { engine: parallel, ..variant("dp", "org/dp", 2) },
    ];
    let Some(world) = frozen(variants, PrometheusOptions::default()).await else { return };
    let models = [in_prod("org/model:7b"), in_prod("org/dp")];
    for (model, answer) in world.fetch_all(&models, &[]).await {
        let asked_at = (world.clock.now(), tokio::time::Instant::now().into_std());
        let sample = found(answer);
        assert!(sample.absent.is_none() && sample.failed.is_empty());
        assert_eq!(sample.replicas.len(), if model == models[0] { 3 } else { 2 });
        let engines = if model == models[0] { 1 } else { 4 };
        for replica in &sample.replicas {
            world.check_gauges("prod", replica);
            assert_eq!(replica.num_gpu_blocks, Some(27_436 * engines));
            assert_eq!(replica.block_size, Some(16));
            check_age(&world, replica, asked_at);
        }
    }
}

/// The sample time is that of the pod's last scrape, to 50 ms, or of the one before if the last was not
/// stored yet.
#[track_caller]
fn check_age(world: &World, replica: &ReplicaMetrics, (tick, instant): (Tick, Instant)) {
    let age = replica.sampled_at.age(tick);
    let scrapes = world.fleet.scrapes("prod", replica.pod_name.as_str());
    let nearest = scrapes
        .iter()
        .rev()
        .take(3)
        .map(|scrape| instant.saturating_duration_since(*scrape).abs_diff(age))
        .min()
        .unwrap();
    assert!(nearest <= Duration::from_millis(50), "{age:?} is {nearest:?} from any scrape");
    assert!(age < Duration::from_secs(3), "{age:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_are_those_of_a_steady_load_and_idle_is_a_known_zero() {
    let mut idle = variant("idle", "org/idle", 1);
    idle.load.requests_per_minute = 0.0;
    let variants = vec![variant("busy", "org/busy", 2), idle];
    let Some(world) = World::start(variants).await else { return };
    world.let_pass(WINDOW).await;
    world.scrapes(2).await;
    let near = |value: Option<f64>, expected: f64| {
        let value = value.unwrap();
        assert!((value - expected).abs() <= expected * 0.05, "{value} is not {expected}");
    };
    let busy = world.sample(&in_prod("org/busy")).await;
    let rates = busy.load.of_model().unwrap().rates;
    near(rates.load(false).arrival_rate, 240.0);
    near(rates.load(false).avg_input_tokens, 500.0);
    near(rates.load(false).avg_output_tokens, 100.0);
    near(rates.ttft_average(false), 80.0);
    near(rates.itl_average(false), 20.0);
    near(busy.replicas[0].prefix_cache_hit_rate, 0.4);

    let idle = world.sample(&in_prod("org/idle")).await;
    let load = idle.load.of_model().unwrap().rates.load(true);
    assert_eq!(load.arrival_rate, Some(0.0));
    assert_eq!(load.avg_input_tokens, Some(0.0));
    assert_eq!(load.avg_output_tokens, Some(0.0));
    assert_eq!(idle.load.of_model().unwrap().rates.ttft_average(true), Some(0.0));
    assert_eq!(idle.load.of_model().unwrap().rates.itl_average(true), Some(0.0));
    assert_eq!(idle.replicas[0].prefix_cache_hit_rate, Some(0.0));
    assert_eq!(idle.replicas[0].queue_length, Some(0));

    let model = in_prod("org/busy");
    let per_pod = world.fetch_all(std::slice::from_ref(&model), std::slice::from_ref(&model)).await;
    let sample = found(per_pod.into_iter().next().unwrap().1);
    let rows: Vec<&str> = sample.load.pods().iter().map(|(pod, _)| pod.as_str()).collect();
    assert_eq!(rows, ["busy-0", "busy-1"]);
    near(sample.load.iter().map(|row| row.rates.load(false).arrival_rate).sum(), 240.0);
    near(sample.load.pods()[0].1.rates.load(false).avg_input_tokens, 500.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_die_come_and_restart_are_followed() {
    let Some(world) = World::start(vec![variant("a", "org/a", 3)]).await else { return };
    let model = in_prod("org/a");
    let pods = |sample: &ModelSample| -> Vec<String> {
        sample.replicas.iter().map(|replica| replica.pod_name.to_string()).collect()
    };
    assert_eq!(pods(&world.sample(&model).await), ["a-0", "a-1", "a-2"]);

    world.fleet.kill_pod("prod", "a-1").await.unwrap();
    world.let_pass(Duration::from_secs(3)).await;
    let sample = world.sample(&model).await;
    assert_eq!(pods(&sample), ["a-0", "a-2"], "gone within three scrapes");

    world.fleet.restart_pod("prod", "a-0").await.unwrap();
    let added = world.fleet.add_pod("prod", "a").await.unwrap();
    world.scrapes(2).await;
    let sample = world.sample(&model).await;
    assert!(pods(&sample).contains(&added.pod), "{:?}", pods(&sample));
    let rates = sample.load.of_model().unwrap().rates;
    for rate in [rates.requests, rates.prompt_tokens, rates.ttft_seconds, rates.itl_count] {
        let rate = rate.unwrap();
        assert!((0.0..1e6).contains(&rate), "a counter that began anew gave {rate}");
    }

    for pod in pods(&sample) {
        world.fleet.kill_pod("prod", &pod).await.unwrap();
    }
    world.let_pass(Duration::from_secs(3)).await;
    let sample = world.sample(&model).await;
    assert!(sample.replicas.is_empty(), "known, and without a live pod");
    world.let_pass(WINDOW).await;
    assert!(matches!(world.answer(&model).await, Answer::Missing { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_takes_as_many_queries_for_ten_as_for_three_hundred_variants() {
    let variants: Vec<VariantSpec> = (0..300)
        .map(|i| VariantSpec {
            pods: 1,
            ..VariantSpec::new(&format!("v{i}"), &format!("org/m{i}"), &format!("ns-{}", i % 12))
        })
        .collect();
    let models: Vec<ModelRef> =
        (0..300).map(|i| ModelRef::new(format!("org/m{i}"), format!("ns-{}", i % 12))).collect();
    // A busy machine answers three hundred scrapes a second too late, and an absent pod costs a second
    // liveness query.
    let scrape_interval = Duration::from_secs(5);
    let options = PrometheusOptions { scrape_interval, ..PrometheusOptions::default() };
    let Some(world) = World::with(variants, options).await else { return };
    let mut costs = Vec::new();
    for models in [&models[..10], &models] {
        let before = world.requests().await;
        let answers = world.fetch_all(models, &[]).await;
        costs.push(world.requests().await - before);
        assert_eq!(answers.len(), models.len());
        for (_, answer) in answers {
            assert_eq!(found(answer).replicas.len(), 1);
        }
    }
    assert_eq!(costs, [5 + 13, 13], "five probes at the start");
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_are_found_or_missing_and_never_another_model() {
    let long = "x".repeat(1_500);
    let longer = "y\\\"".repeat(3_000);
    let odd = [
        "quote\"d",
        "back\\slash",
        "brace{d}",
        "a:b/c",
        "モデル🦀",
        "dot.",
        "line\nbreak",
        &long,
        &longer,
    ];
    let variants =
        odd.iter().enumerate().map(|(i, model)| variant(&format!("v{i}"), model, 1)).collect();
    let Some(world) = World::start(variants).await else { return };
    for (i, name) in odd.iter().enumerate() {
        let sample = world.sample(&in_prod(name)).await;
        assert_eq!(sample.replicas.len(), 1, "{name:.40}");
        assert_eq!(sample.replicas[0].pod_name.as_str(), format!("v{i}-0"), "{name:.40}");
        assert!(sample.failed.is_empty());
    }
    let models: Vec<ModelRef> = odd.iter().map(|name| in_prod(name)).collect();
    for (_, answer) in world.fetch_all(&models, &[]).await {
        assert_eq!(found(answer).replicas.len(), 1);
    }
    let strangers =
        ["quote", "dotx", ".*", "x\"} or vllm:num_requests_running{a=\"", "a:b", "\0", ""];
    for name in strangers {
        let answer = world.answer(&in_prod(name)).await;
        assert!(matches!(answer, Answer::Missing { .. }), "{name:?}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_names_mixed_fleets_and_other_pod_labels_are_read() {
    let old = EngineSpec { names: MetricNames::V0, ..EngineSpec::default() };
    let variants = vec![
        variant("new", "org/mixed", 2),
        VariantSpec { engine: old.clone(), ..variant("old", "org/mixed", 2) },
        VariantSpec { engine: old, ..variant("only", "org/old", 1) },
    ];
    let options =
        PrometheusOptions { pod_label: PodLabel::PodName, ..PrometheusOptions::default() };
    let Some(world) = frozen(variants, options).await else { return };
    world.fleet.unfreeze();
    world.let_pass(WINDOW).await;
    world.fleet.freeze();
    world.let_pass(Duration::from_secs(4)).await;
    let models = [in_prod("org/mixed"), in_prod("org/old")];
    for (model, answer) in world.fetch_all(&models, &[]).await {
        let sample = found(answer);
        assert_eq!(sample.replicas.len(), if model == models[0] { 4 } else { 1 });
        assert!(sample.replicas.iter().all(|replica| replica.kv_cache_usage.is_some()));
        let itl = sample.load.of_model().unwrap().rates.itl_average(false).unwrap();
        assert!((itl - 20.0).abs() < 1.0, "{itl}");
        // The token gaps of all pods, old and new.
        let rates = sample.load.of_model().unwrap().rates;
        let gaps_per_token = rates.itl_count.unwrap() / rates.generation_tokens.unwrap();
        assert!((gaps_per_token - 0.99).abs() < 0.06, "{gaps_per_token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_limit_is_split_until_it_fits() {
    let variants: Vec<VariantSpec> =
        (0..60).map(|i| variant(&format!("v{i}"), &format!("m{i}"), 1)).collect();
    // Sixty series are too many for a query of any kind.
    let flags = vec!["--query.max-samples=50".into()];
    let options = PrometheusOptions { flags, ..PrometheusOptions::default() };
    let Some(world) = World::with(variants, options).await else { return };
    assert!(world.server.get("/api/v1/query?query=vllm:num_requests_running").await.is_err());
    world.let_pass(WINDOW).await;
    let models: Vec<ModelRef> = (0..60).map(|i| in_prod(&format!("m{i}"))).collect();
    for (model, answer) in world.fetch_all(&models, &[]).await {
        let sample = found(answer);
        assert!(sample.failed.is_empty(), "{model}: {:?}", sample.failed);
        assert!(sample.replicas[0].kv_cache_usage.is_some());
        assert!(sample.load.of_model().unwrap().rates.requests.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peak_is_seen_during_its_window() {
    let Some(world) = World::start(vec![variant("a", "org/a", 1)]).await else { return };
    let gauges = Gauges { waiting: 37, running: 5, kv_cache_usage: 0.875 };
    world.fleet.pin("prod", "a-0", 0, gauges).unwrap();
    world.scrapes(1).await;
    world.fleet.unpin("prod", "a-0").unwrap();
    world.scrapes(1).await;
    let sample = world.sample(&in_prod("org/a")).await;
    assert_eq!(sample.replicas[0].queue_length, Some(37));
    assert_eq!(sample.replicas[0].kv_cache_usage, Some(0.875));
}
