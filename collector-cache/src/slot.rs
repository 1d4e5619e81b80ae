//! The cell of one key: what a read leaves behind, and what a handle looks at to see whether its entry
//! is still the newest. The entry itself stands beside the cell in the map.

use collector_core::{CacheKey, Stored, Tick};

use crate::entries::Lookup;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The generation of a cell that is no longer in the map.
const GONE: u32 = u32::MAX;

/// A refresh that ends stores something, and that frees the claim; this is for one that is lost. It is
/// a second, as [`claim_time`] counts, and a step less for each of the two that it compares.
const CLAIM_LASTS: u32 = 952;

pub(crate) struct Slot {
    key: CacheKey,
    /// Of the key, in this cache.
    hash: u32,
    /// Its place in the books.
    id: u32,
    /// When it was last read, in the form of [`read_at`].
    read: AtomicU64,
    /// Counts the entries that have stood here.
    generation: AtomicU32,
    /// When a read last saw to the refresh of the entry; 0 when none has.
    refresh_claimed: AtomicU32,
}

impl Slot {
    pub(crate) fn new(key: CacheKey, hash: u32, id: u32, last_read: Tick) -> Self {
        Self {
            key,
            hash,
            id,
            read: AtomicU64::new(read_at(last_read)),
            generation: AtomicU32::new(0),
            refresh_claimed: AtomicU32::new(0),
        }
    }

    pub(crate) fn key(&self) -> &CacheKey {
        &self.key
    }

    pub(crate) fn hash(&self) -> u32 {
        self.hash
    }

    /// What finds it in the map.
    pub(crate) fn lookup(&self) -> Lookup<'_> {
        Lookup { hash: self.hash, key: self.key.as_ref() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// A read took place.
    pub(crate) fn touch(&self, now: Tick) {
        // Reads within one step of the coarse clock write once, so that readers of a hot key on
        // several cores mostly share the line instead of passing it on.
        let (last, read) = (self.read.load(Ordering::Relaxed), read_at(now) | VISITED);
        if last == read {
            return;
        }
        if last < read {
            self.read.fetch_max(read, Ordering::Relaxed);
        } else if last & VISITED == 0 {
            // Another has looked at the clock later, and eviction at the mark since.
            self.read.fetch_or(VISITED, Ordering::Relaxed);
        }
    }

    pub(crate) fn last_read(&self) -> Tick {
        Tick::from_nanos(self.read.load(Ordering::Relaxed) >> 1)
    }

    /// Whether it was read since this was last asked.
    pub(crate) fn take_visited(&self) -> bool {
        self.read.fetch_and(!VISITED, Ordering::Relaxed) & VISITED != 0
    }

    /// Whether a read of an entry that is due should see to its refresh: no other has done so within the
    /// last second, since the entry was put.
    pub(crate) fn claim_refresh(&self, now: Tick) -> bool {
        let (last, now) = (self.refresh_claimed.load(Ordering::Relaxed), claim_time(now));
        // Either may be the later one, by who has looked at the clock first.
        let apart = now.wrapping_sub(last).min(last.wrapping_sub(now));
        let claim = || {
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            self.refresh_claimed.compare_exchange(last, now, success, failure).is_ok()
        };
        (last == 0 || apart >= CLAIM_LASTS) && claim()
    }

    /// What tells one entry under this key from the next; `None` once there is none any more.
    pub(crate) fn generation(&self) -> Option<u32> {
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

    /// Whether it has counted as far as it can: the next entry needs another cell.
    pub(crate) fn is_worn(&self) -> bool {
        self.generation.load(Ordering::Relaxed) == GONE - 1
    }

    #[cfg(test)]
    pub(crate) fn wear_out(&self) {
        self.generation.store(GONE - 2, Ordering::Relaxed);
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

/// Read since eviction last looked: the lowest bit of when it was read.
const VISITED: u64 = 1;

/// A tick beside which there is room for [`VISITED`], until 146 years after the machine's boot.
fn read_at(tick: Tick) -> u64 {
    tick.to_nanos() << 1
}

/// About the milliseconds of a tick. They come again after 52 days, and a claim that was lost so long ago
/// passes for one of this second then.
#[expect(clippy::cast_possible_truncation, reason = "the upper half is left out")]
fn claim_time(tick: Tick) -> u32 {
    ((tick.to_nanos() >> 20) as u32).max(1)
}
