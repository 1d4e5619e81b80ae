// SPDX-License-Identifier: Apache-2.0
//! A collector takes the place of another: what is known goes over, with its age.

use std::sync::Arc;

use collector_core::{Backend, Clock, CollectError, ErrorKind, MetricsCollector as _, Source};
use collector_engine::{Builder, CachingCollector, Discovery};
use collector_testkit::{FakeBackend, TokioClock};

use crate::setup::{llama, pass, secs, variant, variants};

struct Fixture {
    clock: Arc<dyn Clock>,
    fake: FakeBackend,
    /// The same, as collectors share it.
    backend: Arc<dyn Backend>,
}

impl Fixture {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        let fake = FakeBackend::new(Arc::clone(&clock));
        fake.serve_pods(&llama(), &["llama-0"]);
        Self { backend: Arc::new(fake.clone()), fake, clock }
    }

    fn over(
        &self,
        backend: &Arc<dyn Backend>,
        change: impl FnOnce(Builder) -> Builder,
    ) -> CachingCollector {
        let builder = CachingCollector::builder(Arc::clone(backend));
        change(builder.clock(Arc::clone(&self.clock))).build().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_reading_keeps_its_age_and_its_backend_is_not_asked() {
    let fixture = Fixture::new();
    let former = fixture.over(&fixture.backend, |builder| builder);
    former.collect_replica_metrics(&llama()).await.unwrap();
    pass(secs(10)).await;
    let fetches = fixture.fake.fetches();
    // The variant is new: its allocation is made of what is known.
    let after = fixture.over(&fixture.backend, variants(vec![variant("v", &llama(), "*")]));
    after.take_over(&former);
    let reading = after.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!((reading.source(), reading.age()), (Source::Cache, secs(10)));
    assert_eq!(reading.value().replicas[0].variant_name, Some("v".into()));
    assert!(after.collect_allocation(&llama(), &"v".into()).await.is_ok());
    assert_eq!(fixture.fake.fetches(), fetches);
}

#[tokio::test(start_paused = true)]
async fn the_reading_of_another_server_is_last_known_good_until_the_new_one_answers() {
    let fixture = Fixture::new();
    let former = fixture.over(&fixture.backend, |builder| builder);
    former.collect_replica_metrics(&llama()).await.unwrap();
    pass(secs(10)).await;
    let other = FakeBackend::new(Arc::clone(&fixture.clock));
    other.fail(ErrorKind::Unauthorized);
    let backend: Arc<dyn Backend> = Arc::new(other.clone());
    let after = fixture.over(&backend, |builder| builder);
    after.take_over(&former);
    let reading = after.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!((reading.source(), reading.age()), (Source::LastKnownGood, secs(10)));
    let state = after.state();
    assert!(state.backends[0].last_success.is_none(), "the new server has not answered");

    other.restore();
    other.serve_pods(&llama(), &["llama-0", "llama-1"]);
    after.start_background_worker().await.unwrap();
    pass(secs(3)).await;
    let reading = after.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(reading.value().replicas.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_backend_of_another_name_brings_nothing() {
    let fixture = Fixture::new();
    let former = fixture.over(&fixture.backend, |builder| builder);
    former.collect_replica_metrics(&llama()).await.unwrap();
    let other = FakeBackend::new(Arc::clone(&fixture.clock)).named("other");
    other.fail(ErrorKind::Unauthorized);
    let backend: Arc<dyn Backend> = Arc::new(other);
    let after = fixture.over(&backend, |builder| builder);
    after.take_over(&former);
    assert!(after.collect_replica_metrics(&llama()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_counted_and_what_the_backend_lists_go_over() {
    let fixture = Fixture::new();
    let discovers = |builder: Builder| builder.discover(Discovery::default());
    let former = fixture.over(&fixture.backend, discovers);
    former.start_background_worker().await.unwrap();
    pass(secs(5)).await;
    former.collect_replica_metrics(&llama()).await.unwrap();
    former.stop_background_worker().await;
    let before = former.state();
    let after = fixture.over(&fixture.backend, discovers);
    after.take_over(&former);
    let state = after.state();
    assert_eq!((state.hits, state.misses), (1, 0));
    assert_eq!((state.tracked, state.cycles), (1, before.cycles));
    assert!(state.cycles >= 1);
    assert_eq!(state.backends[0].requests, before.backends[0].requests);
    assert_eq!(state.backends[0].listing.models, Some(1));
    assert_eq!(state.backends[0].last_success, before.backends[0].last_success);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_stays_open() {
    let fixture = Fixture::new();
    fixture.fake.fail(ErrorKind::Connect);
    let former = fixture.over(&fixture.backend, |builder| builder);
    for _ in 0..3 {
        assert!(former.collect_replica_metrics(&llama()).await.is_err());
    }
    let fetches = fixture.fake.fetches();
    let after = fixture.over(&fixture.backend, |builder| builder);
    after.take_over(&former);
    let refused = after.collect_replica_metrics(&llama()).await;
    assert!(matches!(refused, Err(CollectError::Backend(_))), "{refused:?}");
    assert_eq!(fixture.fake.fetches(), fetches);
}
