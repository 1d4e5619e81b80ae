// SPDX-License-Identifier: Apache-2.0
//! The JSON document of what is taken from a page.

use std::borrow::Cow;
use std::collections::BTreeMap;

use collector_core::ReplicaState;
use collector_epp::endpoint_picker::{
    EndpointPickerEndpoint, EndpointPickerModel, EndpointPickerPool, Numbers,
};
use collector_epp::engines::{
    ENDPOINT_PICKER, EngineRow, Exposition, LoraAdapters, Quantity, ServerExposition,
};
use collector_epp::scan::Malformed;
use serde::{Serialize, Serializer};

use super::Read;
use super::shorten::shorten;
use crate::output::{SCHEMA_VERSION, document};

/// What is taken from a page.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ScrapeDocument<'a> {
    schema_version: u32,
    /// `scrape`.
    kind: &'static str,
    /// What the page is read as: a kind of model server, or `epp`, the Endpoint Picker.
    engine: &'a str,
    /// Samples on the page, of whatever is in it.
    samples: u64,
    /// Malformed lines of samples that any engine has, and how many there are in all: only the first
    /// are listed.
    malformed: Vec<MalformedLine>,
    malformed_count: u64,
    /// Which series each value was read from, by the value's name.
    matched: BTreeMap<String, String>,
    #[serde(flatten)]
    content: Content<'a>,
}

/// A line that was skipped.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct MalformedLine {
    /// Counted from 1.
    line: u64,
    reason: String,
}

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum Content<'a> {
    /// Of a model server.
    Server {
        rows: Vec<Row<'a>>,
        /// Null when the server tells none.
        lora: Option<Adapters<'a>>,
    },
    /// Of an endpoint picker.
    EndpointPicker {
        per_model: Vec<ModelRow<'a>>,
        per_pool: Vec<PoolRow<'a>>,
        /// Empty unless the endpoint picker has a producer of in-flight load.
        per_endpoint: Vec<EndpointRow<'a>>,
    },
}

document! {
    /// One model on one data-parallel engine. What the page does not have is null.
    Row<'a> of (row: &'a EngineRow, page: &'a ServerExposition);
    /// Null where no series of the row names it.
    model: Option<Cow<'a, str>> = row.model.as_ref().map(|model| shorten(model.as_ref()));
    /// The data-parallel engine (vLLM's label `engine`, SGLang's `dp_rank`); null for what is given
    /// per server.
    engine: Option<Cow<'a, str>> = row.rank.as_deref().map(shorten);
    waiting: Option<Number> = number(row, Quantity::Waiting);
    running: Option<Number> = number(row, Quantity::Running);
    /// 0.0 to 1.0.
    kv_cache_usage: Option<Number> = number(row, Quantity::KvCacheUsage);
    /// Tokens in a KV-cache block.
    block_size: Option<Number> = number(row, Quantity::BlockSize);
    num_gpu_blocks: Option<Number> = number(row, Quantity::NumGpuBlocks);
    request_success_total: Option<Number> = number(row, Quantity::RequestSuccessTotal);
    requests_total: Option<Number> = number(row, Quantity::RequestsTotal);
    prompt_tokens_sum: Option<Number> = number(row, Quantity::PromptTokensSum);
    prompt_tokens_count: Option<Number> = number(row, Quantity::PromptTokensCount);
    prompt_tokens_total: Option<Number> = number(row, Quantity::PromptTokensTotal);
    generation_tokens_sum: Option<Number> = number(row, Quantity::GenerationTokensSum);
    generation_tokens_count: Option<Number> = number(row, Quantity::GenerationTokensCount);
    generation_tokens_total: Option<Number> = number(row, Quantity::GenerationTokensTotal);
    /// In seconds.
    ttft_sum: Option<Number> = number(row, Quantity::TtftSum);
    ttft_count: Option<Number> = number(row, Quantity::TtftCount);
    /// In seconds.
    itl_sum: Option<Number> = number(row, Quantity::ItlSum);
    itl_count: Option<Number> = number(row, Quantity::ItlCount);
    /// In tokens, or in blocks where the server counts these.
    prefix_hits: Option<Number> = number(row, Quantity::PrefixHits);
    prefix_queries: Option<Number> = number(row, Quantity::PrefixQueries);
    cached_tokens_total: Option<Number> = number(row, Quantity::CachedTokensTotal);
    /// Tokens the KV cache holds: as the server reports them, else blocks times their size.
    kv_capacity_tokens: Option<Number> = Number::of(row.capacity());
    /// Share of prompt tokens found in the prefix cache since the server was started, 0.0 to 1.0.
    prefix_cache_hit_rate: Option<Number> = Number::of(row.hit_rate_since_start());
    /// The replica, where the page has several.
    replica: Option<Cow<'a, str>> = row.replica.as_deref().map(shorten);
    /// `prefill` or `decode`, where the series say so.
    role: Option<Cow<'a, str>> = row.role.as_ref().map(|role| shorten(role.as_ref()));
    /// `serving` or `sleeping`; null where the server does not say.
    state: Option<&'static str> = state(row);
    /// In seconds.
    queue_time_sum: Option<Number> = number(row, Quantity::QueueTimeSum);
    queue_time_count: Option<Number> = number(row, Quantity::QueueTimeCount);
    /// In seconds.
    prefill_time_sum: Option<Number> = number(row, Quantity::PrefillTimeSum);
    prefill_time_count: Option<Number> = number(row, Quantity::PrefillTimeCount);
    /// In seconds.
    decode_time_sum: Option<Number> = number(row, Quantity::DecodeTimeSum);
    decode_time_count: Option<Number> = number(row, Quantity::DecodeTimeCount);
    /// Why values are null, by the value's name, where the page says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    reasons: BTreeMap<String, &'a str> =
        page.reasons.iter().chain(&row.reasons)
            .map(|(of, reason)| (camel_case(of.key()), &**reason)).collect();
}

