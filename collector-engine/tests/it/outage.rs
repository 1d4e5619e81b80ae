// SPDX-License-Identifier: Apache-2.0
//! A backend that goes away and comes back; a model that does.

use std::time::Duration;

use collector_core::{
    BreakerState, CollectError, ErrorKind, Freshness, MetricsCollector as _, ModelRef, Source,
};

use crate::setup::{config, llama, pass, secs, setup, setup_with, variant, variants};

#[tokio::test(start_paused = true)]
async fn through_an_outage_the_last_good_value_ages_until_it_is_unavailable() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    setup.backend.fail(ErrorKind::Connect);
    let mut seen = Vec::new();
    for second in 1..=320 {
        pass(secs(1)).await;
        let status = match setup.collector.collect_replica_metrics(&llama()).await {
            Ok(reading) => {
                assert!(reading.age().abs_diff(secs(second)) <= secs(1), "{:?}", reading.age());
                reading.freshness()
            }
            Err(CollectError::Unavailable { cause, .. }) => {
                assert_eq!(cause.unwrap().kind(), ErrorKind::Connect);
                Freshness::Unavailable
            }
            Err(error) => panic!("{error}"),
        };
        if seen.last() != Some(&status) {
            seen.push(status);
        }
    }
    assert_eq!(seen, [Freshness::Fresh, Freshness::Stale, Freshness::Unavailable]);
    setup.backend.restore();
    pass(secs(30)).await;
    assert_eq!(setup.read(&llama()).await.freshness(), Freshness::Fresh);
}

#[tokio::test(start_paused = true)]
async fn while_refreshes_fail_a_value_is_last_known_good() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    setup.backend.fail(ErrorKind::Unauthorized);
    pass(secs(40)).await;
    let reading = setup.read(&llama()).await;
    assert_eq!((reading.source(), reading.age()), (Source::LastKnownGood, secs(40)));
    let state = setup.collector.state();
    assert_eq!(state.backends[0].last_error.as_ref().unwrap().kind(), ErrorKind::Unauthorized);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_vanishes_is_not_fresh_and_then_missing() {
    let setup = setup_with(config(|config| config.freshness.fresh_threshold = secs(110)));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    setup.backend.remove(&llama());
    pass(secs(60)).await;
    let reading = setup.read(&llama()).await;
    // Young enough to be fresh, had the backend not said that there is nothing.
    assert_eq!((reading.age(), reading.freshness()), (secs(60), Freshness::Stale));
    assert_eq!(reading.source(), Source::LastKnownGood);
    pass(secs(240)).await;
    let error = setup.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    assert!(matches!(error, CollectError::Missing { .. }), "{error}");
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    pass(secs(30)).await;
    assert_eq!(setup.read(&llama()).await.freshness(), Freshness::Fresh);
}

#[tokio::test(start_paused = true)]
async fn nothing_cached_and_the_backend_down_is_the_backends_error() {
    let setup = setup();
    setup.backend.fail(ErrorKind::Dns);
    let error = setup.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    assert_eq!(error.reason_name(), "FakeError");
    assert!(setup.collector.tracked().is_empty());
    assert_eq!(setup.collector.cache_size(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_configured_model_says_when_it_was_last_seen_however_long_ago_that_is() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    setup.backend.fail(ErrorKind::Connect);
    // Longer than anybody would remember a model that is merely read now and then.
    pass(secs(1000)).await;
    let tracked = setup.collector.tracked();
    let Err(CollectError::Unavailable { age, cause, .. }) = &tracked[0].replicas else {
        panic!("{:?}", tracked[0].replicas)
    };
    assert!(age.abs_diff(secs(1000)) <= secs(30), "{age:?}");
    assert_eq!(cause.as_ref().unwrap().kind(), ErrorKind::Connect);
}

#[tokio::test(start_paused = true)]
async fn while_the_backend_hangs_a_value_that_is_too_old_says_how_old() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.read(&llama()).await;
    setup.backend.hang();
    pass(secs(301)).await;
    let error = setup.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    let CollectError::Unavailable { age, cause: Some(cause), .. } = error else {
        panic!("{error}")
    };
    assert_eq!(age, secs(301 + 16));
    assert_eq!(cause.kind(), ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_every_second_fetch_opens_the_circuit_and_values_are_still_served() {
    // No interval of the background: each fetch is one that this test causes.
    let setup = setup_with(config(|config| config.fetch_interval = Duration::ZERO));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.read(&llama()).await;
    let mut opened = false;
    for n in 0..6 {
        let other = ModelRef::new(format!("m-{n}"), "prod");
        setup.backend.serve_pods(&other, &["pod-0"]);
        // Permanent, so that each is one fetch.
        setup.backend.fail_next(1 - n % 2, ErrorKind::Unauthorized);
        let _ = setup.collector.collect_replica_metrics(&other).await;
        opened |= setup.collector.state().backends[0].breaker == BreakerState::Open;
        pass(Duration::from_millis(100)).await;
    }
    assert!(opened);
    let asked = setup.backend.fetches();
    pass(secs(40)).await;
    setup.backend.fail(ErrorKind::Connect);
    for _ in 0..200 {
        let reading = setup.read(&llama()).await;
        assert_eq!(reading.source(), Source::LastKnownGood);
        pass(secs(1) / 20).await;
    }
    assert!(setup.backend.fetches() - asked <= 8, "{}", setup.backend.fetches() - asked);
    let state = setup.collector.state().backends[0].clone();
    assert!(state.open_for.is_some(), "{state:?}");
    // One answer and it is as before.
    setup.backend.restore();
    pass(secs(10)).await;
    setup.read(&llama()).await;
    pass(secs(1)).await;
    let state = setup.collector.state().backends[0].clone();
    assert_eq!((state.breaker, state.open_for), (BreakerState::Closed, None));
    assert_eq!((state.recent_looks, state.recent_failures), (1, 0));
    assert_eq!(setup.read(&llama()).await.source(), Source::Cache);
}

#[tokio::test(start_paused = true)]
async fn reads_in_an_outage_are_stale_serves_and_no_hits() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.read(&llama()).await;
    setup.backend.fail(ErrorKind::Unauthorized);
    pass(secs(60)).await;
    for _ in 0..100 {
        assert_eq!(setup.read(&llama()).await.source(), Source::LastKnownGood);
        pass(secs(1) / 10).await;
    }
    let state = setup.collector.state();
    assert_eq!((state.hits, state.stale_serves), (0, 100));
}

#[tokio::test(start_paused = true)]
async fn a_configured_model_that_was_never_seen_says_why() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.fail(ErrorKind::Unauthorized);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    let tracked = setup.collector.tracked();
    let Err(CollectError::Backend(cause)) = &tracked[0].replicas else {
        panic!("{:?}", tracked[0].replicas)
    };
    assert_eq!(cause.kind(), ErrorKind::Unauthorized);
}

#[tokio::test(start_paused = true)]
async fn a_dead_backend_is_tried_again_within_half_of_a_short_interval() {
    let setup = setup_with(config(|config| config.fetch_interval = secs(6)));
    setup.backend.fail(ErrorKind::Connect);
    let mut longest = Duration::ZERO;
    for _ in 0..600 {
        assert!(setup.collector.collect_replica_metrics(&llama()).await.is_err());
        let retry_in = setup.collector.state().backends[0].retry_in;
        longest = longest.max(retry_in.unwrap_or_default());
        pass(secs(1) / 10).await;
    }
    assert!((secs(2)..=secs(3)).contains(&longest), "{longest:?}");
}
