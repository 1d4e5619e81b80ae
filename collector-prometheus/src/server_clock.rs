// SPDX-License-Identifier: Apache-2.0
//! The server's clock, seen from ours: when to evaluate, and how old a sample is.
//!
//! Only durations cross from one clock to the other, so a wrong wall clock on either side makes no value look
//! younger or older.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use collector_core::Tick;

use crate::promql::EvalTime;

/// A reading of the server's clock with a longer round trip is repeated.
pub(crate) const ROUND_TRIP_GOOD: Duration = Duration::from_millis(100);
/// A `Date` header has whole seconds and is as old as its answer.
const DATE_TOLERANCE: Duration = Duration::from_millis(2_500);

/// The server's time at one tick of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerClock {
    /// Since the epoch.
    server: Duration,
    at: Tick,
    /// Duration of the request; the reading is off by at most half of it.
    pub(crate) round_trip: Duration,
}

impl ServerClock {
    /// Reads an answer to `time()`. `None` if it is not a time of day.
    pub(crate) fn new(seconds: f64, sent_at: Tick, arrived_at: Tick) -> Option<Self> {
        // From 2001 to 2286.
        if !(1e9..1e10).contains(&seconds) {
            return None;
        }
        let round_trip = sent_at.age(arrived_at);
        Some(Self {
            server: Duration::try_from_secs_f64(seconds).ok()?,
            at: sent_at + round_trip / 2,
            round_trip,
        })
    }

    /// Reads a `Date` header, for a server that does not answer `time()`; precise to a second.
    pub(crate) fn from_date(date: SystemTime, arrived_at: Tick) -> Option<Self> {
        Some(Self {
            server: date.duration_since(UNIX_EPOCH).ok()? + Duration::from_millis(500),
            at: arrived_at,
            round_trip: Duration::ZERO,
        })
    }

    /// Returns this clock, set ahead.
    pub(crate) fn ahead_by(self, more: Duration) -> Self {
        Self { server: self.server + more, ..self }
    }

    /// Converts a tick to both clocks. Whole milliseconds, as the server counts.
    pub(crate) fn moment(&self, tick: Tick) -> Moment {
        let server = self.server_time(tick);
        let millis = u64::try_from(server.as_millis()).unwrap_or(u64::MAX);
        Moment {
            tick: tick - Duration::from_nanos(u64::from(server.subsec_nanos() % 1_000_000)),
            time: EvalTime(millis),
        }
    }

    /// Returns whether a `Date` header contradicts this clock.
    pub(crate) fn contradicts(&self, date: SystemTime, arrived_at: Tick) -> bool {
        let expected = UNIX_EPOCH + self.server_time(arrived_at);
        let apart = expected.duration_since(date).unwrap_or_else(|error| error.duration());
        apart > DATE_TOLERANCE
    }

    /// Returns how far the server's clock is ahead of our wall clock, in seconds.
    pub(crate) fn ahead_of(&self, wall: SystemTime, now: Tick) -> f64 {
        let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.server_time(now).as_secs_f64() - wall.as_secs_f64()
    }

    fn server_time(&self, tick: Tick) -> Duration {
        // One of the two is zero.
        (self.server + self.at.age(tick)).saturating_sub(self.at.until(tick))
    }
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// On ours.
    pub(crate) tick: Tick,
    /// On the server's.
    pub(crate) time: EvalTime,
}

impl Moment {
    /// Returns when, on our clock, a sample with this timestamp was taken, in an answer that arrived at
    /// `arrived_at`. `None` if the stamp is not a time.
    ///
    /// Age counts from the requested evaluation time, however long the answer took and whatever time the
    /// server evaluated: hiding the newest samples, or answering from a cache, makes nothing younger.
    pub(crate) fn sampled_at(&self, stamp: f64, arrived_at: Tick) -> Option<Tick> {
        let age = self.time.seconds() - stamp;
        // More than a century away is not a time.
        if age.is_nan() || age.abs() > 3e9 {
            return None;
        }
        let distance = Duration::try_from_secs_f64(age.abs()).ok()?;
        // A sample from the future is as old as now.
        Some(if age >= 0.0 { self.tick - distance } else { (self.tick + distance).min(arrived_at) })
    }

    /// Returns the moment earlier by this much, on both clocks.
    pub(crate) fn earlier(&self, by: Duration) -> Self {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self { tick: self.tick - by, time: EvalTime(self.time.0.saturating_sub(millis)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(millis: u64) -> Tick {
        Tick::from_nanos(1 << 62) + Duration::from_millis(millis)
    }

    fn clock() -> ServerClock {
        ServerClock::new(1_732_000_000.0, tick(0), tick(20)).unwrap()
    }

    #[test]
    fn the_server_reads_its_clock_halfway_through_a_request() {
        assert_eq!(clock().moment(tick(10)).time, EvalTime(1_732_000_000_000));
        assert_eq!(clock().moment(tick(1510)).time, EvalTime(1_732_000_001_500));
        assert_eq!(clock().moment(tick(0)).time, EvalTime(1_731_999_999_990));
    }

    #[test]
    fn age_counts_from_the_requested_time() {
        let moment = clock().moment(tick(1010));
        let sampled = |stamp, arrived| moment.sampled_at(stamp, tick(arrived)).unwrap();
        // An answer that took four seconds does not make its sample younger.
        let at = sampled(1_732_000_000.25, 5_000);
        assert_eq!(at.age(tick(1010)), Duration::from_millis(750));
        // From the future.
        let at = sampled(1_732_009_999.0, 5_000);
        assert_eq!(at, tick(5_000));
        for stamp in [f64::NAN, f64::INFINITY, -1e300, 1e300] {
            assert_eq!(moment.sampled_at(stamp, tick(2000)), None);
        }
        let earlier = moment.earlier(Duration::from_secs(30));
        assert_eq!(earlier.tick.age(moment.tick), Duration::from_secs(30));
        assert_eq!(earlier.time, EvalTime(moment.time.0 - 30_000));
    }

    #[test]
    fn a_server_that_evaluates_earlier_is_asked_for_the_time_that_it_hides() {
        let hidden = Duration::from_secs(30);
        let moment = clock().ahead_by(hidden).moment(tick(10));
        assert_eq!(moment.time, EvalTime(1_732_000_030_000));
        let newest = moment.sampled_at(1_732_000_000.0, tick(20)).unwrap();
        assert_eq!(newest.age(tick(10)), hidden, "its newest sample is as old as what it hides");
    }

    #[test]
    fn a_jump_of_the_servers_clock_shows_in_the_date() {
        let date = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(!clock().contradicts(date(1_732_000_000), tick(900)));
        assert!(!clock().contradicts(date(1_732_000_001), tick(900)));
        assert!(clock().contradicts(date(1_732_003_600), tick(900)));
        assert!(clock().contradicts(date(1_731_996_400), tick(900)));
    }

    #[test]
    fn what_is_no_time_of_day_is_no_clock() {
        for seconds in [0.42, f64::NAN, f64::INFINITY, 1e18, -1.0] {
            assert!(ServerClock::new(seconds, tick(0), tick(1)).is_none());
        }
    }
}
