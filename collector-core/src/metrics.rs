// SPDX-License-Identifier: Apache-2.0
//! What is measured of each replica, and of each variant. What each field means over a window
//! stands in [`window`](crate::window).

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Tick;
use crate::endpoint_picker::EndpointPicker;
use crate::field::{Field, FieldReasons, Mark};
use crate::latency::Latencies;
use crate::load::Load;
use crate::model::{
    AcceleratorName, BackendName, EngineName, ModelRef, PodName, Role, VariantName,
};
use crate::supply::Supply;

/// The LoRA adapters of a replica, each list ordered by name.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LoraAdapters {
    /// Adapters that requests in the running batch use.
    pub running: Vec<Box<str>>,
    /// Adapters that waiting requests need.
    pub waiting: Vec<Box<str>>,
    /// How many adapters fit into one batch.
    pub max: Option<u64>,
}

/// Whether a replica can serve requests.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum ReplicaState {
    /// It serves.
    #[default]
    Serving,
    /// Its server runs and has released its KV cache or weights: it has no capacity until it is
    /// woken.
    Sleeping,
    /// The cluster has not seen it Ready yet: it answers, and gets no requests.
    Starting,
    /// The cluster has seen it Ready, and does not any more: it answers, and gets no new requests.
    NotReady,
    /// It is being deleted, and finishes its requests.
    Terminating,
}

impl ReplicaState {
    /// Returns whether it serves requests: one that is not Ready any more still works on those it has, and may be Ready
    /// again in a moment.
    pub const fn serves(self) -> bool {
        matches!(self, Self::Serving | Self::NotReady)
    }

    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Sleeping => "sleeping",
            Self::Starting => "starting",
            Self::NotReady => "notReady",
            Self::Terminating => "terminating",
        }
    }
}

/// What was measured of one replica. A field that was not measured is `None`, never 0.
///
/// A backend fills what it measured; the engine fills the variant.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ReplicaMetrics {
    /// The pod.
    pub pod_name: PodName,
    /// When the row was sampled by the scraper of the pod.
    pub sampled_at: Tick,
    /// The kind of model server.
    pub engine: Option<EngineName>,
    /// What the pod does where a request is served by several; `None` when it is not known.
    pub role: Option<Role>,
    /// Whether it can serve requests.
    pub state: ReplicaState,
    /// How many servers the row was put together from: ports of one pod, pods of one replica, or
    /// data-parallel ranks. 1 by default.
    pub servers: u32,
    /// The LoRA adapters at the last sample; `None` when the server has none or does not report them.
    pub lora_adapters: Option<Box<LoraAdapters>>,
    /// Histograms of its latencies over the window; `None` where none is known. Only direct scraping has them, and
    /// they do not survive a restart of the collector.
    pub latencies: Option<Arc<Latencies>>,
    /// The variant the pod belongs to; `None` when no variant claims it. Set by the engine.
    pub variant_name: Option<VariantName>,
    /// The variant's accelerator. Set by the engine.
    pub accelerator_name: Option<AcceleratorName>,
    /// Cost of one replica per hour, in the unit of the configuration: the variant's; `None` when no
    /// variant claims the pod. Set by the engine.
    pub cost: Option<f64>,
    /// Share of the KV-cache blocks in use, 0.0 to 1.0: the peak over the window, of the fullest
    /// data-parallel engine.
    pub kv_cache_usage: Option<f64>,
    /// Requests waiting: the peak over the window, summed over data-parallel engines.
    pub queue_length: Option<u64>,
    /// Those of `queue_length` that wait for room in the batch and the KV cache, and not for something else, such as a
    /// transfer: the peak over the window, summed over data-parallel engines, and as old as `queue_length`. `None` where
    /// the server does not report why requests wait.
    pub waiting_for_capacity: Option<u64>,
    /// Requests in the running batch at the last sample, summed over data-parallel engines.
    pub running_requests: Option<u64>,
    /// Tokens the KV cache holds as the server reports them, summed over data-parallel engines. `None`
    /// where it only reports blocks: see [`total_kv_capacity_tokens`](Self::total_kv_capacity_tokens).
    pub kv_capacity_tokens: Option<u64>,
    /// Tokens in the KV cache: usage times capacity, summed over data-parallel engines. `None` where
    /// the backend knows no engine apart: see [`tokens_in_use`](Self::tokens_in_use).
    pub kv_tokens_in_use: Option<u64>,
    /// KV-cache blocks, summed over data-parallel engines.
    pub num_gpu_blocks: Option<u64>,
    /// Tokens in a KV-cache block.
    pub block_size: Option<u64>,
    /// Mean prompt tokens of the requests that arrived in the window: this replica's where the load
    /// was asked per pod, else the mean of its model. 0 when there were none.
    pub avg_input_tokens: Option<f64>,
    /// Mean generated tokens, likewise.
    pub avg_output_tokens: Option<f64>,
    /// Share of prompt tokens found in the prefix cache over the last minutes, 0.0 to 1.0; 0 when
    /// none were looked up.
    pub prefix_cache_hit_rate: Option<f64>,
    /// The fields that are older than `sampled_at` or came from another backend. Mostly empty.
    pub marks: Vec<Mark>,
    /// Why fields are unknown. Mostly empty.
    pub reasons: FieldReasons,
}

