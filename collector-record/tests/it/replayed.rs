// SPDX-License-Identifier: Apache-2.0
//! A recording under the engine, on paused time.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Backend, Clock, CollectError, ErrorKind, Freshness, ListAsk, MetricsCollector as _, ModelRef,
    ModelSample, ReplicaMetrics,
};
use collector_engine::{CachingCollector, Discovery};
use collector_record::{Recording, Replay, ReplayClock, replay};
use collector_testkit::TokioClock;
use collector_testkit::conformance::{self, Fleet, FleetModel};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{World, model, opened};

const SECOND: Duration = Duration::from_secs(1);

/// An incident: 60 s of answers, each 2 s old when it came; an outage until 400 s; and answers until 460 s. The
/// queue is the second of the recording.
async fn incident() -> Arc<Recording> {
    let world = World::new(false);
    let llama = model("llama");
    for second in (0..=460_u64).step_by(5) {
        world.fake.serve(&llama, move |now| {
            let mut row = ReplicaMetrics::new("llama-0", now - SECOND * 2);
            row.queue_length = Some(second);
            ModelSample::new(now - SECOND * 2, vec![row])
        });
        if (65..400).contains(&second) {
            world.fake.fail(ErrorKind::Connect);
        } else {
            world.fake.restore();
        }
        let _ = world.fetch(std::slice::from_ref(&llama)).await;
        if second == 0 {
            world.wrapped.list_models(ListAsk::new(&*world.clock)).await.unwrap();
        }
        world.clock.advance(SECOND * 5);
    }
    world.recorder.end();
    world.write();
    Arc::new(opened(&world.path()))
}

/// A running collector over a replay at this speed.
async fn collector(how: Replay) -> CachingCollector {
    let mut clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    if how.speed.total_cmp(&1.0).is_ne() {
        clock = Arc::new(ReplayClock::new(clock, how.speed));
    }
    let recording = incident().await;
    let mut backends = replay(&recording, how, &clock);
    let collector = CachingCollector::builder(Arc::new(backends.remove(0)) as Arc<dyn Backend>)
        .discover(Discovery::default())
        .clock(clock)
        .build()
        .unwrap();
    collector.start_background_worker().await.unwrap();
    collector
}

/// The queue, and the age and the freshness of the reading.
async fn read(collector: &CachingCollector) -> Result<(u64, Duration, Freshness), CollectError> {
    let reading = collector.collect_replica_metrics(&model("llama")).await?;
    let queue = reading.value().replicas[0].queue_length.unwrap();
    Ok((queue, reading.age(), reading.freshness()))
}

/// What is read in the time of the recording, at any speed.
async fn check(speed: f64) {
    let collector = collector(Replay { speed, ..Replay::default() }).await;
    let started = Instant::now();
    // Until a time since the start: a read that waits must not move those that follow.
    let pass = async |until: u64| {
        sleep_until(started + (SECOND * u32::try_from(until).unwrap()).div_f64(speed)).await;
    };
    // Timers are as coarse as a millisecond, and the replay's shortest wait is 5 of them.
    let slack = Duration::from_millis(10).mul_f64(speed);
    let close = |age: Duration, expected: u64| {
        let expected = Duration::from_secs(expected);
        assert!(age.abs_diff(expected) <= slack, "{age:?} instead of {expected:?}");
    };

    pass(12).await;
    let (queue, age, freshness) = read(&collector).await.unwrap();
    assert_eq!((queue, freshness), (10, Freshness::Fresh));
    close(age, 4);

    // In the outage there are neither zeros nor newer ages.
    pass(100).await;
    let (queue, age, freshness) = read(&collector).await.unwrap();
    assert_eq!((queue, freshness), (60, Freshness::Fresh));
    close(age, 42);
    pass(150).await;
    let (queue, age, freshness) = read(&collector).await.unwrap();
    assert_eq!((queue, freshness), (60, Freshness::Stale));
    close(age, 92);
    pass(380).await;
    match read(&collector).await {
        Err(CollectError::Backend { .. } | CollectError::Unavailable { .. }) => {}
        other => panic!("{other:?}"),
    }

    // The server comes back.
    pass(432).await;
    let (queue, age, freshness) = read(&collector).await.unwrap();
    assert_eq!((queue, freshness), (430, Freshness::Fresh));
    close(age, 4);

    // After the end, readings age until they are too old to be used.
    pass(560).await;
    let (queue, age, freshness) = read(&collector).await.unwrap();
    assert_eq!((queue, freshness), (460, Freshness::Stale));
    close(age, 102);
    pass(800).await;
    read(&collector).await.unwrap_err();
    collector.stop_background_worker().await;
}

