// SPDX-License-Identifier: Apache-2.0
//! Readings as Prometheus series: what is not measured has no series.

use collector_core::{Allocation, Reading, ReplicaMetrics, Replicas, Supplied, VariantName};

use super::exposition::{Series, series};

pub(crate) type OfReplica = fn(&Reading<Replicas>, &ReplicaMetrics) -> Option<f64>;
pub(crate) type OfAllocation = fn(&Reading<Allocation>) -> Option<f64>;
/// The values, each with the state that it is about, if it is about one.
pub(crate) type OfSupply = fn(&Reading<Replicas>, Supplied<'_>) -> Vec<(&'static str, f64)>;

/// The series of each replica.
pub(crate) const REPLICA_SERIES: &[Series<OfReplica>] = series! {
    /// Share of the KV-cache blocks in use, 0 to 1, the peak over the window.
    "collector_replica_kv_cache_usage": Gauge, |_, replica| replica.kv_cache_usage;
    /// Requests waiting, the peak over the window.
    "collector_replica_queue_length": Gauge,
        |_, replica| replica.queue_length.map(|count| count as f64);
    /// Requests waiting for room in the batch and the KV cache, the peak over the window.
    "collector_replica_waiting_for_capacity": Gauge,
        |_, replica| replica.waiting_for_capacity.map(|count| count as f64);
    /// Requests in the running batch.
    "collector_replica_running_requests": Gauge,
        |_, replica| replica.running_requests.map(|count| count as f64);
    /// Cost per hour, in the unit of the configuration.
    "collector_replica_cost": Gauge, |_, replica| replica.cost;
    /// KV-cache blocks.
    "collector_replica_num_gpu_blocks": Gauge,
        |_, replica| replica.num_gpu_blocks.map(|count| count as f64);
    /// Tokens in a KV-cache block.
    "collector_replica_block_size": Gauge, |_, replica| replica.block_size.map(|count| count as f64);
    /// Tokens that the KV cache holds.
    "collector_replica_kv_capacity_tokens": Gauge,
        |_, replica| replica.total_kv_capacity_tokens().map(|count| count as f64);
    /// Tokens in the KV cache.
    "collector_replica_tokens_in_use": Gauge,
        |_, replica| replica.tokens_in_use().map(|count| count as f64);
    /// Mean prompt tokens per request over the window.
    "collector_replica_avg_input_tokens": Gauge, |_, replica| replica.avg_input_tokens;
    /// Mean generated tokens per request over the window.
    "collector_replica_avg_output_tokens": Gauge, |_, replica| replica.avg_output_tokens;
    /// Share of the prompt tokens found in the prefix cache, 0 to 1.
    "collector_replica_prefix_cache_hit_rate": Gauge, |_, replica| replica.prefix_cache_hit_rate;
    /// Age of the replica's row.
    "collector_replica_age_seconds": Gauge,
        |reading, replica| Some(reading.age_of(replica.sampled_at).as_secs_f64());
};

/// The series of each allocation.
pub(crate) const ALLOCATION_SERIES: &[Series<OfAllocation>] = series! {
    /// Live replicas of the variant.
    "collector_allocation_replicas": Gauge, |reading| Some(f64::from(reading.value().num_replicas));
    /// Greatest batch of one replica, from the configuration.
    "collector_allocation_max_batch": Gauge, |reading| reading.value().max_batch.map(f64::from);
    /// Mean inter-token latency over the window.
    "collector_allocation_itl_average_seconds": Gauge, |reading| reading.value().itl_average.map(seconds);
    /// Mean time to first token over the window.
    "collector_allocation_ttft_average_seconds": Gauge, |reading| reading.value().ttft_average.map(seconds);
    /// Requests that arrive per minute.
    "collector_allocation_arrival_rate_per_minute": Gauge, |reading| reading.value().load.arrival_rate;
    /// Mean prompt tokens per request over the window.
    "collector_allocation_avg_input_tokens": Gauge, |reading| reading.value().load.avg_input_tokens;
    /// Mean generated tokens per request over the window.
    "collector_allocation_avg_output_tokens": Gauge, |reading| reading.value().load.avg_output_tokens;
    /// Age of the allocation's oldest value.
    "collector_allocation_age_seconds": Gauge, |reading| Some(reading.age().as_secs_f64());
};

