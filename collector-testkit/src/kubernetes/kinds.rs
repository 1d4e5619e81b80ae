// SPDX-License-Identifier: Apache-2.0
//! The kinds of objects that a [`Cluster`](super::Cluster) can serve.

/// A kind of object in one version of its API group, and where the API serves it.
///
/// Two versions of one group are two kinds here: an object that is applied in one is not seen in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The version of the group, as `v1`.
    pub version: &'static str,
    /// The name in paths and in roles, as `pods`.
    pub plural: &'static str,
    /// The name in objects, as `Pod`.
    pub kind: &'static str,
    /// Whether its objects belong to namespaces.
    pub namespaced: bool,
}

impl Kind {
    /// A kind whose objects belong to namespaces.
    pub const fn namespaced(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
    ) -> Self {
        Self { group, version, plural, kind, namespaced: true }
    }

    /// Its `apiVersion`, as `apps/v1`.
    pub fn api_version(self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Whether the API server itself defines the kind. Lists of these omit `apiVersion` and `kind` in their items;
    /// lists of custom resources have them.
    pub(super) fn is_built_in(self) -> bool {
        matches!(
            self.group,
            "" | "apps" | "autoscaling" | "discovery.k8s.io" | "apiregistration.k8s.io"
        )
    }
}

/// Pods.
pub const PODS: Kind = Kind::namespaced("", "v1", "pods", "Pod");
/// Config maps.
pub const CONFIG_MAPS: Kind = Kind::namespaced("", "v1", "configmaps", "ConfigMap");
/// Deployments.
pub const DEPLOYMENTS: Kind = Kind::namespaced("apps", "v1", "deployments", "Deployment");
/// Stateful sets.
pub const STATEFUL_SETS: Kind = Kind::namespaced("apps", "v1", "statefulsets", "StatefulSet");
/// Replica sets.
pub const REPLICA_SETS: Kind = Kind::namespaced("apps", "v1", "replicasets", "ReplicaSet");
/// Horizontal pod autoscalers.
pub const HORIZONTAL_POD_AUTOSCALERS: Kind =
    Kind::namespaced("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler");
/// KEDA's scaled objects.
pub const SCALED_OBJECTS: Kind =
    Kind::namespaced("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject");
/// Leader-worker sets.
pub const LEADER_WORKER_SETS: Kind =
    Kind::namespaced("leaderworkerset.x-k8s.io", "v1", "leaderworkersets", "LeaderWorkerSet");
/// KServe's LLM inference services.
pub const LLM_INFERENCE_SERVICES: Kind = Kind::namespaced(
    "serving.kserve.io",
    "v1alpha1",
    "llminferenceservices",
    "LLMInferenceService",
);
/// The variant autoscalings of the Workload Variant Autoscaler.
pub const VARIANT_AUTOSCALINGS: Kind =
    Kind::namespaced("llmd.ai", "v1alpha1", "variantautoscalings", "VariantAutoscaling");
/// Inference pools of the Gateway API Inference Extension.
pub const INFERENCE_POOLS: Kind =
    Kind::namespaced("inference.networking.k8s.io", "v1", "inferencepools", "InferencePool");
/// Inference pools before their first stable version.
pub const INFERENCE_POOLS_V1ALPHA2: Kind = Kind::namespaced(
    "inference.networking.x-k8s.io",
    "v1alpha2",
    "inferencepools",
    "InferencePool",
);
/// Endpoint slices.
pub const ENDPOINT_SLICES: Kind =
    Kind::namespaced("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice");
/// Registrations of aggregated APIs, which belong to no namespace.
pub const API_SERVICES: Kind = Kind {
    group: "apiregistration.k8s.io",
    version: "v1",
    plural: "apiservices",
    kind: "APIService",
    namespaced: false,
};

/// Namespaces. A [`Cluster`](super::Cluster) does not serve them from its start: every namespace has objects without being one.
pub const NAMESPACES: Kind =
    Kind { group: "", version: "v1", plural: "namespaces", kind: "Namespace", namespaced: false };

/// Every kind above, except namespaces. A [`Cluster`](super::Cluster) serves them from its start.
pub const ALL: [Kind; 14] = [
    PODS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    STATEFUL_SETS,
    REPLICA_SETS,
    HORIZONTAL_POD_AUTOSCALERS,
    SCALED_OBJECTS,
    LEADER_WORKER_SETS,
    LLM_INFERENCE_SERVICES,
    VARIANT_AUTOSCALINGS,
    INFERENCE_POOLS,
    INFERENCE_POOLS_V1ALPHA2,
    ENDPOINT_SLICES,
    API_SERVICES,
];
