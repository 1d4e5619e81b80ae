//! What the parts of a collector share.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use collector_core::{Clock, MetricsCache, Scope, VariantDirectory};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::CacheConfig;
use crate::flight::Flights;
use crate::gate::Gate;
use crate::known::Known;
use crate::source::Source;
use crate::tracker::Tracker;

/// The state of one collector; its tasks hold it by `Arc`.
pub(crate) struct Engine {
    pub(crate) source: Source,
    pub(crate) cache: Arc<dyn MetricsCache>,
    pub(crate) directory: Arc<dyn VariantDirectory>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: CacheConfig,
    /// How long one call waits in all: 3 x the backend's time-out + 1 s.
    pub(crate) call_limit: Duration,
    pub(crate) max_tracked: usize,
    pub(crate) flights: Flights,
    pub(crate) gate: Gate,
    pub(crate) tracker: Tracker,
    pub(crate) known: Known,
    pub(crate) counters: Counters,
    /// The last background refresh failed, and the log says so already.
    pub(crate) refresh_failing: AtomicBool,
    /// The generation of the directory that entries were published by.
    pub(crate) directory_generation: AtomicU64,
    /// What begins now belongs to this shift; a stop ends it and begins the next.
    pub(crate) shift: Mutex<Shift>,
}

/// The tasks between two stops.
#[derive(Clone, Default)]
pub(crate) struct Shift {
    /// Every task that a batch flies in, but for the worker's own.
    pub(crate) tasks: TaskTracker,
    /// Cancelled by a stop: what nobody waits for is given up.
    pub(crate) stopping: CancellationToken,
}

/// Counters since the collector was made.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) stale_serves: AtomicU64,
    pub(crate) coalesced_misses: AtomicU64,
    pub(crate) background_refreshes: AtomicU64,
    pub(crate) cycles: AtomicU64,
}

impl Engine {
    /// Removes the entries of a scope and overtakes the flights that began before.
    pub(crate) fn invalidate(&self, scope: &Scope) -> usize {
        // Entries go first and flights are taken off the list second: a flight that begins between
        // the two has a ticket from after the invalidation and is left alone.
        let (removed, sequence) = self.gate.invalidate(scope, || self.cache.remove(scope));
        self.flights.overtake(scope, sequence);
        // When they were last read went with the entries; without it they would look idle.
        self.tracker.renew(scope, self.clock.now());
        removed
    }

    /// The present shift.
    pub(crate) fn shift(&self) -> MutexGuard<'_, Shift> {
        self.shift.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