impl ReplicaMetrics {
    /// A replica of which nothing is known yet but that it was alive at `sampled_at`.
    pub fn new(pod_name: impl Into<PodName>, sampled_at: Tick) -> Self {
        Self {
            pod_name: pod_name.into(),
            sampled_at,
            engine: None,
            role: None,
            state: ReplicaState::Serving,
            servers: 1,
            lora_adapters: None,
            latencies: None,
            variant_name: None,
            accelerator_name: None,
            cost: None,
            kv_cache_usage: None,
            queue_length: None,
            waiting_for_capacity: None,
            running_requests: None,
            kv_capacity_tokens: None,
            kv_tokens_in_use: None,
            num_gpu_blocks: None,
            block_size: None,
            avg_input_tokens: None,
            avg_output_tokens: None,
            prefix_cache_hit_rate: None,
            marks: Vec::new(),
            reasons: FieldReasons::NONE,
        }
    }

    /// Tokens the KV cache holds: as the server reports them, else `num_gpu_blocks * block_size`.
    /// `None` for a replica that sleeps.
    pub fn total_kv_capacity_tokens(&self) -> Option<u64> {
        if self.state == ReplicaState::Sleeping {
            return None;
        }
        self.kv_capacity_tokens.or_else(|| self.num_gpu_blocks?.checked_mul(self.block_size?))
    }

    /// Tokens in the KV cache: the sum over data-parallel engines where the backend knows them, else
    /// `kv_cache_usage * total_kv_capacity_tokens`, rounded.
    pub fn tokens_in_use(&self) -> Option<u64> {
        let capacity = self.total_kv_capacity_tokens()?;
        if let Some(tokens) = self.kv_tokens_in_use {
            return Some(tokens);
        }
        crate::sanitize::count(self.kv_cache_usage? * capacity as f64).ok()
    }

    /// Takes one field's value from another row of the same pod.
    pub fn copy_field(&mut self, field: Field, from: &Self) {
        match field {
            Field::KvCacheUsage => {
                self.kv_cache_usage = from.kv_cache_usage;
                self.kv_tokens_in_use = from.kv_tokens_in_use;
            }
            Field::QueueLength => {
                self.queue_length = from.queue_length;
                self.waiting_for_capacity = from.waiting_for_capacity;
            }
            Field::RunningRequests => self.running_requests = from.running_requests,
            Field::CacheConfig => {
                self.kv_capacity_tokens = from.kv_capacity_tokens;
                self.num_gpu_blocks = from.num_gpu_blocks;
                self.block_size = from.block_size;
            }
            Field::AvgInputTokens => self.avg_input_tokens = from.avg_input_tokens,
            Field::AvgOutputTokens => self.avg_output_tokens = from.avg_output_tokens,
            Field::PrefixCacheHitRate => self.prefix_cache_hit_rate = from.prefix_cache_hit_rate,
            Field::ArrivalRate | Field::TtftAverage | Field::ItlAverage => {}
        }
    }

    /// Returns whether nothing of the field is unknown: for [`Field::CacheConfig`], whether the capacity can be
    /// known, of which one half may have been measured alone.
    pub fn is_known(&self, field: Field) -> bool {
        match field {
            Field::CacheConfig => self.total_kv_capacity_tokens().is_some(),
            field => self.has(field),
        }
    }

    /// Whether the field was measured, or a part of it.
    pub fn has(&self, field: Field) -> bool {
        match field {
            Field::KvCacheUsage => self.kv_cache_usage.is_some(),
            Field::QueueLength => self.queue_length.is_some(),
            Field::RunningRequests => self.running_requests.is_some(),
            Field::CacheConfig => {
                self.kv_capacity_tokens.is_some()
                    || self.num_gpu_blocks.is_some()
                    || self.block_size.is_some()
            }
            Field::AvgInputTokens => self.avg_input_tokens.is_some(),
            Field::AvgOutputTokens => self.avg_output_tokens.is_some(),
            Field::PrefixCacheHitRate => self.prefix_cache_hit_rate.is_some(),
            Field::ArrivalRate | Field::TtftAverage | Field::ItlAverage => false,
        }
    }

