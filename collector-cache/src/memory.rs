//! Entries in memory: a concurrent map for readers, one lock for writers.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use collector_core::{CacheKey, CacheStats, KeyRef, MetricsCache, Peeked, Scope, Stored, Tick};
use foldhash::fast::RandomState;

use crate::books::{Books, NONE};
use crate::entries::{Entries, Listed, Lookup, free_outgrown};
use crate::evict::Eviction;
use crate::handle::Handle;
use crate::slot::Slot;
use crate::sync::{Mutex, MutexGuard};
use crate::version::Version;

/// How many entries a sweep looks at before it lets other writers in.
const SWEPT_AT_ONCE: usize = 256;

/// A [`MetricsCache`] in memory.
///
/// A read takes no lock and allocates nothing. Writers exclude each other, so that checking and
/// storing are one step. The hasher is seeded, because names come from users of the cluster.
///
/// Beyond `max_entries` or `max_bytes` entries leave as [`Eviction`] says, those that are not tracked
/// first. What is not tracked finds no room in a cache that is full of what is: a flood of misspelt
/// names costs no tracked model its entry.
pub struct MemoryCache {
    entries: Entries,
    hasher: RandomState,
    writer: Mutex<Books>,
    max_entries: usize,
    max_bytes: usize,
    bytes: AtomicUsize,
    evictions: AtomicU64,
}

impl MemoryCache {
    /// A cache of at most `max_entries` entries, of any size, that evicts by SIEVE. 0 counts as 1.
    pub fn new(max_entries: usize) -> Self {
        Self::with_limits(max_entries, usize::MAX, Eviction::default())
    }

