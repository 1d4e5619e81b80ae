// SPDX-License-Identifier: Apache-2.0
//! The sockets of our own servers and their TLS, as configured.

use std::net::SocketAddr;
use std::sync::Arc;

use collector_config::{ExternalMetricsConfig, KedaConfig, ServerConfig};
use collector_transport::Section;
use collector_transport::server::{Listener, ServerTls, ServerTlsSettings};
use tokio::net::TcpListener;

use crate::exit::Failure;

/// Listens on the address that a key has.
pub(crate) async fn listen(
    address: SocketAddr,
    key: &str,
    tls: Option<&ServerTlsSettings>,
) -> Result<Listener, Failure> {
    let tls = tls.map(load_tls).transpose()?;
    let socket = TcpListener::bind(address).await.map_err(|error| {
        Failure::other(format!(
            "cannot listen on {address}: {error}; choose another address with {key}"
        ))
    })?;
    Ok(Listener { socket, tls, read_timeout: None })
}

/// Where it listens: a port that is configured as 0 is another one.
pub(crate) fn address_of(listener: &Listener) -> Result<SocketAddr, Failure> {
    let address = listener.socket.local_addr();
    address.map_err(|error| Failure::other(format!("the listening socket is gone: {error}")))
}

/// The server's side of TLS with these files.
pub(crate) fn load_tls(settings: &ServerTlsSettings) -> Result<Arc<ServerTls>, Failure> {
    let tls = ServerTls::new(settings).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Arc::new(tls))
}

/// TLS of the HTTP API; `None` without a certificate. The configuration has made sure that it has a key.
pub(crate) fn api_tls(server: &ServerConfig) -> Option<ServerTlsSettings> {
    Some(ServerTlsSettings {
        section: Section { name: "server", variables: None },
        cert_path: server.tls_cert_path.clone()?,
        key_path: server.tls_key_path.clone()?,
        client_ca_path: server.tls_client_ca_path.clone(),
        asks_clients: false,
        protocols: &[],
    })
}

/// The same of the external scaler. KEDA insists on HTTP/2.
pub(crate) fn keda_tls(keda: &KedaConfig) -> Option<ServerTlsSettings> {
    Some(ServerTlsSettings {
        section: Section { name: "keda", variables: None },
        cert_path: keda.tls_cert_path.clone()?,
        key_path: keda.tls_key_path.clone()?,
        client_ca_path: keda.tls_client_ca_path.clone(),
        asks_clients: false,
        protocols: &[b"h2"],
    })
}

/// The same of the External Metrics API, whose clients are verified by what the cluster says at the time.
pub(crate) fn external_metrics_tls(config: &ExternalMetricsConfig) -> Option<ServerTlsSettings> {
    Some(ServerTlsSettings {
        section: Section { name: "external_metrics", variables: None },
        cert_path: config.tls_cert_path.clone()?,
        key_path: config.tls_key_path.clone()?,
        client_ca_path: None,
        asks_clients: true,
        protocols: &[b"http/1.1"],
    })
}