document! {
    /// The adapters of a server.
    Adapters<'a> of (lora: &'a LoraAdapters);
    running: Vec<Cow<'a, str>> = lora.running.iter().map(|name| shorten(name)).collect();
    waiting: Vec<Cow<'a, str>> = lora.waiting.iter().map(|name| shorten(name)).collect();
    /// How many fit into one batch.
    max_lora: Option<u64> = lora.max;
}

document! {
    /// The requests for one model, as the picker counts them. What the page does not have is null.
    ModelRow<'a> of (row: &'a EndpointPickerModel);
    /// The model that was asked for.
    model: Option<Cow<'a, str>> = row.model.as_ref().map(|model| shorten(model.as_ref()));
    /// The model that they were sent to; null for what is given of all targets together.
    target: Option<Cow<'a, str>> = row.target.as_ref().map(|target| shorten(target.as_ref()));
    requests_total: Option<Number> = of_key(&row.numbers, "requests_total");
    errors_total: Option<Number> = of_key(&row.numbers, "errors_total");
    running: Option<Number> = of_key(&row.numbers, "running");
    flow_control_queue_size: Option<Number> = of_key(&row.numbers, "flow_control_queue_size");
    flow_control_queue_bytes: Option<Number> = of_key(&row.numbers, "flow_control_queue_bytes");
    /// In seconds.
    duration_sum: Option<Number> = of_key(&row.numbers, "duration_sum");
    duration_count: Option<Number> = of_key(&row.numbers, "duration_count");
    input_tokens_sum: Option<Number> = of_key(&row.numbers, "input_tokens_sum");
    input_tokens_count: Option<Number> = of_key(&row.numbers, "input_tokens_count");
    output_tokens_sum: Option<Number> = of_key(&row.numbers, "output_tokens_sum");
    output_tokens_count: Option<Number> = of_key(&row.numbers, "output_tokens_count");
    /// Seconds per generated token, of whole requests.
    ntpot_sum: Option<Number> = of_key(&row.numbers, "ntpot_sum");
    ntpot_count: Option<Number> = of_key(&row.numbers, "ntpot_count");
    /// In seconds.
    itl_sum: Option<Number> = of_key(&row.numbers, "itl_sum");
    itl_count: Option<Number> = of_key(&row.numbers, "itl_count");
    /// Sum in seconds and count, under `streaming=true` and `streaming=false`; null where the page
    /// has neither.
    ttft: Option<BTreeMap<&'static str, [Option<Number>; 2]>> = ttft(row);
}

document! {
    /// A pool of model servers. What the page does not have is null.
    PoolRow<'a> of (pool: &'a EndpointPickerPool);
    name: Option<Cow<'a, str>> = pool.name.as_deref().map(shorten);
    /// 0.0 to 1.0.
    avg_kv: Option<Number> = of_key(&pool.numbers, "avg_kv");
    avg_queue: Option<Number> = of_key(&pool.numbers, "avg_queue");
    avg_running: Option<Number> = of_key(&pool.numbers, "avg_running");
    /// Pods that are ready.
    ready: Option<Number> = of_key(&pool.numbers, "ready");
    /// From 1.0 on requests are held back.
    saturation_effective: Option<Number> = of_key(&pool.numbers, "saturation_effective");
    saturation_prefill: Option<Number> = of_key(&pool.numbers, "saturation_prefill");
    saturation_decode: Option<Number> = of_key(&pool.numbers, "saturation_decode");
    /// Pods without recent metrics.
    stale_endpoints: Option<Number> = of_key(&pool.numbers, "stale_endpoints");
    /// Requests rejected or evicted since the endpoint picker started.
    rejected: Option<Number> = of_key(&pool.numbers, "rejected");
    /// Requests waiting in each pod.
    per_pod_queue: BTreeMap<Cow<'a, str>, Option<Number>> =
        pool.per_pod_queue.iter()
        .map(|(pod, waiting)| (shorten(pod.as_str()), Number::of(Some(*waiting)))).collect();
}

