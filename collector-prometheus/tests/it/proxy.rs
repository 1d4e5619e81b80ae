// SPDX-License-Identifier: Apache-2.0
//! Servers behind an HTTP proxy: as a tunnel for https://, in the absolute form for http://.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use collector_core::{Ask, Backend, BackendError, ErrorKind, SystemClock};
use collector_prometheus::{PrometheusBackend, PrometheusConfig};
use collector_testkit::certificates::Authority;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::fake::m;
use crate::tls::serve;

/// A host that only the proxy can reach.
const HOST: &str = "metrics.example.invalid";

/// What a proxy does with a request.
#[derive(Clone)]
enum Then {
    /// Connects to this address, whatever the request says.
    Connect(SocketAddr),
    /// Answers with this, and closes.
    Answer(&'static str),
}

/// An HTTP proxy that records the heads of its requests.
struct Proxy {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn start(then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let heads = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, then.clone(), Arc::clone(&heads)));
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn pass(stream: TcpStream, then: Then, heads: Arc<Mutex<Vec<String>>>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.is_ok_and(|length| length == 0) {
            return;
        }
    }
    let connects = head.starts_with("CONNECT ");
    heads.lock().unwrap().push(head);
    match then {
        Then::Answer(answer) => {
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Then::Connect(address) if connects => {
            let mut server = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let _ = copy_bidirectional(&mut stream, &mut server).await;
        }
        Then::Connect(_) => panic!("a tunnel was expected"),
    }
}

fn config(url: &str, proxy: &str) -> PrometheusConfig {
    PrometheusConfig {
        url: url.to_owned(),
        allow_http: true,
        timeout: Duration::from_secs(20),
        proxy: Some(proxy.into()),
        proxy_origin: Some("environment variable HTTPS_PROXY".into()),
        ..PrometheusConfig::default()
    }
}

async fn fetch_all(config: PrometheusConfig) -> Result<(), BackendError> {
    let backend = PrometheusBackend::new(config, Arc::new(SystemClock::new())).unwrap();
    let (models, per_pod) = ([m()], std::collections::HashSet::new());
    backend
        .fetch(Ask::new(&models, &SystemClock::new()).with_load_per_pod(&per_pod))
        .await
        .map(|_| ())
}

#[track_caller]
fn contains(error: &BackendError, parts: &[&str]) {
    let text = format!("{error} {error:?}");
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert!(!text.contains("hunter2"), "{text:?} shows a secret");
    assert!(!text.contains("prometheus.url"), "{text:?} is not about the server's address");
}

#[tokio::test]
async fn a_server_of_https_is_asked_through_a_tunnel() {
    let authority = Authority::new();
    let server = serve(&authority.sign(HOST), None).await;
    let proxy = Proxy::start(Then::Connect(server.address)).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let mut config = config(&format!("https://{HOST}"), &proxy.url);
    config.ca_cert_path = Some(ca.clone());
    config.bearer_token = Some("hunter2".into());
    fetch_all(config.clone()).await.unwrap();
    for head in proxy.seen() {
        assert!(head.starts_with(&format!("CONNECT {HOST}:443 HTTP/1.1\r\n")), "{head}");
        assert!(!head.contains("hunter2"), "the proxy sees no secret: {head}");
    }

    let credentials = proxy.url.replace("http://", "http://me:hunter2@");
    config.proxy = Some(credentials.into());
    fetch_all(config.clone()).await.unwrap();
    let head = proxy.seen().remove(0).to_ascii_lowercase();
    assert!(head.contains("proxy-authorization: basic bwu6ahvudgvymg==\r\n"), "{head}");

    // The certificate is still the server's, and names the server.
    config.url = "https://other.example.invalid".into();
    let error = fetch_all(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains(HOST), "{error}");
}

#[tokio::test]
async fn a_server_of_http_is_asked_in_the_absolute_form() {
    let body = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nDate: Thu, 21 Nov 2024 00:00:00 GMT\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let proxy = Proxy::start(Then::Answer(answer.leak())).await;
    let credentials = proxy.url.replace("http://", "http://me:hunter2@");
    let mut config = config(&format!("http://{HOST}:9090/p"), &credentials);
    config.parameters.insert("namespace".into(), "prod".into());
    fetch_all(config).await.unwrap();
    let seen = proxy.seen();
    assert!(seen.len() > 2);
    for head in seen {
        let line = format!("POST http://{HOST}:9090/p/api/v1/query?namespace=prod HTTP/1.1\r\n");
        assert!(head.starts_with(&line), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains(&format!("host: {HOST}:9090\r\n")), "{head}");
        assert!(head.contains("proxy-authorization: basic bwu6ahvudgvymg==\r\n"), "{head}");
    }
}

#[tokio::test]
async fn a_refusing_proxy_is_named_and_not_the_server() {
    for answer in [
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let proxy = Proxy::start(Then::Answer(answer)).await;
        let error = fetch_all(config(&format!("https://{HOST}"), &proxy.url)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        let refused = format!("the proxy {} refused to connect to {HOST}:443", proxy.url);
        contains(
            &error,
            &[&refused, "prometheus.proxy (environment variable HTTPS_PROXY)", "NO_PROXY"],
        );
    }
    let proxy = Proxy::start(Then::Answer("")).await;
    let error = fetch_all(config(&format!("https://{HOST}"), &proxy.url)).await.unwrap_err();
    contains(&error, &["closed the connection", "prometheus.proxy"]);
}

#[tokio::test]
async fn a_proxy_that_wants_credentials_says_where_they_belong() {
    let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
    let proxy = Proxy::start(Then::Answer(answer)).await;
    let credentials = proxy.url.replace("http://", "http://me:hunter2@");
    for scheme in ["http", "https"] {
        for proxy_url in [&proxy.url, &credentials] {
            let error =
                fetch_all(config(&format!("{scheme}://{HOST}"), proxy_url)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
            let wants = format!("the proxy {} wants credentials (407)", proxy.url);
            contains(&error, &[&wants, "http://USER:PASSWORD@HOST:PORT", "HTTPS_PROXY"]);
        }
    }
}

#[tokio::test]
async fn an_answer_that_may_be_the_proxys_own_names_it() {
    let answer = "HTTP/1.1 503 Down\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndown";
    let proxy = Proxy::start(Then::Answer(answer)).await;
    let error = fetch_all(config(&format!("http://{HOST}"), &proxy.url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
    contains(&error, &[&format!("503: down (asked through the proxy {})", proxy.url)]);

    let login = "HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<!doctype html>";
    let proxy = Proxy::start(Then::Answer(login)).await;
    let error = fetch_all(config(&format!("http://{HOST}"), &proxy.url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadAnswer, "{error}");
    let named = format!("HTML page; is this a login page? (asked through the proxy {})", proxy.url);
    assert!(error.to_string().contains(&named), "{error}");
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let free = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for scheme in ["http", "https"] {
        let server = format!("{scheme}://{HOST}");
        let error = fetch_all(config(&server, &format!("http://{free}"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        contains(&error, &[&format!("to the proxy http://{free}: "), "refused", "HTTPS_PROXY"]);
        let error =
            fetch_all(config(&server, "http://no-such-proxy.invalid:3128")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Dns, "{error}");
        contains(&error, &["of the proxy: \"no-such-proxy.invalid\"", "prometheus.proxy"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_hangs_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let mut config = config(&format!("https://{HOST}"), &proxy);
    // The fetch has enough time for it.
    config.timeout = Duration::from_secs(5);
    let error = fetch_all(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    contains(&error, &[&format!("to {HOST}:443 through the proxy {proxy}"), "HTTPS_PROXY"]);
}
