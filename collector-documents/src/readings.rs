//! A reading of replicas or of an allocation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use collector_core::{
    Allocation, Field, FieldReasons, Load, Mark, Part, Reading, ReplicaMetrics, Replicas,
};
use jiff::Timestamp;
use serde::Serialize;

use crate::{SCHEMA_VERSION, seconds};

/// What was said of a reading as a whole.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
struct ReadingHead<'a> {
    /// `fresh`, `stale` or `unavailable`.
    status: &'a str,
    /// Age of the oldest replica.
    age_seconds: f64,
    /// When the oldest replica was sampled: RFC 3339, UTC.
    collected_at: String,
    /// `backend` (asked for this read), `cache` (within its ttl) or `last-known-good` (past it).
    source: &'a str,
    /// The backend that supplied it.
    backend: &'a str,
    /// Some replicas may be absent.
    partial: bool,
    /// The time over which peaks and rates were taken; null when the backend does not say.
    window_seconds: Option<f64>,
    /// Fields whose query failed, with the reason. They keep their former values while those last.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failed: BTreeMap<&'static str, &'a str>,
    /// Warnings about a reading whose values are right.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<&'a str>,
}

/// What is said of a reading that is not in [`Reading`] itself.
#[derive(Clone, Copy)]
struct Told<'a> {
    backend: &'a str,
    partial: bool,
    window: Option<Duration>,
    failed: &'a FieldReasons,
    warnings: &'a [Arc<str>],
}

impl<'a> ReadingHead<'a> {
    fn new<T: Part>(reading: &Reading<T>, wall: SystemTime, told: Told<'a>) -> Self {
        let Told { backend, partial, window, failed, warnings } = told;
        Self {
            status: reading.freshness().as_str(),
            age_seconds: seconds(reading.age()),
            collected_at: rfc3339(reading.collected_at(wall)),
            source: reading.source().as_str(),
            backend,
            partial,
            window_seconds: window.map(seconds),
            failed: reasons(failed),
            warnings: warnings.iter().map(AsRef::as_ref).collect(),
        }
    }
}

/// One reading of a model's replicas.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ReplicasDocument<'a> {
    schema_version: u32,
    /// `replicas`.
    kind: &'static str,
    model: &'a str,
    namespace: &'a str,
    #[serde(flatten)]
    head: ReadingHead<'a>,
    /// Ordered by pod name; empty when the model is known and has no live pod.
    replicas: Vec<ReplicaRow<'a>>,
}

/// One replica. What was not measured is null, never 0.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
struct ReplicaRow<'a> {
    pod_name: &'a str,
    /// Null when no variant claims the pod.
    variant_name: Option<&'a str>,
    accelerator_name: Option<&'a str>,
    /// The kind of model server, `vllm` for example.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'a str>,
    /// What the pod does where a request is served by several: `prefill` or `decode`, for example.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    /// `serving`, or `sleeping`: it has no capacity until it is woken.
    state: &'static str,
    /// How many servers or data-parallel engines the row was put together from, when more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<u32>,
    /// Where the server tells of its LoRA adapters.
    #[serde(skip_serializing_if = "Option::is_none")]
    lora_adapters: Option<LoraDocument<'a>>,
    /// 0.0 to 1.0: the peak over the window.
    kv_cache_usage: Option<f64>,
    /// Requests waiting: the peak over the window.
    queue_length: Option<u64>,
    /// Requests in the running batch.
    running_requests: Option<u64>,
    /// Cost of one replica per hour, in the unit of the configuration; null when no variant claims
    /// the pod.
    cost: Option<f64>,
    num_gpu_blocks: Option<u64>,
    /// Tokens in a KV-cache block.
    block_size: Option<u64>,
    total_kv_capacity_tokens: Option<u64>,
    tokens_in_use: Option<u64>,
    /// Mean prompt tokens per request over the window.
    avg_input_tokens: Option<f64>,
    /// Mean generated tokens per request over the window.
    avg_output_tokens: Option<f64>,
    /// 0.0 to 1.0.
    prefix_cache_hit_rate: Option<f64>,
    age_seconds: f64,
    /// The fields that are older than their row or came from another backend.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    marks: BTreeMap<&'static str, MarkDocument<'a>>,
    /// Why fields are null, where it is not in `failed`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    reasons: BTreeMap<&'static str, &'a str>,
}

/// The LoRA adapters of a replica.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
struct LoraDocument<'a> {
    /// Adapters that running requests use.
    running: &'a [Box<str>],
    /// Adapters that waiting requests need.
    waiting: &'a [Box<str>],
    /// How many adapters fit into one batch.
    max: Option<u64>,
}

