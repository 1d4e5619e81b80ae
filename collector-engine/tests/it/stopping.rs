// SPDX-License-Identifier: Apache-2.0
//! Stopping the background worker.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{MetricsCollector as _, ModelRef};

use crate::setup::{llama, pass, secs, setup, setup_with, variant, variants};

#[tokio::test(start_paused = true)]
async fn stopping_gives_up_what_nobody_waits_for_and_ends_the_tasks() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.hang();
    setup.collector.start_background_worker().await.unwrap();
    setup.backend.entered().await;
    let began = tokio::time::Instant::now();
    setup.collector.stop_background_worker().await;
    assert!(began.elapsed() < Duration::from_millis(10));
    assert_eq!(setup.backend.in_flight(), 0);
    setup.backend.release();
    // A miss after that is still answered, and the worker can be started again.
    setup.read(&llama()).await;
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(60)).await;
    assert!(setup.backend.fetches() >= 3);
}

#[tokio::test(start_paused = true)]
async fn stopping_answers_those_who_wait() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.backend.hang();
    let collector = Arc::clone(&setup.collector);
    let read = tokio::spawn(async move { collector.collect_replica_metrics(&llama()).await });
    setup.backend.entered().await;
    let collector = Arc::clone(&setup.collector);
    let stop = tokio::spawn(async move { collector.stop_background_worker().await });
    pass(secs(1)).await;
    assert!(!stop.is_finished());
    setup.backend.release();
    stop.await.unwrap();
    assert!(read.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_a_fetch_that_everybody_left() {
    let setup = setup();
    setup.collector.start_background_worker().await.unwrap();
    setup.backend.hang();
    let model = llama();
    let read = setup.collector.collect_replica_metrics(&model);
    assert!(tokio::time::timeout(secs(1), read).await.is_err());
    let began = tokio::time::Instant::now();
    setup.collector.stop_background_worker().await;
    assert!(began.elapsed() < secs(1));
    assert_eq!(setup.backend.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_while_others_go_on_reading() {
    let setup = setup();
    setup.collector.start_background_worker().await.unwrap();
    let collector = Arc::clone(&setup.collector);
    // A miss each 2 ms: there is always an open batch.
    let readers = tokio::spawn(async move {
        for n in 0_u64.. {
            let collector = Arc::clone(&collector);
            let model = ModelRef::new(format!("m-{n}"), "prod");
            tokio::spawn(async move { collector.collect_replica_metrics(&model).await.is_ok() });
            pass(Duration::from_millis(2)).await;
        }
    });
    pass(secs(1)).await;
    let stopped = tokio::time::timeout(secs(60), setup.collector.stop_background_worker()).await;
    readers.abort();
    assert!(stopped.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_collector_can_be_started_again_after_a_cancelled_stop() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.hang();
    setup.collector.start_background_worker().await.unwrap();
    let collector = Arc::clone(&setup.collector);
    let other = ModelRef::new("other", "prod");
    let waits = tokio::spawn(async move { collector.collect_replica_metrics(&other).await });
    setup.backend.entered().await;
    setup.backend.entered().await;
    let stop = setup.collector.stop_background_worker();
    assert!(tokio::time::timeout(secs(2), stop).await.is_err());
    setup.backend.release();
    assert!(waits.await.unwrap().is_err());
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(300)).await;
    assert!(setup.read(&llama()).await.age() <= secs(30));
}

#[tokio::test(start_paused = true)]
async fn stopping_gives_up_a_refresh_that_was_not_sent_yet() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.read(&llama()).await;
    pass(secs(31)).await;
    setup.backend.hang();
    // It starts a refresh, which waits a moment for others.
    setup.read(&llama()).await;
    let began = tokio::time::Instant::now();
    setup.collector.stop_background_worker().await;
    assert!(began.elapsed() < secs(1));
}
