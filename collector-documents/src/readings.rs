// SPDX-License-Identifier: Apache-2.0
//! A reading of replicas or of an allocation.

use std::time::SystemTime;

use collector_core::{
    Allocation, Field, FieldReasons, LatencyHistogram, Mark, Part, Reading, ReplicaMetrics,
    Replicas,
};
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::Serialize;

use crate::endpoint_picker::EndpointPickerDocument;
use crate::json::sized_json;
use crate::named::Named;
use crate::supply::SupplyDocument;
use crate::{SCHEMA_VERSION, seconds};

/// Defines the document of a reading: in the middle of its own fields is what is about the reading and not about its values.
macro_rules! reading_document {
    ($(#[$meta:meta])* pub $name:ident of ($reading:ident: $part:ty, $wall:ident);
     { $($before:tt)* }
     { $($after:tt)* }) => {
        document! {
            $(#[$meta])*
            pub $name<'a> of ($reading: &'a Reading<$part>, $wall: SystemTime);
            $($before)*
            /// `fresh`, `stale` or `unavailable`.
            status: &'a str = $reading.freshness().as_str();
            /// Age of the oldest replica.
            age_seconds: f64 = seconds($reading.age());
            /// When the oldest replica was sampled, by the wall clock of this answer: RFC 3339, UTC.
            collected_at: String = rfc3339($reading.collected_at($wall));
            /// Grows with each newer sample, over all models of a process; neither age nor status changes it. Null for a reading
            /// that no collector has published.
            generation: Option<u64> = $reading.generation();
            /// When the oldest replica was sampled: RFC 3339, UTC. The same in all answers of one generation.
            sampled_at: String = {
                rfc3339($reading.sampled_at().unwrap_or_else(|| $reading.collected_at($wall)))
            };
            /// `backend` (fetched for this read), `cache` (within its ttl) or `last-known-good` (past it).
            source: &'a str = $reading.source().as_str();
            /// The backend that supplied it.
            backend: &'a str = $reading.value().backend.as_str();
            /// Some replicas may be absent.
            partial: bool = $reading.value().partial;
            /// The time over which peaks and rates were taken; null when the backend does not say.
            window_seconds: Option<f64> = $reading.value().window.map(seconds);
            /// Fields whose query failed, with the reason. They keep their former values while those last.
            #[serde(skip_serializing_if = "Named::is_empty")]
            failed: Named<&'a str> = reasons(&$reading.value().failed);
            /// Warnings about a reading whose values are right.
            #[serde(skip_serializing_if = "Vec::is_empty")]
            warnings: Vec<&'a str> = $reading.value().warnings.iter().map(AsRef::as_ref).collect();
            $($after)*
        }
    };
}

reading_document! {
    /// One reading of a model's replicas.
    pub ReplicasDocument of (reading: Replicas, wall);
    {
        schema_version: u32 = SCHEMA_VERSION;
        /// `replicas`.
        kind: &'static str = "replicas";
        model: &'a str = reading.value().model.model.as_str();
        namespace: &'a str = reading.value().model.namespace.as_str();
    }
    {
        /// Ordered by pod name; empty when the model is known and has no live pod.
        replicas: Vec<ReplicaRow<'a>> = {
            let replicas = reading.value().replicas.iter();
            replicas.map(|replica| ReplicaRow::new(replica, reading)).collect()
        };
        /// Only if `replicas` is empty: whether no replica means no pod. If false, there may be pods of which nothing is measured.
        #[serde(skip_serializing_if = "Option::is_none")]
        lists_pods: Option<bool> = {
            let value = reading.value();
            value.replicas.is_empty().then_some(value.lists_pods && !value.partial)
        };
        /// The endpoint picker that routes requests to the model, if one is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        picker: Option<EndpointPickerDocument<'a>> = EndpointPickerDocument::of(reading);
        /// The pods of the model that the cluster lists, if one is asked.
        #[serde(skip_serializing_if = "Option::is_none")]
        supply: Option<SupplyDocument<'a>> = SupplyDocument::of(reading, None);
    }
}

/// What a document has without its rows, and for each row, in bytes: as a rule a little more than it takes.
const HEAD_BYTES: usize = 1024;
const ROW_BYTES: usize = 768;

