// SPDX-License-Identifier: Apache-2.0
//! The fields of objects in the API's JSON.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use collector_core::Namespace;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::pages::{self, PodEndpoint, PoolSpec};
use super::{
    Content, Object, PodObject, PodPhase, ScalerObject, TEXT_MAX, WorkloadObject, system_time,
};
use crate::kind::{Kind, Owner, Target, TargetKind};

/// What KServe calls the Endpoint Picker that it makes for an LLMInferenceService: it owns that as well, and it serves no
/// model.
const KSERVE_PICKER: &str = "llminferenceservice-router-scheduler";

/// The labels of nodes that say what they have as accelerators.
const ACCELERATOR_LABELS: [&str; 4] = [
    "nvidia.com/gpu.product",
    "amd.com/gpu.product-name",
    "gpu.intel.com/product",
    "cloud.google.com/gke-accelerator",
];

#[derive(Deserialize)]
struct Raw<Spec, Status = IgnoredAny> {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Arc<str>,
    #[serde(default)]
    namespace: Arc<str>,
    uid: Option<Box<str>>,
    creation_timestamp: Option<Box<str>>,
    deletion_timestamp: Option<Box<str>>,
    deletion_grace_period_seconds: Option<u64>,
    labels: Option<Labels>,
    annotations: Option<Annotations>,
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Labels {
    #[serde(rename = "llm-d.ai/variant")]
    variant: Option<Box<str>>,
    #[serde(rename = "llm-d.ai/model")]
    model: Option<Box<str>>,
    #[serde(rename = "leaderworkerset.sigs.k8s.io/worker-index")]
    worker_index: Option<Box<str>>,
    #[serde(rename = "leaderworkerset.sigs.k8s.io/name")]
    group_of: Option<Arc<str>>,
    #[serde(rename = "inference.optimization/acceleratorName")]
    accelerator: Option<Arc<str>>,
    #[serde(rename = "app.kubernetes.io/component")]
    component: Option<Box<str>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "llm-d.ai/managed")]
    managed: Option<Box<str>>,
    #[serde(rename = "llm-d.ai/model-id")]
    model: Option<Arc<str>>,
    #[serde(rename = "llm-d.ai/variant-cost")]
    cost: Option<Box<str>>,
    #[serde(rename = "llm-d.ai/gpus-per-replica")]
    gpus_per_replica: Option<Box<str>>,
    #[serde(rename = "llm-d.ai/role")]
    role: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnerReference {
    api_version: Option<Box<str>>,
    kind: Box<str>,
    name: Arc<str>,
    uid: Option<Box<str>>,
    #[serde(default)]
    controller: Option<bool>,
}

impl Metadata {
    fn owner(&mut self) -> Option<Owner> {
        let owners = self.owner_references.take().unwrap_or_default();
        let controller = owners.into_iter().find(|owner| owner.controller == Some(true))?;
        let kind = TargetKind::of_reference(controller.api_version.as_deref(), &controller.kind);
        Some(Owner { target: Target::new(kind, controller.name), uid: controller.uid })
    }

    fn into_object(self, content: Content) -> Object {
        Object { namespace: Namespace::new(self.namespace), name: self.name, content }
    }
}

