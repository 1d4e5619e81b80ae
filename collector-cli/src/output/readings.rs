//! Readings as Prometheus series: what is not measured has no series.

use collector_core::{Allocation, Reading, ReplicaMetrics, Replicas};

use super::exposition::{Exposition, Kind};

/// A family of series about replicas.
pub(crate) struct ReplicaFamily {
    name: &'static str,
    help: &'static str,
    value: fn(&Reading<Replicas>, &ReplicaMetrics) -> Option<f64>,
}

/// A family of series about allocations.
pub(crate) struct AllocationFamily {
    name: &'static str,
    help: &'static str,
    value: fn(&Reading<Allocation>) -> Option<f64>,
}

/// Everything that is said of a replica.
pub(crate) const REPLICA_FAMILIES: &[ReplicaFamily] = &[
    ReplicaFamily {
        name: "collector_replica_kv_cache_usage",
        help: "Share of the KV-cache blocks in use, 0 to 1, the peak over the window.",
        value: |_, replica| replica.kv_cache_usage,
    },
    ReplicaFamily {
        name: "collector_replica_queue_length",
        help: "Requests waiting, the peak over the window.",
        value: |_, replica| replica.queue_length.map(|count| count as f64),
    },
    ReplicaFamily {
        name: "collector_replica_running_requests",
        help: "Requests in the running batch.",
        value: |_, replica| replica.running_requests.map(|count| count as f64),
    },
    ReplicaFamily {
        name: "collector_replica_cost",
        help: "Cost per hour, in the unit of the configuration.",
        value: |_, replica| replica.cost,
    },
    ReplicaFamily {
        name: "collector_replica_num_gpu_blocks",
        help: "KV-cache blocks.",
        value: |_, replica| replica.num_gpu_blocks.map(|count| count as f64),
    },
    ReplicaFamily {
        name: "collector_replica_block_size",
        help: "Tokens in a KV-cache block.",
        value: |_, replica| replica.block_size.map(|count| count as f64),
    },
    ReplicaFamily {
        name: "collector_replica_kv_capacity_tokens",
        help: "Tokens that the KV cache holds.",
        value: |_, replica| replica.total_kv_capacity_tokens().map(|count| count as f64),
    },
    ReplicaFamily {
        name: "collector_replica_tokens_in_use",
        help: "Tokens in the KV cache.",
        value: |_, replica| replica.tokens_in_use().map(|count| count as f64),
    },
    ReplicaFamily {
        name: "collector_replica_avg_input_tokens",
        help: "Mean prompt tokens per request over the window.",
        value: |_, replica| replica.avg_input_tokens,
    },
    ReplicaFamily {
        name: "collector_replica_avg_output_tokens",
        help: "Mean generated tokens per request over the window.",
        value: |_, replica| replica.avg_output_tokens,
    },
    ReplicaFamily {
        name: "collector_replica_prefix_cache_hit_rate",
        help: "Share of the prompt tokens found in the prefix cache, 0 to 1.",
        value: |_, replica| replica.prefix_cache_hit_rate,
    },
    ReplicaFamily {
        name: "collector_replica_age_seconds",
        help: "Age of the replica's row.",
        value: |reading, replica| Some(reading.age_of(replica.sampled_at).as_secs_f64()),
    },
];

/// Everything that is said of an allocation.
pub(crate) const ALLOCATION_FAMILIES: &[AllocationFamily] = &[
    AllocationFamily {
        name: "collector_allocation_replicas",
        help: "Live replicas of the variant.",
        value: |reading| Some(f64::from(reading.value().num_replicas)),
    },
    AllocationFamily {
        name: "collector_allocation_max_batch",
        help: "Greatest batch of one replica, from the configuration.",
        value: |reading| reading.value().max_batch.map(f64::from),
    },
    AllocationFamily {
        name: "collector_allocation_itl_average_milliseconds",
        help: "Mean inter-token latency over the window.",
        value: |reading| reading.value().itl_average,
    },
    AllocationFamily {
        name: "collector_allocation_ttft_average_milliseconds",
        help: "Mean time to first token over the window.",
        value: |reading| reading.value().ttft_average,
    },
    AllocationFamily {
        name: "collector_allocation_arrival_rate_per_minute",
        help: "Requests that arrive per minute.",
        value: |reading| reading.value().load.arrival_rate,
    },
    AllocationFamily {
        name: "collector_allocation_avg_input_tokens",
        help: "Mean prompt tokens per request over the window.",
        value: |reading| reading.value().load.avg_input_tokens,
    },
    AllocationFamily {
        name: "collector_allocation_avg_output_tokens",
        help: "Mean generated tokens per request over the window.",
        value: |reading| reading.value().load.avg_output_tokens,
    },
    AllocationFamily {
        name: "collector_allocation_age_seconds",
        help: "Age of the allocation's oldest value.",
        value: |reading| Some(reading.age().as_secs_f64()),
    },
];

impl ReplicaFamily {
    /// Writes the family with a sample for each replica of these readings.
    pub(crate) fn describe<'a>(
        &self,
        page: &mut Exposition,
        readings: impl Iterator<Item = &'a Reading<Replicas>>,
    ) {
        let mut family = page.family(self.name, Kind::Gauge, self.help);
        for reading in readings {
            for replica in &reading.value().replicas {
                if let Some(value) = (self.value)(reading, replica) {
                    family.sample(&replica_labels(reading, replica), value);
                }
            }
        }
    }
}

impl AllocationFamily {
    /// Writes the family with a sample for each of these readings.
    pub(crate) fn describe<'a>(
        &self,
        page: &mut Exposition,
        readings: impl Iterator<Item = &'a Reading<Allocation>>,
    ) {
        let mut family = page.family(self.name, Kind::Gauge, self.help);
        for reading in readings {
            if let Some(value) = (self.value)(reading) {
                family.sample(&allocation_labels(reading), value);
            }
        }
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
