// SPDX-License-Identifier: Apache-2.0
//! The External Metrics API of `serve`, which HPAs read through the API server of their cluster.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use collector_config::{CollectorConfig, Loaded, NamedBackend};
use collector_core::Clock;
use collector_engine::CachingCollector;
use collector_external_metrics::{
    AccessControl, AccessRequest, Decision, ExternalMetrics, FrontProxyConfig,
};
use collector_keda::Scaler;
use collector_kubernetes::{AccessQuestion, Cluster};
use collector_transport::server::Listener;
use collector_transport::{NamedFile, Section};
use tokio::task::spawn_blocking;

use super::scaler_door::{ScalerDoor, settings};
use super::tls::{address_of, external_metrics_tls, listen};
use crate::exit::Failure;

/// The External Metrics API, listening.
pub(crate) struct ExternalMetricsDoor {
    listener: Listener,
    scaler: Arc<Scaler>,
    api: Arc<ExternalMetrics>,
}

impl ScalerDoor for ExternalMetricsDoor {
    fn address(config: &CollectorConfig) -> Option<SocketAddr> {
        Some(config.external_metrics.listen).filter(|_| config.external_metrics.enabled)
    }

    fn is_fixed(key: &str, config: &CollectorConfig) -> bool {
        match key {
            // It keeps the cluster that it was opened with.
            "kubernetes.context" | "kubernetes.kubeconfig" => asks_cluster(config),
            "kubernetes.enabled" => config.external_metrics.front_proxy_ca_path.is_some(),
            key => {
                key.starts_with("external_metrics.tls_")
                    || key.starts_with("external_metrics.front_proxy_")
            }
        }
    }

    async fn listen(
        loaded: &Loaded,
        backends: &[NamedBackend],
        collector: Arc<CachingCollector>,
        clock: Arc<dyn Clock>,
        address: SocketAddr,
    ) -> Result<Self, Failure> {
        let access = Arc::new(Access::new(loaded, backends, &clock)?);
        let tls = external_metrics_tls(&loaded.config.external_metrics);
        let listener = listen(address, "external_metrics.listen", tls.as_ref()).await?;
        let scaler = Arc::new(Scaler::new(collector, Arc::clone(&clock), settings(loaded)?));
        let api = Arc::new(ExternalMetrics::new(Arc::clone(&scaler), clock, access));
        Ok(Self { listener, scaler, api })
    }

    fn scaler(&self) -> Arc<Scaler> {
        Arc::clone(&self.scaler)
    }

    fn announce(&self, loaded: &Loaded) -> Result<SocketAddr, Failure> {
        let address = address_of(&self.listener)?;
        tracing::info!("The External Metrics API listens on https://{address}");
        if !asks_cluster(&loaded.config) {
            tracing::warn!(
                "Every user of the API server can read External Metrics: with external_metrics.front_proxy_ca_path and \
                 without kubernetes.enabled, no cluster is asked what a user may read"
            );
        }
        Ok(address)
    }

    async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) {
        collector_external_metrics::serve(self.listener, self.api, stop).await;
    }
}

/// Whether a cluster says what users may read.
fn asks_cluster(config: &CollectorConfig) -> bool {
    config.external_metrics.front_proxy_ca_path.is_none() || config.kubernetes.enabled
}

/// Who may read, as the cluster says; where files are configured, as they say.
struct Access {
    cluster: Option<Cluster>,
    /// The front proxy's authorities, and its names.
    file: Option<(NamedFile, Vec<String>)>,
}

impl Access {
    fn new(
        loaded: &Loaded,
        backends: &[NamedBackend],
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        let config = &loaded.config.external_metrics;
        let usage = |error: &dyn std::error::Error| Failure::usage(error.to_string());
        let file = match &config.front_proxy_ca_path {
            None => None,
            Some(path) => {
                let section = Section { name: "external_metrics", variables: None };
                let file = NamedFile::new(section, "front_proxy_ca_path", path);
                file.read().map_err(|error| usage(&error))?;
                Some((file, config.front_proxy_names.clone()))
            }
        };
        // One connection for what is watched and for what is asked here.
        let cluster = match CollectorConfig::cluster_of(backends) {
            _ if !asks_cluster(&loaded.config) => None,
            Some(cluster) => Some(cluster),
            None => {
                let config = loaded.config.kubernetes.cluster();
                Some(Cluster::new(config, Arc::clone(clock)).map_err(|error| usage(&error))?)
            }
        };
        Ok(Self { cluster, file })
    }
}

#[async_trait]
impl AccessControl for Access {
    async fn front_proxy(&self) -> Result<FrontProxyConfig, String> {
        if let Some((file, names)) = &self.file {
            let file = file.clone();
            let read = spawn_blocking(move || file.read()).await;
            let authorities = read.map_err(|_| "reading it panicked".to_owned())?;
            let mut config = FrontProxyConfig::new(authorities.map_err(|error| error.to_string())?);
            config.allowed_names.clone_from(names);
            return Ok(config);
        }
        let Some(cluster) = &self.cluster else {
            return Err("no cluster is asked; set external_metrics.front_proxy_ca_path".to_owned());
        };
        let headers = cluster.request_headers().await?;
        let mut config = FrontProxyConfig::new(headers.client_ca.into_bytes());
        config.allowed_names = headers.allowed_names;
        config.username_headers = headers.username_headers;
        config.uid_headers = headers.uid_headers;
        config.group_headers = headers.group_headers;
        config.extra_header_prefixes = headers.extra_header_prefixes;
        Ok(config)
    }

    async fn review(&self, access: &AccessRequest) -> Result<Decision, String> {
        let Some(cluster) = &self.cluster else {
            return Ok(Decision { is_allowed: true, reason: String::new() });
        };
        let AccessRequest { user, namespace, metric } = access;
        let question = AccessQuestion {
            user: &user.name,
            uid: &user.uid,
            groups: &user.groups,
            extra: &user.extra,
            // What the API server itself makes of the path, which has no name of an object.
            verb: "list",
            group: "external.metrics.k8s.io",
            version: "v1beta1",
            resource: metric,
            namespace,
        };
        let answer = cluster.review_access(&question).await?;
        Ok(Decision { is_allowed: answer.is_allowed, reason: answer.reason })
    }
}