/// Reads an object of a kind.
pub(super) fn read(kind: Kind, text: &str) -> Result<Object, serde_json::Error> {
    let object = match kind {
        Kind::Pod => pod(serde_json::from_str(text)?, pages::pod(text)?),
        // Of ReplicaSets there are ten for each Deployment, and nobody asks for their replicas.
        Kind::ReplicaSet => {
            workload(serde_json::from_str(text)?, |_: IgnoredAny| WorkloadObject::default())
        }
        Kind::Deployment | Kind::StatefulSet => {
            workload(serde_json::from_str(text)?, |spec: ReplicasSpec| spec.into())
        }
        Kind::LeaderWorkerSet => {
            workload(serde_json::from_str(text)?, |spec: LeaderWorkerSetSpec| spec.into())
        }
        Kind::LlmInferenceService => inference_service(serde_json::from_str(text)?),
        Kind::ScaledObject | Kind::HorizontalPodAutoscaler | Kind::VariantAutoscaling => {
            scaler(serde_json::from_str(text)?)
        }
        Kind::InferencePool | Kind::AlphaInferencePool => pool(serde_json::from_str(text)?),
        Kind::EndpointSlice => {
            let raw: Raw<IgnoredAny> = serde_json::from_str(text)?;
            raw.metadata.into_object(Content::Slice(pages::slice(text)?))
        }
    };
    Ok(object)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    phase: Option<Box<str>>,
    conditions: Option<Vec<PodCondition>>,
    container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodCondition {
    #[serde(rename = "type")]
    name: Box<str>,
    status: Box<str>,
    last_transition_time: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStatus {
    state: Option<ContainerState>,
    last_state: Option<ContainerState>,
}

#[derive(Deserialize)]
struct ContainerState {
    running: Option<Started>,
    terminated: Option<Started>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    started_at: Option<Box<str>>,
}

fn pod(raw: Raw<IgnoredAny, PodStatus>, endpoint: PodEndpoint) -> Object {
    let mut metadata = raw.metadata;
    let phase = phase(metadata.deletion_timestamp.is_some(), raw.status.as_ref());
    let changed = changed(phase, &metadata, raw.status.as_ref());
    let labels = metadata.labels.take().unwrap_or_default();
    let content = PodObject {
        uid: metadata.uid.take().unwrap_or_default(),
        owner: metadata.owner(),
        group_of: labels.group_of.map(|name| Target::new(Kind::LeaderWorkerSet, name)),
        variant: labels.variant,
        model: labels.model,
        is_worker: labels.worker_index.is_some_and(|index| &*index != "0"),
        phase,
        changed,
        endpoint: Some(Box::new(endpoint)),
    };
    metadata.into_object(Content::Pod(content))
}

/// When a pod came into its phase.
fn changed(phase: PodPhase, metadata: &Metadata, status: Option<&PodStatus>) -> Option<SystemTime> {
    let time = |text: Option<&str>| system_time(text?.parse().ok()?);
    match phase {
        PodPhase::Ready | PodPhase::Unready { has_been_ready: true } => {
            let mut conditions = status?.conditions.as_deref()?.iter();
            let ready = conditions.find(|condition| &*condition.name == "Ready")?;
            time(ready.last_transition_time.as_deref())
        }
        PodPhase::Unready { has_been_ready: false } => time(metadata.creation_timestamp.as_deref()),
        // What the API has is the end of the time to terminate.
        PodPhase::Terminating => {
            let grace = Duration::from_secs(metadata.deletion_grace_period_seconds.unwrap_or(0));
            time(metadata.deletion_timestamp.as_deref())?.checked_sub(grace)
        }
        PodPhase::Over => None,
    }
}

fn phase(is_deleted: bool, status: Option<&PodStatus>) -> PodPhase {
    let is_over = |phase: &str| matches!(phase, "Succeeded" | "Failed");
    if status.and_then(|status| status.phase.as_deref()).is_some_and(is_over) {
        return PodPhase::Over;
    }
    if is_deleted {
        return PodPhase::Terminating;
    }
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    match conditions.iter().find(|condition| &*condition.name == "Ready") {
        Some(ready) if &*ready.status == "True" => PodPhase::Ready,
        ready => PodPhase::Unready { has_been_ready: lost_readiness(ready, status) },
    }
}

/// Whether a pod that is not Ready once was. Its condition is false from before its containers start until it is Ready
/// first, so that one which became false after a start was true in between.
///
/// The API writes all times alike, in UTC with whole seconds: as texts they have the order of the times.
fn lost_readiness(ready: Option<&PodCondition>, status: Option<&PodStatus>) -> bool {
    let changed = ready.and_then(|ready| ready.last_transition_time.as_deref());
    let containers = status.and_then(|status| status.container_statuses.as_deref());
    let containers = containers.unwrap_or_default().iter();
    let runs = containers.flat_map(|container| [&container.state, &container.last_state]).flatten();
    let starts = runs.flat_map(|state| [&state.running, &state.terminated]).flatten();
    let first_start = starts.filter_map(|start| start.started_at.as_deref()).min();
    matches!((changed, first_start), (Some(changed), Some(start)) if changed > start)
}

fn workload<S: for<'de> Deserialize<'de>>(
    raw: Raw<S>,
    content: impl FnOnce(S) -> WorkloadObject,
) -> Object {
    let mut metadata = raw.metadata;
    let component = metadata.labels.as_ref().and_then(|labels| labels.component.as_deref());
    let owner = if component == Some(KSERVE_PICKER) { None } else { metadata.owner() };
    let uid = metadata.uid.take().unwrap_or_default();
    let content = raw.spec.map(content).unwrap_or_default();
    metadata.into_object(Content::Workload(WorkloadObject { uid, owner, ..content }))
}

#[derive(Deserialize)]
struct ReplicasSpec {
    replicas: Option<u32>,
    template: Option<PodTemplate>,
}

#[derive(Deserialize)]
struct PodTemplate {
    spec: Option<PodSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeaderWorkerSetSpec {
    replicas: Option<u32>,
    leader_worker_template: Option<LeaderWorkerTemplate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeaderWorkerTemplate {
    leader_template: Option<PodTemplate>,
    worker_template: Option<PodTemplate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_selector: Option<NodeSelector>,
}

/// The accelerator of a selector of nodes, of which nothing else is kept.
struct NodeSelector(Option<Arc<str>>);

impl<'de> Deserialize<'de> for NodeSelector {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut labels =
            std::collections::HashMap::<Box<str>, Arc<str>>::deserialize(deserializer)?;
        Ok(Self(ACCELERATOR_LABELS.iter().find_map(|label| labels.remove(*label))))
    }
}

impl PodSpec {
    fn accelerator(self) -> Option<Arc<str>> {
        self.node_selector?.0
    }
}

impl PodTemplate {
    fn accelerator(self) -> Option<Arc<str>> {
        self.spec?.accelerator()
    }
}

impl From<ReplicasSpec> for WorkloadObject {
    fn from(spec: ReplicasSpec) -> Self {
        let accelerator = spec.template.and_then(PodTemplate::accelerator);
        Self { replicas: Some(spec.replicas.unwrap_or(1)), accelerator, ..Self::default() }
    }
}

impl From<LeaderWorkerSetSpec> for WorkloadObject {
    fn from(spec: LeaderWorkerSetSpec) -> Self {
        let accelerator = spec.leader_worker_template.and_then(|template| {
            let leader = template.leader_template.and_then(PodTemplate::accelerator);
            leader.or_else(|| template.worker_template.and_then(PodTemplate::accelerator))
        });
        Self { replicas: Some(spec.replicas.unwrap_or(1)), accelerator, ..Self::default() }
    }
}

#[derive(Deserialize)]
struct InferenceServiceSpec {
    model: Option<InferenceServiceModel>,
    template: Option<PodSpec>,
}

#[derive(Deserialize)]
struct InferenceServiceModel {
    name: Option<Arc<str>>,
}

/// An LLMInferenceService. Its replicas are those of the workloads that KServe makes of it, because its own are left to
/// an autoscaler and do not count those for prefill.
fn inference_service(raw: Raw<InferenceServiceSpec>) -> Object {
    let mut metadata = raw.metadata;
    let (uid, owner) = (metadata.uid.take().unwrap_or_default(), metadata.owner());
    let (model, template) = raw.spec.map_or((None, None), |spec| (spec.model, spec.template));
    let name = model.and_then(|model| model.name).filter(|name| !name.is_empty());
    let content = WorkloadObject {
        uid,
        owner,
        replicas: None,
        accelerator: template.and_then(PodSpec::accelerator),
        // KServe serves a model without a name under that of the object.
        model: Some(short(name).unwrap_or_else(|| Arc::clone(&metadata.name))),
    };
    metadata.into_object(Content::Workload(content))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScalerSpec {
    scale_target_ref: Option<TargetReference>,
    #[serde(rename = "modelID")]
    model: Option<Arc<str>>,
    variant_cost: Option<Box<str>>,
    accelerator: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TargetReference {
    api_version: Option<Box<str>>,
    kind: Option<Box<str>>,
    name: Option<Arc<str>>,
}

/// An object that scales another. Only a VariantAutoscaling has the model and its like in the specification.
fn scaler(raw: Raw<ScalerSpec>) -> Object {
    let mut metadata = raw.metadata;
    let by_scaler = |owner: Owner| owner.target.kind == TargetKind::Watched(Kind::ScaledObject);
    let annotations = metadata.annotations.take().unwrap_or_default();
    let labels = metadata.labels.take().unwrap_or_default();
    let content = ScalerObject {
        is_derived: metadata.owner().is_some_and(by_scaler),
        is_managed: annotations.managed.as_deref() == Some("true"),
        gpus_per_replica: annotations.gpus_per_replica,
        role: short(annotations.role),
        ..ScalerObject::default()
    };
    let (model, cost) = (annotations.model, annotations.cost);
    let content = match raw.spec {
        None => {
            ScalerObject { model: short(model), cost, accelerator: labels.accelerator, ..content }
        }
        Some(spec) => ScalerObject {
            target: spec.scale_target_ref.and_then(TargetReference::target),
            model: short(spec.model.or(model)),
            cost: spec.variant_cost.or(cost),
            accelerator: spec.accelerator.or(labels.accelerator),
            ..content
        },
    };
    metadata.into_object(Content::Scaler(content))
}

impl TargetReference {
    fn target(self) -> Option<Target> {
        let name = self.name.filter(|name| !name.is_empty())?;
        // KEDA's default.
        let kind = self.kind.as_deref().unwrap_or("Deployment");
        Some(Target::new(TargetKind::of_reference(self.api_version.as_deref(), kind), name))
    }
}

/// An InferencePool. Its specification is required.
fn pool(raw: Raw<PoolSpec>) -> Object {
    let content = match raw.spec {
        Some(spec) => Content::Pool(spec.into()),
        None => Content::Unreadable("it has no spec".to_owned()),
    };
    raw.metadata.into_object(content)
}

/// A text that is not longer than any that is meant.
fn short(text: Option<Arc<str>>) -> Option<Arc<str>> {
    text.filter(|text| text.len() <= TEXT_MAX)
}

/// Reads the name and the namespace of an object alone.
pub(super) fn read_key(text: &str) -> Result<Key, serde_json::Error> {
    let only: OnlyKey = serde_json::from_str(text)?;
    Ok(Key { namespace: Namespace::new(only.metadata.namespace), name: only.metadata.name })
}

pub(super) struct Key {
    pub(super) namespace: Namespace,
    pub(super) name: Arc<str>,
}

#[derive(Deserialize)]
struct OnlyKey {
    metadata: KeyMetadata,
}

#[derive(Deserialize)]
struct KeyMetadata {
    name: Arc<str>,
    #[serde(default)]
    namespace: Arc<str>,
}

/// Reads the resource version of an object alone.
pub(super) fn version(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct OnlyVersion {
        metadata: VersionMetadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct VersionMetadata {
        resource_version: String,
    }
    Some(serde_json::from_str::<OnlyVersion>(text).ok()?.metadata.resource_version)
}
