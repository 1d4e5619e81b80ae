//! The numbers of the Endpoint Picker's page, by name.

use serde::{Deserialize, Serialize};

use super::page::{PickerModel, PickerPool};

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
