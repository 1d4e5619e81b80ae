// SPDX-License-Identifier: Apache-2.0
//! One engine as a queueing system: a queue, a running batch and a KV cache.
//!
//! A request waits until the batch and the cache have room for it, spends its prefill time, then yields a
//! token per inter-token latency until its answer is complete. Tokens and blocks between its events (first
//! token, end) follow from the time of the first token, so the cost is per request, not per token.
//!
//! Unlike real servers, which admit on the blocks of the prompt and preempt when answers exceed the cache, a
//! request is admitted when the blocks of its whole length are free. Nothing is ever preempted, and an
//! admitted request takes exactly its described time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::engine::counters::Counters;
use crate::engine::lora::{Combination, LoraLog};
use crate::load::Request;
use crate::picker::Answered;
use crate::spec::EngineSpec;
use crate::truth::Gauges;

/// An engine since its start.
#[derive(Debug)]
pub(crate) struct Engine {
    max_num_seqs: usize,
    num_gpu_blocks: u32,
    block_size: u32,
    prefix_hit_ratio: f64,
    /// Lookups and hits when the ratio was set.
    prefix_before: (u64, u64),
    waiting: VecDeque<Waiting>,
    running: BTreeMap<u64, Running>,
    /// The next event of each running request.
    schedule: BinaryHeap<Reverse<(Duration, u64)>>,
    /// Blocks that the running requests hold or will need.
    reserved_blocks: u32,
    next_id: u64,
    counters: Counters,
    /// `None` without adapters.
    lora: Option<LoraLog>,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    arrived: Duration,
}

#[derive(Debug)]
struct Running {
    request: Request,
    arrived: Duration,
    admitted: Duration,
    /// Prompt tokens from the prefix cache.
    cached_tokens: u32,
    /// `None` during prefill.
    first_token: Option<Duration>,
    /// Gaps between tokens that were already counted.
    counted_gaps: u32,
}

/// An engine at one instant.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) gauges: Gauges,
    pub(crate) counters: Counters,
    /// The past combinations of adapters, with the simulated time when each last existed; `None` without
    /// adapters.
    pub(crate) lora: Option<Vec<(Combination, Duration)>>,
}

impl Engine {
    /// Makes an engine. `picked`: an Endpoint Picker in front of it counts its requests.
    pub(crate) fn new(spec: &EngineSpec, prefix_hit_ratio: f64, picked: bool) -> Self {
        Self {
            max_num_seqs: usize::try_from(spec.max_num_seqs).unwrap_or(usize::MAX),
            num_gpu_blocks: spec.num_gpu_blocks,
            block_size: spec.block_size,
            prefix_hit_ratio,
            prefix_before: (0, 0),
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            schedule: BinaryHeap::new(),
            reserved_blocks: 0,
            next_id: 0,
            counters: Counters::new(spec, picked),
            lora: (!spec.lora_adapters.is_empty()).then(LoraLog::new),
        }
    }

    /// Adds a request. Arrivals must be in the order of their times.
    pub(crate) fn arrive(&mut self, at: Duration, request: Request) {
        self.advance_to(at);
        self.counters.arrived += 1;
        if let (Some(lora), Some(adapter)) = (&mut self.lora, request.adapter) {
            lora.arrive(at, adapter);
        }
        self.waiting.push_back(Waiting { request, arrived: at });
        self.admit(at);
    }

    /// Returns the state at `now`, which must not be before an earlier read or arrival.
    pub(crate) fn look(&mut self, now: Duration) -> Snapshot {
        self.advance_to(now);
        let mut blocks = 0;
        for running in self.running.values_mut() {
            count_gaps(running, now, &mut self.counters);
            blocks += blocks_of(running.tokens_held(), self.block_size);
        }
        let number = |len| u32::try_from(len).unwrap_or(u32::MAX);
        Snapshot {
            gauges: Gauges {
                waiting: number(self.waiting.len()),
                running: number(self.running.len()),
                kv_cache_usage: f64::from(blocks) / f64::from(self.num_gpu_blocks),
            },
            counters: self.counters.clone(),
            lora: self.lora.as_ref().map(|lora| lora.shown(now)),
        }
    }

