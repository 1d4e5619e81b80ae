// SPDX-License-Identifier: Apache-2.0
//! The pods of a namespace: their states, and what each belongs to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use collector_core::supply::PodState;
use collector_core::{ModelId, PodName, Tick, Variant, VariantName};

use super::{Changes, Space};
use crate::kind::{Owner, TargetKind};
use crate::objects::{PodObject, PodPhase};

/// The most owners from a pod to what is scaled.
const OWNERS_MAX: usize = 8;

/// A pod, its state, and what it belongs to.
#[derive(Debug)]
pub(super) struct PodEntry {
    object: PodObject,
    pub(super) state: PodState,
    /// When it was first seen in this state.
    pub(super) since: Tick,
    has_been_ready: bool,
    pub(super) place: Place,
}

/// What a pod belongs to.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Place {
    /// The scale target of a variant.
    Variant(Arc<Variant>),
    /// A model, and none of its variants.
    Model(ModelId),
    /// One of its owners is not known yet.
    Unresolved,
    /// Labels alone say that it serves a model, and none of that name is known.
    Stray,
    /// No model.
    Nothing,
}

/// What pods are counted together for: a variant, or a model without any.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Group {
    pub(super) model: ModelId,
    pub(super) variant: Option<VariantName>,
}

/// The pods of a [`Group`].
#[derive(Default, Debug)]
pub(super) struct Members {
    pub(super) replicas: BTreeSet<PodName>,
    /// Pods that are a part of a replica.
    pub(super) workers: BTreeSet<PodName>,
}

impl Place {
    fn group(&self) -> Option<Group> {
        match self {
            Self::Variant(variant) => Some(Group {
                model: variant.model.model.clone(),
                variant: Some(variant.name.clone()),
            }),
            Self::Model(model) => Some(Group { model: model.clone(), variant: None }),
            Self::Unresolved | Self::Stray | Self::Nothing => None,
        }
    }

    fn model(&self) -> Option<&ModelId> {
        match self {
            Self::Variant(variant) => Some(&variant.model.model),
            Self::Model(model) => Some(model),
            Self::Unresolved | Self::Stray | Self::Nothing => None,
        }
    }
}

impl PodEntry {
    /// When the API says that it came into its phase.
    pub(super) fn changed(&self) -> Option<SystemTime> {
        self.object.changed
    }

    fn new(object: PodObject, now: Tick) -> Self {
        let mut entry = Self {
            object,
            state: PodState::Starting,
            since: now,
            has_been_ready: false,
            place: Place::Nothing,
        };
        entry.observe(now);
        entry
    }

    /// Brings the state up to date with the object; returns whether it has changed.
    fn observe(&mut self, now: Tick) -> bool {
        let state = match self.object.phase {
            PodPhase::Ready => PodState::Ready,
            PodPhase::Unready { has_been_ready } if has_been_ready || self.has_been_ready => {
                PodState::NotReady
            }
            PodPhase::Unready { .. } => PodState::Starting,
            PodPhase::Terminating | PodPhase::Over => PodState::Terminating,
        };
        self.has_been_ready |= matches!(state, PodState::Ready | PodState::NotReady);
        let has_changed = state != self.state;
        if has_changed {
            self.state = state;
            self.since = now;
        }
        has_changed
    }
}

impl Space {
    pub(super) fn put_pod(&mut self, name: &PodName, object: PodObject, now: Tick) -> Changes {
        self.changing_pods(|space| space.put_live_pod(name, object, now))
    }

    /// Makes a change of pods. If it decides whether all pods are placed, it changes what is known of all models: a zero.
    fn changing_pods(&mut self, change: impl FnOnce(&mut Self) -> Changes) -> Changes {
        let were_placed = self.are_pods_placed();
        let mut changes = change(self);
        if self.are_pods_placed() != were_placed {
            changes.models.extend(self.found.models.keys().cloned());
        }
        changes
    }

    /// Whether it is known of each pod what it belongs to.
    pub(super) fn are_pods_placed(&self) -> bool {
        self.unresolved.is_empty() && self.stray.is_empty()
    }

    fn put_live_pod(&mut self, name: &PodName, object: PodObject, now: Tick) -> Changes {
        if object.phase == PodPhase::Over {
            return self.remove_pod(name, now);
        }
        let mut changes = Changes::default();
        match self.pods.get_mut(name) {
            Some(entry) if entry.object.uid == object.uid => {
                let former = std::mem::replace(&mut entry.object, object);
                let has_changed = entry.observe(now);
                if former.belongs_as(&entry.object) {
                    if has_changed {
                        changes.models.extend(entry.place.model().cloned());
                    }
                    return changes;
                }
                changes.models.extend(self.unplace(name));
            }
            // Perhaps another pod of its name, as a StatefulSet makes it.
            _ => {
                self.deleted.remove(name);
                changes.models.extend(self.unplace(name));
                self.pods.insert(name.clone(), PodEntry::new(object, now));
            }
        }
        changes.models.extend(self.place(name));
        changes
    }

    pub(super) fn remove_pod(&mut self, name: &PodName, now: Tick) -> Changes {
        self.changing_pods(|space| space.forget_pod(name, now))
    }

