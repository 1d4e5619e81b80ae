// SPDX-License-Identifier: Apache-2.0
//! Code from outside that panics: a cache, a directory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use collector_core::{
    MetricsCache, MetricsCollector as _, ModelRef, PodName, Variant, VariantDirectory,
};
use collector_engine::StaticDirectory;

use crate::scripted_cache::{ScriptedCache, count_down};
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

struct ScriptedDirectory {
    directory: StaticDirectory,
    /// Calls until one panics; 0 is none.
    calls_until_panic: AtomicUsize,
}

impl ScriptedDirectory {
    fn new() -> Arc<Self> {
        let directory = StaticDirectory::new(vec![variant("fast", &llama(), "*")]).unwrap();
        Arc::new(Self { directory, calls_until_panic: AtomicUsize::new(0) })
    }

    fn count(&self) {
        assert!(count_down(&self.calls_until_panic) != 1, "a defect in a directory");
    }
}

impl VariantDirectory for ScriptedDirectory {
    fn variants(&self) -> Vec<Arc<Variant>> {
        self.directory.variants()
    }
    fn variants_of(&self, model: &ModelRef) -> Vec<Arc<Variant>> {
        self.count();
        self.directory.variants_of(model)
    }
    fn variant_of(&self, model: &ModelRef, pod: &PodName) -> Option<Arc<Variant>> {
        self.count();
        self.directory.variant_of(model, pod)
    }
    fn generation(&self) -> u64 {
        0
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_a_directory_panics_the_model_is_fetched_again() {
    for (calls, refreshes) in (1..=4).flat_map(|calls| [(calls, false), (calls, true)]) {
        let directory = ScriptedDirectory::new();
        let shared = Arc::clone(&directory);
        let setup = setup_with(|builder| builder.directory(shared));
        setup.backend.serve_pods(&llama(), &["llama-0"]);
        directory.calls_until_panic.store(calls, Ordering::SeqCst);
        if refreshes {
            setup.collector.start_background_worker().await.unwrap();
            pass(secs(90)).await;
        } else {
            let model = llama();
            let read = setup.collector.collect_replica_metrics(&model);
            _ = tokio::time::timeout(secs(1), read).await;
        }
        assert_eq!(directory.calls_until_panic.load(Ordering::SeqCst), 0, "{calls}: no such call");
        let read = tokio::time::timeout(secs(1), setup.read(&llama())).await;
        assert!(read.is_ok_and(|reading| reading.age() <= secs(30)), "call {calls}, {refreshes}");
    }
}
