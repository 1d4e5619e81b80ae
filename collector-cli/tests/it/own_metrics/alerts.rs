// SPDX-License-Identifier: Apache-2.0
//! The alerts: in Prometheus' own tests, and in a Prometheus that scrapes a collector whose backend fails and recovers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use collector_testkit::{PrometheusServer, promtool_or_skip};
use serde_json::{Value, json};

use super::METRICS_PAGE;
use super::dashboards::assert_exported;
use super::page::{alerts, documented};
use crate::faults::daemon::Daemon;
use crate::faults::fleet::Fleet;
use crate::faults::server::{Reply, Server};
use crate::process::collector_of;

const ALERTS: &str = include_str!("../../../../deploy/monitoring/alerts.yaml");
const TESTS: &str = include_str!("../../../../deploy/monitoring/alerts-test.yaml");

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/monitoring").join(name)
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn rules() -> Vec<Value> {
    yaml(ALERTS)["groups"][0]["rules"].as_array().unwrap().clone()
}

fn name(rule: &Value) -> String {
    rule["alert"].as_str().unwrap().to_owned()
}

#[test]
fn alerts_name_series_that_are_exported_and_are_documented() {
    let families = documented(METRICS_PAGE);
    for rule in rules() {
        assert_exported(rule["expr"].as_str().unwrap(), &families);
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].is_string(), "{rule}");
        }
    }
    assert_eq!(alerts(METRICS_PAGE), rules().iter().map(name).collect::<BTreeSet<_>>());
}

#[test]
fn each_alert_fires_and_resolves_in_prometheus_own_test() {
    for arguments in [["check", "rules"], ["test", "rules"]] {
        let name = if arguments[0] == "test" { "alerts-test.yaml" } else { "alerts.yaml" };
        let arguments = arguments.map(PathBuf::from).into_iter().chain([file(name)]);
        if let Some(Err(complaints)) = promtool_or_skip(arguments, "") {
            panic!("{complaints}");
        }
    }
    let tests = yaml(TESTS);
    let tests = tests["tests"].as_array().unwrap();
    for rule in rules() {
        let name = name(&rule);
        let test = tests.iter().find(|test| test["name"] == name.as_str());
        let test = test.unwrap_or_else(|| panic!("{name} has no test"));
        let cases = test["alert_rule_test"].as_array().unwrap();
        assert!(cases.iter().all(|case| case["alertname"] == name.as_str()), "{test}");
        let fires = |case: &Value| !case["exp_alerts"].as_array().unwrap().is_empty();
        let states = cases.iter().map(fires).collect::<Vec<_>>();
        assert_eq!(states, [true, false], "{name} fires and then resolves");
    }
}

#[test]
fn scrape_configurations_are_valid() {
    if let Some(Err(complaints)) =
        promtool_or_skip([Path::new("check"), Path::new("config"), &file("prometheus.yaml")], "")
    {
        panic!("{complaints}");
    }
    // Debian's promtool knows nothing of Kubernetes.
    let mut config = yaml(include_str!("../../../../deploy/monitoring/prometheus-kubernetes.yaml"));
    config["rule_files"] = json!([file("alerts.yaml")]);
    let job = config["scrape_configs"][0].as_object_mut().unwrap();
    assert_eq!(job.remove("kubernetes_sd_configs").unwrap()[0]["role"], "pod");
    assert_eq!((&job["job_name"], &job["honor_labels"]), (&json!("collector"), &json!(true)));
    let rest = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(rest.path(), config.to_string()).unwrap();
    if let Some(Err(complaints)) =
        promtool_or_skip([Path::new("check"), Path::new("config"), rest.path()], "")
    {
        panic!("{complaints}");
    }
    for (text, kind, endpoints) in [
        (
            include_str!("../../../../deploy/monitoring/servicemonitor.yaml"),
            "ServiceMonitor",
            "endpoints",
        ),
        (
            include_str!("../../../../deploy/monitoring/podmonitor.yaml"),
            "PodMonitor",
            "podMetricsEndpoints",
        ),
    ] {
        let monitor = yaml(text);
        assert_eq!(
            (&monitor["apiVersion"], &monitor["kind"]),
            (&json!("monitoring.coreos.com/v1"), &json!(kind))
        );
        // So the job is called as the alerts have it.
        let label = monitor["spec"]["jobLabel"].as_str().unwrap();
        assert_eq!(monitor["spec"]["selector"]["matchLabels"][label], "collector");
        let endpoint = &monitor["spec"][endpoints][0];
        assert_eq!(
            (&endpoint["path"], &endpoint["honorLabels"]),
            (&json!("/metrics"), &json!(true))
        );
    }
}

