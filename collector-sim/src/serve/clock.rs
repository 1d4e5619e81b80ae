// SPDX-License-Identifier: Apache-2.0
//! The simulation's clock: the machine's, which can be stopped.

use std::time::{Duration, Instant, SystemTime};

/// Maps the machine's monotonic clock to simulated time.
#[derive(Debug)]
pub(super) struct SimClock {
    /// The simulated time at the last start or stop of the clock.
    base: Duration,
    /// When the clock was last started; `None` while it is frozen.
    started: Option<Instant>,
}

impl SimClock {
    pub(super) fn starting_at(base: Duration) -> Self {
        Self { base, started: Some(now()) }
    }

    pub(super) fn now(&self) -> Duration {
        self.base + self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    pub(super) fn freeze(&mut self) {
        *self = Self { base: self.now(), started: None };
    }

    pub(super) fn unfreeze(&mut self) {
        self.started.get_or_insert_with(now);
    }
}

/// The machine's monotonic clock.
#[expect(clippy::disallowed_methods, reason = "a server of real scrapes lives in real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// The machine's wall clock, for the start times that pages show.
#[expect(clippy::disallowed_methods, reason = "a server of real scrapes lives in real time")]
pub(super) fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until the machine's clock has visibly moved.
    fn let_time_pass() {
        let before = now();
        while before.elapsed() < Duration::from_micros(10) {}
    }

    #[test]
    fn a_frozen_clock_stops_and_continues_from_there() {
        let mut clock = SimClock::starting_at(Duration::from_secs(60));
        clock.freeze();
        let frozen = clock.now();
        assert!(frozen >= Duration::from_secs(60));
        let_time_pass();
        assert_eq!(clock.now(), frozen);

        clock.unfreeze();
        let_time_pass();
        let moved = clock.now();
        assert!(moved > frozen);
        clock.unfreeze();
        assert!(clock.now() >= moved);
    }
}