/// Where a field came from that does not share the source or the time of its row.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
struct MarkDocument<'a> {
    backend: &'a str,
    age_seconds: f64,
}

/// One reading of a variant's allocation.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct AllocationDocument<'a> {
    schema_version: u32,
    /// `allocation`.
    kind: &'static str,
    model: &'a str,
    namespace: &'a str,
    variant: &'a str,
    accelerator: Option<&'a str>,
    #[serde(flatten)]
    head: ReadingHead<'a>,
    /// Live replicas of the variant that serve.
    num_replicas: u32,
    /// Live replicas of the variant that sleep.
    num_sleeping: u32,
    /// Greatest batch of one replica, from the configuration.
    max_batch: Option<u32>,
    /// Mean inter-token latency over the window, in milliseconds.
    itl_average_ms: Option<f64>,
    /// Mean time to first token over the window, in milliseconds.
    ttft_average_ms: Option<f64>,
    load: LoadDocument,
    /// Why fields are null, where it is not in `failed`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    reasons: BTreeMap<&'static str, &'a str>,
    /// The fields that are older than the reading or came from another backend.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    marks: BTreeMap<&'static str, MarkDocument<'a>>,
}

/// What arrives at a variant.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
struct LoadDocument {
    /// Requests per minute.
    arrival_rate_per_minute: Option<f64>,
    /// Mean prompt tokens per request.
    avg_input_tokens: Option<f64>,
    /// Mean generated tokens per request.
    avg_output_tokens: Option<f64>,
}

impl<'a> ReplicasDocument<'a> {
    /// The document of a reading that was read at `wall`.
    pub fn new(reading: &'a Reading<Replicas>, wall: SystemTime) -> Self {
        let value = reading.value();
        Self {
            schema_version: SCHEMA_VERSION,
            kind: "replicas",
            model: value.model.model.as_str(),
            namespace: value.model.namespace.as_str(),
            head: ReadingHead::new(
                reading,
                wall,
                Told {
                    backend: value.backend.as_str(),
                    partial: value.partial,
                    window: value.window,
                    failed: &value.failed,
                    warnings: &value.warnings,
                },
            ),
            replicas: value
                .replicas
                .iter()
                .map(|replica| ReplicaRow::new(replica, reading))
                .collect(),
        }
    }
}

impl<'a> ReplicaRow<'a> {
    fn new(replica: &'a ReplicaMetrics, reading: &Reading<Replicas>) -> Self {
        Self {
            pod_name: replica.pod_name.as_str(),
            variant_name: replica.variant_name.as_ref().map(AsRef::as_ref),
            accelerator_name: replica.accelerator_name.as_ref().map(AsRef::as_ref),
            engine: replica.engine.as_ref().map(AsRef::as_ref),
            role: replica.role.as_ref().map(AsRef::as_ref),
            state: replica.state.as_str(),
            servers: Some(replica.servers).filter(|servers| *servers > 1),
            lora_adapters: replica.lora_adapters.as_deref().map(|lora| LoraDocument {
                running: &lora.running,
                waiting: &lora.waiting,
                max: lora.max,
            }),
            kv_cache_usage: replica.kv_cache_usage,
            queue_length: replica.queue_length,
            running_requests: replica.running_requests,
            cost: replica.cost,
            num_gpu_blocks: replica.num_gpu_blocks,
            block_size: replica.block_size,
            total_kv_capacity_tokens: replica.total_kv_capacity_tokens(),
            tokens_in_use: replica.tokens_in_use(),
            avg_input_tokens: replica.avg_input_tokens,
            avg_output_tokens: replica.avg_output_tokens,
            prefix_cache_hit_rate: replica.prefix_cache_hit_rate,
            age_seconds: seconds(reading.age_of(replica.sampled_at)),
            marks: marks(&replica.marks, reading),
            reasons: row_reasons(replica),
        }
    }
}

impl<'a> AllocationDocument<'a> {
    /// The document of a reading that was read at `wall`.
    pub fn new(reading: &'a Reading<Allocation>, wall: SystemTime) -> Self {
        let value = reading.value();
        let Load { arrival_rate, avg_input_tokens, avg_output_tokens } = value.load;
        Self {
            schema_version: SCHEMA_VERSION,
            kind: "allocation",
            model: value.model.model.as_str(),
            namespace: value.model.namespace.as_str(),
            variant: value.variant.as_str(),
            accelerator: value.accelerator.as_ref().map(AsRef::as_ref),
            head: ReadingHead::new(
                reading,
                wall,
                Told {
                    backend: value.backend.as_str(),
                    partial: value.partial,
                    window: value.window,
                    failed: &value.failed,
                    warnings: &value.warnings,
                },
            ),
            num_replicas: value.num_replicas,
            num_sleeping: value.num_sleeping,
            max_batch: value.max_batch,
            itl_average_ms: value.itl_average,
            ttft_average_ms: value.ttft_average,
            load: LoadDocument {
                arrival_rate_per_minute: arrival_rate,
                avg_input_tokens,
                avg_output_tokens,
            },
            reasons: reasons(&value.reasons),
            marks: marks(&value.marks, reading),
        }
    }
}

