//! The cell of one key: what a read leaves behind, and what a handle looks at to see whether its entry
//! is still the newest. The entry itself stands beside the cell in the map.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use collector_core::{CacheKey, KeyRef, Stored, Tick};
use papaya::Equivalent;

/// The generation of a cell that is no longer in the map.
const GONE: u64 = u64::MAX;

/// A refresh that ends stores something, and that frees the claim; this is for one that is lost.
const CLAIM_LASTS: Duration = Duration::from_secs(1);

pub(crate) struct Slot {
    key: CacheKey,
    hash: u64,
    /// Its place in the books.
    id: u32,
    last_read: AtomicU64,
    /// Counts the entries that have stood here.
    generation: AtomicU64,
    /// When a read last saw to the refresh of the entry; 0 when none has.
    refresh_claimed: AtomicU64,
    /// Read since eviction last looked.
    visited: AtomicBool,
}

impl Slot {
    pub(crate) fn new(key: CacheKey, hash: u64, id: u32, last_read: Tick) -> Self {
        Self {
            key,
            hash,
            id,
            last_read: AtomicU64::new(last_read.to_nanos()),
            generation: AtomicU64::new(0),
            refresh_claimed: AtomicU64::new(0),
            visited: AtomicBool::new(false),
        }
    }

    pub(crate) fn key(&self) -> &CacheKey {
        &self.key
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// A read took place.
    pub(crate) fn touch(&self, now: Tick) {
        // Reads within one step of the coarse clock write once, so that readers of a hot key on
        // several cores mostly share the line instead of passing it on.
        let now = now.to_nanos();
        if self.last_read.load(Ordering::Relaxed) < now {
            self.last_read.fetch_max(now, Ordering::Relaxed);
        }
        if !self.visited.load(Ordering::Relaxed) {
            self.visited.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn last_read(&self) -> Tick {
        Tick::from_nanos(self.last_read.load(Ordering::Relaxed))
    }

    /// Whether it was read since this was last asked.
    pub(crate) fn take_visited(&self) -> bool {
        self.visited.swap(false, Ordering::Relaxed)
    }

    /// Whether a read of an entry that is due should see to its refresh: no other has done so within the
    /// last second, since the entry was put.
    pub(crate) fn claim_refresh(&self, now: Tick) -> bool {
        let last = self.refresh_claimed.load(Ordering::Relaxed);
        let free = last == 0 || Tick::from_nanos(last).age(now) >= CLAIM_LASTS;
        let claim = || {
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            self.refresh_claimed.compare_exchange(last, now.to_nanos(), success, failure).is_ok()
        };
        free && claim()
    }

    /// What tells one entry under this key from the next; `None` once there is none any more.
    pub(crate) fn generation(&self) -> Option<u64> {
        let generation = self.generation.load(Ordering::Acquire);
        (generation != GONE).then_some(generation)
    }

    /// Another entry stands in the map now. Called by writers, after it does: who sees the new
    /// generation finds the new entry, or one that is newer still.
    pub(crate) fn replaced(&self) {
        let generation = self.generation.load(Ordering::Relaxed);
        self.refresh_claimed.store(0, Ordering::Relaxed);
        self.generation.store(generation + 1, Ordering::Release);
    }

    /// The map has no such entry any more. Called by writers, after it has not.
    pub(crate) fn gone(&self) {
        self.generation.store(GONE, Ordering::Release);
    }

    /// When the entry leaves if nobody reads it any more: past its use, and unread for as long as it
    /// wants to be kept all the same.
    pub(crate) fn leaves_at(&self, stored: &Stored) -> Tick {
        stored.keep_until.max(self.last_read() + stored.keep_unread)
    }
}

/// A cell as the map's key.
#[derive(Clone)]
pub(crate) struct Listed(pub(crate) Arc<Slot>);

impl Hash for Listed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl PartialEq for Listed {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Listed {}

/// Looks a cell up by the borrowed parts of its key.
pub(crate) struct Lookup<'a> {
    pub(crate) hash: u64,
    pub(crate) key: KeyRef<'a>,
}

impl Hash for Lookup<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<Listed> for Lookup<'_> {
    fn equivalent(&self, listed: &Listed) -> bool {
        listed.0.hash == self.hash && listed.0.key.is(self.key)
    }
}

/// Hands the hash through that keys were given by the cache's own seeded hasher.
#[derive(Clone, Copy, Default)]
pub(crate) struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Cells and look-ups write one u64.
        debug_assert!(bytes.is_empty(), "only hashes are hashed here");
    }
}
