//! When the collector is ready to be read.

use std::sync::atomic::{AtomicBool, Ordering};

use collector_core::CollectorState;

/// Whether the first cycle has ended. Once ready it stays so: a backend that is down leaves the
/// last known good values, and a pod that is not ready could not even say why.
pub(super) struct Readiness {
    reached: AtomicBool,
    refreshes: bool,
}

impl Readiness {
    pub(super) fn new(refreshes: bool) -> Self {
        Self { reached: AtomicBool::new(false), refreshes }
    }

    pub(super) fn reached(&self, state: &CollectorState) -> bool {
        let reached = self.reached.load(Ordering::Relaxed)
            || !self.refreshes
            || state.cycles > 0
            || state.tracked == 0;
        if reached {
            self.reached.store(true, Ordering::Relaxed);
        }
        reached
    }
}
