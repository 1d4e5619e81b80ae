// SPDX-License-Identifier: Apache-2.0
//! Which time of the recording it is.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{Clock, Tick};

/// Maps the clock of a collector to the time of a recording.
pub(crate) struct Timeline {
    clock: Arc<dyn Clock>,
    origin: Tick,
    start: u64,
    /// After how many nanoseconds it begins again; `None`: never.
    lap: Option<u64>,
}

/// A point in the recording, and when it is on the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    /// How often the recording has begun again.
    pub(crate) lap: u64,
    /// Nanoseconds since the recording began.
    pub(crate) at: u64,
    now: Tick,
}

impl Timeline {
    pub(crate) fn new(clock: Arc<dyn Clock>, start: Duration, end: Option<Duration>) -> Self {
        let start = nanos(start);
        let lap = end.map(|end| nanos(end).saturating_sub(start).max(1_000_000));
        Self { origin: clock.now(), clock, start, lap }
    }

    pub(crate) fn position(&self) -> Position {
        let now = self.clock.now();
        let elapsed = nanos(self.origin.age(now));
        let (lap, elapsed) = self.lap.map_or((0, elapsed), |lap| (elapsed / lap, elapsed % lap));
        Position { lap, at: self.start.saturating_add(elapsed), now }
    }
}

impl Position {
    /// The tick of an earlier time of the recording.
    pub(crate) fn tick(self, at: u64) -> Tick {
        self.now - Duration::from_nanos(self.at.saturating_sub(at))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
