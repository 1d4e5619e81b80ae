// SPDX-License-Identifier: Apache-2.0
//! Models that do not exist: remembered for `missing_ttl`, so that a misspelt name hammers no server.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{CollectError, Limits, MetricsCollector as _, ModelRef, Urgency};
use futures_util::future::join_all;

use crate::setup::{Setup, config, llama, pass, secs, setup, setup_with, variant, variants};

async fn is_missing(setup: &Setup, model: &ModelRef) {
    let read = setup.collector.collect_replica_metrics(model).await;
    assert!(matches!(read, Err(CollectError::Missing { .. })), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn five_hundred_typos_cost_a_few_batches_and_asked_again_nothing() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    let typos: Vec<_> = (0..500).map(|n| ModelRef::new(format!("typo-{n}"), "prod")).collect();
    for some in typos.chunks(25) {
        join_all(some.iter().map(|model| is_missing(&setup, model))).await;
    }
    assert_eq!(setup.backend.fetches(), 20);
    assert_eq!(setup.backend.list_calls(), 1, "what exists instead is asked once");
    for some in typos.chunks(25) {
        join_all(some.iter().map(|model| is_missing(&setup, model))).await;
    }
    assert_eq!((setup.backend.fetches(), setup.backend.list_calls()), (20, 1));
    // Nobody refreshes what nobody has ever seen.
    pass(secs(100)).await;
    assert_eq!(setup.backend.fetches(), 20);
    assert_eq!(setup.collector.state().tracked, 0);
}

#[tokio::test(start_paused = true)]
async fn a_typo_that_is_read_all_the_time_is_asked_for_once_a_missing_ttl() {
    let setup = setup();
    setup.collector.start_background_worker().await.unwrap();
    for _ in 0..600 {
        is_missing(&setup, &llama()).await;
        pass(Duration::from_millis(100)).await;
    }
    let asked = setup.backend.fetches();
    assert!((6..=7).contains(&asked), "{asked}");
    // It is found within a missing ttl of its appearance.
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    pass(secs(10)).await;
    setup.read(&llama()).await;
}

/// A variant is configured to be asked for each 10 s, and has no pods; what is missing, each minute.
fn setup_with_typo() -> Setup {
    let mut own = variant("typo", &llama(), "*");
    own.fetch_interval = Some(secs(10));
    setup_with(|builder| {
        let builder = config(|config| config.missing_ttl = secs(60))(builder);
        variants(vec![own])(builder)
    })
}

#[tokio::test(start_paused = true)]
async fn a_configured_model_that_is_missing_is_refreshed_once_a_missing_ttl() {
    let setup = setup_with_typo();
    setup.collector.start_background_worker().await.unwrap();
    for _ in 0..300 {
        pass(secs(1)).await;
        is_missing(&setup, &llama()).await;
    }
    let asks = setup.backend.asks();
    assert!((5..=6).contains(&asks.len()), "{}", asks.len());
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    pass(secs(61)).await;
    // From then on it has its own pace.
    let before = setup.backend.fetches();
    pass(secs(90)).await;
    assert!((9..=11).contains(&(setup.backend.fetches() - before)));
    assert!(setup.read(&llama()).await.age() < secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_missing_model_that_is_tracked_rides_along_and_causes_no_batch_of_its_own() {
    let other = ModelRef::new("typo", "prod");
    let specs = vec![variant("fast", &llama(), "*"), variant("typo", &other, "*")];
    let setup = setup_with(variants(specs));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(270)).await;
    let asks = setup.backend.asks();
    assert!((9..=11).contains(&asks.len()), "{}", asks.len());
    for ask in asks {
        assert_eq!((ask.models.len(), ask.urgency), (2, Urgency::Background));
    }
}

#[tokio::test(start_paused = true)]
async fn a_configured_model_that_is_missing_is_fetched_as_rarely_when_nobody_reads_it() {
    let setup = setup_with_typo();
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(300)).await;
    let asked = setup.backend.fetches();
    assert!((5..=6).contains(&asked), "{asked}");
    assert_eq!(setup.backend.list_calls(), 0, "nobody wants to know what exists instead");
}

#[tokio::test(start_paused = true)]
async fn what_exists_instead_is_not_waited_for_for_long() {
    let rate = Limits::default().with_rate(1, 1);
    let setup = setup_with(|builder| builder.limits(rate));
    let began = tokio::time::Instant::now();
    let typo = ModelRef::new("typo", "prod");
    let read = is_missing(&setup, &typo);
    // More than a second each, for many seconds: the question comes after eight of them.
    let others = async {
        for n in 0..20 {
            pass(Duration::from_millis(10)).await;
            let collector = Arc::clone(&setup.collector);
            let model = ModelRef::new(format!("m-{n}"), "prod");
            tokio::spawn(async move { collector.collect_replica_metrics(&model).await.is_ok() });
        }
    };
    tokio::join!(read, others);
    // A sixth of a call.
    assert!(began.elapsed() < secs(3), "{:?}", began.elapsed());
    assert_eq!(setup.backend.list_calls(), 1);
}
