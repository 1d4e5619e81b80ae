// SPDX-License-Identifier: Apache-2.0
//! Exports the numbers of endpoint pickers about pools and queued requests as metrics of the collector: no replica has
//! these numbers.

use std::collections::HashMap;

use metrics::{describe_gauge, gauge};

use super::fleet::Fleet;
use super::pod::Outcome;
use crate::endpoint_picker::EndpointPickerMetrics;
use crate::engines::Exposition;

/// Rows of one page that are shown.
const ROWS_MAX: usize = 256;

/// The families of a pool's numbers: their keys, and what they are.
const OF_POOL: [(&str, &str, &str); 5] = [
    ("collector_epp_pool_ready_pods", "ready", "Ready pods of the pool"),
    (
        "collector_epp_pool_average_kv_cache_usage",
        "avg_kv",
        "Mean share of the KV cache in use over the pool's pods, 0 to 1",
    ),
    (
        "collector_epp_pool_average_queue_size",
        "avg_queue",
        "Mean number of waiting requests over the pool's pods",
    ),
    (
        "collector_epp_pool_average_running_requests",
        "avg_running",
        "Mean number of running requests over the pool's pods",
    ),
    ("collector_epp_pool_saturation", "saturation_effective", "Saturation of the pool, full at 1"),
];

/// Those of a model's numbers.
const OF_MODEL: [(&str, &str, &str); 2] = [
    (
        "collector_epp_flow_control_queue_size",
        "flow_control_queue_size",
        "Requests for the model that endpoint pickers hold back",
    ),
    (
        "collector_epp_flow_control_queue_bytes",
        "flow_control_queue_bytes",
        "Size of the requests for the model that endpoint pickers hold back",
    ),
];

/// Describes the families. They have no series before an endpoint picker has such a number.
pub(crate) fn register() {
    for (family, _, help) in OF_POOL.into_iter().chain(OF_MODEL) {
        describe_gauge!(family, help);
    }
}

/// A gauge: its family, the namespace, and the pool or model.
type Key = (&'static str, String, String);

/// The gauges of all endpoint pickers that were exported last.
#[derive(Default)]
pub(super) struct EndpointPickerGauges {
    shown: HashMap<Key, f64>,
}

impl EndpointPickerGauges {
    /// Exports the last numbers of the endpoint pickers. A gauge that none of them has any more becomes NaN,
    /// because it cannot be removed and its last value would stay for ever.
    pub(super) fn show(&mut self, fleet: &Fleet) {
        let mut now: HashMap<Key, f64> = HashMap::new();
        for pod in fleet.pods(|_| true) {
            let Outcome::Good(good) = pod.seen().outcome.clone() else { continue };
            if let Exposition::EndpointPicker(metrics) = &good.page {
                collect(metrics, pod.target.namespace.as_str(), &mut now);
            }
        }
        let gone = self.shown.keys().filter(|key| !now.contains_key(key));
        for key in gone {
            set(key, f64::NAN);
        }
        for (key, value) in &now {
            set(key, *value);
        }
        self.shown = now;
    }
}

/// Endpoint pickers of one pool see the same pods, so one of them is enough; each holds back requests of
/// its own.
fn collect(metrics: &EndpointPickerMetrics, namespace: &str, gauges: &mut HashMap<Key, f64>) {
    for pool in metrics.pools.iter().take(ROWS_MAX) {
        let name = pool.name.as_deref().unwrap_or_default();
        for (family, key, _) in OF_POOL {
            if let Some(value) = pool.numbers.get(key) {
                gauges.insert((family, namespace.to_owned(), name.to_owned()), *value);
            }
        }
    }
    for model in metrics.models.iter().take(ROWS_MAX) {
        let name = model.model.as_ref().or(model.target.as_ref());
        let name = name.map_or("", |name| name.as_str());
        for (family, key, _) in OF_MODEL {
            if let Some(value) = model.numbers.get(key) {
                // Requests for one model may be held back for several targets.
                let key = (family, namespace.to_owned(), name.to_owned());
                *gauges.entry(key).or_default() += value;
            }
        }
    }
}

fn set((family, namespace, name): &Key, value: f64) {
    let kind = if family.starts_with("collector_epp_pool") { "pool" } else { "model" };
    gauge!(*family, "namespace" => namespace.clone(), kind => name.clone()).set(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint_picker::{EndpointPickerModel, EndpointPickerPool};

    #[test]
    fn requests_held_back_are_summed_over_targets_and_endpoint_pickers() {
        let held = |target: &str, size| EndpointPickerModel {
            model: Some("m".into()),
            target: Some(target.into()),
            numbers: [("flow_control_queue_size", size)].into(),
        };
        let pool = EndpointPickerPool {
            name: Some("p".into()),
            numbers: [("ready", 3.0)].into(),
            ..EndpointPickerPool::default()
        };
        let metrics = EndpointPickerMetrics {
            models: vec![held("a", 2.0), held("b", 3.0)],
            pools: vec![pool],
            endpoints: Vec::new(),
            unknown: std::collections::BTreeSet::new(),
            matched: Vec::new(),
            repeated: 0,
            beyond_limit: 0,
        };
        let mut gauges = HashMap::new();
        collect(&metrics, "prod", &mut gauges);
        collect(&metrics, "prod", &mut gauges);
        let of = |family, name: &str| gauges.get(&(family, "prod".to_owned(), name.to_owned()));
        assert_eq!(of("collector_epp_flow_control_queue_size", "m"), Some(&10.0));
        assert_eq!(of("collector_epp_pool_ready_pods", "p"), Some(&3.0));
        // What is not on the page is no 0.
        assert_eq!(of("collector_epp_pool_average_kv_cache_usage", "p"), None);
        assert_eq!(gauges.len(), 2);
    }
}
