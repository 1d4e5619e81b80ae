// SPDX-License-Identifier: Apache-2.0
//! The expected value of each field of a row.

use collector_core::{Field as F, Field, ReplicaMetrics};

use super::fleet::{Change, Kind, Pod, Rank};

/// A reported field, with its true values before and after the change.
pub(crate) struct ReportedField {
    pub(crate) field: Field,
    pub(crate) what: &'static str,
    pub(crate) value: Option<f64>,
    /// `None` where the engine does not report it.
    pub(crate) truth: Option<Change>,
    /// The expected value if ranks are merged: the fullest rank's.
    pub(crate) merged: Option<Change>,
}

impl ReportedField {
    /// Returns whether the value matches; counts are integers.
    pub(crate) fn is(&self, value: f64, truth: f64) -> bool {
        let apart = (value - truth).abs();
        let rounding = if self.what == "in use" { 1.0 } else { 0.0 };
        apart <= f64::max(rounding, 0.5_f64.min(truth.abs() * 0.005).max(1e-9))
    }
}

/// The fields of a row of a pod.
pub(crate) fn fields(pod: &Pod, row: &ReplicaMetrics) -> Vec<ReportedField> {
    let count = |count: Option<u64>| count.map(|count| count as f64);
    let capacity = |rank: &Rank| rank.blocks * rank.block_size;
    let largest = |of: &dyn Fn(&Rank) -> f64| pod.ranks.iter().map(of).fold(0.0, f64::max);
    let sums = |of: fn(&Rank) -> Change| [0, 1].map(|age| pod.sum(|rank| of(rank)[age]));
    let peaks = |of: fn(&Rank) -> Change| [0, 1].map(|age| largest(&|rank| of(rank)[age]));
    let means = |of: fn(&Rank) -> f64| {
        [0, 1].map(|age| {
            let requests = pod.sum(|rank| rank.requests[age]);
            let sum = pod.sum(|rank| rank.requests[age] * of(rank));
            if requests > 0.0 { sum / requests } else { 0.0 }
        })
    };
    let tokens = [0, 1].map(|age| pod.sum(|rank| rank.usage[age] * capacity(rank)));
    let tokens_of_one = peaks(|rank| rank.usage).map(|usage| usage * largest(&capacity));
    let is_vllm = pod.kind == Kind::Vllm;
    let blocks = is_vllm.then(|| [pod.sum(|rank| rank.blocks); 2]);
    let block_size = is_vllm.then(|| [pod.ranks[0].block_size; 2]);
    let reported = |field, what, value, truth: Option<Change>, merged| ReportedField {
        field,
        what,
        value,
        truth,
        merged,
    };
    let (waiting, running) = (count(row.queue_length), count(row.running_requests));
    let in_use = count(row.tokens_in_use());
    let capacities = count(row.total_kv_capacity_tokens());
    let hits = row.prefix_cache_hit_rate;
    let queue = (sums(|rank| rank.waiting), peaks(|rank| rank.waiting));
    let batch = (sums(|rank| rank.running), peaks(|rank| rank.running));
    let all = [pod.sum(capacity); 2];
    let of_one = [largest(&capacity); 2];
    let blocks_of_one = [largest(&|rank| rank.blocks); 2];
    vec![
        reported(F::QueueLength, "queue", waiting, Some(queue.0), Some(queue.1)),
        reported(F::RunningRequests, "running", running, Some(batch.0), Some(batch.1)),
        reported(
            F::KvCacheUsage,
            "usage",
            row.kv_cache_usage,
            Some(peaks(|rank| rank.usage)),
            None,
        ),
        reported(F::KvCacheUsage, "in use", in_use, Some(tokens), Some(tokens_of_one)),
        reported(F::CacheConfig, "capacity", capacities, Some(all), Some(of_one)),
        reported(F::CacheConfig, "blocks", count(row.num_gpu_blocks), blocks, Some(blocks_of_one)),
        reported(F::CacheConfig, "block size", count(row.block_size), block_size, None),
        reported(F::PrefixCacheHitRate, "hit rate", hits, Some(means(|rank| rank.hits)), None),
    ]
}
