// SPDX-License-Identifier: Apache-2.0
//! Tokens and certificates.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use collector_core::{Backend as _, CheckStatus, ErrorKind, ProbeAsk, SystemClock};
use collector_epp::EppConfig;
use collector_epp::discover::TargetSpec;
use collector_testkit::certificates::Pair;
use collector_testkit::certificates::rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, SerialNumber, date_time_ymd,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::fake_pod::{FakePod, Says, answer as good_answer, vllm};
use crate::world::{answer, backend, config, failure, found};

/// A pod that speaks TLS, with a certificate for `host`.
struct SafePod {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    certificate: String,
}

impl SafePod {
    async fn start(host: &str) -> Self {
        Self::with(Pair::self_signed(host)).await
    }

    /// A pod whose certificate signs itself as that of an authority, as `openssl req -x509` makes it.
    async fn self_signed(set: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "localhost");
        set(&mut params);
        Self::with(Pair::self_signed_params(&params)).await
    }

    async fn with(pair: Pair) -> Self {
        let acceptor = TlsAcceptor::from(pair.server(None));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut buffer = vec![0; 4096];
                    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                        let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
                        log.lock().unwrap().push(request);
                        let page = good_answer(&vllm("m", 3.0, 0.5, 1.0));
                        stream.write_all(&page).await.unwrap();
                    }
                });
            }
        });
        Self { port, requests, certificate: pair.cert }
    }

    fn target(&self) -> TargetSpec {
        TargetSpec {
            url: format!("https://localhost:{}/metrics", self.port),
            namespace: "prod".into(),
            pod: Some("m-0".into()),
            ..TargetSpec::default()
        }
    }

    /// Believes this pod's certificate.
    fn config(&self, folder: &tempfile::TempDir) -> EppConfig {
        let path = folder.path().join("ca.pem");
        fs::write(&path, &self.certificate).unwrap();
        EppConfig { ca_cert_path: Some(path), ..config(vec![self.target()]) }
    }
}

#[tokio::test]
async fn a_pod_with_a_known_certificate_is_scraped_and_gets_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let pod = SafePod::start("localhost").await;
    let config = EppConfig { bearer_token: Some("hunter2".into()), ..pod.config(&folder) };
    let backend = backend(config);
    assert_eq!(found(answer(&backend, "m").await).replicas[0].queue_length, Some(3));
    let requests = pod.requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 2);
    assert!(requests[0].contains("authorization: Bearer hunter2\r\n"), "{requests:?}");
}

#[tokio::test]
async fn a_certificate_that_is_not_good_says_which_key_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let pod = SafePod::start("other.name").await;
    let error = failure(&backend(config(vec![pod.target()])), "m").await;
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.to_string().contains("epp.ca_cert_path"), "{error}");
    let error = failure(&backend(pod.config(&folder)), "m").await;
    assert_eq!(error.kind(), ErrorKind::Tls);
    let text = error.to_string();
    assert!(text.contains("epp.server_name") && text.contains("the target's URL"), "{text}");
    let named = EppConfig { server_name: Some("other.name".into()), ..pod.config(&folder) };
    assert!(found(answer(&backend(named), "m").await).absent.is_none());
    let blind = EppConfig { tls_insecure_skip_verify: true, ..config(vec![pod.target()]) };
    assert!(found(answer(&backend(blind), "m").await).absent.is_none());
    let absent =
        EppConfig { ca_cert_path: Some("/does/not/exist".into()), ..config(vec![pod.target()]) };
    let clock = Arc::new(collector_core::SystemClock::new());
    let error = collector_epp::EppBackend::new(absent, clock).unwrap_err().to_string();
    assert!(error.starts_with("epp.ca_cert_path: /does/not/exist cannot be read"), "{error}");
}

