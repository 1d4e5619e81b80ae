// SPDX-License-Identifier: Apache-2.0
//! The metrics pages of a namespace. Each pod has its own, which are found again when the pod changes; pools are found by
//! a label of the pod, so that neither other pods nor other pools are looked at.

mod annotations;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;

use collector_core::{Namespace, PodName};

use crate::conditions::Condition;
use crate::kind::Kind;
use crate::objects::{Labels, PodEndpoint, PodObject, PodPhase, PoolObject, SliceObject};
use crate::pages::{Page, PageSource, are_in};
use annotations::Problem;

/// The label of a pod that names its engine, and its former name.
const ENGINE_LABELS: [&str; 2] =
    ["llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type"];
const ROLE_LABEL: &str = "llm-d.ai/role";
/// The labels of pods of a LeaderWorkerSet.
const GROUP_OF: &str = "leaderworkerset.sigs.k8s.io/name";
const GROUP_INDEX: &str = "leaderworkerset.sigs.k8s.io/group-index";
const WORKER_INDEX: &str = "leaderworkerset.sigs.k8s.io/worker-index";

/// The port of an Endpoint Picker's metrics where nothing names one.
const PICKER_PORT: u16 = 9090;
/// Ports of these names are those of metrics.
const PORT_NAMES: [&str; 2] = ["metrics", "http-metrics"];

/// Different problems of the pods of a namespace that are reported.
const PROBLEMS_MAX: usize = 10;

/// The metrics pages of a namespace.
#[derive(Debug)]
pub(super) struct Pages {
    namespace: Namespace,
    /// `None`: nothing is scraped, and nothing is kept.
    source: Option<Arc<PageSource>>,
    pods: HashMap<PodName, PodPages>,
    pools: BTreeMap<PoolId, PoolObject>,
    /// The pools by one of the labels that they select.
    by_label: HashMap<Label, BTreeSet<PoolId>>,
    /// The pools by the Service of their Endpoint Picker.
    by_picker: HashMap<Arc<str>, BTreeSet<PoolId>>,
    slices: BTreeMap<Arc<str>, SliceObject>,
    /// The slices by their Service, and by the pods that they list.
    by_service: HashMap<Arc<str>, Names>,
    by_pod: HashMap<PodName, Names>,
    /// What is wrong with pods.
    problems: BTreeMap<PodName, Vec<Problem>>,
}

/// A pod and its pages.
#[derive(Debug)]
struct PodPages {
    uid: Box<str>,
    endpoint: PodEndpoint,
    may_be_silent: bool,
    has_been_ready: bool,
    pages: Vec<Page>,
}

/// A label with its value.
type Label = (Box<str>, Box<str>);
/// A pool: of both groups there may be one of its name.
type PoolId = (Kind, Arc<str>);
/// Names of slices.
type Names = BTreeSet<Arc<str>>;
/// A port that an object names, and which object.
type Ports = BTreeMap<u16, Arc<str>>;

impl Pages {
    pub(super) fn new(namespace: Namespace, source: Option<Arc<PageSource>>) -> Self {
        Self {
            namespace,
            source,
            pods: HashMap::new(),
            pools: BTreeMap::new(),
            by_label: HashMap::new(),
            by_picker: HashMap::new(),
            slices: BTreeMap::new(),
            by_service: HashMap::new(),
            by_pod: HashMap::new(),
            problems: BTreeMap::new(),
        }
    }

    /// All pages.
    pub(super) fn pages(&self) -> impl Iterator<Item = &Page> {
        self.pods.values().flat_map(|pod| &pod.pages)
    }

    /// Takes a pod; returns whether its pages have changed.
    pub(super) fn put_pod(&mut self, name: &PodName, pod: &mut PodObject) -> bool {
        let Some(endpoint) = pod.endpoint.take().filter(|_| self.source.is_some()) else {
            return false;
        };
        if pod.phase == PodPhase::Over {
            return self.remove_pod(name);
        }
        let former = self.pods.remove(name);
        let was_ready =
            former.as_ref().is_some_and(|former| former.has_been_ready && former.uid == pod.uid);
        let has_been_ready = was_ready
            || matches!(pod.phase, PodPhase::Ready | PodPhase::Unready { has_been_ready: true });
        let entry = PodPages {
            uid: pod.uid.clone(),
            endpoint: *endpoint,
            may_be_silent: !has_been_ready || pod.phase == PodPhase::Terminating,
            has_been_ready,
            pages: former.map(|former| former.pages).unwrap_or_default(),
        };
        self.pods.insert(name.clone(), entry);
        self.find_again(name)
    }

