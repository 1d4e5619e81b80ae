// SPDX-License-Identifier: Apache-2.0
//! What is measured, by name, and what is known of one quantity besides its value.

use std::sync::Arc;

use crate::clock::Tick;
use crate::model::BackendName;

/// A measured quantity, named when it failed or came from elsewhere than its row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum Field {
    /// [`ReplicaMetrics::kv_cache_usage`](crate::ReplicaMetrics::kv_cache_usage), and with it
    /// [`ReplicaMetrics::kv_tokens_in_use`](crate::ReplicaMetrics::kv_tokens_in_use).
    KvCacheUsage,
    /// [`ReplicaMetrics::queue_length`](crate::ReplicaMetrics::queue_length), and with it
    /// [`ReplicaMetrics::waiting_for_capacity`](crate::ReplicaMetrics::waiting_for_capacity).
    QueueLength,
    /// [`ReplicaMetrics::running_requests`](crate::ReplicaMetrics::running_requests).
    RunningRequests,
    /// [`ReplicaMetrics::kv_capacity_tokens`](crate::ReplicaMetrics::kv_capacity_tokens),
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
    pub const ALL: &'static [Self] = &[
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
    pub const OF_REPLICA: &'static [Self] = &[
        Self::KvCacheUsage,
        Self::QueueLength,
        Self::RunningRequests,
        Self::CacheConfig,
        Self::PrefixCacheHitRate,
    ];

    /// The fields of a load row.
    pub const OF_LOAD: &'static [Self] = &[
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
        Field::ALL.iter().copied().filter(move |field| self.contains(*field))
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

/// Fields, each with a reason in words: why its query failed, or why its value is unknown.
///
/// At most one reason per field, the first that was given; in the order of [`Field::ALL`]. Reasons are
/// printable and short: the caller that makes one has cut and escaped the server's text.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct FieldReasons(Vec<(Field, Arc<str>)>);

impl FieldReasons {
    /// No field.
    pub const NONE: Self = Self(Vec::new());

    /// Adds a field with its reason; does nothing if the field has one.
    pub fn insert(&mut self, field: Field, reason: impl Into<Arc<str>>) {
        if let Err(index) = self.0.binary_search_by_key(&field, |(known, _)| *known) {
            self.0.insert(index, (field, reason.into()));
        }
    }

    /// Removes a field.
    pub fn remove(&mut self, field: Field) {
        self.0.retain(|(known, _)| *known != field);
    }

    /// The reason of a field.
    pub fn get(&self, field: Field) -> Option<&Arc<str>> {
        self.0.iter().find(|(known, _)| *known == field).map(|(_, reason)| reason)
    }

    /// Whether the field has a reason.
    pub fn contains(&self, field: Field) -> bool {
        self.get(field).is_some()
    }

    /// Whether no field has a reason.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields with their reasons, in the order of [`Field::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Field, &Arc<str>)> {
        self.0.iter().map(|(field, reason)| (*field, reason))
    }

    /// The fields without their reasons.
    pub fn fields(&self) -> FieldSet {
        self.0.iter().map(|(field, _)| *field).collect()
    }

    /// About how many bytes the list holds, without the text, which is shared.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }
}

impl<R: Into<Arc<str>>> FromIterator<(Field, R)> for FieldReasons {
    fn from_iter<I: IntoIterator<Item = (Field, R)>>(reasons: I) -> Self {
        let mut all = Self::NONE;
        reasons.into_iter().for_each(|(field, reason)| all.insert(field, reason));
        all
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
    fn the_first_reason_of_a_field_stays_and_fields_are_in_order() {
        let mut reasons: FieldReasons =
            [(Field::ItlAverage, "late"), (Field::KvCacheUsage, "422")].into_iter().collect();
        reasons.insert(Field::KvCacheUsage, "another");
        let all: Vec<_> = reasons.iter().map(|(field, reason)| (field, &**reason)).collect();
        assert_eq!(all, [(Field::KvCacheUsage, "422"), (Field::ItlAverage, "late")]);
        reasons.remove(Field::ItlAverage);
        assert_eq!(reasons.fields().iter().collect::<Vec<_>>(), [Field::KvCacheUsage]);
    }

    #[test]
    fn field_sets_hold_what_was_put_in() {
        let set: FieldSet = [Field::ItlAverage, Field::KvCacheUsage].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Field::KvCacheUsage, Field::ItlAverage]);
        assert!(!set.contains(Field::QueueLength));
        assert!(FieldSet::EMPTY.is_empty());
    }
}
