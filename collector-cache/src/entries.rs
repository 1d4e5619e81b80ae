//! The map that readers look into: a cell and its entry under each key.

#[cfg(loom)]
mod in_sight;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use collector_core::KeyRef;
use papaya::Equivalent;

use crate::slot::Slot;

#[cfg(not(loom))]
pub(crate) type Entries =
    papaya::HashMap<Listed, Arc<collector_core::Stored>, std::hash::BuildHasherDefault<Prehashed>>;
#[cfg(loom)]
pub(crate) use in_sight::Entries;

/// Frees a table that the map has outgrown. It would wait for that until this thread has replaced 31
/// entries, and takes up to 9 bytes for each that there is.
#[cfg(not(loom))]
pub(crate) fn free_outgrown(entries: &Entries) {
    papaya::Guard::flush(&entries.guard());
}
#[cfg(loom)]
pub(crate) fn free_outgrown(_: &Entries) {}

/// A cell as the map's key.
#[derive(Clone)]
pub(crate) struct Listed(pub(crate) Arc<Slot>);

impl Hash for Listed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.0.hash());
    }
}

impl PartialEq for Listed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.key() == other.0.key()
    }
}

impl Eq for Listed {}

/// Looks a cell up by the borrowed parts of its key.
pub(crate) struct Lookup<'a> {
    pub(crate) hash: u32,
    pub(crate) key: KeyRef<'a>,
}

impl Hash for Lookup<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.hash);
    }
}

impl Equivalent<Listed> for Lookup<'_> {
    fn equivalent(&self, listed: &Listed) -> bool {
        listed.0.hash() == self.hash && listed.0.key().is(self.key)
    }
}

/// Hands the hash through that keys were given by the cache's own seeded hasher.
#[cfg(not(loom))]
#[derive(Clone, Copy, Default)]
pub(crate) struct Prehashed(u64);

#[cfg(not(loom))]
impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u32(&mut self, hash: u32) {
        // The map takes the place from the low bits and a tag from the highest.
        self.0 = u64::from(hash) << 32 | u64::from(hash);
    }

    fn write(&mut self, bytes: &[u8]) {
        // Cells and look-ups write one u32.
        debug_assert!(bytes.is_empty(), "only hashes are hashed here");
    }
}
