// SPDX-License-Identifier: Apache-2.0
//! The section `[external_metrics]`: the External Metrics API of `serve`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

/// The External Metrics API of `serve`, which HPAs read through the API server of their cluster.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalMetricsConfig {
    /// Whether it is served. Default false: in a cluster with KEDA, KEDA serves this API.
    pub enabled: bool,
    /// Where it listens. Default 127.0.0.1:9466.
    pub listen: SocketAddr,
    /// The certificate chain, PEM.
    pub tls_cert_path: Option<PathBuf>,
    /// The certificate's private key, PEM.
    pub tls_key_path: Option<PathBuf>,
    /// The authorities of the API server's certificate as a client, PEM. Default `None`: the cluster says who they are.
    pub front_proxy_ca_path: Option<PathBuf>,
    /// The common names that this certificate may have. Default: any.
    pub front_proxy_names: Vec<String>,
}

impl Default for ExternalMetricsConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9466),
            tls_cert_path: None,
            tls_key_path: None,
            front_proxy_ca_path: None,
            front_proxy_names: Vec::new(),
        }
    }
}
