// SPDX-License-Identifier: Apache-2.0
//! TLS as configured: the trusted authorities, the expected name, and the client certificate. Files are read again when
//! they change.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::certificates::{accept_listed, explain_refusal, unusable};
use crate::error::{ConfigError, Section};
use crate::files::{NamedFile, Stamp};

/// The settings of TLS; the fields are the keys of a section.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// The section of the keys.
    pub section: Section,
    /// The server, for log lines: a URL without credentials, or a kind of server.
    pub server: String,
    /// Certificates (PEM) of the trusted authorities; `None`: those of the operating system.
    pub ca_cert_path: Option<PathBuf>,
    /// The client's certificate chain (PEM). Without `client_key_path` it is not used.
    pub client_cert_path: Option<PathBuf>,
    /// The private key (PEM) of that certificate.
    pub client_key_path: Option<PathBuf>,
    /// The name that the server's certificate must hold; `None`: the host of the URL.
    pub server_name: Option<String>,
    /// Accepts any certificate.
    pub tls_insecure_skip_verify: bool,
}

impl TlsSettings {
    /// Settings without any file: the authorities of the operating system are trusted.
    pub fn new(section: Section, server: impl Into<String>) -> Self {
        Self {
            section,
            server: server.into(),
            ca_cert_path: None,
            client_cert_path: None,
            client_key_path: None,
            server_name: None,
            tls_insecure_skip_verify: false,
        }
    }
}

/// The client's side of TLS.
pub struct Tls {
    /// For the client of the backend.
    pub config: ClientConfig,
    identity: Arc<Identity>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// A file that cannot be read or used, an invalid name, or no trusted authorities.
    pub fn new(config: &TlsSettings) -> Result<Self, ConfigError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server_name = config
            .server_name
            .as_ref()
            .map(|name| ServerName::try_from(name.clone()))
            .transpose()
            .map_err(|error| {
                config
                    .section
                    .error("server_name", "it is neither a DNS name nor an IP address")
                    .with_source(error)
            })?;
        let verifier = Verifier {
            trust: Trust::from_config(config, &provider)?,
            server_name,
            provider: Arc::clone(&provider),
        };
        let identity = Arc::new(Identity::from_config(config, &provider)?);
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                config
                    .section
                    .error("ca_cert_path", format!("TLS cannot be set up: {error}"))
                    .with_source(error)
            })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::clone(&identity) as Arc<dyn ResolvesClientCert>);
        // A resumed session keeps the certificate it began with; after a rotation the next
        // connection must show the new one.
        tls.resumption = Resumption::disabled();
        Ok(Self { config: tls, identity })
    }

    /// Whether a server has asked for a client certificate since the last call.
    pub fn take_client_cert_demanded(&self) -> bool {
        self.identity.demanded.swap(false, Ordering::Relaxed)
    }
}

/// Makes a value from files.
type Make<T> =
    dyn Fn(&[NamedFile], &Arc<CryptoProvider>) -> Result<Arc<T>, ConfigError> + Send + Sync;

/// A value made from files, and made again when one of them changes.
pub(crate) struct Reloaded<T> {
    files: Vec<NamedFile>,
    make: Box<Make<T>>,
    provider: Arc<CryptoProvider>,
    current: Mutex<(Vec<Option<Stamp>>, Arc<T>)>,
}

impl<T> Reloaded<T> {
    pub(crate) fn new(
        files: Vec<NamedFile>,
        provider: &Arc<CryptoProvider>,
        make: impl Fn(&[NamedFile], &Arc<CryptoProvider>) -> Result<Arc<T>, ConfigError>
        + Send
        + Sync
        + 'static,
    ) -> Result<Self, ConfigError> {
        let stamps = files.iter().map(NamedFile::stamp).collect();
        let value = make(&files, provider)?;
        Ok(Self {
            files,
            make: Box::new(make),
            provider: Arc::clone(provider),
            current: Mutex::new((stamps, value)),
        })
    }

