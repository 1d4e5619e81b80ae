// SPDX-License-Identifier: Apache-2.0
//! The calls of a reconcile loop: what is cached without waiting, many models at once, and handles.

use std::sync::Arc;

use collector_cache::MemoryCache;
use collector_core::{
    CollectError, Freshness, ManualClock, MetricsCache, MetricsCollector as _, ModelRef, Source,
};
use collector_engine::CachingCollector;
use collector_testkit::FakeBackend;

use crate::setup::{config, llama, pass, secs, setup, setup_with, variant, variants};

fn models(count: usize) -> Vec<ModelRef> {
    (0..count).map(|n| ModelRef::new(format!("m-{n}"), "prod")).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_cached_is_read_without_waiting_and_what_is_not_is_no_news() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    assert!(setup.collector.cached_replicas(&llama()).is_none());
    assert_eq!(setup.backend.fetches(), 0, "it asks nobody");
    setup.read(&llama()).await;
    pass(secs(10)).await;
    let cached = setup.collector.cached_replicas(&llama()).unwrap();
    assert_eq!((cached.source(), cached.age()), (Source::Cache, secs(10)));
    let gone = ModelRef::new("gone", "prod");
    setup.collector.collect_replica_metrics(&gone).await.unwrap_err();
    assert!(setup.collector.cached_replicas(&gone).is_none(), "missing is no reading");
    pass(secs(300)).await;
    assert!(setup.collector.cached_replicas(&llama()).is_none(), "nor is what is unavailable");
    assert_eq!(setup.collector.state().hits, 1);
}

#[tokio::test(start_paused = true)]
async fn a_cached_allocation_is_read_without_waiting_like_replicas() {
    let setup = setup_with(variants(vec![variant("llama-h100", &llama(), "llama-*")]));
    setup.backend.serve_pods(&llama(), &["llama-0", "llama-1"]);
    let cached = |name: &str| setup.collector.cached_allocation(&llama(), &name.into());
    assert!(cached("llama-h100").is_none());
    setup.read(&llama()).await;
    pass(secs(10)).await;
    let allocation = cached("llama-h100").unwrap();
    assert_eq!((allocation.value().num_replicas, allocation.age()), (2, secs(10)));
    assert!(cached("llama-l4").is_none());
    assert_eq!(setup.backend.fetches(), 1, "it asks nobody");
}

#[tokio::test(start_paused = true)]
async fn a_cached_read_past_the_ttl_starts_one_refresh() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.read(&llama()).await;
    pass(secs(31)).await;
    for _ in 0..10 {
        let cached = setup.collector.cached_replicas(&llama()).unwrap();
        assert_eq!(cached.source(), Source::LastKnownGood);
    }
    pass(secs(1)).await;
    assert_eq!(setup.backend.fetches(), 2);
    assert_eq!(setup.collector.cached_replicas(&llama()).unwrap().source(), Source::Cache);
}

#[tokio::test(start_paused = true)]
async fn outside_of_a_runtime_a_cached_read_is_answered_all_the_same() {
    // tokio's paused time stands in its runtime alone.
    let clock = Arc::new(ManualClock::new());
    let backend = FakeBackend::new(clock.clone());
    backend.serve_pods(&llama(), &["llama-0"]);
    let collector = CachingCollector::builder(Arc::new(backend.clone())).clock(clock.clone());
    let collector = collector.build().unwrap();
    collector.collect_replica_metrics(&llama()).await.unwrap();
    clock.advance(secs(31));
    let read = move || collector.cached_replicas(&llama()).map(|reading| reading.source());
    assert_eq!(std::thread::spawn(read).join().unwrap(), Some(Source::LastKnownGood));
    assert_eq!(backend.fetches(), 1, "there is nothing to start a refresh on");
}

