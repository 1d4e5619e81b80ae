//! What each thread keeps for its own reads: how many it has served, and what it read lately. Readers on
//! several cores then share nothing that any of them writes.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use collector_cache::{MemoryCache, Recent};
use collector_core::{
    Allocation, FreshnessThresholds, KeyRef, Label, ModelRef, Replicas, Source, Tick,
};
use thread_local::ThreadLocal;

use crate::assess::{Kept, Terms};

/// The readers of a collector.
#[derive(Default)]
pub(crate) struct Readers {
    by_thread: ThreadLocal<Reader>,
    /// What they have served. There are as many as there were threads at one time.
    served: Mutex<Vec<Arc<Served>>>,
}

/// One thread's part, in lines of its own: it is written at each read.
#[repr(align(128))]
pub(crate) struct Reader {
    served: Arc<Served>,
    pub(crate) replicas: RefCell<Recent<Seen<Replicas>>>,
    pub(crate) allocations: RefCell<Recent<Seen<Allocation>>>,
}

/// What a thread has served from the cache. Counted by each for itself, in lines that no other writes:
/// one counter would be passed between cores at each read, some 40 ns, and the total is exact all the same.
#[derive(Default)]
#[repr(align(128))]
struct Served {
    /// Within their ttl.
    hits: AtomicU64,
    /// Last known good.
    stale: AtomicU64,
}

impl Readers {
    /// That of this thread.
    #[inline]
    pub(crate) fn own(&self) -> &Reader {
        self.by_thread.get_or(|| self.register())
    }

    #[cold]
    fn register(&self) -> Reader {
        let served = Arc::<Served>::default();
        self.all().push(Arc::clone(&served));
        Reader { served, replicas: RefCell::default(), allocations: RefCell::default() }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Served>>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads served from the cache within their ttl.
    pub(crate) fn hits(&self) -> u64 {
        self.all().iter().map(|served| served.hits.load(Ordering::Relaxed)).sum()
    }

    /// Reads served from the cache that were last known good.
    pub(crate) fn stale_serves(&self) -> u64 {
        self.all().iter().map(|served| served.stale.load(Ordering::Relaxed)).sum()
    }
}

impl Reader {
    /// The value under a key with its label, if this thread has read it lately and it can be used, and
    /// whether a refresh is due; counts as a read.
    #[inline]
    pub(crate) fn lately<T: Kept>(
        &self,
        key: KeyRef<'_>,
        thresholds: &FreshnessThresholds,
        now: Tick,
    ) -> Option<(Arc<T>, Label, bool)> {
        let recent = T::recent(self).borrow();
        let seen = recent.find(key, now)?;
        let label = seen.terms.label(thresholds, now)?;
        // Last, because the count is what readers on other cores want as well.
        let value = seen.value.upgrade()?;
        Some((value, label, seen.terms.is_due(now)))
    }

    /// Takes note of what stands under a key, for the next read of it.
    pub(crate) fn learn<T: Kept>(&self, cache: &MemoryCache, key: KeyRef<'_>) {
        T::recent(self).borrow_mut().learn(cache, key, |stored| {
            let value = T::of(&stored.value)?;
            Some(Seen { value: Arc::downgrade(value), terms: Terms::of(stored, &**value) })
        });
    }

    /// A reading was served from the cache.
    #[inline]
    pub(crate) fn served(&self, model: &ModelRef, source: Source) {
        let Served { hits, stale } = &*self.served;
        if source == Source::LastKnownGood {
            add_one(stale);
        } else {
            add_one(hits);
            tracing::debug!(modelID = ?model.model, namespace = ?model.namespace, "Cache hit");
        }
    }
}

/// For a counter that nobody else writes: no exclusive access, which costs 5 ns.
#[inline]
fn add_one(own: &AtomicU64) {
    own.store(own.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// What a read needs of an entry, so that reading it again looks at nothing else.
pub(crate) struct Seen<T> {
    /// Held weakly: a thread that reads no more would keep it for ever.
    value: Weak<T>,
    terms: Terms,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn what_many_threads_count_is_counted_whole() {
        let (readers, model) = (Readers::default(), ModelRef::new("model", "prod"));
        for _ in 0..3 {
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..1000 {
                            readers.own().served(&model, Source::Cache);
                            readers.own().served(&model, Source::Cache);
                            readers.own().served(&model, Source::LastKnownGood);
                        }
                    });
                }
            });
        }
        assert_eq!((readers.hits(), readers.stale_serves()), (24_000, 12_000));
    }

    #[test]
    fn threads_that_come_and_go_use_the_places_of_those_before_them() {
        let (readers, model) = (Readers::default(), ModelRef::new("model", "prod"));
        for _ in 0..100 {
            thread::scope(|scope| {
                scope.spawn(|| readers.own().served(&model, Source::Cache)).join().unwrap();
            });
        }
        assert_eq!(readers.hits(), 100);
        assert!(readers.all().len() < 100, "each thread has left something");
    }
}
