//! What is measured: of each replica, and of the load of a model. What each field means over a window
//! stands in [`window`](crate::window).

use crate::clock::Tick;
use crate::model::{
    AcceleratorName, BackendName, EngineName, ModelRef, PodName, Role, VariantName,
};
use crate::reading::Aged;

/// A measured quantity, named when it failed or came from elsewhere than its row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum Field {
    /// [`ReplicaMetrics::kv_cache_usage`].
    KvCacheUsage,
    /// [`ReplicaMetrics::queue_length`].
    QueueLength,
    /// [`ReplicaMetrics::running_requests`].
    RunningRequests,
    /// [`ReplicaMetrics::num_gpu_blocks`] and [`ReplicaMetrics::block_size`], which come together.
    CacheConfig,
    /// [`ReplicaMetrics::prefix_cache_hit_rate`].
    PrefixCacheHitRate,
    /// [`LoadRates::requests`], and with it the denominator of the token averages.
    ArrivalRate,
    /// [`LoadRates::prompt_tokens`].
    AvgInputTokens,
    /// [`LoadRates::generation_tokens`].
    AvgOutputTokens,
    /// [`LoadRates::ttft_seconds`] and [`LoadRates::ttft_count`].
    TtftAverage,
    /// [`LoadRates::itl_seconds`] and [`LoadRates::itl_count`].
    ItlAverage,
}

impl Field {
    /// Every field.
    pub const ALL: [Self; 10] = [
        Self::KvCacheUsage,
        Self::QueueLength,
        Self::RunningRequests,
        Self::CacheConfig,
        Self::PrefixCacheHitRate,
        Self::ArrivalRate,
        Self::AvgInputTokens,
        Self::AvgOutputTokens,
        Self::TtftAverage,
        Self::ItlAverage,
    ];

    /// The fields of a replica's own row.
    pub const OF_REPLICA: [Self; 5] = [
        Self::KvCacheUsage,
        Self::QueueLength,
        Self::RunningRequests,
        Self::CacheConfig,
        Self::PrefixCacheHitRate,
    ];

    /// The fields of a load row.
    pub const OF_LOAD: [Self; 5] = [
        Self::ArrivalRate,
        Self::AvgInputTokens,
        Self::AvgOutputTokens,
        Self::TtftAverage,
        Self::ItlAverage,
    ];

    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KvCacheUsage => "kvCacheUsage",
            Self::QueueLength => "queueLength",
            Self::RunningRequests => "runningRequests",
            Self::CacheConfig => "cacheConfig",
            Self::PrefixCacheHitRate => "prefixCacheHitRate",
            Self::ArrivalRate => "arrivalRatePerMinute",
            Self::AvgInputTokens => "avgInputTokens",
            Self::AvgOutputTokens => "avgOutputTokens",
            Self::TtftAverage => "ttftAverageMs",
            Self::ItlAverage => "itlAverageMs",
        }
    }
}

/// A set of fields.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct FieldSet(u16);

impl FieldSet {
    /// No field.
    pub const EMPTY: Self = Self(0);

    /// Adds a field.
    pub const fn insert(&mut self, field: Field) {
        self.0 |= 1 << field as u8;
    }

    /// Whether the field is in the set.
    pub const fn contains(self, field: Field) -> bool {
        self.0 & (1 << field as u8) != 0
    }

    /// Whether no field is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The fields, in their order.
    pub fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL.into_iter().filter(move |field| self.contains(*field))
    }
}

impl FromIterator<Field> for FieldSet {
    fn from_iter<I: IntoIterator<Item = Field>>(fields: I) -> Self {
        let mut set = Self::EMPTY;
        fields.into_iter().for_each(|field| set.insert(field));
        set
    }
}

impl std::fmt::Debug for FieldSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A field that does not share the time or the source of its row.
#[derive(Clone, PartialEq, Debug)]
pub struct Mark {
    /// The field.
    pub field: Field,
    /// Where its value came from.
    pub backend: BackendName,
    /// When its value was sampled.
    pub sampled_at: Tick,
}

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

