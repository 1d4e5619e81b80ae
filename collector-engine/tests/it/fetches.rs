// SPDX-License-Identifier: Apache-2.0
//! Concurrent misses, retries, panics, deadlines.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use collector_core::{
    BreakerState, CollectError, ErrorKind, Limits, MetricsCollector as _, ModelRef, Source, Urgency,
};
use collector_engine::{Builder, CacheConfig};
use collector_testkit::Failure;
use futures_util::future::join_all;

use crate::scripted_cache::ScriptedCache;
use crate::setup::{config, llama, pass, secs, setup, setup_with, variant, variants};

fn kind(error: &CollectError) -> ErrorKind {
    match error {
        CollectError::Backend(error) => error.kind(),
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_concurrent_misses_of_one_model_share_one_fetch() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    let model = llama();
    let reads = (0..1000).map(|_| setup.read(&model));
    assert_eq!(join_all(reads).await.len(), 1000);
    assert_eq!(setup.backend.fetches(), 1);
    assert_eq!(setup.collector.state().coalesced_misses, 999);
}

#[tokio::test(start_paused = true)]
async fn the_same_holds_without_a_cache() {
    let setup = setup_with(config(|config| config.enabled = false));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    let model = llama();
    join_all((0..1000).map(|_| setup.read(&model))).await;
    assert_eq!(setup.backend.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn misses_of_several_models_within_a_moment_share_one_batch() {
    let setup = setup();
    let models: Vec<ModelRef> = (0..50).map(|n| ModelRef::new(format!("m-{n}"), "prod")).collect();
    for model in &models {
        setup.backend.serve_pods(model, &["pod-0"]);
    }
    join_all(models.iter().map(|model| setup.read(model))).await;
    assert_eq!(setup.backend.fetches(), 1);
    assert_eq!(setup.backend.asks()[0].models.len(), 50);
    assert_eq!(setup.backend.asks()[0].urgency, Urgency::Waiting);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_caller_harms_nobody() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.hang();
    let collector = Arc::clone(&setup.collector);
    let first = tokio::spawn(async move { collector.collect_replica_metrics(&llama()).await });
    setup.backend.entered().await;
    let collector = Arc::clone(&setup.collector);
    let second = tokio::spawn(async move { collector.collect_replica_metrics(&llama()).await });
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    setup.backend.release();
    assert!(second.await.unwrap().is_ok());
    assert_eq!(setup.backend.fetches(), 1);
    assert_eq!(setup.collector.cache_size(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_everybody_left_is_still_stored() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.hang();
    let gone = tokio::time::timeout(secs(1), setup.read(&llama())).await;
    assert!(gone.is_err());
    setup.backend.release();
    pass(Duration::from_millis(10)).await;
    setup.read(&llama()).await;
    assert_eq!(setup.backend.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_three_times_and_what_will_not_once() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.fail_next(2, ErrorKind::Disconnected);
    setup.read(&llama()).await;
    assert_eq!(setup.backend.fetches(), 3);
    let other = ModelRef::new("other", "prod");
    setup.backend.fail_next(1, ErrorKind::Unauthorized);
    let error = setup.collector.collect_replica_metrics(&other).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Unauthorized);
    assert_eq!(setup.backend.fetches(), 4);
}

#[tokio::test(start_paused = true)]
async fn only_the_models_that_failed_are_tried_again() {
    let setup = setup();
    let (model, other) = (llama(), ModelRef::new("other", "prod"));
    setup.backend.serve_pods(&model, &["llama-0"]);
    setup.backend.fail_model(&other, ErrorKind::Overloaded);
    let (found, failed) = tokio::join!(
        setup.collector.collect_replica_metrics(&model),
        setup.collector.collect_replica_metrics(&other),
    );
    assert!(found.is_ok());
    assert_eq!(kind(&failed.unwrap_err()), ErrorKind::Overloaded);
    let asked: Vec<usize> = setup.backend.asks().iter().map(|ask| ask.models.len()).collect();
    assert_eq!(asked, [2, 1, 1]);
    // The server answered each time: that is no reason to stop asking it.
    assert_eq!(setup.collector.state().backends[0].breaker, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_names_a_pause_gets_it() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup
        .backend
        .fail_next(1, Failure { kind: ErrorKind::RateLimited, retry_after: Some(secs(3)) });
    let began = tokio::time::Instant::now();
    setup.read(&llama()).await;
    assert!(began.elapsed() >= secs(3) && began.elapsed() < secs(4));
}

#[tokio::test(start_paused = true)]
async fn of_the_pauses_that_are_named_for_several_models_the_longest_is_kept() {
    let named =
        |seconds| Failure { kind: ErrorKind::RateLimited, retry_after: Some(secs(seconds)) };
    let (model, other) = (llama(), ModelRef::new("other", "prod"));
    for (first, second) in [(1, 3), (3, 1)] {
        let setup = setup();
        setup.backend.fail_model(&model, named(first));
        setup.backend.fail_model(&other, named(second));
        let (one, two) = tokio::join!(
            setup.collector.collect_replica_metrics(&model),
            setup.collector.collect_replica_metrics(&other),
        );
        assert!(one.is_err() && two.is_err());
        let asks = setup.backend.asks();
        let apart = asks[0].at.age(asks[1].at);
        assert!((secs(3)..secs(4)).contains(&apart), "{apart:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_call_ends_within_three_timeouts_and_a_second() {
    let setup = setup_with(|builder| builder.limits(Limits::new(secs(5))));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.hang();
    let began = tokio::time::Instant::now();
    let error = setup.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Timeout);
    assert!(began.elapsed() <= secs(16), "{:?}", began.elapsed());
    assert!(error.to_string().contains("model \"llama\" in"), "{error}");
    pass(secs(1)).await;
    // Nothing but the server let it wait.
    assert_eq!(setup.collector.state().backends[0].recent_failures, 1);
    assert_eq!(setup.backend.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_panics_fails_that_fetch_only() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.panic_next(1);
    let error = setup.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Panicked);
    assert!(error.to_string().contains("from model \"llama\" in"), "{error}");
    setup.backend.panic_next(1);
    let (one, two) = (ModelRef::new("one", "prod"), ModelRef::new("two", "prod"));
    let (error, _) = tokio::join!(
        setup.collector.collect_replica_metrics(&one),
        setup.collector.collect_replica_metrics(&two),
    );
    let error = error.unwrap_err();
    assert!(error.to_string().contains("from 2 models"), "{error}");
    setup.read(&llama()).await;
}

#[tokio::test(start_paused = true)]
async fn a_model_left_out_of_an_answer_has_failed_and_is_not_missing() {
    let setup = setup();
    setup.backend.omit(&llama());
    let error = setup.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::BadAnswer);
}

#[tokio::test(start_paused = true)]
async fn a_dead_backend_is_not_hammered_and_says_why_each_time() {
    let setup = setup();
    setup.backend.fail(ErrorKind::Connect);
    for _ in 0..200 {
        let error = setup.collector.collect_replica_metrics(&llama()).await.unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Connect);
        pass(Duration::from_millis(50)).await;
    }
    assert!(setup.backend.fetches() <= 8, "{}", setup.backend.fetches());
    assert_eq!(setup.collector.state().backends[0].breaker, BreakerState::Open);
    setup.backend.restore();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    pass(secs(10)).await;
    setup.read(&llama()).await;
    assert_eq!(setup.collector.state().backends[0].breaker, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_joins_a_refresh_in_its_pause_wakes_it() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.read(&llama()).await;
    pass(secs(299)).await;
    setup.backend.fail_next(1, ErrorKind::Timeout);
    // Served, and a refresh that nobody waits for begins and fails.
    setup.read(&llama()).await;
    pass(Duration::from_millis(100)).await;
    assert_eq!(setup.backend.fetches(), 2);
    setup.collector.invalidate_cache(&ModelRef::new("other", "prod"));
    pass(Duration::from_millis(950)).await;
    let _ = setup.collector.collect_replica_metrics(&llama()).await;
    assert_eq!(setup.backend.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_joins_a_refresh_that_must_wait_for_long_learns_why_at_once() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    let failure = Failure { kind: ErrorKind::RateLimited, retry_after: Some(secs(25)) };
    setup.backend.fail_next(1, failure);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    let began = tokio::time::Instant::now();
    let error = setup.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::RateLimited);
    assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_joins_a_refresh_that_must_wait_for_a_moment_waits_with_it() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    let failure = Failure { kind: ErrorKind::RateLimited, retry_after: Some(secs(5)) };
    setup.backend.fail_next(1, failure);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    let began = tokio::time::Instant::now();
    setup.read(&llama()).await;
    assert!((secs(4)..secs(5)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(setup.backend.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_names_a_long_pause_is_left_in_peace_by_later_calls_too() {
    let setup = setup();
    setup.backend.fail(Failure { kind: ErrorKind::RateLimited, retry_after: Some(secs(60)) });
    for _ in 0..550 {
        let error = setup.collector.collect_replica_metrics(&llama()).await.unwrap_err();
        assert_eq!(kind(&error), ErrorKind::RateLimited);
        pass(Duration::from_millis(100)).await;
    }
    assert_eq!(setup.backend.fetches(), 1);
    setup.backend.restore();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    pass(secs(5)).await;
    setup.read(&llama()).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_joins_late_has_a_whole_call_before_them() {
    let setup = setup_with(|builder| {
        let config =
            CacheConfig { fetch_interval: secs(60), ttl: secs(90), ..CacheConfig::default() };
        variants(vec![variant("fast", &llama(), "*")])(builder).config(config)
    });
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.hang();
    setup.backend.fail_next(1, ErrorKind::ServerError);
    setup.collector.start_background_worker().await.unwrap();
    setup.backend.entered().await;
    pass(secs(20)).await;
    setup.backend.release();
    setup.backend.hang();
    // The refresh is in the pause after its first try.
    pass(Duration::from_millis(100)).await;
    let collector = Arc::clone(&setup.collector);
    let read = tokio::spawn(async move { collector.collect_replica_metrics(&llama()).await });
    pass(Duration::from_millis(50)).await;
    assert_eq!(setup.backend.asks()[1].time_left, secs(16));
    setup.backend.release();
    assert!(read.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_does_not_supersede_a_fetch_that_was_not_sent() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    let collector = Arc::clone(&setup.collector);
    let first = tokio::spawn(async move { collector.collect_replica_metrics(&llama()).await });
    tokio::task::yield_now().await;
    setup.collector.invalidate_cache(&llama());
    setup.read(&llama()).await;
    assert!(first.await.unwrap().is_ok());
    assert_eq!(setup.backend.fetches(), 1);
    assert_eq!(setup.collector.cache_size(), 1);
}

#[test]
fn a_runtime_that_ends_before_a_batch_is_sent_blocks_no_caller() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let first = runtime();
    let setup = first.block_on(async {
        let setup = setup();
        setup.backend.serve_pods(&llama(), &["llama-0"]);
        let model = llama();
        let read = setup.collector.collect_replica_metrics(&model);
        assert!(tokio::time::timeout(Duration::from_millis(1), read).await.is_err());
        setup
    });
    drop(first);
    runtime().block_on(async { setup.read(&llama()).await });
}

#[tokio::test(start_paused = true)]
async fn what_arrives_between_a_read_of_the_cache_and_the_fetch_is_not_fetched_again() {
    let cache = Arc::new(ScriptedCache::default());
    let setup = setup_with(|builder| builder.cache(Arc::clone(&cache) as _));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    let absent = ModelRef::new("absent", "prod");
    setup.read(&llama()).await;
    setup.collector.collect_replica_metrics(&absent).await.unwrap_err();
    assert_eq!(setup.backend.fetches(), 2);

    cache.misses.store(1, Ordering::SeqCst);
    assert_eq!(setup.read(&llama()).await.source(), Source::Cache);
    assert_eq!(cache.misses.swap(1, Ordering::SeqCst), 0, "it was there at once");
    let read = setup.collector.collect_replica_metrics(&absent).await;
    assert!(matches!(read, Err(CollectError::Missing { .. })), "{read:?}");
    assert_eq!(cache.misses.load(Ordering::SeqCst), 0, "it was there at once");
    assert_eq!(setup.backend.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_reads_once_waits_for_no_others() {
    let setup = setup_with(Builder::at_once);
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    let began = tokio::time::Instant::now();
    setup.read(&llama()).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}
