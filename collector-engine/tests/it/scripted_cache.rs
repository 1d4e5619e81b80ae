//! A cache that misbehaves when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use collector_cache::MemoryCache;
use collector_core::{CacheKey, CacheStats, KeyRef, MetricsCache, Peeked, Scope, Stored, Tick};

pub(crate) struct ScriptedCache {
    cache: MemoryCache,
    /// So many more looks come before their entry does.
    pub(crate) too_early: AtomicUsize,
    /// Peeks until one panics; 0 is none.
    pub(crate) peeks_until_panic: AtomicUsize,
    /// The next sweep panics.
    pub(crate) panic_in_sweep: AtomicBool,
}

impl Default for ScriptedCache {
    fn default() -> Self {
        Self {
            cache: MemoryCache::new(1000),
            too_early: AtomicUsize::new(0),
            peeks_until_panic: AtomicUsize::new(0),
            panic_in_sweep: AtomicBool::new(false),
        }
    }
}

/// Counts down to 0, and tells where it was.
fn count_down(counter: &AtomicUsize) -> usize {
    let left = counter.load(Ordering::SeqCst);
    counter.store(left.saturating_sub(1), Ordering::SeqCst);
    left
}

impl MetricsCache for ScriptedCache {
    fn retains(&self) -> bool {
        self.cache.retains()
    }

    fn get(&self, key: KeyRef<'_>, now: Tick) -> Option<Arc<Stored>> {
        self.cache.get(key, now)
    }

    fn visit(&self, key: KeyRef<'_>, now: Tick, f: &mut dyn FnMut(&Stored)) -> bool {
        count_down(&self.too_early) == 0 && self.cache.visit(key, now, f)
    }

    fn peek(&self, key: KeyRef<'_>) -> Option<Peeked> {
        assert!(count_down(&self.peeks_until_panic) != 1, "a defect in a peek");
        self.cache.peek(key)
    }

    fn put(&self, key: CacheKey, stored: Arc<Stored>, now: Tick) {
        self.cache.put(key, stored, now);
    }

    fn remove(&self, scope: &Scope) -> usize {
        self.cache.remove(scope)
    }

    fn sweep(&self, now: Tick) -> Vec<CacheKey> {
        assert!(!self.panic_in_sweep.swap(false, Ordering::SeqCst), "a defect in a sweep");
        self.cache.sweep(now)
    }

    fn len(&self) -> usize {
        self.cache.len()
    }

    fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    fn stats(&self) -> CacheStats {
        self.cache.stats()
    }
}
