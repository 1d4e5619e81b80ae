// SPDX-License-Identifier: Apache-2.0
//! Sample times of the numbers of a page: that of the scrape, unless samples carry timestamps.

use std::time::{Duration, SystemTime};

use collector_core::{Field, Mark, ReplicaMetrics, Tick};

use super::fields::field_of;
use crate::NAME;
use crate::engines::{EngineRow, Quantity};

/// The time of a scrape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScrapeTime {
    /// On our clock.
    pub(crate) asked_at: Tick,
    /// The same moment by the clock of the page's timestamps: milliseconds since 1970.
    pub(crate) wall_ms: i64,
}

/// Seconds by which a pod's clock must differ from ours before its timestamps are read by its own clock, which is known
/// to the second only.
const CLOCK_DIFFERS: f64 = 2.0;

impl ScrapeTime {
    /// The time of a scrape that was sent at `asked_at`, when our wall clock showed `wall`, to a pod whose clock is
    /// this many seconds ahead.
    pub(crate) fn new(asked_at: Tick, wall: SystemTime, clock_ahead: Option<f64>) -> Self {
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ours = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let ahead = clock_ahead.filter(|ahead| ahead.abs() >= CLOCK_DIFFERS).unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, reason = "a cast saturates")]
        let ahead = (ahead * 1000.0) as i64;
        Self { asked_at, wall_ms: ours.saturating_add(ahead) }
    }

    /// The wall time in seconds.
    #[expect(clippy::cast_precision_loss, reason = "a time of these centuries is exact")]
    pub(crate) fn seconds(self) -> f64 {
        self.wall_ms as f64 / 1000.0
    }

    /// Returns when a sample with this timestamp was taken, or one without any.
    pub(super) fn of(self, timestamp_ms: Option<i64>) -> Tick {
        timestamp_ms.map_or(self.asked_at, |timestamp| self.tick(timestamp))
    }

    /// Returns when a sample with this timestamp was taken. A timestamp in the future counts as now.
    pub(crate) fn tick(self, timestamp_ms: i64) -> Tick {
        let age = self.wall_ms.saturating_sub(timestamp_ms);
        self.asked_at - Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }
}

/// Returns the oldest timestamp of the selected quantities of a row; `None` if they were sampled with the page.
pub(super) fn oldest(row: &EngineRow, is_asked: impl Fn(Quantity) -> bool) -> Option<i64> {
    let asked = row.times.iter().filter(|(quantity, _)| is_asked(*quantity));
    asked.map(|(_, timestamp)| *timestamp).min()
}

/// The gauges whose age is the age of a replica.
const GAUGES: [Field; 3] = [Field::QueueLength, Field::RunningRequests, Field::KvCacheUsage];

/// The fields of a row that can be older than it.
const MARKED: [Field; 7] = [
    Field::KvCacheUsage,
    Field::QueueLength,
    Field::RunningRequests,
    Field::CacheConfig,
    Field::PrefixCacheHitRate,
    Field::AvgInputTokens,
    Field::AvgOutputTokens,
];

/// Sample times of the fields of a replica that differ from the time of the scrape.
#[derive(Default, Debug)]
pub(super) struct Times(Vec<(Field, Tick)>);

impl Times {
    /// Adds the times of a row.
    pub(super) fn add(&mut self, row: &EngineRow, time: ScrapeTime) {
        for (quantity, timestamp) in &row.times {
            let Some(field) = field_of(*quantity) else { continue };
            let sampled = time.tick(*timestamp);
            match self.0.iter_mut().find(|(known, _)| *known == field) {
                Some((_, oldest)) => *oldest = sampled.min(*oldest),
                None => self.0.push((field, sampled)),
            }
        }
    }

    /// Sets the age of a replica, which is that of its oldest gauge, and marks older fields.
    pub(super) fn set(&self, replica: &mut ReplicaMetrics) {
        let known = |fields: &[Field]| {
            let times = self.0.iter().filter(|(field, _)| fields.contains(field));
            times.map(|(_, sampled)| *sampled).min()
        };
        let no_gauge = || {
            let none = GAUGES.into_iter().all(|field| !replica.has(field));
            none.then(|| known(Field::ALL)).flatten()
        };
        if let Some(oldest) = known(&GAUGES).or_else(no_gauge) {
            replica.sampled_at = oldest.min(replica.sampled_at);
        }
        for (field, sampled_at) in &self.0 {
            if *sampled_at < replica.sampled_at && MARKED.contains(field) {
                let (field, sampled_at) = (*field, *sampled_at);
                replica.marks.push(Mark { field, backend: NAME.into(), sampled_at });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_in_the_future_counts_as_now() {
        let asked_at = Tick::from_nanos(1 << 62);
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        let time = ScrapeTime::new(asked_at, wall, None);
        let age = |timestamp_ms| time.tick(timestamp_ms).age(asked_at);
        assert_eq!(age(1_899_999_910_000), Duration::from_secs(90));
        assert_eq!(age(1_900_000_500_000), Duration::ZERO);
        assert_eq!(age(0), Duration::from_secs(1_900_000_000), "1970 is not fresh");
        assert_eq!(age(i64::MIN), Tick::MIN.age(asked_at));
        let ahead = ScrapeTime::new(asked_at, wall, Some(60.0));
        assert_eq!(ahead.tick(1_900_000_000_000).age(asked_at), Duration::from_secs(60));
        let close = ScrapeTime::new(asked_at, wall, Some(-0.9));
        assert_eq!(close.tick(1_900_000_000_000), asked_at);
    }
}
