//! What is measured, by name, and what is told of one quantity apart from its row.

use crate::clock::Tick;
use crate::model::BackendName;

/// A measured quantity, named when it failed or came from elsewhere than its row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum Field {
    /// [`ReplicaMetrics::kv_cache_usage`](crate::ReplicaMetrics::kv_cache_usage).
    KvCacheUsage,
    /// [`ReplicaMetrics::queue_length`](crate::ReplicaMetrics::queue_length).
    QueueLength,
    /// [`ReplicaMetrics::running_requests`](crate::ReplicaMetrics::running_requests).
    RunningRequests,
    /// [`ReplicaMetrics::num_gpu_blocks`](crate::ReplicaMetrics::num_gpu_blocks) and
    /// [`ReplicaMetrics::block_size`](crate::ReplicaMetrics::block_size), which come together.
    CacheConfig,
    /// [`ReplicaMetrics::prefix_cache_hit_rate`](crate::ReplicaMetrics::prefix_cache_hit_rate).
    PrefixCacheHitRate,
    /// [`LoadRates::requests`](crate::LoadRates::requests), and with it the denominator of the token
    /// averages.
    ArrivalRate,
    /// [`LoadRates::prompt_tokens`](crate::LoadRates::prompt_tokens).
    AvgInputTokens,
    /// [`LoadRates::generation_tokens`](crate::LoadRates::generation_tokens).
    AvgOutputTokens,
    /// [`LoadRates::ttft_seconds`](crate::LoadRates::ttft_seconds) and
    /// [`LoadRates::ttft_count`](crate::LoadRates::ttft_count).
    TtftAverage,
    /// [`LoadRates::itl_seconds`](crate::LoadRates::itl_seconds) and
    /// [`LoadRates::itl_count`](crate::LoadRates::itl_count).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_sets_hold_what_was_put_in() {
        let set: FieldSet = [Field::ItlAverage, Field::KvCacheUsage].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Field::KvCacheUsage, Field::ItlAverage]);
        assert!(!set.contains(Field::QueueLength));
        assert!(FieldSet::EMPTY.is_empty());
    }
}
