// SPDX-License-Identifier: Apache-2.0
//! A daemon that ends while its Prometheus goes away, and the next one over the same snapshot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::daemon::Daemon;
use super::fleet::{Fleet, MODEL, NAMESPACE};
use super::server::{Reply, Server};
use super::verdict::check;
use crate::process::{collector_of, run};

/// A folder with a configuration that names a snapshot beside itself.
struct Setup {
    folder: TempDir,
    server: Server,
}

impl Setup {
    fn new() -> Self {
        let fleet = Fleet::default();
        let server = Server::start(move |request| fleet.reply(request));
        let folder = tempfile::tempdir().unwrap();
        let text = "[cache]\nsnapshot_path = \"readings\"\n";
        fs::write(folder.path().join("collector.toml"), text).unwrap();
        Self { folder, server }
    }

    /// After a daemon that has read the fleet, was stopped and has lost its Prometheus; and the reading.
    fn after_a_daemon() -> (Self, Value) {
        let setup = Self::new();
        let daemon = setup.daemon();
        let (status, reading) = daemon.reading();
        assert_eq!((status, &reading["source"]), (200, &"backend".into()));
        let (exit, log) = daemon.stop("-TERM");
        assert_eq!(exit, Some(0), "{log}");
        check("", &log);
        setup.server.change(|_| Reply::Reset(Vec::new()));
        (setup, reading)
    }

    fn snapshot(&self) -> PathBuf {
        self.folder.path().join("readings")
    }

    fn command(&self) -> Command {
        let mut command = collector_of(&self.server.url());
        command.env("COLLECTOR_CONFIG", self.folder.path().join("collector.toml"));
        command
    }

    fn daemon(&self) -> Daemon {
        Daemon::start(&mut self.command())
    }
}

/// The same samples as in `before`, last-known-good and as old as they are.
#[track_caller]
fn check_restored(daemon: &Daemon, before: &Value) {
    let (status, reading) = daemon.reading();
    assert_eq!(status, 200, "{reading}");
    assert_eq!(reading["source"], "last-known-good", "{reading}");
    let of_replicas = |reading: &Value, field: &str| -> Vec<Value> {
        let replicas = reading["replicas"].as_array().unwrap().iter();
        replicas.map(|replica| replica[field].clone()).collect()
    };
    for field in ["podName", "kvCacheUsage", "queueLength", "runningRequests", "numGpuBlocks"] {
        assert_eq!(of_replicas(&reading, field), of_replicas(before, field));
    }
    let sampled = |reading: &Value| -> jiff::Timestamp {
        reading["collectedAt"].as_str().unwrap().parse().unwrap()
    };
    // Whatever has passed since, that is when it was sampled.
    let moved = sampled(&reading).duration_since(sampled(before)).unsigned_abs();
    assert!(moved.as_millis() < 500, "{reading} {before}");
    assert!(reading["ageSeconds"].as_f64() > before["ageSeconds"].as_f64());
}

#[test]
fn readings_outlive_the_daemon_and_a_kill() {
    let (setup, before) = Setup::after_a_daemon();
    let daemon = setup.daemon();
    check_restored(&daemon, &before);
    daemon.eventually("ready", |daemon| daemon.get("/readyz").status == 200);
    // On a busy machine the first cycle may end before the backend counts as down.
    daemon.eventually("down", |daemon| {
        daemon.get("/readyz").json()["backends"][0]["state"] == "down"
    });
    assert_eq!(daemon.get("/readyz").json()["tracked"], 1);
    assert_eq!(daemon.get("/healthz").status, 200);
    assert!(daemon.log().contains("Restored the readings of a former run"), "{}", daemon.log());
    check_restored(&daemon, &before);
    daemon.stop("-KILL");

    let daemon = setup.daemon();
    check_restored(&daemon, &before);
    let (exit, log) = daemon.stop("-INT");
    assert_eq!(exit, Some(0), "{log}");
    check("", &log);
}

#[test]
fn an_invalid_snapshot_is_reported_and_not_used() {
    let (setup, _) = Setup::after_a_daemon();
    let text = fs::read_to_string(setup.snapshot()).unwrap();
    let later = text.replacen("\"collectorSnapshot\":3", "\"collectorSnapshot\":4", 1);
    assert_ne!(later, text, "another format");
    let cases: [(&[u8], &str); 3] = [
        (later.as_bytes(), "format 4"),
        (b"collector-snapshot 2 00000000000000000016 0a1b2c3d\n{}\n", "an earlier version"),
        (b"PK\x03\x04 something else", "not a snapshot"),
    ];
    for (bytes, reason) in cases {
        fs::write(setup.snapshot(), bytes).unwrap();
        let daemon = setup.daemon();
        let (status, error) = daemon.reading();
        assert_eq!((status, &error["error"]["reason"]), (503, &"PrometheusError".into()));
        assert_eq!(daemon.get("/readyz").status, 200);
        let (exit, log) = daemon.stop("-KILL");
        assert_eq!(exit, None);
        let ignored: Vec<&str> = log.lines().filter(|line| line.contains("ignored")).collect();
        assert_eq!(ignored.len(), 1, "{log}");
        for part in ["WARN", reason, &setup.snapshot().display().to_string()] {
            assert!(ignored[0].contains(part), "no {part}: {log}");
        }
    }
}

#[test]
fn an_unwritable_snapshot_is_reported_once() {
    let setup = Setup::new();
    let absent = Path::new("/does/not/exist/readings");
    let daemon = Daemon::start(setup.command().env("COLLECTOR_CACHE__SNAPSHOT_PATH", absent));
    assert_eq!(daemon.reading().0, 200);
    let page = daemon.get("/metrics").body;
    assert!(page.contains("\ncollector_cache_snapshot_failures_total 0\n"), "{page}");
    // Not 0: it has not been written yet.
    assert!(!page.contains("\ncollector_cache_snapshot_bytes "), "{page}");
    let (exit, log) = daemon.stop("-TERM");
    assert_eq!(exit, Some(0), "{log}");
    check("", &log);
    let told = log.lines().filter(|line| line.contains("Cannot write the snapshot"));
    let told: Vec<&str> = told.collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains(&absent.display().to_string()), "{log}");
}

#[test]
fn a_command_does_not_touch_the_daemons_snapshot() {
    let (setup, _) = Setup::after_a_daemon();
    let before = fs::read(setup.snapshot()).unwrap();
    let ended = run(&mut setup.command(), &["get", "replicas", "-m", MODEL, "-n", NAMESPACE]);
    assert_eq!(ended.exit, 5, "{}", ended.stderr);
    assert_eq!(fs::read(setup.snapshot()).unwrap(), before);
    assert_eq!(fs::read_dir(setup.folder.path()).unwrap().count(), 2);
}
