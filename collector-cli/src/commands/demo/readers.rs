// SPDX-License-Identifier: Apache-2.0
//! Readers in the background, like the reconcile loops of an autoscaler: they show what a read costs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use collector_core::{MetricsCollector, ModelRef};
use hdrhistogram::Histogram;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often each model is read.
const READ_INTERVAL: Duration = Duration::from_millis(1);

/// Longest read that is recorded, in nanoseconds: longer ones count as this.
const LONGEST: u64 = 60_000_000_000;

/// How long reads took, in nanoseconds, to two digits.
#[derive(Clone)]
pub(super) struct Latencies(Arc<Mutex<Histogram<u64>>>);

impl Latencies {
    pub(super) fn new() -> Self {
        // Only bounds that contradict each other are refused, and these do not.
        let histogram = Histogram::new_with_max(LONGEST, 2).unwrap_or_else(|_| unreachable!());
        Self(Arc::new(Mutex::new(histogram)))
    }

    /// The time within which this share of the reads ended; `None` when there were none.
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let nanos = histogram.value_at_quantile(share);
        (!histogram.is_empty()).then(|| Duration::from_nanos(nanos))
    }

    fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(LONGEST);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(nanos);
    }
}

/// Reads every model again and again.
pub(super) async fn read(
    collector: &dyn MetricsCollector,
    models: &[ModelRef],
    latencies: &Latencies,
) {
    let mut ticks = interval(READ_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        for model in models {
            let began = Instant::now();
            // Whether there is a reading is the view's to show.
            let _ = collector.collect_replica_metrics(model).await;
            latencies.record(began.elapsed());
        }
    }
}
