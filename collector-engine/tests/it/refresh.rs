//! The background refresh: when it comes, and what it asks.

use std::time::Duration;

use collector_core::{ErrorKind, MetricsCollector as _, ModelRef, Source, Urgency};

use crate::setup::{config, llama, pass, secs, setup, setup_with, variant, variants};

#[tokio::test(start_paused = true)]
async fn what_is_tracked_is_refreshed_ahead_of_expiry_in_one_batch() {
    let setup = setup();
    let models: Vec<ModelRef> = (0..300).map(|n| ModelRef::new(format!("m-{n}"), "prod")).collect();
    for model in &models {
        setup.backend.serve_pods(model, &["pod-0"]);
    }
    futures_util::future::join_all(models.iter().map(|model| setup.read(model))).await;
    setup.collector.start_background_worker();
    for _ in 0..200 {
        pass(secs(1)).await;
        assert_eq!(setup.read(&models[7]).await.source(), Source::Cache);
    }
    let refreshes = setup.backend.asks().split_off(1);
    // 200 s at 25.5 to 28.5 s a cycle; the first cycle found everything just fetched.
    assert!((6..=7).contains(&refreshes.len()), "{}", refreshes.len());
    for ask in &refreshes {
        assert_eq!((ask.models.len(), ask.urgency), (300, Urgency::Background));
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_a_read_has_just_fetched_is_not_fetched_again() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker();
    for _ in 0..200 {
        setup.collector.invalidate_cache(&llama());
        setup.read(&llama()).await;
        pass(secs(1)).await;
    }
    let asks = setup.backend.asks();
    assert!(asks.iter().all(|ask| ask.urgency == Urgency::Waiting));
}

#[tokio::test(start_paused = true)]
async fn a_long_ttl_does_not_make_the_refresh_seldom() {
    let setup = setup_with(config(|config| config.ttl = secs(240)));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker();
    for _ in 0..300 {
        assert!(setup.read(&llama()).await.age() <= secs(30));
        pass(secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn configured_variants_are_refreshed_before_anybody_reads_them() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker();
    pass(secs(1)).await;
    assert_eq!((setup.backend.fetches(), setup.collector.state().cycles), (1, 1));
    assert_eq!(setup.read(&llama()).await.source(), Source::Cache);
    let allocation = setup.collector.collect_allocation(&llama(), &"fast".into()).await.unwrap();
    assert_eq!(allocation.source(), Source::Cache);
    // One variant has all pods of the model: its load need not be told apart by pod.
    assert!(setup.backend.asks()[0].load_per_pod.is_empty());
    assert_eq!(allocation.value().load.arrival_rate, Some(30.0));
}

#[tokio::test(start_paused = true)]
async fn load_is_asked_per_pod_where_a_model_is_shared() {
    let specs = vec![variant("a", &llama(), "a-*"), variant("b", &llama(), "b-*")];
    let setup = setup_with(variants(specs));
    setup.backend.serve_pods(&llama(), &["a-0", "b-0"]);
    setup.collector.start_background_worker();
    pass(secs(1)).await;
    assert!(setup.backend.asks()[0].load_per_pod.contains(&llama()));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_interval_of_zero_refreshes_nothing() {
    let setup = setup_with(config(|config| config.fetch_interval = Duration::ZERO));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker();
    setup.read(&llama()).await;
    pass(secs(200)).await;
    assert_eq!(setup.backend.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_background_refresh_backs_off_from_a_second() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.fail_next(2, ErrorKind::ServerError);
    setup.collector.start_background_worker();
    pass(secs(10)).await;
    let times: Vec<_> = setup.backend.asks().iter().map(|ask| ask.at).collect();
    assert_eq!(times.len(), 3);
    let pause = |n: usize| times[n].age(times[n + 1]);
    assert!((Duration::from_millis(500)..=secs(1)).contains(&pause(0)), "{:?}", pause(0));
    assert!((secs(1)..=secs(2)).contains(&pause(1)), "{:?}", pause(1));
}
