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
    /// Whether all its pods are listed, so that no pod means that there is none. Default false: pods whose owner is not
    /// known may be its own.
    pub lists_pods: bool,
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
        Self { variant, wanted, lists_pods: false, pods }
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

    /// Returns when the cluster last confirmed that a variant has no pod and wants none; `None` if that is not known. A pod
    /// that the cluster does not list and that belongs to no variant may be its own.
    pub fn known_empty(&self, variant: &VariantName) -> Option<Tick> {
        let supplied = self.supplied(Some(variant))?;
        let is_empty = supplied.lists_pods()
            && supplied.wanted() == Some(0)
            && supplied.pods().next().is_none()
            && self.replicas.iter().all(|row| match &row.variant_name {
                Some(name) => name != variant,
                None => supplied.supply.pod(&row.pod_name).is_some(),
            });
        is_empty.then(|| supplied.as_of())
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

    /// Returns whether all its pods are listed, so that no pod means that there is none.
    pub fn lists_pods(self) -> bool {
        let mut workloads = self.workloads().peekable();
        workloads.peek().is_some() && workloads.all(|workload| workload.lists_pods)
    }

    /// Returns a number of its pods, and `None` for a 0 that may only be what is listed of them.
    pub fn known(self, count: u32) -> Option<u32> {
        (count > 0 || self.lists_pods()).then_some(count)
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
mod tests;
