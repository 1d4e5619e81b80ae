// SPDX-License-Identifier: Apache-2.0
//! A clock that runs faster or slower than another.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use collector_core::{Clock, Tick};

/// Counts the time of another clock times a speed, so that ages grow in the time of a recording.
///
/// The wall clock is that of the machine.
pub struct ReplayClock {
    inner: Arc<dyn Clock>,
    origin: Tick,
    speed: f64,
}

impl ReplayClock {
    /// A clock that shows the same as `inner` now, and is `speed` times as fast from now on.
    pub fn new(inner: Arc<dyn Clock>, speed: f64) -> Self {
        let origin = inner.now();
        Self { inner, origin, speed }
    }
}

impl std::fmt::Debug for ReplayClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplayClock").field("speed", &self.speed).finish_non_exhaustive()
    }
}

impl Clock for ReplayClock {
    fn now(&self) -> Tick {
        self.origin + scaled(self.origin.age(self.inner.now()), self.speed)
    }

    fn wall(&self) -> SystemTime {
        self.inner.wall()
    }

    fn catch_up(&self) {
        self.inner.catch_up();
    }
}

/// A duration times a factor; the greatest where that is none.
pub(crate) fn scaled(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use collector_core::ManualClock;

    use super::*;

    #[test]
    fn time_passes_at_the_speed_of_the_replay() {
        let inner = Arc::new(ManualClock::new());
        let clock = ReplayClock::new(inner.clone(), 10.0);
        let began = clock.now();
        assert_eq!(began, inner.now());
        inner.advance(Duration::from_secs(3));
        assert_eq!(began.age(clock.now()), Duration::from_secs(30));
    }
}
