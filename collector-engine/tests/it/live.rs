// SPDX-License-Identifier: Apache-2.0
//! A backend that pushes what it learns.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{
    Answers, Ask, Backend, BackendError, BreakerState, CollectError, ErrorKind, Freshness, Limits,
    LiveContext, LiveSource, MetricsCollector as _, ModelRef, ModelSample, Probe, ProbeAsk,
    ReplicaMetrics, Source, Supports, Urgency, VariantRef,
};
use collector_engine::{CacheConfig, CachingCollector};
use collector_testkit::{FakeBackend, TokioClock};

use crate::setup::{Setup, llama, pass, secs, setup_of, variant, variants};

fn setup() -> Setup {
    setup_of(collector_testkit::FakeBackend::pushing, |builder| builder)
}

#[tokio::test(start_paused = true)]
async fn what_is_pushed_is_read_at_once_and_nothing_is_asked_in_the_background() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    // The live half soon learns that the model is tracked.
    pass(Duration::from_millis(100)).await;
    assert_eq!(setup.backend.tracked_models().len(), 1);
    for pods in 1..100 {
        let pods: Vec<String> = (0..pods).map(|pod| format!("llama-{pod}")).collect();
        setup.backend.serve_pods(&llama(), &pods.iter().map(String::as_str).collect::<Vec<_>>());
        setup.backend.push_tracked();
        let reading = setup.read(&llama()).await;
        assert_eq!(reading.value().replicas.len(), pods.len());
        assert_eq!((reading.age(), reading.source()), (Duration::ZERO, Source::Cache));
        pass(secs(1)).await;
    }
    assert_eq!(setup.backend.fetches(), 1);
    assert_eq!(setup.collector.state().backends[0].pushes, 99);
}

