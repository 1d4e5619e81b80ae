// SPDX-License-Identifier: Apache-2.0
//! TLS of our own servers, as configured.

use std::path::PathBuf;
use std::sync::Arc;

use collector_config::{ExternalMetricsConfig, KedaConfig, ServerConfig};
use collector_transport::Section;
use collector_transport::server::{ServerTls, ServerTlsSettings};

use crate::exit::Failure;

/// The files of a section's keys.
pub(crate) struct TlsFiles<'a> {
    pub(crate) section: &'static str,
    pub(crate) cert_path: Option<&'a PathBuf>,
    pub(crate) key_path: Option<&'a PathBuf>,
    pub(crate) client_ca_path: Option<&'a PathBuf>,
    /// Whether clients are asked for a certificate that is verified with each request.
    pub(crate) asks_clients: bool,
    /// What clients may speak (ALPN); empty: they are not asked.
    pub(crate) protocols: &'static [&'static [u8]],
}

/// The server's side of TLS with these files; `None` without any.
pub(crate) fn load_tls(files: &TlsFiles<'_>) -> Result<Option<Arc<ServerTls>>, Failure> {
    // The configuration has made sure that there are both or neither.
    let (Some(cert_path), Some(key_path)) = (files.cert_path, files.key_path) else {
        return Ok(None);
    };
    let settings = ServerTlsSettings {
        section: Section { name: files.section, variables: None },
        cert_path: cert_path.clone(),
        key_path: key_path.clone(),
        client_ca_path: files.client_ca_path.cloned(),
        asks_clients: files.asks_clients,
        protocols: files.protocols,
    };
    match ServerTls::new(&settings) {
        Ok(tls) => Ok(Some(Arc::new(tls))),
        Err(error) => Err(Failure::usage(error.to_string())),
    }
}

/// The files of the HTTP API.
pub(crate) fn api_tls(server: &ServerConfig) -> TlsFiles<'_> {
    TlsFiles {
        section: "server",
        cert_path: server.tls_cert_path.as_ref(),
        key_path: server.tls_key_path.as_ref(),
        client_ca_path: server.tls_client_ca_path.as_ref(),
        asks_clients: false,
        protocols: &[],
    }
}

/// The files of the external scaler. KEDA insists on HTTP/2.
pub(crate) fn keda_tls(keda: &KedaConfig) -> TlsFiles<'_> {
    TlsFiles {
        section: "keda",
        cert_path: keda.tls_cert_path.as_ref(),
        key_path: keda.tls_key_path.as_ref(),
        client_ca_path: keda.tls_client_ca_path.as_ref(),
        asks_clients: false,
        protocols: &[b"h2"],
    }
}

/// The files of the External Metrics API, whose clients are verified by what the cluster says at the time.
pub(crate) fn external_metrics_tls(config: &ExternalMetricsConfig) -> TlsFiles<'_> {
    TlsFiles {
        section: "external_metrics",
        cert_path: config.tls_cert_path.as_ref(),
        key_path: config.tls_key_path.as_ref(),
        client_ca_path: None,
        asks_clients: true,
        protocols: &[b"http/1.1"],
    }
}
