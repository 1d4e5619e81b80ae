// SPDX-License-Identifier: Apache-2.0
//! Two backends as one.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Absent, BreakerState, Clock, CollectError, ErrorKind, Field, LoadRates, LoadRows,
    MetricsCollector as _, ModelRef, ModelSample, ReplicaMetrics, Source, Tick,
};
use collector_engine::{Builder, CachingCollector};
use collector_testkit::{FakeBackend, TokioClock};

use crate::setup::{config, llama, pass, secs, variant, variants};

pub(crate) struct Both {
    /// Preferred, and pushes.
    pub(crate) pods: FakeBackend,
    pub(crate) server: FakeBackend,
    pub(crate) collector: Arc<CachingCollector>,
}

pub(crate) fn both() -> Both {
    both_with(|builder| builder)
}

pub(crate) fn both_with(change: impl FnOnce(Builder) -> Builder) -> Both {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let pods = FakeBackend::new(Arc::clone(&clock)).named("pods").pushing();
    let server = FakeBackend::new(Arc::clone(&clock)).named("server");
    let builder = CachingCollector::builder(Arc::new(pods.clone()))
        .also(Arc::new(server.clone()))
        .clock(clock);
    let collector = Arc::new(change(builder).build().unwrap());
    Both { pods, server, collector }
}

/// A sample of pods that say so many requests wait, and of fields that only some backends have.
pub(crate) fn sample(as_of: Tick, pods: &[&str], waiting: u64, hits: Option<f64>) -> ModelSample {
    let row = |pod: &&str| {
        let mut row = ReplicaMetrics::new(*pod, as_of);
        row.queue_length = Some(waiting);
        row.prefix_cache_hit_rate = hits;
        row
    };
    ModelSample::new(as_of, pods.iter().map(row).collect())
}

fn load(requests: f64, itl: Option<f64>) -> LoadRows {
    let rates = LoadRates::default().with_requests(requests);
    LoadRows::Model(rates.with_itl(itl, itl.map(|_| 1.0)).into())
}

