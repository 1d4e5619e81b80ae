// SPDX-License-Identifier: Apache-2.0
//! The picker's page, in the three generations of its names.
//!
//! Newer pages show everything twice: under the legacy names, and under new names with changed labels.

use super::counters::PickerCounters;
use super::flow::FAIRNESS_IDS;
use super::runtime::{after, before};
use super::{PickerView, PoolModel, PoolPod};
use crate::engine::{Histogram, Numbers, Page, bound_label, labels};
use crate::spec::PickerNames;

/// Requests without a tenant.
const DEFAULT_FLOW: &str = "default-flow";
const PRIORITY: &str = "0";

/// Bounds for very short durations.
const MOMENTS: &[f64] = &[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];

/// The picker's plugins, by extension point.
const PLUGINS: [(&str, &str); 7] = [
    ("Filter", "decode-filter"),
    ("Picker", "max-score-picker"),
    ("PreRequest", "prefix-cache-scorer"),
    ("ProfileHandler", "single-profile-handler"),
    ("Scorer", "kv-cache-utilization-scorer"),
    ("Scorer", "prefix-cache-scorer"),
    ("Scorer", "queue-scorer"),
];

pub(super) fn render(view: &PickerView) -> String {
    let mut page = Page::new(Numbers::Go);
    before(&mut page);
    Generation { view, page: &mut page, prefix: None }.all();
    page.family("leader_election_master_status", "Whether this is the leader", "gauge");
    page.sample("leader_election_master_status", &[&labels(&[("name", "epp")])], 1.0);
    let prefix = match view.names {
        PickerNames::Legacy => None,
        PickerNames::Router => Some("llm_d_router_epp"),
        PickerNames::LlmD => Some("llm_d_epp"),
    };
    if prefix.is_some() {
        Generation { view, page: &mut page, prefix }.all();
    }
    after(&mut page, view.started);
    page.finish()
}

/// One generation of names.
struct Generation<'a> {
    view: &'a PickerView,
    page: &'a mut Page,
    /// `None` for the legacy names.
    prefix: Option<&'static str>,
}