    /// Returns the value of the current files, or of the last ones that were valid.
    pub(crate) fn get(&self) -> Arc<T> {
        let stamps: Vec<_> = self.files.iter().map(NamedFile::stamp).collect();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if stamps != current.0 {
            match (self.make)(&self.files, &self.provider) {
                Ok(value) => current.1 = value,
                Err(error) => {
                    tracing::warn!(%error, "A TLS file changed and cannot be used; its last content is kept");
                }
            }
            // Also after an error, so that it is logged once; a repaired file has another stamp.
            current.0 = stamps;
        }
        Arc::clone(&current.1)
    }
}

/// The certificates that are trusted.
enum Trust {
    /// Those signed by the authorities in a file, and those in the file itself.
    File(Reloaded<Listed>),
    /// Those that the operating system trusts.
    System(Arc<dyn ServerCertVerifier>),
    /// All.
    Anyone,
}

/// The certificates of a file.
struct Listed {
    certificates: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl Trust {
    fn from_config(
        config: &TlsSettings,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, ConfigError> {
        if config.tls_insecure_skip_verify {
            tracing::warn!(
                url = config.server,
                "TLS certificates are NOT verified ({}): whoever sits between can read the token \
                 and make up metrics",
                config.section.key("tls_insecure_skip_verify")
            );
            return Ok(Self::Anyone);
        }
        if let Some(path) = &config.ca_cert_path {
            let file = NamedFile::new(config.section, "ca_cert_path", path);
            return Ok(Self::File(Reloaded::new(vec![file], provider, authorities)?));
        }
        rustls_platform_verifier::Verifier::new(Arc::clone(provider))
            .map(|system| Self::System(Arc::new(system)))
            .map_err(|error| {
                let variable = match config.section.variable("ca_cert_path") {
                    Some(variable) => format!(" ({variable})"),
                    None => String::new(),
                };
                let problem = format!(
                    "not set, and this system has no certificates of authorities that could be used \
                     ({error}); set it{variable}"
                );
                config.section.error("ca_cert_path", problem)
                .with_source(error)
            })
    }
}

fn authorities(
    files: &[NamedFile],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<Listed>, ConfigError> {
    let [file] = files else { unreachable!("made from one file") };
    let mut roots = RootCertStore::empty();
    let certificates = certificates(file)?;
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| {
            file.problem(&format!("holds a certificate that {}", unusable(&error)))
                .with_source(error)
        })?;
    }
    let authorities =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| {
                file.problem(&format!("cannot be used: {error}")).with_source(error)
            })?;
    Ok(Arc::new(Listed { certificates, authorities }))
}

