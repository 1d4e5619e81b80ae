// SPDX-License-Identifier: Apache-2.0
//! The budget of requests: who comes first when there are more than may be sent.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    BreakerState, CollectError, ErrorKind, Limits, ManualClock, MetricsCollector as _, ModelRef,
    Urgency,
};
use collector_engine::{Builder, CachingCollector};
use collector_testkit::FakeBackend;

use crate::setup::{Setup, llama, pass, secs, setup_of, variant, variants};

/// Fetches of ten requests each, of which ten a second may be sent, and `llama` configured.
fn scarce(change: impl FnOnce(Builder) -> Builder) -> Setup {
    let variants = variants(vec![variant("v", &llama(), "*")]);
    let rate = Limits::default().with_rate(10, 1);
    let setup = setup_of(
        |backend| backend.requests_per_fetch(10).with_limits(rate),
        |builder| change(variants(builder)),
    );
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup
}

#[tokio::test(start_paused = true)]
async fn a_miss_does_not_wait_for_a_refresh_that_has_begun_before() {
    let setup = scarce(|builder| builder);
    let other = ModelRef::new("other", "prod");
    setup.backend.serve_pods(&other, &["other-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(Duration::from_millis(50)).await;
    assert_eq!(setup.backend.asks()[0].urgency, Urgency::Background);
    let began = tokio::time::Instant::now();
    setup.read(&other).await;
    // Ten of its own, and two of the refresh: one in five.
    assert!(began.elapsed() <= Duration::from_millis(1300), "{:?}", began.elapsed());
    assert!(setup.collector.tracked().iter().any(|tracked| tracked.replicas.is_err()));
    pass(secs(1)).await;
    assert!(setup.collector.tracked().iter().all(|tracked| tracked.replicas.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn misses_without_end_do_not_starve_the_refresh() {
    let setup = scarce(|builder| builder);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(2)).await;
    let collector = Arc::clone(&setup.collector);
    let hungry = tokio::spawn(async move {
        for n in 0_u64.. {
            for reader in 0..20 {
                let collector = Arc::clone(&collector);
                let model = ModelRef::new(format!("typo-{n}-{reader}"), "prod");
                tokio::spawn(
                    async move { collector.collect_replica_metrics(&model).await.is_ok() },
                );
            }
            pass(Duration::from_millis(500)).await;
        }
    });
    let mut oldest = Duration::ZERO;
    for _ in 0..300 {
        pass(secs(1)).await;
        oldest = oldest.max(setup.read(&llama()).await.age());
    }
    hungry.abort();
    // A fetch of ten requests takes five seconds where it has a fifth of ten a second.
    assert!(oldest < secs(36), "{oldest:?}");
    // Callers ran out of time for want of requests, which says nothing about the server.
    let state = setup.collector.state().backends[0].clone();
    assert_eq!((state.breaker, state.recent_failures), (BreakerState::Closed, 0), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn listing_models_is_counted_and_comes_last() {
    let setup = scarce(|builder| builder);
    let requests = || setup.collector.state().backends[0].requests;
    setup.collector.list_models().await.unwrap();
    assert_eq!(requests(), 1);
    pass(secs(11)).await;
    setup.collector.start_background_worker().await.unwrap();
    pass(Duration::from_millis(50)).await;
    let began = tokio::time::Instant::now();
    setup.collector.list_models().await.unwrap();
    let waited = began.elapsed();
    assert!((Duration::from_millis(700)..=secs(1)).contains(&waited), "{waited:?}");
    setup.backend.fail(ErrorKind::Unauthorized);
    pass(secs(10)).await;
    for n in 0..3 {
        let model = ModelRef::new(format!("m-{n}"), "prod");
        let read = setup.collector.collect_replica_metrics(&model).await;
        assert!(matches!(read, Err(CollectError::Backend(_))), "{read:?}");
    }
    // The circuit is open, for questions as well.
    let before = setup.backend.list_calls();
    assert!(setup.collector.list_models().await.is_err());
    assert_eq!(setup.backend.list_calls(), before);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_in_flight_stops_when_the_circuit_opens_and_says_why() {
    let setup = scarce(|builder| builder);
    setup.backend.fail_next(3, ErrorKind::Unauthorized);
    let mut reads = Vec::new();
    for n in 0..4 {
        let model = ModelRef::new(format!("m-{n}"), "prod");
        setup.backend.serve_pods(&model, &["pod-0"]);
        let collector = Arc::clone(&setup.collector);
        reads.push(tokio::spawn(async move { collector.collect_replica_metrics(&model).await }));
        pass(Duration::from_millis(10)).await;
    }
    for read in reads {
        let Err(CollectError::Backend(error)) = read.await.unwrap() else { panic!() };
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
    }
    // They take turns: the last of them lacked one more.
    assert_eq!(setup.collector.state().backends[0].requests, 39);
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_set_beat_those_of_the_backend_itself() {
    let setup = scarce(|builder| builder.limits(Limits::default()));
    let began = tokio::time::Instant::now();
    setup.read(&llama()).await;
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
}

#[test]
fn limits_that_contradict_the_timings_are_refused_in_code_as_in_a_file() {
    let slow = FakeBackend::new(Arc::new(ManualClock::new())).with_limits(Limits::new(secs(60)));
    let Err(error) = CachingCollector::new(slow) else { panic!("it is taken") };
    let error = error.to_string();
    assert!(error.contains("timeout") && error.contains("cache.fetch_interval"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_without_permits_says_so() {
    let setup = setup_of(
        |backend| backend.requests_per_fetch(100).with_limits(Limits::default().with_rate(1, 1)),
        |builder| builder,
    );
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    let error = setup.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    let expected = "no request permit within 16s: 8 requests were in flight, or requests_per_second was reached";
    assert!(error.to_string().contains(expected), "{error}");
}
