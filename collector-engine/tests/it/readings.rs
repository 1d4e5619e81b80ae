// SPDX-License-Identifier: Apache-2.0
//! What a read answers, and where from.

use std::sync::Arc;

use async_trait::async_trait;
use collector_core::{
    Absent, Answers, Ask, AvailabilityReason, Backend, BackendError, Clock, CollectError,
    ErrorKind, Field, Freshness, KnownModel, ListAsk, LoadRates, LoadRows, MetricsCollector as _,
    ModelRef, ModelSample, Probe, ProbeAsk, ReplicaMetrics, Source, Supports,
};
use collector_engine::CachingCollector;
use collector_testkit::{FakeBackend, TokioClock};
use futures_util::future::join_all;

use crate::setup::{config, llama, pass, secs, setup, setup_with, variant, variants};

#[tokio::test(start_paused = true)]
async fn the_first_read_asks_and_the_next_one_does_not() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0", "llama-1"]);
    let first = setup.read(&llama()).await;
    assert_eq!((first.source(), first.freshness()), (Source::Backend, Freshness::Fresh));
    assert_eq!(first.value().replicas.len(), 2);
    assert_eq!(first.value().replicas[0].kv_cache_usage, Some(0.25));
    pass(secs(10)).await;
    let second = setup.read(&llama()).await;
    assert_eq!((second.source(), second.age()), (Source::Cache, secs(10)));
    assert_eq!(setup.backend.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn past_its_ttl_a_value_is_served_while_one_refresh_runs() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.read(&llama()).await;
    setup.backend.entered().await;
    pass(secs(31)).await;
    setup.backend.hang();
    for _ in 0..10 {
        let reading = setup.read(&llama()).await;
        assert_eq!((reading.source(), reading.age()), (Source::LastKnownGood, secs(31)));
    }
    setup.backend.entered().await;
    assert_eq!(setup.backend.fetches(), 2);
    setup.backend.release();
    pass(secs(1)).await;
    assert_eq!(setup.read(&llama()).await.source(), Source::Cache);
}

