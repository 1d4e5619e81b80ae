//! Which models are refreshed in the background, and since when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use collector_core::{ModelRef, Scope, Tick, Variant, VariantDirectory, VariantName, VariantRef};
use tokio::sync::watch;

use crate::adaptive::AdaptiveTtl;

/// The tracked set. A model is tracked from the read that found it, or from the start when a variant
/// of it is configured.
#[derive(Default)]
pub(crate) struct Tracker {
    models: Mutex<BTreeMap<ModelRef, Tracked>>,
    /// Counts the changes of which models are tracked.
    changes: watch::Sender<u64>,
}

/// What is known of a tracked model.
#[derive(Clone)]
pub(crate) struct Tracked {
    /// Configured: never untracked for idleness.
    pub(crate) pinned: bool,
    /// The variants of it that the directory has had, until they are stopped.
    variants: BTreeSet<VariantName>,
    /// The variants whose allocations are not kept, until somebody reads them.
    pub(crate) stopped: BTreeSet<VariantName>,
    /// When tracking began; counts as a read.
    pub(crate) since: Tick,
    /// Its ttl where ttls adapt, once it was found.
    adaptive: Option<AdaptiveTtl>,
}

impl Tracker {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ModelRef, Tracked>> {
        // Nothing under this lock can panic half-way through a change.
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Resolves whenever the set of tracked models has changed since the last time.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tracks the model of a variant that is configured.
    fn pin(&self, variant: &Variant, now: Tick) {
        let mut models = self.lock();
        let tracked = models.entry(variant.model.clone()).or_insert_with(|| {
            self.changed();
            tracked_since(now)
        });
        tracked.pinned = true;
        if !tracked.stopped.contains(&variant.name) {
            tracked.variants.insert(variant.name.clone());
        }
    }

    /// Tracks a model that a read has found; false when it is not tracked and `limit` models are.
    pub(crate) fn track(&self, model: &ModelRef, now: Tick, limit: usize) -> bool {
        let mut models = self.lock();
        if models.contains_key(model) {
            return true;
        }
        let room = models.len() < limit;
        if room {
            models.insert(model.clone(), tracked_since(now));
            self.changed();
        }
        room
    }

    /// Follows a directory that has changed: models with variants are tracked and pinned; those
    /// without stay tracked for as long as they are read.
    pub(crate) fn follow(&self, directory: &dyn VariantDirectory, now: Tick) {
        for tracked in self.lock().values_mut() {
            tracked.pinned = false;
        }
        for variant in directory.variants() {
            self.pin(&variant, now);
        }
    }

    /// Counts as a read of the tracked models of a scope.
    pub(crate) fn renew(&self, scope: &Scope, now: Tick) {
        let mut models = self.lock();
        if let Some((model, namespace)) = scope.single_model() {
            if let Some(tracked) = models.get_mut(&ModelRef::new(model, namespace)) {
                tracked.since = now;
            }
            return;
        }
        for (model, tracked) in models.iter_mut() {
            if scope.touches(model) {
                tracked.since = now;
            }
        }
    }

    /// Tracks a variant of a tracked model again after it was stopped.
    pub(crate) fn resume(&self, model: &ModelRef, variant: &VariantName) {
        if let Some(tracked) = self.lock().get_mut(model)
            && tracked.stopped.remove(variant)
        {
            tracked.variants.insert(variant.clone());
        }
    }

    /// The tracked model that a variant is, or was, of.
    pub(crate) fn model_of(&self, variant: &VariantRef) -> Option<ModelRef> {
        let models = self.lock();
        let has = |(model, tracked): &(&ModelRef, &Tracked)| {
            model.namespace == variant.namespace && tracked.variants.contains(&variant.name)
        };
        models.iter().find(has).map(|(model, _)| model.clone())
    }

    /// Stops tracking a variant; true when it was the last of `variants` and the model went with it.
    pub(crate) fn stop(
        &self,
        model: &ModelRef,
        variant: &VariantName,
        variants: &[Arc<Variant>],
    ) -> bool {
        let mut models = self.lock();
        let Some(tracked) = models.get_mut(model) else { return false };
        tracked.variants.remove(variant);
        tracked.stopped.insert(variant.clone());
        let last = variants.iter().all(|variant| tracked.stopped.contains(&variant.name));
        if last {
            models.remove(model);
            self.changed();
        }
        last
    }

    /// Untracks a model, unless it is pinned.
    pub(crate) fn forget(&self, model: &ModelRef) -> bool {
        let mut models = self.lock();
        match models.get(model) {
            Some(tracked) if !tracked.pinned => {
                models.remove(model);
                self.changed();
                true
            }
            _ => false,
        }
    }

    pub(crate) fn get(&self, model: &ModelRef) -> Option<Tracked> {
        self.lock().get(model).cloned()
    }

    /// Reads or changes the adaptive ttl of a tracked model.
    pub(crate) fn with_adaptive<R>(
        &self,
        model: &ModelRef,
        act: impl FnOnce(&mut Option<AdaptiveTtl>) -> R,
    ) -> Option<R> {
        Some(act(&mut self.lock().get_mut(model)?.adaptive))
    }

    pub(crate) fn contains(&self, model: &ModelRef) -> bool {
        self.lock().contains_key(model)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Everything tracked, in order.
    pub(crate) fn all(&self) -> Vec<(ModelRef, Tracked)> {
        self.lock().iter().map(|(model, tracked)| (model.clone(), tracked.clone())).collect()
    }
}

fn tracked_since(now: Tick) -> Tracked {
    Tracked {
        pinned: false,
        variants: BTreeSet::new(),
        stopped: BTreeSet::new(),
        since: now,
        adaptive: None,
    }
}
