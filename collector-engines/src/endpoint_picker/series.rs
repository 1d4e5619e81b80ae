// SPDX-License-Identifier: Apache-2.0
//! The series of an endpoint picker, in four generations of names.
//!
//! Newer builds write the older names beside the new ones, for the same requests. So the newest generation
//! on the page is used for each number, and the others are ignored.

use std::sync::Arc;

/// The prefixes of the newer generations, newest first.
const PREFIXES: [&str; 2] = ["llm_d_epp_", "llm_d_router_epp_"];

/// A number: its key, its name in the newer generations without their prefix, and its name in the first one without
/// `inference_` (empty where that has none).
type Number = (&'static str, &'static str, &'static str);

#[rustfmt::skip]
const MODEL: [Number; 19] = [
    ("requests_total", "request_total", "objective_request_total"),
    ("errors_total", "request_error_total", "objective_request_error_total"),
    ("running", "request_running", "objective_running_requests"),
    ("flow_control_queue_size", "flow_control_queue_size", "extension_flow_control_queue_size"),
    ("flow_control_queue_bytes", "flow_control_queue_bytes", "extension_flow_control_queue_bytes"),
    ("duration_sum", "request_duration_seconds_sum", "objective_request_duration_seconds_sum"),
    ("duration_count", "request_duration_seconds_count", "objective_request_duration_seconds_count"),
    ("input_tokens_sum", "request_input_tokens_sum", "objective_input_tokens_sum"),
    ("input_tokens_count", "request_input_tokens_count", "objective_input_tokens_count"),
    ("output_tokens_sum", "request_output_tokens_sum", "objective_output_tokens_sum"),
    ("output_tokens_count", "request_output_tokens_count", "objective_output_tokens_count"),
    ("ntpot_sum", "request_ntpot_seconds_sum", "objective_normalized_time_per_output_token_seconds_sum"),
    ("ntpot_count", "request_ntpot_seconds_count", "objective_normalized_time_per_output_token_seconds_count"),
    ("itl_sum", "request_streaming_itl_seconds_sum", ""),
    ("itl_count", "request_streaming_itl_seconds_count", ""),
    ("ttft_streaming_sum", "request_ttft_seconds_sum{streaming=true}", ""),
    ("ttft_streaming_count", "request_ttft_seconds_count{streaming=true}", ""),
    ("ttft_whole_sum", "request_ttft_seconds_sum{streaming=false}", ""),
    ("ttft_whole_count", "request_ttft_seconds_count{streaming=false}", ""),
];

/// The numbers of a pool, each with the label that names the pool; empty if none does, because an endpoint picker has
/// one pool.
#[rustfmt::skip]
const POOL: [(Number, &str); 9] = [
    (("avg_kv", "average_kv_cache_utilization", "pool_average_kv_cache_utilization"), "name"),
    (("avg_queue", "average_queue_size", "pool_average_queue_size"), "name"),
    (("avg_running", "average_running_requests", "pool_average_running_requests"), "name"),
    (("ready", "ready_endpoints", "pool_ready_pods"), "name"),
    (("saturation_effective", "flow_control_pool_saturation{stage=effective}",
        "extension_flow_control_pool_saturation{stage=effective}"), "inference_pool"),
    // Builds that do not separate the stages have no such label.
    (("saturation_effective", "flow_control_pool_saturation{stage=}",
        "extension_flow_control_pool_saturation{stage=}"), "inference_pool"),
    (("saturation_prefill", "flow_control_pool_saturation{stage=prefill}",
        "extension_flow_control_pool_saturation{stage=prefill}"), "inference_pool"),
    (("saturation_decode", "flow_control_pool_saturation{stage=decode}",
        "extension_flow_control_pool_saturation{stage=decode}"), "inference_pool"),
    (("stale_endpoints", "flow_control_stale_endpoints", ""), ""),
];

/// The requests that flow control rejected or evicted. The counter also has those that never had a place in the queue;
/// older builds have the histogram alone.
#[rustfmt::skip]
const REJECTED: [Number; 2] = [
    ("rejected", "flow_control_requests_total", "extension_flow_control_requests_total"),
    ("rejected", "flow_control_request_queue_duration_seconds_count",
        "extension_flow_control_request_queue_duration_seconds_count"),
];

/// The outcomes of such requests. `Dispatched` is the other one, and `EvictedContextCancelled`, which is the client's.
const REJECTED_OUTCOMES: [&str; 6] = [
    "RejectedCapacity",
    "RejectedNoEndpoints",
    "RejectedOther",
    "EvictedTTL",
    "EvictedNoEndpoints",
    "EvictedOther",
];

/// The numbers of an endpoint, that is, of one port of a pod.
#[rustfmt::skip]
const ENDPOINT: [Number; 2] = [
    ("in_flight_requests", "inflight_requests", ""),
    ("in_flight_tokens", "inflight_tokens", ""),
];

/// The series that one number may be read from.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Series {
    /// The key of the number in [`Numbers`](super::Numbers).
    pub key: &'static str,
    /// What the number is of.
    pub owner: Owner,
    /// The name of the series.
    pub name: String,
    /// A label and the value that it must have.
    pub matcher: Option<(&'static str, &'static str)>,
    /// The labels that name the row: model and target; pool; pool and pod; or endpoint and producer.
    pub labels: [&'static str; 2],
}

/// What a number is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Owner {
    /// A model. Its series are summed: they are by tenant and priority or by error code.
    Model,
    /// A pool, of which every series says the same.
    Pool,
    /// A pool, and requests by priority and outcome. Those with an outcome of a rejection are summed.
    Rejected,
    /// A pod of a pool: the requests that wait in it.
    Pod,
    /// An endpoint, as one producer counts it. Its series are summed: they are by tenant and priority.
    Endpoint,
}

