//! Which of vLLM's metric names this server holds, and under which label it names pods.

use std::collections::HashSet;

/// Names that vLLM has used for KV-cache usage, new one first.
pub(crate) const KV_CACHE: [&str; 2] = ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"];
/// Names of the inter-token latency histogram, without their suffix, new one first.
pub(crate) const ITL: [&str; 2] =
    ["vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"];
/// The gauge that every vLLM exposes; a pod is alive as long as it has this.
pub(crate) const RUNNING: &str = "vllm:num_requests_running";

/// What is asked for when the server is asked what it holds: one name for each family.
pub(crate) const PROBED: [&str; 11] = [
    RUNNING,
    "vllm:num_requests_waiting",
    KV_CACHE[0],
    KV_CACHE[1],
    "vllm:inter_token_latency_seconds_count",
    "vllm:time_per_output_token_seconds_count",
    "vllm:time_to_first_token_seconds_count",
    "vllm:request_prompt_tokens_count",
    "vllm:request_generation_tokens_sum",
    "vllm:prefix_cache_hits_total",
    "vllm:cache_config_info",
];

/// Which names of a renamed family exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Alias {
    /// The new name alone, or none at all: then the new one will be the first to appear.
    New,
    /// The old name alone.
    Old,
    /// Both, in a fleet of two vLLM versions.
    Both,
}

impl Alias {
    fn of(new: bool, old: bool) -> Self {
        match (new, old) {
            (true, true) => Self::Both,
            (false, true) => Self::Old,
            (_, false) => Self::New,
        }
    }
}

/// The names that exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Names {
    /// Of [`KV_CACHE`].
    pub(crate) kv_cache: Alias,
    /// Of [`ITL`].
    pub(crate) itl: Alias,
    /// Whether prefix-cache counters exist; vLLM before v1 has none.
    pub(crate) prefix_cache: bool,
    /// Whether there is any vLLM at all.
    pub(crate) any: bool,
}

impl Names {
    /// When the server would not say: ask under all names, which is exact and costs more.
    pub(crate) const UNKNOWN: Self =
        Self { kv_cache: Alias::Both, itl: Alias::Both, prefix_cache: true, any: false };

    /// From the names that the server holds.
    pub(crate) fn of(existing: &HashSet<String>) -> Self {
        let has = |name: &str| existing.contains(name);
        Self {
            kv_cache: Alias::of(has(KV_CACHE[0]), has(KV_CACHE[1])),
            itl: Alias::of(has(PROBED[4]), has(PROBED[5])),
            prefix_cache: existing.is_empty() || has("vllm:prefix_cache_hits_total"),
            any: has(RUNNING),
        }
    }

    /// Whether a query may hold two selectors.
    pub(crate) fn mixed(self) -> bool {
        self.kv_cache == Alias::Both || self.itl == Alias::Both
    }
}

/// The label that holds a pod's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PodLabel {
    /// `pod`, what Prometheus operators set.
    Pod,
    /// `pod_name`.
    PodName,
    /// Some series have one, some the other; `pod` wins where a series has both.
    Either,
}

impl PodLabel {
    /// From whether series with each of the labels exist.
    pub(crate) fn of(pod: bool, pod_name: bool) -> Self {
        match (pod, pod_name) {
            (true, true) => Self::Either,
            (false, true) => Self::PodName,
            (_, false) => Self::Pod,
        }
    }

    /// As it stands in a `by` clause.
    pub(crate) fn labels(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::PodName => "pod_name",
            Self::Either => "pod,pod_name",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(existing: &[&str], kv_cache: Alias, itl: Alias, any: bool) {
        let existing = existing.iter().map(ToString::to_string).collect();
        let names = Names::of(&existing);
        assert_eq!((names.kv_cache, names.itl, names.any), (kv_cache, itl, any), "{existing:?}");
    }

    #[test]
    fn each_family_is_recognised_under_its_own_name() {
        check(&[], Alias::New, Alias::New, false);
        check(&[RUNNING, KV_CACHE[1], PROBED[5]], Alias::Old, Alias::Old, true);
        check(&[RUNNING, KV_CACHE[0], KV_CACHE[1], PROBED[4]], Alias::Both, Alias::New, true);
    }
}
