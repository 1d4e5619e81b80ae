//! The Endpoint Picker: one page, four generations of names.
//!
//! Builds of the newer generations write the older names beside the new ones, for the same requests.
//! So the generations are aliases like any other: the newest that is on the page counts, and nothing
//! is added to it.

use collector_engines::Fold;

use super::quantity::{PickerQuantity, PoolQuantity};

use PickerQuantity as M;
use PoolQuantity as P;

/// The prefixes of the newer generations, newest first.
const PREFIXES: [&str; 2] = ["llm_d_epp", "llm_d_router_epp"];

/// A number of the picker's page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PickerRead {
    Model(PickerQuantity),
    Pool(PoolQuantity),
    /// The requests that wait in each pod of a pool.
    PodQueue,
}

/// Where one number stands: the alias, and the labels that name its row.
pub(super) struct PickerAlias {
    pub(super) spec: String,
    /// Model and target, pool, or pool and pod.
    pub(super) labels: [&'static str; 2],
}

const MODEL: [&str; 2] = ["model_name", "target_model_name"];

impl PickerRead {
    /// Every one, in order.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let models = PickerQuantity::ALL.iter().map(|quantity| Self::Model(*quantity));
        let pools = PoolQuantity::ALL.iter().map(|quantity| Self::Pool(*quantity));
        models.chain(pools).chain([Self::PodQueue])
    }

    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Model(quantity) => quantity.key(),
            Self::Pool(quantity) => quantity.key(),
            Self::PodQueue => "per_pod_queue",
        }
    }

    pub(super) fn fold(self) -> Fold {
        match self {
            // By tenant and priority, or by error code.
            Self::Model(_) => Fold::Sum,
            Self::Pool(_) | Self::PodQueue => Fold::Greatest,
        }
    }

    /// The aliases, newest generation first.
    pub(super) fn aliases(self) -> Vec<PickerAlias> {
        let (new, legacy) = self.names();
        let newer = PREFIXES.iter().map(|prefix| (format!("{prefix}_{new}"), false));
        // Before 1.0 objectives were models.
        let first = legacy.and_then(|name| name.strip_prefix("inference_objective_"));
        let first = first.map(|name| (format!("inference_model_{name}"), true));
        let all = newer.chain(legacy.map(|name| (name.to_owned(), true))).chain(first);
        all.flat_map(|(name, legacy)| self.variants(name, legacy)).collect()
    }

    /// The name without its generation's prefix, and the whole name of the first generation.
    fn names(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Model(quantity) => model_names(quantity),
            Self::Pool(P::AvgKv) => (
                "average_kv_cache_utilization",
                Some("inference_pool_average_kv_cache_utilization"),
            ),
            Self::Pool(P::AvgQueue) => {
                ("average_queue_size", Some("inference_pool_average_queue_size"))
            }
            Self::Pool(P::AvgRunning) => {
                ("average_running_requests", Some("inference_pool_average_running_requests"))
            }
            Self::Pool(P::Ready) => ("ready_endpoints", Some("inference_pool_ready_pods")),
            Self::Pool(P::SaturationEffective) => (
                "flow_control_pool_saturation",
                Some("inference_extension_flow_control_pool_saturation"),
            ),
            Self::PodQueue => {
                ("per_endpoint_queue_size", Some("inference_pool_per_pod_queue_size"))
            }
        }
    }

    fn variants(self, name: String, legacy: bool) -> Vec<PickerAlias> {
        match self {
            Self::Model(_) => vec![PickerAlias { spec: name, labels: MODEL }],
            // Builds that do not tell the stages apart have no such label.
            Self::Pool(P::SaturationEffective) => ["effective", "\"\""]
                .map(|stage| PickerAlias {
                    spec: format!("{name}{{stage={stage}}}"),
                    labels: ["inference_pool", ""],
                })
                .into(),
            Self::Pool(_) => vec![PickerAlias { spec: name, labels: ["name", ""] }],
            Self::PodQueue => {
                let pod = if legacy { "model_server_pod" } else { "model_server_endpoint" };
                vec![PickerAlias { spec: name, labels: ["name", pod] }]
            }
        }
    }
}

fn model_names(quantity: PickerQuantity) -> (&'static str, Option<&'static str>) {
    match quantity {
        M::RequestsTotal => ("request_total", Some("inference_objective_request_total")),
        M::ErrorsTotal => ("request_error_total", Some("inference_objective_request_error_total")),
        M::Running => ("request_running", Some("inference_objective_running_requests")),
        M::FlowControlQueueSize => {
            ("flow_control_queue_size", Some("inference_extension_flow_control_queue_size"))
        }
        M::FlowControlQueueBytes => {
            ("flow_control_queue_bytes", Some("inference_extension_flow_control_queue_bytes"))
        }
        M::DurationSum => (
            "request_duration_seconds_sum",
            Some("inference_objective_request_duration_seconds_sum"),
        ),
        M::DurationCount => (
            "request_duration_seconds_count",
            Some("inference_objective_request_duration_seconds_count"),
        ),
        M::InputTokensSum => {
            ("request_input_tokens_sum", Some("inference_objective_input_tokens_sum"))
        }
        M::InputTokensCount => {
            ("request_input_tokens_count", Some("inference_objective_input_tokens_count"))
        }
        M::OutputTokensSum => {
            ("request_output_tokens_sum", Some("inference_objective_output_tokens_sum"))
        }
        M::OutputTokensCount => {
            ("request_output_tokens_count", Some("inference_objective_output_tokens_count"))
        }
        M::NtpotSum => (
            "request_ntpot_seconds_sum",
            Some("inference_objective_normalized_time_per_output_token_seconds_sum"),
        ),
        M::NtpotCount => (
            "request_ntpot_seconds_count",
            Some("inference_objective_normalized_time_per_output_token_seconds_count"),
        ),
        // The first generation has none of these.
        M::ItlSum => ("request_streaming_itl_seconds_sum", None),
        M::ItlCount => ("request_streaming_itl_seconds_count", None),
        M::TtftStreamingSum => ("request_ttft_seconds_sum{streaming=true}", None),
        M::TtftStreamingCount => ("request_ttft_seconds_count{streaming=true}", None),
        M::TtftWholeSum => ("request_ttft_seconds_sum{streaming=false}", None),
        M::TtftWholeCount => ("request_ttft_seconds_count{streaming=false}", None),
    }
}
