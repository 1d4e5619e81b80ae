// SPDX-License-Identifier: Apache-2.0
//! A reading equals the fleet's truth.

use collector_core::MetricsCollector as _;
use std::time::Duration;

use collector_core::{CollectError, ModelRef, PodName};
use collector_sim::{Gauges, VariantSpec};

use super::fixture::{SCRAPES_OF_A_WINDOW, WINDOW, World, eventually, now, read_anew, variant};

const MODEL: &str = "meta-llama/Llama-3.1-8B-Instruct";

fn llama() -> ModelRef {
    ModelRef::new(MODEL, "prod")
}

#[track_caller]
fn close(what: &str, measured: Option<f64>, truth: f64) {
    let measured = measured.unwrap_or_else(|| panic!("{what} was not measured"));
    assert!((measured - truth).abs() <= 0.05 * truth, "{what}: {measured}, and truly {truth}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gauges_are_exact_at_the_samples_time() {
    let Some(world) = World::start(vec![variant("llama", MODEL)]).await else { return };
    let gauges = Gauges { waiting: 5, running: 3, kv_cache_usage: 0.625 };
    world.fleet.pin("prod", "llama-1", 0, gauges).unwrap();
    world.fleet.freeze();
    // A peak looks back over the window: what was before the freeze has to leave it.
    let frozen = now();
    let collector = world.collector("");
    eventually("only the frozen fleet is in the window", WINDOW + WINDOW, || async {
        world.scrapes(1).await;
        frozen.elapsed() > WINDOW + Duration::from_secs(2)
    })
    .await;
    let reading = read_anew(&collector, &llama()).await;
    assert_eq!(reading.value().replicas.len(), 2);
    for replica in &reading.value().replicas {
        let truth = world.fleet.truth("prod", replica.pod_name.as_str()).unwrap();
        assert_eq!(replica.queue_length, Some(u64::from(truth.waiting())));
        assert_eq!(replica.running_requests, Some(u64::from(truth.running())));
        assert_eq!(replica.kv_cache_usage, Some(truth.kv_cache_usage()));
        assert_eq!(replica.num_gpu_blocks, Some(u64::from(truth.num_gpu_blocks)));
        assert_eq!(replica.block_size, Some(u64::from(truth.block_size)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rates_and_means_are_true_to_five_percent() {
    let mut other = variant("other", "qwen");
    other.load.requests_per_minute = 600.0;
    other.load.prompt_tokens = 900;
    let Some(world) = World::start(vec![variant("llama", MODEL), other]).await else { return };
    world.scrapes(SCRAPES_OF_A_WINDOW).await;
    let collector = world.collector(
        "[[variants]]\nname = \"other\"\nnamespace = \"prod\"\nmodel = \"qwen\"\n\
         accelerator = \"H100\"\npods = \"other-*\"",
    );
    let qwen = ModelRef::new("qwen", "prod");
    let allocation = collector.collect_allocation(&qwen, &"other".into()).await.unwrap();
    let truth = world.fleet.model_truth("prod", "qwen").unwrap();
    let allocation = allocation.value();
    assert_eq!(allocation.num_replicas, truth.pods);
    close("arrivals", allocation.load.arrival_rate, truth.requests_per_minute);
    let totals = truth.totals;
    close("input tokens", allocation.load.avg_input_tokens, totals.mean_prompt_tokens().unwrap());
    close("output tokens", allocation.load.avg_output_tokens, totals.mean_output_tokens().unwrap());
    close("time to first token", allocation.ttft_average, totals.mean_ttft().unwrap() * 1000.0);
    close("inter-token latency", allocation.itl_average, totals.mean_itl().unwrap() * 1000.0);
    let replicas = collector.collect_replica_metrics(&qwen).await.unwrap();
    let hits = replicas.value().replicas[0].prefix_cache_hit_rate;
    close("prefix-cache hits", hits, totals.prefix_hit_ratio().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_age_of_a_replica_is_the_time_since_its_scrape() {
    let Some(world) = World::start(vec![variant("llama", MODEL)]).await else { return };
    let collector = world.collector("");
    for _ in 0..5 {
        let reading = read_anew(&collector, &llama()).await;
        let read_at = now();
        for replica in &reading.value().replicas {
            let age = reading.age_of(replica.sampled_at);
            // The sample may be the last one, or the one before it while that is being stored.
            let scrapes = world.fleet.scrapes("prod", replica.pod_name.as_str());
            let off = scrapes
                .iter()
                .map(|scrape| read_at.saturating_duration_since(*scrape).abs_diff(age))
                .min()
                .unwrap();
            assert!(off <= Duration::from_millis(50), "{off:?} off at an age of {age:?}");
            assert!(age < Duration::from_millis(2500), "{age:?}");
        }
        tokio::time::sleep(Duration::from_millis(330)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_and_go_and_restart() {
    let mut spec = variant("llama", MODEL);
    spec.pods = 3;
    let Some(world) = World::start(vec![spec]).await else { return };
    let collector = world.collector("");
    let pods = || async {
        let reading = read_anew(&collector, &llama()).await;
        let names: Vec<PodName> =
            reading.value().replicas.iter().map(|replica| replica.pod_name.clone()).collect();
        names
    };
    assert_eq!(pods().await.len(), 3);

    world.fleet.kill_pod("prod", "llama-0").await.unwrap();
    let killed = now();
    eventually("the killed pod is gone", Duration::from_secs(4), || async {
        pods().await.iter().all(|pod| pod.as_str() != "llama-0")
    })
    .await;
    assert!(killed.elapsed() <= Duration::from_secs(4), "more than 3 scrapes");

    let added = world.fleet.add_pod("prod", "llama").await.unwrap();
    // Prometheus takes its time to find a new target; from then on two scrapes and one look do.
    eventually("the new pod is scraped twice", Duration::from_secs(20), || async {
        world.fleet.scrapes("prod", &added.pod).len() >= 2
    })
    .await;
    assert!(pods().await.iter().any(|pod| pod.as_str() == added.pod));

    // A restart resets the counters: no rate may become negative or giant by it.
    let more = "[[variants]]\nname = \"llama\"\nnamespace = \"prod\"\n\
                model = \"meta-llama/Llama-3.1-8B-Instruct\"";
    let collector = world.collector(more);
    world.fleet.restart_pod("prod", "llama-1").await.unwrap();
    for _ in 0..8 {
        world.scrapes(1).await;
        collector.invalidate_cache(&llama());
        let allocation = collector.collect_allocation(&llama(), &"llama".into()).await.unwrap();
        let rate = allocation.value().load.arrival_rate.unwrap();
        let truth = world.fleet.model_truth("prod", MODEL).unwrap().requests_per_minute;
        assert!((0.0..=1.5 * truth).contains(&rate), "{rate} requests a minute, truly {truth}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_is_zero_and_missing_is_not() {
    let mut idle = variant("idle", "idle-model");
    idle.load.requests_per_minute = 0.0;
    let Some(world) = World::start(vec![idle]).await else { return };
    world.scrapes(2).await;
    let collector = world
        .collector("[[variants]]\nname = \"idle\"\nnamespace = \"prod\"\nmodel = \"idle-model\"");
    let model = ModelRef::new("idle-model", "prod");
    let reading = collector.collect_replica_metrics(&model).await.unwrap();
    let replica = &reading.value().replicas[0];
    assert_eq!((replica.queue_length, replica.running_requests), (Some(0), Some(0)));
    assert_eq!(replica.kv_cache_usage, Some(0.0));
    let allocation = collector.collect_allocation(&model, &"idle".into()).await.unwrap();
    assert_eq!(allocation.value().load.arrival_rate, Some(0.0));
    assert_eq!(allocation.value().load.avg_input_tokens, Some(0.0));

    let misspelt = ModelRef::new("idle-modle", "prod");
    let error = collector.collect_replica_metrics(&misspelt).await.unwrap_err();
    let CollectError::Missing { nearest, .. } = error else { panic!("{error}") };
    assert_eq!(nearest.models[0].as_str(), "idle-model");
    let elsewhere = ModelRef::new("idle-model", "dev");
    let error = collector.collect_replica_metrics(&elsewhere).await.unwrap_err();
    let CollectError::Missing { nearest, .. } = error else { panic!("{error}") };
    assert_eq!(nearest.namespaces[0].as_str(), "prod");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_model_ids_are_answered_or_missing_and_never_another_models() {
    let long = "long-".repeat(200);
    let odd = [
        r#"quote"d"#,
        r"back\slash",
        "{brace}",
        "co:lon/slash",
        "模型-ünïcode",
        "regex.*|+?",
        "new\nline",
        long.as_str(),
    ];
    let variants: Vec<VariantSpec> = odd
        .iter()
        .enumerate()
        .map(|(n, model)| {
            let mut spec = variant(&format!("odd-{n}"), model);
            spec.pods = 1;
            spec
        })
        .collect();
    let Some(world) = World::start(variants).await else { return };
    let collector = world.collector("");
    for (n, model) in odd.iter().enumerate() {
        let reading =
            collector.collect_replica_metrics(&ModelRef::new(*model, "prod")).await.unwrap();
        let pods: Vec<_> =
            reading.value().replicas.iter().map(|replica| replica.pod_name.to_string()).collect();
        assert_eq!(pods, [format!("odd-{n}-0")], "{model:?}");
    }
    for model in [r#"x" or vector(1) #"#, ".*", "{", "\\", "\n", r#"",namespace=~".*"#] {
        let asked = ModelRef::new(model, "prod");
        let error = collector.collect_replica_metrics(&asked).await.unwrap_err();
        assert!(matches!(error, CollectError::Missing { .. }), "{model:?}: {error}");
    }
}
