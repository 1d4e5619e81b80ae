// SPDX-License-Identifier: Apache-2.0
//! The section `[kubernetes]`: the cluster whose variants and pods are read.

use std::path::PathBuf;

use collector_core::Namespace;
use serde::Deserialize;

/// The name of the source in readings, logs and metrics, and of the section.
pub(crate) const NAME: &str = "kubernetes";

/// The cluster whose variants and pods are read.
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesConfig {
    /// Whether it is read. Default false.
    pub enabled: bool,
    /// The kubeconfig. Default `None`: the service account of the pod that the collector runs in.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Default `None`: its current one.
    pub context: Option<String>,
    /// The only namespaces that are read. Default all.
    pub namespaces: Vec<Namespace>,
}

#[cfg(feature = "kubernetes")]
impl KubernetesConfig {
    /// The same for a [`Cluster`](collector_kubernetes::Cluster), and for other clients of the API server.
    pub fn cluster(&self) -> collector_kubernetes::ClusterConfig {
        collector_kubernetes::ClusterConfig {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            namespaces: self.namespaces.clone(),
        }
    }
}