/// The words of a certificate's library.
#[track_caller]
fn in_our_words(text: &str) {
    for word in ["CaUsedAsEndEntity", "Other(", "UnknownIssuer", "DnsName(", "NotValidForName"] {
        assert!(!text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn a_self_signed_certificate_in_the_file_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let pod = SafePod::self_signed(|_| {}).await;
    let replicas = found(answer(&backend(pod.config(&folder)), "m").await).replicas;
    assert_eq!(replicas[0].queue_length, Some(3));
    // Neither another one of the same name is believed, nor this one for another name or in another time.
    let other =
        SafePod::self_signed(|params| params.serial_number = Some(SerialNumber::from(7))).await;
    let config = EppConfig { targets: vec![other.target()], ..pod.config(&folder) };
    let error = failure(&backend(config), "m").await;
    assert_eq!(error.kind(), ErrorKind::Tls);
    let text = error.to_string();
    assert!(text.contains("self-signed and not in epp.ca_cert_path"), "{text}");
    in_our_words(&text);
    let named = EppConfig { server_name: Some("other.name".into()), ..pod.config(&folder) };
    let text = failure(&backend(named), "m").await.to_string();
    assert!(text.contains("is for localhost, not for \"other.name\""), "{text}");
    in_our_words(&text);
    let expired = SafePod::self_signed(|params| params.not_after = date_time_ymd(2021, 1, 1)).await;
    let text = failure(&backend(expired.config(&folder)), "m").await.to_string();
    assert!(text.contains("has expired"), "{text}");
}

#[tokio::test]
async fn a_self_signed_certificate_is_called_so_with_the_two_ways_out() {
    let plain = SafePod::start("localhost").await;
    let of_an_authority = SafePod::self_signed(|_| {}).await;
    for pod in [plain, of_an_authority] {
        let error = failure(&backend(config(vec![pod.target()])), "m").await;
        assert_eq!(error.kind(), ErrorKind::Tls);
        let text = error.to_string();
        for part in ["is self-signed;", "epp.ca_cert_path", "epp.tls_insecure_skip_verify"] {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        in_our_words(&text);
    }
}

#[tokio::test]
async fn a_certificate_with_only_a_common_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for is_ca in [IsCa::Ca(BasicConstraints::Unconstrained), IsCa::ExplicitNoCa] {
        let pod = SafePod::self_signed(|params| {
            params.subject_alt_names.clear();
            params.is_ca = is_ca;
        })
        .await;
        let text = failure(&backend(pod.config(&folder)), "m").await.to_string();
        for part in ["no name that counts", "no subjectAltName", "\"localhost\""] {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        in_our_words(&text);
    }
}

#[tokio::test]
async fn http_and_https_on_the_wrong_port_are_told_apart() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let mut target = pod.target("m-0");
    target.url = target.url.replace("http://", "https://");
    let blind = EppConfig { tls_insecure_skip_verify: true, ..config(vec![target]) };
    let error = failure(&backend(blind), "m").await;
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.to_string().contains("should begin with http://"), "{error}");
    let safe = SafePod::start("localhost").await;
    let mut target = safe.target();
    target.url = target.url.replace("https://", "http://");
    let error = failure(&backend(config(vec![target])), "m").await;
    assert!(error.to_string().contains("should begin with https://"), "{error}");
}

#[tokio::test]
async fn the_token_travels_over_http_only_where_it_may() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let config =
        EppConfig { bearer_token: Some("hunter2".into()), ..config(vec![pod.target("m-0")]) };
    found(answer(&backend(config.clone()), "m").await);
    assert!(pod.requests().iter().all(|request| !request.contains("hunter2")));
    let unauthorized = Says::Raw(b"HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n".to_vec());
    pod.say(unauthorized);
    let error = failure(&backend(config.clone()), "m").await.to_string();
    assert!(error.contains("epp.allow_token_over_http"), "{error}");
    let renamed = EppConfig { section: "scrape", ..config.clone() };
    let error = failure(&backend(renamed), "m").await.to_string();
    assert!(error.contains("(scrape.allow_token_over_http)"), "in the user's words: {error}");
    let allowed = EppConfig { allow_token_over_http: true, ..config };
    let error = failure(&backend(allowed), "m").await.to_string();
    assert!(error.contains("the bearer token of epp.bearer_token was sent"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    assert!(pod.requests().last().unwrap().contains("authorization: Bearer hunter2\r\n"));
}

#[tokio::test]
async fn a_changed_token_is_tried_once_after_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "old\n").unwrap();
    let modified = fs::metadata(&token).unwrap().modified().unwrap();
    let pod =
        FakePod::start(Says::Raw(b"HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n".to_vec())).await;
    let backend = backend(EppConfig {
        token_path: Some(token.clone()),
        allow_token_over_http: true,
        ..config(vec![pod.target("m-0")])
    });
    assert_eq!(failure(&backend, "m").await.kind(), ErrorKind::Unauthorized);
    assert_eq!(pod.requests().len(), 1);
    // Rotated, and as if it were the same file.
    fs::write(&token, "new\n").unwrap();
    fs::File::options().write(true).open(&token).unwrap().set_modified(modified).unwrap();
    assert_eq!(failure(&backend, "m").await.kind(), ErrorKind::Unauthorized);
    let sent: Vec<bool> =
        pod.requests().iter().map(|request| request.contains("Bearer new\r\n")).collect();
    assert_eq!(sent, [false, false, true]);
}

