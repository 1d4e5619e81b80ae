// SPDX-License-Identifier: Apache-2.0
//! As many models as may be tracked, over a backend that takes its time.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use collector_core::{MetricsCollector as _, ModelRef, ModelValue, Source, Urgency};
use futures_util::future::join_all;

use crate::setup::{Setup, pass, secs, setup};

/// What a batch takes.
const BATCH: Duration = Duration::from_secs(3);

fn served(setup: &Setup, count: usize) -> Vec<ModelRef> {
    let models: Vec<ModelRef> =
        (0..count).map(|n| ModelRef::new(format!("m-{n}"), format!("ns-{}", n % 50))).collect();
    for model in &models {
        setup.backend.serve_pods(model, &["pod-0"]);
    }
    models
}

/// Lets each fetch take as long as a batch does.
fn slow(setup: &Setup) {
    setup.backend.hang();
    let backend = setup.backend.clone();
    tokio::spawn(async move {
        loop {
            backend.entered().await;
            pass(BATCH).await;
            backend.release();
            backend.hang();
        }
    });
}

/// Reads all of `count` models again and again for so many seconds, a few at a time, and holds every
/// reading to what it should be.
async fn check(count: usize, seconds: usize) {
    let setup = setup();
    let models = served(&setup, count);
    slow(&setup);
    let first = join_all(models.iter().map(|m| setup.collector.collect_replica_metrics(m))).await;
    assert!(first.iter().all(Result::is_ok));
    drop(first);
    setup.collector.start_background_worker().await.unwrap();
    let mut oldest = Duration::ZERO;
    let mut values: Vec<Weak<ModelValue>> = Vec::new();
    for second in 0..seconds {
        pass(secs(1)).await;
        // Each at least once in five minutes: what nobody reads is untracked.
        for model in models.iter().skip(second % 200).step_by(200) {
            let reading = setup.read(model).await;
            assert_eq!(reading.source(), Source::Cache, "{model} at {second}");
            oldest = oldest.max(reading.age());
            values.push(Arc::downgrade(reading.model()));
        }
    }
    assert!(oldest < secs(30) + BATCH, "{oldest:?}");
    let asks = setup.backend.asks();
    let cycles: Vec<_> = asks.iter().filter(|ask| ask.urgency == Urgency::Background).collect();
    // One batch a cycle, of everything, each 25.5 to 28.5 s.
    assert!(cycles.iter().all(|ask| ask.models.len() == count));
    assert!((seconds / 29..=seconds / 25).contains(&cycles.len()), "{}", cycles.len());
    assert!(setup.backend.in_flight() <= 1);
    let state = setup.collector.state();
    assert_eq!((state.tracked, state.cache.entries, state.cache.evictions), (count, count, 0));
    assert_eq!(state.backends[0].skipped_cycles, 0);
    // Memory is flat: of all that was read, what the cache holds now is left.
    let left = values.iter().filter_map(Weak::upgrade);
    let left: BTreeSet<_> = left.map(|value| Arc::as_ptr(&value)).collect();
    let readings = join_all(models.iter().map(|model| setup.read(model))).await;
    let now: BTreeSet<_> = readings.iter().map(|reading| Arc::as_ptr(reading.model())).collect();
    let replaced = left.difference(&now).count();
    assert_eq!(replaced, 0, "of {} readings that were replaced these are left", values.len());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_models_stay_in_the_cache_over_a_backend_that_takes_three_seconds() {
    check(10_000, 150).await;
}

/// With as many as may be tracked it takes a minute unoptimised: `cargo xtask counts` has that hour, and counts
/// its memory in bytes.
#[tokio::test(start_paused = true)]
async fn over_an_hour_ages_and_memory_stay_as_they_are() {
    check(400, 3600).await;
}
