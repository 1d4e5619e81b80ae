// SPDX-License-Identifier: Apache-2.0
//! Real TLS: which certificates are trusted, and which one is sent.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use collector_core::{Ask, Backend, BackendError, ErrorKind, SystemClock};
use collector_prometheus::{PrometheusBackend, PrometheusConfig};
use collector_testkit::certificates::{Authority, Pair};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::fake::{m, vector_text};

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// The client certificate of each connection.
    shown: Arc<Mutex<Vec<Option<CertificateDer<'static>>>>>,
}

/// Answers every request with an empty vector. `clients`: the authority of required client certificates.
pub(crate) async fn serve(pair: &Pair, clients: Option<&Authority>) -> Server {
    let acceptor = TlsAcceptor::from(pair.server(clients));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shown = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&shown);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let certificate = stream.get_ref().1.peer_certificates().map(|c| c[0].clone());
                seen.lock().unwrap().push(certificate.map(CertificateDer::into_owned));
                let mut request = [0; 16_384];
                let _ = stream.read(&mut request).await;
                // Closed after each answer, so that the next request shakes hands again.
                let body = vector_text(&[]);
                let head = format!(
                    "HTTP/1.1 200 OK\r\nDate: Thu, 21 Nov 2024 00:00:00 GMT\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(body.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    Server { address, shown }
}

struct Client {
    config: PrometheusConfig,
    folder: tempfile::TempDir,
}

impl Client {
    fn of(server: &Server) -> Self {
        Self {
            config: PrometheusConfig {
                url: format!("https://{}", server.address),
                timeout: Duration::from_secs(20),
                ..PrometheusConfig::default()
            },
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn trusting(mut self, authority: &Authority) -> Self {
        self.config.ca_cert_path = Some(self.file("ca.pem", &authority.pem()));
        self
    }

    fn showing(mut self, pair: &Pair) -> Self {
        self.config.client_cert_path = Some(self.file("cert.pem", &pair.cert));
        self.config.client_key_path = Some(self.file("key.pem", &pair.key));
        self
    }

    fn backend(&self) -> PrometheusBackend {
        PrometheusBackend::new(self.config.clone(), Arc::new(SystemClock::new())).unwrap()
    }

    async fn refused(&self, parts: &[&str]) {
        let error = fetch_all(&self.backend()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "{error} lacks {part:?}");
        }
    }

    async fn accepted(&self) {
        fetch_all(&self.backend()).await.unwrap();
    }
}

async fn fetch_all(backend: &PrometheusBackend) -> Result<(), BackendError> {
    let (models, per_pod) = ([m()], std::collections::HashSet::new());
    backend
        .fetch(Ask::new(&models, &SystemClock::new()).with_load_per_pod(&per_pod))
        .await
        .map(drop)
}

#[tokio::test]
async fn only_the_authority_in_the_file_is_trusted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = serve(&authority.sign("127.0.0.1"), None).await;
    Client::of(&server).trusting(&authority).accepted().await;
    Client::of(&server).trusting(&other).refused(&["authority", "prometheus.ca_cert_path"]).await;
    Client::of(&server)
        .refused(&["self-signed or signed by an authority", "PROMETHEUS_CA_CERT_PATH"])
        .await;
    let mut careless = Client::of(&server);
    careless.config.tls_insecure_skip_verify = true;
    careless.accepted().await;
}

#[tokio::test]
async fn an_expired_certificate_is_called_expired() {
    let authority = Authority::new();
    let server = serve(&authority.sign_until("127.0.0.1", 2021), None).await;
    Client::of(&server).trusting(&authority).refused(&["expired"]).await;
}

#[tokio::test]
async fn a_wrong_server_name_is_reported_with_both_names_and_can_be_set() {
    let authority = Authority::new();
    let server = serve(&authority.sign("prometheus.monitoring"), None).await;
    let mut client = Client::of(&server).trusting(&authority);
    client.refused(&["prometheus.monitoring", "127.0.0.1", "PROMETHEUS_SERVER_NAME"]).await;
    client.config.server_name = Some("thanos.monitoring".into());
    client.refused(&["prometheus.monitoring", "thanos.monitoring"]).await;
    client.config.server_name = Some("prometheus.monitoring".into());
    client.accepted().await;
}

#[tokio::test]
async fn a_required_client_certificate_is_requested_and_then_sent() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = serve(&authority.sign("127.0.0.1"), Some(&clients)).await;
    Client::of(&server)
        .trusting(&authority)
        .refused(&[
            "client certificate",
            "prometheus.client_cert_path",
            "PROMETHEUS_CLIENT_KEY_PATH",
        ])
        .await;
    let stranger = authority.sign("client");
    Client::of(&server)
        .trusting(&authority)
        .showing(&stranger)
        .refused(&["prometheus.client_cert_path"])
        .await;
    Client::of(&server).trusting(&authority).showing(&clients.sign("client")).accepted().await;
}

#[tokio::test]
async fn a_replaced_client_certificate_is_sent_at_the_next_connection() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = serve(&authority.sign("127.0.0.1"), Some(&clients)).await;
    let client = Client::of(&server).trusting(&authority).showing(&clients.sign("one"));
    let backend = client.backend();
    fetch_all(&backend).await.unwrap();
    let other = clients.sign("another name");
    client.file("cert.pem", &other.cert);
    client.file("key.pem", &other.key);
    fetch_all(&backend).await.unwrap();
    let shown = server.shown.lock().unwrap();
    assert!(shown.iter().all(Option::is_some));
    assert_ne!(shown.first(), shown.last());
    assert_eq!(shown.last().unwrap().as_ref(), Some(&other.der()));
}

#[tokio::test]
async fn a_replaced_authority_is_trusted_at_the_next_connection() {
    let (first, second) = (Authority::new(), Authority::new());
    let server = serve(&second.sign("127.0.0.1"), None).await;
    let client = Client::of(&server).trusting(&first);
    let backend = client.backend();
    assert!(fetch_all(&backend).await.is_err());
    client.file("ca.pem", &format!("{}\n", second.pem()));
    fetch_all(&backend).await.unwrap();
}
