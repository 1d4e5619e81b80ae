// SPDX-License-Identifier: Apache-2.0
//! The true state of pods and models, to compare readings with.

use std::ops::{AddAssign, Sub};
use std::time::Duration;

use serde::Serialize;

use crate::load::Load;

/// The gauges of an engine at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Gauges {
    /// Requests in the queue.
    pub waiting: u32,
    /// Requests in the running batch.
    pub running: u32,
    /// Fraction of the KV blocks in use, 0 to 1.
    pub kv_cache_usage: f64,
}

/// A pod at one instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PodTruth {
    /// Its data-parallel engines, sorted by label.
    pub engines: Vec<Gauges>,
    /// KV blocks of each engine.
    pub num_gpu_blocks: u32,
    /// Tokens in a block.
    pub block_size: u32,
    /// Its LoRA adapters in use; `None` without any.
    pub lora: Option<LoraTruth>,
    /// Totals since the pod's last start, over all engines.
    pub totals: Totals,
}

impl PodTruth {
    /// Returns the waiting requests, over all engines.
    pub fn waiting(&self) -> u32 {
        self.engines.iter().map(|engine| engine.waiting).sum()
    }

    /// Returns the running requests, over all engines.
    pub fn running(&self) -> u32 {
        self.engines.iter().map(|engine| engine.running).sum()
    }

    /// Returns the fraction of KV blocks in use of the fullest engine, 0 to 1.
    pub fn kv_cache_usage(&self) -> f64 {
        self.engines.iter().map(|engine| engine.kv_cache_usage).fold(0.0, f64::max)
    }
}

/// LoRA adapters at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoraTruth {
    /// Those of running requests, in the order of the description.
    pub running: Vec<String>,
    /// Those of waiting requests.
    pub waiting: Vec<String>,
    /// Greatest number in use at once.
    pub max: u32,
}

/// A variant at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantTruth {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The model that its pods serve.
    pub model: String,
    /// The engine in its pods, as the pod label `llm-d.ai/engine-type` has it.
    pub engine: String,
    /// The load as described.
    pub load: Load,
    /// The load now, requests per minute.
    pub requests_per_minute: f64,
    /// Requests queued by the Endpoint Picker.
    pub held: u64,
    /// Requests without a pod.
    pub refused: u64,
    /// Its pods by name; `None` for a dead pod.
    pub pods: Vec<(String, Option<PodTruth>)>,
}

/// A model in a namespace at one instant, over all variants that serve it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelTruth {
    /// Pods that answer.
    pub pods: u32,
    /// The current load in requests per minute, with its shape.
    pub requests_per_minute: f64,
    /// Requests queued by the Endpoint Picker; 0 without one.
    pub held: u64,
    /// Requests without a pod.
    pub refused: u64,
    /// Totals since the fleet began, including removed pods and former processes.
    pub totals: Totals,
}

/// Sums that only grow. The truth of a span is the difference of two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Requests that reached an engine.
    pub arrived: u64,
    /// Requests answered in full.
    pub finished: u64,
    /// Prompt tokens of the finished requests.
    pub prompt_tokens: u64,
    /// Tokens of the finished answers.
    pub output_tokens: u64,
    /// Requests that have their first token.
    pub first_tokens: u64,
    /// Time from arrival to first token, summed over these requests.
    #[serde(serialize_with = "seconds")]
    pub ttft: Duration,
    /// Gaps between two tokens of an answer.
    pub gaps: u64,
    /// The time of these gaps, summed.
    #[serde(serialize_with = "seconds")]
    pub itl: Duration,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Prompt tokens found there.
    pub prefix_hits: u64,
}

impl Totals {
    /// Returns the mean prompt length in tokens; `None` if no request has finished.
    pub fn mean_prompt_tokens(&self) -> Option<f64> {
        ratio(self.prompt_tokens as f64, self.finished)
    }

    /// Returns the mean answer length in tokens; `None` if no request has finished.
    pub fn mean_output_tokens(&self) -> Option<f64> {
        ratio(self.output_tokens as f64, self.finished)
    }

    /// Returns the mean time to first token in seconds; `None` if there was none.
    pub fn mean_ttft(&self) -> Option<f64> {
        ratio(self.ttft.as_secs_f64(), self.first_tokens)
    }

    /// Returns the mean time between tokens in seconds; `None` if there was no second token.
    pub fn mean_itl(&self) -> Option<f64> {
        ratio(self.itl.as_secs_f64(), self.gaps)
    }

    /// Returns the fraction of prompt tokens found in the prefix cache; `None` without lookups.
    pub fn prefix_hit_ratio(&self) -> Option<f64> {
        ratio(self.prefix_hits as f64, self.prefix_queries)
    }
}

/// Durations as numbers, to compare with sums on a page.
fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn ratio(sum: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| sum / count as f64)
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.arrived += other.arrived;
        self.finished += other.finished;
        self.prompt_tokens += other.prompt_tokens;
        self.output_tokens += other.output_tokens;
        self.first_tokens += other.first_tokens;
        self.ttft += other.ttft;
        self.gaps += other.gaps;
        self.itl += other.itl;
        self.prefix_queries += other.prefix_queries;
        self.prefix_hits += other.prefix_hits;
    }
}

impl Sub for Totals {
    type Output = Self;

    /// Returns the difference to `earlier`. For a pod that restarted in between it is zero: use the model's
    /// totals, which survive restarts.
    fn sub(self, earlier: Self) -> Self {
        Self {
            arrived: self.arrived.saturating_sub(earlier.arrived),
            finished: self.finished.saturating_sub(earlier.finished),
            prompt_tokens: self.prompt_tokens.saturating_sub(earlier.prompt_tokens),
            output_tokens: self.output_tokens.saturating_sub(earlier.output_tokens),
            first_tokens: self.first_tokens.saturating_sub(earlier.first_tokens),
            ttft: self.ttft.saturating_sub(earlier.ttft),
            gaps: self.gaps.saturating_sub(earlier.gaps),
            itl: self.itl.saturating_sub(earlier.itl),
            prefix_queries: self.prefix_queries.saturating_sub(earlier.prefix_queries),
            prefix_hits: self.prefix_hits.saturating_sub(earlier.prefix_hits),
        }
    }
}
