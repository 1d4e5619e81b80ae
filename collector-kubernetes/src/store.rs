// SPDX-License-Identifier: Apache-2.0
//! All that is known of the cluster: its namespaces and the state of the watches that they come from.
//!
//! Watches write, and look-ups read behind the same lock; none of it waits for I/O.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use collector_core::supply::PodState;
use collector_core::text::printable;
use collector_core::{Clock, ErrorKind, KnownModel, ModelRef, Namespace, PodName, Tick, Variant};
use tokio::sync::watch;

use crate::conditions::Condition;
use crate::kind::Kind;
use crate::listing::{ListedPod, ListedVariant};
use crate::objects::Object;
use crate::pages::{Page, PageSource};
use crate::selfmetrics;
use crate::space::{Changes, ModelSupply, Space};
use crate::watches::{Lost, Position, Unheard, WatchId, Watches};

/// The longest name of a namespace that is shown.
const NAME_MAX: usize = 63;

/// What is known of the cluster.
pub(crate) struct Store {
    state: RwLock<State>,
    /// Changes with the variants. Read without the lock, once a refresh cycle.
    generation: AtomicU64,
    /// The namespaces that are watched, in order; empty: all.
    namespaces: Vec<Namespace>,
    clock: Arc<dyn Clock>,
    /// Changes when a model's supply or the state of a watch does.
    news: watch::Sender<u64>,
    /// Changes when metrics pages do, or whether they are known.
    pages_news: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    spaces: HashMap<Namespace, Space>,
    /// Namespaces that are to be resolved.
    unresolved: HashSet<Namespace>,
    /// Models whose supply changed since they were taken.
    changed: HashSet<ModelRef>,
    watches: Watches,
    conditions: BTreeSet<Condition>,
    /// Namespaces that are watched and do not exist.
    absent: BTreeSet<Namespace>,
    /// What tells which pods have metrics pages, if they are scraped.
    pages: Option<Arc<PageSource>>,
    /// Whether pages have changed since that was announced.
    pages_changed: bool,
}

/// What the cluster says of a model.
#[derive(Debug)]
pub(crate) enum Known {
    Supply(ModelSupply),
    /// It has no such model.
    No(Tick),
}