#[tokio::test(start_paused = true)]
async fn many_models_are_read_in_their_order_and_their_misses_are_one_batch() {
    let setup = setup();
    let models = models(100);
    for model in models.iter().step_by(2) {
        setup.backend.serve_pods(model, &["pod-0", "pod-1"]);
    }
    setup.read(&models[0]).await;
    let readings = setup.collector.collect_many(&models).await;
    assert_eq!(setup.backend.fetches(), 2);
    for (index, (model, reading)) in models.iter().zip(&readings).enumerate() {
        match reading {
            Ok(reading) if index % 2 == 0 => assert_eq!(reading.value().model, *model),
            Err(CollectError::Missing { model: missing, .. }) => assert_eq!(missing, model),
            other => panic!("{index}: {other:?}"),
        }
    }
    let again = setup.collector.collect_many(&models).await;
    assert_eq!(setup.backend.fetches(), 2, "found and missing alike are known by now");
    assert!(again.iter().zip(&readings).all(|(one, other)| one.is_ok() == other.is_ok()));
    assert!(setup.collector.collect_many(&[]).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_asked_for_twice_at_once_is_fetched_once() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    let readings = setup.collector.collect_many(&[llama(), llama()]).await;
    assert!(readings.iter().all(Result::is_ok));
    let asks = setup.backend.asks();
    assert!(asks.len() == 1 && asks[0].models == [llama()], "{asks:?}");
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_of_tracked_models_each_of_many_is_refused() {
    let setup = setup_with(|builder| builder.max_tracked(2));
    let models = models(3);
    for model in &models {
        setup.backend.serve_pods(model, &["pod-0"]);
    }
    assert!(setup.collector.collect_many(&models[..2]).await.iter().all(Result::is_ok));
    let readings = setup.collector.collect_many(&models).await;
    assert!(readings[0].is_ok() && readings[1].is_ok());
    assert!(matches!(readings[2], Err(CollectError::TooManyModels { limit: 2 })), "{readings:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handle_shows_each_reading_with_its_age_and_the_next_one_when_it_comes() {
    let setup = setup_with(variants(vec![variant("llama-h100", &llama(), "llama-*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    let mut handle = setup.collector.handle(llama(), Some("llama-h100".into()));
    assert!(handle.replicas().is_none() && handle.allocation().is_none());
    setup.read(&llama()).await;
    for seconds in [0, 10, 20] {
        let reading = handle.replicas().unwrap();
        assert_eq!((reading.source(), reading.age()), (Source::Cache, secs(seconds)));
        assert_eq!(handle.allocation().unwrap().value().num_replicas, 1);
        pass(secs(10)).await;
    }
    pass(secs(1)).await;
    assert_eq!(handle.replicas().unwrap().source(), Source::LastKnownGood);
    setup.backend.serve_pods(&llama(), &["llama-0", "llama-1"]);
    pass(secs(1)).await;
    let reading = handle.replicas().unwrap();
    assert_eq!((reading.source(), reading.value().replicas.len()), (Source::Cache, 2));
    assert_eq!(handle.allocation().unwrap().value().num_replicas, 2);
    assert_eq!(setup.backend.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_handle_survives_an_invalidation_and_a_long_outage() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    let mut handle = setup.collector.handle(llama(), None);
    setup.read(&llama()).await;
    assert!(handle.replicas().is_some() && handle.allocation().is_none());
    setup.collector.invalidate_cache(&llama());
    assert!(handle.replicas().is_none(), "it shows nothing that was dropped");
    setup.read(&llama()).await;
    assert!(handle.replicas().is_some());
    pass(secs(90)).await;
    assert_eq!(handle.replicas().unwrap().freshness(), Freshness::Stale);
    setup.backend.remove(&llama());
    pass(secs(10)).await;
    let denied = handle.replicas().map(|reading| (reading.freshness(), reading.source()));
    assert_eq!(denied, Some((Freshness::Stale, Source::LastKnownGood)));
    pass(secs(300)).await;
    assert!(handle.replicas().is_none(), "what is unavailable is not shown");
}

#[tokio::test(start_paused = true)]
async fn each_read_of_a_handle_is_a_hit_and_marks_the_record() {
    let cache = Arc::new(MemoryCache::new(100, usize::MAX));
    let shared: Arc<dyn MetricsCache> = Arc::clone(&cache) as _;
    let setup = setup_with(|builder| builder.cache(shared));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    let mut handle = setup.collector.handle(llama(), None);
    assert!(handle.replicas().is_none());
    setup.read(&llama()).await;
    for hits in 1..=3 {
        pass(secs(5)).await;
        assert_eq!(handle.replicas().unwrap().value().replicas.len(), 1);
        assert_eq!(setup.collector.state().hits, hits);
        assert_eq!(cache.get(&llama()).unwrap().last_read(), setup.clock.now());
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_misspelt_names_costs_no_tracked_model_its_entry() {
    let setup = setup_with(config(|config| config.max_entries = 10));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.read(&llama()).await;
    for model in models(100) {
        setup.collector.collect_replica_metrics(&model).await.unwrap_err();
    }
    assert!(setup.collector.cached_replicas(&llama()).is_some());
    assert_eq!(setup.collector.cache_size(), 10);
    assert_eq!(setup.collector.state().cache.evictions, 91);
}
