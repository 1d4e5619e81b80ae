// SPDX-License-Identifier: Apache-2.0
//! All pods by namespace, and those that terminated recently.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use collector_core::{ErrorKind, ModelId, ModelRef, Namespace, PodName, Tick};

use super::pod::{Outcome, Pod};
use crate::discover::{DiscoveryError, Duplicate, Found, Target};

/// The pods that are scraped.
pub(crate) struct Fleet {
    /// How long terminated pods are remembered.
    window: Duration,
    /// How many terminated pods are remembered.
    max_gone: usize,
    state: Mutex<State>,
}

/// One server: its pod, and its rank if the pod has several.
pub(crate) type Server = (PodName, Option<Arc<str>>);

/// The pods and the state of discovery. The lock is never held over an await.
pub(crate) struct State {
    pub(crate) namespaces: HashMap<Namespace, BTreeMap<Server, Arc<Pod>>>,
    /// Targets that are ignored because another one is the same server.
    pub(crate) duplicates: HashSet<Duplicate>,
    /// The errors of sources that have never returned their targets: there may be more pods.
    pub(crate) unknown: Vec<DiscoveryError>,
    /// The errors of sources whose targets are from before: that they name no pod is no proof that there is none.
    pub(crate) outdated: Vec<DiscoveryError>,
    /// The targets are all pods that there are.
    pub(crate) lists_pods: bool,
    /// Some source has not been asked yet.
    pub(crate) not_asked_yet: bool,
    /// How many targets each source has.
    pub(crate) counts: Vec<(String, usize)>,
    /// When the set of pods last changed.
    pub(crate) changed_at: Tick,
    /// Pods that vanished, and when, in that order: one that comes back within the window keeps its
    /// counters.
    gone: VecDeque<(Arc<Pod>, Tick)>,
}

impl State {
    /// Returns why there may be more pods; `None` if every source has returned its targets.
    pub(crate) fn may_lack_pods(&self) -> Option<DiscoveryError> {
        let not_asked = || {
            let message = "the targets are not known yet";
            DiscoveryError::new(ErrorKind::Timeout, message)
        };
        self.unknown.first().cloned().or_else(|| self.not_asked_yet.then(not_asked))
    }
}

