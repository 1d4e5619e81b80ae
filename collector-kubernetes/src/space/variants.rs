// SPDX-License-Identifier: Apache-2.0
//! Which variants the objects of a namespace describe, and what is wrong with those that describe none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    AcceleratorName, DEFAULT_COST, ModelId, ModelRef, Tick, Variant, VariantName,
};

use super::Space;
use crate::conditions::Condition;
use crate::kind::{Kind, Target, TargetKind};
use crate::objects::ScalerObject;

/// How long a model id that was changed in place is a condition.
pub(super) const RENAMED_FOR: Duration = Duration::from_secs(600);

/// A variant, and what it scales.
#[derive(PartialEq, Debug)]
pub(super) struct Described {
    pub(super) variant: Arc<Variant>,
    pub(super) target: Target,
    /// The kind of the object that describes it, whose name it has.
    pub(super) source: Kind,
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.source.as_str(), self.variant.name)
    }
}

/// What the objects of a namespace describe.
#[derive(Default, Debug)]
pub(super) struct Found {
    pub(super) models: BTreeMap<ModelId, BTreeMap<VariantName, Arc<Described>>>,
    /// The variants by what they scale.
    pub(super) claims: HashMap<Target, Arc<Described>>,
    /// The variants by name.
    pub(super) names: HashMap<VariantName, Arc<Described>>,
    /// The models by the values that the label `llm-d.ai/model` may have; `None` where several fit.
    pub(super) labels: HashMap<Box<str>, Option<ModelId>>,
    /// Models that an object describes without a workload that is its own: pods of others may serve them.
    pub(super) unclaimed: BTreeSet<ModelId>,
    pub(super) conditions: BTreeSet<Condition>,
}

impl Space {
    /// Takes note of a model id that was changed in place.
    pub(super) fn note_renamed(&mut self, key: &(Kind, Arc<str>), new: &ScalerObject, now: Tick) {
        let Some(former) = self.scalers.get(key) else { return };
        if let (Some(was), Some(is)) = (&former.model, &new.model)
            && was != is
        {
            self.renamed.insert(key.clone(), (ModelId::new(Arc::clone(was)), now));
        }
    }

    /// Finds the variants again; returns whether they have changed.
    pub(super) fn describe_variants(&mut self, now: Tick) -> bool {
        self.children.clear();
        for (target, workload) in &self.workloads {
            if let Some(owner) = &workload.owner
                && owner.target.kind == TargetKind::Watched(Kind::LlmInferenceService)
                && self.owner(owner).is_some()
            {
                let children = self.children.entry(owner.target.clone()).or_default();
                children.push(target.clone());
            }
        }
        self.renamed.retain(|_, (_, at)| at.age(now) < RENAMED_FOR);
        let mut found = Found::default();
        for ((kind, name), scaler) in &self.scalers {
            self.describe(*kind, name, scaler, &mut found);
        }
        self.describe_inference_services(&mut found);
        self.report_unreadable(&mut found);
        found.labels = labels_of(found.models.keys());
        let has_changed = self.found.models != found.models;
        self.found = found;
        has_changed
    }

    fn describe(&self, kind: Kind, name: &Arc<str>, scaler: &ScalerObject, found: &mut Found) {
        if scaler.is_derived {
            return;
        }
        let mut report = |problem: String, remedy: &str| {
            found.conditions.insert(self.condition(kind.as_str(), name, problem, remedy));
        };
        let Some(model) = scaler.model.as_ref().filter(|model| !model.is_empty()) else {
            if scaler.is_managed || kind == Kind::VariantAutoscaling {
                report(
                    "it is managed and names no model".to_owned(),
                    "set the annotation llm-d.ai/model-id to the id that the model servers report",
                );
            }
            return;
        };
        let Some(target) = &scaler.target else {
            report(
                "it has no scaleTargetRef, so no pods are its own".to_owned(),
                "set spec.scaleTargetRef to the workload that runs the model",
            );
            found.unclaimed.insert(ModelId::new(Arc::clone(model)));
            return;
        };
        if let Some((former, _)) = self.renamed.get(&(kind, Arc::clone(name))) {
            report(
                format!("its model id was changed in place, from {former:?} to {model:?}"),
                "the former model has no variant of this object any more; to serve both, make another object",
            );
        }
        let cost = match scaler.cost.as_deref().map(parse_amount) {
            None => DEFAULT_COST,
            Some(Some(cost)) => cost,
            Some(None) => {
                report(
                    format!(
                        "its cost is {:?}, which is not an amount; {DEFAULT_COST} is assumed",
                        scaler.cost.as_deref().unwrap_or_default()
                    ),
                    "set llm-d.ai/variant-cost to a number that is 0 or more",
                );
                DEFAULT_COST
            }
        };
        if let Some(gpus) = scaler.gpus_per_replica.as_deref()
            && gpus.parse::<u32>().is_err()
        {
            report(
                format!("its GPUs per replica are {gpus:?}, which is not a whole number"),
                "set llm-d.ai/gpus-per-replica to a whole number",
            );
        }
        let variant = self.variant(name, model, cost, scaler.accelerator.as_ref(), target);
        if self.claim(kind, variant, target, found) {
            self.report_target(kind, name, target, found);
        }
    }

