// SPDX-License-Identifier: Apache-2.0
//! `serve` from its first second: what it shows of models that nobody has asked for.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use wiremock::ResponseTemplate;

use crate::fake_prometheus::{MODEL, NAMESPACE, answering, empty, with_one_model};
use crate::faults::daemon::Daemon;
use crate::process::collector_of;

fn start(command: &mut Command) -> Daemon {
    Daemon::start_as_configured(command.env("COLLECTOR_SERVER__LISTEN", "127.0.0.1:0"))
}

/// Waits for what `/readyz` says of the backends, and returns all of it.
#[track_caller]
fn readiness(daemon: &Daemon, status: &str) -> Value {
    daemon
        .eventually(status, |daemon| daemon.get("/readyz").json()["discovery"]["status"] == status);
    daemon.get("/readyz").json()
}

fn is_shown(daemon: &Daemon) -> bool {
    let page = daemon.get("/metrics").body;
    let sample = format!(
        "\ncollector_replica_kv_cache_usage{{model_name=\"{MODEL}\",namespace=\"{NAMESPACE}\",pod=\"m-0\""
    );
    page.contains(&sample)
}

#[tokio::test]
async fn a_model_that_nobody_asked_for_is_on_metrics_and_can_be_told_from_the_log() {
    let prometheus = with_one_model(Duration::from_secs(2)).await;
    let daemon = start(&mut collector_of(&prometheus.uri()));
    daemon.eventually("its readings are shown", is_shown);
    let ready = readiness(&daemon, "models");
    assert_eq!(
        (&ready["ready"], &ready["known"], &ready["tracked"]),
        (&json!(true), &json!(1), &json!(1))
    );
    assert_eq!(ready["discovery"]["message"], Value::Null);
    assert_eq!(daemon.get("/api/v1/replicas").json()["items"][0]["model"], MODEL);
    let (exit, log) = daemon.stop("-TERM");
    assert_eq!(exit, Some(0), "{log}");
    let listed = "Listed the models of the backend backend=prometheus models=1 namespaces=1";
    assert!(log.contains(listed), "{log}");
}

#[tokio::test]
async fn with_discovery_off_a_model_is_known_and_not_tracked_until_it_is_read() {
    let prometheus = with_one_model(Duration::from_secs(2)).await;
    let mut command = collector_of(&prometheus.uri());
    let daemon = start(command.env("COLLECTOR_TRACKING__DISCOVER", "false"));
    let ready = readiness(&daemon, "models");
    assert_eq!((&ready["known"], &ready["tracked"]), (&json!(1), &json!(0)));
    assert_eq!(ready["discovery"]["enabled"], false);
    assert!(!is_shown(&daemon));
    assert_eq!(daemon.replicas().status, 200);
    assert!(is_shown(&daemon));
}

#[tokio::test]
async fn only_the_configured_namespaces_are_tracked() {
    let prometheus = with_one_model(Duration::from_secs(2)).await;
    let mut command = collector_of(&prometheus.uri());
    let daemon = start(command.env("COLLECTOR_TRACKING__NAMESPACES", "staging,dev"));
    let ready = readiness(&daemon, "models");
    assert_eq!((&ready["known"], &ready["tracked"]), (&json!(1), &json!(0)));
    let message = ready["discovery"]["message"].as_str().unwrap();
    assert!(message.contains("tracking.namespaces"), "{message}");
    let (_, log) = daemon.stop("-TERM");
    assert!(log.contains("WARN") && log.contains("tracking.namespaces"), "{log}");
}

#[tokio::test]
async fn an_empty_prometheus_and_a_dead_one_are_told_apart() {
    let prometheus = empty().await;
    let daemon = start(&mut collector_of(&prometheus.uri()));
    let ready = readiness(&daemon, "none");
    assert_eq!((&ready["known"], &ready["tracked"]), (&json!(0), &json!(0)));
    let (_, log) = daemon.stop("-TERM");
    assert!(log.contains("The backend answers and knows no model"), "{log}");

    let daemon = start(&mut collector_of("http://127.0.0.1:9"));
    let ready = readiness(&daemon, "failed");
    assert_eq!((&ready["known"], &ready["tracked"]), (&Value::Null, &json!(0)));
    let message = ready["discovery"]["message"].as_str().unwrap();
    assert!(message.contains("http://127.0.0.1:9"), "{message}");
    assert_eq!(daemon.get("/readyz").status, 200, "a pod that is not ready cannot say why");
    let (_, log) = daemon.stop("-TERM");
    let told: Vec<&str> =
        log.lines().filter(|line| line.contains("Cannot list the models")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("WARN") && told[0].contains("backend=prometheus"), "{log}");
}

#[tokio::test]
async fn a_backend_that_hangs_delays_neither_the_start_nor_the_end() {
    let slow = answering(|_| ResponseTemplate::new(200).set_delay(Duration::from_secs(600))).await;
    let mut command = collector_of(&slow.uri());
    let daemon = start(command.env("COLLECTOR_PROMETHEUS__TIMEOUT", "20s"));
    assert_eq!(daemon.get("/healthz").status, 200);
    let ready = daemon.get("/readyz");
    assert_eq!((ready.status, &ready.json()["discovery"]["status"]), (503, &json!("listing")));
    let (exit, log) = daemon.stop_within("-TERM", Duration::from_secs(5));
    assert_eq!(exit, Some(0), "{log}");
}

#[cfg(feature = "epp")]
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_is_scraped_directly_is_shown_without_a_read() {
    use collector_sim::{FleetServer, FleetSpec, VariantSpec};

    use crate::pods::target_file;

    let variant = |name: &str, namespace: &str| {
        let model = format!("org/{name}");
        VariantSpec { pods: 1, ..VariantSpec::new(name, &model, namespace) }
    };
    let variants = vec![variant("one", "prod"), variant("two", "dev")];
    let spec = FleetSpec { variants, warm_up: Duration::from_secs(60), ..FleetSpec::default() };
    let fleet = FleetServer::start(spec).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("targets.json"), target_file(&fleet)).unwrap();
    let config = folder.path().join("collector.toml");
    let toml = "backend = \"scrape\"\n[scrape]\nscrape_interval = \"300ms\"\n\
                target_file = \"targets.json\"\n";
    std::fs::write(&config, toml).unwrap();
    let daemon = start(crate::process::collector().arg("--config").arg(&config));
    for (model, namespace) in [("org/one", "prod"), ("org/two", "dev")] {
        let series = format!(
            "collector_replica_age_seconds{{model_name=\"{model}\",namespace=\"{namespace}\""
        );
        daemon.eventually(model, |daemon| daemon.get("/metrics").body.contains(&series));
    }
    let ready = readiness(&daemon, "models");
    assert_eq!((&ready["known"], &ready["tracked"]), (&json!(2), &json!(2)));
}
