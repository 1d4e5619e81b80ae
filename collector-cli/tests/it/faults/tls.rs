// SPDX-License-Identifier: Apache-2.0
//! C: certificates, tokens, and the files that hold them.

use std::fs;

use super::certificates::{Authority, Pair};
use super::daemon::Daemon;
use super::fleet::Fleet;
use super::server::{Reply, Server};
use super::verdict::{Call, SECRET};
use crate::process::collector_of;

fn serving(pair: &Pair, clients: Option<&Authority>) -> Server {
    let fleet = Fleet::default();
    Server::start_tls(pair.server(clients), move |request| fleet.reply(request))
}

#[test]
fn a_certificate_that_is_not_believed_says_why() {
    let authority = Authority::new();
    let cases = [
        (authority.sign_until("127.0.0.1", 2021), "has expired"),
        (Pair::self_signed("127.0.0.1"), "self-signed"),
        (Authority::new().sign("127.0.0.1"), "PROMETHEUS_CA_CERT_PATH"),
    ];
    for (pair, says) in cases {
        let server = serving(&pair, None);
        let verdict = Call::to(&server)
            .env("PROMETHEUS_CA_CERT_PATH", authority.file())
            .backend_fails(&["certificate", says]);
        assert_eq!(verdict.asked.len(), 0);
        assert_eq!(server.connections(), 2, "one for each call, never repeated");
    }
    let server = serving(&authority.sign("127.0.0.1"), None);
    Call::to(&server).env("PROMETHEUS_CA_CERT_PATH", authority.file()).finds();
    let (_, verdict) = Call::to(&server).env("PROMETHEUS_TLS_INSECURE_SKIP_VERIFY", "true").finds();
    assert!(verdict.stderr.contains("NOT verified"), "{}", verdict.stderr);
}

#[test]
fn another_name_is_reported_and_can_be_set() {
    let authority = Authority::new();
    let server = serving(&authority.sign("prometheus.monitoring.svc"), None);
    let call = || Call::to(&server).env("PROMETHEUS_CA_CERT_PATH", authority.file());
    call().backend_fails(&["prometheus.monitoring.svc", "PROMETHEUS_SERVER_NAME"]);
    call().env("PROMETHEUS_SERVER_NAME", "prometheus.monitoring.svc").finds();
    call()
        .env("PROMETHEUS_SERVER_NAME", "other.example")
        .backend_fails(&["other.example", "prometheus.monitoring.svc"]);
}

#[test]
fn a_demanded_client_certificate_is_asked_for_by_its_key() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = serving(&authority.sign("127.0.0.1"), Some(&clients));
    let call = || Call::to(&server).env("PROMETHEUS_CA_CERT_PATH", authority.file());
    call().backend_fails(&["client certificate", "PROMETHEUS_CLIENT_CERT_PATH"]);
    let with = |pair: &Pair| {
        call()
            .env("PROMETHEUS_CLIENT_CERT_PATH", path(&authority, "client.pem", &pair.cert))
            .env("PROMETHEUS_CLIENT_KEY_PATH", path(&authority, "client.key", &pair.key))
    };
    with(&clients.sign("collector")).finds();
    with(&Authority::new().sign("collector")).backend_fails(&["prometheus.client_cert_path"]);
}

fn path(authority: &Authority, name: &str, text: &str) -> String {
    authority.write(name, text).to_str().unwrap().to_owned()
}

#[test]
fn a_token_file_may_end_in_a_newline() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    let fleet = Fleet::default();
    let server = Server::start(move |request| match request.authorization.as_str() {
        "Bearer hunter2-is-never-shown" => fleet.reply(request),
        _ => Reply::status(401, ""),
    });
    let file = file.to_str().unwrap();
    Call::to(&server).env("PROMETHEUS_BEARER_TOKEN", "").env("PROMETHEUS_TOKEN_PATH", file).finds();
}

#[test]
fn a_refused_token_whose_file_has_not_changed_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, SECRET).unwrap();
    let file = file.to_str().unwrap();
    let server = Server::start(|_| Reply::status(401, ""));
    let verdict = Call::to(&server)
        .env("PROMETHEUS_BEARER_TOKEN", "")
        .env("PROMETHEUS_TOKEN_PATH", file)
        .backend_fails(&[file, "prometheus.token_path"]);
    assert_eq!(verdict.asked.len(), 1);
}

