// SPDX-License-Identifier: Apache-2.0
//! What a hit allocates: counts, which do not depend on the machine as times do.

use collector_core::MetricsCollector;
use futures_util::FutureExt as _;

use crate::setup::{llama, setup};

/// Of everything that this thread does meanwhile; the tests' runtime has no other.
fn allocations(run: impl FnOnce()) -> u64 {
    allocation_counter::measure(run).count_total
}

#[tokio::test(start_paused = true)]
async fn a_hit_by_key_or_handle_allocates_nothing() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0", "llama-1"]);
    setup.read(&llama()).await;
    let (collector, model) = (&setup.collector, llama());
    let mut handle = collector.handle(model.clone(), None);
    // The first read of a thread makes its counter, the first of a handle finds its entry.
    assert!(collector.cached_replicas(&model).is_some() && handle.replicas().is_some());

    let by_key = allocations(|| assert!(collector.cached_replicas(&model).is_some()));
    let by_handle = allocations(|| assert!(handle.replicas().is_some()));

    assert_eq!((by_key, by_handle), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hit_through_a_trait_object_allocates_its_future_alone() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0", "llama-1"]);
    let (collector, model): (&dyn MetricsCollector, _) = (&*setup.collector, llama());
    collector.collect_replica_metrics(&model).await.unwrap();
    assert!(collector.cached_replicas(&model).is_some());

    let count = allocations(|| {
        let read = collector.collect_replica_metrics(&model).now_or_never();
        assert!(matches!(read, Some(Ok(_))), "a hit waits for nothing");
    });

    assert!(count <= 1, "{count} allocations");
}
