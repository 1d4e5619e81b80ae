//! Invalidations against fetches under way.

use std::sync::Arc;

use collector_core::{MetricsCollector as _, ModelRef};

use crate::setup::{llama, setup};

#[tokio::test(start_paused = true)]
async fn an_overtaken_fetch_answers_its_waiters_and_stores_nothing() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.hang();
    let collector = Arc::clone(&setup.collector);
    let read = tokio::spawn(async move { collector.collect_replica_metrics(&llama()).await });
    setup.backend.entered().await;
    setup.collector.invalidate_cache(&llama());
    // Who reads after the invalidation does not join the fetch from before it.
    let collector = Arc::clone(&setup.collector);
    let after = tokio::spawn(async move { collector.collect_replica_metrics(&llama()).await });
    setup.backend.entered().await;
    assert_eq!(setup.backend.fetches(), 2);
    setup.backend.release();
    assert!(read.await.unwrap().is_ok() && after.await.unwrap().is_ok());
    assert_eq!(setup.collector.cache_size(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_of_an_overtaken_fetch_is_found_later() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.hang();
    let collector = Arc::clone(&setup.collector);
    let read = tokio::spawn(async move { collector.collect_replica_metrics(&llama()).await });
    setup.backend.entered().await;
    setup.collector.invalidate_cache(&llama());
    setup.backend.release();
    assert!(read.await.unwrap().is_ok());
    assert_eq!(setup.collector.cache_size(), 0);
    assert!(setup.collector.tracked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn invalidating_llama_keeps_llama_8b() {
    let setup = setup();
    let longer = ModelRef::new("llama-8b", "prod");
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.serve_pods(&longer, &["llama-8b-0"]);
    setup.read(&llama()).await;
    setup.read(&longer).await;
    assert_eq!(setup.collector.invalidate_cache(&llama()), 1);
    assert_eq!(setup.collector.cache_size(), 1);
}
