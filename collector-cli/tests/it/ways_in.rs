// SPDX-License-Identifier: Apache-2.0
//! What messages say about the way to the server: proxies, credentials, where an address came from.

use std::io::Write as _;

use crate::process::{collector, run};

const GET: [&str; 5] = ["get", "replicas", "-m", "m", "-n"];

/// A port that nobody listens on.
fn closed() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn check_names_the_proxy_and_what_set_it() {
    let proxy = closed();
    let mut command = collector();
    command
        .env("PROMETHEUS_BASE_URL", "https://metrics.example.invalid")
        .env("COLLECTOR_PROMETHEUS__TLS_INSECURE_SKIP_VERIFY", "true")
        .env("https_proxy", format!("http://me:hunter2@{proxy}"));
    let ended = run(&mut command, &["check", "-o", "json"]);
    assert_eq!(ended.exit, 1, "{}", ended.stderr);
    let document = ended.json();
    let check = |id: &str| {
        let checks = document["checks"].as_array().unwrap();
        checks.iter().find(|check| check["id"] == id).cloned().unwrap()
    };
    assert_eq!(check("configuration.proxy")["status"], "pass");
    assert_eq!(
        check("configuration.proxy")["detail"],
        format!(
            "prometheus is asked through the proxy http://***@{proxy} (environment variable \
             https_proxy)"
        )
    );
    let tcp = check("connection.tcp");
    assert_eq!(tcp["status"], "fail", "{tcp}");
    assert!(
        tcp["detail"].as_str().unwrap().contains(&format!("to the proxy http://{proxy}")),
        "{tcp}"
    );
    assert!(!(ended.stdout + &ended.stderr).contains("hunter2"));

    let ended = run(command.env("NO_PROXY", ".example.invalid"), &[]);
    assert!(!ended.stdout.contains("configuration.proxy"), "{}", ended.stdout);
    let text = ended.stdout + &ended.stderr;
    assert!(text.contains("metrics.example.invalid") && text.contains("resolve"), "{text}");
}

#[test]
fn an_unreachable_server_is_named_with_the_origin_of_its_url() {
    let down = format!("http://{}", closed());
    let named = file(&format!("[prometheus]\nurl = \"{down}\"\nallow_http = true\n"));
    let path = named.path().to_str().unwrap();
    let ended = run(collector().args(["--config", path]), &[&GET[..], &["n"]].concat());
    assert_eq!(ended.exit, 5);
    assert!(
        ended.stderr.contains(&format!("is prometheus.url ({path}:2) right?")),
        "{}",
        ended.stderr
    );
    let other = format!("http://{}", closed());
    let mut command = collector();
    command.env("PROMETHEUS_BASE_URL", &other).args(["--config", path]);
    let ended = run(&mut command, &[&GET[..], &["n"]].concat());
    assert_eq!(ended.exit, 5);
    let expected = "is prometheus.url (environment variable PROMETHEUS_BASE_URL) right?";
    assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    assert!(ended.stderr.contains(&other), "{}", ended.stderr);
}

#[test]
fn a_token_with_a_scheme_and_a_url_without_one_are_mistakes() {
    let url = ("PROMETHEUS_BASE_URL", "https://h");
    let token = ("PROMETHEUS_BEARER_TOKEN", "Bearer hunter2");
    let ended = run(collector().envs([url, token]), &[&GET[..], &["n"]].concat());
    assert_eq!(ended.exit, 2);
    assert!(ended.stderr.contains("leave that off"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    for host in ["prometheus:9090", "localhost:9090"] {
        let mut command = collector();
        command.env("PROMETHEUS_BASE_URL", host);
        let ended = run(&mut command, &[&GET[..], &["n"]].concat());
        assert_eq!(ended.exit, 2);
        let expected = format!("\"{host}\" has no scheme: write https://{host}, or http://{host}");
        assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    }
}
