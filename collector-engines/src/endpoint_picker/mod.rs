// SPDX-License-Identifier: Apache-2.0
//! The models, pools and endpoints that an endpoint picker reports.
//!
//! An endpoint picker is no model server: no engine describes it, and none of its numbers is a replica's. `series` lists
//! its series in each generation of their names, `rows` makes [`EndpointPickerMetrics`] of their values, and `of_model`
//! makes of these what is known of one model.

mod of_model;
mod rows;
mod series;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use collector_core::{ModelId, PodName};

pub use of_model::{Routes, Scraped, Silent, of_model};
pub use rows::{Row, Rows};
pub use series::{Owner, Series};

/// The content of an endpoint picker's metrics page.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointPickerMetrics {
    /// By model and target.
    pub models: Vec<EndpointPickerModel>,
    /// By name.
    pub pools: Vec<EndpointPickerPool>,
    /// By name and producer.
    pub endpoints: Vec<EndpointPickerEndpoint>,
    /// For the key of each number the series that it was read from, which shows the generation of names.
    pub matched: Vec<(&'static str, Arc<str>)>,
    /// The numbers of which samples may be missing, by their keys: sums of them are unknown.
    pub unknown: BTreeSet<&'static str>,
    /// Samples of a series that was on the page before. The first one counts, as in Prometheus.
    pub repeated: u64,
    /// Samples beyond the number of series and rows that are read. Where there are any, sums are unknown.
    pub beyond_limit: u64,
}

/// Numbers by their keys, those of [`EndpointPickerMetrics::matched`]; a number that is not on the page is absent.
pub type Numbers = BTreeMap<&'static str, f64>;

/// Requests for one model, as the endpoint picker counts them.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct EndpointPickerModel {
    /// The model that was asked for; `None` if the endpoint picker does not name it.
    pub model: Option<ModelId>,
    /// The model that they were sent to. `None` for numbers given per model that has several targets: the earliest
    /// names count running requests so.
    pub target: Option<ModelId>,
    /// `requests_total`, `errors_total`, `running`; `flow_control_queue_size` and `flow_control_queue_bytes` of the
    /// requests that the endpoint picker holds back; and `_sum` and `_count` of
    /// - `duration`, `itl` and, for each answered request, `ntpot` ("normalized time per output token"), in seconds,
    /// - `ttft_streaming`, the time to first token, and `ttft_whole`, the time to an answer that is not streamed,
    /// - `input_tokens` and `output_tokens`.
    pub numbers: Numbers,
}

/// A pool of model servers, as the endpoint picker sees it.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct EndpointPickerPool {
    /// The InferencePool; `None` if the endpoint picker does not name it.
    pub name: Option<Arc<str>>,
    /// Means over its pods: `avg_kv` (0.0 to 1.0), `avg_queue` and `avg_running` (requests); the pods that are `ready`;
    /// `saturation_effective`, `_prefill` and `_decode`: how full it is for flow control, which holds back requests from
    /// 1.0 on; its `stale_endpoints`, of which there are no recent metrics; and the requests that were `rejected`.
    pub numbers: Numbers,
    /// Requests waiting in each pod, by its name.
    pub per_pod_queue: Vec<(PodName, f64)>,
}

/// The requests that are in flight to one endpoint, that is, to one port of a pod.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct EndpointPickerEndpoint {
    /// Its name: that of the pod, with `-rank-` and the number of the port.
    pub name: Arc<str>,
    /// Which of the endpoint picker's producers counts them. Each counts the same requests.
    pub producer: Option<Arc<str>>,
    /// `in_flight_requests` and `in_flight_tokens`. The endpoint picker may keep those of pods that are gone.
    pub numbers: Numbers,
}
