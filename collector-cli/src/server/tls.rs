//! TLS of our own server.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::exit::Failure;

/// An acceptor with the certificate chain and the key in these PEM files.
pub(crate) fn load_tls(cert_path: &Path, key_path: &Path) -> Result<TlsAcceptor, Failure> {
    let unreadable = |key: &str, path: &Path, error: &dyn std::fmt::Display| {
        Failure::usage(format!("{key}: cannot use {}: {error}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(cert_path)
        .and_then(Iterator::collect::<Result<Vec<_>, pem::Error>>)
        .map_err(|error| unreadable("server.tls_cert_path", cert_path, &error))?;
    let key = PrivateKeyDer::from_pem_file(key_path)
        .map_err(|error| unreadable("server.tls_key_path", key_path, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| unreadable("server.tls_cert_path", cert_path, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
