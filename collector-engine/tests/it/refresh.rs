// SPDX-License-Identifier: Apache-2.0
//! The background refresh: when it comes, and what it asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Absent, ErrorKind, IntervalError, LoadRates, LoadRows, MetricsCollector as _, ModelRef,
    ModelSample, PaceReason, ReplicaMetrics, Source, Urgency,
};
use collector_engine::CachingCollector;

use crate::setup::{Setup, config, llama, pass, secs, setup, setup_with, variant, variants};

#[tokio::test(start_paused = true)]
async fn what_is_tracked_is_refreshed_ahead_of_expiry_in_one_batch() {
    let setup = setup();
    let models: Vec<ModelRef> = (0..300).map(|n| ModelRef::new(format!("m-{n}"), "prod")).collect();
    for model in &models {
        setup.backend.serve_pods(model, &["pod-0"]);
    }
    futures_util::future::join_all(models.iter().map(|model| setup.read(model))).await;
    setup.collector.start_background_worker().await.unwrap();
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
    setup.collector.start_background_worker().await.unwrap();
    for _ in 0..200 {
        setup.collector.invalidate_cache(&llama());
        setup.read(&llama()).await;
        pass(secs(1)).await;
    }
    let asks = setup.backend.asks();
    assert!(asks.iter().all(|ask| ask.urgency == Urgency::Waiting));
}