    fn forget_pod(&mut self, name: &PodName, now: Tick) -> Changes {
        let model = self.unplace(name);
        if let Some(entry) = self.pods.remove(name)
            && !entry.object.is_worker
            && let Some(model) = &model
        {
            self.deleted.insert(name.clone(), (now, model.clone()));
        }
        Changes { models: model.into_iter().collect(), ..Changes::default() }
    }

    /// Places all pods again.
    pub(super) fn place_all(&mut self) {
        self.members.clear();
        self.unresolved.clear();
        self.stray.clear();
        let names: Vec<PodName> = self.pods.keys().cloned().collect();
        for name in &names {
            self.place(name);
        }
    }

    /// Finds what a pod belongs to and counts it there; returns its model.
    fn place(&mut self, name: &PodName) -> Option<ModelId> {
        let place = self.place_of(&self.pods.get(name)?.object);
        let entry = self.pods.get_mut(name)?;
        if let Some(group) = place.group() {
            let members = self.members.entry(group).or_default();
            let is_worker = entry.object.is_worker;
            let pods = if is_worker { &mut members.workers } else { &mut members.replicas };
            pods.insert(name.clone());
        }
        match place {
            Place::Unresolved => self.unresolved.insert(name.clone()),
            Place::Stray => self.stray.insert(name.clone()),
            _ => false,
        };
        entry.place = place;
        entry.place.model().cloned()
    }

    /// Takes a pod out of what it is counted for; returns its model.
    fn unplace(&mut self, name: &PodName) -> Option<ModelId> {
        let entry = self.pods.get_mut(name)?;
        let place = std::mem::replace(&mut entry.place, Place::Nothing);
        self.unresolved.remove(name);
        self.stray.remove(name);
        let group = place.group()?;
        if let Some(members) = self.members.get_mut(&group) {
            members.replicas.remove(name);
            members.workers.remove(name);
        }
        Some(group.model)
    }

    /// What a pod belongs to: the nearest owner that a variant scales; labels count where no owner is known.
    fn place_of(&self, pod: &PodObject) -> Place {
        // A worker is owned by a StatefulSet of its leader, and that by the leader, but all have the name of the set.
        let group = pod.group_of.clone().map(|target| Owner { target, uid: None });
        if group.is_some() && self.is_of_another(pod.owner.as_ref()) {
            return Place::Unresolved;
        }
        let mut owner = group.as_ref().or(pod.owner.as_ref());
        let mut served = None;
        let mut is_known = false;
        for _ in 0..OWNERS_MAX {
            let Some(Owner { target, .. }) = owner else { break };
            let claimed =
                || Some(Place::Variant(Arc::clone(&self.found.claims.get(target)?.variant)));
            is_known = matches!(target.kind, TargetKind::Watched(_));
            if !is_known {
                if let Some(place) = claimed() {
                    return place;
                }
                break;
            }
            // It is not seen yet, or deleted and perhaps made again under its name: its pods are not those of the new one.
            let Some(workload) = owner.and_then(|owner| self.owner(owner)) else {
                return Place::Unresolved;
            };
            if let Some(place) = claimed() {
                return place;
            }
            served = workload.model.as_ref().or(served);
            owner = workload.owner.as_ref();
        }
        if let Some(model) = served.map(|model| ModelId::new(Arc::clone(model)))
            && self.found.models.contains_key(&model)
        {
            return Place::Model(model);
        }
        self.place_by_labels(pod, is_known)
    }

    /// Whether one of the owners is known under its name with another uid.
    fn is_of_another<'a>(&'a self, mut owner: Option<&'a Owner>) -> bool {
        for _ in 0..OWNERS_MAX {
            let Some(named) = owner else { return false };
            match (self.owner(named), self.workloads.contains_key(&named.target)) {
                (Some(workload), _) => owner = workload.owner.as_ref(),
                (None, is_another) => return is_another,
            }
        }
        false
    }

    fn place_by_labels(&self, pod: &PodObject, has_known_owner: bool) -> Place {
        // A label that came with a copied template does not count against what the owner is.
        let variant = pod.variant.as_deref().filter(|_| !has_known_owner);
        if let Some(described) = variant.and_then(|name| self.found.names.get(name)) {
            return Place::Variant(Arc::clone(&described.variant));
        }
        if let Some(Some(model)) =
            pod.model.as_deref().and_then(|label| self.found.labels.get(label))
        {
            return Place::Model(model.clone());
        }
        // One with a known owner is of a workload that no object describes, whatever its labels are.
        let is_labelled = pod.variant.is_some() || pod.model.is_some();
        if is_labelled && !has_known_owner { Place::Stray } else { Place::Nothing }
    }

    /// The variant that a pod of a model belongs to.
    pub(crate) fn variant_of(&self, model: &ModelId, pod: &PodName) -> Option<&Arc<Variant>> {
        match &self.pods.get(pod)?.place {
            Place::Variant(variant) if variant.model.model == *model => Some(variant),
            _ => None,
        }
    }
}

impl PodObject {
    /// Whether another state of it belongs to the same.
    fn belongs_as(&self, other: &Self) -> bool {
        self.owner == other.owner
            && self.group_of == other.group_of
            && self.variant == other.variant
            && self.model == other.model
            && self.is_worker == other.is_worker
    }
}