    /// Returns the number of waiting and running requests at the last advance.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.waiting.len(), self.running.len())
    }

    /// Returns the time of its next event; `None` if it is idle.
    pub(crate) fn next_event(&self) -> Option<Duration> {
        self.schedule.peek().map(|Reverse((at, _))| *at)
    }

    /// Returns the adapters in use at the last advance; `None` without adapters.
    pub(crate) fn adapters(&self) -> Option<Combination> {
        self.lora.as_ref().map(LoraLog::present)
    }

    /// Changes the hit ratio of the prefix cache from now on.
    pub(crate) fn set_prefix_hit_ratio(&mut self, ratio: f64) {
        self.prefix_hit_ratio = ratio;
        self.prefix_before = (self.counters.prefix_queries, self.counters.prefix_hits);
    }

    /// Processes all events before `now`.
    pub(crate) fn advance_to(&mut self, now: Duration) {
        while let Some(&Reverse((at, id))) = self.schedule.peek()
            && at <= now
        {
            self.schedule.pop();
            let Some(mut running) = self.running.remove(&id) else {
                continue;
            };
            if running.first_token.is_none() {
                self.count_first_token(&mut running, at);
                self.schedule.push(Reverse((at + running.request.decode_time(), id)));
                self.running.insert(id, running);
            } else {
                self.finish(running, at);
                self.admit(at);
            }
        }
    }

    fn admit(&mut self, now: Duration) {
        while let Some(next) = self.waiting.front()
            && self.running.len() < self.max_num_seqs
        {
            let blocks = blocks_of(next.request.tokens(), self.block_size);
            if self.reserved_blocks.saturating_add(blocks) > self.num_gpu_blocks {
                break;
            }
            let Some(Waiting { request, arrived }) = self.waiting.pop_front() else {
                break;
            };
            if let (Some(lora), Some(adapter)) = (&mut self.lora, request.adapter) {
                lora.admit(now, adapter);
            }
            self.reserved_blocks += blocks;
            let id = self.next_id;
            self.next_id += 1;
            self.schedule.push(Reverse((now + request.prefill, id)));
            let cached_tokens = self.lookup_prefix(request.prompt_tokens);
            self.running.insert(
                id,
                Running {
                    request,
                    arrived,
                    admitted: now,
                    cached_tokens,
                    first_token: None,
                    counted_gaps: 0,
                },
            );
        }
    }

    /// Counts a prefix-cache lookup and returns its hit tokens. The ratio holds for the sum of all lookups,
    /// so rounding errors do not accumulate.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count, never negative and never more than the count"
    )]
    fn lookup_prefix(&mut self, prompt_tokens: u32) -> u32 {
        let counters = &mut self.counters;
        counters.prefix_queries += u64::from(prompt_tokens);
        let (queries, hits) = self.prefix_before;
        let hits =
            hits + ((counters.prefix_queries - queries) as f64 * self.prefix_hit_ratio) as u64;
        let found = hits.saturating_sub(counters.prefix_hits).min(u64::from(prompt_tokens)) as u32;
        counters.prefix_hits += u64::from(found);
        found
    }

    fn count_first_token(&mut self, running: &mut Running, at: Duration) {
        running.first_token = Some(at);
        let computed = running.request.prompt_tokens - running.cached_tokens;
        let counters = &mut self.counters;
        counters.prompt_tokens += u64::from(running.request.prompt_tokens);
        counters.cached_prompt_tokens += u64::from(running.cached_tokens);
        counters.generation_tokens += 1;
        // Engine steps are not simulated: a prefill counts as one step.
        counters.step_tokens.observe(computed + 1);
        let ttft = at.saturating_sub(running.arrived);
        counters.time_to_first_token.observe(ttft);
        if let Some(picker) = &mut counters.picker {
            picker.time_to_first_token.observe(ttft);
        }
    }

    fn finish(&mut self, mut running: Running, at: Duration) {
        count_gaps(&mut running, at, &mut self.counters);
        let request = &running.request;
        self.reserved_blocks -= blocks_of(request.tokens(), self.block_size);
        if let (Some(lora), Some(adapter)) = (&mut self.lora, request.adapter) {
            lora.finish(at, adapter);
        }

        let counters = &mut self.counters;
        counters.finished += 1;
        counters.request_prompt_tokens.observe(request.prompt_tokens);
        counters.request_generation_tokens.observe(request.output_tokens);
        counters.request_max_tokens.observe(request.output_tokens);
        counters.request_n.observe(1_u32);
        counters.computed_prompt_tokens.observe(request.prompt_tokens - running.cached_tokens);
        counters.request_cached_tokens.observe(running.cached_tokens);
        let whole = at.saturating_sub(running.arrived);
        counters.e2e_latency.observe(whole);
        counters.http_duration.observe(whole);
        counters.http_duration_fine.observe(whole);
        let queued = running.admitted.saturating_sub(running.arrived);
        counters.queue_time.observe(queued);
        counters.stage_queue_time.observe(queued);
        counters.stage_decode_waiting.observe(Duration::ZERO);
        counters.retractions.observe(0_u32);
        counters.inference_time.observe(at.saturating_sub(running.admitted));
        counters.prefill_time.observe(request.prefill);
        counters.decode_time.observe(request.decode_time());
        let per_token = if request.output_tokens > 1 { request.itl } else { Duration::ZERO };
        counters.time_per_output_token.observe(per_token);
        if let Some(picker) = &mut counters.picker {
            picker.observe(&Answered {
                prompt_tokens: request.prompt_tokens,
                cached_tokens: running.cached_tokens,
                output_tokens: request.output_tokens,
                duration: whole,
                time_per_output_token: per_token,
            });
        }
    }
}

