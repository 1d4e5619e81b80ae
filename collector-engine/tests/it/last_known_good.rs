// SPDX-License-Identifier: Apache-2.0
//! What was last known is served with its true age, whatever fails: a batch of which half fails, a
//! backend that panics, clocks that jump, a machine that slept. Outages have a file of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use collector_core::{
    BreakerState, Clock, CollectError, ErrorKind, Freshness, MetricsCollector as _, ModelRef,
    Source, Tick,
};
use collector_engine::CachingCollector;
use collector_testkit::{FakeBackend, TokioClock};

use crate::setup::{Setup, llama, pass, secs, setup, setup_with, variant, variants};

#[tokio::test(start_paused = true)]
async fn of_a_batch_that_half_fails_one_half_is_fresh_and_the_other_ages() {
    let setup = setup();
    let models: Vec<ModelRef> = (0..10).map(|n| ModelRef::new(format!("m-{n}"), "prod")).collect();
    for model in &models {
        setup.backend.serve_pods(model, &["pod-0"]);
        setup.read(model).await;
    }
    setup.collector.start_background_worker().await.unwrap();
    for model in &models[..5] {
        setup.backend.fail_model(model, ErrorKind::Rejected);
    }
    pass(secs(50)).await;
    for (index, model) in models.iter().enumerate() {
        let reading = setup.read(model).await;
        if index < 5 {
            assert_eq!(reading.source(), Source::LastKnownGood);
            assert!(reading.age() >= secs(50), "{model}: {:?}", reading.age());
        } else {
            assert_eq!(reading.source(), Source::Cache);
            assert!(reading.age() <= secs(30), "{model}: {:?}", reading.age());
        }
    }
    // The server answered: it is asked on.
    assert_eq!(setup.collector.state().backends[0].breaker, BreakerState::Closed);
    for model in &models[..5] {
        setup.backend.serve_pods(model, &["pod-0"]);
    }
    pass(secs(30)).await;
    for model in &models {
        assert!(setup.read(model).await.age() <= secs(30));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_fetch_makes_no_value_older_than_it_is() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.read(&llama()).await;
    setup.backend.fail_model(&llama(), ErrorKind::Rejected);
    for (passes, freshness) in
        [(31, Freshness::Fresh), (9, Freshness::Fresh), (20, Freshness::Stale)]
    {
        pass(secs(passes)).await;
        let reading = setup.read(&llama()).await;
        assert_eq!((reading.source(), reading.freshness()), (Source::LastKnownGood, freshness));
    }
    assert!(setup.backend.fetches() > 1, "nothing has failed");
}

#[tokio::test(start_paused = true)]
async fn through_panics_of_the_backend_values_are_served_and_the_worker_lives() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    assert_eq!(setup.collector.state().backends[0].panics, 0);
    setup.backend.panic_next(4);
    for second in 1..=100 {
        pass(secs(1)).await;
        let reading = setup.read(&llama()).await;
        assert!(reading.age() <= secs(second + 1), "{:?}", reading.age());
        assert_ne!(reading.source(), Source::Backend);
    }
    let state = setup.collector.state();
    assert_eq!((state.backends[0].panics, state.panics), (4, 0));
    assert!(state.backends[0].last_error.is_none());
    assert!(setup.read(&llama()).await.age() <= secs(30));
    // Without a value to serve the caller learns what happened, and the next one is answered.
    setup.backend.panic_next(1);
    let other = ModelRef::new("other", "prod");
    setup.backend.serve_pods(&other, &["other-0"]);
    let error = setup.collector.collect_replica_metrics(&other).await.unwrap_err();
    let CollectError::Backend(error) = error else { panic!("{error}") };
    assert_eq!(error.kind(), ErrorKind::Panicked);
    setup.read(&other).await;
    assert_eq!(setup.collector.state().backends[0].panics, 5);
}

/// A clock whose wall time jumps, and which has slept through some time that it learns of when it
/// catches up.
struct Jumping {
    inner: TokioClock,
    /// Seconds that the wall clock is ahead, or behind.
    ahead: AtomicU64,
    behind: AtomicBool,
    /// Nanoseconds that were slept through, and those that `now` counts.
    slept: AtomicU64,
    counted: AtomicU64,
}

impl Jumping {
    fn new() -> Self {
        Self {
            inner: TokioClock::new(),
            ahead: AtomicU64::new(0),
            behind: AtomicBool::new(false),
            slept: AtomicU64::new(0),
            counted: AtomicU64::new(0),
        }
    }

    fn sleep(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap();
        self.slept.fetch_add(nanos, Ordering::SeqCst);
    }
}

impl Clock for Jumping {
    fn now(&self) -> Tick {
        self.inner.now() + Duration::from_nanos(self.counted.load(Ordering::SeqCst))
    }

