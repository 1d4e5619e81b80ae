//! What the parts of a collector share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use collector_core::{BackendName, CacheKey, Clock, ModelRef, Scope, Tick, VariantDirectory};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::Cache;
use crate::config::CacheConfig;
use crate::counters::Counters;
use crate::gate::Gate;
use crate::pace::Paces;
use crate::publish::{Published, Publisher};
use crate::readers::Readers;
use crate::snapshot::Snapshot;
use crate::source;
use crate::tracker::{Tracked, Tracker};

/// The state of one collector; its tasks hold it by `Arc`.
pub(crate) struct Engine {
    /// In order of preference; at least one.
    pub(crate) sources: Vec<source::Source>,
    /// Their names.
    pub(crate) names: Vec<BackendName>,
    pub(crate) cache: Cache,
    pub(crate) directory: Arc<dyn VariantDirectory>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: CacheConfig,
    pub(crate) max_tracked: usize,
    /// How long a batch waits for others to board.
    pub(crate) boarding: Duration,
    pub(crate) gate: Gate,
    pub(crate) tracker: Tracker,
    pub(crate) paces: Paces,
    pub(crate) counters: Counters,
    pub(crate) readers: Readers,
    /// The generation of the directory that entries were published by.
    pub(crate) directory_generation: AtomicU64,
    /// The file that outlives the process, where there is one.
    pub(crate) snapshot: Option<Snapshot>,
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

impl Engine {
    /// Removes the entries of a scope and overtakes the flights that began before.
    pub(crate) fn invalidate(&self, scope: &Scope) -> usize {
        // Entries go first and flights are taken off the list second: a flight that begins between
        // the two has a ticket from after the invalidation and is left alone.
        let now = self.clock.now();
        let (removed, sequence) = self.gate.invalidate(scope, now, || self.cache.remove(scope));
        for source in &self.sources {
            source.flights.overtake(scope, sequence);
        }
        // When they were last read went with the entries; without it they would look idle.
        self.tracker.renew(scope, now);
        removed
    }

    /// What makes the entries of a model as things stand.
    pub(crate) fn publisher<'a>(
        &'a self,
        model: &'a ModelRef,
        tracked: Option<&'a Tracked>,
        now: Tick,
    ) -> Publisher<'a> {
        Publisher {
            config: &self.config,
            pace: self.pace(model),
            directory: &*self.directory,
            sources: &self.names,
            model,
            tracked,
            now,
        }
    }

    /// Puts the entries of a model; `read_at` counts as the last read of those that are new. Called under
    /// the gate's lock.
    pub(crate) fn put(&self, model: &ModelRef, entries: &Published, read_at: Tick) {
        for (key, _, stored) in &entries.allocations {
            self.cache.put(key.clone(), Arc::clone(stored), read_at);
        }
        self.cache.put(CacheKey::replicas(model), Arc::clone(&entries.replicas), read_at);
    }

    /// A cache or a directory has panicked, and was caught.
    pub(crate) fn panicked(&self) {
        self.counters.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// The present shift.
    pub(crate) fn shift(&self) -> MutexGuard<'_, Shift> {
        self.shift.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