#[tokio::test(start_paused = true)]
async fn when_no_push_comes_for_a_ttl_a_read_asks() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    pass(secs(31)).await;
    assert_eq!(setup.read(&llama()).await.source(), Source::LastKnownGood);
    pass(secs(1)).await;
    assert!(setup.read(&llama()).await.age() < secs(2));
    assert_eq!(setup.backend.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pushed_answer_of_a_model_that_nobody_tracks_is_dropped() {
    let setup = setup_of(
        collector_testkit::FakeBackend::pushing,
        variants(vec![variant("fast", &llama(), "*")]),
    );
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    setup.collector.stop_tracking(&VariantRef::new("fast", "prod"));
    // The backend does not know yet.
    setup.backend.push_tracked();
    assert_eq!(setup.collector.cache_size(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_push_after_an_invalidation_that_was_sampled_before_it_is_dropped() {
    let setup = setup();
    setup.collector.start_background_worker().await.unwrap();
    let model = llama();
    let clock = Arc::clone(&setup.clock);
    let looked_at = clock.now() + secs(10);
    setup.backend.serve(&model, move |_| {
        collector_core::ModelSample::new(
            looked_at,
            vec![collector_core::ReplicaMetrics::new("a", looked_at)],
        )
    });
    setup.read(&model).await;
    pass(secs(20)).await;
    setup.collector.invalidate_cache(&model);
    setup.backend.push_tracked();
    assert_eq!(setup.collector.cache_size(), 0, "sampled ten seconds before the invalidation");
    setup.backend.serve_pods(&model, &["a"]);
    pass(Duration::from_millis(1)).await;
    setup.backend.push_tracked();
    assert_eq!(setup.collector.cache_size(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_live_half_that_panics_is_started_again_with_the_tracked_models() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    pass(secs(1)).await;
    setup.backend.panic_live();
    pass(Duration::from_millis(100)).await;
    assert!(!setup.backend.is_live());
    pass(secs(1)).await;
    assert_eq!((setup.backend.live_runs(), setup.backend.tracked_models().len()), (2, 1));
    assert_eq!(setup.collector.state().backends[0].panics, 1);
    setup.backend.push_tracked();
    assert_eq!(setup.read(&llama()).await.age(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_live_half_that_panics_at_once_is_restarted_after_ever_longer_pauses() {
    let setup = setup();
    setup.collector.start_background_worker().await.unwrap();
    for _ in 0..1200 {
        setup.backend.panic_live();
        pass(Duration::from_millis(100)).await;
    }
    // After pauses of 1, 2, 4, 8, 16 and 32 s.
    assert_eq!(setup.backend.live_runs(), 7);
    // The last panic that was ordered comes with the next start, and then a minute passes.
    pass(secs(130)).await;
    assert_eq!((setup.backend.live_runs(), setup.backend.is_live()), (9, true));
    // One that ran for longer than that is not suspected of anything.
    setup.backend.panic_live();
    pass(Duration::from_millis(1100)).await;
    assert_eq!((setup.backend.live_runs(), setup.backend.is_live()), (10, true));
}

#[tokio::test(start_paused = true)]
async fn what_is_pushed_says_that_the_backend_is_there_unless_it_is_a_failure() {
    let setup = setup_of(
        collector_testkit::FakeBackend::pushing,
        variants(vec![variant("fast", &llama(), "*")]),
    );
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    setup.backend.fail(ErrorKind::Unauthorized);
    for n in 0..3 {
        let model = ModelRef::new(format!("m-{n}"), "prod");
        assert!(setup.collector.collect_replica_metrics(&model).await.is_err());
    }
    let breaker = || setup.collector.state().backends[0].breaker;
    setup.backend.fail_model(&llama(), ErrorKind::Timeout);
    setup.backend.push_tracked();
    assert_eq!(breaker(), BreakerState::Open);
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.push_tracked();
    assert_eq!(breaker(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn stopping_drops_the_live_half() {
    let setup = setup();
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    assert!(setup.backend.is_live());
    setup.collector.stop_background_worker().await;
    assert!(!setup.backend.is_live());
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    assert!(setup.backend.is_live());
}

#[tokio::test(start_paused = true)]
async fn a_cycle_is_over_when_the_live_half_says_so() {
    let setup = setup();
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(100)).await;
    assert_eq!(setup.collector.state().cycles, 0);
    setup.backend.end_cycle();
    assert_eq!(setup.collector.state().cycles, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pushed_failure_keeps_the_value_and_says_why_once_it_is_too_old() {
    let setup = setup_of(
        collector_testkit::FakeBackend::pushing,
        variants(vec![variant("fast", &llama(), "*")]),
    );
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    setup.backend.fail_model(&llama(), ErrorKind::Timeout);
    for _ in 0..310 {
        pass(secs(1)).await;
        setup.backend.push_tracked();
    }
    let error = setup.collector.tracked().remove(0).replicas.unwrap_err();
    let CollectError::Unavailable { cause: Some(cause), age, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((cause.kind(), age), (ErrorKind::Timeout, secs(310)));
    assert!(setup.backend.asks().iter().all(|ask| ask.urgency == Urgency::Waiting));
}

#[tokio::test(start_paused = true)]
async fn an_older_push_never_replaces_a_newer_one() {
    let setup = setup();
    setup.collector.start_background_worker().await.unwrap();
    let model: ModelRef = llama();
    setup.backend.serve_pods(&model, &["a", "b"]);
    setup.read(&model).await;
    let as_of = setup.clock.now() - secs(1);
    setup.backend.serve(&model, move |_| collector_core::ModelSample::new(as_of, vec![]));
    setup.backend.push_tracked();
    pass(Duration::from_millis(100)).await;
    setup.backend.push_tracked();
    assert_eq!(setup.read(&model).await.value().replicas.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_timings_of_asking_mean_nothing_to_what_is_not_asked() {
    let hasty = CacheConfig { fetch_interval: secs(1), ..CacheConfig::default() };
    setup_of(collector_testkit::FakeBackend::pushing, |builder| {
        builder.config(hasty).limits(Limits::new(secs(5)))
    });
}

/// Panics once when it gets the tracked models.
struct Touchy {
    inner: FakeBackend,
    panics: AtomicBool,
}

#[async_trait]
impl Backend for Touchy {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn supports(&self) -> Supports {
        self.inner.supports()
    }
    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
        self.inner.fetch(ask).await
    }
    async fn probe(&self, ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        self.inner.probe(ask).await
    }
    fn live(&self) -> Option<&dyn LiveSource> {
        Some(self)
    }
}

#[async_trait]
impl LiveSource for Touchy {
    fn tracked(&self, models: Arc<HashSet<ModelRef>>) {
        assert!(models.is_empty() || !self.panics.swap(false, Ordering::SeqCst), "a defect");
        self.inner.tracked(models);
    }
    async fn run(&self, context: LiveContext) {
        self.inner.run(context).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_half_that_panics_on_the_tracked_models_is_started_again() {
    let clock = Arc::new(TokioClock::new());
    let inner = FakeBackend::new(clock.clone()).pushing();
    let backend = Touchy { inner: inner.clone(), panics: true.into() };
    let collector = CachingCollector::builder(Arc::new(backend)).clock(clock).build().unwrap();
    inner.serve_pods(&llama(), &["a"]);
    collector.start_background_worker().await.unwrap();
    collector.collect_replica_metrics(&llama()).await.unwrap();
    pass(secs(2)).await;
    assert!(inner.is_live());
    assert_eq!((inner.live_runs(), inner.tracked_models().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_from_before_a_model_went_missing_does_not_bring_it_back() {
    let setup = setup_of(FakeBackend::pushing, |builder| builder);
    setup.backend.serve_pods(&llama(), &["a"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    pass(secs(2)).await;
    let as_of = setup.clock.now();
    pass(secs(1)).await;
    setup.backend.remove(&llama());
    setup.backend.push_tracked();
    assert_eq!(setup.read(&llama()).await.freshness(), Freshness::Stale);
    // What was fetched before is pushed late.
    setup
        .backend
        .serve(&llama(), move |_| ModelSample::new(as_of, vec![ReplicaMetrics::new("a", as_of)]));
    setup.backend.push_tracked();
    assert_eq!(setup.read(&llama()).await.freshness(), Freshness::Stale);
}

#[tokio::test(start_paused = true)]
async fn a_failed_fetch_that_is_older_than_a_push_changes_nothing() {
    let setup = setup_of(FakeBackend::pushing, |builder| builder);
    setup.backend.serve_pods(&llama(), &["a"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    pass(secs(31)).await;
    setup.backend.hang();
    setup.read(&llama()).await;
    // Pushes come again while the fetch that the read has started hangs.
    for _ in 0..60 {
        pass(secs(1)).await;
        setup.backend.push_tracked();
        pass(Duration::from_millis(900)).await;
        let reading = setup.collector.tracked().remove(0).replicas.unwrap();
        assert_eq!(reading.source(), Source::Cache);
    }
}
