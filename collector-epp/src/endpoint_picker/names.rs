//! The series of an endpoint picker, in four generations of names.
//!
//! Newer builds write the older names beside the new ones, for the same requests. So the newest generation
//! on the page is used for each number, and the others are ignored.

use std::collections::HashMap;
use std::sync::Arc;

use crate::scan::{NameId, Wanted};

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

/// The numbers of a pool, each with the label that names the pool.
#[rustfmt::skip]
const POOL: [(Number, &str); 6] = [
    (("avg_kv", "average_kv_cache_utilization", "pool_average_kv_cache_utilization"), "name"),
    (("avg_queue", "average_queue_size", "pool_average_queue_size"), "name"),
    (("avg_running", "average_running_requests", "pool_average_running_requests"), "name"),
    (("ready", "ready_endpoints", "pool_ready_pods"), "name"),
    (("saturation_effective", "flow_control_pool_saturation{stage=effective}",
        "extension_flow_control_pool_saturation{stage=effective}"), "inference_pool"),
    // Builds that do not separate the stages have no such label.
    (("saturation_effective", "flow_control_pool_saturation{stage=}",
        "extension_flow_control_pool_saturation{stage=}"), "inference_pool"),
];

/// The series that one number may be read from.
#[derive(Debug)]
pub(crate) struct Series {
    /// The key of the number.
    pub(super) key: &'static str,
    pub(super) owner: Owner,
    pub(super) name: String,
    /// A label and the value that it must have.
    pub(super) matcher: Option<(&'static str, &'static str)>,
    /// The labels that name the row: model and target, pool, or pool and pod.
    pub(super) labels: [&'static str; 2],
}

/// What a number is of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    /// A model. Its series are summed: they are by tenant and priority or by error code.
    Model,
    Pool,
    /// A pod of a pool: the requests that wait in it.
    Pod,
}

/// All series of endpoint pickers, looked up by the id of their name.
#[derive(Debug)]
pub(crate) struct Names {
    /// By number, and of each number in order of preference.
    pub(super) series: Vec<Series>,
    by_name: HashMap<NameId, Vec<usize>>,
}

impl Names {
    /// The names that a scanner must look for.
    pub(crate) fn all() -> impl Iterator<Item = Box<str>> {
        series().into_iter().map(|series| series.name.into())
    }

    /// The series, by the ids that a scanner gives their names.
    pub(crate) fn new(wanted: &Wanted) -> Self {
        let series = series();
        let mut by_name: HashMap<NameId, Vec<usize>> = HashMap::new();
        for (index, series) in series.iter().enumerate() {
            if let Some(id) = wanted.id_of(&series.name) {
                by_name.entry(id).or_default().push(index);
            }
        }
        Self { series, by_name }
    }

    /// The ids of the names.
    pub(crate) fn ids(&self) -> impl Iterator<Item = NameId> {
        self.by_name.keys().copied()
    }

    /// The series of a name, by their indices.
    pub(super) fn of(&self, name: NameId) -> &[usize] {
        self.by_name.get(&name).map_or(&[], Vec::as_slice)
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

fn series() -> Vec<Series> {
    let mut all = Vec::new();
    for number in MODEL {
        add(&mut all, number, Owner::Model, |_| ["model_name", "target_model_name"]);
    }
    for (number, label) in POOL {
        add(&mut all, number, Owner::Pool, |_| [label, ""]);
    }
    let queue = ("per_pod_queue", "per_endpoint_queue_size", "pool_per_pod_queue_size");
    add(&mut all, queue, Owner::Pod, |is_first| {
        ["name", if is_first { "model_server_pod" } else { "model_server_endpoint" }]
    });
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
