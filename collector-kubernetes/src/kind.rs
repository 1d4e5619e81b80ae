// SPDX-License-Identifier: Apache-2.0
//! The kinds of objects that are watched, and what an object can belong to.

use std::fmt;
use std::sync::Arc;

use crate::pages::PageSource;

/// A kind of objects that is watched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Kind {
    Pod,
    ReplicaSet,
    Deployment,
    StatefulSet,
    LeaderWorkerSet,
    LlmInferenceService,
    ScaledObject,
    HorizontalPodAutoscaler,
    VariantAutoscaling,
    InferencePool,
    /// One of the group that has the alpha version: other objects, although clusters often serve both groups.
    AlphaInferencePool,
    EndpointSlice,
}

impl Kind {
    pub(crate) const ALL: [Self; 12] = [
        Self::Pod,
        Self::ReplicaSet,
        Self::Deployment,
        Self::StatefulSet,
        Self::LeaderWorkerSet,
        Self::LlmInferenceService,
        Self::ScaledObject,
        Self::HorizontalPodAutoscaler,
        Self::VariantAutoscaling,
        Self::InferencePool,
        Self::AlphaInferencePool,
        Self::EndpointSlice,
    ];

    /// The name that objects have in `kind`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::ReplicaSet => "ReplicaSet",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::LeaderWorkerSet => "LeaderWorkerSet",
            Self::LlmInferenceService => "LLMInferenceService",
            Self::ScaledObject => "ScaledObject",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::VariantAutoscaling => "VariantAutoscaling",
            Self::InferencePool | Self::AlphaInferencePool => "InferencePool",
            Self::EndpointSlice => "EndpointSlice",
        }
    }

    /// The name in paths of the API.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::ReplicaSet => "replicasets",
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::LeaderWorkerSet => "leaderworkersets",
            Self::LlmInferenceService => "llminferenceservices",
            Self::ScaledObject => "scaledobjects",
            Self::HorizontalPodAutoscaler => "horizontalpodautoscalers",
            Self::VariantAutoscaling => "variantautoscalings",
            Self::InferencePool | Self::AlphaInferencePool => "inferencepools",
            Self::EndpointSlice => "endpointslices",
        }
    }

    /// The name in messages and in the label `kind` of metrics: that in paths, with its group if another kind has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AlphaInferencePool => "inferencepools.inference.networking.x-k8s.io",
            _ => self.plural(),
        }
    }

    /// The paths of the group in the versions that are understood, the preferred one first.
    pub(crate) const fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Pod => &["/api/v1"],
            Self::ReplicaSet | Self::Deployment | Self::StatefulSet => &["/apis/apps/v1"],
            Self::LeaderWorkerSet => &["/apis/leaderworkerset.x-k8s.io/v1"],
            Self::LlmInferenceService => {
                &["/apis/serving.kserve.io/v1alpha2", "/apis/serving.kserve.io/v1alpha1"]
            }
            Self::ScaledObject => &["/apis/keda.sh/v1alpha1"],
            Self::HorizontalPodAutoscaler => &["/apis/autoscaling/v2"],
            Self::VariantAutoscaling => &["/apis/llmd.ai/v1alpha1"],
            Self::InferencePool => &["/apis/inference.networking.k8s.io/v1"],
            Self::AlphaInferencePool => &["/apis/inference.networking.x-k8s.io/v1alpha2"],
            Self::EndpointSlice => &["/apis/discovery.k8s.io/v1"],
        }
    }

    /// Whether it only tells which metrics pages there are, and no supply follows from it.
    pub(crate) const fn is_of_pages(self) -> bool {
        self.is_pool() || matches!(self, Self::EndpointSlice)
    }

    /// Whether its objects are InferencePools.
    pub(crate) const fn is_pool(self) -> bool {
        matches!(self, Self::InferencePool | Self::AlphaInferencePool)
    }

    /// Whether it is watched where these are the pages that the configuration asks for.
    pub(crate) const fn is_watched_for(self, pages: Option<&PageSource>) -> bool {
        match pages {
            None => !self.is_of_pages(),
            Some(PageSource::Pools) => true,
            Some(PageSource::EndpointSlices(_)) => !self.is_pool(),
        }
    }

    /// Whether every cluster serves it. Of the others it is an answer that the server has no such kind.
    pub(crate) const fn is_built_in(self) -> bool {
        matches!(
            self,
            Self::Pod
                | Self::ReplicaSet
                | Self::Deployment
                | Self::StatefulSet
                | Self::HorizontalPodAutoscaler
                | Self::EndpointSlice
        )
    }
}

/// An object as others name what they scale: a `scaleTargetRef` has a group, a kind and a name, and no uid.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    pub(crate) name: Arc<str>,
}

impl Target {
    pub(crate) fn new(kind: impl Into<TargetKind>, name: impl Into<Arc<str>>) -> Self {
        Self { kind: kind.into(), name: name.into() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// The controller of an object, as an owner reference names it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Owner {
    pub(crate) target: Target,
    /// Tells it from another object of its name, before or after it. The API requires it.
    pub(crate) uid: Option<Box<str>>,
}

/// The kind of a [`Target`]: any kind can be an owner.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum TargetKind {
    Watched(Kind),
    Other {
        /// Empty for the core group, and if the reference names none.
        group: Arc<str>,
        kind: Arc<str>,
    },
}

impl TargetKind {
    /// The kind of a reference: other groups have kinds of the same name, such as a StatefulSet of `apps.kruise.io`. A
    /// reference without an API version can only mean one that is watched.
    pub(crate) fn of_reference(api_version: Option<&str>, kind: &str) -> Self {
        let group = api_version.map(|it| it.split_once('/').map_or("", |(group, _)| group));
        let is_meant = |watched: &Kind| {
            watched.as_str() == kind
                && group
                    .is_none_or(|group| watched.paths().iter().any(|path| group_of(path) == group))
        };
        let watched = Kind::ALL.into_iter().find(is_meant);
        let other = || Self::Other { group: group.unwrap_or_default().into(), kind: kind.into() };
        watched.map_or_else(other, Self::Watched)
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Watched(kind) => kind.as_str(),
            Self::Other { kind, .. } => kind,
        }
    }
}

impl From<Kind> for TargetKind {
    fn from(kind: Kind) -> Self {
        Self::Watched(kind)
    }
}

/// The group in the path of a group and version; empty for the core group.
pub fn group_of(path: &str) -> &str {
    let path = path.strip_prefix("/apis/").unwrap_or_default();
    path.split('/').next().unwrap_or_default()
}