impl Owner {
    /// Puts two samples of one row together.
    pub(super) fn fold(self, one: f64, other: f64) -> f64 {
        match self {
            Self::Model | Self::Rejected | Self::Endpoint => one + other,
            Self::Pool | Self::Pod => one.max(other),
        }
    }

    /// Returns what a sample counts for this owner, given its label `outcome`.
    pub fn counted(self, value: f64, outcome: Option<&str>) -> f64 {
        let is_rejection = || outcome.is_some_and(|it| REJECTED_OUTCOMES.contains(&it));
        // A series of another outcome shows that requests are counted, and that none of them was rejected.
        if matches!(self, Self::Rejected) && !is_rejection() { 0.0 } else { value }
    }
}

impl Series {
    /// Returns the series as people write it.
    pub(super) fn shown(&self) -> Arc<str> {
        match self.matcher {
            Some((label, value)) if !value.is_empty() => {
                format!("{}{{{label}={value}}}", self.name).into()
            }
            _ => self.name.as_str().into(),
        }
    }
}

impl Series {
    /// Returns all series, by number, and of each number in order of preference.
    pub fn all() -> Vec<Self> {
        all()
    }
}

fn all() -> Vec<Series> {
    let mut all = Vec::new();
    for number in MODEL {
        add(&mut all, number, Owner::Model, |_| ["model_name", "target_model_name"]);
    }
    for (number, label) in POOL {
        add(&mut all, number, Owner::Pool, |_| [label, ""]);
    }
    for number in REJECTED {
        add(&mut all, number, Owner::Rejected, |_| ["inference_pool", ""]);
    }
    let queue = ("per_pod_queue", "per_endpoint_queue_size", "pool_per_pod_queue_size");
    add(&mut all, queue, Owner::Pod, |is_first| {
        ["name", if is_first { "model_server_pod" } else { "model_server_endpoint" }]
    });
    for number in ENDPOINT {
        add(&mut all, number, Owner::Endpoint, |_| ["endpoint_name", "producer_name"]);
    }
    all
}

/// Adds a number's series in every generation; `labels` returns those of the first one, or of the others.
fn add(
    all: &mut Vec<Series>,
    (key, new, first): Number,
    owner: Owner,
    labels: impl Fn(bool) -> [&'static str; 2],
) {
    let mut push = |prefix: &str, selector: &'static str, is_first| {
        let (name, matcher) = match selector.split_once('{') {
            Some((name, matcher)) => (name, matcher.trim_end_matches('}').split_once('=')),
            None => (selector, None),
        };
        let name = format!("{prefix}{name}");
        all.push(Series { key, owner, name, matcher, labels: labels(is_first) });
    };
    for prefix in PREFIXES {
        push(prefix, new, false);
    }
    if !first.is_empty() {
        push("inference_", first, true);
    }
    // Before 1.0 objectives were models.
    if let Some(name) = first.strip_prefix("objective_") {
        push("inference_model_", name, true);
    }
}