impl Store {
    /// A store of what watches of these namespaces tell; empty: of all. `pages` says which pods have metrics pages; `None`:
    /// nobody asks for them.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        namespaces: Vec<Namespace>,
        pages: Option<PageSource>,
    ) -> Self {
        let state = State { pages: pages.map(Arc::new), ..State::default() };
        Self {
            state: RwLock::new(state),
            generation: AtomicU64::new(0),
            namespaces,
            clock,
            news: watch::Sender::new(0),
            pages_news: watch::Sender::new(0),
        }
    }

    pub(crate) fn now(&self) -> Tick {
        self.clock.now()
    }

    // A panic in between leaves at worst a namespace that the next change of it resolves.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with these watches. With `from_start` each lists again, as from another cluster; otherwise those that have a list
    /// go on from it. What is known stays in both cases.
    pub(crate) fn begin(&self, watches: Vec<WatchId>, from_start: bool) {
        let now = self.now();
        let mut state = self.write();
        state.watches.begin(watches, from_start, now);
        if from_start {
            state.absent.clear();
        }
        drop(state);
        self.announce();
    }

    /// Where a watch goes on; `None`: it needs a list.
    pub(crate) fn position(&self, id: &WatchId) -> Option<Position> {
        self.read().watches.position(id)
    }

    pub(crate) fn set_position(&self, id: &WatchId, position: Option<Position>) {
        self.write().watches.set_position(id, position);
    }

    /// There is no client, and why.
    pub(crate) fn no_client(&self, why: Unheard) {
        self.write().watches.no_client(why);
        self.announce();
    }

    /// Takes an object that was added or has changed.
    pub(crate) fn put(&self, id: &WatchId, object: Object) {
        let now = self.now();
        let mut state = self.write();
        state.watches.heard(id, now);
        state.put(id.kind, object, now);
        self.notify(&mut state);
    }

    /// Takes note that an object was deleted.
    pub(crate) fn remove(&self, id: &WatchId, namespace: &Namespace, name: &Arc<str>) {
        let now = self.now();
        let mut state = self.write();
        state.watches.heard(id, now);
        state.remove(id.kind, namespace, name, now);
        self.notify(&mut state);
    }

    /// Takes a complete list: what it lacks was deleted. `as_of` is when it was begun. Returns whether it was taken: one
    /// that was begun before another list or a watch told more is out of date.
    pub(crate) fn replace(&self, id: &WatchId, objects: Vec<Object>, as_of: Tick) -> bool {
        let now = self.now();
        let mut state = self.write();
        if state.watches.was_heard_after(id, as_of) {
            return false;
        }
        let listed: HashSet<(Namespace, Arc<str>)> = objects
            .iter()
            .map(|object| (object.namespace.clone(), Arc::clone(&object.name)))
            .collect();
        let gone: Vec<(Namespace, Arc<str>)> = state
            .spaces
            .iter()
            .filter(|(namespace, _)| id.namespace.as_ref().is_none_or(|of| of == *namespace))
            .flat_map(|(namespace, space)| {
                space.names(id.kind).into_iter().map(|name| (namespace.clone(), name))
            })
            .filter(|key| !listed.contains(key))
            .collect();
        for object in objects {
            state.put(id.kind, object, now);
        }
        for (namespace, name) in gone {
            state.remove(id.kind, &namespace, &name, now);
        }
        state.watches.heard(id, as_of);
        // At once: if it was the last list, answers are given from now on.
        self.resolve(&mut state, now);
        self.announce();
        true
    }

    /// A watch was opened again. What it tells is still to come, so the age stays.
    pub(crate) fn opened(&self, id: &WatchId) {
        if self.write().watches.opened(id) {
            self.announce();
        }
    }

    /// The watch was heard: an event, a bookmark, or that it ended as it should.
    pub(crate) fn heard(&self, id: &WatchId) {
        let now = self.now();
        if self.write().watches.heard(id, now) {
            self.announce();
        }
    }

    /// The server says that it has no such kind. Returns whether that counts: for a while it does not if it had the kind
    /// before.
    pub(crate) fn not_served(&self, id: &WatchId) -> bool {
        let now = self.now();
        if !self.write().watches.is_gone(id, now) {
            return false;
        }
        self.replace(id, Vec::new(), now);
        self.write().watches.not_served(id);
        true
    }

    /// A try to list or to watch has failed. Returns whether the watch was not lost before.
    pub(crate) fn lost(&self, id: &WatchId, lost: Lost) -> bool {
        let is_new = self.write().watches.lost(id, lost);
        if is_new {
            self.announce();
        }
        is_new
    }

    fn announce(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
        self.announce_pages();
    }

    fn announce_pages(&self) {
        self.pages_news.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Sees changes of pages, and of whether they are known, from now on.
    pub(crate) fn pages_news(&self) -> watch::Receiver<u64> {
        self.pages_news.subscribe()
    }

    /// The metrics pages of all pods, in a fixed order; else why they are not known.
    pub(crate) fn pages(&self) -> Result<Vec<Page>, Unheard> {
        let state = self.read();
        state.watches.pages_as_of(self.now())?;
        let mut pages: Vec<Page> = state.spaces.values().flat_map(Space::pages).cloned().collect();
        pages.sort_unstable();
        Ok(pages)
    }

    /// Sees changes from now on.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn notify(&self, state: &mut State) {
        if !state.changed.is_empty() || !state.unresolved.is_empty() {
            self.news.send_modify(|count| *count = count.wrapping_add(1));
        }
        if std::mem::take(&mut state.pages_changed) {
            self.announce_pages();
        }
    }

    /// Finds what follows from changes, once every kind is listed: before, everything would seem to miss something.
    pub(crate) fn settle(&self) {
        let now = self.now();
        self.resolve(&mut self.write(), now);
    }

    fn resolve(&self, state: &mut State, now: Tick) {
        if state.watches.are_listed() && state.resolve(now) {
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the models whose supply changed since the last call.
    pub(crate) fn take_changed(&self) -> HashSet<ModelRef> {
        self.settle();
        let mut state = self.write();
        if state.watches.are_listed() { std::mem::take(&mut state.changed) } else { HashSet::new() }
    }

    /// Forgets what is old, and reports how much is known.
    pub(crate) fn tidy(&self) {
        let now = self.now();
        let mut state = self.write();
        state.spaces.retain(|_, space| {
            space.tidy(now);
            !space.is_empty()
        });
        let State { spaces, unresolved, .. } = &mut *state;
        let due = spaces.iter().filter(|(_, space)| space.is_unresolved());
        unresolved.extend(due.map(|(namespace, _)| namespace.clone()));
        for kind in Kind::ALL {
            let count = state.spaces.values().map(|space| space.count(kind)).sum();
            selfmetrics::objects(kind, count);
        }
        for (kind, age) in state.watches.ages(now) {
            selfmetrics::last_heard(kind, age);
        }
    }

    /// Returns when the cluster last confirmed what is known, or why it cannot.
    pub(crate) fn as_of(&self) -> Result<Tick, Unheard> {
        self.read().watches.as_of(self.now())
    }

    /// Whether each watch has been tried, well or badly.
    pub(crate) fn is_tried(&self) -> bool {
        self.read().watches.are_tried()
    }

    /// Takes note of whether a namespace that is watched exists.
    pub(crate) fn set_exists(&self, namespace: &Namespace, exists: bool) {
        let now = self.now();
        let mut state = self.write();
        let has_changed = if exists {
            state.absent.remove(namespace)
        } else {
            state.absent.insert(namespace.clone())
        };
        if has_changed {
            self.resolve(&mut state, now);
            self.announce();
        }
    }

    /// Whether a namespace did not exist when that was last asked.
    pub(crate) fn is_absent(&self, namespace: &Namespace) -> bool {
        self.read().absent.contains(namespace)
    }

    /// Returns why nothing is known of a namespace: it is not one of those that are watched, or does not exist.
    pub(crate) fn unknown_in(&self, namespace: &Namespace) -> Option<Unheard> {
        let name = printable(namespace.as_str()).at_most(NAME_MAX);
        let why = if !self.namespaces.is_empty()
            && self.namespaces.binary_search(namespace).is_err()
        {
            format!(
                "namespace \"{name}\" is not watched, so nothing is known of its pods: add it to kubernetes.namespaces"
            )
        } else if self.is_absent(namespace) {
            format!("namespace \"{name}\" of kubernetes.namespaces does not exist in the cluster")
        } else {
            return None;
        };
        Some(Unheard { kind: ErrorKind::Configuration, why })
    }

    /// What the cluster says of a model.
    ///
    /// # Errors
    /// When it has not looked: its namespace is not watched or does not exist, or a watch is lost.
    pub(crate) fn known(&self, model: &ModelRef) -> Result<Known, Unheard> {
        if let Some(unknown) = self.unknown_in(&model.namespace) {
            return Err(unknown);
        }
        let now = self.now();
        let state = self.read();
        let as_of = state.watches.as_of(now)?;
        let space = state.spaces.get(&model.namespace);
        let supply = space.and_then(|space| space.supply(&model.model, as_of, now));
        Ok(supply.map_or(Known::No(as_of), Known::Supply))
    }

    /// The models that objects describe, and how many replicas each has.
    pub(crate) fn models(&self) -> Vec<KnownModel> {
        let now = self.now();
        let state = self.read();
        let of_space = |(namespace, space): (&Namespace, &Space)| -> Vec<KnownModel> {
            let known = |model: &collector_core::ModelId| {
                let supply = space.supply(model, now, now)?.supply;
                let model = ModelRef::new(model.clone(), namespace.clone());
                Some(KnownModel::new(model, u32::try_from(supply.count(PodState::Ready)).ok()))
            };
            space.models().filter_map(known).collect()
        };
        state.spaces.iter().flat_map(of_space).collect()
    }

    /// The variants that objects describe, in order, each with its pods.
    pub(crate) fn listed(&self) -> Vec<ListedVariant> {
        let state = self.read();
        let mut listed: Vec<_> = state.spaces.values().flat_map(Space::listed).collect();
        listed.sort_by(|a, b| a.place().cmp(&b.place()));
        listed
    }

    /// The pods that serve models, in order.
    pub(crate) fn listed_pods(&self) -> Vec<ListedPod> {
        let state = self.read();
        let mut pods: Vec<_> = state.spaces.values().flat_map(Space::listed_pods).collect();
        pods.sort_by(|a, b| a.place().cmp(&b.place()));
        pods
    }

    pub(crate) fn conditions(&self) -> Vec<Condition> {
        self.read().conditions.iter().cloned().collect()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(crate) fn variants(&self) -> Vec<Arc<Variant>> {
        let state = self.read();
        state.spaces.values().flat_map(Space::variants).cloned().collect()
    }

    pub(crate) fn variants_of(&self, model: &ModelRef) -> Vec<Arc<Variant>> {
        let state = self.read();
        let space = state.spaces.get(&model.namespace);
        space.map(|space| space.variants_of(&model.model)).unwrap_or_default()
    }

    pub(crate) fn variant_of(&self, model: &ModelRef, pod: &PodName) -> Option<Arc<Variant>> {
        let state = self.read();
        state.spaces.get(&model.namespace)?.variant_of(&model.model, pod).cloned()
    }
}

impl State {
    fn put(&mut self, kind: Kind, object: Object, now: Tick) {
        let namespace = object.namespace.clone();
        if !self.absent.is_empty() {
            self.absent.remove(&namespace);
        }
        let space = self
            .spaces
            .entry(namespace.clone())
            .or_insert_with(|| Space::new(namespace.clone(), self.pages.clone()));
        let changes = space.put(kind, object, now);
        self.note(&namespace, changes);
    }

    fn remove(&mut self, kind: Kind, namespace: &Namespace, name: &Arc<str>, now: Tick) {
        let Some(space) = self.spaces.get_mut(namespace) else { return };
        let changes = space.remove(kind, name, now);
        self.note(namespace, changes);
    }

    fn note(&mut self, namespace: &Namespace, changes: Changes) {
        self.pages_changed |= changes.pages;
        let model = |model| ModelRef { namespace: namespace.clone(), model };
        self.changed.extend(changes.models.into_iter().map(model));
        if self.spaces.get(namespace).is_some_and(Space::is_unresolved)
            && !self.unresolved.contains(namespace)
        {
            self.unresolved.insert(namespace.clone());
        }
    }

    /// Resolves the namespaces that have changed; returns whether variants did.
    fn resolve(&mut self, now: Tick) -> bool {
        let mut variants = false;
        for namespace in std::mem::take(&mut self.unresolved) {
            let Some(space) = self.spaces.get_mut(&namespace) else { continue };
            let changes = space.resolve(now);
            variants |= changes.variants;
            self.note(&namespace, changes);
        }
        self.report();
        variants
    }

    /// Logs each condition once, when it begins.
    fn report(&mut self) {
        let mut conditions = BTreeSet::new();
        for space in self.spaces.values() {
            space.report(&mut conditions);
        }
        let absent = self.absent.iter();
        conditions.extend(absent.map(|name| Condition::no_namespace(name.as_str())));
        for condition in conditions.difference(&self.conditions) {
            tracing::warn!(object = %condition.object, "{condition}");
        }
        for condition in self.conditions.difference(&conditions) {
            tracing::info!(object = %condition.object, "No longer: {}", condition.problem);
        }
        selfmetrics::conditions(conditions.len());
        self.conditions = conditions;
    }
}

#[cfg(test)]
mod tests;
