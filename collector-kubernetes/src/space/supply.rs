// SPDX-License-Identifier: Apache-2.0
//! The supply of a model, made of what its namespace has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use collector_core::supply::{Pod, Workload};
use collector_core::{ModelId, PodName, Supply, Tick, VariantName};

use super::Space;
use super::pods::Group;
use super::variants::{Described, RENAMED_FOR};
use crate::conditions::Condition;
use crate::kind::{Kind, Target, TargetKind};

/// How long deleted pods are part of the supply: longer than a source that fails is believed by default, whose last answer
/// still has them.
const DELETED_FOR: Duration = Duration::from_secs(600);

/// The supply of a model.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ModelSupply {
    pub(crate) supply: Supply,
    /// Whether the cluster would list a pod of the model if there was one: no pod means that there is none.
    pub(crate) is_complete: bool,
}

impl Space {
    /// The supply of a model that is known here. `as_of` is when the cluster last confirmed it.
    pub(crate) fn supply(&self, model: &ModelId, as_of: Tick, now: Tick) -> Option<ModelSupply> {
        let variants = self.found.models.get(model)?;
        // Whether no pod of the namespace can be the model's without our knowing.
        let are_placed = self.are_pods_placed()
            && !self.found.unclaimed.contains(model)
            && self.unreadable.keys().all(|(kind, _)| kind.is_of_pages());
        let lists_pods =
            |variant: Option<&VariantName>| are_placed && !self.has_workers(model, variant);
        let workload = |(name, described): (&VariantName, &Arc<Described>)| {
            let pods = self.pods_of(model, Some(name));
            let mut workload = Workload::new(Some(name.clone()), self.wanted(described), pods);
            workload.lists_pods =
                lists_pods(Some(name)) && self.workloads.contains_key(&described.target);
            workload
        };
        let mut workloads: Vec<Workload> = variants.iter().map(workload).collect();
        let is_complete = workloads.iter().all(|workload| workload.lists_pods) && lists_pods(None);
        let bare = self.pods_of(model, None);
        if !bare.is_empty() {
            let mut workload = Workload::new(None, None, bare);
            workload.lists_pods = lists_pods(None);
            workloads.push(workload);
        }
        let mut supply = Supply::new(as_of, workloads);
        let of_model =
            self.deleted.iter().filter(|(_, (at, of))| of == model && at.age(now) < DELETED_FOR);
        supply.deleted = of_model.map(|(name, (at, _))| (name.clone(), *at)).collect();
        Some(ModelSupply { supply, is_complete })
    }

    pub(super) fn pods_of(&self, model: &ModelId, variant: Option<&VariantName>) -> Vec<Pod> {
        let group = Group { model: model.clone(), variant: variant.cloned() };
        let names = self.members.get(&group).map(|members| &members.replicas);
        let pod = |name: &PodName| {
            let entry = self.pods.get(name)?;
            Some(Pod::new(name.clone(), entry.state, entry.since))
        };
        names.into_iter().flatten().filter_map(pod).collect()
    }

    fn has_workers(&self, model: &ModelId, variant: Option<&VariantName>) -> bool {
        let group = Group { model: model.clone(), variant: variant.cloned() };
        self.members.get(&group).is_some_and(|members| !members.workers.is_empty())
    }

    /// The replicas that are asked for; `None` where that is not known.
    pub(super) fn wanted(&self, described: &Described) -> Option<u32> {
        let target = &described.target;
        if target.kind != TargetKind::Watched(Kind::LlmInferenceService) {
            return self.workloads.get(target)?.replicas;
        }
        // Those of its parts that no other variant has.
        let is_its_own = |child: &&Target| !self.found.claims.contains_key(child);
        let children = self.children.get(target)?.iter().filter(is_its_own);
        children.map(|child| self.workloads.get(child)?.replicas).sum()
    }

    /// Forgets pods that were deleted long ago.
    pub(crate) fn tidy(&mut self, now: Tick) {
        self.deleted.retain(|_, (at, _)| at.age(now) < DELETED_FOR);
        // Then that is no condition any more.
        self.is_unresolved |= self.renamed.values().any(|(_, at)| at.age(now) >= RENAMED_FOR);
    }

    /// Adds what is wrong with the objects of the namespace.
    pub(crate) fn report(&self, conditions: &mut BTreeSet<Condition>) {
        conditions.extend(self.found.conditions.iter().cloned());
        self.pages.report(conditions);
        // One for all, and without their number: otherwise each pod that comes would be logged.
        if let Some(first) = self.stray.first() {
            let others = if self.stray.len() > 1 { ", as other pods of the namespace" } else { "" };
            let problem = format!(
                "it has no known owner, and its labels llm-d.ai/variant or llm-d.ai/model name nothing that is \
                 known, or several models{others}"
            );
            let remedy = "correct the label, or describe its workload by annotations of an HPA or a ScaledObject";
            let name = first.as_str();
            conditions.insert(self.condition(Kind::Pod.as_str(), name, problem, remedy));
        }
    }

    /// How many pods there are, and how many other objects.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Pod => self.pods.len(),
            Kind::InferencePool | Kind::AlphaInferencePool | Kind::EndpointSlice => {
                self.pages.count(kind)
            }
            Kind::ScaledObject | Kind::HorizontalPodAutoscaler | Kind::VariantAutoscaling => {
                self.scalers.keys().filter(|(of, _)| *of == kind).count()
            }
            _ => self.workloads.keys().filter(|target| target.kind == kind.into()).count(),
        }
    }
}