/// What was measured of one replica. A field that was not measured is `None`, never 0.
///
/// A backend fills what it measured and leaves the variant to the engine.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ReplicaMetrics {
    /// The pod.
    pub pod_name: PodName,
    /// When the row was sampled by whoever scraped the pod.
    pub sampled_at: Tick,
    /// The kind of model server.
    pub engine: Option<EngineName>,
    /// What the pod does where a request is served by several; `None` when it was not told.
    pub role: Option<Role>,
    /// The LoRA adapters at the last sample; `None` when the server has none or does not tell.
    pub lora_adapters: Option<Box<LoraAdapters>>,
    /// The variant the pod belongs to; `None` when no variant claims it. Set by the engine.
    pub variant_name: Option<VariantName>,
    /// The variant's accelerator. Set by the engine.
    pub accelerator_name: Option<AcceleratorName>,
    /// Cost of one replica per hour, in the unit of the configuration. Set by the engine: the
    /// variant's, or [`DEFAULT_COST`](crate::DEFAULT_COST).
    pub cost: f64,
    /// Share of the KV-cache blocks in use, 0.0 to 1.0: the peak over the window, of the fullest
    /// data-parallel engine.
    pub kv_cache_usage: Option<f64>,
    /// Requests waiting: the peak over the window, summed over data-parallel engines.
    pub queue_length: Option<u64>,
    /// Requests in the running batch at the last sample, summed over data-parallel engines.
    pub running_requests: Option<u64>,
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
}

impl ReplicaMetrics {
    /// A replica of which nothing is known yet but that it was alive at `sampled_at`.
    pub fn new(pod_name: impl Into<PodName>, sampled_at: Tick) -> Self {
        Self {
            pod_name: pod_name.into(),
            sampled_at,
            engine: None,
            role: None,
            lora_adapters: None,
            variant_name: None,
            accelerator_name: None,
            cost: crate::DEFAULT_COST,
            kv_cache_usage: None,
            queue_length: None,
            running_requests: None,
            num_gpu_blocks: None,
            block_size: None,
            avg_input_tokens: None,
            avg_output_tokens: None,
            prefix_cache_hit_rate: None,
            marks: Vec::new(),
        }
    }

    /// Tokens the KV cache holds: `num_gpu_blocks * block_size`.
    pub fn total_kv_capacity_tokens(&self) -> Option<u64> {
        self.num_gpu_blocks?.checked_mul(self.block_size?)
    }

    /// Tokens in the KV cache: `kv_cache_usage * total_kv_capacity_tokens`, rounded.
    pub fn tokens_in_use(&self) -> Option<u64> {
        let capacity = self.total_kv_capacity_tokens()?;
        crate::sanitize::count(self.kv_cache_usage? * capacity as f64).ok()
    }

    /// Takes one field's value from another row of the same pod.
    pub fn copy_field(&mut self, field: Field, from: &Self) {
        match field {
            Field::KvCacheUsage => self.kv_cache_usage = from.kv_cache_usage,
            Field::QueueLength => self.queue_length = from.queue_length,
            Field::RunningRequests => self.running_requests = from.running_requests,
            Field::CacheConfig => {
                self.num_gpu_blocks = from.num_gpu_blocks;
                self.block_size = from.block_size;
            }
            Field::AvgInputTokens => self.avg_input_tokens = from.avg_input_tokens,
            Field::AvgOutputTokens => self.avg_output_tokens = from.avg_output_tokens,
            Field::PrefixCacheHitRate => self.prefix_cache_hit_rate = from.prefix_cache_hit_rate,
            Field::ArrivalRate | Field::TtftAverage | Field::ItlAverage => {}
        }
    }