impl Generation<'_> {
    fn all(&mut self) {
        self.flow_control();
        self.machinery();
        self.requests();
        self.pool();
    }

    /// Returns the name of a family: with this generation's prefix, or the legacy name.
    fn name(&self, legacy: &str, new: &str) -> String {
        self.prefix.map_or_else(|| legacy.to_owned(), |prefix| format!("{prefix}_{new}"))
    }

    /// Most families of the extension only changed their prefix.
    fn extension(&self, name: &str) -> String {
        self.name(&format!("inference_extension_{name}"), name)
    }

    fn flow_control(&mut self) {
        let pool = self.view.pool.clone();
        let received = self.view.received();
        let name = self.extension("flow_control_dispatch_cycle_duration_seconds");
        self.moments(&name, "Dispatch cycles", &[String::new()], received);

        let name = self.extension("flow_control_pool_saturation");
        self.page.family(&name, "Saturation of the pool", "gauge");
        let saturation = self.view.saturation();
        // Prefill is not simulated separately.
        for (stage, value) in [("decode", saturation), ("effective", saturation), ("prefill", 0.0)]
        {
            let labels = labels(&[("inference_pool", &pool), ("stage", stage)]);
            self.page.sample(&name, &[&labels], value);
        }
        for (queue, help, of_bytes) in [
            ("flow_control_queue_bytes", "Bytes held back", true),
            ("flow_control_queue_size", "Requests held back", false),
        ] {
            let name = self.extension(queue);
            self.page.family(&name, help, "gauge");
            for (model, flow, fairness_id) in flows(&self.view.models) {
                let size = if of_bytes { flow.bytes } else { flow.requests };
                let labels = flow_labels(fairness_id, &pool, &model.model, None);
                self.page.sample(&name, &[&labels], size as f64);
            }
        }
        let name = self.extension("flow_control_request_queue_duration_seconds");
        self.page.family(&name, "Time requests were held back", "histogram");
        for (model, flow, fairness_id) in flows(&self.view.models) {
            let labels = flow_labels(fairness_id, &pool, &model.model, Some("Dispatched"));
            histogram(self.page, &name, &labels, &flow.waited);
        }
    }

    /// Adds the families about the picker itself.
    fn machinery(&mut self) {
        let info = self.extension("info");
        self.page.family(&info, "Build of the picker", "gauge");
        let build = labels(&[("build_ref", "main"), ("commit", "9f3c1d7")]);
        self.page.sample(&info, &[&build], 1.0);

        let received = self.view.received();
        let plugins = PLUGINS.map(|(point, plugin)| {
            labels(&[("extension_point", point), ("plugin_name", plugin), ("plugin_type", plugin)])
        });
        let name = self.extension("plugin_duration_seconds");
        self.moments(&name, "Time in a plugin", &plugins, received);

        let indexer = self.extension("prefix_indexer_size");
        self.page.family(&indexer, "Size of the prefix index", "gauge");
        let scorer = "prefix-cache-scorer";
        let plugin = labels(&[("plugin_name", scorer), ("plugin_type", scorer)]);
        let plugin = if self.prefix.is_some() { plugin.as_str() } else { "" };
        self.page.sample(&indexer, &[plugin], 0.0);

        let attempts = self.extension("scheduler_attempts_total");
        self.page.family(&attempts, "Attempts to send a request", "counter");
        for PoolPod { name, model, sent, .. } in &self.view.pods {
            let namespace = ("namespace", self.view.namespace.as_str());
            let pod = if self.prefix.is_some() {
                [("endpoint_name", name.as_str()), namespace]
            } else {
                [namespace, ("pod_name", name)]
            };
            let rest = [("port", "8000"), ("status", "success"), ("target_model_name", model)];
            self.page.sample(&attempts, &[&labels(&pod), &labels(&rest)], *sent as f64);
        }
        let name = self.extension("scheduler_e2e_duration_seconds");
        self.moments(&name, "Time to choose a pod", &[String::new()], received);
    }

    fn requests(&mut self) {
        type Pick = fn(&PickerCounters) -> &Histogram;
        let histograms: [(&str, &str, Pick); 7] = [
            ("input_tokens", "request_input_tokens", |c| &c.input_tokens),
            ("normalized_time_per_output_token_seconds", "request_ntpot_seconds", |c| {
                &c.time_per_output_token
            }),
            ("output_tokens", "request_output_tokens", |c| &c.output_tokens),
            ("prompt_cached_tokens", "request_cached_tokens", |c| &c.cached_tokens),
            ("request_duration_seconds", "request_duration_seconds", |c| &c.duration),
            ("request_sizes", "request_size_bytes", |c| &c.request_bytes),
            ("response_sizes", "response_size_bytes", |c| &c.response_bytes),
        ];
        for (legacy, new, pick) in histograms {
            let name = self.name(&format!("inference_objective_{legacy}"), new);
            self.histograms(&name, legacy, pick, &[]);
        }
        if self.prefix.is_some() {
            let name = self.name("", "request_streaming_itl_seconds");
            self.histograms(&name, "Time between tokens", |c| &c.inter_token_latency, &[]);
            let name = self.name("", "request_ttft_seconds");
            let help = "Time to first token";
            self.histograms(&name, help, |c| &c.time_to_first_token, &[("streaming", "true")]);
        }
        let errors = self.name("inference_objective_request_error_total", "request_error_total");
        self.page.family(&errors, "Requests that failed", "counter");
        for PoolModel { model, refused, .. } in &self.view.models {
            let code = labels(&[("error_code", "ModelServerError")]);
            let labels = self.of_model(model, &[]);
            self.page.sample(&errors, &[&code, &labels], *refused as f64);
        }
        let requests = self.name("inference_objective_request_total", "request_total");
        self.page.family(&requests, "Requests", "counter");
        for PoolModel { model, received, .. } in &self.view.models {
            let fairness = labels(&[("fairness_id", DEFAULT_FLOW)]);
            let fairness = if self.prefix.is_some() { fairness.as_str() } else { "" };
            let labels = labels(&[
                ("model_name", model),
                ("priority", PRIORITY),
                ("target_model_name", model),
            ]);
            self.page.sample(&requests, &[fairness, &labels], *received as f64);
        }
        let running = self.name("inference_objective_running_requests", "request_running");
        self.page.family(&running, "Requests that are being answered", "gauge");
        for PoolModel { model, .. } in &self.view.models {
            let of_model = self.view.pods.iter().filter(|pod| pod.model == *model);
            let inside: u32 = of_model.map(|pod| pod.waiting + pod.running).sum();
            let labels = if self.prefix.is_some() {
                self.of_model(model, &[])
            } else {
                labels(&[("model_name", model)])
            };
            self.page.sample(&running, &[&labels], f64::from(inside));
        }
    }

    fn pool(&mut self) {
        type Of = fn(&PoolPod) -> f64;
        let pool = labels(&[("name", &self.view.pool)]);
        let quantities: [(&str, Of); 3] = [
            ("kv_cache_utilization", |pod| pod.kv_cache_usage),
            ("queue_size", |pod| f64::from(pod.waiting)),
            ("running_requests", |pod| f64::from(pod.running)),
        ];
        for (quantity, of) in quantities {
            let average = format!("average_{quantity}");
            let name = self.name(&format!("inference_pool_{average}"), &average);
            self.page.family(&name, "Mean over the pods", "gauge");
            self.page.sample(&name, &[&pool], self.view.average(of));
        }
        let queues = self.name("inference_pool_per_pod_queue_size", "per_endpoint_queue_size");
        self.page.family(&queues, "Queue of a pod", "gauge");
        let pod_label =
            if self.prefix.is_some() { "model_server_endpoint" } else { "model_server_pod" };
        for PoolPod { name, waiting, .. } in &self.view.pods {
            let pod = labels(&[(pod_label, name)]);
            self.page.sample(&queues, &[&pod, &pool], f64::from(*waiting));
        }
        let ready = self.name("inference_pool_ready_pods", "ready_endpoints");
        self.page.family(&ready, "Pods that are ready", "gauge");
        self.page.sample(&ready, &[&pool], self.view.pods.len() as f64);
        if self.prefix.is_some() {
            for (quantity, of) in quantities {
                let name = self.name("", &format!("std_dev_{quantity}"));
                self.page.family(&name, "Standard deviation over the pods", "gauge");
                self.page.sample(&name, &[&pool], self.view.standard_deviation(of));
            }
        }
    }

    /// Returns the labels of a model's requests. New names have more labels.
    fn of_model(&self, model: &str, more: &[(&str, &str)]) -> String {
        let flow = labels(&[("fairness_id", DEFAULT_FLOW)]);
        let name = labels(&[("model_name", model)]);
        let priority = labels(&[("priority", PRIORITY)]);
        let target = labels(&[("target_model_name", model)]);
        if self.prefix.is_some() {
            [flow, name, priority, labels(more), target].concat()
        } else {
            [name, target].concat()
        }
    }

    fn histograms(
        &mut self,
        name: &str,
        help: &str,
        pick: fn(&PickerCounters) -> &Histogram,
        more: &[(&str, &str)],
    ) {
        self.page.family(name, &help.replace('_', " "), "histogram");
        for PoolModel { model, counters, .. } in &self.view.models {
            if let Some(counters) = counters {
                histogram(self.page, name, &self.of_model(model, more), pick(counters));
            }
        }
    }

    /// Adds histograms of durations that are not simulated.
    fn moments(&mut self, name: &str, help: &str, series: &[String], count: u64) {
        self.page.family(name, help, "histogram");
        let mut instants = Histogram::of_times(MOMENTS);
        instants.observe_many(std::time::Duration::ZERO, count);
        for labels in series {
            histogram(self.page, name, labels, &instants);
        }
    }
}

