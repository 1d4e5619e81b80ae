//! A map that loom sees into, with the calls of papaya's that this crate makes.
//!
//! It promises no more than papaya does: what stands under a key is one pointer, which is replaced as a
//! whole, so that a reader may still find what stood there before, unless something else tells it better.
//! There is one key, and few entries come to stand under it.

use std::sync::{Arc, OnceLock};

use collector_core::Stored;
use loom::sync::atomic::{AtomicUsize, Ordering};

use super::{Listed, Lookup};
use papaya::Equivalent as _;

pub(crate) struct Entries {
    /// The place of what stands in the map; [`NONE`] when nothing does.
    current: AtomicUsize,
    /// All that ever stood there.
    all: [OnceLock<(Listed, Arc<Stored>)>; 8],
}

const NONE: usize = usize::MAX;

impl Default for Entries {
    fn default() -> Self {
        Self { current: AtomicUsize::new(NONE), all: Default::default() }
    }
}

impl Entries {
    pub(crate) fn pin(&self) -> &Self {
        self
    }

    fn current(&self) -> Option<&(Listed, Arc<Stored>)> {
        self.all.get(self.current.load(Ordering::Acquire))?.get()
    }

    pub(crate) fn get_key_value(&self, lookup: &Lookup<'_>) -> Option<(&Listed, &Arc<Stored>)> {
        let (listed, stored) = self.current()?;
        lookup.equivalent(listed).then_some((listed, stored))
    }

    pub(crate) fn get(&self, lookup: &Lookup<'_>) -> Option<&Arc<Stored>> {
        Some(self.get_key_value(lookup)?.1)
    }

    pub(crate) fn insert(&self, listed: Listed, stored: Arc<Stored>) {
        assert!(self.current().is_none_or(|(is, _)| *is == listed), "there is one key");
        let free = self.all.iter().position(|place| place.get().is_none());
        let place = free.expect("a model puts few entries");
        assert!(self.all[place].set((listed, stored)).is_ok(), "writers exclude each other");
        self.current.store(place, Ordering::Release);
    }

    pub(crate) fn remove(&self, lookup: &Lookup<'_>) {
        if self.get(lookup).is_some() {
            self.current.store(NONE, Ordering::Release);
        }
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(!self.is_empty())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.current().is_none()
    }
}