#[test]
fn a_token_that_rotates_while_serving_is_used_within_two_cycles() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "the-first-token\n").unwrap();
    let accepting = |token: &'static str| {
        let fleet = Fleet::default();
        move |request: &super::server::Request| {
            if request.authorization == format!("Bearer {token}") {
                fleet.reply(request)
            } else {
                Reply::status(401, "")
            }
        }
    };
    let server = Server::start(accepting("the-first-token"));
    let mut command = collector_of(&server.url());
    command.env("PROMETHEUS_TOKEN_PATH", &file).env("RUST_LOG", "trace");
    let daemon = Daemon::start_fast(&mut command);
    assert_eq!(daemon.replicas().status, 200);

    // Refused before the file has changed: asked again only with another token.
    server.change(accepting("the-second-token"));
    server.asked();
    daemon.eventually("the refusal is noticed", |_| !server.asked().is_empty());
    fs::write(&file, "the-second-token\n").unwrap();
    let before = daemon.cycles();
    daemon.eventually("the new token is used", |daemon| {
        let (status, document) = daemon.reading();
        status == 200 && document["source"] != "last-known-good"
    });
    let cycles = daemon.cycles() - before;
    assert!(cycles <= 3.0, "{cycles}");
    let asked = server.asked();
    let second = asked.iter().position(|r| r.authorization == "Bearer the-second-token").unwrap();
    assert!(asked[second..].iter().all(|r| r.authorization == "Bearer the-second-token"));
    let log = daemon.stop("-TERM").1;
    assert!(!log.contains("the-first-token") && !log.contains("the-second-token"), "{log}");
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_key() {
    let authority = Authority::new();
    let (pair, other) = (authority.sign("collector"), authority.sign("collector"));
    let file = |name: &str, text: &str| path(&authority, name, text);
    let cert = file("client.pem", &pair.cert);
    let key = file("client.key", &pair.key);
    let other_key = file("other.key", &other.key);
    let garbage = file("garbage.pem", SECRET);
    let broken = file("broken.pem", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n");
    let folder = authority.folder().to_str().unwrap();
    let ca = ("PROMETHEUS_CA_CERT_PATH", authority.file());
    let server = serving(&authority.sign("127.0.0.1"), None);
    let check = |env: &[(&str, &str)], says: &[&str]| {
        let call = Call::to(&server).env(ca.0, ca.1.clone()).env("PROMETHEUS_BEARER_TOKEN", "");
        let call = env.iter().fold(call, |call, (name, value)| call.env(name, *value));
        let verdict = call.fails(2, "", says);
        assert!(!verdict.stderr.contains("MIG"), "bytes of a key: {}", verdict.stderr);
        assert_eq!(server.connections(), 0, "nothing was sent");
    };
    for (variable, name) in [
        ("PROMETHEUS_TOKEN_PATH", "prometheus.token_path"),
        ("PROMETHEUS_CA_CERT_PATH", "prometheus.ca_cert_path"),
    ] {
        for bad in ["/does/not/exist", folder] {
            check(&[(variable, bad)], &[name, bad]);
        }
    }
    let (cert_key, key_key) = ("PROMETHEUS_CLIENT_CERT_PATH", "PROMETHEUS_CLIENT_KEY_PATH");
    for bad in ["/does/not/exist", folder, &garbage] {
        check(&[(cert_key, bad), (key_key, &key)], &["prometheus.client_cert_path", bad]);
        check(&[(cert_key, &cert), (key_key, bad)], &["prometheus.client_key_path", bad]);
    }
    for bad in [&garbage, &broken, &key] {
        check(&[("PROMETHEUS_CA_CERT_PATH", bad)], &["prometheus.ca_cert_path", bad]);
    }
    check(&[("PROMETHEUS_TOKEN_PATH", &file("empty", ""))], &["prometheus.token_path", "empty"]);
    check(&[(cert_key, &cert)], &["prometheus.client_cert_path", "prometheus.client_key_path"]);
    check(&[(key_key, &key)], &["prometheus.client_key_path", "prometheus.client_cert_path"]);
    check(
        &[(cert_key, &cert), (key_key, &other_key)],
        &["prometheus.client_key_path", &other_key, &cert],
    );
}

#[test]
fn http_must_be_allowed() {
    let server = Server::start(|_| Reply::ok("{}"));
    Call::to(&server).env("PROMETHEUS_ALLOW_HTTP", "false").fails(
        2,
        "",
        &["prometheus.allow_http", "PROMETHEUS_ALLOW_HTTP"],
    );
    assert_eq!(server.connections(), 0);
}

#[test]
fn no_secret_is_in_the_log_the_metrics_or_an_answer() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let client = clients.sign("collector");
    let server = serving(&authority.sign("127.0.0.1"), Some(&clients));
    let mut command = collector_of(&server.url());
    command
        .env("PROMETHEUS_CA_CERT_PATH", authority.file())
        .env("PROMETHEUS_CLIENT_CERT_PATH", path(&authority, "client.pem", &client.cert))
        .env("PROMETHEUS_CLIENT_KEY_PATH", path(&authority, "client.key", &client.key))
        .env("PROMETHEUS_BEARER_TOKEN", SECRET)
        .env("RUST_LOG", "trace");
    let daemon = Daemon::start_fast(&mut command);
    let mut pages = daemon.replicas().body;
    assert!(pages.contains("m-0"), "{pages}");
    server.change(|_| Reply::status(401, format!("not {SECRET}")));
    daemon.eventually("a failure is logged", |daemon| daemon.log().contains("fetch failed"));
    for path in ["/metrics", "/readyz", "/api/v1/replicas", "/api/v1/models", "/"] {
        pages.push_str(&daemon.get(path).body);
    }
    let (exit, log) = daemon.stop("-TERM");
    assert_eq!(exit, Some(0), "{log}");
    assert!(log.contains("TRACE"), "it is the whole log");
    for text in [pages, log] {
        assert!(!text.contains(SECRET), "{text}");
        assert!(!text.contains(&format!("Bearer {}", &SECRET[..4])), "{text}");
        for line in client.key.lines().filter(|line| !line.starts_with("-----")) {
            assert!(!text.contains(line), "bytes of the key: {text}");
        }
    }
}
