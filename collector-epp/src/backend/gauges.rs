// SPDX-License-Identifier: Apache-2.0
//! The gauges of pods as their pages show them.

use collector_core::{Namespace, PageGauges, PodGauges, PodsGauges};

use super::EppBackend;
use super::pod::{LastSeen, Outcome, Pod};

impl PageGauges for EppBackend {
    fn keep(&self) {
        self.shared.keep_gauges();
    }

    fn looks_for(&self, name: &str) -> bool {
        self.shared.engines.has_gauge(name)
    }

    fn pods(&self, of: &dyn Fn(&Namespace) -> bool) -> PodsGauges {
        let mut found = PodsGauges::default();
        let state = self.shared.fleet.lock();
        let unknown = state.may_lack_pods();
        found.unknown = unknown.map(|error| self.shared.config.with_section(&error.to_string()));
        let namespaces = state.namespaces.iter().filter(|(namespace, _)| of(namespace));
        let pods = namespaces.flat_map(|(_, pods)| pods.values());
        found.pods = pods.filter_map(|pod| pod.gauges()).collect();
        found
    }
}

impl Pod {
    /// Returns the gauges of its last page; `None` for an endpoint picker, and for a pod that starts or terminates and does
    /// not answer, of which no series are missed.
    fn gauges(&self) -> Option<PodGauges> {
        let seen = self.seen();
        if matches!(seen.was, LastSeen::EndpointPicker(_)) || seen.is_out_of_service() {
            return None;
        }
        let failure = match &seen.outcome {
            Outcome::Good(_) | Outcome::Untried => None,
            Outcome::Failed(cause) => Some(cause.detail.clone()),
        };
        Some(PodGauges {
            namespace: self.target.namespace.clone(),
            pod: self.target.pod.clone(),
            page: seen.gauges.clone(),
            failure,
        })
    }
}
