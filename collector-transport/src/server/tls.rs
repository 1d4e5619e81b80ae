// SPDX-License-Identifier: Apache-2.0
//! TLS of our own servers.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
};
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
    /// Clients without `client_ca_path` are asked for a certificate, and need none. Whether theirs is trusted is for the
    /// caller to find out with each request ([`client_certificates`](super::client_certificates)).
    pub asks_clients: bool,
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
        let (protocols, asks_clients) = (settings.protocols, settings.asks_clients);
        let make = move |files: &[NamedFile], provider: &Arc<CryptoProvider>| {
            config(files, provider, protocols, asks_clients)
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
    asks_clients: bool,
) -> Result<Arc<ServerConfig>, ConfigError> {
    let (pair, client_ca) = files.split_at(2);
    let identity = certified_key(pair, provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| pair[0].problem(&format!("cannot be used: {error}")).with_source(error))?;
    let builder = match client_ca {
        [] if asks_clients => {
            builder.with_client_cert_verifier(Arc::new(AnyClient(Arc::clone(provider))))
        }
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

/// Takes a certificate of any authority, and none. A client proves that it has the key of the one that it shows.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
