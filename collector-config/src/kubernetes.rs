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
    /// What tells direct scraping which pods there are. Default `None`: InferencePools, unless `[scrape]` names targets.
    pub scrape: Option<ScrapeFrom>,
    /// The labels of the Services whose EndpointSlices tell it.
    pub scrape_selector: Option<String>,
}

/// What tells direct scraping which pods there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScrapeFrom {
    /// InferencePools, with their Endpoint Pickers.
    Pools,
    /// EndpointSlices of some Services.
    EndpointSlices,
    /// Nothing of the cluster.
    Off,
}

#[cfg(feature = "epp")]
impl KubernetesConfig {
    /// Whether direct scraping has its targets from the cluster, where its own section names some or none.
    pub(crate) fn finds_targets(&self, names_targets: bool) -> bool {
        self.enabled
            && match self.scrape {
                None => !names_targets,
                Some(from) => from != ScrapeFrom::Off,
            }
    }
}

#[cfg(feature = "kubernetes")]
impl KubernetesConfig {
    /// The same for a [`Cluster`](collector_kubernetes::Cluster), and for other clients of the API server.
    pub fn cluster(&self) -> collector_kubernetes::ClusterConfig {
        collector_kubernetes::ClusterConfig {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            namespaces: self.namespaces.clone(),
            pages: None,
        }
    }

    /// What tells which pods have pages to scrape.
    ///
    /// # Errors
    /// A selector that is missing or cannot be read, with its key.
    pub(crate) fn page_source(&self) -> Result<collector_kubernetes::PageSource, String> {
        use collector_kubernetes::{PageSource, Selector};
        match (self.scrape, self.scrape_selector.as_deref()) {
            (Some(ScrapeFrom::EndpointSlices), Some(selector)) => {
                let selector = Selector::parse(selector);
                let selector = selector.map_err(|problem| format!("kubernetes.scrape_selector: {problem}"));
                selector.map(PageSource::EndpointSlices)
            }
            (Some(ScrapeFrom::EndpointSlices), None) => Err(
                "kubernetes.scrape_selector: not set: name the labels of the Services whose pods are scraped, as app=vllm"
                    .to_owned(),
            ),
            (_, Some(_)) => Err(
                "kubernetes.scrape_selector: it is for kubernetes.scrape = \"endpoint_slices\" alone; pools have their own selectors"
                    .to_owned(),
            ),
            (_, None) => Ok(PageSource::Pools),
        }
    }
}
