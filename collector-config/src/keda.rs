// SPDX-License-Identifier: Apache-2.0
//! The section `[keda]`: the external scaler of `serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// The upper bound of `wait`: KEDA sets no deadline, and a slow error can make it scale a running model to zero.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(1);

/// The external scaler of `serve`, which KEDA calls.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KedaConfig {
    /// Where it listens. Default `None`: it does not.
    pub listen: Option<SocketAddr>,
    /// How long a call waits for a reading that is not in memory. Default 500 ms.
    #[serde(with = "collector_core::duration")]
    pub wait: Duration,
    /// The certificate chain, PEM. With it the server speaks TLS.
    pub tls_cert_path: Option<PathBuf>,
    /// The certificate's private key, PEM.
    pub tls_key_path: Option<PathBuf>,
    /// The authorities of clients' certificates, PEM. With it a client needs a certificate.
    pub tls_client_ca_path: Option<PathBuf>,
}

impl Default for KedaConfig {
    fn default() -> Self {
        Self {
            listen: None,
            wait: Duration::from_millis(500),
            tls_cert_path: None,
            tls_key_path: None,
            tls_client_ca_path: None,
        }
    }
}