    /// An LLMInferenceService is a variant itself where no other object scales it, or all that it is made of.
    fn describe_inference_services(&self, found: &mut Found) {
        let mut services: Vec<_> = self
            .workloads
            .iter()
            .filter_map(|(target, workload)| Some((target, workload.model.as_ref()?)))
            .collect();
        services.sort_unstable();
        for (target, model) in services {
            let children = self.children.get(target).map(Vec::as_slice).unwrap_or_default();
            let is_scaled = |target: &Target| found.claims.contains_key(target);
            let are_all = !children.is_empty() && children.iter().all(is_scaled);
            if !is_scaled(target) && !are_all {
                let variant = self.variant(&target.name, model, DEFAULT_COST, None, target);
                self.claim(Kind::LlmInferenceService, variant, target, found);
            }
        }
    }

    fn variant(
        &self,
        name: &Arc<str>,
        model: &Arc<str>,
        cost: f64,
        accelerator: Option<&Arc<str>>,
        target: &Target,
    ) -> Variant {
        // What the scheduler is bound to goes before what a label says.
        let bound = self.workloads.get(target).and_then(|workload| workload.accelerator.as_ref());
        Variant {
            name: VariantName::new(Arc::clone(name)),
            model: ModelRef::new(ModelId::new(Arc::clone(model)), self.namespace.clone()),
            accelerator: bound.or(accelerator).cloned().map(AcceleratorName::new),
            cost,
            max_batch: None,
            fetch_interval: None,
        }
    }

    /// Gives a variant what it scales, unless another has it; returns whether it has it.
    fn claim(&self, kind: Kind, variant: Variant, target: &Target, found: &mut Found) -> bool {
        let described =
            Described { variant: Arc::new(variant), target: target.clone(), source: kind };
        let variant = &described.variant;
        let problem = if let Some(other) = found.claims.get(target) {
            format!("it scales {target}, and so does {other}, which counts")
        } else if let Some(other) = found.names.get(&variant.name) {
            format!("it describes a variant of the same name as {other}, which counts")
        } else {
            let (model, name) = (variant.model.model.clone(), variant.name.clone());
            let described = Arc::new(described);
            found.claims.insert(target.clone(), Arc::clone(&described));
            found.names.insert(name.clone(), Arc::clone(&described));
            found.models.entry(model).or_default().insert(name, described);
            return true;
        };
        if found.claims.get(target).is_none_or(|claimed| claimed.variant.model != variant.model) {
            found.unclaimed.insert(variant.model.model.clone());
        }
        let remedy = "delete one of them, or its annotation llm-d.ai/model-id";
        let name = variant.name.as_str();
        found.conditions.insert(self.condition(kind.as_str(), name, problem, remedy));
        false
    }

    fn report_target(&self, kind: Kind, name: &str, target: &Target, found: &mut Found) {
        let is_scalable = |kind: &TargetKind| match kind {
            TargetKind::Watched(kind) => matches!(
                kind,
                Kind::Deployment
                    | Kind::StatefulSet
                    | Kind::ReplicaSet
                    | Kind::LeaderWorkerSet
                    | Kind::LlmInferenceService
            ),
            TargetKind::Other { .. } => false,
        };
        let (problem, remedy) = if !is_scalable(&target.kind) {
            (
                format!("it scales {target}, a kind whose replicas are not known"),
                "its pods count by their owners; how many are wanted is unknown",
            )
        } else if !self.workloads.contains_key(target) {
            (
                format!("it scales {target}, which does not exist"),
                "correct spec.scaleTargetRef, or make the workload",
            )
        } else {
            return;
        };
        found.conditions.insert(self.condition(kind.as_str(), name, problem, remedy));
    }

    fn report_unreadable(&self, found: &mut Found) {
        for ((kind, name), why) in &self.unreadable {
            let problem = format!("it cannot be read: {why}");
            let remedy = "no zero is reported for its namespace until it is corrected";
            found.conditions.insert(self.condition(kind.as_str(), name, problem, remedy));
        }
    }

    pub(super) fn condition(
        &self,
        kind: &str,
        name: &str,
        problem: String,
        remedy: &str,
    ) -> Condition {
        Condition::new(kind, self.namespace.as_str(), name, problem, remedy)
    }
}

/// The models by the values that the label `llm-d.ai/model` of their pods may have: the id, or its last part, because a
/// label has no slash.
fn labels_of<'a>(models: impl Iterator<Item = &'a ModelId>) -> HashMap<Box<str>, Option<ModelId>> {
    let mut labels: HashMap<Box<str>, Option<ModelId>> = HashMap::new();
    for model in models {
        let id = model.as_str();
        let last = id.rsplit('/').next().filter(|last| *last != id);
        for label in [Some(id), last].into_iter().flatten() {
            let several = |found: &mut Option<ModelId>| *found = None;
            labels.entry(label.into()).and_modify(several).or_insert_with(|| Some(model.clone()));
        }
    }
    labels
}

/// Reads a cost: a number that is 0 or more.
fn parse_amount(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|cost: &f64| cost.is_finite() && *cost >= 0.0)
}
