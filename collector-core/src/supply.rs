// SPDX-License-Identifier: Apache-2.0
//! Supply: the pods of a model that a cluster lists, alongside what the pods say themselves.

use std::fmt;

use crate::clock::Tick;
use crate::metrics::{ReplicaMetrics, ReplicaState, Replicas};
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

/// How many pods are in each state. A pod counts once.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct PodCounts {
    /// Pods that are Ready, and not known to sleep.
    pub ready: u32,
    /// Pods that start.
    pub starting: u32,
    /// Pods that were Ready, and are not any more.
    pub not_ready: u32,
    /// Pods whose servers sleep.
    pub sleeping: u32,
    /// Pods that are being deleted.
    pub terminating: u32,
}

/// The supply of a model or of one of its variants, next to the rows of the same reading.
#[derive(Clone, Copy, Debug)]
pub struct Supplied<'a> {
    replicas: &'a Replicas,
    supply: &'a Supply,
    which: Which<'a>,
}

/// Whose pods count.
#[derive(Clone, Copy, Debug)]
enum Which<'a> {
    All,
    /// Those of a variant, or of no known one.
    Of(Option<&'a VariantName>),
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

    /// Counts the pods by their states in the cluster, which does not know which of them sleep.
    pub fn counts(&self) -> PodCounts {
        let mut counts = PodCounts::default();
        self.pods().for_each(|pod| counts.add(pod.state));
        counts
    }

    /// Returns the replicas that all workloads together ask for; `None` if one of them does not say.
    pub fn wanted(&self) -> Option<u32> {
        wanted(self.workloads.iter())
    }

    /// Returns whether the cluster said that a pod was deleted after `sampled_at`.
    pub fn saw_delete(&self, pod: &PodName, sampled_at: Tick) -> bool {
        let index = self.deleted.binary_search_by(|(name, _)| name.cmp(pod));
        index.is_ok_and(|index| self.deleted[index].1 > sampled_at)
    }

    /// Brings what a backend or a file has given into order: names in order and each once, no time after `now`.
    pub fn normalize(&mut self, now: Tick) {
        self.as_of = self.as_of.min(now);
        self.workloads.sort_by(|a, b| a.variant.cmp(&b.variant));
        for workload in &mut self.workloads {
            workload.pods.sort_by(|a, b| a.name.cmp(&b.name));
            workload.pods.dedup_by(|next, pod| next.name == pod.name);
            workload.pods.iter_mut().for_each(|pod| pod.since = pod.since.min(now));
        }
        self.deleted.iter_mut().for_each(|(_, at)| *at = (*at).min(now));
        // Of two deletions of one name the later one counts.
        self.deleted.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        self.deleted.dedup_by(|next, pod| next.0 == pod.0);
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

/// The replicas that workloads together ask for; `None` if one of them does not say. Nobody asks for pods without one.
fn wanted<'a>(workloads: impl Iterator<Item = &'a Workload>) -> Option<u32> {
    workloads
        .filter(|workload| workload.variant.is_some())
        .try_fold(0_u32, |sum, workload| Some(sum.saturating_add(workload.wanted?)))
}

impl PodCounts {
    /// Returns how many pods there are.
    pub fn all(self) -> u32 {
        let Self { ready, starting, not_ready, sleeping, terminating } = self;
        [starting, not_ready, sleeping, terminating].into_iter().fold(ready, u32::saturating_add)
    }

    fn add(&mut self, state: PodState) {
        let count = match state {
            PodState::Starting => &mut self.starting,
            PodState::Ready => &mut self.ready,
            PodState::NotReady => &mut self.not_ready,
            PodState::Terminating => &mut self.terminating,
        };
        *count = count.saturating_add(1);
    }

    /// Each state with its name in JSON.
    pub fn by_state(self) -> [(&'static str, u32); 5] {
        [
            (PodState::Ready.as_str(), self.ready),
            (PodState::Starting.as_str(), self.starting),
            (PodState::NotReady.as_str(), self.not_ready),
            (ReplicaState::Sleeping.as_str(), self.sleeping),
            (PodState::Terminating.as_str(), self.terminating),
        ]
    }
}

/// `2 ready, 1 starting`: the states that pods are in; `none` without a pod.
impl fmt::Display for PodCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = ["ready", "starting", "not ready", "sleeping", "terminating"];
        let counts = self.by_state().into_iter().zip(words);
        let mut separator = "";
        for ((_, count), word) in counts.filter(|((_, count), _)| *count > 0) {
            write!(f, "{separator}{count} {word}")?;
            separator = ", ";
        }
        if separator.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

impl Replicas {
    /// Returns the supply of the model, or of one of its variants; `None` if no cluster lists it.
    pub fn supplied<'a>(&'a self, variant: Option<&'a VariantName>) -> Option<Supplied<'a>> {
        let supply = self.supply.as_deref()?;
        let which = variant.map_or(Which::All, |variant| Which::Of(Some(variant)));
        let supplied = Supplied { replicas: self, supply, which };
        (variant.is_none() || supplied.workloads().next().is_some()).then_some(supplied)
    }

    /// Returns the supply of each variant that the cluster knows, and of the pods of no known one.
    pub fn supplied_by_variant(
        &self,
    ) -> impl Iterator<Item = (Option<&VariantName>, Supplied<'_>)> {
        self.supply.as_deref().into_iter().flat_map(move |supply| {
            let mut variants: Vec<Option<&VariantName>> =
                supply.workloads.iter().map(|workload| workload.variant.as_ref()).collect();
            variants.dedup();
            let of = move |variant| Supplied { replicas: self, supply, which: Which::Of(variant) };
            variants.into_iter().map(move |variant| (variant, of(variant)))
        })
    }

    fn row(&self, pod: &PodName) -> Option<&ReplicaMetrics> {
        let index = self.replicas.binary_search_by(|row| row.pod_name.cmp(pod)).ok()?;
        Some(&self.replicas[index])
    }
}

impl<'a> Supplied<'a> {
    fn workloads(self) -> impl Iterator<Item = &'a Workload> {
        let which = self.which;
        let is_of = move |workload: &&Workload| match which {
            Which::All => true,
            Which::Of(variant) => workload.variant.as_ref() == variant,
        };
        self.supply.workloads.iter().filter(is_of)
    }

    fn pods(self) -> impl Iterator<Item = &'a Pod> {
        self.workloads().flat_map(|workload| &workload.pods)
    }

    /// When the cluster last confirmed it.
    pub fn as_of(self) -> Tick {
        self.supply.as_of
    }

    /// Counts the pods by state. A pod whose row says that it sleeps counts as one that does.
    pub fn counts(self) -> PodCounts {
        let mut counts = PodCounts::default();
        for pod in self.pods() {
            let row = self.replicas.row(&pod.name);
            if row.is_some_and(|row| row.state == ReplicaState::Sleeping) {
                counts.sleeping = counts.sleeping.saturating_add(1);
            } else {
                counts.add(pod.state);
            }
        }
        counts
    }

    /// Returns the replicas that its workloads ask for; `None` if one of them does not say.
    pub fn wanted(self) -> Option<u32> {
        wanted(self.workloads())
    }

    /// Returns whether there are rows, and none of them is of a pod that the cluster lists: the names of pods differ
    /// between the cluster and the metrics.
    pub fn names_differ(self) -> bool {
        let rows = &self.replicas.replicas;
        !rows.is_empty() && self.supply.pods().all(|pod| self.replicas.row(&pod.name).is_none())
    }

    /// Iterates over the pods that are Ready and have no row: no backend has metrics of them. Nothing is known of that
    /// while the [names differ](Self::names_differ).
    pub fn silent(self) -> impl Iterator<Item = &'a Pod> {
        let comparable = !self.names_differ();
        self.pods().filter(move |pod| {
            comparable && pod.state == PodState::Ready && self.replicas.row(&pod.name).is_none()
        })
    }
}

