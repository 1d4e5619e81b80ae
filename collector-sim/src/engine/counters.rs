// SPDX-License-Identifier: Apache-2.0
//! The counters of an engine, in the buckets of its server.

use std::time::Duration;

use crate::engine::bounds::{
    Bounds, HTTP_DURATION, HTTP_DURATION_FINE, PARAMETER_N, SGLANG_RETRACTIONS,
};
use crate::engine::histogram::Histogram;
use crate::picker::PickerCounters;
use crate::spec::EngineSpec;
use crate::truth::Totals;

/// All counters of an engine since its start.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    pub(crate) arrived: u64,
    pub(crate) finished: u64,
    /// Prompt tokens after prefill, and how many of them came from the prefix cache.
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_prompt_tokens: u64,
    pub(crate) generation_tokens: u64,
    pub(crate) prefix_queries: u64,
    pub(crate) prefix_hits: u64,
    pub(crate) request_prompt_tokens: Histogram,
    pub(crate) request_generation_tokens: Histogram,
    /// The limits that clients set: equal to the result in this simulation.
    pub(crate) request_max_tokens: Histogram,
    pub(crate) request_n: Histogram,
    pub(crate) computed_prompt_tokens: Histogram,
    pub(crate) request_cached_tokens: Histogram,
    pub(crate) step_tokens: Histogram,
    pub(crate) time_to_first_token: Histogram,
    pub(crate) inter_token_latency: Histogram,
    pub(crate) time_per_output_token: Histogram,
    pub(crate) e2e_latency: Histogram,
    pub(crate) queue_time: Histogram,
    pub(crate) stage_queue_time: Histogram,
    pub(crate) inference_time: Histogram,
    pub(crate) prefill_time: Histogram,
    pub(crate) decode_time: Histogram,
    /// Requests are never retracted or delayed between prefill and decode: one zero per request.
    pub(crate) retractions: Histogram,
    pub(crate) stage_decode_waiting: Histogram,
    /// Counters of vLLM's web framework: all requests, by handler, and other handlers.
    pub(crate) http_duration_fine: Histogram,
    pub(crate) http_duration: Histogram,
    pub(crate) http_duration_elsewhere: Histogram,
    /// Counters of the Endpoint Picker in front of the engine; `None` without one.
    pub(crate) picker: Option<Box<PickerCounters>>,
}

impl Counters {
    pub(crate) fn new(spec: &EngineSpec, picked: bool) -> Self {
        let bounds = Bounds::of(spec);
        Self {
            arrived: 0,
            finished: 0,
            prompt_tokens: 0,
            cached_prompt_tokens: 0,
            generation_tokens: 0,
            prefix_queries: 0,
            prefix_hits: 0,
            request_prompt_tokens: Histogram::of_tokens(bounds.lengths),
            request_generation_tokens: Histogram::of_tokens(bounds.lengths),
            request_max_tokens: Histogram::of_tokens(bounds.lengths),
            request_n: Histogram::of_tokens(PARAMETER_N),
            computed_prompt_tokens: Histogram::of_tokens(bounds.lengths),
            request_cached_tokens: Histogram::of_tokens(bounds.cached_tokens),
            step_tokens: Histogram::of_tokens(bounds.step_tokens),
            time_to_first_token: Histogram::of_times(bounds.first_token),
            inter_token_latency: Histogram::of_times(bounds.between_tokens),
            time_per_output_token: Histogram::of_times(bounds.between_tokens),
            e2e_latency: Histogram::of_times(bounds.full_request),
            queue_time: Histogram::of_times(bounds.queue),
            stage_queue_time: Histogram::of_times(bounds.stage),
            inference_time: Histogram::of_times(bounds.full_request),
            prefill_time: Histogram::of_times(bounds.prefill),
            decode_time: Histogram::of_times(bounds.decode),
            retractions: Histogram::of_tokens(SGLANG_RETRACTIONS),
            stage_decode_waiting: Histogram::of_times(bounds.stage),
            http_duration_fine: Histogram::of_times(HTTP_DURATION_FINE),
            http_duration: Histogram::of_times(HTTP_DURATION),
            http_duration_elsewhere: Histogram::of_times(HTTP_DURATION),
            picker: picked.then(|| Box::new(PickerCounters::new())),
        }
    }

    /// Adds the counters of another engine of the same kind.
    pub(crate) fn add(&mut self, other: &Self) {
        self.arrived += other.arrived;
        self.finished += other.finished;
        self.prompt_tokens += other.prompt_tokens;
        self.cached_prompt_tokens += other.cached_prompt_tokens;
        self.generation_tokens += other.generation_tokens;
        self.prefix_queries += other.prefix_queries;
        self.prefix_hits += other.prefix_hits;
        for (histogram, others) in self.histograms().into_iter().zip(other.clone().histograms()) {
            histogram.add(others);
        }
        if let (Some(picker), Some(others)) = (&mut self.picker, &other.picker) {
            picker.add(others);
        }
    }

    fn histograms(&mut self) -> [&mut Histogram; 20] {
        [
            &mut self.request_prompt_tokens,
            &mut self.request_generation_tokens,
            &mut self.request_max_tokens,
            &mut self.request_n,
            &mut self.computed_prompt_tokens,
            &mut self.request_cached_tokens,
            &mut self.step_tokens,
            &mut self.time_to_first_token,
            &mut self.inter_token_latency,
            &mut self.time_per_output_token,
            &mut self.e2e_latency,
            &mut self.queue_time,
            &mut self.stage_queue_time,
            &mut self.inference_time,
            &mut self.prefill_time,
            &mut self.decode_time,
            &mut self.retractions,
            &mut self.stage_decode_waiting,
            &mut self.http_duration_fine,
            &mut self.http_duration,
        ]
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
