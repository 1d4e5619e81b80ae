// SPDX-License-Identifier: Apache-2.0
//! The quantities that each field is made of.

use collector_core::Field;

use crate::engines::Quantity;

/// Returns the quantities of a field, alternatives included, in order of preference.
pub(crate) fn quantities_of(field: Field) -> &'static [Quantity] {
    use Quantity as Q;
    match field {
        Field::KvCacheUsage => &[Q::KvCacheUsage],
        Field::QueueLength => &[Q::Waiting, Q::WaitingForCapacity],
        Field::RunningRequests => &[Q::Running],
        Field::CacheConfig => &[Q::KvCapacityTokens, Q::NumGpuBlocks, Q::BlockSize],
        Field::PrefixCacheHitRate => {
            &[Q::PrefixHits, Q::PrefixQueries, Q::CachedTokensTotal, Q::PrefixCacheHitRate]
        }
        Field::ArrivalRate => &[Q::PromptTokensCount, Q::RequestsTotal, Q::RequestSuccessTotal],
        Field::AvgInputTokens => &[Q::PromptTokensSum, Q::PromptTokensTotal],
        Field::AvgOutputTokens => &[Q::GenerationTokensSum, Q::GenerationTokensTotal],
        Field::TtftAverage => &[Q::TtftSum, Q::TtftCount],
        Field::ItlAverage => &[Q::ItlSum, Q::ItlCount],
        _ => &[],
    }
}

/// Returns the field that a quantity is part of.
pub(crate) fn field_of(quantity: Quantity) -> Option<Field> {
    Field::ALL.iter().copied().find(|field| quantities_of(*field).contains(&quantity))
}