    fn wall(&self) -> SystemTime {
        let jump = secs(self.ahead.load(Ordering::SeqCst));
        let wall = self.inner.wall() + secs(1_000_000);
        if self.behind.load(Ordering::SeqCst) { wall - jump } else { wall + jump }
    }

    fn catch_up(&self) {
        self.counted.store(self.slept.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

fn with_jumping_clock() -> (Arc<Jumping>, Setup) {
    let jumping = Arc::new(Jumping::new());
    let clock: Arc<dyn Clock> = Arc::clone(&jumping) as _;
    let backend = FakeBackend::new(Arc::clone(&clock));
    let builder = CachingCollector::builder(Arc::new(backend.clone())).clock(Arc::clone(&clock));
    let collector = Arc::new(builder.build().unwrap());
    (jumping, Setup { backend, collector, clock })
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_changes_no_age() {
    let (clock, setup) = with_jumping_clock();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    setup.backend.fail(ErrorKind::Connect);
    for second in 1..=90 {
        pass(secs(1)).await;
        // An hour ahead, an hour behind, and back.
        clock.ahead.store([0, 3600][second % 2], Ordering::SeqCst);
        clock.behind.store(second % 4 == 3, Ordering::SeqCst);
        let reading = setup.read(&llama()).await;
        assert_eq!(reading.age(), secs(second as u64));
    }
    setup.backend.restore();
    pass(secs(30)).await;
    assert_eq!(setup.read(&llama()).await.freshness(), Freshness::Fresh);
}

#[tokio::test(start_paused = true)]
async fn after_minutes_of_sleep_values_are_as_old_as_they_are_and_renewed_at_once() {
    let (clock, setup) = with_jumping_clock();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    pass(secs(1)).await;
    // The backend is away, so that the age shows.
    setup.backend.fail(ErrorKind::Unauthorized);
    clock.sleep(secs(240));
    pass(secs(5)).await;
    let reading = setup.read(&llama()).await;
    assert!(reading.age() >= secs(240), "{:?}", reading.age());
    assert_eq!(reading.source(), Source::LastKnownGood);
    assert_eq!(reading.freshness(), Freshness::Stale);
    setup.backend.restore();
    pass(secs(30)).await;
    assert!(setup.read(&llama()).await.age() <= secs(30));

    // Back at once where the backend is there, and not at the end of an interval.
    pass(secs(1)).await;
    let before = setup.backend.fetches();
    clock.sleep(secs(200));
    pass(secs(6)).await;
    assert_eq!(setup.backend.fetches(), before + 1);
    let tracked = setup.collector.tracked();
    assert!(tracked[0].replicas.as_ref().unwrap().age() <= secs(6));

    // Too old to be used: a read asks.
    setup.backend.fail(ErrorKind::Unauthorized);
    clock.sleep(secs(400));
    pass(secs(5)).await;
    let error = setup.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    assert!(matches!(error, CollectError::Unavailable { .. }), "{error}");
    setup.backend.restore();
    assert_eq!(setup.read(&llama()).await.source(), Source::Backend);
}

#[tokio::test(start_paused = true)]
async fn a_read_after_a_suspend_shows_the_true_age_with_the_worker_or_without() {
    for (way, worker) in (0..5).flat_map(|way| [(way, false), (way, true)]) {
        let (clock, setup) = with_jumping_clock();
        setup.backend.serve_pods(&llama(), &["llama-0"]);
        let collector = &setup.collector;
        if worker {
            collector.start_background_worker().await.unwrap();
        }
        setup.read(&llama()).await;
        let mut handle = collector.handle(llama(), None);
        assert!(handle.replicas().is_some());
        setup.backend.fail(ErrorKind::Unauthorized);
        clock.sleep(secs(200));
        pass(secs(1)).await;
        let age = match way {
            0 => setup.read(&llama()).await.age(),
            1 => collector.collect_many(&[llama()]).await[0].as_ref().unwrap().age(),
            2 => collector.cached_replicas(&llama()).unwrap().age(),
            3 => handle.replicas().unwrap().age(),
            _ => collector.tracked()[0].replicas.as_ref().unwrap().age(),
        };
        assert!((secs(200)..secs(210)).contains(&age), "{age:?}, way {way}, worker: {worker}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_stopped_for_minutes_refreshes_once_and_does_not_catch_up_on_cycles() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    pass(secs(10)).await;
    let before = setup.backend.fetches();
    // Time goes on, and nobody runs.
    tokio::time::advance(secs(240)).await;
    pass(Duration::from_millis(100)).await;
    assert_eq!(setup.backend.fetches(), before + 1);
    assert!(setup.read(&llama()).await.age() <= secs(1));
    pass(secs(20)).await;
    assert_eq!(setup.backend.fetches(), before + 1);
}
