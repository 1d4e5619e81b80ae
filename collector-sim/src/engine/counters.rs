//! What an engine counts, in the buckets of its generation of vLLM.

use std::time::Duration;

use crate::engine::histogram::Histogram;
use crate::spec::MetricNames;
use crate::truth::Totals;

/// Bounds for lengths of requests, up to the context length that vLLM was started with.
const LENGTHS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5];
/// The same for the shorter contexts of the older generation.
const LENGTHS_V0: &[f64] = LENGTHS.split_at(14).0;
const STEP_TOKENS: &[f64] =
    &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
const PARAMETER_N: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
const BETWEEN_TOKENS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
const WHOLE_REQUEST: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];

/// Everything an engine has counted since it started.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    pub(crate) arrived: u64,
    pub(crate) finished: u64,
    /// Prompt tokens whose prefill is done, and how many of them the prefix cache gave.
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_prompt_tokens: u64,
    pub(crate) generation_tokens: u64,
    pub(crate) prefix_queries: u64,
    pub(crate) prefix_hits: u64,
    pub(crate) request_prompt_tokens: Histogram,
    pub(crate) request_generation_tokens: Histogram,
    /// What clients allowed: in this simulation, what they got.
    pub(crate) request_max_tokens: Histogram,
    pub(crate) request_n: Histogram,
    pub(crate) computed_prompt_tokens: Histogram,
    pub(crate) step_tokens: Histogram,
    pub(crate) time_to_first_token: Histogram,
    pub(crate) inter_token_latency: Histogram,
    pub(crate) time_per_output_token: Histogram,
    pub(crate) e2e_latency: Histogram,
    pub(crate) queue_time: Histogram,
    pub(crate) inference_time: Histogram,
    pub(crate) prefill_time: Histogram,
    pub(crate) decode_time: Histogram,
}

impl Counters {
    pub(crate) fn new(names: MetricNames) -> Self {
        let lengths = match names {
            MetricNames::V1 => LENGTHS,
            MetricNames::V0 => LENGTHS_V0,
        };
        Self {
            arrived: 0,
            finished: 0,
            prompt_tokens: 0,
            cached_prompt_tokens: 0,
            generation_tokens: 0,
            prefix_queries: 0,
            prefix_hits: 0,
            request_prompt_tokens: Histogram::of_tokens(lengths),
            request_generation_tokens: Histogram::of_tokens(lengths),
            request_max_tokens: Histogram::of_tokens(lengths),
            request_n: Histogram::of_tokens(PARAMETER_N),
            computed_prompt_tokens: Histogram::of_tokens(lengths),
            step_tokens: Histogram::of_tokens(STEP_TOKENS),
            time_to_first_token: Histogram::of_times(FIRST_TOKEN),
            inter_token_latency: Histogram::of_times(BETWEEN_TOKENS),
            time_per_output_token: Histogram::of_times(BETWEEN_TOKENS),
            e2e_latency: Histogram::of_times(WHOLE_REQUEST),
            queue_time: Histogram::of_times(WHOLE_REQUEST),
            inference_time: Histogram::of_times(WHOLE_REQUEST),
            prefill_time: Histogram::of_times(WHOLE_REQUEST),
            decode_time: Histogram::of_times(WHOLE_REQUEST),
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            arrived: self.arrived,
            finished: self.finished,
            prompt_tokens: self.request_prompt_tokens.sum_units(),
            output_tokens: self.request_generation_tokens.sum_units(),
            first_tokens: self.time_to_first_token.count(),
            ttft: Duration::from_nanos(self.time_to_first_token.sum_units()),
            gaps: self.inter_token_latency.count(),
            itl: Duration::from_nanos(self.inter_token_latency.sum_units()),
            prefix_queries: self.prefix_queries,
            prefix_hits: self.prefix_hits,
        }
    }
}