pub(crate) fn certificates(file: &NamedFile) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let pem = file.read()?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| file.problem("is not well-formed PEM").with_source(error))?;
    if certificates.is_empty() {
        return Err(file.problem("holds no PEM certificate (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(certificates)
}

/// Verifies the server's certificate, for the configured name if there is one.
struct Verifier {
    trust: Trust,
    server_name: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let name = self.server_name.as_ref().unwrap_or(server_name);
        let verify = |trust: &dyn ServerCertVerifier| {
            trust.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
        };
        let verified = match &self.trust {
            Trust::File(file) => {
                let listed = file.get();
                verify(&*listed.authorities).or_else(|error| {
                    if listed.certificates.contains(end_entity) {
                        accept_listed(error, end_entity, name)
                    } else {
                        Err(error)
                    }
                })
            }
            Trust::System(system) => verify(&**system),
            Trust::Anyone => return Ok(ServerCertVerified::assertion()),
        };
        verified.map_err(|error| explain_refusal(error, end_entity, now, &self.provider))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The client's certificate, if it has one; records whether a server demanded it.
struct Identity {
    pair: Option<Reloaded<CertifiedKey>>,
    demanded: AtomicBool,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    fn from_config(
        config: &TlsSettings,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, ConfigError> {
        let pair = match (&config.client_cert_path, &config.client_key_path) {
            (Some(cert), Some(key)) => {
                let files = vec![
                    NamedFile::new(config.section, "client_cert_path", cert),
                    NamedFile::new(config.section, "client_key_path", key),
                ];
                Some(Reloaded::new(files, provider, certified_key)?)
            }
            // One without the other was refused when the settings were checked.
            _ => None,
        };
        Ok(Self { pair, demanded: AtomicBool::new(false) })
    }
}

pub(crate) fn certified_key(
    files: &[NamedFile],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<CertifiedKey>, ConfigError> {
    let [cert_file, key_file] = files else { unreachable!("made from two files") };
    let chain = certificates(cert_file)?;
    // The parser's own message could show a part of the key.
    let key = PrivateKeyDer::from_pem_slice(&key_file.read()?)
        .map_err(|_| key_file.problem("holds no PEM private key (-----BEGIN PRIVATE KEY-----)"))?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| key_file.problem("holds a private key of a kind that cannot be used"))?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(Arc::new(pair))
        }
        Err(rustls::Error::InconsistentKeys(_)) => Err(key_file.problem(&format!(
            "is not the key of the certificate in {} ({})",
            cert_file.path.display(),
            cert_file.section.key(cert_file.key)
        ))),
        Err(error) => Err(cert_file
            .problem(&format!("holds a certificate that {}", unusable(&error)))
            .with_source(error)),
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.demanded.store(true, Ordering::Relaxed);
        self.pair.as_ref().map(Reloaded::get)
    }

    fn has_certs(&self) -> bool {
        self.pair.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    fn settings() -> TlsSettings {
        let section = Section { name: "prometheus", variables: Some("PROMETHEUS") };
        TlsSettings::new(section, "https://h")
    }

    fn pair() -> (String, String) {
        let pair = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    }

    #[track_caller]
    fn refused(config: &TlsSettings, parts: &[&str]) {
        let text = Tls::new(config).err().unwrap().to_string();
        for part in parts {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        assert!(!text.contains("BEGIN EC") && !text.contains("MIG"), "{text}");
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_their_key() {
        let folder = Folder(tempfile::tempdir().unwrap());
        let (cert, key) = pair();
        let (_, other_key) = pair();
        let cert = folder.write("cert.pem", &cert);
        let other = folder.write("other.pem", &other_key);
        let garbage = folder.write("garbage.pem", "hunter2");
        let broken = folder.write("broken.pem", "-----BEGIN CERTIFICATE-----\n!!\n");
        let base = settings();
        let with_ca =
            |path: &PathBuf| TlsSettings { ca_cert_path: Some(path.clone()), ..base.clone() };
        refused(
            &with_ca(&PathBuf::from("/does/not/exist")),
            &["prometheus.ca_cert_path", "/does/not/exist", "cannot be read"],
        );
        refused(&with_ca(&garbage), &["garbage.pem", "no PEM certificate"]);
        refused(&with_ca(&broken), &["broken.pem"]);
        let empty = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let empty = folder.write("empty.pem", empty);
        refused(&with_ca(&empty), &["empty.pem holds a certificate that is not well-formed"]);
        let with_pair = |cert: &PathBuf, key: &PathBuf| TlsSettings {
            client_cert_path: Some(cert.clone()),
            client_key_path: Some(key.clone()),
            ..with_ca(cert)
        };
        refused(
            &with_pair(&cert, &other),
            &["prometheus.client_key_path", "other.pem", "not the key of"],
        );
        refused(&with_pair(&cert, &garbage), &["prometheus.client_key_path", "no PEM private key"]);
        let key = folder.write("key.pem", &key);
        assert!(Tls::new(&with_pair(&cert, &key)).is_ok());
    }

    #[test]
    fn a_replaced_client_certificate_is_shown_to_the_next_server() {
        let folder = Folder(tempfile::tempdir().unwrap());
        let (cert, key) = pair();
        let config = TlsSettings {
            client_cert_path: Some(folder.write("cert.pem", &cert)),
            client_key_path: Some(folder.write("key.pem", &key)),
            tls_insecure_skip_verify: true,
            ..settings()
        };
        let tls = Tls::new(&config).unwrap();
        let shown = || tls.identity.resolve(&[], &[]).unwrap().cert[0].clone();
        let first = shown();
        assert_eq!(first, shown());
        // Half of a rotation: the pair does not match, and the old one is kept.
        let (cert, key) = pair();
        folder.write("cert.pem", &format!("{cert}\n"));
        assert_eq!(first, shown());
        folder.write("key.pem", &format!("{key}\n"));
        assert_ne!(first, shown());
        assert!(tls.take_client_cert_demanded());
        assert!(!tls.take_client_cert_demanded());
    }
}