#[tokio::test(start_paused = true)]
async fn a_missing_model_is_an_error_with_the_nearest_names_and_is_remembered_for_its_ttl() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.serve_pods(&ModelRef::new("qwen", "dev"), &["qwen-0"]);
    let read = |name: &'static str| {
        let collector = Arc::clone(&setup.collector);
        async move { collector.collect_replica_metrics(&ModelRef::new(name, "prod")).await }
    };
    for _ in 0..3 {
        let Err(CollectError::Missing { nearest, .. }) = read("lama").await else { panic!() };
        assert_eq!(nearest.models[0].as_str(), "llama");
    }
    assert_eq!((setup.backend.fetches(), setup.backend.list_calls()), (1, 1));
    let Err(CollectError::Missing { nearest, .. }) = read("qwen").await else { panic!() };
    assert_eq!(nearest.namespaces[0].as_str(), "dev");
    // What exists was asked a moment ago.
    assert_eq!(setup.backend.list_calls(), 1);
    assert!(setup.collector.tracked().is_empty());
    pass(secs(10)).await;
    assert!(read("lama").await.is_err());
    assert_eq!(setup.backend.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_known_model_without_a_live_pod_is_neither_missing_nor_an_error() {
    let setup = setup();
    setup.backend.serve(&llama(), |as_of| ModelSample::new(as_of, Vec::new()));
    let reading = setup.read(&llama()).await;
    assert!(reading.value().replicas.is_empty());
    assert_eq!(reading.freshness(), Freshness::Fresh);
}

#[tokio::test(start_paused = true)]
async fn a_sample_that_is_too_old_when_it_arrives_is_unavailable() {
    let setup = setup();
    setup.backend.serve(&llama(), |as_of| {
        ModelSample::new(as_of, vec![ReplicaMetrics::new("llama-0", as_of - secs(400))])
    });
    let error = setup.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    let CollectError::Unavailable { age, threshold, cause, .. } = error else { panic!("{error}") };
    assert!(age >= secs(400));
    assert_eq!((threshold, cause.is_none()), (secs(300), true));
}

#[tokio::test(start_paused = true)]
async fn without_a_cache_every_read_asks_and_nothing_is_tracked() {
    let setup = setup_with(config(|config| config.enabled = false));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    for _ in 0..3 {
        assert_eq!(setup.read(&llama()).await.source(), Source::Backend);
    }
    assert_eq!(setup.backend.fetches(), 3);
    for listed in 1..=3 {
        setup.collector.list_models().await.unwrap();
        assert_eq!(setup.backend.list_calls(), listed);
    }
    assert!(setup.collector.tracked().is_empty());
    assert_eq!(setup.collector.cache_size(), 0);
}

#[tokio::test(start_paused = true)]
async fn replicas_and_allocations_of_variants_come_from_one_fetch() {
    let model = llama();
    let setup = setup_with(variants(vec![
        variant("fast", &model, "llama-h100-*"),
        variant("cheap", &model, "llama-l4-*"),
    ]));
    setup.backend.serve_pods(&model, &["llama-h100-0", "llama-h100-1", "llama-l4-0", "stray"]);
    let reading = setup.read(&model).await;
    let of = |pod: &str| {
        let row = reading.value().replicas.iter().find(|row| row.pod_name.as_str() == pod);
        let row = row.unwrap();
        (row.variant_name.as_ref().map(ToString::to_string), row.cost)
    };
    assert_eq!(of("llama-h100-1"), (Some("fast".to_owned()), Some(40.0)));
    assert_eq!(of("stray"), (None, None));

    let fast = setup.collector.collect_allocation(&model, &"fast".into()).await.unwrap();
    assert_eq!(fast.value().num_replicas, 2);
    // The fake's load: half a request a second and pod.
    assert_eq!(fast.value().load.arrival_rate, Some(60.0));
    assert_eq!(fast.value().load.avg_input_tokens, Some(100.0));
    assert_eq!((fast.source(), fast.value().max_batch), (Source::Cache, Some(256)));

    let narrowed = setup.collector.collect_variant_metrics(&model, &"cheap".into()).await.unwrap();
    assert_eq!(narrowed.value().replicas.len(), 1);
    assert_eq!(setup.backend.fetches(), 1);

    let error = setup.collector.collect_allocation(&model, &"fats".into()).await.unwrap_err();
    assert!(error.to_string().ends_with(r#"has no variant "fats"; it has "fast", "cheap""#));
}

#[tokio::test(start_paused = true)]
async fn a_field_whose_query_fails_keeps_its_former_value_with_its_own_age() {
    let setup = setup();
    let sample = |as_of, usage, failed: &[Field]| {
        let mut row = ReplicaMetrics::new("llama-0", as_of);
        row.queue_length = Some(3);
        row.kv_cache_usage = usage;
        let mut sample = ModelSample::new(as_of, vec![row]);
        sample.failed = failed.iter().map(|field| (*field, "422")).collect();
        let requests = failed.is_empty().then_some(2.0);
        let rates = LoadRates::default().with_requests(requests).with_tokens(20.0, None);
        sample.load = LoadRows::Model(rates.into());
        sample
    };
    setup.backend.serve(&llama(), move |as_of| sample(as_of, Some(0.5), &[]));
    setup.read(&llama()).await;
    setup.backend.serve(&llama(), move |as_of| {
        sample(as_of, None, &[Field::KvCacheUsage, Field::ArrivalRate])
    });
    pass(secs(40)).await;
    setup.read(&llama()).await;
    pass(secs(1)).await;
    let reading = setup.read(&llama()).await;
    let row = &reading.value().replicas[0];
    assert_eq!((row.kv_cache_usage, row.queue_length), (Some(0.5), Some(3)));
    let age = |field| reading.age_of(row.sampled_at(field)).as_secs();
    assert_eq!((age(Field::KvCacheUsage), age(Field::QueueLength)), (41, 0));
    // The mean needs the arrival rate, which is as old as the fetch it was kept from.
    assert_eq!((row.avg_input_tokens, age(Field::AvgInputTokens)), (Some(10.0), 41));

    // Once the kept value is unavailable the field is unknown again.
    pass(secs(300)).await;
    setup.read(&llama()).await;
    let reading = setup.read(&llama()).await;
    assert_eq!(reading.value().replicas[0].kv_cache_usage, None);
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_answer_does_not_make_a_smaller_fleet_until_it_is_stale() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0", "llama-1"]);
    setup.read(&llama()).await;
    setup.backend.serve(&llama(), |as_of| {
        let mut sample = ModelSample::new(as_of, vec![ReplicaMetrics::new("llama-0", as_of)]);
        sample.absent = Absent::Unknown(None);
        sample
    });
    pass(secs(60)).await;
    setup.read(&llama()).await;
    pass(secs(1)).await;
    let reading = setup.read(&llama()).await;
    assert_eq!((reading.value().replicas.len(), reading.value().partial), (2, true));
    assert_eq!(reading.age(), secs(61));
    pass(secs(60)).await;
    setup.read(&llama()).await;
    pass(secs(1)).await;
    let reading = setup.read(&llama()).await;
    assert_eq!((reading.value().replicas.len(), reading.value().partial), (1, true));
}

#[tokio::test(start_paused = true)]
async fn where_the_backend_names_the_pods_out_of_reach_the_others_are_gone_at_once() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["gone", "hangs", "lives"]);
    setup.read(&llama()).await;
    setup.backend.serve(&llama(), |as_of| {
        let mut sample = ModelSample::new(as_of, vec![ReplicaMetrics::new("lives", as_of)]);
        sample.absent = Absent::Pods(vec!["hangs".into()]);
        sample
    });
    pass(secs(31)).await;
    setup.read(&llama()).await;
    pass(secs(1)).await;
    let reading = setup.read(&llama()).await;
    let pods: Vec<&str> =
        reading.value().replicas.iter().map(|row| row.pod_name.as_str()).collect();
    assert_eq!((pods, reading.value().partial), (vec!["hangs", "lives"], true));
}

#[tokio::test(start_paused = true)]
async fn availability_distinguishes_found_missing_and_failed() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    let validate = |name: &'static str| {
        let collector = Arc::clone(&setup.collector);
        async move { collector.validate_metrics_availability(&ModelRef::new(name, "prod")).await }
    };
    let found = validate("llama").await;
    assert!(found.available);
    assert_eq!(found.reason_name(), "MetricsFound");
    let missing = validate("lama").await;
    assert!(!missing.available);
    assert_eq!(missing.reason, AvailabilityReason::MetricsMissing);
    assert!(missing.message.contains(r#"did you mean "llama"?"#), "{}", missing.message);
    setup.backend.fail(ErrorKind::Unauthorized);
    let failed = validate("qwen").await;
    assert_eq!((failed.available, failed.reason_name().as_str()), (false, "FakeError"));
}

/// Answers what it is asked and never says which models it knows.
struct ListsNever(FakeBackend);

#[async_trait]
impl Backend for ListsNever {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn supports(&self) -> Supports {
        self.0.supports()
    }
    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
        self.0.fetch(ask).await
    }
    async fn list_models(&self, _: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        std::future::pending().await
    }
    async fn probe(&self, ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        self.0.probe(ask).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_never_comes_turns_missing_into_no_error() {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let backend = ListsNever(FakeBackend::new(Arc::clone(&clock)));
    let collector = CachingCollector::builder(Arc::new(backend)).clock(clock).build().unwrap();
    let models: Vec<_> = (0..6).map(|n| ModelRef::new(format!("typo-{n}"), "prod")).collect();
    let reads = models.iter().map(|model| collector.collect_replica_metrics(model));
    for read in join_all(reads).await {
        assert!(matches!(read, Err(CollectError::Missing { .. })), "{read:?}");
    }
}
