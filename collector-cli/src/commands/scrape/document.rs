//! The JSON document of what is taken from a page.

use std::borrow::Cow;
use std::collections::BTreeMap;

use collector_core::ReplicaState;
use collector_epp::endpoint_picker::{EndpointPickerModel, EndpointPickerPool};
use collector_epp::engines::{
    ENDPOINT_PICKER, EngineRow, Exposition, LoraAdapters, Quantity, ServerExposition,
};
use collector_epp::scan::Malformed;
use serde::{Serialize, Serializer};

use super::Read;
use super::shorten::shorten;
use crate::output::SCHEMA_VERSION;

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
    EndpointPicker { per_model: Vec<ModelRow<'a>>, per_pool: Vec<PoolRow<'a>> },
}

/// One model on one data-parallel engine. What the page does not have is null.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Row<'a> {
    /// Null where no series of the row names it.
    model: Option<Cow<'a, str>>,
    /// The data-parallel engine (vLLM's label `engine`, SGLang's `dp_rank`); null for what is given
    /// per server.
    engine: Option<Cow<'a, str>>,
    waiting: Option<Number>,
    running: Option<Number>,
    /// 0.0 to 1.0.
    kv_cache_usage: Option<Number>,
    /// Tokens in a KV-cache block.
    block_size: Option<Number>,
    num_gpu_blocks: Option<Number>,
    request_success_total: Option<Number>,
    requests_total: Option<Number>,
    prompt_tokens_sum: Option<Number>,
    prompt_tokens_count: Option<Number>,
    prompt_tokens_total: Option<Number>,
    generation_tokens_sum: Option<Number>,
    generation_tokens_count: Option<Number>,
    generation_tokens_total: Option<Number>,
    /// In seconds.
    ttft_sum: Option<Number>,
    ttft_count: Option<Number>,
    /// In seconds.
    itl_sum: Option<Number>,
    itl_count: Option<Number>,
    /// In tokens, or in blocks where the server counts these.
    prefix_hits: Option<Number>,
    prefix_queries: Option<Number>,
    cached_tokens_total: Option<Number>,
    /// Tokens the KV cache holds: as the server reports them, else blocks times their size.
    kv_capacity_tokens: Option<Number>,
    /// Share of prompt tokens found in the prefix cache since the server was started, 0.0 to 1.0.
    prefix_cache_hit_rate: Option<Number>,
    /// The replica, where the page has several.
    replica: Option<Cow<'a, str>>,
    /// `prefill` or `decode`, where the series say so.
    role: Option<Cow<'a, str>>,
    /// `serving` or `sleeping`; null where the server does not say.
    state: Option<&'static str>,
    /// In seconds.
    queue_time_sum: Option<Number>,
    queue_time_count: Option<Number>,
    /// In seconds.
    prefill_time_sum: Option<Number>,
    prefill_time_count: Option<Number>,
    /// In seconds.
    decode_time_sum: Option<Number>,
    decode_time_count: Option<Number>,
    /// Why values are null, by the value's name, where the page says.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    reasons: BTreeMap<String, &'a str>,
}

/// The adapters of a server.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Adapters<'a> {
    running: Vec<Cow<'a, str>>,
    waiting: Vec<Cow<'a, str>>,
    /// How many fit into one batch.
    max_lora: Option<u64>,
}

/// The requests for one model, as the picker counts them. What the page does not have is null.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ModelRow<'a> {
    /// The model that was asked for.
    model: Option<Cow<'a, str>>,
    /// The model that they were sent to; null for what is given of all targets together.
    target: Option<Cow<'a, str>>,
    requests_total: Option<Number>,
    errors_total: Option<Number>,
    running: Option<Number>,
    flow_control_queue_size: Option<Number>,
    flow_control_queue_bytes: Option<Number>,
    /// In seconds.
    duration_sum: Option<Number>,
    duration_count: Option<Number>,
    input_tokens_sum: Option<Number>,
    input_tokens_count: Option<Number>,
    output_tokens_sum: Option<Number>,
    output_tokens_count: Option<Number>,
    /// Seconds per generated token, of whole requests.
    ntpot_sum: Option<Number>,
    ntpot_count: Option<Number>,
    /// In seconds.
    itl_sum: Option<Number>,
    itl_count: Option<Number>,
    /// Sum in seconds and count, under `streaming=true` and `streaming=false`; null where the page
    /// has neither.
    ttft: Option<BTreeMap<&'static str, [Option<Number>; 2]>>,
}

/// A pool of model servers. What the page does not have is null.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct PoolRow<'a> {
    name: Option<Cow<'a, str>>,
    /// 0.0 to 1.0.
    avg_kv: Option<Number>,
    avg_queue: Option<Number>,
    avg_running: Option<Number>,
    /// Pods that are ready.
    ready: Option<Number>,
    /// From 1.0 on requests are held back.
    saturation_effective: Option<Number>,
    /// Requests waiting in each pod.
    per_pod_queue: BTreeMap<Cow<'a, str>, Option<Number>>,
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
                let content = Content::EndpointPicker { per_model, per_pool };
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