#[tokio::test(start_paused = true)]
async fn ages_and_outages_are_those_of_the_incident() {
    check(1.0).await;
}

#[tokio::test(start_paused = true)]
async fn they_are_the_same_at_ten_times_the_speed() {
    check(10.0).await;
}

#[tokio::test(start_paused = true)]
async fn a_loop_begins_again() {
    let collector = collector(Replay { repeat: true, ..Replay::default() }).await;
    sleep(SECOND * 457).await;
    assert_eq!(read(&collector).await.unwrap().0, 455);
    // The recording is 465 s long.
    sleep(SECOND * 20).await;
    let (queue, age, freshness) = read(&collector).await.unwrap();
    assert_eq!((queue, freshness), (10, Freshness::Fresh));
    assert!(age < SECOND * 5, "{age:?}");
    collector.stop_background_worker().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_begins_where_it_is_told_to() {
    let collector = collector(Replay { start: Some(SECOND * 421), ..Replay::default() }).await;
    sleep(SECOND / 10).await;
    let (queue, age, _) = read(&collector).await.unwrap();
    assert_eq!((queue, age.as_secs()), (420, 3));
    collector.stop_background_worker().await;
}

#[tokio::test(start_paused = true)]
async fn time_can_stand_still() {
    let how = Replay { speed: 0.0, start: Some(SECOND * 31), ..Replay::default() };
    let collector = collector(how).await;
    for _ in 0..3 {
        let (queue, age, freshness) = read(&collector).await.unwrap();
        assert_eq!((queue, age, freshness), (30, SECOND * 3, Freshness::Fresh));
        sleep(SECOND * 600).await;
    }
    collector.stop_background_worker().await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_nobody_recorded_is_missing() {
    let collector = collector(Replay { start: Some(SECOND * 20), ..Replay::default() }).await;
    let absent = ModelRef::new("absent", "prod");
    let error = collector.collect_replica_metrics(&absent).await.unwrap_err();
    assert!(matches!(error, CollectError::Missing { .. }), "its backend did not list it: {error}");
    collector.stop_background_worker().await;
}

/// The models of a recording that stands still.
struct Recorded(Arc<dyn Clock>);

impl Fleet for Recorded {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.0)
    }

    fn models(&self) -> Vec<FleetModel> {
        let row = |name: &str| {
            let mut row = ReplicaMetrics::new(name, Clock::now(&*self.0));
            (row.kv_cache_usage, row.queue_length) = (Some(0.25), Some(1));
            row
        };
        vec![
            FleetModel::new(model("llama"), [row("llama-0"), row("llama-1")]),
            FleetModel::new(model("qwen"), [row("qwen-0")]),
        ]
    }
}

#[tokio::test(start_paused = true)]
async fn it_keeps_what_every_backend_promises() {
    let world = World::new(false);
    world.fake.serve_pods(&model("llama"), &["llama-0", "llama-1"]);
    world.fake.serve_pods(&model("qwen"), &["qwen-0"]);
    let asked = [model("llama"), model("qwen")];
    let listing = ListAsk::new(&*world.clock);
    world.wrapped.list_models(listing).await.unwrap();
    for _ in 0..3 {
        world.fetch(&asked).await.unwrap();
        world.clock.advance(SECOND);
    }
    world.recorder.end();
    world.write();
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let how = Replay { repeat: true, ..Replay::default() };
    let mut backends = replay(&Arc::new(opened(&world.path())), how, &clock);
    conformance::backend(&backends.remove(0), &Recorded(clock)).await;
}