    /// Takes what no [`Field`] stands for, what a pod is and which adapters it has, from another row of
    /// the same pod, where this one does not know it.
    pub fn fill_identity(&mut self, from: &Self) {
        if self.engine.is_none() {
            self.engine.clone_from(&from.engine);
        }
        if self.role.is_none() {
            self.role.clone_from(&from.role);
        }
        if self.lora_adapters.is_none() {
            self.lora_adapters.clone_from(&from.lora_adapters);
        }
    }

    /// When a field of this row was sampled.
    pub fn sampled_at(&self, field: Field) -> Tick {
        self.marks
            .iter()
            .find(|mark| mark.field == field)
            .map_or(self.sampled_at, |mark| mark.sampled_at)
    }
}

/// The replicas of one model, from one fetch.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Replicas {
    /// The model.
    pub model: ModelRef,
    /// The replicas, ordered by pod name. Empty: the model is known and has no live pod.
    pub replicas: Vec<ReplicaMetrics>,
    /// Where the replicas came from.
    pub backend: BackendName,
    /// The sampling time of the oldest replica; of the fetch itself when there is none.
    pub oldest: Tick,
    /// Some replicas may be absent: the server said so, or a part of the fetch failed.
    pub partial: bool,
    /// Whether no replica means no pod, as [`ModelSample::lists_pods`](crate::ModelSample::lists_pods) says. False: pods
    /// without series may exist.
    pub lists_pods: bool,
    /// The time over which peaks and rates were taken; `None` when the backend does not say.
    pub window: Option<Duration>,
    /// Fields whose query failed, with the reason.
    pub failed: FieldReasons,
    /// Warnings about a reading whose values are right: samples that arrive late, one page under two
    /// names. Printable.
    pub warnings: Vec<Arc<str>>,
    /// The endpoint picker that routes requests to the model.
    pub endpoint_picker: EndpointPicker,
    /// The pods that the cluster lists, with an age of their own; `None` if no cluster is asked.
    pub supply: Option<Arc<Supply>>,
}

impl Replicas {
    /// The replicas of a fetch at `as_of`; computes [`oldest`](Self::oldest).
    pub fn new(
        model: ModelRef,
        mut replicas: Vec<ReplicaMetrics>,
        backend: BackendName,
        as_of: Tick,
    ) -> Self {
        replicas.sort_unstable_by(|a, b| a.pod_name.cmp(&b.pod_name));
        let oldest = replicas.iter().map(|replica| replica.sampled_at).min().unwrap_or(as_of);
        Self {
            model,
            replicas,
            backend,
            oldest,
            partial: false,
            lists_pods: false,
            window: None,
            failed: FieldReasons::NONE,
            warnings: Vec::new(),
            endpoint_picker: EndpointPicker::None,
            supply: None,
        }
    }

    /// The replicas of one variant, and no others.
    pub fn narrowed_to(&self, variant: &VariantName) -> Self {
        let of_variant = self
            .replicas
            .iter()
            .filter(|replica| replica.variant_name.as_ref() == Some(variant))
            .cloned()
            .collect();
        let mut narrowed =
            Self::new(self.model.clone(), of_variant, self.backend.clone(), self.oldest);
        narrowed.partial = self.partial;
        narrowed.lists_pods = self.lists_pods;
        narrowed.window = self.window;
        narrowed.failed.clone_from(&self.failed);
        narrowed.warnings.clone_from(&self.warnings);
        narrowed.endpoint_picker.clone_from(&self.endpoint_picker);
        let supply = self.supply.as_ref();
        narrowed.supply = supply.map(|supply| Arc::new(supply.narrowed_to(variant)));
        narrowed
    }
}

/// About how many bytes rows hold, except the text of names, which is shared.
pub(crate) fn bytes_of_rows(rows: &[ReplicaMetrics]) -> usize {
    let behind = |row: &ReplicaMetrics| {
        let adapters = row.lora_adapters.as_ref().map_or(0, |_| size_of::<LoraAdapters>());
        let latencies = row.latencies.as_ref().map_or(0, |latencies| latencies.bytes());
        size_of_val(row.marks.as_slice()) + row.reasons.bytes() + adapters + latencies
    };
    size_of_val(rows) + rows.iter().map(behind).sum::<usize>()
}

impl Replicas {
    /// About how many bytes they hold. Pods have names of their own, so their text counts here.
    pub(crate) fn bytes(&self) -> usize {
        let names = self.replicas.iter().map(|row| row.pod_name.as_str().len()).sum::<usize>();
        let texts = self.failed.bytes() + size_of_val(self.warnings.as_slice());
        let picker = self.endpoint_picker.bytes();
        let supply = self.supply.as_deref().map_or(0, Supply::bytes);
        size_of::<Self>() + bytes_of_rows(&self.replicas) + names + texts + picker + supply
    }
}