/// `3 of 4 ready, 1 starting`.
impl fmt::Display for Supplied<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        write!(f, "{}", counts.ready)?;
        if let Some(wanted) = self.wanted() {
            write!(f, " of {wanted}")?;
        }
        f.write_str(" ready")?;
        let others = PodCounts { ready: 0, ..counts };
        if others.all() > 0 { write!(f, ", {others}") } else { Ok(()) }
    }
}

impl PodState {
    const ALL: [Self; 4] = [Self::Starting, Self::Ready, Self::NotReady, Self::Terminating];

    /// Returns the state of a name in JSON.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

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
    fn a_pod_counts_once_and_a_sleeping_one_is_not_ready() {
        let mut asleep = ReplicaMetrics::new("a-1", Tick::MIN);
        asleep.state = ReplicaState::Sleeping;
        let model = crate::ModelRef::new("m", "n");
        let mut replicas = Replicas::new(model, vec![asleep], "test".into(), Tick::MIN);
        assert!(replicas.supplied(None).is_none());
        replicas.supply = Some(supply().into());
        let all = replicas.supplied(None).unwrap();
        assert_eq!(all.counts().to_string(), "1 ready, 1 starting, 1 sleeping, 1 terminating");
        assert_eq!(all.wanted(), Some(4));
        assert_eq!(all.to_string(), "1 of 4 ready, 1 starting, 1 sleeping, 1 terminating");
        let silent: Vec<&str> = all.silent().map(|pod| pod.name.as_str()).collect();
        assert_eq!(silent, ["b-0"]);
        let b = "b".into();
        let of_b = replicas.supplied(Some(&b)).unwrap();
        assert_eq!((of_b.counts().all(), of_b.wanted(), of_b.silent().count()), (2, Some(1), 1));
        assert!(replicas.supplied(Some(&"c".into())).is_none(), "it is not in the cluster");
        let by_variant = replicas.supplied_by_variant();
        let by_variant: Vec<_> =
            by_variant.map(|(variant, of)| (variant.map(AsRef::as_ref), of.to_string())).collect();
        let expected = [
            (Some("a"), "0 of 3 ready, 1 starting, 1 sleeping".to_owned()),
            (Some("b"), "1 of 1 ready, 1 terminating".to_owned()),
        ];
        assert_eq!(by_variant, expected);
    }