// These are compiled with this crate, which is optimised, and not with those that call them.
impl ReplicasDocument<'_> {
    /// The document on one line of JSON.
    pub fn to_json(&self) -> String {
        sized_json(self, HEAD_BYTES + ROW_BYTES * self.replicas.len())
    }
}

impl AllocationDocument<'_> {
    /// The document on one line of JSON.
    pub fn to_json(&self) -> String {
        sized_json(self, HEAD_BYTES)
    }
}

document! {
    /// One replica. What was not measured is null, never 0.
    ReplicaRow<'a> of (replica: &'a ReplicaMetrics, reading: &'a Reading<Replicas>);
    pod_name: &'a str = replica.pod_name.as_str();
    /// Null when no variant claims the pod.
    variant_name: Option<&'a str> = replica.variant_name.as_ref().map(AsRef::as_ref);
    accelerator_name: Option<&'a str> = replica.accelerator_name.as_ref().map(AsRef::as_ref);
    /// The kind of model server, `vllm` for example.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'a str> = replica.engine.as_ref().map(AsRef::as_ref);
    /// What the pod does where a request is served by several: `prefill` or `decode`, for example.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str> = replica.role.as_ref().map(AsRef::as_ref);
    /// `serving`, or `sleeping`: it has no capacity until it is woken. If a cluster lists its pod also `starting` (it has
    /// not been Ready yet), `notReady` (it was, and gets no new requests) or `terminating`.
    state: &'static str = replica.state.as_str();
    /// How many servers or data-parallel engines the row was put together from, when more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<u32> = Some(replica.servers).filter(|servers| *servers > 1);
    /// Its LoRA adapters, if the server reports them.
    #[serde(skip_serializing_if = "Option::is_none")]
    lora_adapters: Option<LoraDocument<'a>> = replica.lora_adapters.as_deref().map(|lora| {
        LoraDocument { running: &lora.running, waiting: &lora.waiting, max: lora.max }
    });
    /// 0.0 to 1.0: the peak over the window.
    kv_cache_usage: Option<f64> = replica.kv_cache_usage;
    /// Requests waiting: the peak over the window.
    queue_length: Option<u64> = replica.queue_length;
    /// Those of them that wait for room in the batch and the KV cache, and not for something else, if the server reports why requests wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for_capacity: Option<u64> = replica.waiting_for_capacity;
    /// Requests in the running batch.
    running_requests: Option<u64> = replica.running_requests;
    /// Cost of one replica per hour, in the unit of the configuration; null when no variant claims
    /// the pod.
    cost: Option<f64> = replica.cost;
    num_gpu_blocks: Option<u64> = replica.num_gpu_blocks;
    /// Tokens in a KV-cache block.
    block_size: Option<u64> = replica.block_size;
    total_kv_capacity_tokens: Option<u64> = replica.total_kv_capacity_tokens();
    tokens_in_use: Option<u64> = replica.tokens_in_use();
    /// Mean prompt tokens per request over the window.
    avg_input_tokens: Option<f64> = replica.avg_input_tokens;
    /// Mean generated tokens per request over the window.
    avg_output_tokens: Option<f64> = replica.avg_output_tokens;
    /// 0.0 to 1.0.
    prefix_cache_hit_rate: Option<f64> = replica.prefix_cache_hit_rate;
    /// Its latencies over the window, if the histograms of the server are read (direct scraping).
    #[serde(skip_serializing_if = "Option::is_none")]
    latencies: Option<LatenciesDocument> = replica.latencies.as_deref().map(|latencies| {
        LatenciesDocument {
            age_seconds: seconds(reading.age_of(latencies.sampled_at)),
            ttft: latencies.ttft.as_ref().map(QuantilesDocument::new),
            itl: latencies.itl.as_ref().map(QuantilesDocument::new),
        }
    });
    age_seconds: f64 = seconds(reading.age_of(replica.sampled_at));
    /// The fields that are older than their row or came from another backend.
    #[serde(skip_serializing_if = "Named::is_empty")]
    marks: Named<MarkDocument<'a>> = marks(&replica.marks, reading);
    /// Why fields are null, where it is not in `failed`.
    #[serde(skip_serializing_if = "Named::is_empty")]
    reasons: Named<&'a str> = row_reasons(replica, &reading.value().failed);
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

