// SPDX-License-Identifier: Apache-2.0
//! Two backends, one of which says nothing any more, says it late, or sees a part of the fleet.

use std::time::Duration;

use collector_core::{
    Absent, CollectError, ErrorKind, Freshness, LoadRates, LoadRows, MetricsCollector as _,
};

use crate::merging::{both, both_with, sample};
use crate::setup::{llama, pass, secs, variant, variants};

fn load_of<const N: usize>(requests: [(&str, f64); N]) -> LoadRows {
    let rates = |requests: f64| LoadRates::default().with_requests(requests);
    requests.map(|(pod, requests)| (pod.into(), rates(requests).into())).into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_down_for_long_does_not_make_the_other_one_unavailable() {
    let both = both_with(variants(vec![variant("v", &llama(), "*")]));
    both.pods.serve(&llama(), |as_of| sample(as_of, &["a"], 7, None));
    both.server.serve(&llama(), |as_of| {
        let mut sample = sample(as_of, &["a", "gone"], 3, Some(0.5));
        let itl = LoadRates::default().with_requests(1.0).with_itl(0.1, 1.0);
        sample.load = LoadRows::Model(itl.into());
        sample
    });
    both.collector.start_background_worker().await.unwrap();
    both.collector.collect_replica_metrics(&llama()).await.unwrap();
    both.server.fail(ErrorKind::Connect);
    let mut sizes = Vec::new();
    for _ in 0..400 {
        pass(secs(1)).await;
        both.pods.push_tracked();
        let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
        sizes.push(reading.value().replicas.len());
    }
    // What only the dead backend knows is kept for as long as a pod that hangs, and then no more.
    assert_eq!(sizes.iter().filter(|size| **size == 2).count(), 119);
    let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!((reading.value().replicas.len(), reading.age()), (1, Duration::ZERO));
    assert_eq!(reading.value().replicas[0].prefix_cache_hit_rate, None, "of 400 s ago");
    let allocation = both.collector.collect_allocation(&llama(), &"v".into()).await.unwrap();
    assert_eq!((allocation.value().num_replicas, allocation.age()), (1, Duration::ZERO));
    assert_eq!(allocation.value().itl_average, None, "of 400 s ago");
}

#[tokio::test(start_paused = true)]
async fn when_all_backends_are_unresponsive_the_last_known_value_is_kept() {
    let both = both();
    both.pods.serve(&llama(), |as_of| sample(as_of, &["a"], 7, None));
    both.server.serve(&llama(), |as_of| sample(as_of, &["a", "b"], 3, None));
    both.collector.start_background_worker().await.unwrap();
    both.collector.collect_replica_metrics(&llama()).await.unwrap();
    both.server.fail(ErrorKind::Connect);
    both.pods.fail(ErrorKind::Connect);
    pass(secs(250)).await;
    let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(reading.value().replicas.len(), 2);
    pass(secs(150)).await;
    let read = both.collector.collect_replica_metrics(&llama()).await;
    assert!(matches!(read, Err(CollectError::Unavailable { .. })), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn the_load_of_part_of_a_variant_is_not_shown_as_its_load() {
    let both = both_with(variants(vec![variant("v", &llama(), "*")]));
    both.pods.serve(&llama(), |as_of| {
        let mut sample = sample(as_of, &["a"], 7, None);
        sample.load = load_of([("a", 1.0)]);
        sample.absent = Absent::Unknown(None);
        sample
    });
    both.server.serve(&llama(), |as_of| {
        let mut sample = sample(as_of, &["a", "b"], 3, None);
        sample.load = load_of([("a", 1.0), ("b", 4.0)]);
        sample
    });
    let read = || async { both.collector.collect_allocation(&llama(), &"v".into()).await };
    let reading = read().await.unwrap();
    let allocation = reading.value();
    assert_eq!((allocation.num_replicas, allocation.partial), (2, false));
    assert_eq!(allocation.load.arrival_rate, Some(300.0));
    assert_eq!(allocation.marks.len(), 1, "{:?}", allocation.marks);
    assert_eq!(allocation.marks[0].backend.as_str(), "server");

    // Where nobody has the load of all, it is said that a part is missing.
    both.collector.invalidate_cache(&llama());
    both.server.serve(&llama(), |as_of| sample(as_of, &["a", "b"], 3, None));
    let reading = read().await.unwrap();
    let allocation = reading.value();
    assert_eq!((allocation.num_replicas, allocation.load.arrival_rate), (2, Some(60.0)));
    assert!(allocation.partial);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_holds_an_old_pod_is_as_old_as_that_pod() {
    let both = both_with(variants(vec![variant("v", &llama(), "*")]));
    both.pods.serve(&llama(), |as_of| {
        let mut sample = sample(as_of, &["a", "b"], 7, None);
        sample.load = load_of([("a", 1.0), ("b", 4.0)]);
        // A pod that hangs keeps what it said when it was last seen.
        sample.replicas[1].sampled_at = as_of - secs(90);
        sample
    });
    both.server.serve(&llama(), |as_of| sample(as_of, &["a", "b"], 3, None));
    pass(secs(200)).await;
    let reading = both.collector.collect_allocation(&llama(), &"v".into()).await.unwrap();
    assert_eq!(reading.value().load.arrival_rate, Some(300.0));
    assert_eq!(reading.age(), secs(90));
}

#[tokio::test(start_paused = true)]
async fn what_its_own_backend_calls_missing_is_not_fresh_because_the_other_is_down() {
    let both = both();
    both.server.fail(ErrorKind::Connect);
    both.pods.serve(&llama(), |as_of| sample(as_of, &["a"], 7, None));
    both.collector.start_background_worker().await.unwrap();
    both.collector.collect_replica_metrics(&llama()).await.unwrap();
    pass(secs(1)).await;
    both.pods.remove(&llama());
    both.pods.push_tracked();
    let reading = both.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(reading.freshness(), Freshness::Stale);
}