    #[test]
    fn no_pod_is_silent_while_names_differ() {
        let model = crate::ModelRef::new("m", "n");
        let row = ReplicaMetrics::new("10.0.0.7:8000", Tick::MIN);
        let mut replicas = Replicas::new(model, vec![row], "test".into(), Tick::MIN);
        replicas.supply = Some(supply().into());
        let supplied = replicas.supplied(None).unwrap();
        assert!(supplied.names_differ());
        assert_eq!(supplied.silent().count(), 0);
    }

    #[test]
    fn counts_without_a_pod_are_none() {
        assert_eq!(PodCounts::default().to_string(), "none");
    }

    #[test]
    fn what_is_out_of_order_or_twice_is_put_in_order() {
        let now = Tick::from_nanos(10);
        let at = Tick::from_nanos;
        let mut supply = supply();
        supply.as_of = at(11);
        supply.workloads.reverse();
        let twice = Pod::new("a-0".into(), PodState::Ready, at(12));
        supply.workloads[1].pods.push(twice);
        supply.deleted = vec![("z".into(), at(3)), ("y".into(), at(20)), ("z".into(), at(4))];
        supply.normalize(now);
        assert_eq!(supply.pods().count(), 4);
        assert_eq!(supply.pod(&"a-0".into()).unwrap().state, PodState::Starting);
        assert_eq!(supply.deleted, [("y".into(), now), ("z".into(), at(4))]);
        assert!(supply.saw_delete(&"z".into(), at(3)) && !supply.saw_delete(&"z".into(), at(4)));
        assert_eq!(supply.as_of, now);
    }

    #[test]
    fn zero_takes_that_no_pod_is_left() {
        let mut supply = Supply::new(Tick::MIN, Vec::new());
        assert!(supply.is_zero());
        supply.workloads.push(Workload::new(None, None, pods(&[("m", PodState::Terminating)])));
        assert!(!supply.is_zero());
    }
}