    /// Forgets a pod; returns whether it had pages.
    pub(super) fn remove_pod(&mut self, name: &PodName) -> bool {
        self.problems.remove(name);
        self.pods.remove(name).is_some_and(|pod| !pod.pages.is_empty())
    }

    /// Takes a pool, or forgets it; returns whether pages have changed.
    pub(super) fn set_pool(&mut self, id: &PoolId, pool: Option<PoolObject>) -> bool {
        if self.source.as_deref() != Some(&PageSource::Pools) || self.pools.get(id) == pool.as_ref()
        {
            return false;
        }
        let mut selectors = Vec::new();
        let mut pods = BTreeSet::new();
        if let Some(former) = self.pools.remove(id) {
            if let Some(label) = label_of(&former) {
                remove_from(&mut self.by_label, &label, id);
            }
            if let Some(Ok(service)) = &former.picker {
                remove_from(&mut self.by_picker, service, id);
                pods.extend(self.pods_of_service(service));
            }
            selectors.push(former.selector);
        }
        if let Some(pool) = pool {
            if let Some(label) = label_of(&pool) {
                self.by_label.entry(label).or_default().insert(id.clone());
            }
            if let Some(Ok(service)) = &pool.picker {
                let of_picker = self.by_picker.entry(Arc::clone(service)).or_default();
                of_picker.insert(id.clone());
                pods.extend(self.pods_of_service(service));
            }
            selectors.push(pool.selector.clone());
            self.pools.insert(id.clone(), pool);
        }
        let is_selected =
            |labels: &Labels| selectors.iter().any(|selector| are_in(selector, labels));
        let selected = self.pods.iter().filter(|(_, pod)| is_selected(&pod.endpoint.labels));
        pods.extend(selected.map(|(name, _)| name.clone()));
        self.find_all_again(pods)
    }

    /// Takes an EndpointSlice, or forgets it; returns whether pages have changed.
    pub(super) fn set_slice(&mut self, name: &Arc<str>, slice: Option<SliceObject>) -> bool {
        if self.source.is_none() || self.slices.get(name) == slice.as_ref() {
            return false;
        }
        let mut pods = BTreeSet::new();
        if let Some(former) = self.slices.remove(name) {
            for pod in former.pods.keys() {
                remove_from(&mut self.by_pod, pod, name);
            }
            pods.extend(former.pods.into_keys());
            if let Some(service) = &former.service {
                remove_from(&mut self.by_service, service, name);
                pods.extend(self.pods_of_service(service));
            }
        }
        if let Some(slice) = slice {
            for pod in slice.pods.keys() {
                self.by_pod.entry(pod.clone()).or_default().insert(Arc::clone(name));
            }
            let service = slice.service.clone();
            pods.extend(slice.pods.keys().cloned());
            self.slices.insert(Arc::clone(name), slice);
            if let Some(service) = service {
                self.by_service.entry(Arc::clone(&service)).or_default().insert(Arc::clone(name));
                pods.extend(self.pods_of_service(&service));
            }
        }
        self.find_all_again(pods)
    }

