// SPDX-License-Identifier: Apache-2.0
//! What the parts of a collector share, and how records are invalidated.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use collector_core::{
    BackendName, Clock, MetricsCache, ModelRef, Scope, Tick, VariantDirectory, VariantRef,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::CacheConfig;
use crate::counters::Counters;
use crate::fetch::{Fetch, Source};
use crate::refresh::{AgeLog, Discoverer, Paces};
use crate::snapshot::Snapshot;
use crate::state::{Models, State};

/// The state of one collector; its tasks hold it by `Arc`.
///
/// Caches and directories run under the lock of a model's cell: they must not call the collector.
pub(crate) struct Engine {
    /// In order of preference; at least one.
    pub(crate) sources: Vec<Source>,
    /// Their names.
    pub(crate) names: Vec<BackendName>,
    pub(crate) cache: Arc<dyn MetricsCache>,
    pub(crate) models: Models<Fetch>,
    pub(crate) directory: Arc<dyn VariantDirectory>,
    pub(crate) clock: Arc<dyn Clock>,
    /// When a read is to catch up with a suspend again.
    pub(crate) catch_up_at: AtomicU64,
    pub(crate) config: CacheConfig,
    pub(crate) max_tracked: usize,
    /// Tracks what the sources list, where that is wanted.
    pub(crate) discoverer: Option<Discoverer>,
    /// How long a batch waits for others.
    pub(crate) batch_window: Duration,
    pub(crate) paces: Paces,
    pub(crate) counters: Counters,
    /// What the log says about the ages of readings.
    pub(crate) ages: Mutex<AgeLog>,
    /// The generation of the directory that records were published by.
    pub(crate) directory_generation: AtomicU64,
    /// The file that outlives the process, where there is one.
    pub(crate) snapshot: Option<Snapshot>,
    /// What begins now belongs to this task scope; a stop ends it and begins the next.
    pub(crate) tasks: Mutex<TaskScope>,
}

/// The tasks between two stops.
#[derive(Clone, Default)]
pub(crate) struct TaskScope {
    /// Every task that a batch runs in, except the worker's own.
    pub(crate) tasks: TaskTracker,
    /// Cancelled by a stop: fetches that nobody waits for are given up.
    pub(crate) stopping: CancellationToken,
}

/// How long reads go on before the clock is asked again whether the machine was suspended.
const CATCH_UP_INTERVAL: Duration = Duration::from_secs(1);

/// A clock that is ahead by more after it caught up was suspended.
const SUSPENDED: Duration = Duration::from_secs(1);

impl Engine {
    /// The time, for reads. It catches up with a suspend once a second, because without a worker nothing else would.
    #[inline]
    pub(crate) fn now(&self) -> Tick {
        let now = self.clock.now();
        if now.to_nanos() < self.catch_up_at.load(Ordering::Relaxed) {
            now
        } else {
            self.catch_up()
        }
    }

    /// Catches up with the time that the machine was suspended, in which everything has aged and no timer ran.
    #[cold]
    pub(crate) fn catch_up(&self) -> Tick {
        let before = self.clock.now();
        self.clock.catch_up();
        let now = self.clock.now();
        self.catch_up_at.store((now + CATCH_UP_INTERVAL).to_nanos(), Ordering::Relaxed);
        if before.age(now) > SUSPENDED {
            self.paces.changed();
        }
        now
    }

    /// Removes the addresses of a scope, and supersedes the fetches that were sent before. Returns how many addresses
    /// there were.
    pub(crate) fn invalidate(&self, scope: &Scope) -> usize {
        let now = self.clock.now();
        let models = match scope.single_model() {
            Some(model) => BTreeSet::from([model]),
            None => self.models_of(scope),
        };
        let invalidate = |model: &ModelRef| {
            self.models.with(model, |cell| self.invalidate_model(cell, model, scope, now))
        };
        models.iter().map(invalidate).sum()
    }

    /// The models of a scope that are known to the cache or in use.
    fn models_of(&self, scope: &Scope) -> BTreeSet<ModelRef> {
        let in_use = self.models.all(|_| Some(())).into_iter().map(|(model, ())| model);
        let mut models: BTreeSet<_> = in_use.filter(|model| scope.touches(model)).collect();
        self.cache.retain(&mut |record| {
            if scope.touches(&record.model) {
                models.insert(record.model.clone());
            }
            true
        });
        models
    }