#[tokio::test(start_paused = true)]
async fn the_preferred_backend_supplies_a_field_and_the_other_fills_what_is_missing() {
    let both = both();
    both.pods.serve(&llama(), |as_of| sample(as_of, &["a", "b"], 7, None));
    both.server.serve(&llama(), |as_of| {
        let mut old = sample(as_of - secs(12), &["a", "b"], 3, Some(0.5));
        old.as_of = as_of;
        old
    });
    let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
    let replicas = reading.value();
    assert_eq!((replicas.backend.as_str(), replicas.replicas.len()), ("pods", 2));
    assert_eq!((reading.source(), reading.age()), (Source::Backend, Duration::ZERO));
    for row in &replicas.replicas {
        assert_eq!((row.queue_length, row.prefix_cache_hit_rate), (Some(7), Some(0.5)));
        assert_eq!(row.marks.len(), 1, "{:?}", row.marks);
        assert_eq!(row.marks[0].field, Field::PrefixCacheHitRate);
        assert_eq!(row.marks[0].backend.as_str(), "server");
        assert_eq!(reading.age_of(row.marks[0].sampled_at), secs(12));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_preferred_backend_has_no_longer_fresh_comes_from_the_other() {
    let both = both();
    both.pods.serve(&llama(), |as_of| sample(as_of, &["a"], 7, None));
    both.server.serve(&llama(), |as_of| sample(as_of, &["a"], 3, None));
    both.collector.start_background_worker().await.unwrap();
    both.collector.collect_replica_metrics(&llama()).await.unwrap();
    pass(secs(59)).await;
    // Nothing was pushed meanwhile: seven is still fresh, and preferred.
    let read = || async {
        let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
        let row = reading.value().replicas[0].clone();
        (reading.value().backend.to_string(), row.queue_length)
    };
    both.pods.hang();
    assert_eq!(read().await, ("pods".to_owned(), Some(7)));
    pass(secs(30)).await;
    assert_eq!(read().await, ("server".to_owned(), Some(3)));
    both.pods.push_tracked();
    assert_eq!(read().await, ("pods".to_owned(), Some(7)));
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_answered_with_what_each_backend_said_last() {
    let both = both();
    both.pods.serve(&llama(), |as_of| sample(as_of, &["a"], 7, None));
    both.server.serve(&llama(), |as_of| sample(as_of, &["a"], 3, None));
    both.collector.collect_replica_metrics(&llama()).await.unwrap();
    // What both said then is too old to be used. The preferred one answers last.
    pass(secs(300)).await;
    both.pods.hang();
    let collector = Arc::clone(&both.collector);
    let read = tokio::spawn(async move { collector.collect_replica_metrics(&llama()).await });
    pass(Duration::from_millis(100)).await;
    assert_eq!((both.server.in_flight(), both.pods.in_flight()), (0, 1));
    both.pods.release();
    let reading = read.await.unwrap().unwrap();
    assert_eq!(reading.value().backend.as_str(), "pods");
    assert_eq!(reading.value().replicas[0].queue_length, Some(7));
}

#[tokio::test(start_paused = true)]
async fn when_one_backend_fails_the_other_is_used() {
    let both = both();
    both.pods.serve(&llama(), |as_of| sample(as_of, &["a"], 7, None));
    both.server.serve(&llama(), |as_of| sample(as_of, &["a"], 3, None));
    both.server.fail(ErrorKind::Connect);
    let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(reading.value().replicas[0].queue_length, Some(7));

    both.server.restore();
    both.pods.fail(ErrorKind::Connect);
    both.collector.invalidate_cache(&llama());
    pass(secs(11)).await;
    let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(reading.value().replicas[0].queue_length, Some(3));
    assert_eq!(reading.value().backend.as_str(), "server");
    let states = both.collector.state().backends;
    assert_eq!((states[0].breaker, states[1].breaker), (BreakerState::Open, BreakerState::Closed));
}

#[tokio::test(start_paused = true)]
async fn newer_values_replace_those_of_a_backend_whose_last_fetch_failed() {
    let both = both_with(variants(vec![variant("v", &llama(), "*")]));
    both.pods.serve(&llama(), |as_of| sample(as_of, &["a"], 7, None));
    both.server.serve(&llama(), |as_of| sample(as_of, &["a"], 3, None));
    both.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    both.pods.push_tracked();
    both.pods.fail_model(&llama(), ErrorKind::Timeout);
    pass(secs(1)).await;
    both.pods.push_tracked();
    let queue =
        || both.collector.tracked()[0].replicas.as_ref().unwrap().value().replicas[0].queue_length;
    assert_eq!(queue(), Some(7), "the newest there is");
    pass(secs(30)).await;
    assert_eq!(queue(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_hangs_is_waited_for_a_moment_and_no_longer() {
    let both = both();
    both.pods.serve_pods(&llama(), &["a"]);
    both.server.serve_pods(&llama(), &["a", "b"]);
    both.server.hang();
    let began = tokio::time::Instant::now();
    let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(reading.value().replicas.len(), 1);
    assert!(began.elapsed() <= Duration::from_millis(1100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_preferred_backend_that_takes_its_time_is_waited_for() {
    let both = both();
    both.pods.serve(&llama(), |as_of| sample(as_of, &["a"], 7, None));
    both.server.serve(&llama(), |as_of| sample(as_of, &["a"], 3, None));
    both.pods.hang();
    let collector = Arc::clone(&both.collector);
    let read = tokio::spawn(async move { collector.collect_replica_metrics(&llama()).await });
    // Two pages an interval apart, for example.
    pass(Duration::from_millis(2500)).await;
    assert!(!read.is_finished());
    both.pods.release();
    let reading = read.await.unwrap().unwrap();
    assert_eq!(reading.value().backend.as_str(), "pods");

    // And for no longer than one of its requests may take, and a second.
    both.pods.hang();
    both.collector.invalidate_cache(&llama());
    let began = tokio::time::Instant::now();
    let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(reading.value().backend.as_str(), "server");
    assert!((secs(6)..secs(7)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn missing_takes_the_word_of_every_backend() {
    let both = both();
    let model = llama();
    let read = || both.collector.collect_replica_metrics(&model);
    assert!(matches!(read().await, Err(CollectError::Missing { .. })));
    both.collector.invalidate_cache(&llama());

    both.pods.fail_model(&llama(), ErrorKind::Timeout);
    let Err(CollectError::Backend(error)) = read().await else { panic!() };
    assert_eq!((error.backend().as_str(), error.kind()), ("pods", ErrorKind::Timeout));
    both.collector.invalidate_cache(&llama());
    pass(secs(10)).await;

    both.pods.hang();
    let Err(CollectError::Backend(error)) = read().await else { panic!() };
    assert_eq!(error.backend().as_str(), "pods");
    both.pods.release();
    both.collector.invalidate_cache(&llama());
    pass(secs(30)).await;

    both.server.serve_pods(&llama(), &["a"]);
    assert!(read().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_model_that_one_backend_no_longer_has_is_the_others() {
    let both = both();
    both.pods.serve(&llama(), |as_of| sample(as_of, &["a"], 7, None));
    both.server.serve(&llama(), |as_of| sample(as_of, &["a"], 3, None));
    both.collector.start_background_worker().await.unwrap();
    both.collector.collect_replica_metrics(&llama()).await.unwrap();
    both.pods.remove(&llama());
    pass(secs(1)).await;
    both.pods.push_tracked();
    let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(reading.value().backend.as_str(), "server");
    assert_eq!(reading.value().replicas[0].queue_length, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_one_backend_saw_terminate_does_not_return_from_an_older_answer_of_the_other() {
    let both = both();
    both.pods.serve_pods(&llama(), &["a", "b"]);
    both.server.serve_pods(&llama(), &["a", "b", "c"]);
    both.collector.start_background_worker().await.unwrap();
    let pods = || async {
        let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
        let rows = reading.value().replicas.iter();
        let rows = rows.map(|row| (row.pod_name.to_string(), row.marks.len()));
        rows.collect::<Vec<_>>()
    };
    // "c" is known to the server alone: each of its fields says so.
    let of_server = pods().await[2].1;
    assert!(of_server >= 3, "{of_server}");
    pass(secs(1)).await;
    both.pods.serve_pods(&llama(), &["a"]);
    both.pods.push_tracked();
    let names =
        |pods: Vec<(String, usize)>| pods.into_iter().map(|(pod, _)| pod).collect::<Vec<_>>();
    assert_eq!(names(pods().await), ["a", "c"]);
    // What the server samples after that counts: the pod is back, out of the other's reach.
    pass(secs(31)).await;
    both.pods.push_tracked();
    assert_eq!(names(pods().await), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_shows_a_part_is_made_whole_by_the_other_backend() {
    let both = both();
    both.pods.serve(&llama(), |as_of| {
        let mut sample = sample(as_of, &["a"], 7, None);
        sample.absent = Absent::Unknown(None);
        sample
    });
    both.server.serve(&llama(), |as_of| sample(as_of, &["a", "b"], 3, None));
    let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!((reading.value().replicas.len(), reading.value().partial), (2, false));
    both.server.fail(ErrorKind::Connect);
    both.collector.invalidate_cache(&llama());
    let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!((reading.value().replicas.len(), reading.value().partial), (1, true));
}

#[tokio::test(start_paused = true)]
async fn an_allocation_takes_each_of_its_fields_from_the_first_backend_that_has_it() {
    let both = both_with(variants(vec![variant("v", &llama(), "*")]));
    both.pods
        .serve(&llama(), |as_of| ModelSample::new(as_of, sample(as_of, &["a"], 7, None).replicas));
    both.server.serve(&llama(), |as_of| {
        let mut sample = sample(as_of, &["a"], 3, None);
        sample.load = load(2.0, Some(0.02));
        sample
    });
    let read = || async {
        both.collector.invalidate_cache(&llama());
        both.collector.collect_allocation(&llama(), &"v".into()).await.unwrap()
    };
    let reading = read().await;
    let allocation = reading.value();
    assert_eq!((allocation.load.arrival_rate, allocation.itl_average), (Some(120.0), Some(20.0)));
    assert_eq!(allocation.backend.as_str(), "pods");
    let marked: Vec<Field> = allocation.marks.iter().map(|mark| mark.field).collect();
    assert_eq!(marked, [Field::ArrivalRate, Field::ItlAverage]);

    both.pods.serve(&llama(), |as_of| {
        let mut sample = sample(as_of, &["a"], 7, None);
        sample.load = load(3.0, None);
        sample
    });
    let reading = read().await;
    let allocation = reading.value();
    assert_eq!((allocation.load.arrival_rate, allocation.itl_average), (Some(180.0), Some(20.0)));
    let marked: Vec<Field> = allocation.marks.iter().map(|mark| mark.field).collect();
    assert_eq!(marked, [Field::ItlAverage]);
}

#[tokio::test(start_paused = true)]
async fn without_a_cache_the_answers_of_both_are_merged_all_the_same() {
    let both = both_with(config(|config| config.enabled = false));
    both.pods.serve(&llama(), |as_of| sample(as_of, &["a"], 7, None));
    both.server.serve(&llama(), |as_of| sample(as_of, &["a", "b"], 3, Some(0.5)));
    let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
    let rows = &reading.value().replicas;
    assert_eq!((rows[0].queue_length, rows[0].prefix_cache_hit_rate), (Some(7), Some(0.5)));
    assert_eq!(rows[1].queue_length, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_push_of_one_backend_keeps_the_answer_of_the_other() {
    let both = both();
    both.pods.serve(&llama(), |as_of| sample(as_of, &["a"], 7, None));
    both.server.serve(&llama(), |as_of| sample(as_of, &["a"], 3, Some(0.5)));
    both.collector.start_background_worker().await.unwrap();
    both.collector.collect_replica_metrics(&llama()).await.unwrap();
    pass(Duration::from_millis(100)).await;
    for _ in 0..20 {
        both.pods.push_tracked();
        let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
        let row = &reading.value().replicas[0];
        assert_eq!((row.queue_length, row.prefix_cache_hit_rate), (Some(7), Some(0.5)));
        assert_eq!(reading.age(), Duration::ZERO);
        pass(secs(1)).await;
    }
    // And the server is refreshed at its own pace.
    pass(secs(40)).await;
    assert_eq!(both.server.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn without_background_fetching_reads_refresh_the_backend_that_is_only_asked() {
    let both = both_with(config(|config| config.fetch_interval = Duration::ZERO));
    both.pods.serve(&llama(), |as_of| sample(as_of, &["a"], 7, None));
    both.server.serve(&llama(), |as_of| sample(as_of, &["a"], 3, Some(0.5)));
    both.collector.start_background_worker().await.unwrap();
    for _ in 0..400 {
        let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
        let row = &reading.value().replicas[0];
        assert_eq!((row.queue_length, row.prefix_cache_hit_rate), (Some(7), Some(0.5)));
        assert!(reading.age_of(row.sampled_at(Field::PrefixCacheHitRate)) <= secs(32));
        assert_ne!(reading.source(), Source::LastKnownGood, "the pods push each second");
        pass(secs(1)).await;
        both.pods.push_tracked();
    }
    // Each ttl once; the pods, which push, were asked for the first reading alone.
    assert!((12..=15).contains(&both.server.fetches()), "{}", both.server.fetches());
    assert_eq!(both.pods.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn models_of_both_are_listed_and_none_is_only_when_both_say_so() {
    let both = both();
    both.pods.serve_pods(&llama(), &["a"]);
    both.server.serve_pods(&ModelRef::new("other", "prod"), &["b"]);
    assert_eq!(both.collector.list_models().await.unwrap().len(), 2);
    let both = self::both();
    both.server.fail(ErrorKind::Connect);
    both.pods.serve_pods(&llama(), &["a"]);
    assert_eq!(both.collector.list_models().await.unwrap().len(), 1);
    let both = self::both();
    both.server.fail(ErrorKind::Connect);
    assert!(both.collector.list_models().await.is_err());
    pass(secs(2)).await;
    both.server.restore();
    assert!(both.collector.list_models().await.is_ok_and(|models| models.is_empty()));
}
