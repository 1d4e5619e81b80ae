// SPDX-License-Identifier: Apache-2.0
//! TLS: the client's certificate, and files that change while the server runs.

use std::path::PathBuf;
use std::sync::Arc;

use collector_keda::Settings;
use collector_testkit::certificates::{Authority, Pair};
use collector_transport::Section;
use collector_transport::server::{ServerTls, ServerTlsSettings};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;

use crate::fixture::{Client, Fixture, trigger};

const NAME: &str = "localhost";

fn settings(server: &Pair, clients: Option<&Authority>, files: &Authority) -> ServerTlsSettings {
    ServerTlsSettings {
        section: Section { name: "keda", variables: None },
        cert_path: files.write("cert.pem", &server.cert),
        key_path: files.write("key.pem", &server.key),
        client_ca_path: clients.map(|it| files.write("ca.pem", &it.pem())),
        asks_clients: false,
        protocols: &[b"h2"],
    }
}

/// Connects as grpc-go does, which insists on `h2`.
async fn connect(
    fixture: &Fixture,
    trusted: &Authority,
    identity: Option<&Pair>,
) -> Result<Client, String> {
    let mut config = trusted.client(identity);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let address = fixture.address;
    let connect = tower::service_fn(move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from(NAME).unwrap();
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
    let files = &old;
    let fixture = start(&settings(&old.sign(NAME), None, files)).await;
    let connected = connect(&fixture, &old, None).await.unwrap();
    connect(&fixture, &new, None).await.unwrap_err();
    let pair = new.sign(NAME);
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
    let files = &server;
    let fixture = start(&settings(&server.sign(NAME), Some(&clients), files)).await;
    connect(&fixture, &server, None).await.unwrap_err();
    connect(&fixture, &server, Some(&others.sign(NAME))).await.unwrap_err();
    let pair = clients.sign(NAME);
    connect(&fixture, &server, Some(&pair)).await.unwrap();
    files.write("ca.pem", &others.pem());
    connect(&fixture, &server, Some(&pair)).await.unwrap_err();
    connect(&fixture, &server, Some(&others.sign(NAME))).await.unwrap();
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_their_key() {
    let authority = Authority::new();
    let good = settings(&authority.sign(NAME), Some(&authority), &authority);
    let garbage = authority.write("garbage.pem", "hunter2");
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
    let fixture = start(&settings(&authority.sign(NAME), None, &authority)).await;
    let plain = Endpoint::from_shared(format!("http://{}", fixture.address)).unwrap();
    let served = match plain.connect().await {
        Ok(channel) => Client(channel).is_active(trigger(&[])).await.is_ok_and(|_| true),
        Err(_) => false,
    };
    assert!(!served);
}