document! {
    /// The load in flight to one port of a pod, as one producer counts it.
    EndpointRow<'a> of (endpoint: &'a EndpointPickerEndpoint);
    name: Cow<'a, str> = shorten(&endpoint.name);
    producer: Option<Cow<'a, str>> = endpoint.producer.as_deref().map(shorten);
    in_flight_requests: Option<Number> = of_key(&endpoint.numbers, "in_flight_requests");
    in_flight_tokens: Option<Number> = of_key(&endpoint.numbers, "in_flight_tokens");
}

/// A number as it stands on the page; whole ones are printed as such.
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(transparent))]
struct Number(f64);

impl Number {
    /// NaN and infinities are no numbers: what a server says when it does not know.
    fn of(value: Option<f64>) -> Option<Self> {
        value.filter(|value| value.is_finite()).map(Self)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Up to here an f64 counts by ones.
        const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
        let Self(value) = *self;
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and within 2^53")]
        if value.fract() == 0.0 && value.abs() <= WHOLE_MAX {
            serializer.serialize_i64(value as i64)
        } else {
            serializer.serialize_f64(value)
        }
    }
}

impl<'a> ScrapeDocument<'a> {
    /// The document of a page that is of some engine.
    pub(super) fn new(page: &'a Exposition, read: &Read) -> Self {
        let summary = &read.summary;
        let (engine, matched, content) = match page {
            Exposition::Server(page) => {
                let rows = page.rows.iter().map(|row| Row::of(row, page)).collect();
                let lora = page.lora.as_ref().map(Adapters::of);
                let matched = page.matched.iter();
                let matched =
                    matched.map(|it| (camel_case(it.quantity.key()), it.spec.to_string()));
                (page.engine.as_str(), matched.collect(), Content::Server { rows, lora })
            }
            Exposition::EndpointPicker(page) => {
                let per_model = page.models.iter().map(ModelRow::of).collect();
                let per_pool = page.pools.iter().map(PoolRow::of).collect();
                let matched = page.matched.iter();
                let matched = matched.map(|(key, series)| (camel_case(key), series.to_string()));
                let per_endpoint = page.endpoints.iter().map(EndpointRow::of).collect();
                let content = Content::EndpointPicker { per_model, per_pool, per_endpoint };
                (ENDPOINT_PICKER, matched.collect(), content)
            }
        };
        Self {
            schema_version: SCHEMA_VERSION,
            kind: "scrape",
            engine,
            samples: read.samples,
            malformed: summary.malformed.iter().map(MalformedLine::from).collect(),
            malformed_count: summary.malformed_count,
            matched,
            content,
        }
    }
}

impl From<&Malformed> for MalformedLine {
    fn from(malformed: &Malformed) -> Self {
        Self { line: malformed.line, reason: malformed.reason.to_string() }
    }
}

fn number(row: &EngineRow, quantity: Quantity) -> Option<Number> {
    Number::of(row.numbers[quantity])
}

/// A number of an endpoint picker.
fn of_key(numbers: &Numbers, key: &str) -> Option<Number> {
    Number::of(numbers.get(key).copied())
}

/// Sum and count of the time to first token, by the label of the requests.
fn ttft(row: &EndpointPickerModel) -> Option<BTreeMap<&'static str, [Option<Number>; 2]>> {
    let halves: BTreeMap<_, _> = [
        ("streaming=true", "ttft_streaming_sum", "ttft_streaming_count"),
        ("streaming=false", "ttft_whole_sum", "ttft_whole_count"),
    ]
    .into_iter()
    .map(|(label, sum, count)| (label, [sum, count].map(|key| of_key(&row.numbers, key))))
    .filter(|(_, halves)| halves.iter().any(Option::is_some))
    .collect();
    (!halves.is_empty()).then_some(halves)
}

/// Whether the server of a row serves, where it says.
pub(super) fn state(row: &EngineRow) -> Option<&'static str> {
    let state = if row.numbers[Quantity::Sleeping]? > 0.0 {
        ReplicaState::Sleeping
    } else {
        ReplicaState::Serving
    };
    Some(state.as_str())
}

/// `kvCacheUsage` for `kv_cache_usage`.
fn camel_case(key: &str) -> String {
    let mut words = key.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}