/// The latencies of a replica.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
struct LatenciesDocument {
    /// Age of the end of the window: histograms are read less often than other numbers.
    age_seconds: f64,
    /// Times to first token; null when they are not known.
    ttft: Option<QuantilesDocument>,
    /// Inter-token latencies; null when they are not known.
    itl: Option<QuantilesDocument>,
}

document! {
    /// Quantiles of a latency, which are null when nothing was observed. They are linear within a bucket of the server's
    /// histogram, and never above its greatest finite bound.
    QuantilesDocument of (histogram: &LatencyHistogram);
    /// Observations in the window.
    count: u64 = histogram.observations();
    p50_ms: Option<f64> = quantile_ms(histogram, 0.5);
    p90_ms: Option<f64> = quantile_ms(histogram, 0.9);
    p99_ms: Option<f64> = quantile_ms(histogram, 0.99);
}

fn quantile_ms(histogram: &LatencyHistogram, q: f64) -> Option<f64> {
    histogram.quantile(q).map(|seconds| seconds * 1000.0)
}

/// Where a field came from that does not share the source or the time of its row.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
struct MarkDocument<'a> {
    backend: &'a str,
    age_seconds: f64,
}

reading_document! {
    /// One reading of a variant's allocation.
    pub AllocationDocument of (reading: Allocation, wall);
    {
        schema_version: u32 = SCHEMA_VERSION;
        /// `allocation`.
        kind: &'static str = "allocation";
        model: &'a str = reading.value().model.model.as_str();
        namespace: &'a str = reading.value().model.namespace.as_str();
        variant: &'a str = reading.value().variant.as_str();
        accelerator: Option<&'a str> = reading.value().accelerator.as_ref().map(AsRef::as_ref);
    }
    {
        /// Live replicas of the variant that serve, with those that are not Ready any more.
        num_replicas: u32 = reading.value().num_replicas;
        /// Live replicas of the variant that sleep.
        num_sleeping: u32 = reading.value().num_sleeping;
        /// Pods of the variant that have not been Ready yet, if a cluster lists them.
        #[serde(skip_serializing_if = "Option::is_none")]
        num_starting: Option<u32> = reading.value().num_starting;
        /// Only without any replica: whether that means no pod. If false, there may be pods of which nothing is measured.
        #[serde(skip_serializing_if = "Option::is_none")]
        lists_pods: Option<bool> = {
            let (value, replicas) = (reading.value(), &reading.model().replicas);
            let is_known = || {
                replicas.lists_pods && !replicas.partial
                    || replicas.known_empty(&value.variant).is_some()
            };
            (value.num_replicas + value.num_sleeping == 0).then(is_known)
        };
        /// The pods of the variant that the cluster lists, if one is asked.
        #[serde(skip_serializing_if = "Option::is_none")]
        supply: Option<SupplyDocument<'a>> = SupplyDocument::of(reading, Some(&reading.value().variant));
        /// Greatest batch of one replica, from the configuration.
        max_batch: Option<u32> = reading.value().max_batch;
        /// Mean inter-token latency over the window, in milliseconds.
        itl_average_ms: Option<f64> = reading.value().itl_average;
        /// Mean time to first token over the window, in milliseconds.
        ttft_average_ms: Option<f64> = reading.value().ttft_average;
        load: LoadDocument = LoadDocument {
            arrival_rate_per_minute: reading.value().load.arrival_rate,
            avg_input_tokens: reading.value().load.avg_input_tokens,
            avg_output_tokens: reading.value().load.avg_output_tokens,
        };
        /// Why fields are null, where it is not in `failed`.
        #[serde(skip_serializing_if = "Named::is_empty")]
        reasons: Named<&'a str> = allocation_reasons(reading.value());
        /// The fields that are older than the reading or came from another backend.
        #[serde(skip_serializing_if = "Named::is_empty")]
        marks: Named<MarkDocument<'a>> = marks(&reading.value().marks, reading);
    }
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

/// Marks under the names of the fields they are about.
fn marks<'a, T: Part>(marks: &'a [Mark], reading: &Reading<T>) -> Named<MarkDocument<'a>> {
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

fn reasons(reasons: &FieldReasons) -> Named<&str> {
    let of_field =
        |(field, reason)| keys(field).iter().map(move |key| (*key, AsRef::<str>::as_ref(reason)));
    reasons.iter().flat_map(of_field).collect()
}

/// The reason of a null for which its backend gave none.
const NOT_MEASURED: &str = "no value was measured";

