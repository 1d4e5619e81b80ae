//! What is read of a page, by name.

use serde::{Deserialize, Serialize};

use super::page::{EngineRow, PickerModel, PickerPool};

/// Names the numbers of a struct, so that a table can say where each stands.
macro_rules! quantities {
    (
        $(#[$attribute:meta])*
        $Quantity:ident of $Row:ident {
            $($(#[$doc:meta])* $Name:ident $key:literal => $($field:ident).+,)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub enum $Quantity {
            $(
                $(#[$doc])*
                #[serde(rename = $key)]
                $Name,
            )*
        }

        impl $Quantity {
            /// Every one, in order.
            pub const ALL: &[Self] = &[$(Self::$Name),*];

            /// The name in configuration files.
            pub const fn key(self) -> &'static str {
                match self {
                    $(Self::$Name => $key,)*
                }
            }

            /// Its place in a row.
            pub(super) fn of(self, row: &mut $Row) -> &mut Option<f64> {
                match self {
                    $(Self::$Name => &mut row.$($field).+,)*
                }
            }
        }
    };
}

quantities! {
    /// A number of an [`EngineRow`]; a key of [`EngineSpec::metrics`](super::EngineSpec::metrics).
    Quantity of EngineRow {
        /// [`EngineRow::waiting`].
        Waiting "waiting" => waiting,
        /// [`EngineRow::running`].
        Running "running" => running,
        /// [`EngineRow::kv_cache_usage`].
        KvCacheUsage "kv_cache_usage" => kv_cache_usage,
        /// [`EngineRow::block_size`].
        BlockSize "block_size" => block_size,
        /// [`EngineRow::num_gpu_blocks`].
        NumGpuBlocks "num_gpu_blocks" => num_gpu_blocks,
        /// [`Counters::request_success_total`](super::Counters::request_success_total).
        RequestSuccessTotal "request_success_total" => counters.request_success_total,
        /// [`Counters::requests_total`](super::Counters::requests_total).
        RequestsTotal "requests_total" => counters.requests_total,
        /// [`Counters::prompt_tokens_sum`](super::Counters::prompt_tokens_sum).
        PromptTokensSum "prompt_tokens_sum" => counters.prompt_tokens_sum,
        /// [`Counters::prompt_tokens_count`](super::Counters::prompt_tokens_count).
        PromptTokensCount "prompt_tokens_count" => counters.prompt_tokens_count,
        /// [`Counters::prompt_tokens_total`](super::Counters::prompt_tokens_total).
        PromptTokensTotal "prompt_tokens_total" => counters.prompt_tokens_total,
        /// [`Counters::generation_tokens_sum`](super::Counters::generation_tokens_sum).
        GenerationTokensSum "generation_tokens_sum" => counters.generation_tokens_sum,
        /// [`Counters::generation_tokens_count`](super::Counters::generation_tokens_count).
        GenerationTokensCount "generation_tokens_count" => counters.generation_tokens_count,
        /// [`Counters::generation_tokens_total`](super::Counters::generation_tokens_total).
        GenerationTokensTotal "generation_tokens_total" => counters.generation_tokens_total,
        /// [`Counters::ttft_sum`](super::Counters::ttft_sum).
        TtftSum "ttft_sum" => counters.ttft_sum,
        /// [`Counters::ttft_count`](super::Counters::ttft_count).
        TtftCount "ttft_count" => counters.ttft_count,
        /// [`Counters::itl_sum`](super::Counters::itl_sum).
        ItlSum "itl_sum" => counters.itl_sum,
        /// [`Counters::itl_count`](super::Counters::itl_count).
        ItlCount "itl_count" => counters.itl_count,
        /// [`Counters::prefix_hits`](super::Counters::prefix_hits).
        PrefixHits "prefix_hits" => counters.prefix_hits,
        /// [`Counters::prefix_queries`](super::Counters::prefix_queries).
        PrefixQueries "prefix_queries" => counters.prefix_queries,
        /// [`Counters::cached_tokens_total`](super::Counters::cached_tokens_total).
        CachedTokensTotal "cached_tokens_total" => counters.cached_tokens_total,
    }
}

quantities! {
    /// A number of a [`PickerModel`].
    PickerQuantity of PickerModel {
        /// [`PickerModel::requests_total`].
        RequestsTotal "requests_total" => requests_total,
        /// [`PickerModel::errors_total`].
        ErrorsTotal "errors_total" => errors_total,
        /// [`PickerModel::running`].
        Running "running" => running,
        /// [`PickerModel::flow_control_queue_size`].
        FlowControlQueueSize "flow_control_queue_size" => flow_control_queue_size,
        /// [`PickerModel::flow_control_queue_bytes`].
        FlowControlQueueBytes "flow_control_queue_bytes" => flow_control_queue_bytes,
        /// [`PickerModel::duration_sum`].
        DurationSum "duration_sum" => duration_sum,
        /// [`PickerModel::duration_count`].
        DurationCount "duration_count" => duration_count,
        /// [`PickerModel::input_tokens_sum`].
        InputTokensSum "input_tokens_sum" => input_tokens_sum,
        /// [`PickerModel::input_tokens_count`].
        InputTokensCount "input_tokens_count" => input_tokens_count,
        /// [`PickerModel::output_tokens_sum`].
        OutputTokensSum "output_tokens_sum" => output_tokens_sum,
        /// [`PickerModel::output_tokens_count`].
        OutputTokensCount "output_tokens_count" => output_tokens_count,
        /// [`PickerModel::ntpot_sum`].
        NtpotSum "ntpot_sum" => ntpot_sum,
        /// [`PickerModel::ntpot_count`].
        NtpotCount "ntpot_count" => ntpot_count,
        /// [`PickerModel::itl_sum`].
        ItlSum "itl_sum" => itl_sum,
        /// [`PickerModel::itl_count`].
        ItlCount "itl_count" => itl_count,
        /// [`PickerModel::ttft_streaming_sum`].
        TtftStreamingSum "ttft_streaming_sum" => ttft_streaming_sum,
        /// [`PickerModel::ttft_streaming_count`].
        TtftStreamingCount "ttft_streaming_count" => ttft_streaming_count,
        /// [`PickerModel::ttft_whole_sum`].
        TtftWholeSum "ttft_whole_sum" => ttft_whole_sum,
        /// [`PickerModel::ttft_whole_count`].
        TtftWholeCount "ttft_whole_count" => ttft_whole_count,
    }
}

quantities! {
    /// A number of a [`PickerPool`].
    PoolQuantity of PickerPool {
        /// [`PickerPool::avg_kv`].
        AvgKv "avg_kv" => avg_kv,
        /// [`PickerPool::avg_queue`].
        AvgQueue "avg_queue" => avg_queue,
        /// [`PickerPool::avg_running`].
        AvgRunning "avg_running" => avg_running,
        /// [`PickerPool::ready`].
        Ready "ready" => ready,
        /// [`PickerPool::saturation_effective`].
        SaturationEffective "saturation_effective" => saturation_effective,
    }
}

/// What several series of one row make together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Fold {
    /// They are parts of a whole, such as the requests by the reason they ended for.
    Sum,
    /// They are views of the same thing, such as one scheduler seen by each of its tensor ranks.
    Greatest,
}

impl Quantity {
    pub(super) fn fold(self) -> Fold {
        match self {
            Self::Waiting
            | Self::Running
            | Self::KvCacheUsage
            | Self::BlockSize
            | Self::NumGpuBlocks => Fold::Greatest,
            _ => Fold::Sum,
        }
    }
}
