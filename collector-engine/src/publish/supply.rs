// SPDX-License-Identifier: Apache-2.0
//! What a cluster lists of a model's pods, next to what sources of metrics say of them.
//!
//! A list of pods has no metrics. It sets the states of rows, removes those of deleted pods and finds missing ones. Only
//! a list without any pod is a reading by itself.

use std::sync::Arc;
use std::time::Duration;

use collector_core::raw::SourceState;
use collector_core::supply::{PodState, Supply};
use collector_core::text::{counted, printable};
use collector_core::{
    FreshnessThresholds, ModelRef, Outcome, PodCounts, PodName, ReplicaMetrics, ReplicaState,
    Replicas, Tick,
};

/// How long a pod is Ready before its metrics are missed. A Prometheus that scrapes each 30 s has had two chances.
const METRICS_WITHIN: Duration = Duration::from_secs(60);

/// Pods that a warning names.
const NAMED_MAX: usize = 3;

/// The longest name in a warning: that of a pod in Kubernetes.
const NAME_CHARS_MAX: usize = 253;

/// The pods that a source lists.
pub(super) struct PodList<'a> {
    state: &'a SourceState,
    supply: &'a Arc<Supply>,
    /// The last fetch had it, and it is younger than `stale_threshold`: what it says is the present state.
    current: bool,
    says_zero: bool,
}

impl<'a> PodList<'a> {
    /// The pods as the first source that lists them says, in the order of the states.
    pub(super) fn of(
        states: &'a [SourceState],
        thresholds: &FreshnessThresholds,
        now: Tick,
    ) -> Option<Self> {
        let (state, supply) = states.iter().find_map(|state| Some((state, state.supply()?)))?;
        let lists_none = state.answer.as_ref().is_some_and(|answer| answer.sample.lists_pods);
        let rows = states.iter().filter_map(|state| state.answer.as_ref());
        let mut rows = rows.flat_map(|answer| &answer.sample.replicas);
        // A pod that was sampled after the list was made may have started meanwhile.
        let later = |row: &ReplicaMetrics| {
            row.sampled_at > supply.as_of && !supply.saw_delete(&row.pod_name, row.sampled_at)
        };
        Some(Self {
            current: state.outcome == Outcome::Found && !thresholds.warns(supply.as_of.age(now)),
            says_zero: lists_none && supply.is_zero() && !rows.any(later),
            state,
            supply,
        })
    }

    /// Whether the last list had no pod at all, and nothing was sampled after it.
    pub(super) fn says_zero(&self) -> bool {
        self.says_zero
    }

    /// Whether it is known that the model has no pod now.
    pub(super) fn is_known_zero(&self) -> bool {
        self.current && self.says_zero
    }

    /// Whether the pod of a row was deleted after it was sampled.
    pub(super) fn saw_delete(&self, row: &ReplicaMetrics) -> bool {
        self.supply.saw_delete(&row.pod_name, row.sampled_at)
    }

    /// The pods that the model has now; `None` if that is not known, or if it has none.
    pub(super) fn pods(&self) -> Option<PodCounts> {
        (self.current && !self.supply.is_zero()).then(|| self.supply.counts())
    }

    /// The replicas that the metrics have, with what the list says of them; `None` if nothing is known of the model but that
    /// it has pods.
    pub(super) fn complete(
        &self,
        of_metrics: Option<Replicas>,
        model: &ModelRef,
    ) -> Option<Replicas> {
        let no_rows = of_metrics.as_ref().is_none_or(|known| known.replicas.is_empty());
        let mut replicas = match of_metrics {
            Some(known) if !(no_rows && self.is_known_zero()) => known,
            known if self.says_zero => self.without_pods(known, model),
            known => known?,
        };
        replicas.supply = Some(Arc::clone(self.supply));
        if self.current {
            for row in &mut replicas.replicas {
                row.state = self.state_of(row);
            }
            // What lists no target, and a cluster that lists pods: the pods are not scraped.
            replicas.lists_pods &= self.supply.is_zero();
            self.miss_silent_pods(&mut replicas);
        }
        Some(replicas)
    }

    /// The reading of a model of which there is no pod.
    fn without_pods(&self, of_metrics: Option<Replicas>, model: &ModelRef) -> Replicas {
        let backend = self.state.backend.clone();
        let mut replicas = Replicas::new(model.clone(), Vec::new(), backend, self.supply.as_of);
        replicas.lists_pods = self.is_known_zero();
        if let Some(of_metrics) = of_metrics {
            replicas.window = of_metrics.window;
            replicas.endpoint_picker = of_metrics.endpoint_picker;
            replicas.warnings = of_metrics.warnings;
        }
        replicas
    }

    /// The state of a row: what only the server knows goes before what the cluster sees of its pod, except that it goes.
    fn state_of(&self, row: &ReplicaMetrics) -> ReplicaState {
        match (self.supply.pod(&row.pod_name).map(|pod| pod.state), row.state) {
            (Some(PodState::Terminating), _) => ReplicaState::Terminating,
            (_, ReplicaState::Sleeping) => ReplicaState::Sleeping,
            (Some(PodState::Starting), _) => ReplicaState::Starting,
            (Some(PodState::NotReady), _) => ReplicaState::NotReady,
            (_, said) => said,
        }
    }

    /// Marks the reading as partial if it lacks pods that are Ready for long enough to have metrics.
    fn miss_silent_pods(&self, replicas: &mut Replicas) {
        let Some(supplied) = replicas.supplied(None) else { return };
        let warning = if supplied.names_differ() {
            if self.supply.is_zero() {
                "the cluster lists no pod of the model, and a backend has metrics of some"
                    .to_owned()
            } else {
                "the names of pods differ between the cluster and the metrics: no row is of a pod that the cluster lists"
                    .to_owned()
            }
        } else {
            let long = |since: Tick| since.age(self.supply.as_of) > METRICS_WITHIN;
            let silent = supplied.silent().filter(|pod| long(pod.since));
            let silent: Vec<&PodName> = silent.map(|pod| &pod.name).collect();
            if silent.is_empty() {
                return;
            }
            let (are, them) = if silent.len() == 1 { ("is", "it") } else { ("are", "them") };
            let count = counted(silent.len(), "pod", "pods");
            let more = if silent.len() > NAMED_MAX { ", …" } else { "" };
            let named = silent.iter().take(NAMED_MAX);
            let named: Vec<String> = named
                .map(|pod| printable(pod.as_str()).at_most(NAME_CHARS_MAX).to_string())
                .collect();
            let named = named.join(", ");
            replicas.partial = true;
            format!("{count} {are} Ready and no backend has metrics of {them}: {named}{more}")
        };
        replicas.warnings.push(warning.into());
    }
}

#[cfg(test)]
mod tests;
