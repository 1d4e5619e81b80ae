//! The models and pools on the metrics page of an endpoint picker.
//!
//! An endpoint picker is no model server: no engine describes it, and none of its numbers is a replica's.
//! `names` lists its series in each generation of their names, `reader` turns samples into
//! [`EndpointPickerMetrics`].

mod names;
mod reader;

use std::sync::Arc;

use collector_core::{ModelId, PodName};

pub(crate) use names::Names;
pub(crate) use reader::Reader;

/// The content of an endpoint picker's metrics page.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointPickerMetrics {
    /// By model and target.
    pub models: Vec<EndpointPickerModel>,
    /// By name.
    pub pools: Vec<EndpointPickerPool>,
    /// For the key of each number the series that it was read from, which shows the generation of names.
    pub matched: Vec<(&'static str, Arc<str>)>,
    /// Samples of a series that was on the page before. The first one counts, as in Prometheus.
    pub repeated: u64,
    /// Samples beyond the number of series and rows that are read. Where there are any, sums are unknown.
    pub beyond_limit: u64,
}

/// Requests for one model, as the endpoint picker counts them. `None`: not on the page.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct EndpointPickerModel {
    /// The model that was asked for; `None` if the endpoint picker does not name it.
    pub model: Option<ModelId>,
    /// The model that they were sent to. `None` for numbers given per model that has several targets: the earliest
    /// names count running requests so.
    pub target: Option<ModelId>,
    /// Requests.
    pub requests_total: Option<f64>,
    /// Requests that failed.
    pub errors_total: Option<f64>,
    /// Requests that run.
    pub running: Option<f64>,
    /// Requests held back in the endpoint picker's queues.
    pub flow_control_queue_size: Option<f64>,
    /// Bytes of these.
    pub flow_control_queue_bytes: Option<f64>,
    /// Durations, in seconds.
    pub duration_sum: Option<f64>,
    /// Durations measured.
    pub duration_count: Option<f64>,
    /// Prompt tokens.
    pub input_tokens_sum: Option<f64>,
    /// Requests whose prompt tokens were counted.
    pub input_tokens_count: Option<f64>,
    /// Generated tokens.
    pub output_tokens_sum: Option<f64>,
    /// Requests whose generated tokens were counted.
    pub output_tokens_count: Option<f64>,
    /// Durations divided by generated tokens ("normalized time per output token"), in seconds.
    pub ntpot_sum: Option<f64>,
    /// Such quotients measured.
    pub ntpot_count: Option<f64>,
    /// Inter-token latencies of streaming requests, in seconds.
    pub itl_sum: Option<f64>,
    /// Such latencies measured.
    pub itl_count: Option<f64>,
    /// Times to first token of streaming requests, in seconds.
    pub ttft_streaming_sum: Option<f64>,
    /// Such times measured.
    pub ttft_streaming_count: Option<f64>,
    /// Times to the answer of requests that do not stream, in seconds.
    pub ttft_whole_sum: Option<f64>,
    /// Such times measured.
    pub ttft_whole_count: Option<f64>,
}

/// A pool of model servers, as the endpoint picker sees it. `None`: not on the page.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct EndpointPickerPool {
    /// The InferencePool; `None` if the endpoint picker does not name it.
    pub name: Option<Arc<str>>,
    /// Mean KV-cache usage of its pods, 0.0 to 1.0.
    pub avg_kv: Option<f64>,
    /// Mean number of requests that wait in a pod.
    pub avg_queue: Option<f64>,
    /// Mean number of requests that run in a pod.
    pub avg_running: Option<f64>,
    /// Pods that are ready.
    pub ready: Option<f64>,
    /// How full the pool is for flow control: from 1.0 on requests are held back.
    pub saturation_effective: Option<f64>,
    /// Requests waiting in each pod, by its name.
    pub per_pod_queue: Vec<(PodName, f64)>,
}
