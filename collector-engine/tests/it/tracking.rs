//! Who is tracked, and until when.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use collector_core::{CollectError, KeyKind, MetricsCollector as _, ModelRef, Scope, VariantRef};

use collector_core::{PodName, Variant, VariantDirectory};
use collector_engine::StaticDirectory;

use crate::setup::{llama, pass, secs, setup, setup_with, variant, variants};

#[tokio::test(start_paused = true)]
async fn a_model_that_nobody_reads_for_five_minutes_is_untracked_and_dropped() {
    let setup = setup();
    let read_on = ModelRef::new("qwen", "prod");
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.serve_pods(&read_on, &["qwen-0"]);
    setup.collector.start_background_worker();
    setup.read(&llama()).await;
    for _ in 0..7 {
        setup.read(&read_on).await;
        pass(secs(60)).await;
    }
    let tracked: Vec<_> = setup.collector.tracked().into_iter().map(|t| t.model).collect();
    assert_eq!(tracked, [read_on]);
    assert_eq!(setup.collector.cache_size(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_misspelt_name_is_forgotten() {
    let setup = setup();
    setup.collector.start_background_worker();
    for n in 0..50 {
        let typo = ModelRef::new(format!("typo-{n}"), "prod");
        assert!(setup.collector.collect_replica_metrics(&typo).await.is_err());
    }
    assert_eq!(setup.collector.cache_size(), 50);
    pass(secs(121)).await;
    assert_eq!(setup.collector.cache_size(), 0);
}

#[tokio::test(start_paused = true)]
async fn configured_variants_are_never_untracked_for_idleness() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker();
    pass(secs(1000)).await;
    let tracked = setup.collector.tracked();
    assert_eq!(tracked.len(), 1);
    assert!(tracked[0].replicas.is_ok() && tracked[0].allocations[0].1.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_tracked_model_says_that_it_has_not_been_looked_at_yet() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    let tracked = setup.collector.tracked();
    assert!(matches!(tracked[0].replicas, Err(CollectError::Pending { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_models_replicas_go_with_its_last_tracked_variant() {
    let specs = vec![variant("a", &llama(), "a-*"), variant("b", &llama(), "b-*")];
    let setup = setup_with(variants(specs));
    setup.backend.serve_pods(&llama(), &["a-0", "b-0"]);
    setup.read(&llama()).await;
    assert_eq!(setup.collector.cache_size(), 3);
    setup.collector.stop_tracking(&VariantRef::new("a", "prod"));
    assert_eq!(setup.collector.cache_size(), 2);
    // The refresh does not bring the stopped one back.
    setup.collector.start_background_worker();
    pass(secs(100)).await;
    assert_eq!(setup.collector.cache_size(), 2);
    // A read does.
    assert!(setup.collector.collect_allocation(&llama(), &"a".into()).await.is_ok());
    assert_eq!(setup.collector.cache_size(), 3);
    setup.collector.stop_tracking(&VariantRef::new("a", "prod"));
    setup.collector.stop_tracking(&VariantRef::new("b", "prod"));
    assert_eq!(setup.collector.cache_size(), 0);
    assert!(setup.collector.tracked().is_empty());
    let asked = setup.backend.fetches();
    pass(secs(100)).await;
    assert_eq!(setup.backend.fetches(), asked);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_new_models_are_refused_and_known_ones_served() {
    let setup = setup_with(|builder| builder.max_tracked(1));
    let other = ModelRef::new("other", "prod");
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.serve_pods(&other, &["other-0"]);
    setup.read(&llama()).await;
    let error = setup.collector.collect_replica_metrics(&other).await.unwrap_err();
    assert!(matches!(error, CollectError::TooManyModels { limit: 1 }));
    setup.collector.invalidate_cache(&llama());
    setup.read(&llama()).await;
}

#[tokio::test(start_paused = true)]
async fn a_scope_drops_its_kind_alone() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.read(&llama()).await;
    let scope = Scope::of_kind(KeyKind::Allocation).model("llama");
    assert_eq!(setup.collector.invalidate_by_prefix(&scope), 1);
    assert_eq!(setup.collector.cache_size(), 1);
}

/// A directory that is exchanged while the collector runs.
struct Exchangeable {
    now: Mutex<Arc<StaticDirectory>>,
    generation: AtomicU64,
}

impl Exchangeable {
    fn now(&self) -> Arc<StaticDirectory> {
        Arc::clone(&self.now.lock().unwrap())
    }
}

impl VariantDirectory for Exchangeable {
    fn variants(&self) -> Vec<Arc<Variant>> {
        self.now().variants()
    }
    fn variants_of(&self, model: &ModelRef) -> Vec<Arc<Variant>> {
        self.now().variants_of(model)
    }
    fn variant_of(&self, model: &ModelRef, pod: &PodName) -> Option<Arc<Variant>> {
        self.now().variant_of(model, pod)
    }
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_directory_changes_values_are_published_again_without_asking() {
    let old = StaticDirectory::new(vec![variant("old", &llama(), "*")]).unwrap();
    let directory =
        Arc::new(Exchangeable { now: Mutex::new(Arc::new(old)), generation: AtomicU64::new(0) });
    let shared = Arc::clone(&directory);
    let long = collector_engine::CacheConfig { ttl: secs(200), ..Default::default() };
    let setup = setup_with(|builder| builder.directory(shared).config(long));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker();
    pass(secs(1)).await;
    let new = StaticDirectory::new(vec![variant("new", &llama(), "*")]).unwrap();
    *directory.now.lock().unwrap() = Arc::new(new);
    directory.generation.store(1, Ordering::SeqCst);
    pass(secs(30)).await;
    let reading = setup.read(&llama()).await;
    assert_eq!(reading.value().replicas[0].variant_name, Some("new".into()));
    assert!(setup.collector.collect_allocation(&llama(), &"new".into()).await.is_ok());
    assert!(setup.collector.collect_allocation(&llama(), &"old".into()).await.is_err());
    assert_eq!(setup.backend.fetches(), 1);
    pass(secs(200)).await;
    assert_eq!(setup.backend.fetches(), 2);
    assert!(setup.collector.tracked()[0].allocations[0].1.is_ok());
    assert_eq!(setup.collector.cache_size(), 2);
}
