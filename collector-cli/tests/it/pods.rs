// SPDX-License-Identifier: Apache-2.0
//! The real binary on pods that it scrapes itself, whole and broken.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use collector_sim::{BodyFault, Faults, FleetServer, FleetSpec, Gauges, Load, VariantSpec};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Served, collector, run};

const REPLICAS: [&str; 8] = ["get", "replicas", "-m", "org/model", "-n", "prod", "-o", "json"];

/// Three pods, in each of which some requests finish between any two scrapes.
pub(crate) async fn busy_fleet() -> FleetServer {
    let load = Load { requests_per_minute: 3600.0, ..Load::default() };
    let variant = VariantSpec { pods: 3, load, ..VariantSpec::new("m", "org/model", "prod") };
    let spec = FleetSpec {
        warm_up: Duration::from_secs(60),
        variants: vec![variant],
        ..FleetSpec::default()
    };
    FleetServer::start(spec).await.unwrap()
}

/// The key `targets` with the pods of a fleet.
pub(crate) fn targets(fleet: &FleetServer) -> String {
    let mut toml = "targets = [\n".to_owned();
    for it in fleet.targets() {
        let _ = writeln!(
            toml,
            "{{ url = \"http://{}/metrics\", namespace = {:?}, pod = {:?} }},",
            it.address, it.namespace, it.pod
        );
    }
    toml + "]\n"
}

/// The same pods as a file for `target_file`.
pub(crate) fn target_file(fleet: &FleetServer) -> String {
    let targets = fleet.targets().into_iter().map(|it| {
        json!({
            "targets": [it.address.to_string()],
            "labels": {"namespace": it.namespace, "pod": it.pod},
        })
    });
    targets.collect::<Value>().to_string()
}

pub(crate) struct Pods {
    fleet: FleetServer,
    folder: TempDir,
}

