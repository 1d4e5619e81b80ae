//! What a page says.

use std::sync::Arc;

use collector_core::{EngineName, ModelId, Role};
use collector_engines::{Expression, Quantity};

use crate::endpoint_picker::EndpointPickerMetrics;

/// What one page says, once its last sample is read.
#[derive(Clone, PartialEq, Debug)]
pub enum Page {
    /// It is a model server's.
    Server(ServerPage),
    /// It is an endpoint picker's.
    EndpointPicker(EndpointPickerMetrics),
    /// It is of no engine, or not of the one that it should be of.
    Unknown(UnknownPage),
}

/// A page on which nothing was found that was looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownPage {
    /// The engine that it should be of; `None` when any would do.
    pub expected: Option<EngineName>,
    /// The engine that its series are of.
    pub looks_like: Option<EngineName>,
    /// What shows the page, where it is no model server but a router or gateway in front of several.
    pub router: Option<&'static str>,
}

/// What a model server's page says.
#[derive(Clone, PartialEq, Debug)]
pub struct ServerPage {
    /// What its series are read as.
    pub engine: EngineName,
    /// By model, replica and rank; what is given per server has no rank, and comes last of its model.
    pub rows: Vec<EngineRow>,
    /// Why nobody can say which model it serves; the rows then have what stands in its labels.
    pub no_model: Option<NoModel>,
    /// Ids of its models are compared without case.
    pub ignore_case: bool,
    /// The quantities that its engine may report.
    pub reports: Arc<[Quantity]>,
    /// Why quantities that its engine reports are unknown, where the page says.
    pub reasons: Vec<(Quantity, Arc<str>)>,
    /// When the process was started that shows the page, in seconds since 1970 by its own clock.
    pub process_start: Option<f64>,
    /// The LoRA adapters of the server, where it tells.
    pub lora: Option<LoraAdapters>,
    /// The alternatives that were on the page.
    pub matched: Arc<[Matched]>,
    /// Samples of a series that was on the page before. The first one counts, as in Prometheus.
    pub repeated: u64,
    /// Samples beyond the number of samples and rows that are read. Where there are any, sums are unknown.
    pub beyond_limit: u64,
}

/// Why a server's page names no model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoModel {
    /// No label of its series holds an id.
    NoLabel,
    /// The label holds what is no model's id.
    NoId(Box<str>),
    /// The model was given, and the page names several, none of which is that one.
    Several(Vec<Box<str>>),
}

/// Which alternative a quantity was read from.
///
/// Between pages that matched differently, a counter is not the same counter: no rate spans them.
#[derive(Clone, PartialEq, Debug)]
pub struct Matched {
    /// The quantity's key, `kv_cache_usage` for example.
    pub quantity: &'static str,
    /// What it was read from.
    pub spec: Arc<Expression>,
}

/// What a page says of one model on one data-parallel rank of one replica.
///
/// `None`: it is not on the page. Numbers are as the page has them, NaN included:
/// [`collector_core::sanitize`] judges them.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct EngineRow {
    /// `None` where no series of the row names a model.
    pub model: Option<ModelId>,
    /// The data-parallel engine; `None` for what is given per server.
    pub rank: Option<Arc<str>>,
    /// The replica, where the page has several.
    pub replica: Option<Arc<str>>,
    /// `prefill` or `decode`, where the series say so.
    pub role: Option<Role>,
    /// Requests waiting.
    pub waiting: Option<f64>,
    /// Requests in the running batch.
    pub running: Option<f64>,
    /// Share of the KV cache in use, 0.0 to 1.0.
    pub kv_cache_usage: Option<f64>,
    /// Tokens in a KV-cache block.
    pub block_size: Option<f64>,
    /// Blocks of the KV cache.
    pub num_gpu_blocks: Option<f64>,
    /// Tokens the KV cache holds, as the server reports them.
    pub kv_capacity_tokens: Option<f64>,
    /// Greater than 0 when the server sleeps.
    pub sleeping: Option<f64>,
    /// Share of prompt tokens found in the prefix cache, 0.0 to 1.0, as the server computes it.
    pub prefix_cache_hit_rate: Option<f64>,
    /// What only grows, until the server restarts.
    pub counters: Counters,
    /// By how much each counter went up since the page before, series by series; only where the reader
    /// was asked for it.
    pub increases: Option<Box<Counters>>,
    /// When what carries a timestamp was sampled, the oldest of its samples: milliseconds since 1970.
    pub times: Vec<(Quantity, i64)>,
    /// Why numbers are unknown though their series are there.
    pub reasons: Vec<(Quantity, Arc<str>)>,
}

