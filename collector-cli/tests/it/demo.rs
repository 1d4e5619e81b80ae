//! `demo`: the product on a simulated fleet.

use std::process::Command;

use crate::process::{Ended, collector, run};

/// Three models of eight pods each, with what only rates can tell.
fn check_once(ended: &Ended, backend: &str) {
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let list = ended.json();
    assert_eq!(list["schemaVersion"], 1);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    for item in items {
        assert_eq!((&item["kind"], &item["backend"]), (&"replicas".into(), &backend.into()));
        assert_eq!(item["status"], "fresh");
        assert_eq!(item["replicas"].as_array().unwrap().len(), 8);
        let replica = &item["replicas"][0];
        assert!(replica["totalKvCapacityTokens"].as_u64().unwrap() > 0, "{replica}");
        assert!(replica["variantName"].is_string(), "{replica}");
    }
}

#[cfg(feature = "epp")]
#[test]
fn one_reading_of_every_model_is_a_list_document() {
    let ended = run(&mut collector(), &["demo", "--once", "-o", "json"]);
    check_once(&ended, "epp");
    // A look scrapes twice, so that there are rates.
    let items = ended.json()["items"].clone();
    let tokens = |item: &serde_json::Value| item["replicas"][0]["avgInputTokens"].as_f64();
    assert!(items.as_array().unwrap().iter().any(|item| tokens(item).is_some()), "{items}");
}

#[cfg(feature = "epp")]
#[test]
fn it_shows_the_fleet_and_says_what_it_measured() {
    let ended = run(&mut collector(), &["demo", "--duration", "2500ms"]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let text = &ended.stdout;
    assert!(text.contains("fresh") && text.contains("from epp"), "{text}");
    for part in
        ["llama-8b-0", "qwen-coder-7", "readings served", "(p99)", "scrapes", "bytes of pages"]
    {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    // Without a terminal nothing moves the cursor.
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[cfg(feature = "prometheus")]
#[test]
fn it_does_the_same_through_a_real_prometheus() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        assert!(
            std::env::var_os(collector_testkit::REQUIRE_REAL_SERVERS).is_none(),
            "real servers are required, and prometheus is not installed"
        );
        return;
    }
    let args = ["demo", "--backend", "prometheus", "--once", "-o", "json"];
    check_once(&run(&mut collector(), &args), "prometheus");
}

#[cfg(feature = "prometheus")]
#[test]
fn without_prometheus_it_says_what_to_install() {
    let mut without = collector();
    without.env("PATH", "/nowhere");
    let ended = run(&mut without, &["demo", "--backend", "prometheus", "--once"]);
    assert_eq!(ended.exit, 1);
    assert!(ended.stderr.contains("apt-get install prometheus"), "{}", ended.stderr);
}