    fn invalidate_model(
        &self,
        cell: &mut State<Fetch>,
        model: &ModelRef,
        scope: &Scope,
        now: Tick,
    ) -> usize {
        cell.supersede(now);
        if let Some(tracked) = &mut cell.tracked {
            // When it was last read goes with the record; without it the model would look idle.
            tracked.since = now;
        }
        let Some(record) = self.cache.get(model) else { return 0 };
        let (rest, removed) = record.without(scope);
        match rest {
            _ if removed == 0 => {}
            Some(rest) => self.put(cell, &Arc::new(rest), Some(&record)),
            None => {
                cell.record_changed = true;
                self.cache.remove(model);
            }
        }
        removed
    }

    /// Stops tracking a variant: its allocation is removed, and the model with its last tracked variant. False when it
    /// was not tracked.
    pub(crate) fn stop_tracking(&self, variant: &VariantRef) -> bool {
        let tracks_it = |cell: &State<Fetch>| {
            let tracked = cell.tracked.as_ref()?;
            tracked.variants.contains(&variant.name).then_some(())
        };
        let tracking = self.models.all(tracks_it).into_iter().map(|(model, ())| model);
        let of_namespace = tracking.filter(|model| model.namespace == variant.namespace);
        let Some(model) = of_namespace.min() else {
            tracing::debug!(%variant, "Not tracked, so not stopped");
            return false;
        };
        let variants = self.directory.variants_of(&model);
        let now = self.clock.now();
        self.models.with(&model, |cell| {
            let Some(tracked) = &mut cell.tracked else { return false };
            tracked.variants.remove(&variant.name);
            tracked.stopped.insert(variant.name.clone());
            let last = variants.iter().all(|variant| tracked.stopped.contains(&variant.name));
            let of_model = Scope::of_model(&model);
            let scope = if last { of_model } else { of_model.variant(variant.name.as_str()) };
            if last {
                self.models.untrack(cell);
            }
            self.invalidate_model(cell, &model, &scope, now);
            true
        })
    }

    /// Tracks the models of the directory's variants, and pins them. Models without variants stay tracked for as long
    /// as they are read.
    pub(crate) fn track_variants(&self) {
        let now = self.clock.now();
        let variants = self.directory.variants();
        let configured: BTreeSet<_> = variants.iter().map(|variant| &variant.model).collect();
        for model in self.models.tracked() {
            if !configured.contains(&model) {
                self.models.with(&model, |cell| {
                    cell.tracked.iter_mut().for_each(|tracked| tracked.pinned = false);
                });
            }
        }
        for variant in &variants {
            self.models.with(&variant.model, |cell| {
                self.models.track(cell, now, usize::MAX);
                if let Some(tracked) = &mut cell.tracked {
                    tracked.pinned = true;
                    if !tracked.stopped.contains(&variant.name) {
                        tracked.variants.insert(variant.name.clone());
                    }
                }
            });
        }
    }

    /// Untracks and removes what nobody has read for `idle`, and removes the records that have expired.
    pub(crate) fn sweep(&self, idle: Duration) {
        let now = self.catch_up();
        for model in self.models.tracked() {
            self.models.with(&model, |cell| {
                let Some(tracked) = cell.tracked.as_ref().filter(|tracked| !tracked.stays()) else {
                    return;
                };
                if self.last_read(&model, tracked.since).age(now) < idle {
                    return;
                }
                self.models.untrack(cell);
                self.invalidate_model(cell, &model, &Scope::of_model(&model), now);
                tracing::debug!(
                    model = ?model.model, namespace = ?model.namespace,
                    "No longer tracked: nobody has read it"
                );
            });
        }
        self.cache.retain(&mut |record| record.expires_at() > now);
    }

    /// When anything of a model that is tracked since then was last read.
    pub(crate) fn last_read(&self, model: &ModelRef, since: Tick) -> Tick {
        let read = self.cache.get(model).map(|record| record.last_read());
        read.map_or(since, |read| read.max(since))
    }

    /// A cache or a directory has panicked, and was caught.
    pub(crate) fn panicked(&self) {
        self.counters.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn age_log(&self) -> MutexGuard<'_, AgeLog> {
        self.ages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present task scope.
    pub(crate) fn task_scope(&self) -> MutexGuard<'_, TaskScope> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
