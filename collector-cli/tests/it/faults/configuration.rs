// SPDX-License-Identifier: Apache-2.0
//! H: what is wrong with a configuration is found before anything is sent.

use std::fs;

use super::server::{Reply, Server};
use super::verdict::Call;

/// A server that nobody may ask.
fn untouched() -> Server {
    Server::start(|_| Reply::ok("{}"))
}

/// A file of this name and text is refused, with its path and these words.
#[track_caller]
fn refused(name: &str, text: &[u8], says: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    let server = untouched();
    let says: Vec<&str> = says.iter().copied().chain([name]).collect();
    Call::to(&server).env("COLLECTOR_CONFIG", path.to_str().unwrap()).fails(2, "", &says);
    assert_eq!(server.connections(), 0, "nothing was sent");
}

#[test]
fn an_unknown_key_is_reported_with_its_line_and_the_nearest() {
    refused("c.toml", b"[cache]\ntll = \"30s\"\n", &["c.toml:2", "tll", "cache.ttl"]);
    refused("c.yaml", b"cache:\n  tll: 30s\n", &["c.yaml:2", "tll", "cache.ttl"]);
    refused("c.toml", b"[promtheus]\n", &["promtheus", "prometheus"]);
    Call::to(&untouched()).env("COLLECTOR_CACHE__TLL", "30s").fails(
        2,
        "",
        &["COLLECTOR_CACHE__TLL", "COLLECTOR_CACHE__TTL"],
    );
}

#[test]
fn impossible_timings_name_both_keys_and_a_value_that_works() {
    for (name, value, says) in [
        ("COLLECTOR_CACHE__FETCH_INTERVAL", "1s", ["prometheus.timeout", "cache.fetch_interval"]),
        ("COLLECTOR_CACHE__TTL", "10m", ["cache.ttl", "cache.freshness.unavailable_threshold"]),
        (
            "PROMETHEUS_METRICS_CACHE_STALE_THRESHOLD",
            "10m",
            ["stale_threshold", "unavailable_threshold"],
        ),
        ("PROMETHEUS_METRICS_CACHE_FRESH_THRESHOLD", "3m", ["fresh_threshold", "stale_threshold"]),
    ] {
        let server = untouched();
        let verdict = Call::to(&server).env(name, value).fails(2, "", &says);
        let suggests = ["for example", "set ", "at least", "below", "use ", "or less", "or more"];
        assert!(suggests.iter().any(|word| verdict.stderr.contains(word)), "{}", verdict.stderr);
        assert!(verdict.stderr.contains(name), "where it is set: {}", verdict.stderr);
        assert_eq!(server.connections(), 0);
    }
}

#[test]
fn a_value_that_cannot_be_read_is_named_with_its_key() {
    for (name, value, key) in [
        ("COLLECTOR_CACHE__TTL", "soon", "cache.ttl"),
        ("COLLECTOR_CACHE__TTL", "-30s", "cache.ttl"),
        ("COLLECTOR_CACHE__MAX_ENTRIES", "many", "cache.max_entries"),
        ("COLLECTOR_CACHE__ENABLED", "perhaps", "cache.enabled"),
        ("PROMETHEUS_BASE_URL", "prometheus 9090", "prometheus.url"),
        ("PROMETHEUS_BASE_URL", "ftp://prometheus", "prometheus.url"),
        ("COLLECTOR_SERVER__LISTEN", "nowhere", "server.listen"),
        ("COLLECTOR_BACKEND", "promtheus", "backend"),
    ] {
        Call::to_url("http://127.0.0.1:9").env(name, value).fails(2, "", &[key, value]);
    }
    // A value that may be a secret is not shown.
    let url = format!("ftp://user:{}@prometheus", super::verdict::SECRET);
    Call::to_url("http://127.0.0.1:9").env("PROMETHEUS_BASE_URL", url).fails(
        2,
        "",
        &["prometheus.url"],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    refused("broken.toml", b"[cache\nttl = 1", &["broken.toml:1"]);
    refused("broken.yaml", b"cache:\n  - ttl: [\n", &["broken.yaml"]);
    refused("latin.toml", b"# caf\xe9\n", &["UTF-8"]);
    refused("large.toml", &b"# padding\n".repeat(110_000), &["1 MiB"]);
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.toml");
    for path in [&absent, &folder.path().to_owned()] {
        let path = path.to_str().unwrap();
        Call::to(&untouched()).env("COLLECTOR_CONFIG", path).fails(2, "", &[path]);
    }
}
