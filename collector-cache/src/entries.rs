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

#[cfg(test)]
mod tests {
    use super::*;
    use collector_core::{CacheKey, ModelRef, Tick};

    #[test]
    fn a_hash_alone_finds_no_cell_and_neither_does_a_key() {
        let [one, other] = ["one", "other"].map(|name| ModelRef::new(name, "prod"));
        let listed = Listed(Arc::new(Slot::new(CacheKey::replicas(&one), 7, 0, Tick::MIN)));
        let finds = |hash, model| Lookup { hash, key: KeyRef::replicas(model) }.equivalent(&listed);
        assert!(finds(7, &one));
        assert!(!finds(7, &other), "two names with one hash are taken for each other");
        assert!(!finds(8, &one));
    }

    #[cfg(not(loom))]
    #[test]
    fn place_and_tag_both_come_of_the_hash() {
        let mut hasher = Prehashed::default();
        hasher.write_u32(0x1234_5678);
        assert_eq!(hasher.finish(), 0x1234_5678_1234_5678);
    }
}