/// The load of one variant of a model, from the same fetch as the model's [`Replicas`].
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Allocation {
    /// The model.
    pub model: ModelRef,
    /// The variant.
    pub variant: VariantName,
    /// Its accelerator.
    pub accelerator: Option<AcceleratorName>,
    /// Live replicas of the variant that [serve](ReplicaState::serves).
    pub num_replicas: u32,
    /// Live replicas of the variant that sleep.
    pub num_sleeping: u32,
    /// Replicas of the variant that start; `None` if no cluster lists them.
    pub num_starting: Option<u32>,
    /// Greatest batch of one replica, from the configuration.
    pub max_batch: Option<u32>,
    /// Mean inter-token latency over the window, in milliseconds.
    pub itl_average: Option<f64>,
    /// Mean time to first token over the window, in milliseconds.
    pub ttft_average: Option<f64>,
    /// What arrives at the variant.
    pub load: Load,
    /// Where the values came from.
    pub backend: BackendName,
    /// The sampling time of the oldest value.
    pub oldest: Tick,
    /// Some replicas may be absent.
    pub partial: bool,
    /// The time over which rates were taken; `None` when the backend does not say.
    pub window: Option<Duration>,
    /// Fields whose query failed, with the reason.
    pub failed: FieldReasons,
    /// Why other fields are unknown.
    pub reasons: FieldReasons,
    /// Warnings about a reading whose values are right, as in [`Replicas::warnings`].
    pub warnings: Vec<Arc<str>>,
    /// The fields that are older than the fetch or came from another backend. Mostly empty.
    pub marks: Vec<Mark>,
}

impl Allocation {
    /// An allocation of which nothing but its size is known.
    pub fn new(
        model: ModelRef,
        variant: VariantName,
        num_replicas: u32,
        backend: BackendName,
        oldest: Tick,
    ) -> Self {
        Self {
            model,
            variant,
            accelerator: None,
            num_replicas,
            num_sleeping: 0,
            num_starting: None,
            max_batch: None,
            itl_average: None,
            ttft_average: None,
            load: Load::default(),
            backend,
            oldest,
            partial: false,
            window: None,
            failed: FieldReasons::NONE,
            reasons: FieldReasons::NONE,
            warnings: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// The value of a field of the load, as this type holds it: rates per minute, times in
    /// milliseconds. `None` for a field of replicas.
    pub fn field_mut(&mut self, field: Field) -> Option<&mut Option<f64>> {
        match field {
            Field::ArrivalRate => Some(&mut self.load.arrival_rate),
            Field::AvgInputTokens => Some(&mut self.load.avg_input_tokens),
            Field::AvgOutputTokens => Some(&mut self.load.avg_output_tokens),
            Field::TtftAverage => Some(&mut self.ttft_average),
            Field::ItlAverage => Some(&mut self.itl_average),
            Field::KvCacheUsage
            | Field::QueueLength
            | Field::RunningRequests
            | Field::CacheConfig
            | Field::PrefixCacheHitRate => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_needs_both_of_its_factors() {
        let mut replica = ReplicaMetrics::new("m-0", Tick::MIN);
        replica.num_gpu_blocks = Some(12_000);
        assert_eq!(replica.total_kv_capacity_tokens(), None);
        replica.block_size = Some(16);
        assert_eq!(replica.total_kv_capacity_tokens(), Some(192_000));
        assert_eq!(replica.tokens_in_use(), None);
        replica.kv_cache_usage = Some(0.42);
        assert_eq!(replica.tokens_in_use(), Some(80_640));
        replica.num_gpu_blocks = Some(u64::MAX);
        assert_eq!(replica.total_kv_capacity_tokens(), None);
    }

    #[test]
    fn narrowing_to_a_variant_recomputes_the_age() {
        let at = |seconds: u64| Tick::from_nanos(seconds * 1_000_000_000);
        let mut old = ReplicaMetrics::new("b", at(10));
        old.variant_name = Some("slow".into());
        let mut new = ReplicaMetrics::new("a", at(20));
        new.variant_name = Some("quick".into());
        let all = Replicas::new(ModelRef::new("m", "n"), vec![old, new], "test".into(), at(30));
        assert_eq!(all.oldest, at(10));
        assert_eq!(all.replicas[0].pod_name.as_str(), "a");
        let quick = all.narrowed_to(&"quick".into());
        assert_eq!((quick.replicas.len(), quick.oldest), (1, at(20)));
    }
}
