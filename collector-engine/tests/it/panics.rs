//! Outside code that panics: a cache.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use collector_core::MetricsCache;

use crate::scripted_cache::ScriptedCache;
use crate::setup::{Setup, llama, pass, secs, setup_with, variant, variants};

fn setup() -> (Arc<ScriptedCache>, Setup) {
    let cache = Arc::new(ScriptedCache::default());
    let shared: Arc<dyn MetricsCache> = Arc::clone(&cache) as _;
    let variants = variants(vec![variant("fast", &llama(), "*")]);
    let setup = setup_with(|builder| variants(builder).cache(shared));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    (cache, setup)
}

#[tokio::test(start_paused = true)]
async fn wherever_a_cache_panics_in_a_cycle_the_next_one_comes() {
    // A cycle reads the cache some four times; each of these reads has its turn.
    for reads in 1..=8 {
        let (cache, setup) = setup();
        setup.collector.start_background_worker().await.unwrap();
        pass(secs(1)).await;
        cache.reads_until_panic.store(reads, Ordering::SeqCst);
        pass(secs(90)).await;
        assert_eq!(
            cache.reads_until_panic.load(Ordering::SeqCst),
            0,
            "no read number {reads} came"
        );
        assert!(setup.read(&llama()).await.age() <= secs(30), "read {reads}");
        let state = setup.collector.state();
        assert_eq!((state.panics, state.backends[0].panics), (1, 0), "read {reads}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_panics_is_not_the_last() {
    let (cache, setup) = setup();
    let other = collector_core::ModelRef::new("other", "prod");
    setup.backend.serve_pods(&other, &["other-0"]);
    setup.read(&other).await;
    cache.panic_in_sweep.store(true, Ordering::SeqCst);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1000)).await;
    assert!(!cache.panic_in_sweep.load(Ordering::SeqCst));
    assert_eq!(setup.collector.state().tracked, 1, "only the configured model is still tracked");
}