impl Pods {
    pub(crate) async fn start() -> Self {
        Self { fleet: busy_fleet().await, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn config(&self, more: &str) -> PathBuf {
        let toml = format!("backend = \"epp\"\n{more}\n[epp]\nscrape_interval = \"300ms\"\n");
        let file = self.folder.path().join("collector.toml");
        std::fs::write(&file, toml + &targets(&self.fleet)).unwrap();
        file
    }

    fn collector(&self) -> Command {
        let mut command = collector();
        command.arg("--config").arg(self.config(""));
        command
    }

    pub(crate) async fn break_one(&self, pod: &str, faults: Faults) {
        self.fleet.set_faults("prod", pod, faults).await.unwrap();
    }
}

fn names(reading: &Value) -> Vec<&str> {
    let rows = reading["replicas"].as_array().unwrap().iter();
    rows.map(|row| row["podName"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_reading_comes_from_two_scrapes_of_every_pod() {
    let pods = Pods::start().await;
    let ended = run(&mut pods.collector(), &REPLICAS);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let reading = ended.json();
    assert_eq!((&reading["backend"], &reading["status"]), (&"epp".into(), &"fresh".into()));
    assert_eq!(names(&reading), ["m-0", "m-1", "m-2"]);
    assert_eq!(reading["partial"], false);
    let row = &reading["replicas"][0];
    assert_eq!(row["engine"], "vllm");
    assert!(row["ageSeconds"].as_f64().unwrap() < 2.0, "{row}");
    // What only a rate can tell.
    assert!(row["avgInputTokens"].is_number(), "{row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_no_pod_serves_is_missing_with_its_neighbour() {
    let pods = Pods::start().await;
    let args = ["get", "replicas", "-m", "org/modle", "-n", "prod", "-o", "json"];
    let ended = run(&mut pods.collector(), &args);
    assert_eq!(ended.exit, 3, "{}", ended.stderr);
    let error = &ended.json()["error"];
    assert_eq!(
        (&error["reason"], &error["suggestions"][0]),
        (&"MetricsMissing".into(), &"org/model".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_pod_is_unknown_and_the_others_are_read() {
    let pods = Pods::start().await;
    let broken = [
        Faults { hang: true, ..Faults::default() },
        Faults { status: Some(500), ..Faults::default() },
        Faults { body: Some(BodyFault::Garbage), ..Faults::default() },
        Faults { body: Some(BodyFault::Html), ..Faults::default() },
        Faults { body: Some(BodyFault::FalseGzip), ..Faults::default() },
        Faults { body: Some(BodyFault::Endless), ..Faults::default() },
        Faults { vanish: true, ..Faults::default() },
    ];
    for faults in broken {
        pods.break_one("m-1", faults.clone()).await;
        let ended = run(&mut pods.collector(), &REPLICAS);
        assert_eq!(ended.exit, 0, "{faults:?}: {}", ended.stderr);
        let reading = ended.json();
        assert_eq!(names(&reading), ["m-0", "m-2"], "{faults:?}");
        assert_eq!(reading["partial"], true, "{faults:?}");
        // While a pod is silent, nobody can say that a model is missing: it may be there.
        let args = ["get", "replicas", "-m", "org/other", "-n", "prod", "-o", "json"];
        let ended = run(&mut pods.collector(), &args);
        assert_eq!(
            (ended.exit, &ended.json()["error"]["reason"]),
            (5, &"EppError".into()),
            "{faults:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_pod_answers_the_error_names_one_and_the_cause() {
    let pods = Pods::start().await;
    for pod in ["m-0", "m-1", "m-2"] {
        pods.break_one(pod, Faults { status: Some(503), ..Faults::default() }).await;
    }
    let ended = run(&mut pods.collector(), &REPLICAS);
    assert_eq!(ended.exit, 5);
    assert_eq!(ended.json()["error"]["reason"], "EppError");
    assert!(
        ended.stderr.contains("http://127.0.0.1:") && ended.stderr.contains("503"),
        "{}",
        ended.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn check_shows_engines_and_unresponsive_targets() {
    let pods = Pods::start().await;
    let check = ["check", "-m", "org/model", "-n", "prod", "-o", "json"];
    let ended = run(&mut pods.collector(), &check);
    assert_eq!(ended.exit, 0, "{}", ended.stdout);
    let status = |document: &Value, id: &str| {
        let checks = document["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["id"] == id);
        found.unwrap_or_else(|| panic!("no check {id} in {document}"))["status"].clone()
    };
    for id in ["connection.targets", "connection.scrape", "metrics.engines", "metrics.names"] {
        assert_eq!(status(&ended.json(), id), "pass", "{id}");
    }
    pods.break_one("m-1", Faults { hang: true, ..Faults::default() }).await;
    let ended = run(&mut pods.collector(), &check);
    assert_eq!((ended.exit, status(&ended.json(), "connection.scrape")), (1, "fail".into()));
    assert_eq!(status(&ended.json(), "connection.target-1"), "fail");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_the_series_of_the_page() {
    let pods = Pods::start().await;
    let args = ["explain", "-m", "org/model", "-n", "prod", "-o", "json"];
    let ended = run(&mut pods.collector(), &args);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let look = &ended.json()["backends"][0];
    let rows = look["rows"].as_array().unwrap();
    let usage = rows.iter().find(|row| row["field"] == "kvCacheUsage" && row["pod"] == "m-0");
    let usage = usage.unwrap_or_else(|| panic!("{look}"));
    assert_eq!(usage["matched"], "vllm:kv_cache_usage_perc");
    assert!(usage["asked"].as_str().unwrap().contains("vllm:gpu_cache_usage_perc"), "{usage}");
    assert_eq!(usage["used"], true);
    assert!(usage["raw"].is_number() && usage["sampledAgeSeconds"].is_number(), "{usage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_keeps_the_readings_of_pods_that_are_gone() {
    let pods = Pods::start().await;
    let variant = "[[variants]]\nname = \"m\"\nnamespace = \"prod\"\nmodel = \"org/model\"";
    let mut command = collector();
    let serve = Served::start(command.arg("--config").arg(pods.config(variant)));
    let replicas = || serve.get("/api/v1/replicas?model=org/model&namespace=prod");
    let eventually = |what: &str, holds: &dyn Fn() -> bool| {
        for _ in 0..500 {
            if holds() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{what} does not hold: {}", replicas().body);
    };
    eventually("ready", &|| serve.get("/readyz").status == 200);
    assert_eq!(names(&replicas().json()).len(), 3, "ready is: every pod was tried");
    let gauges = Gauges { waiting: 7, running: 3, kv_cache_usage: 0.25 };
    pods.fleet.pin("prod", "m-2", 0, gauges).unwrap();
    eventually("the pod's queue is shown", &|| {
        let row = &replicas().json()["replicas"][2];
        row["queueLength"].as_u64() >= Some(7) && row["runningRequests"] == 3
    });
    for pod in ["m-0", "m-1", "m-2"] {
        pods.fleet.kill_pod("prod", pod).await.unwrap();
    }
    let age = || replicas().json()["ageSeconds"].as_f64();
    eventually("the last good values age", &|| age() > Some(1.0));
    let reading = replicas();
    assert_eq!((reading.status, names(&reading.json()).len()), (200, 3));
    assert_eq!(reading.json()["source"], "last-known-good");
    let metrics = serve.get("/metrics").body;
    for series in [
        "collector_epp_targets{state=\"down\"} 3",
        "collector_epp_scrapes_total{outcome=\"ok\"}",
        "collector_backend_pushes_total{backend=\"epp\"}",
    ] {
        assert!(metrics.contains(series), "no {series}");
    }
    assert_eq!(serve.get("/healthz").status, 200);
    let (exit, log) = serve.stop("-TERM");
    assert_eq!(exit, Some(0), "{log}");
    // A state is logged once when it changes, not at every scrape.
    assert_eq!(log.matches("Target cannot be scraped").count(), 3, "{log}");
}