    /// Whether the field was measured.
    pub fn has(&self, field: Field) -> bool {
        match field {
            Field::KvCacheUsage => self.kv_cache_usage.is_some(),
            Field::QueueLength => self.queue_length.is_some(),
            Field::RunningRequests => self.running_requests.is_some(),
            Field::CacheConfig => self.num_gpu_blocks.is_some() || self.block_size.is_some(),
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

/// The replicas of one model, from one look.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Replicas {
    /// The model.
    pub model: ModelRef,
    /// The replicas, ordered by pod name. Empty: the model is known and has no live pod.
    pub replicas: Vec<ReplicaMetrics>,
    /// Where the replicas came from.
    pub backend: BackendName,
    /// The sampling time of the oldest replica; of the look itself when there is none.
    pub oldest: Tick,
    /// Some replicas may be absent: the server said so, or a part of the look failed.
    pub partial: bool,
}

impl Replicas {
    /// The replicas of a look at `as_of`; computes [`oldest`](Self::oldest).
    pub fn new(
        model: ModelRef,
        mut replicas: Vec<ReplicaMetrics>,
        backend: BackendName,
        as_of: Tick,
    ) -> Self {
        replicas.sort_unstable_by(|a, b| a.pod_name.cmp(&b.pod_name));
        let oldest = replicas.iter().map(|replica| replica.sampled_at).min().unwrap_or(as_of);
        Self { model, replicas, backend, oldest, partial: false }
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
        narrowed
    }
}

/// About how many bytes rows hold, but for the text of names, which is shared.
pub(crate) fn bytes_of_rows(rows: &[ReplicaMetrics]) -> usize {
    let behind = |row: &ReplicaMetrics| {
        let adapters = row.lora_adapters.as_ref().map_or(0, |_| size_of::<LoraAdapters>());
        size_of_val(row.marks.as_slice()) + adapters
    };
    size_of_val(rows) + rows.iter().map(behind).sum::<usize>()
}

impl Replicas {
    /// About how many bytes they hold. Pods have names of their own, so their text counts here.
    pub(crate) fn bytes(&self) -> usize {
        let names = self.replicas.iter().map(|row| row.pod_name.as_str().len()).sum::<usize>();
        size_of::<Self>() + bytes_of_rows(&self.replicas) + names
    }
}

impl Aged for Replicas {
    fn oldest(&self) -> Tick {
        self.oldest
    }
}

/// Rates over the window, per second, from which averages are divided; they can be summed over
/// pods where averages cannot.
///
/// `None` is unknown; 0 is measured.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct LoadRates {
    /// Requests that arrived.
    pub requests: Option<f64>,
    /// Prompt tokens of these.
    pub prompt_tokens: Option<f64>,
    /// Generated tokens.
    pub generation_tokens: Option<f64>,
    /// Sum of the times to first token, in seconds.
    pub ttft_seconds: Option<f64>,
    /// Number of first tokens.
    pub ttft_count: Option<f64>,
    /// Sum of the inter-token latencies, in seconds.
    pub itl_seconds: Option<f64>,
    /// Number of inter-token latencies.
    pub itl_count: Option<f64>,
}

impl LoadRates {
    /// Nothing arrives: a known zero.
    pub const ZERO: Self = Self {
        requests: Some(0.0),
        prompt_tokens: Some(0.0),
        generation_tokens: Some(0.0),
        ttft_seconds: Some(0.0),
        ttft_count: Some(0.0),
        itl_seconds: Some(0.0),
        itl_count: Some(0.0),
    };

    /// The sum over two pods, or two groups of them.
    ///
    /// What only one side knows is that side's, with one exception: a mean needs both of its halves
    /// from the same requests. Where one side has requests and does not know their tokens, those of
    /// the sum are unknown; likewise the latencies.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let add = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (one, None) | (None, one) => one,
        };
        let counts = |count: Option<f64>| count.is_some_and(|count| count > 0.0);
        let half = |sum: fn(&Self) -> Option<f64>, count: fn(&Self) -> Option<f64>| {
            let lacks = |side: &Self| counts(count(side)) && sum(side).is_none();
            if lacks(&self) || lacks(&other) { None } else { add(sum(&self), sum(&other)) }
        };
        Self {
            requests: add(self.requests, other.requests),
            prompt_tokens: half(|rates| rates.prompt_tokens, |rates| rates.requests),
            generation_tokens: half(|rates| rates.generation_tokens, |rates| rates.requests),
            ttft_seconds: half(|rates| rates.ttft_seconds, |rates| rates.ttft_count),
            ttft_count: half(|rates| rates.ttft_count, |rates| rates.ttft_seconds),
            itl_seconds: half(|rates| rates.itl_seconds, |rates| rates.itl_count),
            itl_count: half(|rates| rates.itl_count, |rates| rates.itl_seconds),
        }
    }

    /// These rates, and what they do not know from others.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            requests: self.requests.or(other.requests),
            prompt_tokens: self.prompt_tokens.or(other.prompt_tokens),
            generation_tokens: self.generation_tokens.or(other.generation_tokens),
            ttft_seconds: self.ttft_seconds.or(other.ttft_seconds),
            ttft_count: self.ttft_count.or(other.ttft_count),
            itl_seconds: self.itl_seconds.or(other.itl_seconds),
            itl_count: self.itl_count.or(other.itl_count),
        }
    }

    /// Takes what belongs to one field from other rates.
    pub fn copy_field(&mut self, field: Field, from: &Self) {
        match field {
            Field::ArrivalRate => self.requests = from.requests,
            Field::AvgInputTokens => self.prompt_tokens = from.prompt_tokens,
            Field::AvgOutputTokens => self.generation_tokens = from.generation_tokens,
            Field::TtftAverage => {
                self.ttft_seconds = from.ttft_seconds;
                self.ttft_count = from.ttft_count;
            }
            Field::ItlAverage => {
                self.itl_seconds = from.itl_seconds;
                self.itl_count = from.itl_count;
            }
            Field::KvCacheUsage
            | Field::QueueLength
            | Field::RunningRequests
            | Field::CacheConfig
            | Field::PrefixCacheHitRate => {}
        }
    }

    /// The load: arrivals per minute, and means per request.
    pub fn load(&self) -> Load {
        Load {
            arrival_rate: self.requests.map(|per_second| per_second * 60.0),
            avg_input_tokens: mean_over_window(self.prompt_tokens, self.requests),
            avg_output_tokens: mean_over_window(self.generation_tokens, self.requests),
        }
    }

    /// Mean time to first token, in milliseconds.
    pub fn ttft_average(&self) -> Option<f64> {
        mean_over_window(self.ttft_seconds, self.ttft_count).map(|seconds| seconds * 1000.0)
    }

    /// Mean inter-token latency, in milliseconds.
    pub fn itl_average(&self) -> Option<f64> {
        mean_over_window(self.itl_seconds, self.itl_count).map(|seconds| seconds * 1000.0)
    }
}

