// SPDX-License-Identifier: Apache-2.0
//! Files: both syntaxes mean the same, and what is no file is told with its path.

use std::fmt::Write as _;

use collector_config::Loader;

use crate::{ConfigFile, URL, variables};

#[test]
fn yaml_and_toml_mean_the_same() {
    let toml = ConfigFile::toml(
        r#"
        backend = ["prometheus"]
        [cache]
        enabled = false
        ttl = "45s"
        fetch_interval = 0
        [cache.freshness]
        fresh_threshold = "90s"
        [server]
        max_tracked = 5
        [[variants]]
        name = "v"
        namespace = "prod"
        model = "org/m"
        accelerator = "H100"
        cost = 3
        pods = "m-*"
        max_batch = 64
        "#,
    );
    let yaml = ConfigFile::yaml(
        "
# The same.
backend: [prometheus]
cache:
  enabled: false
  ttl: 45s
  fetch_interval: 0
  freshness: {fresh_threshold: 90s}
server:
  max_tracked: 5
  tls_cert_path:
prometheus:
variants:
- name: v
  namespace: prod
  model: org/m
  accelerator: H100
  cost: 3
  pods: m-*
  max_batch: 64
",
    );
    let config = |file: &ConfigFile| {
        let loaded = file.loader().env(variables(&[URL])).load().unwrap();
        assert_eq!(loaded.config.variants[0].max_batch, Some(64));
        format!("{:?}", loaded.config)
    };
    assert_eq!(config(&toml), config(&yaml));
}

#[test]
fn an_empty_file_sets_nothing() {
    for file in [ConfigFile::toml(""), ConfigFile::yaml(""), ConfigFile::yaml("# nothing\n")] {
        let loaded = file.loader().env(variables(&[URL])).load().unwrap();
        let set: Vec<_> =
            loaded.entries().into_iter().filter(|entry| entry.origin != "default").collect();
        assert_eq!(set.len(), 1, "{set:?}");
    }
}

#[track_caller]
fn refused(file: &ConfigFile, parts: &[&str]) {
    // The URL may well stand in the file: that it is not set is nothing to tell.
    let text = file.loader().load().unwrap_err().to_string();
    let path = file.path().display().to_string();
    assert!(text.starts_with(&path), "{text}");
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn broken_syntax_is_reported_with_its_line_number_alone() {
    let token = "bearer_token = \"hunter2\n";
    refused(&ConfigFile::toml(&format!("[prometheus]\n{token}")), &[":2: not valid TOML: "]);
    let url = "[prometheus]\nurl = \"https://h\"\n";
    refused(
        &ConfigFile::toml(&format!("[cache]\nttl = \"10s\"\nttl = \"hunter2\"\n{url}")),
        &[":3: ", "twice"],
    );
    refused(
        &ConfigFile::yaml("prometheus:\n  bearer_token: \"hunter2\n  x: y\n"),
        &["not valid YAML: "],
    );
    refused(&ConfigFile::yaml("a: b: hunter2\n"), &[":1: not valid YAML: "]);
    let unnamed = ConfigFile::new("collector.conf", "cache:\n  ttl: 10s\n");
    refused(&unnamed, &[":1: not valid TOML: ", "read as YAML if its name ends in .yaml or .yml"]);
    let url = "prometheus:\n  url: https://h\n";
    refused(
        &ConfigFile::yaml(&format!("cache:\n  ttl: 10s\n  ttl: hunter2\n{url}")),
        &[":3: ", "twice"],
    );
    refused(&ConfigFile::yaml("- hunter2\n"), &[":1: ", "it holds a list"]);
    refused(&ConfigFile::yaml("hunter2"), &[":1: ", "it holds text"]);
}

#[test]
fn a_file_that_cannot_be_read_is_reported_with_its_path() {
    refused(&ConfigFile::new("x.toml", [0xff, 0xfe, 0]), &["is not UTF-8 text"]);
    let comment = format!("#{}", "x".repeat(1 << 20));
    refused(&ConfigFile::toml(&comment), &["is longer than 1 MiB"]);
    assert!(ConfigFile::toml(&comment[..1 << 20]).loader().read().is_ok());

    let folder = tempfile::tempdir().unwrap();
    let error = |path: &std::path::Path| {
        let text = Loader::new().file(path).read().unwrap_err().to_string();
        assert!(text.starts_with(&path.display().to_string()), "{text}");
        text
    };
    assert!(error(folder.path()).contains("is a directory"));
    assert!(error(&folder.path().join("absent.toml")).contains("cannot be opened: No such file"));
}

#[test]
fn a_file_made_to_exhaust_the_reader_is_refused() {
    let nested = format!("a: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    refused(&ConfigFile::yaml(&nested), &["not valid YAML: "]);
    let nested = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    refused(&ConfigFile::toml(&nested), &["not valid TOML: "]);
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let before = format!("*a{}", level - 1);
        let _ = writeln!(laughs, "a{level}: &a{level} [{}]", [before.as_str(); 10].join(", "));
    }
    refused(&ConfigFile::yaml(&laughs), &["not valid YAML: "]);
}