/// Marks under the names of the fields they are about.
fn marks<'a, T: Part>(
    marks: &'a [Mark],
    reading: &Reading<T>,
) -> BTreeMap<&'static str, MarkDocument<'a>> {
    marks
        .iter()
        .flat_map(|mark| {
            let fields = keys(mark.field);
            let document = |name: &&'static str| {
                let mark = MarkDocument {
                    backend: mark.backend.as_str(),
                    age_seconds: seconds(reading.age_of(mark.sampled_at)),
                };
                (*name, mark)
            };
            fields.iter().map(document).collect::<Vec<_>>()
        })
        .collect()
}

/// The keys of a document that one field fills.
fn keys(field: Field) -> &'static [&'static str] {
    match field {
        Field::KvCacheUsage => &["kvCacheUsage"],
        Field::QueueLength => &["queueLength"],
        Field::RunningRequests => &["runningRequests"],
        Field::CacheConfig => &["numGpuBlocks", "blockSize", "totalKvCapacityTokens"],
        Field::PrefixCacheHitRate => &["prefixCacheHitRate"],
        Field::ArrivalRate => &["arrivalRatePerMinute"],
        Field::AvgInputTokens => &["avgInputTokens"],
        Field::AvgOutputTokens => &["avgOutputTokens"],
        Field::TtftAverage => &["ttftAverageMs"],
        Field::ItlAverage => &["itlAverageMs"],
        _ => &[],
    }
}

fn reasons(reasons: &FieldReasons) -> BTreeMap<&'static str, &str> {
    let of_field =
        |(field, reason)| keys(field).iter().map(move |key| (*key, AsRef::<str>::as_ref(reason)));
    reasons.iter().flat_map(of_field).collect()
}

/// The reasons of a row: what is made of two fields is unknown for the reason of either.
fn row_reasons(replica: &ReplicaMetrics) -> BTreeMap<&'static str, &str> {
    let mut all = reasons(&replica.reasons);
    if replica.tokens_in_use().is_none() {
        let of = [Field::CacheConfig, Field::KvCacheUsage];
        let reason = of.into_iter().find_map(|field| replica.reasons.get(field));
        all.extend(reason.map(|reason| ("tokensInUse", &**reason)));
    }
    if replica.total_kv_capacity_tokens().is_some() {
        let parts = [("numGpuBlocks", replica.num_gpu_blocks), ("blockSize", replica.block_size)];
        let unknown = parts.iter().filter(|(_, part)| part.is_none());
        all.extend(unknown.map(|(key, _)| (*key, "the capacity is known in tokens alone")));
    }
    all
}

/// RFC 3339 in UTC, to the millisecond.
fn rfc3339(time: SystemTime) -> String {
    // Years beyond 9999 cannot be written; a wall clock that far off is shown as the epoch.
    let timestamp = Timestamp::try_from(time).unwrap_or_default();
    format!("{timestamp:.3}")
}

#[cfg(test)]
mod tests {
    use collector_core::Tick;

    use super::*;

    #[test]
    fn no_number_of_a_row_is_null_without_a_reason() {
        let mut row = ReplicaMetrics::new("m-0", Tick::MIN);
        row.kv_capacity_tokens = Some(131_072);
        row.reasons.insert(Field::KvCacheUsage, "tgi does not report it");
        let told = row_reasons(&row);
        let in_tokens = "the capacity is known in tokens alone";
        assert_eq!((told["numGpuBlocks"], told["blockSize"]), (in_tokens, in_tokens));
        assert_eq!(told["tokensInUse"], told["kvCacheUsage"]);
        assert!(!told.contains_key("totalKvCapacityTokens"));
        row.kv_capacity_tokens = None;
        row.reasons.insert(Field::CacheConfig, "no usable info");
        let told = row_reasons(&row);
        let names = ["numGpuBlocks", "blockSize", "totalKvCapacityTokens", "tokensInUse"];
        assert_eq!(names.map(|name| told[name]), ["no usable info"; 4]);
    }
}