/// Iterates over the flows of each model, with their fairness ids.
fn flows(models: &[PoolModel]) -> impl Iterator<Item = (&PoolModel, &super::Flow, &'static str)> {
    models.iter().flat_map(|model| {
        model.flows.iter().zip(FAIRNESS_IDS).map(move |(flow, id)| (model, flow, id))
    })
}

fn flow_labels(fairness_id: &str, pool: &str, model: &str, outcome: Option<&str>) -> String {
    let outcome = outcome.map(|outcome| labels(&[("outcome", outcome)])).unwrap_or_default();
    [
        labels(&[("fairness_id", fairness_id), ("inference_pool", pool), ("model_name", model)]),
        outcome,
        labels(&[("priority", PRIORITY), ("target_model_name", model)]),
    ]
    .concat()
}

/// The Go client puts `le` last and the sum before the count.
fn histogram(page: &mut Page, name: &str, labels: &str, histogram: &Histogram) {
    let bucket = format!("{name}_bucket");
    let bounds = histogram.bounds().iter().copied().chain([f64::INFINITY]);
    for (index, bound) in bounds.enumerate() {
        let le = bound_label(Numbers::Go, bound);
        page.sample(&bucket, &[labels, &le], histogram.up_to(index) as f64);
    }
    page.sample(&format!("{name}_sum"), &[labels], histogram.sum());
    page.sample(&format!("{name}_count"), &[labels], histogram.count() as f64);
}
