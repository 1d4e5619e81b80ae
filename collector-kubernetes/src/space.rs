// SPDX-License-Identifier: Apache-2.0
//! One namespace: its objects, and what follows from them. It is pure: it knows no server, and time is passed in.
//!
//! Pods change often and are placed one by one; whatever else changes makes the whole namespace be read again
//! ([`Space::resolve`]), because it may move any pod.

mod listed;
mod pages;
mod pods;
mod supply;
mod variants;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use collector_core::{ModelId, Namespace, PodName, Tick, Variant};

use crate::kind::{Kind, Owner, Target};
use crate::objects::{Content, Object, ScalerObject, WorkloadObject};
use crate::pages::{Page, PageSource};
use pages::Pages;
use pods::{Group, Members, PodEntry};
pub(crate) use supply::ModelSupply;
use variants::Found;

/// The objects of a namespace, and which pods belong to what.
#[derive(Debug)]
pub(crate) struct Space {
    namespace: Namespace,
    workloads: HashMap<Target, WorkloadObject>,
    /// Ordered by kind: where two describe one target, the first has it.
    scalers: BTreeMap<(Kind, Arc<str>), ScalerObject>,
    /// Objects that could not be read, and why.
    unreadable: BTreeMap<(Kind, Arc<str>), String>,
    pods: HashMap<PodName, PodEntry>,
    /// Pods that were deleted lately, when, and of which model they were.
    deleted: BTreeMap<PodName, (Tick, ModelId)>,
    found: Found,
    /// The workloads that LLMInferenceServices own.
    children: HashMap<Target, Vec<Target>>,
    members: HashMap<Group, Members>,
    /// Pods of which an owner is not known yet: they may be any model's.
    unresolved: BTreeSet<PodName>,
    /// Pods that labels say serve a model, and that belong to none that is known.
    stray: BTreeSet<PodName>,
    /// Models that were described otherwise before, by the object that describes them: when that changed.
    renamed: BTreeMap<(Kind, Arc<str>), (ModelId, Tick)>,
    pages: Pages,
    /// Whether an object has changed that is no pod since all were placed.
    is_unresolved: bool,
}

/// What a change of an object did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Changes {
    /// Models whose supply changed.
    pub(crate) models: BTreeSet<ModelId>,
    /// Whether the variants or what describes them changed.
    pub(crate) variants: bool,
    /// Whether the metrics pages changed.
    pub(crate) pages: bool,
}

impl Space {
    /// `source` says which pods have metrics pages; `None`: nobody asks for them.
    pub(crate) fn new(namespace: Namespace, source: Option<Arc<PageSource>>) -> Self {
        Self {
            pages: Pages::new(namespace.clone(), source),
            namespace,
            workloads: HashMap::new(),
            scalers: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            pods: HashMap::new(),
            deleted: BTreeMap::new(),
            found: Found::default(),
            children: HashMap::new(),
            members: HashMap::new(),
            unresolved: BTreeSet::new(),
            stray: BTreeSet::new(),
            renamed: BTreeMap::new(),
            is_unresolved: false,
        }
    }

    /// Takes an object that was added or has changed.
    pub(crate) fn put(&mut self, kind: Kind, object: Object, now: Tick) -> Changes {
        let was_unreadable = self.unreadable.remove(&(kind, Arc::clone(&object.name))).is_some();
        self.is_unresolved |= was_unreadable;
        let pod_name = object.pod_name();
        let key = (kind, object.name);
        match object.content {
            Content::Pod(mut pod) => {
                let pages = self.pages.put_pod(&pod_name, &mut pod);
                return Changes { pages, ..self.put_pod(&pod_name, pod, now) };
            }
            Content::Pool(pool) => {
                let pages = self.pages.set_pool(&key, Some(pool));
                return Changes { pages, ..Changes::default() };
            }
            Content::Slice(slice) => {
                let pages = self.pages.set_slice(&key.1, Some(slice));
                return Changes { pages, ..Changes::default() };
            }
            Content::Workload(workload) => {
                let target = Target::new(kind, key.1);
                if self.workloads.get(&target) != Some(&workload) {
                    self.workloads.insert(target, workload);
                    self.is_unresolved = true;
                }
            }
            Content::Scaler(scaler) => {
                let former = self.scalers.get(&key);
                if former != Some(&scaler) {
                    self.note_renamed(&key, &scaler, now);
                    self.scalers.insert(key, scaler);
                    self.is_unresolved = true;
                }
            }
            Content::Unreadable(why) => {
                let changes = self.forget(kind, &key.1, now);
                self.unreadable.insert(key, why);
                self.is_unresolved = true;
                return changes;
            }
        }
        Changes::default()
    }

