//! Readings as Prometheus series: what is not measured has no series.

use collector_core::{Allocation, Reading, ReplicaMetrics, Replicas};

use super::exposition::{Exposition, Kind};

type Measure<T> = (&'static str, &'static str, fn(&T) -> Option<f64>);

const OF_REPLICA: [Measure<ReplicaMetrics>; 11] = [
    (
        "collector_replica_kv_cache_usage",
        "Share of the KV-cache blocks in use, 0 to 1, the peak over the window.",
        |replica| replica.kv_cache_usage,
    ),
    ("collector_replica_queue_length", "Requests waiting, the peak over the window.", |replica| {
        replica.queue_length.map(|count| count as f64)
    }),
    ("collector_replica_running_requests", "Requests in the running batch.", |replica| {
        replica.running_requests.map(|count| count as f64)
    }),
    ("collector_replica_cost", "Cost per hour, in the unit of the configuration.", |replica| {
        Some(replica.cost)
    }),
    ("collector_replica_num_gpu_blocks", "KV-cache blocks.", |replica| {
        replica.num_gpu_blocks.map(|count| count as f64)
    }),
    ("collector_replica_block_size", "Tokens in a KV-cache block.", |replica| {
        replica.block_size.map(|count| count as f64)
    }),
    ("collector_replica_kv_capacity_tokens", "Tokens that the KV cache holds.", |replica| {
        replica.total_kv_capacity_tokens().map(|count| count as f64)
    }),
    ("collector_replica_tokens_in_use", "Tokens in the KV cache.", |replica| {
        replica.tokens_in_use().map(|count| count as f64)
    }),
    (
        "collector_replica_avg_input_tokens",
        "Mean prompt tokens per request over the window.",
        |replica| replica.avg_input_tokens,
    ),
    (
        "collector_replica_avg_output_tokens",
        "Mean generated tokens per request over the window.",
        |replica| replica.avg_output_tokens,
    ),
    (
        "collector_replica_prefix_cache_hit_rate",
        "Share of the prompt tokens found in the prefix cache, 0 to 1.",
        |replica| replica.prefix_cache_hit_rate,
    ),
];

const OF_ALLOCATION: [Measure<Allocation>; 7] = [
    ("collector_allocation_replicas", "Live replicas of the variant.", |allocation| {
        Some(f64::from(allocation.num_replicas))
    }),
    (
        "collector_allocation_max_batch",
        "Greatest batch of one replica, from the configuration.",
        |allocation| allocation.max_batch.map(f64::from),
    ),
    (
        "collector_allocation_itl_average_milliseconds",
        "Mean inter-token latency over the window.",
        |allocation| allocation.itl_average,
    ),
    (
        "collector_allocation_ttft_average_milliseconds",
        "Mean time to first token over the window.",
        |allocation| allocation.ttft_average,
    ),
    (
        "collector_allocation_arrival_rate_per_minute",
        "Requests that arrive per minute.",
        |allocation| allocation.load.arrival_rate,
    ),
    (
        "collector_allocation_avg_input_tokens",
        "Mean prompt tokens per request over the window.",
        |allocation| allocation.load.avg_input_tokens,
    ),
    (
        "collector_allocation_avg_output_tokens",
        "Mean generated tokens per request over the window.",
        |allocation| allocation.load.avg_output_tokens,
    ),
];

/// Writes the replicas of these readings and their ages.
pub(crate) fn describe_replicas<'a>(
    page: &mut Exposition,
    readings: impl Iterator<Item = &'a Reading<Replicas>> + Clone,
) {
    let rows = readings.flat_map(|reading| {
        let rows = &reading.value().replicas;
        rows.iter().map(move |replica| (reading, replica))
    });
    for (name, help, measure) in OF_REPLICA {
        let mut family = page.family(name, Kind::Gauge, help);
        for (reading, replica) in rows.clone() {
            if let Some(value) = measure(replica) {
                family.sample(&replica_labels(reading, replica), value);
            }
        }
    }
    let mut family =
        page.family("collector_replica_age_seconds", Kind::Gauge, "Age of the replica's row.");
    for (reading, replica) in rows {
        let age = reading.age_of(replica.sampled_at).as_secs_f64();
        family.sample(&replica_labels(reading, replica), age);
    }
}

/// Writes these allocations and their ages.
pub(crate) fn describe_allocations<'a>(
    page: &mut Exposition,
    readings: impl Iterator<Item = &'a Reading<Allocation>> + Clone,
) {
    for (name, help, measure) in OF_ALLOCATION {
        let mut family = page.family(name, Kind::Gauge, help);
        for reading in readings.clone() {
            if let Some(value) = measure(reading.value()) {
                family.sample(&allocation_labels(reading), value);
            }
        }
    }
    let mut family = page.family(
        "collector_allocation_age_seconds",
        Kind::Gauge,
        "Age of the allocation's oldest value.",
    );
    for reading in readings {
        family.sample(&allocation_labels(reading), reading.age().as_secs_f64());
    }
}

fn replica_labels<'a>(
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

fn allocation_labels(reading: &Reading<Allocation>) -> [(&'static str, &str); 4] {
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
