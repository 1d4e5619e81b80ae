// SPDX-License-Identifier: Apache-2.0
//! A directory of variants that changes, or that fails.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use collector_core::{
    ErrorKind, MetricsCollector as _, ModelRef, PodName, Variant, VariantDirectory, VariantRef,
};
use collector_engine::{StaticDirectory, VariantSpec};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use crate::setup::{config, llama, pass, secs, setup_with, variant};

/// A directory that is exchanged while the collector runs.
struct Exchangeable {
    now: Mutex<Arc<StaticDirectory>>,
    generation: AtomicU64,
}

impl Exchangeable {
    fn new(specs: Vec<VariantSpec>) -> Arc<Self> {
        let now = Mutex::new(Arc::new(StaticDirectory::new(specs).unwrap()));
        Arc::new(Self { now, generation: AtomicU64::new(0) })
    }

    fn set(&self, specs: Vec<VariantSpec>) {
        *self.now.lock().unwrap() = Arc::new(StaticDirectory::new(specs).unwrap());
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

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
    let directory = Exchangeable::new(vec![variant("old", &llama(), "*")]);
    let shared = Arc::clone(&directory);
    let long = collector_engine::CacheConfig { ttl: secs(200), ..Default::default() };
    let setup = setup_with(|builder| builder.directory(shared).config(long));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    setup.backend.hang();
    directory.set(vec![variant("new", &llama(), "*")]);
    pass(secs(30)).await;
    let reading = setup.read(&llama()).await;
    assert_eq!(reading.value().replicas[0].variant_name, Some("new".into()));
    assert!(setup.collector.collect_allocation(&llama(), &"new".into()).await.is_ok());
    assert!(setup.collector.collect_allocation(&llama(), &"old".into()).await.is_err());
    assert_eq!(reading.age(), secs(31));
    setup.backend.release();
    pass(secs(1)).await;
    assert!(setup.read(&llama()).await.age() < secs(10));
    assert!(setup.collector.tracked()[0].allocations[0].1.is_ok());
    assert_eq!(setup.collector.cache_size(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_changes_before_the_worker_starts_is_followed() {
    let directory = Exchangeable::new(vec![]);
    let shared = Arc::clone(&directory);
    let setup = setup_with(|builder| builder.directory(shared));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    directory.set(vec![variant("a", &llama(), "*")]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(300)).await;
    assert_eq!(setup.collector.state().tracked, 1);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_changes_does_not_bring_back_what_was_stopped() {
    let mut specs = vec![variant("a", &llama(), "a-*"), variant("b", &llama(), "b-*")];
    let directory = Exchangeable::new(specs.clone());
    let shared = Arc::clone(&directory);
    let setup = setup_with(|builder| builder.directory(shared));
    setup.backend.serve_pods(&llama(), &["a-0", "b-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    setup.collector.stop_tracking(&VariantRef::new("a", "prod"));
    specs.push(variant("x", &ModelRef::new("unrelated", "prod"), "*"));
    directory.set(specs);
    pass(secs(60)).await;
    let tracked = setup.collector.tracked();
    let tracked = tracked.iter().find(|tracked| tracked.model == llama()).unwrap();
    let names: Vec<&str> = tracked.allocations.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_variant_can_be_stopped_after_the_directory_has_dropped_it() {
    let mut specs = vec![variant("a", &llama(), "a-*"), variant("b", &llama(), "b-*")];
    let directory = Exchangeable::new(specs.clone());
    let shared = Arc::clone(&directory);
    let setup = setup_with(|builder| builder.directory(shared));
    setup.backend.serve_pods(&llama(), &["a-0", "b-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    assert_eq!(setup.collector.cache_size(), 3);
    specs.remove(0);
    directory.set(specs);
    pass(secs(1)).await;
    assert!(setup.collector.stop_tracking(&VariantRef::new("a", "prod")));
    assert_eq!(setup.collector.cache_size(), 2, "what was kept of it is gone at once");
    directory.set(Vec::new());
    pass(secs(60)).await;
    assert!(setup.collector.stop_tracking(&VariantRef::new("b", "prod")));
    assert_eq!((setup.collector.cache_size(), setup.collector.state().tracked), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_left_the_directory_is_tracked_for_as_long_as_it_is_read() {
    let kept = ModelRef::new("kept", "prod");
    let mut specs = vec![variant("left", &llama(), "*"), variant("stays", &kept, "*")];
    let directory = Exchangeable::new(specs.clone());
    let shared = Arc::clone(&directory);
    let setup = setup_with(|builder| builder.directory(shared));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.serve_pods(&kept, &["kept-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    specs.remove(0);
    directory.set(specs);
    let tracked =
        || setup.collector.tracked().into_iter().map(|it| it.model).collect::<Vec<ModelRef>>();
    for _ in 0..10 {
        setup.read(&llama()).await;
        pass(secs(60)).await;
    }
    assert_eq!(tracked(), [kept.clone(), llama()]);
    pass(secs(400)).await;
    assert_eq!(tracked(), [kept]);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_changes_during_an_outage_is_followed() {
    let directory = Exchangeable::new(vec![variant("old", &llama(), "*")]);
    let shared = Arc::clone(&directory);
    let setup = setup_with(|builder| builder.directory(shared));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    setup.backend.fail(ErrorKind::Connect);
    pass(secs(40)).await;
    directory.set(vec![variant("new", &llama(), "*")]);
    pass(secs(60)).await;
    let reading = setup.read(&llama()).await;
    assert_eq!(reading.value().replicas[0].variant_name, Some("new".into()));
    assert!(reading.age() > secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_changes_is_followed_where_nothing_is_refreshed() {
    let directory = Exchangeable::new(vec![variant("old", &llama(), "*")]);
    let shared = Arc::clone(&directory);
    let no_refresh = config(|config| config.fetch_interval = Duration::ZERO);
    let setup = setup_with(|builder| no_refresh(builder).directory(shared));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.collector.collect_allocation(&llama(), &"old".into()).await.unwrap();
    directory.set(vec![variant("new", &llama(), "*")]);
    pass(secs(61)).await;
    assert!(setup.collector.collect_allocation(&llama(), &"old".into()).await.is_err());
    assert!(setup.collector.collect_allocation(&llama(), &"new".into()).await.is_ok());
}

/// Panics when it is asked about one model.
struct Panicking(StaticDirectory, ModelRef);

impl VariantDirectory for Panicking {
    fn variants(&self) -> Vec<Arc<Variant>> {
        self.0.variants()
    }
    fn variants_of(&self, model: &ModelRef) -> Vec<Arc<Variant>> {
        self.0.variants_of(model)
    }
    fn variant_of(&self, model: &ModelRef, pod: &PodName) -> Option<Arc<Variant>> {
        assert!(*model != self.1, "a defect");
        self.0.variant_of(model, pod)
    }
    fn generation(&self) -> u64 {
        0
    }
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_panics_over_one_model_harms_no_other() {
    let (good, bad) = (llama(), ModelRef::new("a-bad", "prod"));
    let specs = vec![variant("x", &bad, "*"), variant("y", &good, "*")];
    let directory = Panicking(StaticDirectory::new(specs).unwrap(), bad.clone());
    let setup = setup_with(|builder| builder.directory(Arc::new(directory)));
    setup.backend.serve_pods(&bad, &["p"]);
    setup.backend.serve_pods(&good, &["llama-0"]);
    let (failed, found) = tokio::join!(
        setup.collector.collect_replica_metrics(&bad),
        setup.collector.collect_replica_metrics(&good),
    );
    assert!(failed.unwrap_err().to_string().contains("without an answer"));
    assert!(found.is_ok());
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(400)).await;
    assert!(setup.read(&good).await.age() < secs(30));
}

/// Counts what is added to one counter.
#[derive(Default)]
struct Counted {
    registrations: AtomicU64,
    total: Arc<AtomicU64>,
}

impl Recorder for Counted {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() != "wva_pod_mapping_miss_total" {
            return Counter::noop();
        }
        self.registrations.fetch_add(1, Ordering::SeqCst);
        Counter::from_arc(Arc::clone(&self.total))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test(start_paused = true)]
async fn pods_that_no_variant_claims_are_counted_with_each_fetch() {
    let counted = Counted::default();
    let _guard = metrics::set_default_local_recorder(&counted);
    let setup = setup_with(|builder| {
        let specs = vec![variant("v", &llama(), "v-*")];
        builder.directory(Arc::new(StaticDirectory::new(specs).unwrap()))
    });
    let unclaimed_after_fetch = || async {
        setup.collector.invalidate_cache(&llama());
        let _ = setup.collector.collect_replica_metrics(&llama()).await;
        counted.total.load(Ordering::SeqCst)
    };
    setup.backend.serve_pods(&llama(), &["v-0"]);
    unclaimed_after_fetch().await;
    assert_eq!(counted.registrations.load(Ordering::SeqCst), 0);
    setup.backend.serve_pods(&llama(), &["v-0", "stray-0", "stray-1"]);
    assert_eq!((unclaimed_after_fetch().await, unclaimed_after_fetch().await), (2, 4));
    // A fetch that fails has shown none.
    setup.backend.fail(ErrorKind::Unauthorized);
    pass(secs(31)).await;
    setup.read(&llama()).await;
    pass(secs(1)).await;
    assert_eq!(setup.backend.fetches(), 4);
    assert_eq!(counted.total.load(Ordering::SeqCst), 4);
}
