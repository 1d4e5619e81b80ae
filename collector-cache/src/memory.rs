//! Entries in memory: a concurrent map for readers, one lock for writers.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use collector_core::{CacheKey, CacheStats, KeyRef, MetricsCache, Peeked, Scope, Stored, Tick};
use foldhash::fast::RandomState;
use papaya::Equivalent;

use crate::index::Index;
use crate::slot::Slot;

/// Share of the entries that leaves when the capacity is exceeded: one walk over all entries then
/// pays for many puts.
const EVICTED_SHARE: usize = 16;

/// A [`MetricsCache`] in memory.
///
/// A read takes no lock and allocates nothing. Writers exclude each other, so that checking and
/// storing are one step. The hasher is seeded, because names come from users of the cluster.
///
/// At `capacity` entries the least recently read sixteenth is removed.
pub struct MemoryCache {
    slots: papaya::HashMap<CacheKey, Arc<Slot>, RandomState>,
    writer: Mutex<Index>,
    capacity: usize,
    evictions: AtomicU64,
}

impl MemoryCache {
    /// A cache of at most `capacity` entries; a capacity of 0 counts as 1.
    pub fn new(capacity: usize) -> Self {
        Self {
            slots: papaya::HashMap::with_hasher(RandomState::default()),
            writer: Mutex::default(),
            capacity: capacity.max(1),
            evictions: AtomicU64::new(0),
        }
    }