impl<'a> Row<'a> {
    fn of(row: &'a EngineRow, page: &'a ServerExposition) -> Self {
        let number = |quantity| Number::of(row.numbers[quantity]);
        let reasons = page.reasons.iter().chain(&row.reasons);
        Self {
            model: row.model.as_ref().map(|model| shorten(model.as_ref())),
            engine: row.rank.as_deref().map(shorten),
            replica: row.replica.as_deref().map(shorten),
            role: row.role.as_ref().map(|role| shorten(role.as_ref())),
            state: state(row),
            waiting: number(Quantity::Waiting),
            running: number(Quantity::Running),
            kv_cache_usage: number(Quantity::KvCacheUsage),
            block_size: number(Quantity::BlockSize),
            num_gpu_blocks: number(Quantity::NumGpuBlocks),
            kv_capacity_tokens: Number::of(row.capacity()),
            prefix_cache_hit_rate: Number::of(row.hit_rate_since_start()),
            request_success_total: number(Quantity::RequestSuccessTotal),
            requests_total: number(Quantity::RequestsTotal),
            prompt_tokens_sum: number(Quantity::PromptTokensSum),
            prompt_tokens_count: number(Quantity::PromptTokensCount),
            prompt_tokens_total: number(Quantity::PromptTokensTotal),
            generation_tokens_sum: number(Quantity::GenerationTokensSum),
            generation_tokens_count: number(Quantity::GenerationTokensCount),
            generation_tokens_total: number(Quantity::GenerationTokensTotal),
            ttft_sum: number(Quantity::TtftSum),
            ttft_count: number(Quantity::TtftCount),
            itl_sum: number(Quantity::ItlSum),
            itl_count: number(Quantity::ItlCount),
            prefix_hits: number(Quantity::PrefixHits),
            prefix_queries: number(Quantity::PrefixQueries),
            cached_tokens_total: number(Quantity::CachedTokensTotal),
            queue_time_sum: number(Quantity::QueueTimeSum),
            queue_time_count: number(Quantity::QueueTimeCount),
            prefill_time_sum: number(Quantity::PrefillTimeSum),
            prefill_time_count: number(Quantity::PrefillTimeCount),
            decode_time_sum: number(Quantity::DecodeTimeSum),
            decode_time_count: number(Quantity::DecodeTimeCount),
            reasons: reasons.map(|(of, reason)| (camel_case(of.key()), &**reason)).collect(),
        }
    }
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

impl<'a> Adapters<'a> {
    fn of(lora: &'a LoraAdapters) -> Self {
        Self {
            running: lora.running.iter().map(|name| shorten(name)).collect(),
            waiting: lora.waiting.iter().map(|name| shorten(name)).collect(),
            max_lora: lora.max,
        }
    }
}

impl<'a> ModelRow<'a> {
    fn of(row: &'a EndpointPickerModel) -> Self {
        let number = |key| Number::of(row.numbers.get(key).copied());
        let ttft = [
            ("streaming=true", "ttft_streaming_sum", "ttft_streaming_count"),
            ("streaming=false", "ttft_whole_sum", "ttft_whole_count"),
        ];
        let ttft: BTreeMap<_, _> = ttft
            .into_iter()
            .map(|(label, sum, count)| (label, [number(sum), number(count)]))
            .filter(|(_, halves)| halves.iter().any(Option::is_some))
            .collect();
        Self {
            model: row.model.as_ref().map(|model| shorten(model.as_ref())),
            target: row.target.as_ref().map(|target| shorten(target.as_ref())),
            requests_total: number("requests_total"),
            errors_total: number("errors_total"),
            running: number("running"),
            flow_control_queue_size: number("flow_control_queue_size"),
            flow_control_queue_bytes: number("flow_control_queue_bytes"),
            duration_sum: number("duration_sum"),
            duration_count: number("duration_count"),
            input_tokens_sum: number("input_tokens_sum"),
            input_tokens_count: number("input_tokens_count"),
            output_tokens_sum: number("output_tokens_sum"),
            output_tokens_count: number("output_tokens_count"),
            ntpot_sum: number("ntpot_sum"),
            ntpot_count: number("ntpot_count"),
            itl_sum: number("itl_sum"),
            itl_count: number("itl_count"),
            ttft: (!ttft.is_empty()).then_some(ttft),
        }
    }
}

impl<'a> PoolRow<'a> {
    fn of(pool: &'a EndpointPickerPool) -> Self {
        let number = |key| Number::of(pool.numbers.get(key).copied());
        let queue = pool.per_pod_queue.iter();
        Self {
            name: pool.name.as_deref().map(shorten),
            avg_kv: number("avg_kv"),
            avg_queue: number("avg_queue"),
            avg_running: number("avg_running"),
            ready: number("ready"),
            saturation_effective: number("saturation_effective"),
            per_pod_queue: queue
                .map(|(pod, waiting)| (shorten(pod.as_str()), Number::of(Some(*waiting))))
                .collect(),
        }
    }
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