/// Sums since the server started. `None`: not on the page.
///
/// Not every engine has all; what stands for each other is told by the field.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Counters {
    /// Requests that ended, by whatever reason the engine calls a success.
    pub request_success_total: Option<f64>,
    /// Requests that ended in any way.
    pub requests_total: Option<f64>,
    /// Prompt tokens of `prompt_tokens_count` requests.
    pub prompt_tokens_sum: Option<f64>,
    /// Requests whose prompt was processed: what arrived.
    pub prompt_tokens_count: Option<f64>,
    /// Prompt tokens, of however many requests.
    pub prompt_tokens_total: Option<f64>,
    /// Generated tokens of `generation_tokens_count` requests.
    pub generation_tokens_sum: Option<f64>,
    /// Requests that ended.
    pub generation_tokens_count: Option<f64>,
    /// Generated tokens, of however many requests.
    pub generation_tokens_total: Option<f64>,
    /// Times to first token, in seconds.
    pub ttft_sum: Option<f64>,
    /// First tokens.
    pub ttft_count: Option<f64>,
    /// Inter-token latencies, in seconds.
    pub itl_sum: Option<f64>,
    /// Inter-token latencies measured.
    pub itl_count: Option<f64>,
    /// What the prefix cache had, in the unit of `prefix_queries`: tokens, or blocks (TensorRT-LLM).
    pub prefix_hits: Option<f64>,
    /// What was looked for in the prefix cache.
    pub prefix_queries: Option<f64>,
    /// Prompt tokens that the prefix cache had, out of `prompt_tokens_total` (SGLang).
    pub cached_tokens_total: Option<f64>,
    /// Times in the queue, in seconds.
    pub queue_time_sum: Option<f64>,
    /// Times in the queue measured.
    pub queue_time_count: Option<f64>,
    /// Times in prefill, in seconds.
    pub prefill_time_sum: Option<f64>,
    /// Times in prefill measured.
    pub prefill_time_count: Option<f64>,
    /// Times in decode, in seconds.
    pub decode_time_sum: Option<f64>,
    /// Times in decode measured.
    pub decode_time_count: Option<f64>,
}

impl EngineRow {
    /// The place of a gauge; `None` for a counter.
    pub(super) fn gauge_mut(&mut self, quantity: Quantity) -> Option<&mut Option<f64>> {
        Some(match quantity {
            Quantity::Waiting => &mut self.waiting,
            Quantity::Running => &mut self.running,
            Quantity::KvCacheUsage => &mut self.kv_cache_usage,
            Quantity::KvCapacityTokens => &mut self.kv_capacity_tokens,
            Quantity::BlockSize => &mut self.block_size,
            Quantity::NumGpuBlocks => &mut self.num_gpu_blocks,
            Quantity::Sleeping => &mut self.sleeping,
            Quantity::PrefixCacheHitRate => &mut self.prefix_cache_hit_rate,
            _ => return None,
        })
    }

    /// Share of prompt tokens found in the prefix cache since the server was started: hits over
    /// look-ups, cached over all prompt tokens, or what the server says.
    pub fn hit_rate_since_start(&self) -> Option<f64> {
        let counters = &self.counters;
        let share = |part: Option<f64>, whole: Option<f64>| {
            let share = part? / whole.filter(|whole| *whole > 0.0)?;
            share.is_finite().then_some(share)
        };
        share(counters.prefix_hits, counters.prefix_queries)
            .or_else(|| share(counters.cached_tokens_total, counters.prompt_tokens_total))
            .or(self.prefix_cache_hit_rate)
    }

    /// Tokens the KV cache holds: as the server reports them, else blocks times their size.
    pub fn capacity(&self) -> Option<f64> {
        self.kv_capacity_tokens.or_else(|| Some(self.num_gpu_blocks? * self.block_size?))
    }
}

impl Counters {
    /// The place of a counter; `None` for a gauge.
    pub(super) fn counter_mut(&mut self, quantity: Quantity) -> Option<&mut Option<f64>> {
        Some(match quantity {
            Quantity::RequestSuccessTotal => &mut self.request_success_total,
            Quantity::RequestsTotal => &mut self.requests_total,
            Quantity::PromptTokensSum => &mut self.prompt_tokens_sum,
            Quantity::PromptTokensCount => &mut self.prompt_tokens_count,
            Quantity::PromptTokensTotal => &mut self.prompt_tokens_total,
            Quantity::GenerationTokensSum => &mut self.generation_tokens_sum,
            Quantity::GenerationTokensCount => &mut self.generation_tokens_count,
            Quantity::GenerationTokensTotal => &mut self.generation_tokens_total,
            Quantity::TtftSum => &mut self.ttft_sum,
            Quantity::TtftCount => &mut self.ttft_count,
            Quantity::ItlSum => &mut self.itl_sum,
            Quantity::ItlCount => &mut self.itl_count,
            Quantity::PrefixHits => &mut self.prefix_hits,
            Quantity::PrefixQueries => &mut self.prefix_queries,
            Quantity::CachedTokensTotal => &mut self.cached_tokens_total,
            Quantity::QueueTimeSum => &mut self.queue_time_sum,
            Quantity::QueueTimeCount => &mut self.queue_time_count,
            Quantity::PrefillTimeSum => &mut self.prefill_time_sum,
            Quantity::PrefillTimeCount => &mut self.prefill_time_count,
            Quantity::DecodeTimeSum => &mut self.decode_time_sum,
            Quantity::DecodeTimeCount => &mut self.decode_time_count,
            _ => return None,
        })
    }
}

/// The LoRA adapters of a server: `vllm:lora_requests_info`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoraAdapters {
    /// Adapters with running requests.
    pub running: Vec<Box<str>>,
    /// Adapters with waiting requests.
    pub waiting: Vec<Box<str>>,
    /// Adapters that fit into one batch.
    pub max: Option<u64>,
}