/// The rules, evaluated often, and firing after a second.
fn hurried(folder: &Path) -> PathBuf {
    let mut rules = rules();
    for rule in &mut rules {
        rule["for"] = json!("1s");
    }
    let path = folder.join("alerts.yaml");
    let rules = json!({"groups": [{"name": "collector", "interval": "200ms", "rules": rules}]});
    std::fs::write(&path, rules.to_string()).unwrap();
    path
}

async fn firing(prometheus: &PrometheusServer) -> BTreeSet<String> {
    let text = prometheus.get("/api/v1/alerts").await.unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let alerts = document["data"]["alerts"].as_array().unwrap();
    let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
    firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
}

/// Looks again and again until all of these fire, or none of them.
#[track_caller]
fn until<'a>(
    prometheus: &'a PrometheusServer,
    alerts: &'a [&str],
    fire: bool,
) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let mut now = BTreeSet::new();
        for _ in 0..600 {
            now = firing(prometheus).await;
            if alerts.iter().all(|alert| now.contains(*alert) == fire) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not in a minute: {alerts:?} {fire}, but {now:?} ({caller})");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_a_real_prometheus_fire_in_an_outage_and_resolve_after_it() {
    let backend = Server::start(|request| Fleet::default().reply(request));
    let start = |listen: &str| {
        let mut command = collector_of(&backend.url());
        for (key, value) in [
            ("SERVER__LISTEN", listen),
            ("PROMETHEUS__TIMEOUT", "500ms"),
            ("CACHE__FETCH_INTERVAL", "1s"),
            ("CACHE__TTL", "1s"),
            ("CACHE__FRESHNESS__FRESH_THRESHOLD", "6s"),
            ("CACHE__FRESHNESS__STALE_THRESHOLD", "7s"),
            ("CACHE__FRESHNESS__UNAVAILABLE_THRESHOLD", "9s"),
        ] {
            command.env(format!("COLLECTOR_{key}"), value);
        }
        Daemon::start_as_configured(&mut command)
    };
    let daemon = start("127.0.0.1:0");
    let address = daemon.address.to_string();
    daemon.eventually("there is a reading", |daemon| {
        daemon.get("/metrics").body.contains("collector_replica_queue_length{")
    });
    let folder = tempfile::tempdir().unwrap();
    let rules = hurried(folder.path());
    let job = json!({
        "job_name": "collector", "honor_labels": true, "static_configs": [{"targets": [address]}],
    });
    let config = json!({
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
        "rule_files": [rules], "scrape_configs": [job],
    });
    let Some(prometheus) = PrometheusServer::start_with_or_skip(&config.to_string()).await else {
        return;
    };
    let of_outage = ["CollectorBackendDown", "CollectorReadingUnavailable"];
    // It is scraped, and nothing is wrong.
    while !prometheus
        .get("/api/v1/query?query=collector_reading_up")
        .await
        .unwrap()
        .contains("org/model")
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let all = [&["CollectorDown", "CollectorAbsent"], &of_outage[..]].concat();
    until(&prometheus, &all, false).await;

    backend.change(|_| Reply::status(503, "out of order"));
    until(&prometheus, &of_outage, true).await;
    backend.change(|request| Fleet::default().reply(request));
    until(&prometheus, &of_outage, false).await;

    drop(daemon);
    until(&prometheus, &["CollectorDown"], true).await;
    let _daemon = start(&address);
    until(&prometheus, &all, false).await;
}