    /// A cache of at most `max_entries` entries that hold `max_bytes` together, by the estimate of
    /// [`Stored::bytes`]. One entry is kept however large it is; 0 entries count as 1.
    pub fn with_limits(max_entries: usize, max_bytes: usize, eviction: Eviction) -> Self {
        Self {
            entries: Entries::default(),
            hasher: RandomState::default(),
            writer: Mutex::new(Books::new(eviction)),
            max_entries: max_entries.max(1),
            max_bytes,
            bytes: AtomicUsize::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    /// Shows the entry to `f`; counts as a read at `now`. What [`visit`](MetricsCache::visit) does, for
    /// callers who know that this is the cache they have.
    pub fn read<R>(&self, key: KeyRef<'_>, now: Tick, f: impl FnOnce(&Stored) -> R) -> Option<R> {
        let entries = self.entries.pin();
        let (listed, stored) = entries.get_key_value(&self.lookup(key))?;
        listed.0.touch(now);
        Some(f(stored))
    }

    /// Whether a read of an entry that is due for a refresh should see to it: the first to ask since the
    /// entry was put, and one each second after. So a server that is slow or away costs a read nothing.
    pub fn claim_refresh(&self, key: KeyRef<'_>, now: Tick) -> bool {
        let entries = self.entries.pin();
        let known = entries.get_key_value(&self.lookup(key));
        known.is_some_and(|(listed, _)| listed.0.claim_refresh(now))
    }

    /// A handle on the entry under a key, which there need not be yet.
    pub fn handle(&self, key: CacheKey) -> Handle {
        Handle::new(key)
    }

    /// The entry, and its version: the entry is of this version or newer.
    pub(crate) fn resolve(&self, key: KeyRef<'_>) -> Option<(Version, Arc<Stored>)> {
        let entries = self.entries.pin();
        let lookup = self.lookup(key);
        loop {
            let (before, _) = entries.get_key_value(&lookup)?;
            // First the generation, then the entry: the other way round a put in between would pair an
            // old entry with the new generation, and it would pass for current ever after. A cell that
            // has gone meanwhile has another in its place, or none.
            let Some(generation) = before.0.generation() else { continue };
            let (listed, stored) = entries.get_key_value(&lookup)?;
            if Arc::ptr_eq(&before.0, &listed.0) {
                let version = Version::new(Arc::clone(&listed.0), generation);
                return Some((version, Arc::clone(stored)));
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "half of it tells keys apart as well")]
    fn lookup<'a>(&self, key: KeyRef<'a>) -> Lookup<'a> {
        Lookup { hash: self.hasher.hash_one(key) as u32, key }
    }

    fn write(&self) -> MutexGuard<'_, Books> {
        // Nothing under this lock calls out. Should it panic all the same, the books may count an entry
        // that the map lacks, or the reverse: both are better than a cache that is poisoned for good.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for `more` entries of `bytes`, after those have left that may.
    fn make_room(
        &self,
        books: &mut Books,
        (more, bytes): (usize, usize),
        for_tracked: bool,
        spared: u32,
    ) -> bool {
        loop {
            let others = books.len() - usize::from(spared != NONE);
            let fits = books.len() + more <= self.max_entries
                && books.bytes().saturating_add(bytes) <= self.max_bytes;
            if fits || others == 0 {
                return true;
            }
            let Some(victim) = books.victim(for_tracked, spared) else { return false };
            self.drop_entry(books, &victim);
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn drop_entry(&self, books: &mut Books, slot: &Slot) {
        books.strike(slot);
        self.entries.pin().remove(&slot.lookup());
        slot.gone();
    }

    /// Tells readers of the counters.
    fn balance(&self, books: &Books) {
        self.bytes.store(books.bytes(), Ordering::Relaxed);
    }

    fn put_new(
        &self,
        books: &mut Books,
        key: CacheKey,
        hash: u32,
        stored: Arc<Stored>,
        last_read: Tick,
    ) {
        let bytes = Books::bytes_of(key.heap_bytes(), &stored);
        if !self.make_room(books, (1, bytes), stored.tracked, NONE) {
            self.evictions.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let grows = books.is_full();
        let slot = Arc::new(Slot::new(key, hash, books.next_id(), last_read));
        books.enter(&slot, &stored);
        self.entries.pin().insert(Listed(slot), stored);
        if grows {
            free_outgrown(&self.entries);
        }
    }

    fn replace(&self, books: &mut Books, slot: &Arc<Slot>, stored: Arc<Stored>) {
        books.replace(slot, &stored);
        let tracked = stored.tracked;
        self.entries.pin().insert(Listed(Arc::clone(slot)), stored);
        slot.replaced();
        if !self.make_room(books, (0, 0), tracked, slot.id()) {
            self.drop_entry(books, slot);
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Drops those that are due of a list, and returns the others.
    fn sweep_list(
        &self,
        (step, ids): (crate::due::Step, Vec<u32>),
        now: Tick,
        removed: &mut Vec<CacheKey>,
    ) -> Vec<(Arc<Slot>, crate::due::Step)> {
        let mut later = Vec::new();
        for some in ids.chunks(SWEPT_AT_ONCE) {
            let mut books = self.write();
            for id in some {
                let Some(slot) = books.due_slot(*id, step) else { continue };
                let leaves_at = self.stored_in(&slot).map(|stored| slot.leaves_at(&stored));
                if leaves_at.is_none_or(|at| at <= now) {
                    self.drop_entry(&mut books, &slot);
                    removed.push(slot.key().clone());
                } else {
                    later.push((slot, step));
                }
            }
            self.balance(&books);
        }
        later
    }

    fn stored_in(&self, slot: &Slot) -> Option<Arc<Stored>> {
        self.entries.pin().get(&slot.lookup()).cloned()
    }
}

impl std::fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryCache")
            .field("entries", &self.len())
            .field("max_entries", &self.max_entries)
            .finish_non_exhaustive()
    }
}

impl MetricsCache for MemoryCache {
    fn retains(&self) -> bool {
        true
    }

    fn get(&self, key: KeyRef<'_>, now: Tick) -> Option<Arc<Stored>> {
        let entries = self.entries.pin();
        let (listed, stored) = entries.get_key_value(&self.lookup(key))?;
        listed.0.touch(now);
        Some(Arc::clone(stored))
    }

    fn visit(&self, key: KeyRef<'_>, now: Tick, f: &mut dyn FnMut(&Stored)) -> bool {
        self.read(key, now, f).is_some()
    }

    fn peek(&self, key: KeyRef<'_>) -> Option<Peeked> {
        let entries = self.entries.pin();
        let (listed, stored) = entries.get_key_value(&self.lookup(key))?;
        Some(Peeked { stored: Arc::clone(stored), last_read: listed.0.last_read() })
    }

    fn put(&self, key: CacheKey, stored: Arc<Stored>, now: Tick) {
        let lookup = self.lookup(key.as_ref());
        let hash = lookup.hash;
        let mut books = self.write();
        let known = {
            let entries = self.entries.pin();
            let known = entries.get_key_value(&lookup);
            known.map(|(listed, _)| Arc::clone(&listed.0))
        };
        match known {
            Some(slot) if slot.key().accelerator() == key.accelerator() && !slot.is_worn() => {
                self.replace(&mut books, &slot, stored);
            }
            Some(slot) => {
                // The accelerator is no part of the identity, but scopes look at it: the new key takes
                // the place of the old one. So does a new cell that of one that can count no further.
                let last_read = slot.last_read();
                self.drop_entry(&mut books, &slot);
                self.put_new(&mut books, key, hash, stored, last_read);
            }
            None => self.put_new(&mut books, key, hash, stored, now),
        }
        self.balance(&books);
    }

    fn remove(&self, scope: &Scope) -> usize {
        let mut books = self.write();
        let mut members = books.members(scope.group());
        members.retain(|slot| scope.contains(slot.key()));
        for slot in &members {
            self.drop_entry(&mut books, slot);
        }
        self.balance(&books);
        members.len()
    }

    fn sweep(&self, now: Tick) -> Vec<CacheKey> {
        let mut removed = Vec::new();
        let mut later = Vec::new();
        loop {
            let list = self.write().take_due(now);
            let Some(list) = list else { break };
            later.extend(self.sweep_list(list, now, &mut removed));
        }
        // At the end, because some go back into a list of this very second.
        for some in later.chunks(SWEPT_AT_ONCE) {
            let mut books = self.write();
            for (slot, step) in some {
                let same =
                    books.due_slot(slot.id(), *step).is_some_and(|is| Arc::ptr_eq(&is, slot));
                if let Some(stored) = self.stored_in(slot).filter(|_| same) {
                    books.put_off(slot, &stored);
                }
            }
        }
        removed
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn stats(&self) -> CacheStats {
        CacheStats {
            entries: self.len(),
            bytes: self.bytes.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