#[tokio::test(start_paused = true)]
async fn a_long_ttl_does_not_slow_the_refresh() {
    let setup = setup_with(config(|config| config.ttl = secs(240)));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    for _ in 0..300 {
        assert!(setup.read(&llama()).await.age() <= secs(30));
        pass(secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn configured_variants_are_refreshed_before_anybody_reads_them() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    assert_eq!((setup.backend.fetches(), setup.collector.state().cycles), (1, 1));
    assert_eq!(setup.read(&llama()).await.source(), Source::Cache);
    let allocation = setup.collector.collect_allocation(&llama(), &"fast".into()).await.unwrap();
    assert_eq!(allocation.source(), Source::Cache);
    // One variant has all pods of the model: its load need not be split by pod.
    assert!(setup.backend.asks()[0].load_per_pod.is_empty());
    assert_eq!(allocation.value().load.arrival_rate, Some(30.0));
}

#[tokio::test(start_paused = true)]
async fn load_is_asked_per_pod_where_a_model_is_shared() {
    let specs = vec![variant("a", &llama(), "a-*"), variant("b", &llama(), "b-*")];
    let setup = setup_with(variants(specs));
    setup.backend.serve_pods(&llama(), &["a-0", "b-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    assert!(setup.backend.asks()[0].load_per_pod.contains(&llama()));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_interval_of_zero_refreshes_nothing() {
    let setup = setup_with(config(|config| config.fetch_interval = Duration::ZERO));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    pass(secs(200)).await;
    assert_eq!(setup.backend.fetches(), 1);
}

/// The greatest age of a model's reading, read at each second.
async fn oldest_age(setup: &Setup, model: &ModelRef, seconds: u64) -> Duration {
    let mut oldest = Duration::ZERO;
    for _ in 0..seconds {
        pass(secs(1)).await;
        oldest = oldest.max(setup.read(model).await.age());
    }
    oldest
}

#[tokio::test(start_paused = true)]
async fn a_variant_with_an_interval_of_its_own_is_refreshed_so_and_the_others_as_ever() {
    let (fast, slow) = (llama(), ModelRef::new("slow", "prod"));
    let mut own = variant("fast", &fast, "*");
    own.fetch_interval = Some(secs(10));
    // The shortest of a model's variants counts.
    let mut longer = variant("other", &fast, "x-*");
    longer.fetch_interval = Some(secs(20));
    let setup = setup_with(variants(vec![longer, own, variant("slow", &slow, "*")]));
    setup.backend.serve_pods(&fast, &["fast-0"]);
    setup.backend.serve_pods(&slow, &["slow-0"]);
    setup.collector.start_background_worker().await.unwrap();
    let oldest = oldest_age(&setup, &fast, 270).await;
    assert!(oldest < secs(10), "{oldest:?}");
    let asks = setup.backend.asks();
    // Reads in between have started none of their own, and the slow model caused none.
    assert!(asks.iter().all(|ask| ask.urgency == Urgency::Background));
    assert!((28..=33).contains(&asks.len()), "{}", asks.len());
    let with_slow = asks.iter().filter(|ask| ask.models.contains(&slow)).count();
    assert!((9..=12).contains(&with_slow), "{with_slow}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_sets_the_interval_of_a_model_and_takes_it_back() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    pass(secs(15)).await;
    assert_eq!(setup.backend.fetches(), 1);
    setup.collector.set_fetch_interval(&llama(), Some(secs(6))).unwrap();
    // It is overdue by that, and fetched now and not at the end of the former interval.
    pass(secs(1)).await;
    assert_eq!(setup.backend.fetches(), 2);
    let oldest = oldest_age(&setup, &llama(), 60).await;
    assert!(oldest < secs(6), "{oldest:?}");
    setup.collector.set_fetch_interval(&llama(), None).unwrap();
    let before = setup.backend.fetches();
    pass(secs(270)).await;
    let cycles = setup.backend.fetches() - before;
    assert!((9..=11).contains(&cycles), "{cycles}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_slows_a_model_down_and_its_reads_start_no_refresh() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.set_fetch_interval(&llama(), Some(secs(120))).unwrap();
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    let oldest = oldest_age(&setup, &llama(), 500).await;
    assert!((secs(102)..secs(120)).contains(&oldest), "{oldest:?}");
    assert!((5..=6).contains(&setup.backend.fetches()), "{}", setup.backend.fetches());
}

#[tokio::test(start_paused = true)]
async fn an_interval_of_its_own_is_refreshed_where_nothing_else_is() {
    let setup = setup_with(config(|config| config.fetch_interval = Duration::ZERO));
    let other = ModelRef::new("other", "prod");
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.serve_pods(&other, &["other-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    setup.read(&other).await;
    pass(secs(60)).await;
    setup.collector.set_fetch_interval(&llama(), Some(secs(10))).unwrap();
    pass(secs(95)).await;
    let background = setup.backend.asks().split_off(2);
    assert!((10..=12).contains(&background.len()), "{}", background.len());
    assert!(background.iter().all(|ask| ask.models == [llama()]));
}

#[tokio::test(start_paused = true)]
async fn an_interval_that_cannot_work_is_refused() {
    let setup = setup_with(|builder| builder.max_tracked(1));
    let set = |model: &str, seconds| {
        let model = ModelRef::new(model, "prod");
        setup.collector.set_fetch_interval(&model, Some(secs(seconds)))
    };
    let (timeout, unavailable_threshold) = (secs(5), secs(300));
    for (seconds, error) in [
        (0, IntervalError::TooShort { interval: secs(0), timeout }),
        (5, IntervalError::TooShort { interval: secs(5), timeout }),
        (300, IntervalError::TooLong { interval: secs(300), unavailable_threshold }),
    ] {
        assert_eq!(set("a", seconds), Err(error));
    }
    assert_eq!(set("a", 6), Ok(()));
    assert_eq!(set("b", 299), Err(IntervalError::TooMany { limit: 1 }));
    assert_eq!(set("a", 299), Ok(()));

    let mut own = variant("v", &llama(), "*");
    own.fetch_interval = Some(secs(5));
    let backend = Arc::new(setup.backend.clone());
    let builder = variants(vec![own])(CachingCollector::builder(backend));
    let errors = builder.build().err().unwrap().to_string();
    assert!(errors.contains("variant \"v\": a fetch interval of 5s is too short"), "{errors}");
}

#[tokio::test(start_paused = true)]
async fn a_cycle_that_overruns_its_interval_is_followed_by_a_pause_and_counted() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.hang();
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(170)).await;
    // A fetch is given up after an interval; the one that was due meanwhile is left out.
    let times: Vec<_> = setup.backend.asks().iter().map(|ask| ask.at).collect();
    assert!(setup.backend.in_flight() <= 1, "never two at once");
    assert!(times.len() >= 3, "{times:?}");
    for pair in times.windows(2) {
        let apart = pair[0].age(pair[1]);
        assert!((secs(51)..=secs(57)).contains(&apart), "{apart:?}");
    }
    let state = setup.collector.state();
    assert!(state.backends[0].skipped_cycles >= 2, "{}", state.backends[0].skipped_cycles);
}

#[tokio::test(start_paused = true)]
async fn a_background_refresh_backs_off_from_a_second() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.fail_next(2, ErrorKind::ServerError);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(10)).await;
    let times: Vec<_> = setup.backend.asks().iter().map(|ask| ask.at).collect();
    assert_eq!(times.len(), 3);
    let pause = |n: usize| times[n].age(times[n + 1]);
    assert!((Duration::from_millis(500)..=secs(1)).contains(&pause(0)), "{:?}", pause(0));
    assert!((secs(1)..=secs(2)).contains(&pause(1)), "{:?}", pause(1));
}

/// Serves a model whose KV-cache usage follows from the seconds that have passed.
fn serve_usage(
    setup: &Setup,
    model: &ModelRef,
    usage: impl Fn(f64) -> f64 + Send + Sync + 'static,
) {
    let start = setup.clock.now();
    setup.backend.serve(model, move |as_of| {
        let mut replica = ReplicaMetrics::new("pod-0", as_of);
        replica.kv_cache_usage = Some(usage(start.age(as_of).as_secs_f64()));
        ModelSample::new(as_of, vec![replica])
    });
}

/// How often each model was fetched since this ask.
fn fetches(setup: &Setup, since: usize) -> HashMap<String, usize> {
    let mut fetches = HashMap::new();
    for ask in &setup.backend.asks()[since..] {
        for model in &ask.models {
            *fetches.entry(model.model.to_string()).or_default() += 1;
        }
    }
    fetches
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_ttl_moves_fetches_from_idle_models_to_the_one_that_changes() {
    let setup = setup_with(config(|config| config.adaptive.enabled = true));
    let idle: Vec<ModelRef> = (0..3).map(|n| ModelRef::new(format!("idle-{n}"), "prod")).collect();
    for model in &idle {
        serve_usage(&setup, model, |_| 0.3);
    }
    // Up by a point in 3 s, again and again.
    serve_usage(&setup, &llama(), |seconds| seconds % 300.0 / 300.0);
    let models: Vec<ModelRef> = idle.iter().cloned().chain([llama()]).collect();
    for model in &models {
        setup.read(model).await;
    }
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(600)).await;
    let since = setup.backend.fetches();
    for _ in 0..1800 {
        for model in &models {
            setup.read(model).await;
        }
        pass(secs(1)).await;
    }

    let fetches = fetches(&setup, since);
    // 1800 s at 27 s a fetch are 67 for each, 267 in all.
    assert!(fetches.values().sum::<usize>() <= 270, "{fetches:?}");
    assert!((115..=145).contains(&fetches["llama"]), "{fetches:?}");
    assert!((30..=40).contains(&fetches["idle-0"]), "{fetches:?}");
    let pace = setup.collector.pace(&llama());
    assert_eq!(pace.ttl, secs(15));
    let PaceReason::Moves { field: "kvCacheUsage", per_minute } = pace.reason else {
        panic!("{pace:?}")
    };
    assert!((0.1..1.0).contains(&per_minute), "{per_minute}");
    let pace = setup.collector.pace(&idle[0]);
    assert_eq!((pace.ttl, pace.reason), (secs(60), PaceReason::Still));
}

#[tokio::test(start_paused = true)]
async fn a_model_with_an_interval_of_its_own_does_not_adapt_and_one_no_longer_tracked_is_forgotten()
{
    let setup = setup_with(config(|config| config.adaptive.enabled = true));
    let own = ModelRef::new("own", "prod");
    for model in [&llama(), &own] {
        serve_usage(&setup, model, |_| 0.3);
    }
    setup.collector.set_fetch_interval(&own, Some(secs(20))).unwrap();
    setup.collector.start_background_worker().await.unwrap();
    for _ in 0..400 {
        for model in [&llama(), &own] {
            setup.read(model).await;
        }
        pass(secs(1)).await;
    }
    let pace = |model: &ModelRef| setup.collector.pace(model);
    assert_eq!((pace(&own).ttl, pace(&own).reason), (secs(20), PaceReason::Own));
    assert_eq!((pace(&llama()).ttl, pace(&llama()).reason), (secs(60), PaceReason::Still));

    // Five minutes without a read, the sweep, and the next fetch at what adapts.
    pass(secs(400)).await;
    assert_eq!(pace(&llama()).reason, PaceReason::Configured);
}

#[tokio::test(start_paused = true)]
async fn a_ttl_adapts_to_what_arrives_and_to_whole_answers_alone_and_a_missing_model_is_watched() {
    let setup = setup_with(config(|config| config.adaptive.enabled = true));
    let part = ModelRef::new("part", "prod");
    let start = setup.clock.now();
    setup.backend.serve(&llama(), move |as_of| {
        let mut sample = ModelSample::new(as_of, vec![ReplicaMetrics::new("pod-0", as_of)]);
        let requests = 100.0 + start.age(as_of).as_secs_f64();
        sample.load = LoadRows::Model(LoadRates::default().with_requests(requests).into());
        sample
    });
    setup.backend.serve(&part, |as_of| {
        let mut sample = ModelSample::new(as_of, vec![ReplicaMetrics::new("pod-0", as_of)]);
        sample.absent = Absent::Unknown(None);
        sample
    });
    setup.collector.start_background_worker().await.unwrap();
    for _ in 0..300 {
        setup.read(&llama()).await;
        setup.read(&part).await;
        pass(secs(1)).await;
    }
    let reason = |model: &ModelRef| setup.collector.pace(model).reason;
    let moves = reason(&llama());
    assert!(matches!(moves, PaceReason::Moves { field: "arrivalRatePerMinute", .. }), "{moves:?}");
    assert_eq!(reason(&part), PaceReason::Configured);
    setup.backend.remove(&llama());
    pass(secs(61)).await;
    assert_eq!(reason(&llama()), PaceReason::Watched);
}

#[tokio::test(start_paused = true)]
async fn ttls_do_not_adapt_by_default() {
    let setup = setup();
    serve_usage(&setup, &llama(), |_| 0.3);
    setup.read(&llama()).await;
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(250)).await;
    let pace = setup.collector.pace(&llama());
    assert_eq!((pace.ttl, pace.reason), (secs(30), PaceReason::Configured));
    assert_eq!(pace.reason.to_string(), "cache.ttl");
}

#[tokio::test(start_paused = true)]
async fn load_is_split_by_pod_only_where_a_variant_has_some_of_a_models_pods() {
    let shared = ModelRef::new("shared", "prod");
    let setup = setup_with(variants(vec![variant("v", &shared, "v-*")]));
    setup.backend.serve_pods(&shared, &["v-0", "stray"]);
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    pass(secs(60)).await;
    let last = setup.backend.asks().pop().unwrap();
    assert_eq!((last.models.len(), last.urgency), (2, Urgency::Background));
    assert_eq!(last.load_per_pod, [shared].into());
}

#[tokio::test(start_paused = true)]
async fn refreshes_that_were_answered_are_counted_and_reads_are_not() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    let count = || {
        let state = setup.collector.state();
        (state.background_refreshes, state.cycles)
    };
    setup.read(&llama()).await;
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    // Nothing was due: the tracked models have been checked all the same.
    assert_eq!(count(), (0, 1));
    pass(secs(60)).await;
    assert_eq!(count(), (2, 3));
    setup.backend.fail(ErrorKind::Unauthorized);
    pass(secs(27)).await;
    assert_eq!(count(), (2, 4));
}