#[tokio::test]
async fn the_probe_tells_what_a_user_may_have_got_wrong() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let dead = FakePod::with_page("").await;
    let dead_target = dead.target("m-1");
    drop(dead);
    let late = "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
    let skewed = FakePod::start(Says::Raw(crate::fake_pod::answer_with(
        late,
        "vllm:num_requests_waiting{model_name=\"m\"} 1\n",
    )))
    .await;
    let backend = backend(EppConfig {
        scrape_interval: Duration::from_millis(500),
        ..config(vec![pod.target("m-0"), dead_target, skewed.target("m-2")])
    });
    let probe = backend.probe(ProbeAsk::new(&SystemClock::new())).await.unwrap();
    let of = |id: &str| probe.checks.iter().find(|check| check.id == id).unwrap();
    assert_eq!(of("connection.targets").status, CheckStatus::Pass);
    assert_eq!(of("connection.scrape").status, CheckStatus::Fail);
    assert!(of("connection.scrape").detail.starts_with("1 of 3 targets"));
    assert!(of("connection.target-1").detail.contains("cannot connect"));
    assert_eq!(of("connection.clock").status, CheckStatus::Warn);
    assert_eq!(of("metrics.engines").detail, "2 vllm");
    assert!(of("metrics.names").detail.contains("vllm:num_requests_waiting"));
    assert_eq!(of("metrics.fields").status, CheckStatus::Warn);
    assert!(of("metrics.fields").detail.contains("kvCacheUsage"));
}

#[tokio::test(start_paused = true)]
async fn no_parameter_of_a_url_is_shown() {
    let with_key = |target: TargetSpec| {
        let url = format!("{}?key=hunter2", target.url);
        TargetSpec { url, ..target }
    };
    let (pod, gone) = (
        FakePod::with_page(&vllm("m", 3.0, 0.5, 1.0)).await,
        FakePod::start(Says::Raw(Vec::new())).await,
    );
    let twice = ["m-0", "other"].map(|name| with_key(pod.target(name)));
    let of_picker = TargetSpec { engine: Some("epp".into()), ..with_key(gone.target("picker")) };
    let backend = backend(config([twice.to_vec(), vec![of_picker]].concat()));
    let mut told = found(answer(&backend, "m").await).warnings;
    assert_eq!(told.len(), 2, "{told:?}");
    let alone = crate::world::backend(config(vec![with_key(gone.target("m-0"))]));
    told.push(failure(&alone, "m").await.to_string().into());
    for backend in [backend, alone] {
        let probe = backend.probe(ProbeAsk::new(&SystemClock::new())).await.unwrap();
        told.extend(probe.checks.iter().map(|check| check.detail.as_str().into()));
    }
    let secret = told.iter().find(|text| text.contains("hunter2"));
    assert_eq!(secret, None);
}
