// SPDX-License-Identifier: Apache-2.0
//! A clock that moves with tokio's.

use std::time::{Duration, SystemTime};

use collector_core::{Clock, ManualClock, Tick};
use tokio::time::Instant;

/// A [`Clock`] over [`tokio::time::Instant`].
///
/// The engine waits with tokio's timers and computes ages with its clock. In a test with paused time
/// (`#[tokio::test(start_paused = true)]`) the two must move together, or a refresh that is due after
/// 30 s of timers would find values that have not aged at all.
///
/// Read it within the runtime: tokio knows the paused time of no other thread.
#[derive(Clone, Debug)]
pub struct TokioClock {
    started: Instant,
    origin: Tick,
}

impl TokioClock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self { started: Instant::now(), origin: ManualClock::new().now() }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Tick {
        self.origin + self.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.elapsed()
    }

    fn catch_up(&self) {}
}
