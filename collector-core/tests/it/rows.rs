// SPDX-License-Identifier: Apache-2.0
//! Rows field by field: what is copied, filled, marked and divided.

use std::time::Duration;

use collector_core::{
    Allocation, Clock, Field, FieldSet, LoadRates, LoraAdapters, ManualClock, Mark, ModelRef,
    ReplicaMetrics, Tick,
};

fn measured() -> ReplicaMetrics {
    let mut row = ReplicaMetrics::new("pod", Tick::MIN);
    row.kv_cache_usage = Some(0.1);
    row.queue_length = Some(2);
    row.running_requests = Some(3);
    row.num_gpu_blocks = Some(4);
    row.block_size = Some(5);
    row.avg_input_tokens = Some(6.0);
    row.avg_output_tokens = Some(7.0);
    row.prefix_cache_hit_rate = Some(0.8);
    row
}

/// The fields that a row of a replica can have.
const OF_ROW: [Field; 7] = [
    Field::KvCacheUsage,
    Field::QueueLength,
    Field::RunningRequests,
    Field::CacheConfig,
    Field::PrefixCacheHitRate,
    Field::AvgInputTokens,
    Field::AvgOutputTokens,
];

#[test]
fn a_field_is_copied_alone_and_is_then_there() {
    for field in OF_ROW {
        let mut row = ReplicaMetrics::new("pod", Tick::MIN);
        row.copy_field(field, &measured());
        for &other in Field::ALL {
            assert_eq!(row.has(other), other == field, "{other:?} after {field:?}");
        }
    }
    let mut all = ReplicaMetrics::new("pod", Tick::MIN);
    for field in OF_ROW {
        all.copy_field(field, &measured());
    }
    assert_eq!(all, measured());
}

#[test]
fn what_a_row_cannot_have_is_copied_nowhere() {
    for field in [Field::ArrivalRate, Field::TtftAverage, Field::ItlAverage] {
        let mut row = ReplicaMetrics::new("pod", Tick::MIN);
        row.copy_field(field, &measured());
        assert_eq!(row, ReplicaMetrics::new("pod", Tick::MIN));
        assert!(!measured().has(field));
    }
}

#[test]
fn half_of_the_cache_configuration_is_something_and_no_capacity() {
    let mut row = ReplicaMetrics::new("pod", Tick::MIN);
    assert!(!row.has(Field::CacheConfig));
    row.block_size = Some(16);
    assert!(row.has(Field::CacheConfig) && !row.is_known(Field::CacheConfig));
    row.num_gpu_blocks = Some(1000);
    assert!(row.is_known(Field::CacheConfig));
    let mut row = ReplicaMetrics::new("pod", Tick::MIN);
    row.kv_capacity_tokens = Some(16_000);
    assert!(row.has(Field::CacheConfig) && row.is_known(Field::CacheConfig));
    assert!(!row.is_known(Field::QueueLength));
}

#[test]
fn a_mean_counts_nothing_where_both_halves_are_known_and_there_is_nothing_to_divide_by() {
    let means =
        [Field::AvgInputTokens, Field::AvgOutputTokens, Field::TtftAverage, Field::ItlAverage];
    for &field in Field::ALL {
        assert_eq!(LoadRates::ZERO.counts_nothing(field), means.contains(&field), "{field:?}");
        assert!(!rates().counts_nothing(field) && !LoadRates::default().counts_nothing(field));
    }
}

#[test]
fn rates_can_be_listed_in_the_order_of_their_fields() {
    let listed = [2.0, 20.0, 40.0, 3.0, 2.0, 0.5, 10.0].map(Some);
    assert_eq!(LoadRates::from(listed), rates());
}

#[test]
fn what_a_pod_is_is_filled_in_and_never_replaced() {
    let mut known = ReplicaMetrics::new("pod", Tick::MIN);
    known.engine = Some("vllm".into());
    known.lora_adapters = Some(Box::new(LoraAdapters { max: Some(4), ..LoraAdapters::default() }));
    let mut row = ReplicaMetrics::new("pod", Tick::MIN);
    row.fill_identity(&known);
    assert_eq!((&row.engine, &row.lora_adapters), (&known.engine, &known.lora_adapters));
    let mut other = ReplicaMetrics::new("pod", Tick::MIN);
    other.engine = Some("sglang".into());
    row.fill_identity(&other);
    assert_eq!(row.engine, known.engine);
}

#[test]
fn a_marked_field_has_a_time_of_its_own() {
    let now = ManualClock::new().now();
    let mut row = ReplicaMetrics::new("pod", now);
    let earlier = now - Duration::from_secs(5);
    row.marks =
        vec![Mark { field: Field::QueueLength, backend: "test".into(), sampled_at: earlier }];
    assert_eq!(row.sampled_at(Field::QueueLength), earlier);
    assert_eq!(row.sampled_at(Field::KvCacheUsage), now);
}

#[test]
fn a_set_of_fields_is_empty_until_one_is_in_it() {
    let mut set = FieldSet::EMPTY;
    assert!(set.is_empty());
    set.insert(Field::KvCacheUsage);
    assert!(!set.is_empty());
    assert_eq!(set.iter().collect::<Vec<_>>(), [Field::KvCacheUsage]);
}

fn rates() -> LoadRates {
    LoadRates::default()
        .with_requests(2.0)
        .with_tokens(20.0, 40.0)
        .with_ttft(3.0, 2.0)
        .with_itl(0.5, 10.0)
}

#[test]
fn latencies_are_means_in_milliseconds() {
    assert_eq!(rates().ttft_average(false), Some(1500.0));
    assert_eq!(rates().itl_average(false), Some(50.0));
    assert_eq!(LoadRates::ZERO.ttft_average(true), Some(0.0));
    assert_eq!(LoadRates::default().itl_average(true), None);
}

#[test]
fn the_rates_of_a_field_are_copied_together_and_alone() {
    let copied = |field| {
        let mut copied = LoadRates::default();
        copied.copy_field(field, &rates());
        copied
    };
    let none = LoadRates::default();
    assert_eq!(copied(Field::TtftAverage), none.with_ttft(3.0, 2.0));
    assert_eq!(copied(Field::ItlAverage), none.with_itl(0.5, 10.0));
    assert_eq!(copied(Field::ArrivalRate), none.with_requests(2.0));
    assert_eq!(copied(Field::AvgInputTokens), none.with_tokens(20.0, None));
    assert_eq!(copied(Field::AvgOutputTokens), none.with_tokens(None, 40.0));
    assert_eq!(copied(Field::QueueLength), none);
}

#[test]
fn each_field_of_the_load_has_its_own_place_in_an_allocation() {
    let model = ModelRef::new("llama", "prod");
    let mut allocation = Allocation::new(model, "v".into(), 1, "test".into(), Tick::MIN);
    for (&field, value) in Field::OF_LOAD.iter().zip([1.0, 2.0, 3.0, 4.0, 5.0]) {
        *allocation.field_mut(field).unwrap() = Some(value);
    }
    let load = &allocation.load;
    let of_load = (load.arrival_rate, load.avg_input_tokens, load.avg_output_tokens);
    assert_eq!(of_load, (Some(1.0), Some(2.0), Some(3.0)));
    assert_eq!((allocation.ttft_average, allocation.itl_average), (Some(4.0), Some(5.0)));
    for &field in Field::OF_REPLICA {
        assert!(allocation.field_mut(field).is_none());
    }
}
