// SPDX-License-Identifier: Apache-2.0
//! A source of metrics, and one that lists the pods of a cluster.

use std::sync::Arc;

use collector_core::supply::{Pod, PodState, Workload};
use collector_core::{
    Clock, CollectError, ErrorKind, Freshness, MetricsCollector as _, ModelRef, ModelSample,
    Reading, ReplicaMetrics, Replicas, Supply, Tick,
};
use collector_engine::{Builder, CacheConfig, CachingCollector};
use collector_testkit::{FakeBackend, TokioClock};

use crate::setup::{llama, pass, secs};

struct Cluster {
    metrics: FakeBackend,
    kubernetes: FakeBackend,
    collector: Arc<CachingCollector>,
    clock: Arc<dyn Clock>,
}

fn cluster_with(change: impl FnOnce(Builder) -> Builder) -> Cluster {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let metrics = FakeBackend::new(Arc::clone(&clock)).named("prometheus");
    let kubernetes = FakeBackend::new(Arc::clone(&clock)).named("kubernetes");
    let builder = CachingCollector::builder(Arc::new(metrics.clone()))
        .also(Arc::new(kubernetes.clone()))
        .clock(Arc::clone(&clock));
    let collector = Arc::new(change(builder).build().unwrap());
    Cluster { metrics, kubernetes, collector, clock }
}

/// What a cluster answers that has these pods.
fn lists(pods: &'static [(&'static str, PodState)]) -> impl Fn(Tick) -> ModelSample {
    move |as_of| {
        let pods = pods.iter().map(|(name, state)| Pod::new((*name).into(), *state, as_of));
        let workload = Workload::new(Some("v".into()), Some(3), pods.collect());
        let mut sample = ModelSample::new(as_of, Vec::new());
        let supply = Supply::new(as_of, vec![workload]);
        sample.lists_pods = supply.is_zero();
        sample.supply = Some(Arc::new(supply));
        sample
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_with_pods_and_without_series_is_missing_and_the_error_has_the_pods() {
    let cluster = cluster_with(|builder| builder);
    let pods = &[("m-0", PodState::Ready), ("m-1", PodState::Ready), ("m-2", PodState::Starting)];
    cluster.kubernetes.serve(&llama(), lists(pods));
    let error = cluster.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    assert!(matches!(error, CollectError::Missing { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "no metrics of model \"llama\" in namespace \"prod\"; the cluster has 3 pods of it (2 ready, 1 starting), and no \
         backend has series of them"
    );
    // It is missing for a while, and found once there are series.
    cluster.metrics.serve_pods(&llama(), &["m-0", "m-1"]);
    pass(secs(11)).await;
    let reading = cluster.collector.collect_replica_metrics(&llama()).await.unwrap();
    let supplied = reading.value().supplied(None).unwrap();
    assert_eq!(supplied.to_string(), "2 of 3 ready, 1 starting");
}

#[tokio::test(start_paused = true)]
async fn a_source_of_metrics_that_fails_is_an_error_whatever_the_cluster_has() {
    let cluster = cluster_with(|builder| builder);
    cluster.kubernetes.serve(&llama(), lists(&[("m-0", PodState::Ready)]));
    cluster.metrics.fail(ErrorKind::Connect);
    let error = cluster.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    assert!(matches!(error, CollectError::Backend(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_pods_is_a_zero_until_it_does_not_answer() {
    let cluster = cluster_with(|builder| builder);
    cluster.kubernetes.serve(&llama(), lists(&[]));
    let read = || async { cluster.collector.collect_replica_metrics(&llama()).await.unwrap() };
    let reading = read().await;
    assert_eq!((reading.value().replicas.len(), reading.value().lists_pods), (0, true));
    assert_eq!(reading.freshness(), Freshness::Fresh);
    cluster.collector.start_background_worker().await.unwrap();
    pass(secs(100)).await;
    let reading = read().await;
    assert_eq!((reading.freshness(), reading.value().lists_pods), (Freshness::Fresh, true));
    cluster.kubernetes.fail(ErrorKind::Connect);
    pass(secs(40)).await;
    let reading = read().await;
    assert_eq!((reading.value().replicas.len(), reading.value().lists_pods), (0, false));
    let age = reading.age_of(reading.value().supplied(None).unwrap().as_of());
    assert!(age > secs(5) && age == reading.age(), "{age:?}");
    pass(secs(300)).await;
    let error = cluster.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    assert!(matches!(error, CollectError::Unavailable { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_zero_does_not_outlive_the_process_and_the_last_supply_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    let with_snapshot = |builder: Builder| {
        let snapshot_path = Some(path.clone());
        builder.config(CacheConfig { snapshot_path, ..CacheConfig::default() })
    };
    let busy = ModelRef::new("busy", "prod");
    let before = cluster_with(with_snapshot);
    before.kubernetes.serve(&llama(), lists(&[]));
    before.kubernetes.serve(&busy, lists(&[("m-0", PodState::Ready)]));
    before.metrics.serve_pods(&busy, &["m-0"]);
    before.collector.start_background_worker().await.unwrap();
    for model in [&llama(), &busy] {
        before.collector.collect_replica_metrics(model).await.unwrap();
    }
    before.collector.stop_background_worker().await;

    let after = cluster_with(with_snapshot);
    after.metrics.fail(ErrorKind::Connect);
    after.kubernetes.fail(ErrorKind::Connect);
    after.collector.start_background_worker().await.unwrap();
    let zero = after.collector.collect_replica_metrics(&llama()).await;
    assert!(zero.as_ref().map_or(true, |reading| !reading.value().lists_pods), "{zero:?}");
    let reading = after.collector.collect_replica_metrics(&busy).await.unwrap();
    assert_eq!(reading.value().supplied(None).unwrap().to_string(), "1 of 3 ready");
}

#[tokio::test(start_paused = true)]
async fn a_supply_that_is_only_confirmed_is_no_newer_sample() {
    let cluster = cluster_with(|builder| builder);
    let start = cluster.clock.now();
    cluster.kubernetes.serve(&llama(), move |as_of| {
        let pod = Pod::new("m-0".into(), PodState::Ready, start);
        let mut sample = ModelSample::new(as_of, Vec::new());
        let workload = Workload::new(None, None, vec![pod]);
        sample.supply = Some(Arc::new(Supply::new(as_of, vec![workload])));
        sample
    });
    cluster.metrics.serve(&llama(), move |as_of| {
        ModelSample::new(as_of, vec![ReplicaMetrics::new("m-0", start)])
    });
    cluster.collector.start_background_worker().await.unwrap();
    let first = cluster.collector.collect_replica_metrics(&llama()).await.unwrap();
    pass(secs(31)).await;
    let second = cluster.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(first.generation(), second.generation());
    assert!(second.age() >= secs(31), "it is the same sample");
    let as_of = |it: &Reading<Replicas>| it.value().supplied(None).unwrap().as_of();
    assert!(as_of(&second) > as_of(&first), "its own age begins again");
}
