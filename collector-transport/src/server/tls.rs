// SPDX-License-Identifier: Apache-2.0
//! TLS of our own servers.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::certificates::unusable;
use crate::error::{ConfigError, Section};
use crate::files::NamedFile;
use crate::tls::{Reloaded, certificates, certified_key};

/// The TLS settings of a server; the paths are the keys `tls_cert_path`, `tls_key_path` and `tls_client_ca_path` of a
/// section.
#[derive(Clone, Debug)]
pub struct ServerTlsSettings {
    /// The section of the keys.
    pub section: Section,
    /// The certificate chain (PEM).
    pub cert_path: PathBuf,
    /// The certificate's private key (PEM).
    pub key_path: PathBuf,
    /// Certificates (PEM) of the authorities that sign clients' certificates. `None`: clients need no certificate.
    pub client_ca_path: Option<PathBuf>,
    /// The protocols that are offered to clients (ALPN), in order of preference; empty: clients are not asked.
    pub protocols: &'static [&'static [u8]],
}

/// The server's side of TLS. When a file changes, new connections use its new content.
pub struct ServerTls(Reloaded<ServerConfig>);

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// A file that cannot be read or used.
    pub fn new(settings: &ServerTlsSettings) -> Result<Self, ConfigError> {
        let file = |key, path: &PathBuf| NamedFile::new(settings.section, key, path);
        let mut files = vec![
            file("tls_cert_path", &settings.cert_path),
            file("tls_key_path", &settings.key_path),
        ];
        files.extend(settings.client_ca_path.as_ref().map(|path| file("tls_client_ca_path", path)));
        let protocols = settings.protocols;
        let make = move |files: &[NamedFile], provider: &Arc<CryptoProvider>| {
            config(files, provider, protocols)
        };
        Ok(Self(Reloaded::new(files, &Arc::new(ring::default_provider()), make)?))
    }

    /// Returns an acceptor with the files' current content, or with the last one that could be used.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.get())
    }
}

fn config(
    files: &[NamedFile],
    provider: &Arc<CryptoProvider>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, ConfigError> {
    let (pair, client_ca) = files.split_at(2);
    let identity = certified_key(pair, provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| pair[0].problem(&format!("cannot be used: {error}")).with_source(error))?;
    let builder = match client_ca {
        [] => builder.with_no_client_auth(),
        [file, ..] => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| {
                    file.problem(&format!("holds a certificate that {}", unusable(&error)))
                        .with_source(error)
                })?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            builder.with_client_cert_verifier(verifier.build().map_err(|error| {
                file.problem(&format!("cannot be used: {error}")).with_source(error)
            })?)
        }
    };
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(identity));
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}