/// `sum / count`, where a count of 0 means idle: a known zero, and where either is unknown the mean
/// is unknown.
///
/// Every mean is divided here, on the client, because servers disagree about 0/0: Prometheus
/// answers NaN, VictoriaMetrics leaves the row out, and neither tells idle from unknown.
pub fn mean_over_window(sum: Option<f64>, count: Option<f64>) -> Option<f64> {
    let (sum, count) = (sum?, count?);
    if count == 0.0 {
        return Some(0.0);
    }
    Some(sum / count).filter(|mean| mean.is_finite())
}

/// What arrives at a model or a variant.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Load {
    /// Requests per minute.
    pub arrival_rate: Option<f64>,
    /// Mean prompt tokens per request.
    pub avg_input_tokens: Option<f64>,
    /// Mean generated tokens per request.
    pub avg_output_tokens: Option<f64>,
}

/// What one variant of a model carries, from the same look as the model's [`Replicas`].
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Allocation {
    /// The model.
    pub model: ModelRef,
    /// The variant.
    pub variant: VariantName,
    /// Its accelerator.
    pub accelerator: Option<AcceleratorName>,
    /// Live replicas of the variant.
    pub num_replicas: u32,
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
    /// The fields that are older than the look or came from another backend. Mostly empty.
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
            max_batch: None,
            itl_average: None,
            ttft_average: None,
            load: Load::default(),
            backend,
            oldest,
            partial: false,
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

impl Aged for Allocation {
    fn oldest(&self) -> Tick {
        self.oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_a_known_zero_and_unknown_stays_unknown() {
        assert_eq!(mean_over_window(Some(0.0), Some(0.0)), Some(0.0));
        assert_eq!(mean_over_window(None, Some(0.0)), None);
        assert_eq!(mean_over_window(Some(5.0), None), None);
        assert_eq!(mean_over_window(Some(6.0), Some(2.0)), Some(3.0));
        assert_eq!(mean_over_window(Some(f64::NAN), Some(2.0)), None);
    }

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
    fn rates_of_pods_add_up_and_an_unknown_one_adds_nothing() {
        let known = LoadRates { requests: Some(2.0), ..LoadRates::default() };
        let sum = known.plus(known).plus(LoadRates::default());
        assert_eq!(sum.requests, Some(4.0));
        assert_eq!(sum.load().arrival_rate, Some(240.0));
        assert_eq!(sum.load().avg_input_tokens, None);
    }

    #[test]
    fn a_sum_has_no_mean_of_requests_whose_tokens_are_unknown() {
        let known =
            LoadRates { requests: Some(1.0), prompt_tokens: Some(100.0), ..LoadRates::default() };
        let spoiled = LoadRates { prompt_tokens: None, ..known };
        let sum = known.plus(spoiled).load();
        assert_eq!((sum.arrival_rate, sum.avg_input_tokens), (Some(120.0), None));
        let idle = LoadRates { requests: Some(0.0), ..LoadRates::default() };
        assert_eq!(known.plus(idle).load().avg_input_tokens, Some(100.0));
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

    #[test]
    fn field_sets_hold_what_was_put_in() {
        let set: FieldSet = [Field::ItlAverage, Field::KvCacheUsage].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Field::KvCacheUsage, Field::ItlAverage]);
        assert!(!set.contains(Field::QueueLength));
        assert!(FieldSet::EMPTY.is_empty());
    }
}
