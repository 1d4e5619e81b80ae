// SPDX-License-Identifier: Apache-2.0
//! The numbers that are read from a model server.

use serde::{Deserialize, Serialize};

/// Alternatives that one quantity may have.
pub(crate) const ALTERNATIVES_MAX: usize = 16;

/// Declares the quantities with their keys in configuration files.
macro_rules! quantities {
    ($($(#[$doc:meta])* $Name:ident $key:literal,)*) => {
        /// A number of one data-parallel rank of a model server; a key of
        /// [`EngineSpec::metrics`](crate::EngineSpec::metrics).
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Quantity {
            $($(#[$doc])* #[serde(rename = $key)] $Name,)*
        }

        impl Quantity {
            /// Every quantity, in order.
            pub const ALL: &[Self] = &[$(Self::$Name),*];

            /// The name in configuration files.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$Name => $key,)* }
            }
        }
    };
}

quantities! {
    /// Requests waiting.
    Waiting "waiting",
    /// Requests waiting for room in the batch and the KV cache; the others of [`Waiting`](Self::Waiting) wait for
    /// something else, such as a transfer of their KV cache.
    WaitingForCapacity "waiting_for_capacity",
    /// Requests in the running batch.
    Running "running",
    /// Share of the KV cache in use, 0.0 to 1.0.
    KvCacheUsage "kv_cache_usage",
    /// Tokens the KV cache holds.
    KvCapacityTokens "kv_capacity_tokens",
    /// Tokens in a KV-cache block.
    BlockSize "block_size",
    /// Blocks of the KV cache.
    NumGpuBlocks "num_gpu_blocks",
    /// Greater than 0 when the server sleeps.
    Sleeping "sleeping",
    /// Requests that ended successfully, as the engine defines it.
    RequestSuccessTotal "request_success_total",
    /// Requests that ended in any way.
    RequestsTotal "requests_total",
    /// Prompt tokens of [`PromptTokensCount`](Self::PromptTokensCount) requests.
    PromptTokensSum "prompt_tokens_sum",
    /// Requests whose prompt was processed: what arrived.
    PromptTokensCount "prompt_tokens_count",
    /// Prompt tokens, of however many requests.
    PromptTokensTotal "prompt_tokens_total",
    /// Generated tokens of [`GenerationTokensCount`](Self::GenerationTokensCount) requests.
    GenerationTokensSum "generation_tokens_sum",
    /// Requests that ended.
    GenerationTokensCount "generation_tokens_count",
    /// Generated tokens, of however many requests.
    GenerationTokensTotal "generation_tokens_total",
    /// Times to first token, in seconds.
    TtftSum "ttft_sum",
    /// First tokens.
    TtftCount "ttft_count",
    /// Inter-token latencies, in seconds.
    ItlSum "itl_sum",
    /// Inter-token latencies measured.
    ItlCount "itl_count",
    /// Hits of the prefix cache, in the unit of [`PrefixQueries`](Self::PrefixQueries): tokens, or
    /// blocks (TensorRT-LLM).
    PrefixHits "prefix_hits",
    /// Look-ups in the prefix cache.
    PrefixQueries "prefix_queries",
    /// Prompt tokens found in the prefix cache, out of
    /// [`PromptTokensTotal`](Self::PromptTokensTotal) (SGLang).
    CachedTokensTotal "cached_tokens_total",
    /// Share of prompt tokens found in the prefix cache, as the server computes it: 0.0 to 1.0, or 0
    /// to 100 where the series' name says percent.
    PrefixCacheHitRate "prefix_cache_hit_rate",
    /// Times in the queue, in seconds.
    QueueTimeSum "queue_time_sum",
    /// Times in the queue measured.
    QueueTimeCount "queue_time_count",
    /// Times in prefill, in seconds.
    PrefillTimeSum "prefill_time_sum",
    /// Times in prefill measured.
    PrefillTimeCount "prefill_time_count",
    /// Times in decode, in seconds.
    DecodeTimeSum "decode_time_sum",
    /// Times in decode measured.
    DecodeTimeCount "decode_time_count",
}

/// How several series of one row make one number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fold {
    /// They are parts of a sum, such as requests by the reason why they ended.
    Sum,
    /// They are views of the same thing, such as one scheduler exported by each of its tensor ranks.
    Greatest,
}

impl Quantity {
    /// Whether the number only increases until the server restarts.
    pub const fn is_counter(self) -> bool {
        !matches!(
            self,
            Self::Waiting
                | Self::WaitingForCapacity
                | Self::Running
                | Self::KvCacheUsage
                | Self::KvCapacityTokens
                | Self::BlockSize
                | Self::NumGpuBlocks
                | Self::Sleeping
                | Self::PrefixCacheHitRate
        )
    }

    /// The counts of latencies, whose histograms are read where the engine has them.
    pub const LATENCY_COUNTS: [Self; 2] = [Self::TtftCount, Self::ItlCount];

    /// How the series of one row make its number.
    pub const fn fold(self) -> Fold {
        if self.is_counter() { Fold::Sum } else { Fold::Greatest }
    }

    /// Whether the number is part of the configuration: a server that reports it once has the same for each rank.
    pub const fn is_configuration(self) -> bool {
        matches!(self, Self::KvCapacityTokens | Self::BlockSize | Self::NumGpuBlocks)
    }

    /// Returns the quantity that must be read from the alternative at the same position, because numbers of two
    /// generations of names do not fit together.
    pub const fn partner(self) -> Option<Self> {
        Some(match self {
            Self::BlockSize => Self::NumGpuBlocks,
            Self::NumGpuBlocks => Self::BlockSize,
            Self::PromptTokensSum => Self::PromptTokensCount,
            Self::PromptTokensCount => Self::PromptTokensSum,
            Self::GenerationTokensSum => Self::GenerationTokensCount,
            Self::GenerationTokensCount => Self::GenerationTokensSum,
            Self::TtftSum => Self::TtftCount,
            Self::TtftCount => Self::TtftSum,
            Self::ItlSum => Self::ItlCount,
            Self::ItlCount => Self::ItlSum,
            Self::PrefixHits => Self::PrefixQueries,
            Self::PrefixQueries => Self::PrefixHits,
            Self::QueueTimeSum => Self::QueueTimeCount,
            Self::QueueTimeCount => Self::QueueTimeSum,
            Self::PrefillTimeSum => Self::PrefillTimeCount,
            Self::PrefillTimeCount => Self::PrefillTimeSum,
            Self::DecodeTimeSum => Self::DecodeTimeCount,
            Self::DecodeTimeCount => Self::DecodeTimeSum,
            _ => return None,
        })
    }

    /// Returns the position of the alternative that is used: the first that is complete, at the same position as that
    /// of the [partner](Self::partner). `complete` returns whether an alternative of a quantity is complete.
    pub fn chosen_among(self, complete: impl Fn(Self, usize) -> bool) -> Option<usize> {
        let first = |is: &dyn Fn(usize) -> bool| (0..ALTERNATIVES_MAX).find(|index| is(*index));
        let own = |index| complete(self, index);
        let Some(partner) = self.partner() else { return first(&own) };
        let both = first(&|index| own(index) && complete(partner, index));
        // Without a complete pair, one of the two alone is better than nothing, but never half of each generation.
        let either = || first(&|index| own(index) || complete(partner, index));
        both.or_else(either).filter(|index| own(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partners_are_partners_of_each_other() {
        for quantity in Quantity::ALL {
            if let Some(partner) = quantity.partner() {
                assert_eq!(partner.partner(), Some(*quantity));
                assert_eq!(partner.is_counter(), quantity.is_counter());
            }
        }
    }
}
