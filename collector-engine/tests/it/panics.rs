//! Outside code that panics: a cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use collector_cache::MemoryCache;
use collector_core::{
    CacheKey, CacheStats, KeyRef, MetricsCache, MetricsCollector as _, Peeked, Scope, Stored, Tick,
};

use crate::setup::{Setup, llama, pass, secs, setup_with, variant, variants};

/// A cache that panics once when it is told to.
struct Panicking {
    inner: MemoryCache,
    /// Peeks until one panics; 0 is none.
    peeks: AtomicUsize,
    sweep: AtomicBool,
}

impl MetricsCache for Panicking {
    fn retains(&self) -> bool {
        self.inner.retains()
    }
    fn get(&self, key: KeyRef<'_>, now: Tick) -> Option<Arc<Stored>> {
        self.inner.get(key, now)
    }
    fn visit(&self, key: KeyRef<'_>, now: Tick, visitor: &mut dyn FnMut(&Stored)) -> bool {
        self.inner.visit(key, now, visitor)
    }
    fn peek(&self, key: KeyRef<'_>) -> Option<Peeked> {
        let left = self.peeks.load(Ordering::SeqCst);
        self.peeks.store(left.saturating_sub(1), Ordering::SeqCst);
        assert!(left != 1, "a defect in a peek");
        self.inner.peek(key)
    }
    fn put(&self, key: CacheKey, stored: Arc<Stored>, now: Tick) {
        self.inner.put(key, stored, now);
    }
    fn remove(&self, scope: &Scope) -> usize {
        self.inner.remove(scope)
    }
    fn sweep(&self, now: Tick) -> Vec<CacheKey> {
        assert!(!self.sweep.swap(false, Ordering::SeqCst), "a defect in a sweep");
        self.inner.sweep(now)
    }
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }
    fn stats(&self) -> CacheStats {
        self.inner.stats()
    }
}

fn setup() -> (Arc<Panicking>, Setup) {
    let cache = Arc::new(Panicking {
        inner: MemoryCache::new(1000),
        peeks: AtomicUsize::new(0),
        sweep: AtomicBool::new(false),
    });
    let shared: Arc<dyn MetricsCache> = Arc::clone(&cache) as _;
    let variants = variants(vec![variant("fast", &llama(), "*")]);
    let setup = setup_with(|builder| variants(builder).cache(shared));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    (cache, setup)
}

#[tokio::test(start_paused = true)]
async fn wherever_a_cache_panics_in_a_cycle_the_next_one_comes() {
    // A cycle peeks some four times; each of its places has its turn.
    for peeks in 1..=8 {
        let (cache, setup) = setup();
        setup.collector.start_background_worker();
        pass(secs(1)).await;
        cache.peeks.store(peeks, Ordering::SeqCst);
        pass(secs(90)).await;
        assert_eq!(cache.peeks.load(Ordering::SeqCst), 0, "no peek number {peeks} came");
        assert!(setup.read(&llama()).await.age() <= secs(30), "peek {peeks}");
        let state = setup.collector.state();
        assert_eq!((state.panics, state.backends[0].panics), (1, 0), "peek {peeks}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_panics_is_not_the_last() {
    let (cache, setup) = setup();
    let other = collector_core::ModelRef::new("other", "prod");
    setup.backend.serve_pods(&other, &["other-0"]);
    setup.read(&other).await;
    cache.sweep.store(true, Ordering::SeqCst);
    setup.collector.start_background_worker();
    pass(secs(1000)).await;
    assert!(!cache.sweep.load(Ordering::SeqCst));
    assert_eq!(setup.collector.state().tracked, 1, "only the configured model is still tracked");
}
