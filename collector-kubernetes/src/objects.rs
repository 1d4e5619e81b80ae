// SPDX-License-Identifier: Apache-2.0
//! Objects of the cluster, as far as they are kept: what the API server writes is read straight into a few fields, so
//! that managed fields, templates and most of the status never are in memory.

mod json;
mod pages;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use collector_core::{Namespace, PodName};
use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::kind::{Kind, Owner, Target};
pub(crate) use pages::{Labels, PageAnnotations, PodEndpoint, PoolObject, SliceObject};

/// The most bytes of an object. The default limit of etcd is 1.5 MiB.
pub(crate) const OBJECT_MAX: usize = 4 << 20;

/// The most bytes of a name, a label or an annotation that is kept. Names of objects have 253 at most.
const TEXT_MAX: usize = 1024;

/// An object: where it is, and what is kept of it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Object {
    pub(crate) namespace: Namespace,
    pub(crate) name: Arc<str>,
    pub(crate) content: Content,
}

/// What is kept of an object.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Content {
    Pod(PodObject),
    Workload(WorkloadObject),
    Scaler(ScalerObject),
    Pool(PoolObject),
    Slice(SliceObject),
    /// It cannot be read, and why.
    Unreadable(String),
}

/// A pod.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct PodObject {
    /// Tells it from a former pod of its name.
    pub(crate) uid: Box<str>,
    /// The controller that made it.
    pub(crate) owner: Option<Owner>,
    /// The LeaderWorkerSet of its group, as a label says that its controller sets.
    pub(crate) group_of: Option<Target>,
    /// `llm-d.ai/variant`.
    pub(crate) variant: Option<Box<str>>,
    /// `llm-d.ai/model`: a value of a label, which cannot be every id of a model.
    pub(crate) model: Option<Box<str>>,
    /// Whether it is a part of a group of which another pod is the replica.
    pub(crate) is_worker: bool,
    pub(crate) phase: PodPhase,
    /// When it came into its phase, by the clock of the API server.
    pub(crate) changed: Option<SystemTime>,
    /// The pod as a server of metrics pages, until it is stored.
    pub(crate) endpoint: Option<Box<PodEndpoint>>,
}

/// What the API tells about the state of a pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PodPhase {
    Ready,
    /// It is not Ready. Whether its readiness was lost after its containers had started.
    Unready {
        has_been_ready: bool,
    },
    /// Its deletion has begun.
    Terminating,
    /// It has succeeded or failed: it serves nothing and never will again.
    Over,
}

/// What owns pods, or is between them and their owner.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct WorkloadObject {
    /// Tells it from a former workload of its name.
    pub(crate) uid: Box<str>,
    pub(crate) owner: Option<Owner>,
    /// The replicas that it asks for. Kubernetes defaults to 1, so that none is one that is not known.
    pub(crate) replicas: Option<u32>,
    /// What its pods are bound to run on.
    pub(crate) accelerator: Option<Arc<str>>,
    /// The model that it says it serves: an LLMInferenceService.
    pub(crate) model: Option<Arc<str>>,
}

/// An object that scales another one, and may describe it as a variant.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct ScalerObject {
    /// Whether another scaler made it: KEDA makes an HPA of each ScaledObject, with its annotations.
    pub(crate) is_derived: bool,
    pub(crate) target: Option<Target>,
    /// Whether its annotations say that it is managed: then it should describe a variant.
    pub(crate) is_managed: bool,
    pub(crate) model: Option<Arc<str>>,
    pub(crate) cost: Option<Box<str>>,
    pub(crate) gpus_per_replica: Option<Box<str>>,
    pub(crate) accelerator: Option<Arc<str>>,
    /// `llm-d.ai/role`.
    pub(crate) role: Option<Arc<str>>,
}

impl Object {
    /// Reads an object. One that cannot be read is kept as that, as long as it has a name.
    pub(crate) fn read(kind: Kind, text: &str) -> Result<Self, serde_json::Error> {
        match json::read(kind, text) {
            Ok(object) => Ok(object),
            Err(error) => {
                let key = json::read_key(text)?;
                let content = Content::Unreadable(error.to_string());
                Ok(Self { namespace: key.namespace, name: key.name, content })
            }
        }
    }

    pub(crate) fn pod_name(&self) -> PodName {
        PodName::new(Arc::clone(&self.name))
    }
}

/// A page of a list. Its items are read one by one, so that one of them that is malformed disturbs no other.
#[derive(serde::Deserialize)]
pub(crate) struct Page<'a> {
    #[serde(default)]
    pub(crate) metadata: PageMetadata,
    #[serde(borrow, default)]
    pub(crate) items: Option<Vec<&'a RawValue>>,
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PageMetadata {
    pub(crate) resource_version: Option<String>,
    #[serde(rename = "continue")]
    pub(crate) next: Option<String>,
}

/// An event of a watch.
#[derive(serde::Deserialize)]
pub(crate) struct Event<'a> {
    #[serde(rename = "type", borrow)]
    pub(crate) what: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) object: &'a RawValue,
}

/// What an event of type `ERROR`, and an answer that is an error, has as its object.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// A time of the API, which has whole seconds.
pub(crate) fn system_time(time: Timestamp) -> Option<SystemTime> {
    let seconds = u64::try_from(time.as_second()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Returns the resource version of an object.
pub(crate) fn version_of(object: &RawValue) -> Option<String> {
    json::version(object.get())
}

#[cfg(test)]
mod tests;