/// The series of the pods that a cluster lists, of each variant. A reading without them has none.
pub(crate) const SUPPLY_SERIES: &[Series<OfSupply>] = series! {
    /// Pods of the variant that the cluster lists, by state. A state without a pod is absent if not all its pods are known.
    "collector_supply_pods": Gauge, |_, supplied| {
        let counts = supplied.counts().by_state().into_iter();
        counts.filter_map(|(state, count)| Some((state, f64::from(supplied.known(count)?)))).collect()
    };
    /// Replicas that the specification of the variant's workload asks for.
    "collector_supply_wanted": Gauge,
        |_, supplied| supplied.wanted().map(|wanted| ("", f64::from(wanted))).into_iter().collect();
    /// Time since the cluster last confirmed the list of pods.
    "collector_supply_age_seconds": Gauge,
        |reading, supplied| vec![("", reading.age_of(supplied.as_of()).as_secs_f64())];
};

/// Readings have milliseconds, and series have base units.
fn seconds(milliseconds: f64) -> f64 {
    milliseconds / 1e3
}

/// The samples of a family, one for each replica of these readings.
pub(crate) fn replica_samples<'a>(
    series: &Series<OfReplica>,
    readings: impl Iterator<Item = &'a Reading<Replicas>>,
) -> impl Iterator<Item = ([(&'static str, &'a str); 5], Option<f64>)> {
    readings.flat_map(|reading| {
        let replicas = reading.value().replicas.iter();
        replicas.map(|it| (replica_labels(reading, it), (series.value)(reading, it)))
    })
}

/// The samples of a family, one for each of these readings.
pub(crate) fn allocation_samples<'a>(
    series: &Series<OfAllocation>,
    readings: impl Iterator<Item = &'a Reading<Allocation>>,
) -> impl Iterator<Item = ([(&'static str, &'a str); 4], Option<f64>)> {
    readings.map(|reading| (allocation_labels(reading), (series.value)(reading)))
}

/// The samples of a family, for each variant that a cluster lists pods of in these readings.
pub(crate) fn supply_samples<'a>(
    series: &Series<OfSupply>,
    readings: impl Iterator<Item = &'a Reading<Replicas>>,
) -> impl Iterator<Item = ([(&'static str, &'a str); 4], Option<f64>)> {
    let value = series.value;
    readings.flat_map(move |reading| {
        reading.value().supplied_by_variant().flat_map(move |(variant, supplied)| {
            let values = value(reading, supplied).into_iter();
            values.map(move |(state, value)| (supply_labels(reading, variant, state), Some(value)))
        })
    })
}

/// The labels of the series of a variant's pods.
pub(crate) fn supply_labels<'a>(
    reading: &'a Reading<Replicas>,
    variant: Option<&'a VariantName>,
    state: &'static str,
) -> [(&'static str, &'a str); 4] {
    let model = &reading.value().model;
    [
        ("model_name", model.model.as_str()),
        ("namespace", model.namespace.as_str()),
        ("variant_name", optional(variant)),
        ("state", state),
    ]
}

/// The labels of a replica's series.
pub(crate) fn replica_labels<'a>(
    reading: &'a Reading<Replicas>,
    replica: &'a ReplicaMetrics,
) -> [(&'static str, &'a str); 5] {
    let model = &reading.value().model;
    [
        ("model_name", model.model.as_str()),
        ("namespace", model.namespace.as_str()),
        ("pod", replica.pod_name.as_str()),
        ("variant_name", optional(replica.variant_name.as_ref())),
        ("accelerator_name", optional(replica.accelerator_name.as_ref())),
    ]
}

/// The labels of an allocation's series.
pub(crate) fn allocation_labels(reading: &Reading<Allocation>) -> [(&'static str, &str); 4] {
    let allocation = reading.value();
    [
        ("model_name", allocation.model.model.as_str()),
        ("namespace", allocation.model.namespace.as_str()),
        ("variant_name", allocation.variant.as_str()),
        ("accelerator_name", optional(allocation.accelerator.as_ref())),
    ]
}

/// An empty label is the same as none in Prometheus.
fn optional(name: Option<&impl AsRef<str>>) -> &str {
    name.map_or("", AsRef::as_ref)
}
