//! Which models are refreshed in the background, and since when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use collector_core::{ModelRef, Tick, VariantDirectory, VariantName};

/// The tracked set. A model is tracked from the read that found it, or from the start when a variant
/// of it is configured.
#[derive(Default)]
pub(crate) struct Tracker {
    models: Mutex<BTreeMap<ModelRef, Tracked>>,
}

/// What is known of a tracked model.
#[derive(Clone)]
pub(crate) struct Tracked {
    /// Configured: never untracked for idleness.
    pub(crate) pinned: bool,
    /// The variants whose allocations are kept.
    pub(crate) variants: BTreeSet<VariantName>,
    /// When tracking began; counts as a read.
    pub(crate) since: Tick,
}

impl Tracker {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ModelRef, Tracked>> {
        // Nothing under this lock can panic half-way through a change.
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tracks a model with all its variants, or all that are not tracked yet.
    pub(crate) fn track(
        &self,
        model: &ModelRef,
        directory: &dyn VariantDirectory,
        pinned: bool,
        now: Tick,
    ) {
        let mut models = self.lock();
        if let Some(tracked) = models.get_mut(model) {
            tracked.pinned |= pinned;
            return;
        }
        let variants = names_of(directory, model);
        models.insert(model.clone(), Tracked { pinned, variants, since: now });
    }

    /// Follows a directory that has changed: models with variants are tracked, and pinned, with the
    /// variants they have now; those without stay tracked for as long as they are read.
    pub(crate) fn follow(&self, directory: &dyn VariantDirectory, now: Tick) {
        for variant in directory.variants() {
            self.track(&variant.model, directory, true, now);
        }
        for (model, tracked) in self.lock().iter_mut() {
            tracked.variants = names_of(directory, model);
            tracked.pinned = !tracked.variants.is_empty();
        }
    }

    /// Tracks a variant of a tracked model again after it was stopped.
    pub(crate) fn resume(&self, model: &ModelRef, variant: &VariantName) {
        if let Some(tracked) = self.lock().get_mut(model) {
            tracked.variants.insert(variant.clone());
        }
    }

    /// Stops tracking a variant; true when it was the model's last and the model went with it.
    pub(crate) fn stop(&self, model: &ModelRef, variant: &VariantName) -> bool {
        let mut models = self.lock();
        let Some(tracked) = models.get_mut(model) else {
            return false;
        };
        tracked.variants.remove(variant);
        let last = tracked.variants.is_empty();
        if last {
            models.remove(model);
        }
        last
    }

    /// Untracks a model, unless it is pinned.
    pub(crate) fn forget(&self, model: &ModelRef) -> bool {
        let mut models = self.lock();
        match models.get(model) {
            Some(tracked) if !tracked.pinned => {
                models.remove(model);
                true
            }
            _ => false,
        }
    }

    pub(crate) fn get(&self, model: &ModelRef) -> Option<Tracked> {
        self.lock().get(model).cloned()
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

fn names_of(directory: &dyn VariantDirectory, model: &ModelRef) -> BTreeSet<VariantName> {
    directory.variants_of(model).iter().map(|variant| variant.name.clone()).collect()
}