    /// Takes note that an object was deleted.
    pub(crate) fn remove(&mut self, kind: Kind, name: &Arc<str>, now: Tick) -> Changes {
        let was_unreadable = self.unreadable.remove(&(kind, Arc::clone(name))).is_some();
        self.is_unresolved |= was_unreadable;
        // What was known of one that cannot be read any more stays until it is deleted.
        let pages = match kind {
            Kind::Pod => self.pages.remove_pod(&PodName::new(Arc::clone(name))),
            kind if kind.is_pool() => self.pages.set_pool(&(kind, Arc::clone(name)), None),
            Kind::EndpointSlice => self.pages.set_slice(name, None),
            _ => false,
        };
        Changes { pages, ..self.forget(kind, name, now) }
    }

    /// The metrics pages of its pods.
    pub(crate) fn pages(&self) -> impl Iterator<Item = &Page> {
        self.pages.pages()
    }

    fn forget(&mut self, kind: Kind, name: &Arc<str>, now: Tick) -> Changes {
        if kind == Kind::Pod {
            return self.remove_pod(&PodName::new(Arc::clone(name)), now);
        }
        let was_workload = self.workloads.remove(&Target::new(kind, Arc::clone(name))).is_some();
        let key = (kind, Arc::clone(name));
        self.renamed.remove(&key);
        self.is_unresolved |= was_workload | self.scalers.remove(&key).is_some();
        Changes::default()
    }

    /// Returns the names of all objects of a kind, to find those that a new list lacks.
    pub(crate) fn names(&self, kind: Kind) -> Vec<Arc<str>> {
        let unreadable = self.unreadable.keys().filter(|(of, _)| *of == kind);
        let mut names: Vec<Arc<str>> = unreadable.map(|(_, name)| Arc::clone(name)).collect();
        if kind == Kind::Pod {
            names.extend(self.pods.keys().map(|name| Arc::from(name.as_str())));
            return names;
        }
        let workloads = self.workloads.keys().filter(|target| target.kind == kind.into());
        names.extend(workloads.map(|target| Arc::clone(&target.name)));
        let scalers = self.scalers.keys().filter(|(of, _)| *of == kind);
        names.extend(scalers.map(|(_, name)| Arc::clone(name)));
        names.extend(self.pages.names(kind));
        names
    }

    /// Whether nothing is known of the namespace any more.
    pub(crate) fn is_empty(&self) -> bool {
        self.workloads.is_empty()
            && self.scalers.is_empty()
            && self.unreadable.is_empty()
            && self.pods.is_empty()
            && self.deleted.is_empty()
            && self.pages.is_empty()
    }

    /// Whether [`resolve`](Self::resolve) has something to do.
    pub(crate) fn is_unresolved(&self) -> bool {
        self.is_unresolved
    }

    /// Finds the variants, places all pods again, and says what has changed.
    pub(crate) fn resolve(&mut self, now: Tick) -> Changes {
        self.is_unresolved = false;
        let former = self.supplies(now);
        let variants = self.describe_variants(now);
        self.place_all();
        let current = self.supplies(now);
        let has_changed = |model: &&ModelId| former.get(*model) != current.get(*model);
        let models = former.keys().chain(current.keys()).filter(has_changed).cloned().collect();
        Changes { models, variants, pages: false }
    }

    /// The workload that an object names as its owner, if it is that one and not another of its name.
    fn owner(&self, owner: &Owner) -> Option<&WorkloadObject> {
        let workload = self.workloads.get(&owner.target)?;
        owner.uid.as_ref().is_none_or(|uid| *uid == workload.uid).then_some(workload)
    }

    fn supplies(&self, now: Tick) -> BTreeMap<ModelId, ModelSupply> {
        let supply = |model: &ModelId| Some((model.clone(), self.supply(model, now, now)?));
        self.found.models.keys().filter_map(supply).collect()
    }

    pub(crate) fn variants(&self) -> impl Iterator<Item = &Arc<Variant>> {
        self.found.models.values().flat_map(BTreeMap::values).map(|described| &described.variant)
    }

    pub(crate) fn variants_of(&self, model: &ModelId) -> Vec<Arc<Variant>> {
        let variants = self.found.models.get(model).into_iter().flat_map(BTreeMap::values);
        variants.map(|described| Arc::clone(&described.variant)).collect()
    }

    pub(crate) fn models(&self) -> impl Iterator<Item = &ModelId> {
        self.found.models.keys()
    }
}

#[cfg(test)]
mod tests;
