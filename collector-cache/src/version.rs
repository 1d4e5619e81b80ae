//! An entry as it stood when it was looked up, and whether it still is the newest.

use std::sync::Arc;

use collector_core::{KeyRef, Tick};

use crate::slot::Slot;

/// The cell of an entry, and which of the entries that have stood there it is.
#[derive(Clone)]
pub(crate) struct Version {
    slot: Arc<Slot>,
    generation: u32,
}

impl Version {
    pub(crate) fn new(slot: Arc<Slot>, generation: u32) -> Self {
        Self { slot, generation }
    }

    /// Whether it is what stands under this key.
    #[inline]
    pub(crate) fn is_of(&self, key: KeyRef<'_>) -> bool {
        self.slot.key().is(key)
    }

    /// Whether no other was put, and it was not removed.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.slot.generation() == Some(self.generation)
    }

    /// A read took place.
    #[inline]
    pub(crate) fn touch(&self, now: Tick) {
        self.slot.touch(now);
    }

    /// Lets the cell count once more, and no further.
    #[cfg(test)]
    pub(crate) fn wear_out(&self) {
        self.slot.wear_out();
    }
}
