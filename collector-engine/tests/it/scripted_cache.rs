// SPDX-License-Identifier: Apache-2.0
//! A cache that misbehaves on request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use collector_cache::MemoryCache;
use collector_core::{CacheStats, MetricsCache, ModelRecord, ModelRef};

pub(crate) struct ScriptedCache {
    cache: MemoryCache,
    /// This many more reads find nothing.
    pub(crate) misses: AtomicUsize,
    /// Reads until one panics; 0 is none.
    pub(crate) reads_until_panic: AtomicUsize,
    /// The next sweep panics.
    pub(crate) panic_in_sweep: AtomicBool,
}

impl Default for ScriptedCache {
    fn default() -> Self {
        Self {
            cache: MemoryCache::new(1000, usize::MAX),
            misses: AtomicUsize::new(0),
            reads_until_panic: AtomicUsize::new(0),
            panic_in_sweep: AtomicBool::new(false),
        }
    }
}

/// Counts down to 0, and returns where it was.
pub(crate) fn count_down(counter: &AtomicUsize) -> usize {
    let left = counter.load(Ordering::SeqCst);
    counter.store(left.saturating_sub(1), Ordering::SeqCst);
    left
}

impl MetricsCache for ScriptedCache {
    fn retains(&self) -> bool {
        true
    }

    fn get(&self, model: &ModelRef) -> Option<Arc<ModelRecord>> {
        assert!(count_down(&self.reads_until_panic) != 1, "a defect in a read");
        if count_down(&self.misses) == 0 { self.cache.get(model) } else { None }
    }

    fn put(&self, record: Arc<ModelRecord>) {
        self.cache.put(record);
    }

    fn remove(&self, model: &ModelRef) -> Option<Arc<ModelRecord>> {
        self.cache.remove(model)
    }

    fn retain(&self, keep: &mut dyn FnMut(&Arc<ModelRecord>) -> bool) {
        assert!(!self.panic_in_sweep.swap(false, Ordering::SeqCst), "a defect in a sweep");
        self.cache.retain(keep);
    }

    fn stats(&self) -> CacheStats {
        self.cache.stats()
    }
}