/// Counts the tokens that a request has yielded by `now`, if not counted before.
fn count_gaps(running: &mut Running, now: Duration, counters: &mut Counters) {
    let Some(first_token) = running.first_token else {
        return;
    };
    let passed = now.saturating_sub(first_token).as_nanos() / running.request.itl.as_nanos().max(1);
    let gaps = u32::try_from(passed).unwrap_or(u32::MAX).min(running.request.output_tokens - 1);
    let new = u64::from(gaps - running.counted_gaps);
    running.counted_gaps = gaps;
    counters.generation_tokens += new;
    counters.inter_token_latency.observe_many(running.request.itl, new);
    if let Some(picker) = &mut counters.picker {
        picker.inter_token_latency.observe_many(running.request.itl, new);
    }
}

fn blocks_of(tokens: u32, block_size: u32) -> u32 {
    tokens.div_ceil(block_size)
}

impl Request {
    /// Returns the time from the first token to the last.
    fn decode_time(&self) -> Duration {
        self.itl.saturating_mul(self.output_tokens - 1)
    }

    /// Returns the tokens of prompt and answer.
    fn tokens(&self) -> u32 {
        self.prompt_tokens.saturating_add(self.output_tokens)
    }
}

impl Running {
    /// Returns the tokens in the KV cache at the last count.
    fn tokens_held(&self) -> u32 {
        let yielded = self.first_token.map_or(0, |_| 1 + self.counted_gaps);
        self.request.prompt_tokens.saturating_add(yielded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// 100 ms to the first token, then 10 tokens 20 ms apart: 280 ms in all; 9 to 10 blocks of 16.
    fn request() -> Request {
        Request {
            prompt_tokens: 140,
            output_tokens: 10,
            prefill: 100 * MS,
            itl: 20 * MS,
            adapter: None,
        }
    }

    fn engine(max_num_seqs: u32, num_gpu_blocks: u32) -> Engine {
        Engine::new(
            &EngineSpec { max_num_seqs, num_gpu_blocks, ..EngineSpec::default() },
            0.25,
            false,
        )
    }

    #[test]
    fn one_request_passes_through_prefill_and_decode() {
        let mut engine = engine(4, 100);
        engine.arrive(1000 * MS, request());

        let prefill = engine.look(1099 * MS);
        assert_eq!((prefill.gauges.running, prefill.gauges.waiting), (1, 0));
        assert!((prefill.gauges.kv_cache_usage - 0.09).abs() < 1e-12);
        assert_eq!(prefill.counters.time_to_first_token.count(), 0);
        assert_eq!(prefill.counters.generation_tokens, 0);

        let decode = engine.look(1190 * MS);
        assert_eq!(decode.counters.generation_tokens, 5);
        assert_eq!(decode.counters.inter_token_latency.count(), 4);
        assert!((decode.gauges.kv_cache_usage - 0.10).abs() < 1e-12);
        assert_eq!(decode.counters.request_prompt_tokens.count(), 0);

        let done = engine.look(1280 * MS);
        assert_eq!(done.gauges, Gauges::default());
        assert_eq!(done.counters.generation_tokens, 10);
        assert!((done.counters.time_to_first_token.sum() - 0.1).abs() < 1e-12);
        assert!((done.counters.e2e_latency.sum() - 0.28).abs() < 1e-12);
        assert!((done.counters.request_generation_tokens.sum() - 10.0).abs() < 1e-12);
    }

    #[test]
    fn a_full_batch_queues_requests_and_ttft_includes_the_wait() {
        let mut engine = engine(1, 100);
        engine.arrive(Duration::ZERO, request());
        engine.arrive(80 * MS, request());
        assert_eq!(engine.look(279 * MS).gauges.waiting, 1);

        let admitted = engine.look(280 * MS);
        assert_eq!((admitted.gauges.waiting, admitted.gauges.running), (0, 1));
        let counters = engine.look(1000 * MS).counters;
        assert!((counters.time_to_first_token.sum() - (0.1 + 0.3)).abs() < 1e-12);
        assert!((counters.queue_time.sum() - 0.2).abs() < 1e-12);
    }

    #[test]
    fn a_full_kv_cache_queues_requests() {
        let mut engine = engine(256, 19);
        engine.arrive(Duration::ZERO, request());
        engine.arrive(Duration::ZERO, request());
        let gauges = engine.look(10 * MS).gauges;
        assert_eq!((gauges.running, gauges.waiting), (1, 1));
    }

    #[test]
    fn the_cache_never_overflows_and_no_request_is_lost() {
        let mut engine = engine(8, 40);
        let mut rng = fastrand::Rng::with_seed(7);
        let mut now = Duration::ZERO;
        for _ in 0..2000 {
            now += MS * rng.u32(0..120);
            engine.arrive(
                now,
                Request {
                    prompt_tokens: rng.u32(1..400),
                    output_tokens: rng.u32(1..60),
                    prefill: MS * rng.u32(1..50),
                    itl: MS * rng.u32(1..40),
                    adapter: None,
                },
            );
            let Snapshot { gauges, counters, .. } = engine.look(now);
            assert!(gauges.running <= 8);
            assert!((0.0..=1.0).contains(&gauges.kv_cache_usage));
            let inside = u64::from(gauges.waiting + gauges.running);
            assert_eq!(counters.arrived, inside + counters.finished);
        }
        let end = engine.look(now + Duration::from_secs(3600));
        assert_eq!((end.counters.finished, end.gauges), (2000, Gauges::default()));
        assert_eq!(engine.reserved_blocks, 0);
    }

    #[test]
    fn prefix_hits_follow_the_described_ratio() {
        let mut engine = engine(4, 100);
        for second in 0..50 {
            engine.arrive(Duration::from_secs(second), request());
        }
        let counters = engine.look(Duration::from_secs(60)).counters;
        assert_eq!((counters.prefix_queries, counters.prefix_hits), (7000, 1750));
        assert_eq!((counters.prompt_tokens, counters.cached_prompt_tokens), (7000, 1750));
    }
}
