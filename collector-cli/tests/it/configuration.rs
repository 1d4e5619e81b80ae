// SPDX-License-Identifier: Apache-2.0
//! `validate` and `config show`.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::process::{collector, run};

const GOOD: &str = "[prometheus]\nurl = \"https://prometheus:9090\"\n[cache]\nttl = \"45s\"\n";

fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_good_file_is_ok_and_a_bad_one_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let good = file(&folder, "good.toml", GOOD);
    let bad = file(&folder, "bad.toml", &format!("{GOOD}tll = \"30s\"\n"));
    let ended = run(collector().arg("validate").arg(&good), &[]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let ok = format!("{}: ok\n", good.display());
    assert!(ended.stdout.starts_with(&ok), "{}", ended.stdout);

    let ended = run(collector().arg("validate").arg(&bad).arg(&good), &[]);
    assert_eq!(ended.exit, 2);
    let line = format!("error: {}:5: ", bad.display());
    assert!(ended.stderr.starts_with(&line), "{}", ended.stderr);
    assert!(ended.stderr.contains("cache.ttl"), "{}", ended.stderr);
    assert!(ended.stdout.starts_with(&ok), "{}", ended.stdout);
    assert!(!ended.stdout.contains("bad.toml"), "{}", ended.stdout);
}

#[test]
fn each_value_is_shown_with_where_it_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let good = file(&folder, "good.toml", GOOD);
    let mut command = collector();
    command
        .env("COLLECTOR_CONFIG", &good)
        .env("COLLECTOR_CACHE__FETCH_INTERVAL", "20s")
        .env("PROMETHEUS_BEARER_TOKEN", "s3cret");
    let args = ["config", "show", "--origin", "-o", "json", "--log-level", "debug"];
    let ended = run(&mut command, &args);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert!(!ended.stdout.contains("s3cret"), "{}", ended.stdout);
    let document = ended.json();
    let origin = |key: &str| {
        let entries = document["entries"].as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["key"] == key).unwrap();
        entry["origin"].as_str().unwrap().to_owned()
    };
    assert!(origin("cache.ttl").ends_with("good.toml:4"), "{}", origin("cache.ttl"));
    assert!(origin("cache.fetch_interval").contains("COLLECTOR_CACHE__FETCH_INTERVAL"));
    assert_eq!(origin("log.level"), "--log-level");
    assert_eq!(origin("cache.cleanup_interval"), "default");
}

#[test]
fn the_defaults_ignore_what_is_set() {
    let mut command = collector();
    command.env("COLLECTOR_CACHE__TTL", "45s");
    let ended = run(&mut command, &["config", "show", "--defaults"]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let ttl = ended.stdout.lines().find(|line| line.starts_with("cache.ttl")).unwrap();
    assert!(ttl.ends_with("30s"), "{ttl}");
}

#[test]
fn an_invalid_configuration_exits_with_2_before_a_request() {
    for (variable, value, part) in [
        ("COLLECTOR_CONFIG", "/nowhere/collector.toml", "/nowhere/collector.toml"),
        ("COLLECTOR_CACHE__TTL", "soon", "cache.ttl"),
        ("COLLECTOR_CACHE__FETCH_INTERVAL", "1s", "prometheus.timeout"),
        ("COLLECTOR_SERVER__LISTEN", "nowhere", "server.listen"),
        ("PROMETHEUS_BASE_URL", "http://127.0.0.1:9", "allow_http"),
        ("PROMETHEUS_TOKEN_PATH", "/nowhere/token", "/nowhere/token"),
        ("RUST_LOG", "collector=loud", "RUST_LOG"),
    ] {
        let mut command = collector();
        command.env("PROMETHEUS_BASE_URL", "https://127.0.0.1:9").env(variable, value);
        let ended = run(&mut command, &["get", "models", "-o", "json"]);
        assert_eq!(ended.exit, 2, "{variable}={value}: {}", ended.stderr);
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
        assert_eq!(ended.stdout, "", "{variable}={value}");
    }
}