/// The reason of what a row has from its variant.
const NO_VARIANT: &str = "no variant claims the pod";

/// Gives each of these fields a reason, if it is null and has none: neither its own nor in `failed`.
fn explain<'a>(
    all: &mut Named<&'a str>,
    failed: &FieldReasons,
    fields: impl IntoIterator<Item = (&'static str, bool)>,
    reason: &'a str,
) {
    for (key, is_null) in fields {
        if is_null && !failed.fields().iter().any(|field| keys(field).contains(&key)) {
            all.insert_if_absent(key, reason);
        }
    }
}

fn allocation_reasons(allocation: &Allocation) -> Named<&str> {
    let mut all = reasons(&allocation.reasons);
    let load = &allocation.load;
    let measured = [
        ("itlAverageMs", allocation.itl_average.is_none()),
        ("ttftAverageMs", allocation.ttft_average.is_none()),
        ("arrivalRatePerMinute", load.arrival_rate.is_none()),
        ("avgInputTokens", load.avg_input_tokens.is_none()),
        ("avgOutputTokens", load.avg_output_tokens.is_none()),
    ];
    explain(&mut all, &allocation.failed, measured, NOT_MEASURED);
    let configured = [
        ("accelerator", allocation.accelerator.is_none()),
        ("maxBatch", allocation.max_batch.is_none()),
    ];
    explain(&mut all, &FieldReasons::NONE, configured, "the variant has none");
    all
}

/// The reasons of a row: what is made of two fields is unknown for the reason of either.
fn row_reasons<'a>(replica: &'a ReplicaMetrics, failed: &'a FieldReasons) -> Named<&'a str> {
    let mut all = reasons(&replica.reasons);
    if replica.tokens_in_use().is_none() {
        let of = [Field::CacheConfig, Field::KvCacheUsage];
        let reason = of.into_iter().find_map(|field| replica.reasons.get(field));
        if let Some(reason) = reason {
            all.insert("tokensInUse", reason);
        }
    }
    if replica.total_kv_capacity_tokens().is_some() {
        let parts = [("numGpuBlocks", replica.num_gpu_blocks), ("blockSize", replica.block_size)];
        let unknown = parts.iter().filter(|(_, part)| part.is_none());
        unknown.for_each(|(key, _)| all.insert(key, "the capacity is known in tokens alone"));
    }
    let measured = [
        ("kvCacheUsage", replica.kv_cache_usage.is_none()),
        ("queueLength", replica.queue_length.is_none()),
        ("runningRequests", replica.running_requests.is_none()),
        ("numGpuBlocks", replica.num_gpu_blocks.is_none()),
        ("blockSize", replica.block_size.is_none()),
        ("totalKvCapacityTokens", replica.total_kv_capacity_tokens().is_none()),
        ("avgInputTokens", replica.avg_input_tokens.is_none()),
        ("avgOutputTokens", replica.avg_output_tokens.is_none()),
        ("prefixCacheHitRate", replica.prefix_cache_hit_rate.is_none()),
    ];
    explain(&mut all, failed, measured, NOT_MEASURED);
    if replica.tokens_in_use().is_none() {
        let of = [Field::CacheConfig, Field::KvCacheUsage];
        let reason = of.into_iter().find_map(|field| failed.get(field));
        all.insert_if_absent("tokensInUse", reason.map_or(NOT_MEASURED, |reason| &**reason));
    }
    let reason = match &replica.variant_name {
        None => NO_VARIANT,
        Some(_) => "the variant has none",
    };
    let of_variant = [
        ("variantName", replica.variant_name.is_none()),
        ("acceleratorName", replica.accelerator_name.is_none()),
        ("cost", replica.cost.is_none()),
    ];
    explain(&mut all, &FieldReasons::NONE, of_variant, reason);
    all
}

