// SPDX-License-Identifier: Apache-2.0
//! Supply: the pods of a model that a cluster lists, alongside what the pods say themselves.

use crate::clock::Tick;
use crate::model::{PodName, VariantName};

/// The pods of a model, as the cluster lists them. A pod that is not in the list does not exist.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Supply {
    /// When the cluster last confirmed it.
    pub as_of: Tick,
    /// What runs the model, ordered by variant.
    pub workloads: Vec<Workload>,
    /// Pods that were deleted within the last minutes, and when the cluster said so, ordered by name.
    pub deleted: Vec<(PodName, Tick)>,
}

/// A workload, or the pods that no known workload owns.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Workload {
    /// The variant that it is the scale target of; `None`: no known workload owns the pods.
    pub variant: Option<VariantName>,
    /// The replicas that its specification asks for; `None` if it does not say.
    pub wanted: Option<u32>,
    /// Its pods, ordered by name. Of a group that is one replica, this is the pod that serves requests.
    pub pods: Vec<Pod>,
}

/// A pod, as the cluster sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Pod {
    /// Its name.
    pub name: PodName,
    /// Its state.
    pub state: PodState,
    /// Since when at least it has been in this state: when the collector first saw it so.
    pub since: Tick,
}

/// The state of a pod in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum PodState {
    /// It is scheduled, pulls its image or loads its model: it has not been Ready yet.
    Starting,
    /// It is Ready: it gets requests.
    Ready,
    /// It has been Ready, and is not any more.
    NotReady,
    /// It is being deleted.
    Terminating,
}

impl Supply {
    /// A supply of these workloads at `as_of`.
    pub fn new(as_of: Tick, mut workloads: Vec<Workload>) -> Self {
        workloads.sort_unstable_by(|a, b| a.variant.cmp(&b.variant));
        Self { as_of, workloads, deleted: Vec::new() }
    }

    /// Iterates over all pods.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.workloads.iter().flat_map(|workload| &workload.pods)
    }

    /// Returns the pod of a name, if the cluster lists it.
    pub fn pod(&self, name: &PodName) -> Option<&Pod> {
        self.workloads.iter().find_map(|workload| {
            let index = workload.pods.binary_search_by(|pod| pod.name.cmp(name)).ok()?;
            Some(&workload.pods[index])
        })
    }

    /// Counts the pods in a state.
    pub fn count(&self, state: PodState) -> usize {
        self.pods().filter(|pod| pod.state == state).count()
    }

    /// Returns the replicas that all workloads together ask for; `None` if one of them does not say.
    pub fn wanted(&self) -> Option<u32> {
        self.workloads
            .iter()
            .filter(|workload| workload.variant.is_some())
            .try_fold(0_u32, |sum, workload| Some(sum.saturating_add(workload.wanted?)))
    }

    /// Returns whether the model has no pod, not even one that starts or terminates.
    pub fn is_zero(&self) -> bool {
        self.pods().next().is_none()
    }

    /// The supply of one variant alone.
    pub fn narrowed_to(&self, variant: &VariantName) -> Self {
        let workloads = self.workloads.iter();
        let of_variant = workloads.filter(|workload| workload.variant.as_ref() == Some(variant));
        Self {
            as_of: self.as_of,
            workloads: of_variant.cloned().collect(),
            deleted: self.deleted.clone(),
        }
    }

    /// About how many bytes it holds. Its pods have names of their own.
    pub(crate) fn bytes(&self) -> usize {
        let pods = self.pods().map(|pod| size_of::<Pod>() + pod.name.as_str().len());
        let deleted = self.deleted.iter();
        let deleted =
            deleted.map(|(name, at)| size_of_val(at) + size_of_val(name) + name.as_str().len());
        size_of::<Self>()
            + size_of_val(self.workloads.as_slice())
            + pods.sum::<usize>()
            + deleted.sum::<usize>()
    }
}

impl Workload {
    /// A workload with its pods.
    pub fn new(variant: Option<VariantName>, wanted: Option<u32>, mut pods: Vec<Pod>) -> Self {
        pods.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Self { variant, wanted, pods }
    }
}

impl Pod {
    /// A pod that has been in a state since then at least.
    pub const fn new(name: PodName, state: PodState, since: Tick) -> Self {
        Self { name, state, since }
    }
}

impl PodState {
    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::NotReady => "notReady",
            Self::Terminating => "terminating",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(names: &[(&str, PodState)]) -> Vec<Pod> {
        names.iter().map(|(name, state)| Pod::new((*name).into(), *state, Tick::MIN)).collect()
    }

    fn supply() -> Supply {
        let a = pods(&[("a-1", PodState::Ready), ("a-0", PodState::Starting)]);
        let b = pods(&[("b-0", PodState::Ready), ("b-1", PodState::Terminating)]);
        let workloads = vec![
            Workload::new(Some("b".into()), Some(1), b),
            Workload::new(Some("a".into()), Some(3), a),
        ];
        Supply::new(Tick::MIN, workloads)
    }

    #[test]
    fn pods_are_counted_by_state_and_found_by_name() {
        let supply = supply();
        assert_eq!(supply.count(PodState::Ready), 2);
        assert_eq!(supply.count(PodState::NotReady), 0);
        assert_eq!(supply.pod(&"a-0".into()).unwrap().state, PodState::Starting);
        assert_eq!(supply.pod(&"b-1".into()).unwrap().state, PodState::Terminating);
        assert!(supply.pod(&"c-0".into()).is_none());
        assert!(!supply.is_zero());
    }

    #[test]
    fn a_variant_has_its_own_pods_alone() {
        let narrowed = supply().narrowed_to(&"b".into());
        assert_eq!((narrowed.pods().count(), narrowed.wanted()), (2, Some(1)));
        assert!(supply().narrowed_to(&"c".into()).is_zero());
    }

    #[test]
    fn what_is_wanted_is_unknown_if_one_workload_does_not_say() {
        let mut supply = supply();
        assert_eq!(supply.wanted(), Some(4));
        supply.workloads.push(Workload::new(None, None, pods(&[("bare", PodState::Ready)])));
        assert_eq!(supply.wanted(), Some(4), "pods without a workload are wanted by nobody");
        supply.workloads[0].wanted = None;
        assert_eq!(supply.wanted(), None);
    }

    #[test]
    fn zero_takes_that_no_pod_is_left() {
        let mut supply = Supply::new(Tick::MIN, Vec::new());
        assert!(supply.is_zero());
        supply.workloads.push(Workload::new(None, None, pods(&[("m", PodState::Terminating)])));
        assert!(!supply.is_zero());
    }
}