    fn slices_of_service(&self, service: &str) -> impl Iterator<Item = &SliceObject> {
        let names = self.by_service.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(name))
    }

    fn pods_of_service(&self, service: &str) -> Vec<PodName> {
        self.slices_of_service(service).flat_map(|slice| slice.pods.keys().cloned()).collect()
    }

    pub(super) fn names(&self, kind: Kind) -> Vec<Arc<str>> {
        match kind {
            Kind::EndpointSlice => self.slices.keys().cloned().collect(),
            _ => self.pools_of_kind(kind).cloned().collect(),
        }
    }

    pub(super) fn count(&self, kind: Kind) -> usize {
        if kind.is_pool() { self.pools_of_kind(kind).count() } else { self.slices.len() }
    }

    fn pools_of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<str>> {
        self.pools.keys().filter(move |(of, _)| *of == kind).map(|(_, name)| name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pools.is_empty() && self.slices.is_empty()
    }

    fn find_all_again(&mut self, pods: impl IntoIterator<Item = PodName>) -> bool {
        let mut has_changed = false;
        for pod in pods {
            has_changed |= self.find_again(&pod);
        }
        has_changed
    }

    /// Finds the pages of a pod again; returns whether they have changed.
    fn find_again(&mut self, name: &PodName) -> bool {
        let Some(pod) = self.pods.get(name) else { return false };
        let mut problems = Vec::new();
        let mut pages = self.servers(name, pod, &mut problems);
        self.add_picker(name, pod, &mut pages, &mut problems);
        problems.sort_unstable();
        problems.dedup();
        if problems.is_empty() {
            self.problems.remove(name);
        } else {
            self.problems.insert(name.clone(), problems);
        }
        let Some(pod) = self.pods.get_mut(name) else { return false };
        let has_changed = pod.pages != pages;
        pod.pages = pages;
        has_changed
    }

    /// The pages of a pod as a model server.
    fn servers(&self, name: &PodName, pod: &PodPages, problems: &mut Vec<Problem>) -> Vec<Page> {
        let (ports, annotations) = (self.ports(name, pod, problems), &pod.endpoint.annotations);
        if ports.is_empty() {
            return Vec::new();
        }
        let label = |label: &str| pod.endpoint.labels.get(label).map(|value| &**value);
        let active = annotations.active(&ports, problems);
        let group = label(GROUP_OF).zip(label(GROUP_INDEX)).zip(label(WORKER_INDEX));
        // Pods of a group that declare their ports are servers of one replica, which has the name of its leader. Of
        // other groups the leader serves alone.
        let declared_group = group.filter(|_| active.is_some());
        if declared_group.is_none() && label(WORKER_INDEX).is_some_and(|index| index != "0") {
            return Vec::new();
        }
        let page = |(port, source): (&u16, &Arc<str>)| {
            let number = if ports.len() == 1 {
                annotations.port(problems).unwrap_or(*port)
            } else {
                annotations.one_of(&ports, problems);
                *port
            };
            let mut page = self.page(name, pod, number, source, problems)?;
            page.rank = (ports.len() > 1).then(|| port.to_string().into());
            if let Some(((of, index), worker)) = declared_group {
                page.replica = Some(format!("{of}-{index}").into());
                page.rank = Some(format!("{worker}-{port}").into());
            }
            page.engine = ENGINE_LABELS.into_iter().find_map(label).map(Arc::from);
            page.role = label(ROLE_LABEL).map(Arc::from);
            Some(page)
        };
        let is_active = |port: &u16| active.as_ref().is_none_or(|active| active.contains(port));
        ports.iter().filter(|(port, _)| is_active(port)).filter_map(page).collect()
    }

    /// The ports of a pod that objects name.
    fn ports(&self, name: &PodName, pod: &PodPages, problems: &mut Vec<Problem>) -> Ports {
        let mut ports = Ports::new();
        match self.source.as_deref() {
            None => {}
            Some(PageSource::Pools) => {
                for ((_, name), pool) in self.pools_of(&pod.endpoint.labels) {
                    let source = source(Kind::InferencePool, name);
                    for port in &pool.ports {
                        ports.entry(*port).or_insert_with(|| Arc::clone(&source));
                    }
                }
            }
            Some(PageSource::EndpointSlices(selector)) => {
                for (name, slice) in self.slices_of(name) {
                    if !selector.matches(&slice.labels) {
                        continue;
                    }
                    match metrics_port(slice).or_else(|| only_port(slice)) {
                        Some(port) => {
                            let named = || source(Kind::EndpointSlice, name);
                            ports.entry(port).or_insert_with(named);
                        }
                        None => problems.push(Problem::no_metrics_port(name)),
                    }
                }
            }
        }
        ports
    }

    /// The pools that select a pod.
    fn pools_of(&self, labels: &Labels) -> BTreeMap<&PoolId, &PoolObject> {
        let mut pools = BTreeMap::new();
        for (label, value) in labels {
            let ids = self.by_label.get(&(label.clone(), value.clone()));
            let of_label = ids.into_iter().flatten();
            for (id, pool) in of_label.filter_map(|id| self.pools.get_key_value(id)) {
                if are_in(&pool.selector, labels) {
                    pools.insert(id, pool);
                }
            }
        }
        pools
    }

    fn slices_of(&self, pod: &PodName) -> impl Iterator<Item = (&Arc<str>, &SliceObject)> {
        let names = self.by_pod.get(pod).into_iter().flatten();
        names.filter_map(|name| self.slices.get_key_value(name))
    }

    /// Adds the page of a pod that is the Endpoint Picker of a pool. Of several, those count that are ready, unless
    /// none is: one that is not ready and does not answer leaves unknown what it holds.
    fn add_picker(
        &self,
        name: &PodName,
        pod: &PodPages,
        pages: &mut Vec<Page>,
        problems: &mut Vec<Problem>,
    ) {
        for (_, slice) in self.slices_of(name) {
            let Some((service, pools)) =
                slice.service.as_ref().and_then(|service| self.by_picker.get_key_value(service))
            else {
                continue;
            };
            let is_usable = |slice: &SliceObject| slice.pods.get(name) == Some(&true);
            let is_one = |slice: &SliceObject| slice.pods.values().any(|usable| *usable);
            if !is_usable(slice) && self.slices_of_service(service).any(is_one) {
                continue;
            }
            let mut names = pools.iter().map(|(_, name)| name);
            let Some(pool) = names.next() else { continue };
            let annotated = pod.endpoint.annotations.port(problems);
            let port = annotated.or_else(|| metrics_port(slice)).unwrap_or(PICKER_PORT);
            let source = source(Kind::InferencePool, pool);
            let Some(mut page) = self.page(name, pod, port, &source, problems) else { continue };
            page.is_picker = true;
            page.pool = names.all(|name| name == pool).then(|| Arc::clone(pool));
            if !pages.iter().any(|other| other.address == page.address) {
                pages.push(page);
            }
        }
    }

    /// A page of a pod, on its own address.
    fn page(
        &self,
        name: &PodName,
        pod: &PodPages,
        port: u16,
        source: &Arc<str>,
        problems: &mut Vec<Problem>,
    ) -> Option<Page> {
        let annotations = &pod.endpoint.annotations;
        Some(Page {
            namespace: self.namespace.clone(),
            pod: name.clone(),
            address: SocketAddr::new(pod.endpoint.ip?, port),
            is_https: annotations.is_https(problems),
            path: annotations.path(problems),
            rank: None,
            replica: None,
            engine: None,
            role: None,
            is_picker: false,
            pool: None,
            may_be_silent: pod.may_be_silent,
            source: Arc::clone(source),
        })
    }

    /// Adds what is wrong with the objects that name pages.
    pub(super) fn report(&self, conditions: &mut BTreeSet<Condition>) {
        let namespace = self.namespace.as_str();
        for ((_, name), pool) in &self.pools {
            if let Some(Problem { problem, remedy }) = self.problem_of(pool) {
                let kind = Kind::InferencePool.as_str();
                conditions.insert(Condition::new(kind, namespace, name, problem, remedy));
            }
        }
        // One for all pods with the same problem, and without their number: otherwise each that comes would be logged.
        let mut pods: BTreeMap<&Problem, (&PodName, &str)> = BTreeMap::new();
        for (name, problems) in &self.problems {
            for problem in problems {
                let several = |first: &mut (&PodName, &'static str)| {
                    first.1 = "; other pods of the namespace have the same problem";
                };
                pods.entry(problem).and_modify(several).or_insert((name, ""));
            }
        }
        for (Problem { problem, remedy }, (name, others)) in pods.into_iter().take(PROBLEMS_MAX) {
            let (kind, problem) = (Kind::Pod.as_str(), format!("{problem}{others}"));
            conditions.insert(Condition::new(kind, namespace, name.as_str(), problem, *remedy));
        }
    }

    fn problem_of(&self, pool: &PoolObject) -> Option<Problem> {
        let (problem, remedy) = if pool.selector.is_empty() {
            (
                "its selector has no labels, so that none of its pods is scraped".to_owned(),
                "set spec.selector",
            )
        } else if pool.ports.is_empty() {
            (
                "it has no target port, so that none of its pods is scraped".to_owned(),
                "set spec.targetPorts",
            )
        } else {
            match pool.picker.as_ref()? {
                Err(problem) => {
                    (format!("{problem}: it is not scraped"), "name its page in scrape.targets")
                }
                Ok(service) => {
                    let slices = || self.slices_of_service(service);
                    let others: usize = slices().map(|slice| slice.others).sum();
                    if others > 0 {
                        (
                            format!(
                                "{others} endpoints of its Endpoint Picker {service} are not pods, and are not scraped"
                            ),
                            "let the Service select pods of its namespace, or name the page in scrape.targets",
                        )
                    } else if slices().all(|slice| slice.pods.is_empty()) {
                        (
                            format!("its Endpoint Picker, the Service {service}, has no endpoint"),
                            "does the Service exist, and does a pod of it run?",
                        )
                    } else {
                        return None;
                    }
                }
            }
        };
        Some(Problem { problem, remedy })
    }
}

/// A label that each pod of the pool has.
fn label_of(pool: &PoolObject) -> Option<Label> {
    let (label, value) = pool.selector.first_key_value()?;
    Some((label.clone(), value.clone()))
}

fn remove_from<K: Hash + Eq, I: Ord>(index: &mut HashMap<K, BTreeSet<I>>, key: &K, id: &I) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

fn source(kind: Kind, name: &str) -> Arc<str> {
    format!("{} {name}", kind.as_str()).into()
}

fn metrics_port(slice: &SliceObject) -> Option<u16> {
    PORT_NAMES.into_iter().find_map(|name| {
        let (_, port) = slice.ports.iter().find(|(of, _)| **of == *name)?;
        Some(*port)
    })
}

fn only_port(slice: &SliceObject) -> Option<u16> {
    match slice.ports.as_slice() {
        [(_, port)] => Some(*port),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