impl Fleet {
    pub(crate) fn new(window: Duration, max_gone: usize, now: Tick) -> Self {
        let state = State {
            namespaces: HashMap::new(),
            duplicates: HashSet::new(),
            unknown: Vec::new(),
            outdated: Vec::new(),
            lists_pods: false,
            not_asked_yet: true,
            counts: Vec::new(),
            changed_at: now,
            gone: VecDeque::new(),
        };
        Self { window, max_gone, state: Mutex::new(state) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // After a panic elsewhere the state is at worst half updated, and soon updated again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies the result of discovery. Pods whose target is unchanged are kept. Returns the models of pods that
    /// vanished, or whose `may_be_silent` changed.
    pub(crate) fn set(
        &self,
        found: Found,
        now: Tick,
        make: impl Fn(Target) -> Pod,
    ) -> Vec<ModelRef> {
        let mut state = self.lock();
        state.lists_pods = found.lists_pods;
        state.not_asked_yet = found.not_asked_yet;
        state.unknown = found.unknown;
        state.outdated = found.outdated;
        state.counts = found.counts;
        self.forget(&mut state, now);
        state.duplicates = found.duplicates;
        let mut before: HashMap<(Namespace, Server), Arc<Pod>> =
            std::mem::take(&mut state.namespaces)
                .into_iter()
                .flat_map(|(namespace, pods)| {
                    pods.into_iter().map(move |(name, pod)| ((namespace.clone(), name), pod))
                })
                .collect();
        let mut changed = false;
        // Pods that do not answer, which is a failure now and was none before, or the other way round.
        let mut answers_otherwise = Vec::new();
        for target in found.targets {
            let server = (target.pod.clone(), target.rank.clone());
            let key = (target.namespace.clone(), server);
            let same = |pod: &Arc<Pod>| pod.target.is_same(&target);
            let pod = match before.remove(&key) {
                Some(pod) if same(&pod) => {
                    if pod.set_may_be_silent(target.may_be_silent) {
                        answers_otherwise.push(Arc::clone(&pod));
                    }
                    pod
                }
                other => {
                    changed = true;
                    before.extend(other.map(|pod| (key.clone(), pod)));
                    let gone = state.gone.iter().position(|(pod, _)| same(pod));
                    match gone.and_then(|index| state.gone.remove(index)) {
                        Some((pod, _)) => {
                            pod.set_may_be_silent(target.may_be_silent);
                            pod
                        }
                        None => Arc::new(make(target)),
                    }
                }
            };
            state.namespaces.entry(key.0).or_default().insert(key.1, pod);
        }
        changed |= !before.is_empty() || !answers_otherwise.is_empty();
        if changed {
            state.changed_at = now;
        }
        let models_of = |pod: &Arc<Pod>| -> Vec<ModelRef> {
            let model =
                |model: &ModelId| ModelRef::new(model.clone(), pod.target.namespace.clone());
            pod.seen().was.models().iter().map(model).collect()
        };
        let mut models: Vec<ModelRef> = answers_otherwise.iter().flat_map(models_of).collect();
        for pod in before.into_values() {
            models.extend(models_of(&pod));
            pod.disconnect();
            state.gone.push_back((pod, now));
        }
        while state.gone.len() > self.max_gone {
            state.gone.pop_front();
        }
        models
    }

    /// Forgets pods that terminated longer ago than the window.
    pub(crate) fn tidy(&self, now: Tick) {
        let mut state = self.lock();
        self.forget(&mut state, now);
    }

    fn forget(&self, state: &mut State, now: Tick) {
        state.gone.retain(|(_, since)| since.age(now) <= self.window);
    }

    /// Whether the model was served within the window by a pod that is gone or serves another model now.
    pub(crate) fn served_lately(&self, state: &State, model: &ModelRef, now: Tick) -> bool {
        let since = now - self.window;
        let present = state.namespaces.get(&model.namespace);
        let present = present.into_iter().flat_map(|pods| pods.values());
        let gone = state.gone.iter().map(|(pod, _)| pod);
        let gone = gone.filter(|pod| pod.target.namespace == model.namespace);
        present.chain(gone).any(|pod| pod.seen().served_since(&model.model, since))
    }

    /// Returns the pods of the selected namespaces.
    pub(crate) fn pods(&self, of: impl Fn(&Namespace) -> bool) -> Vec<Arc<Pod>> {
        let state = self.lock();
        let rooms = state.namespaces.iter().filter(|(namespace, _)| of(namespace));
        rooms.flat_map(|(_, pods)| pods.values().cloned()).collect()
    }

    /// Returns how many pods are up, down and untried. One that starts or terminates and does not answer is none of them.
    pub(crate) fn count(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for pod in self.pods(|_| true) {
            let seen = pod.seen();
            if seen.is_out_of_service() {
                continue;
            }
            counts[match seen.outcome {
                Outcome::Good(_) => 0,
                Outcome::Failed(_) => 1,
                Outcome::Untried => 2,
            }] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use collector_core::{Clock, ManualClock};

    use super::*;
    use crate::backend::shared::Shared;
    use crate::config::EppConfig;
    use crate::discover::TargetSpec;

    fn target(pod: &str) -> Target {
        let spec = TargetSpec {
            url: format!("http://{pod}/metrics"),
            namespace: "prod".into(),
            pod: Some(pod.into()),
            ..TargetSpec::default()
        };
        spec.target().unwrap()
    }

    fn pod(shared: &Shared) -> Arc<Pod> {
        shared.fleet.pods(|_| true).remove(0)
    }

    #[test]
    fn a_pod_that_comes_back_within_the_window_is_the_same() {
        let clock = Arc::new(ManualClock::new());
        let config = EppConfig { max_targets: 2, ..EppConfig::default() };
        let shared = Shared::new(config, Vec::new(), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let set = |pod: &str| {
            shared.take(Found { targets: vec![target(pod)], ..Found::default() });
        };
        set("a");
        let a = pod(&shared);
        set("b");
        set("a");
        assert!(Arc::ptr_eq(&a, &pod(&shared)));
        set("b");
        clock.advance(shared.config.window + std::time::Duration::from_secs(1));
        set("a");
        assert!(!Arc::ptr_eq(&a, &pod(&shared)));
        for number in 0..10 {
            set(&format!("c{number}"));
            assert!(shared.fleet.lock().gone.len() <= 2);
        }
        let changed_at = shared.fleet.lock().changed_at;
        clock.advance(std::time::Duration::from_secs(1));
        set("c9");
        assert_eq!(shared.fleet.lock().changed_at, changed_at, "nothing has changed");
        assert!(changed_at < clock.now());
    }
}
