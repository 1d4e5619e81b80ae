// SPDX-License-Identifier: Apache-2.0
//! Invalidations against fetches under way.

use std::sync::Arc;

use collector_core::{ErrorKind, MetricsCollector as _, ModelRef, Scope};

use crate::setup::{llama, pass, secs, setup, setup_with, variant, variants};

#[tokio::test(start_paused = true)]
async fn a_superseded_fetch_answers_its_callers_and_stores_nothing() {
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
async fn nothing_of_a_superseded_fetch_is_found_later() {
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

#[tokio::test(start_paused = true)]
async fn an_invalidated_allocation_returns_with_an_answer_and_not_with_a_failure() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    let allocation = || setup.collector.cached_allocation(&llama(), &"fast".into());
    assert!(allocation().is_some());
    setup.backend.fail(ErrorKind::Unauthorized);
    let scope = Scope::of_model(&llama()).variant("fast");
    assert_eq!(setup.collector.invalidate_by_prefix(&scope), 1);
    pass(secs(60)).await;
    assert!(allocation().is_none(), "a value from before the invalidation");
    assert!(setup.collector.cached_replicas(&llama()).is_some());
    setup.backend.restore();
    pass(secs(60)).await;
    assert!(allocation().is_some());
}
