// SPDX-License-Identifier: Apache-2.0
//! Exports the numbers of endpoint pickers about pools and queued requests as metrics of the collector: no replica has
//! these numbers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use collector_core::{Namespace, Tick};
use collector_engines::endpoint_picker::Routes;
use metrics::{describe_gauge, gauge};

use super::fleet::Fleet;
use super::pod::{Good, LastSeen, Outcome, Pod};
use crate::endpoint_picker::EndpointPickerMetrics;
use crate::engines::Exposition;

/// Rows of one page that are shown.
const ROWS_MAX: usize = 256;
/// How old a page may be whose numbers are shown, because a gauge has no age.
const PAGE_AGE_MAX: Duration = Duration::from_secs(60);

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
    pub(super) fn show(&mut self, fleet: &Fleet, now: Tick) {
        let pods = fleet.pods(|_| true);
        let pickers = pods.iter().filter_map(|pod| Some((&pod.target.namespace, last(pod, now)?)));
        let numbers = gauges(pickers);
        let gone = self.shown.keys().filter(|key| !numbers.contains_key(key));
        for key in gone {
            set(key, f64::NAN);
        }
        for (key, value) in &numbers {
            set(key, *value);
        }
        self.shown = numbers;
    }
}

/// The last page of an endpoint picker, or that it does not respond and what it has received requests for.
enum Last {
    Page(Arc<Good>),
    Silent(Routes),
}

/// What an endpoint picker last said; `None` if it is none, or nobody expects it to respond.
fn last(pod: &Pod, now: Tick) -> Option<Last> {
    let seen = pod.seen();
    let LastSeen::EndpointPicker(routes) = &seen.was else { return None };
    match &seen.outcome {
        // It is not scraped again where no model of its namespace is tracked.
        Outcome::Good(good) if good.asked_at.age(now) <= PAGE_AGE_MAX => {
            Some(Last::Page(Arc::clone(good)))
        }
        _ if seen.is_out_of_service() => None,
        _ => Some(Last::Silent(routes.clone())),
    }
}

/// The gauges of these endpoint pickers. A sum over them is unknown while one of them is.
fn gauges<'a>(pickers: impl Iterator<Item = (&'a Namespace, Last)>) -> HashMap<Key, f64> {
    let mut gauges = HashMap::new();
    let mut unknown: HashSet<(&str, &str)> = HashSet::new();
    let mut silent = Vec::new();
    for (namespace, last) in pickers {
        let namespace = namespace.as_str();
        match last {
            Last::Page(good) => {
                let Exposition::EndpointPicker(metrics) = &good.page else { continue };
                collect(metrics, namespace, &mut gauges);
                let lacks = OF_MODEL.iter().filter(|(_, key, _)| metrics.unknown.contains(key));
                unknown.extend(lacks.map(|(family, ..)| (*family, namespace)));
            }
            Last::Silent(routes) => silent.push((namespace, routes)),
        }
    }
    let is_sum = |of: &str| OF_MODEL.iter().any(|(family, ..)| *family == of);
    gauges.retain(|(family, namespace, model), _| {
        let may_hold = |(of, routes): &(&str, Routes)| {
            of == namespace && (routes.are_unknown() || routes.names(&model.as_str().into()))
        };
        let is_unknown = || unknown.contains(&(*family, namespace.as_str()));
        !is_sum(family) || !(is_unknown() || silent.iter().any(may_hold))
    });
    gauges
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
    use collector_core::{Clock, ManualClock};

    use super::*;
    use crate::backend::shared::Shared;
    use crate::config::EppConfig;
    use crate::discover::{Found, TargetSpec};
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
        let page = |metrics: &EndpointPickerMetrics| {
            Last::Page(Arc::new(Good::of_picker(metrics.clone(), Tick::MIN)))
        };
        let prod = Namespace::from("prod");
        let gauges_of = |pickers: Vec<Last>| gauges(pickers.into_iter().map(|last| (&prod, last)));
        let gauges = gauges_of(vec![page(&metrics), page(&metrics)]);
        let of = |family, name: &str| gauges.get(&(family, "prod".to_owned(), name.to_owned()));
        assert_eq!(of("collector_epp_flow_control_queue_size", "m"), Some(&10.0));
        assert_eq!(of("collector_epp_pool_ready_pods", "p"), Some(&3.0));
        // What is not on the page is no 0.
        assert_eq!(of("collector_epp_pool_average_kv_cache_usage", "p"), None);
        assert_eq!(gauges.len(), 2);
        // Each of these may hold back requests for the model as well.
        let of_other = EndpointPickerMetrics {
            unknown: ["flow_control_queue_size"].into(),
            models: Vec::new(),
            ..metrics.clone()
        };
        for other in
            [Last::Silent(Routes::of(&metrics)), Last::Silent(Routes::default()), page(&of_other)]
        {
            let gauges = gauges_of(vec![page(&metrics), other]);
            let families: Vec<&str> = gauges.keys().map(|(family, ..)| *family).collect();
            assert_eq!(families, ["collector_epp_pool_ready_pods"]);
        }
    }

    #[test]
    fn an_old_page_is_not_shown() {
        let spec = TargetSpec {
            url: "http://epp:9090/metrics".into(),
            namespace: "prod".into(),
            engine: Some("epp".into()),
            ..TargetSpec::default()
        };
        let clock = Arc::new(ManualClock::new());
        let config = EppConfig { targets: vec![spec.clone()], ..EppConfig::default() };
        let shared = Shared::new(config, Vec::new(), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        shared.take(Found { targets: vec![spec.target().unwrap()], ..Found::default() });
        let pod = shared.fleet.pods(|_| true).remove(0);
        let metrics = EndpointPickerMetrics {
            models: Vec::new(),
            pools: Vec::new(),
            endpoints: Vec::new(),
            unknown: std::collections::BTreeSet::new(),
            matched: Vec::new(),
            repeated: 0,
            beyond_limit: 0,
        };
        let asked_at = clock.now();
        pod.seen().outcome = Outcome::Good(Arc::new(Good::of_picker(metrics, asked_at)));
        assert!(matches!(last(&pod, asked_at), Some(Last::Page(_))));
        assert!(matches!(last(&pod, asked_at + PAGE_AGE_MAX * 2), Some(Last::Silent(_))));
    }
}