    fn write(&self) -> MutexGuard<'_, Index> {
        // A writer that panicked can have left a key in the index that the map lacks, which the
        // functions below allow for, or the reverse for one key, which costs that key's early
        // removal: both are better than a cache that is poisoned for good.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove_key(&self, index: &mut Index, key: &CacheKey) -> bool {
        index.remove(key);
        self.slots.pin().remove(key).is_some()
    }

    fn keys(&self, wanted: impl Fn(&CacheKey, &Slot) -> bool) -> Vec<CacheKey> {
        let slots = self.slots.pin();
        slots.iter().filter(|(key, slot)| wanted(key, slot)).map(|(key, _)| key.clone()).collect()
    }

    fn evict(&self, index: &mut Index, spared: &CacheKey) {
        let excess = self.slots.len().saturating_sub(self.capacity);
        if excess == 0 {
            return;
        }
        let mut by_last_read: Vec<(Tick, CacheKey)> = {
            let slots = self.slots.pin();
            let others = slots.iter().filter(|(key, _)| *key != spared);
            others.map(|(key, slot)| (slot.last_read(), key.clone())).collect()
        };
        let leaving = excess.max(self.capacity / EVICTED_SHARE).min(by_last_read.len());
        if leaving == 0 {
            return;
        }
        by_last_read.select_nth_unstable_by_key(leaving - 1, |(last_read, _)| *last_read);
        for (_, key) in &by_last_read[..leaving] {
            self.remove_key(index, key);
        }
        self.evictions.fetch_add(leaving as u64, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryCache")
            .field("entries", &self.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// Looks an owned key up by its borrowed parts.
struct Lookup<'a>(KeyRef<'a>);

impl Hash for Lookup<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Equivalent<CacheKey> for Lookup<'_> {
    fn equivalent(&self, key: &CacheKey) -> bool {
        key.as_ref() == self.0
    }
}

impl MetricsCache for MemoryCache {
    fn retains(&self) -> bool {
        true
    }

    fn get(&self, key: KeyRef<'_>, now: Tick) -> Option<Arc<Stored>> {
        let slots = self.slots.pin();
        let slot = slots.get(&Lookup(key))?;
        slot.touch(now);
        Some(slot.stored())
    }

    fn visit(&self, key: KeyRef<'_>, now: Tick, f: &mut dyn FnMut(&Stored)) -> bool {
        let slots = self.slots.pin();
        let Some(slot) = slots.get(&Lookup(key)) else {
            return false;
        };
        slot.touch(now);
        f(&slot.borrow());
        true
    }

    fn peek(&self, key: KeyRef<'_>) -> Option<Peeked> {
        let slots = self.slots.pin();
        let slot = slots.get(&Lookup(key))?;
        Some(Peeked { stored: slot.stored(), last_read: slot.last_read() })
    }

    fn put(&self, key: CacheKey, stored: Arc<Stored>, now: Tick) {
        let mut index = self.write();
        let slots = self.slots.pin();
        let mut last_read = now;
        if let Some((old, slot)) = slots.get_key_value(&key) {
            if old.accelerator() == key.accelerator() {
                slot.replace(stored);
                return;
            }
            // An equal key stays in the map when its value is replaced, and with it the accelerator
            // that scopes look at: the new one has to come in its place.
            last_read = slot.last_read();
            let old = old.clone();
            self.remove_key(&mut index, &old);
        }
        index.add(&key);
        slots.insert(key.clone(), Arc::new(Slot::new(stored, last_read)));
        self.evict(&mut index, &key);
    }

    fn remove(&self, scope: &Scope) -> usize {
        let mut index = self.write();
        let mut keys = match scope.single_model() {
            Some((model, namespace)) => index.of_model(model, namespace),
            None => self.keys(|_, _| true),
        };
        keys.retain(|key| scope.contains(key));
        keys.into_iter().filter(|key| self.remove_key(&mut index, key)).count()
    }

    fn sweep(&self, now: Tick) -> Vec<CacheKey> {
        // The walk holds no lock; only what it found is looked at again under it, because an entry
        // may have been read or replaced since.
        let mut due = self.keys(|_, slot| slot.is_forgotten(now));
        let mut index = self.write();
        due.retain(|key| {
            let forgotten = self.slots.pin().get(key).is_some_and(|slot| slot.is_forgotten(now));
            forgotten && self.remove_key(&mut index, key)
        });
        due
    }

    fn len(&self) -> usize {
        self.slots.len()
    }

    fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn stats(&self) -> CacheStats {
        CacheStats { entries: self.len(), evictions: self.evictions.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use collector_core::{Clock, ManualClock, ModelRef, Outcome, Value};

    fn missing() -> Arc<Stored> {
        Arc::new(Stored {
            value: Value::None,
            outcome: Outcome::Missing,
            current_until: Tick::MAX,
            refresh_after: Tick::MAX,
            keep_until: Tick::MAX,
            keep_unread: Duration::ZERO,
            cold: Arc::default(),
        })
    }

    fn model(number: usize) -> ModelRef {
        ModelRef::new(format!("m-{number}"), "prod")
    }

    #[test]
    fn beyond_the_capacity_the_least_recently_read_leave() {
        let clock = ManualClock::new();
        let cache = MemoryCache::new(32);
        for number in 0..32 {
            cache.put(CacheKey::replicas(&model(number)), missing(), clock.now());
        }
        clock.advance(Duration::from_secs(1));
        let hot = model(0);
        assert!(cache.get(KeyRef::replicas(&hot), clock.now()).is_some());
        for number in 32..500 {
            clock.advance(Duration::from_secs(1));
            cache.put(CacheKey::replicas(&model(number)), missing(), clock.now());
            assert!(cache.get(KeyRef::replicas(&hot), clock.now()).is_some(), "at {number}");
            assert!(cache.len() <= 32);
        }
        let newest = model(499);
        assert!(cache.peek(KeyRef::replicas(&newest)).is_some());
        assert_eq!(cache.stats().evictions, 500 - cache.len() as u64);
    }

    #[test]
    fn the_index_forgets_with_the_entries() {
        let clock = ManualClock::new();
        let cache = MemoryCache::new(4);
        for number in 0..100 {
            cache.put(CacheKey::replicas(&model(number)), missing(), clock.now());
        }
        cache.remove(&Scope::all());
        assert!(cache.is_empty());
        assert!(cache.write().of_model("m-99", "prod").is_empty());
    }
}
