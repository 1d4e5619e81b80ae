// SPDX-License-Identifier: Apache-2.0
//! Servers that break the rules of HTTP, byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use collector_core::{Ask, Backend, BackendError, ErrorKind, SystemClock};
use collector_prometheus::{PrometheusBackend, PrometheusConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fake::m;

/// What a server does after it has read a request's first bytes.
#[derive(Clone)]
enum Then {
    /// Writes this and closes.
    Close(Vec<u8>),
    /// Writes this and then nothing more.
    Hang(Vec<u8>),
    /// Writes a head, and then one byte after another.
    Drip,
    /// Writes this again and again.
    Repeat(Vec<u8>, Vec<u8>),
}

struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// Connections that the server has closed.
    closed: Arc<AtomicUsize>,
}

async fn serve(then: Then) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let closed = Arc::new(AtomicUsize::new(0));
    let (count, ended) = (Arc::clone(&connections), Arc::clone(&closed));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let (then, ended) = (then.clone(), Arc::clone(&ended));
            tokio::spawn(async move {
                let _ = answer(stream, then).await;
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    Server { address, connections, closed }
}

async fn answer(mut stream: TcpStream, then: Then) -> std::io::Result<()> {
    let mut request = vec![0; 16_384];
    let _ = stream.read(&mut request).await?;
    match then {
        Then::Close(bytes) => stream.write_all(&bytes).await,
        Then::Hang(bytes) => {
            stream.write_all(&bytes).await?;
            std::future::pending().await
        }
        Then::Drip => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await?;
            loop {
                stream.write_all(b" ").await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Then::Repeat(head, bytes) => {
            stream.write_all(&head).await?;
            loop {
                stream.write_all(&bytes).await?;
            }
        }
    }
}

fn config(address: &str) -> PrometheusConfig {
    PrometheusConfig {
        url: address.to_owned(),
        allow_http: true,
        timeout: Duration::from_millis(400),
        ..PrometheusConfig::default()
    }
}

async fn failure(config: PrometheusConfig) -> BackendError {
    failure_of(&PrometheusBackend::new(config, Arc::new(SystemClock::new())).unwrap()).await
}

async fn failure_of(backend: &PrometheusBackend) -> BackendError {
    let (models, per_pod) = ([m()], std::collections::HashSet::new());
    backend
        .fetch(Ask::new(&models, &SystemClock::new()).with_load_per_pod(&per_pod))
        .await
        .unwrap_err()
}

/// The fetch fails with this kind and these messages, and used one connection.
async fn check(then: Then, kind: ErrorKind, parts: &[&str]) {
    let server = serve(then).await;
    let mut config = config(&format!("http://{}", server.address));
    if kind != ErrorKind::Timeout {
        config.timeout = Duration::from_secs(20);
    }
    let error = failure(config).await;
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for part in parts.iter().chain(&[server.address.to_string().as_str()]) {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "{text}");
}

fn response(headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}").into_bytes()
}

const BODY: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let error = failure(config(&format!("http://{address}"))).await;
    assert_eq!(error.kind(), ErrorKind::Connect);
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_host_without_an_address_is_named() {
    let mut config = config("http://no-such-host.invalid:9090");
    config.timeout = Duration::from_secs(20);
    let error = failure(config).await;
    assert_eq!(error.kind(), ErrorKind::Dns, "{error}");
    assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
}

#[tokio::test]
async fn an_unresponsive_server_fails_at_the_deadline() {
    check(Then::Hang(Vec::new()), ErrorKind::Timeout, &["no answer began"]).await;
    let half = response("Content-Length: 100\r\n", "{");
    check(Then::Hang(half), ErrorKind::Timeout, &["not complete"]).await;
    check(Then::Drip, ErrorKind::Timeout, &["not complete"]).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    check(Then::Close(Vec::new()), ErrorKind::Disconnected, &[]).await;
    let short = response("Content-Length: 1000\r\n", BODY);
    check(Then::Close(short), ErrorKind::Disconnected, &[]).await;
    let chunked = response("Transfer-Encoding: chunked\r\n", "ffff\r\n{\"status\"");
    check(Then::Close(chunked), ErrorKind::Disconnected, &[]).await;
    let cut = response("", &BODY[..30]);
    check(Then::Close(cut), ErrorKind::BadAnswer, &["not JSON"]).await;
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_is_replaced_unseen() {
    let not_found = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
    let server = serve(Then::Close(not_found)).await;
    let mut config = config(&format!("http://{}", server.address));
    config.timeout = Duration::from_secs(20);
    let backend = PrometheusBackend::new(config, Arc::new(SystemClock::new())).unwrap();
    for look in 1..4 {
        assert_eq!(failure_of(&backend).await.kind(), ErrorKind::NotFound);
        while server.closed.load(Ordering::SeqCst) < look {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_is_named_as_such() {
    let garbage = b"\x15\x03\x01\x00\x02\x02\x46 garbage\r\n\r\n".to_vec();
    check(Then::Close(garbage), ErrorKind::BadAnswer, &["not HTTP", "https://"]).await;
}

#[tokio::test]
async fn endless_headers_and_bodies_are_cut_off() {
    let head = b"HTTP/1.1 200 OK\r\n".to_vec();
    let header = format!("X-Pad: {}\r\n", "x".repeat(8_000)).into_bytes();
    check(Then::Repeat(head, header), ErrorKind::TooLarge, &["head"]).await;
    let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    check(Then::Repeat(head, vec![b' '; 65_536]), ErrorKind::TooLarge, &["64 MiB"]).await;
    // gzip with a file name that never ends: it unpacks to nothing.
    let head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08\0\0\0\0\0\xff";
    let name = vec![b'x'; 65_536];
    check(Then::Repeat(head.to_vec(), name), ErrorKind::TooLarge, &["64 MiB"]).await;
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec();
    check(Then::Hang(head), ErrorKind::TooLarge, &["64 MiB"]).await;
}

#[tokio::test]
async fn an_answer_without_a_body_or_in_a_strange_form_is_refused() {
    let empty = b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
    check(Then::Close(empty), ErrorKind::BadAnswer, &["204"]).await;
    check(Then::Close(response("", "")), ErrorKind::BadAnswer, &["empty"]).await;
    let page = "<!doctype html><script>steal()</script>";
    check(Then::Close(response("", page)), ErrorKind::BadAnswer, &["HTML", "login"]).await;
    let brotli = response("Content-Encoding: br\r\n", "x");
    check(Then::Close(brotli), ErrorKind::BadAnswer, &["\"br\""]).await;
    let corrupt = response("Content-Encoding: gzip\r\n", "this is not gzip");
    check(Then::Close(corrupt), ErrorKind::BadAnswer, &["compressed"]).await;
}

#[tokio::test]
async fn a_server_without_tls_is_named_as_such() {
    let server = serve(Then::Close(response("", BODY))).await;
    let mut config = config(&format!("https://{}", server.address));
    config.timeout = Duration::from_secs(20);
    config.tls_insecure_skip_verify = true;
    let error = failure(config).await;
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains("http://"), "{error}");
}

#[tokio::test]
async fn no_name_and_no_secret_travels_into_an_error() {
    let server = serve(Then::Close(Vec::new())).await;
    let mut config = config(&format!("http://{}/prom/", server.address));
    config.timeout = Duration::from_secs(20);
    config.bearer_token = Some("hunter2".into());
    let error = failure(config).await;
    let text = format!("{error} {error:?}");
    assert!(!text.contains("hunter2") && !text.contains("num_requests"), "{text}");
    assert!(text.contains("/prom"), "{text}");
}
