// SPDX-License-Identifier: Apache-2.0
//! The API over TLS, for clients that have a certificate.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::faults::certificates::{Authority, Pair};
use crate::faults::daemon::Daemon;
use crate::process::collector_of;

/// Asks for `/healthz` as a client that trusts `authority` and has this certificate.
fn health(
    address: SocketAddr,
    authority: &Authority,
    identity: Option<&Pair>,
) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(authority.file()).unwrap();
    roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address)?);
    stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn only_clients_of_the_authority_are_served_and_a_new_certificate_is_used() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.sign("localhost");
    let cert = authority.write("server.pem", &server.cert);
    let key = authority.write("server.key", &server.key);
    let mut command = collector_of("http://127.0.0.1:9");
    command
        .env("COLLECTOR_SERVER__TLS_CERT_PATH", &cert)
        .env("COLLECTOR_SERVER__TLS_KEY_PATH", &key)
        .env("COLLECTOR_SERVER__TLS_CLIENT_CA_PATH", authority.file());
    let daemon = Daemon::start(&mut command);
    let (client, stranger) = (authority.sign("client"), other.sign("client"));
    let ask = |identity| health(daemon.address, &authority, identity);
    assert!(ask(Some(&client)).unwrap().contains(" 200 OK"));
    assert!(ask(None).is_err(), "without a certificate");
    assert!(ask(Some(&stranger)).is_err(), "with that of another authority");

    // The server shows a certificate of another authority, which this client does not trust.
    let renewed = other.sign("localhost");
    authority.write("server.key", &renewed.key);
    authority.write("server.pem", &renewed.cert);
    assert!(ask(Some(&client)).is_err());
    let answer = health(daemon.address, &other, Some(&client)).unwrap();
    assert!(answer.contains(" 200 OK"), "{answer}");
}
