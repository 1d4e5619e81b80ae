// SPDX-License-Identifier: Apache-2.0
//! TLS: the client's certificate, and files that change while the server runs.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use collector_keda::Settings;
use collector_transport::Section;
use collector_transport::server::{ServerTls, ServerTlsSettings};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;

use crate::fixture::{Client, Fixture, trigger};

/// A certificate with its key, PEM.
struct Pair {
    cert: String,
    key: String,
}

/// An authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pair(&self) -> Pair {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

struct Files(TempDir);

impl Files {
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        // As Kubernetes does: a new file in the place of the old one.
        let new = self.0.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, &path).unwrap();
        path
    }

    fn settings(&self, server: &Pair, clients: Option<&Authority>) -> ServerTlsSettings {
        ServerTlsSettings {
            section: Section { name: "keda", variables: None },
            cert_path: self.write("cert.pem", &server.cert),
            key_path: self.write("key.pem", &server.key),
            client_ca_path: clients.map(|it| self.write("ca.pem", &it.pem())),
            asks_clients: false,
            protocols: &[b"h2"],
        }
    }
}

/// Connects as grpc-go does, which insists on `h2`.
async fn connect(
    fixture: &Fixture,
    trusted: &Authority,
    identity: Option<&Pair>,
) -> Result<Client, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Pair { cert, key }) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let address = fixture.address;
    let connect = tower::service_fn(move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").unwrap();
            let stream = connector.connect(name, stream).await?;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            std::io::Result::Ok(TokioIo::new(stream))
        }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connect).await;
    let client = Client(channel.map_err(|error| format!("{error:?}"))?);
    // In TLS 1.3 the client learns with its first read that its certificate was refused.
    let active = client.is_active(trigger(&[])).await;
    match active {
        Err(status) if status.code() == tonic::Code::NotFound => Ok(client),
        other => Err(format!("{other:?}")),
    }
}

async fn start(settings: &ServerTlsSettings) -> Fixture {
    let tls = Arc::new(ServerTls::new(settings).unwrap());
    Fixture::with(Some(tls), Settings::default()).await
}

#[tokio::test]
async fn a_certificate_that_is_replaced_is_shown_to_the_next_client() {
    let (old, new) = (Authority::new(), Authority::new());
    let files = Files(tempfile::tempdir().unwrap());
    let fixture = start(&files.settings(&old.pair(), None)).await;
    let connected = connect(&fixture, &old, None).await.unwrap();
    connect(&fixture, &new, None).await.unwrap_err();
    let pair = new.pair();
    // Half of a rotation: the old pair is kept.
    files.write("cert.pem", &pair.cert);
    connect(&fixture, &old, None).await.unwrap();
    files.write("key.pem", &pair.key);
    connect(&fixture, &new, None).await.unwrap();
    connect(&fixture, &old, None).await.unwrap_err();
    // Connections that are open go on.
    connected.spec(trigger(&[])).await;
}

#[tokio::test]
async fn with_a_client_authority_only_its_clients_are_served() {
    let (server, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let files = Files(tempfile::tempdir().unwrap());
    let fixture = start(&files.settings(&server.pair(), Some(&clients))).await;
    connect(&fixture, &server, None).await.unwrap_err();
    connect(&fixture, &server, Some(&others.pair())).await.unwrap_err();
    let pair = clients.pair();
    connect(&fixture, &server, Some(&pair)).await.unwrap();
    files.write("ca.pem", &others.pem());
    connect(&fixture, &server, Some(&pair)).await.unwrap_err();
    connect(&fixture, &server, Some(&others.pair())).await.unwrap();
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_their_key() {
    let files = Files(tempfile::tempdir().unwrap());
    let authority = Authority::new();
    let good = files.settings(&authority.pair(), Some(&authority));
    let garbage = files.write("garbage.pem", "hunter2");
    let missing = PathBuf::from("/nowhere/x.pem");
    let refused = |settings: ServerTlsSettings, key: &str| {
        let text = ServerTls::new(&settings).unwrap_err().to_string();
        assert!(text.starts_with(&format!("keda.{key}: ")), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    };
    for path in [&garbage, &missing] {
        let path = path.clone();
        refused(ServerTlsSettings { cert_path: path.clone(), ..good.clone() }, "tls_cert_path");
        refused(ServerTlsSettings { key_path: path.clone(), ..good.clone() }, "tls_key_path");
        let client_ca_path = Some(path);
        refused(ServerTlsSettings { client_ca_path, ..good.clone() }, "tls_client_ca_path");
    }
    ServerTls::new(&good).unwrap();
}

#[tokio::test]
async fn a_client_without_tls_is_not_served() {
    let authority = Authority::new();
    let files = Files(tempfile::tempdir().unwrap());
    let fixture = start(&files.settings(&authority.pair(), None)).await;
    let plain = Endpoint::from_shared(format!("http://{}", fixture.address)).unwrap();
    let served = match plain.connect().await {
        Ok(channel) => Client(channel).is_active(trigger(&[])).await.is_ok_and(|_| true),
        Err(_) => false,
    };
    assert!(!served);
}
