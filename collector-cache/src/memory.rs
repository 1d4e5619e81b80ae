// SPDX-License-Identifier: Apache-2.0
//! Records in memory, within limits.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};

use collector_core::{CacheStats, MetricsCache, ModelRecord, ModelRef};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Beyond a limit a sixteenth more is evicted than must be, so that the next puts need not scan all records again.
const SPARE: usize = 16;

/// A power of two. Writers of one shard wait for each other, and readers for them.
const SHARDS: usize = if cfg!(loom) { 1 } else { 32 };

/// What a record costs besides itself: its slot in the table, one and a half on average, and the counts of its
/// `Arc`.
const OVERHEAD: usize = 14 + 16;

type Records = HashTable<Arc<ModelRecord>>;

/// A [`MetricsCache`] in memory, limited in entries and bytes.
///
/// Beyond a limit the least recently read records are evicted, untracked ones first: a flood of misspelt names
/// evicts no tracked model.
pub struct MemoryCache {
    /// A record is its own key, so that a slot of the table is one pointer.
    shards: [RwLock<Records>; SHARDS],
    /// Seeded: names come from users of the cluster.
    hasher: RandomState,
    max_entries: usize,
    max_bytes: usize,
    entries: AtomicUsize,
    bytes: AtomicUsize,
    untracked: AtomicUsize,
    evictions: AtomicU64,
    evicting: Mutex<()>,
}

impl MemoryCache {
    /// A cache of at most `max_entries` addresses (the replicas of each model, and each allocation) that hold
    /// about `max_bytes`. The only record is kept however large it is.
    pub fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| RwLock::new(HashTable::new())),
            hasher: RandomState::default(),
            max_entries,
            max_bytes,
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            untracked: AtomicUsize::new(0),
            evictions: AtomicU64::new(0),
            evicting: Mutex::new(()),
        }
    }

    fn shard(&self, hash: u64) -> &RwLock<Records> {
        // The table uses the lowest bits and the seven highest.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    fn add(&self, record: &ModelRecord) {
        self.entries.fetch_add(record.entries(), Relaxed);
        self.bytes.fetch_add(record.bytes() + OVERHEAD, Relaxed);
        self.untracked.fetch_add(usize::from(!record.tracked), Relaxed);
    }

    fn subtract(&self, record: &ModelRecord) {
        self.entries.fetch_sub(record.entries(), Relaxed);
        self.bytes.fetch_sub(record.bytes() + OVERHEAD, Relaxed);
        self.untracked.fetch_sub(usize::from(!record.tracked), Relaxed);
    }

    fn is_within_limits(&self) -> bool {
        self.entries.load(Relaxed) <= self.max_entries && self.bytes.load(Relaxed) <= self.max_bytes
    }

    fn has_spare_room(&self) -> bool {
        let most = |limit: usize| limit - limit / SPARE;
        self.entries.load(Relaxed) <= most(self.max_entries)
            && self.bytes.load(Relaxed) <= most(self.max_bytes)
    }

    /// Evicts others for a record that was put, or that record itself.
    #[cold]
    fn make_room(&self, newest: &Arc<ModelRecord>) {
        let _one_at_a_time = self.evicting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_within_limits() {
            return;
        }
        for victim in self.candidates(newest) {
            if self.has_spare_room() {
                return;
            }
            self.evict(&victim);
        }
        if !self.is_within_limits() && self.stats().models > 1 {
            self.evict(newest);
        }
    }

    /// The records that may be evicted for `newest`, the first to go first.
    fn candidates(&self, newest: &Arc<ModelRecord>) -> Vec<Arc<ModelRecord>> {
        // Untracked records that flood a cache full of tracked ones cause no scan.
        if !newest.tracked && self.untracked.load(Relaxed) <= 1 {
            return Vec::new();
        }
        let mut candidates = Vec::new();
        for shard in &self.shards {
            let shard = read(shard);
            let others = shard.iter().filter(|record| !Arc::ptr_eq(record, newest));
            let may_go = others.filter(|record| newest.tracked || !record.tracked);
            // The time of the last read is taken once: it changes while the records are sorted.
            candidates.extend(may_go.map(|it| (it.tracked, it.last_read(), Arc::clone(it))));
        }
        candidates.sort_unstable_by_key(|(tracked, last_read, _)| (*tracked, *last_read));
        candidates.into_iter().map(|(_, _, record)| record).collect()
    }

    fn evict(&self, record: &Arc<ModelRecord>) {
        let hash = self.hasher.hash_one(&record.model);
        let mut shard = write(self.shard(hash));
        if let Ok(slot) = shard.find_entry(hash, |kept| Arc::ptr_eq(kept, record)) {
            slot.remove();
            self.subtract(record);
            self.evictions.fetch_add(1, Relaxed);
        }
    }
}

/// Only one piece of outside code runs under the lock of a shard, the closure of `retain`. A panic of it leaves the table intact.
fn read(shard: &RwLock<Records>) -> RwLockReadGuard<'_, Records> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Records>) -> RwLockWriteGuard<'_, Records> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

impl MetricsCache for MemoryCache {
    fn retains(&self) -> bool {
        true
    }

    #[inline]
    fn get(&self, model: &ModelRef) -> Option<Arc<ModelRecord>> {
        let hash = self.hasher.hash_one(model);
        read(self.shard(hash)).find(hash, |record| record.model == *model).cloned()
    }

    fn put(&self, record: Arc<ModelRecord>) {
        let hash = self.hasher.hash_one(&record.model);
        let mut shard = write(self.shard(hash));
        self.add(&record);
        if let Some(slot) = shard.find_mut(hash, |kept| kept.model == record.model) {
            let former = std::mem::replace(slot, Arc::clone(&record));
            self.subtract(&former);
            // What it holds is freed without the lock.
            drop(shard);
            drop(former);
        } else {
            let hash_of = |kept: &Arc<ModelRecord>| self.hasher.hash_one(&kept.model);
            shard.insert_unique(hash, Arc::clone(&record), hash_of);
            drop(shard);
        }
        if !self.is_within_limits() {
            self.make_room(&record);
        }
    }

    fn remove(&self, model: &ModelRef) -> Option<Arc<ModelRecord>> {
        let hash = self.hasher.hash_one(model);
        let mut shard = write(self.shard(hash));
        let (record, _) = shard.find_entry(hash, |record| record.model == *model).ok()?.remove();
        self.subtract(&record);
        Some(record)
    }

    fn retain(&self, keep: &mut dyn FnMut(&Arc<ModelRecord>) -> bool) {
        for shard in &self.shards {
            write(shard).retain(|record| {
                let kept = keep(record);
                if !kept {
                    self.subtract(record);
                }
                kept
            });
        }
    }

    fn stats(&self) -> CacheStats {
        let models = self.shards.iter().map(|shard| read(shard).len()).sum();
        let (entries, bytes) = (self.entries.load(Relaxed), self.bytes.load(Relaxed));
        CacheStats::new(models, entries, bytes, self.evictions.load(Relaxed))
    }
}

impl std::fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryCache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