const TO_THE_MILLISECOND: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// RFC 3339 in UTC, to the millisecond.
fn rfc3339(time: SystemTime) -> String {
    // Years beyond 9999 cannot be written; a wall clock that far off is shown as the epoch.
    let timestamp = Timestamp::try_from(time).unwrap_or_default();
    TO_THE_MILLISECOND.timestamp_to_string(&timestamp)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use collector_core::raw::Label;
    use collector_core::{FreshnessThresholds, ModelRef, ModelValue, Source, Tick};

    use super::*;

    #[test]
    fn quantiles_are_in_milliseconds_and_null_of_nothing() {
        let json = |counts: [u64; 3]| {
            let histogram = LatencyHistogram::new([0.5, 1.0, f64::INFINITY].into(), counts);
            serde_json::to_value(QuantilesDocument::new(&histogram.unwrap())).unwrap()
        };
        let some = serde_json::json!({"count": 10, "p50Ms": 500.0, "p90Ms": 900.0, "p99Ms": 990.0});
        assert_eq!(json([5, 5, 0]), some);
        let none = serde_json::json!({"count": 0, "p50Ms": null, "p90Ms": null, "p99Ms": null});
        assert_eq!(json([0, 0, 0]), none);
    }

    /// The reasons of a row, as they are in its document.
    fn told(row: &ReplicaMetrics, failed: &FieldReasons) -> serde_json::Value {
        serde_json::to_value(row_reasons(row, failed)).unwrap()
    }

    #[test]
    fn no_replica_is_a_known_zero_or_is_not() {
        let of = |lists_pods, partial, pods: &[&str]| {
            let rows = pods.iter().map(|pod| ReplicaMetrics::new(*pod, Tick::MIN)).collect();
            let model = ModelRef::new("m", "n");
            let mut replicas = Replicas::new(model.clone(), rows, "test".into(), Tick::MIN);
            (replicas.lists_pods, replicas.partial) = (lists_pods, partial);
            let none = Allocation::new(model, "v".into(), 0, "test".into(), Tick::MIN);
            let value = Arc::new(ModelValue::new(replicas, vec![none]));
            let thresholds = FreshnessThresholds::default();
            let label = || Label::new(Tick::MIN, Tick::MIN, &thresholds, Source::Backend);
            let wall = SystemTime::UNIX_EPOCH;
            let replicas = Reading::<Replicas>::in_model(Arc::clone(&value), (), label());
            let allocation = Reading::<Allocation>::in_model(value, 0, label());
            let replicas = serde_json::to_value(ReplicasDocument::new(&replicas, wall)).unwrap();
            let variant = serde_json::to_value(AllocationDocument::new(&allocation, wall)).unwrap();
            [replicas["listsPods"].as_bool(), variant["listsPods"].as_bool()]
        };
        assert_eq!(of(true, false, &[]), [Some(true); 2]);
        assert_eq!(of(false, false, &[]), [Some(false); 2]);
        assert_eq!(of(true, true, &[]), [Some(false); 2]);
        assert_eq!(of(false, false, &["of-another"]), [None, Some(false)]);
    }

    #[test]
    fn every_null_of_a_row_has_a_reason() {
        let row = ReplicaMetrics::new("m-0", Tick::MIN);
        let mut failed = FieldReasons::NONE;
        failed.insert(Field::QueueLength, "422");
        let told = told(&row, &failed);
        assert_eq!(["variantName", "cost"].map(|name| &told[name]), [NO_VARIANT; 2]);
        assert_eq!(["kvCacheUsage", "tokensInUse"].map(|name| &told[name]), [NOT_MEASURED; 2]);
        // Its reason is in `failed`.
        assert!(told.get("queueLength").is_none());
        assert_eq!(told.as_object().unwrap().len(), 12);
    }

    #[test]
    fn no_number_of_a_row_is_null_without_a_reason() {
        let none = FieldReasons::NONE;
        let mut row = ReplicaMetrics::new("m-0", Tick::MIN);
        row.kv_capacity_tokens = Some(131_072);
        row.reasons.insert(Field::KvCacheUsage, "tgi does not report it");
        let of_tgi = told(&row, &none);
        let in_tokens = "the capacity is known in tokens alone";
        assert_eq!(["numGpuBlocks", "blockSize"].map(|name| &of_tgi[name]), [in_tokens; 2]);
        assert_eq!(of_tgi["tokensInUse"], of_tgi["kvCacheUsage"]);
        assert!(of_tgi.get("totalKvCapacityTokens").is_none());
        row.kv_capacity_tokens = None;
        row.reasons.insert(Field::CacheConfig, "no usable info");
        let told = told(&row, &none);
        let names = ["numGpuBlocks", "blockSize", "totalKvCapacityTokens", "tokensInUse"];
        assert_eq!(names.map(|name| &told[name]), ["no usable info"; 4]);
    }
}
