// SPDX-License-Identifier: Apache-2.0
//! What a recording is read as: by each command, over HTTP, and through the doors of autoscalers.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{once, place, pods, prometheus, record, recorder};
use crate::faults::daemon::Daemon;
use crate::faults::fleet::{Fleet, MODEL, NAMESPACE};
use crate::faults::server::Reply;
use crate::process::{collector, run};

/// The binary with a recording as its backend.
fn replaying(file: &Path) -> Command {
    let mut command = collector();
    command.env("COLLECTOR_BACKEND", "replay").env("COLLECTOR_REPLAY__PATH", file);
    command
}

#[test]
fn a_reading_is_what_it_was_with_the_age_that_it_had() {
    let server = prometheus(&["m-0", "m-1"]);
    let (_folder, file) = place();
    record(&server, &file, &[]);
    server.change(|_| Reply::status(503, ""));
    let ended = once(&file, &[]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("Readings are those of the recording"), "{}", ended.stderr);
    let reading = ended.json();
    assert_eq!((&reading["status"], &reading["backend"]), (&"fresh".into(), &"prometheus".into()));
    assert_eq!(pods(&reading), ["m-0", "m-1"]);
    assert_eq!(reading["replicas"][0]["queueLength"], 3);
    assert_eq!(reading["replicas"][0]["kvCacheUsage"], 0.42);
    // The fleet's samples were 3 s old when they were asked for, at most 1.5 s before.
    let age = reading["ageSeconds"].as_f64().unwrap();
    assert!((2.9..4.6).contains(&age), "{age}");
    assert!(server.asked().iter().all(|request| !request.query.is_empty()), "nothing was sent");
}

#[test]
fn a_time_without_a_recording_is_an_error_and_no_zero() {
    let server = prometheus(&["m-0"]);
    let (_folder, file) = place();
    record(&server, &file, &[]);
    let before = fs::read(&file).unwrap();
    // Two processes with a pause between them.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    record(&server, &file, &[]);
    assert!(fs::read(&file).unwrap().starts_with(&before), "it is appended to");
    for (start, exit) in [("1s", 0), ("2200ms", 5), ("3900ms", 0), ("1h", 2)] {
        let ended = once(&file, &["--start", start]);
        assert_eq!(ended.exit, exit, "{start}: {}", ended.stderr);
        if exit == 5 {
            assert_eq!(ended.json()["error"]["reason"], "PrometheusError", "{}", ended.stdout);
            assert!(ended.stderr.contains("nothing was recorded from"), "{}", ended.stderr);
        }
        if exit == 2 {
            let expected = format!("error: --start: replay.start: {} is only ", file.display());
            assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
            let (_, length) = ended.stderr.split_once(" is only ").unwrap();
            assert!(!length.contains("us"), "it is in milliseconds: {length}");
        }
    }
}

#[test]
fn an_outage_is_replayed_as_the_error_that_it_was() {
    let server = prometheus(&["m-0"]);
    let (_folder, file) = place();
    server.change(|_| Reply::status(401, ""));
    record(&server, &file, &["-m", MODEL, "-n", NAMESPACE]);
    let ended = once(&file, &[]);
    assert_eq!(ended.exit, 5, "{}", ended.stderr);
    let error = format!("fetching metrics from {}: not authorized (401)", server.url());
    assert!(ended.stderr.contains(&error), "{}", ended.stderr);
}

#[test]
fn a_model_that_was_not_there_is_missing() {
    let server = prometheus(&["m-0"]);
    let (_folder, file) = place();
    record(&server, &file, &[]);
    let args = ["get", "replicas", "-m", "org/other", "-n", NAMESPACE, "-o", "json"];
    let mut command = replaying(&file);
    let ended = run(command.env("COLLECTOR_REPLAY__SPEED", "0"), &args);
    assert_eq!(ended.exit, 3, "{}", ended.stderr);
    assert!(ended.stderr.contains(MODEL), "what there is is named: {}", ended.stderr);
}

#[test]
fn every_command_reads_it_as_a_backend_and_opens_it_once() {
    let server = prometheus(&["m-0", "m-1"]);
    let (folder, file) = place();
    record(&server, &file, &[]);
    let config = folder.path().join("collector.toml");
    // A relative path counts from the file, and the settings of other backends do no harm.
    let text = "backend = \"replay\"\n[replay]\npath = \"incident.rec\"\nspeed = 0\n\
                [prometheus]\nurl = \"https://prometheus.invalid\"\n";
    fs::write(&config, text).unwrap();
    let of = |args: &[&str]| {
        let ended = run(collector().arg("--config").arg(&config), args);
        // It warns when it opens the file.
        let opened = ended.stderr.matches("Readings are those of the recording").count();
        assert_eq!(opened, usize::from(args[0] != "validate"), "{args:?}: {}", ended.stderr);
        ended
    };
    let model = ["-m", MODEL, "-n", NAMESPACE];
    let ended = of(&["get", "models", "-o", "json"]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert_eq!(ended.json()["items"][0]["model"], MODEL);
    assert_eq!(of(&["get", "replicas", "-A"]).exit, 0);
    let ended = of(&[&["explain", "-o", "json"][..], &model].concat());
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let ended = of(&[&["check"][..], &model].concat());
    assert_eq!(ended.exit, 0, "{}{}", ended.stdout, ended.stderr);
    assert!(
        ended.stdout.contains("✓ recording: ") && ended.stdout.contains("incident.rec"),
        "{}",
        ended.stdout
    );
    let ended = of(&["validate", config.to_str().unwrap()]);
    assert_eq!(ended.exit, 0, "{}{}", ended.stdout, ended.stderr);
}

#[test]
fn it_is_not_mixed_with_what_is_measured_now() {
    let (folder, file) = place();
    let config = folder.path().join("collector.toml");
    let refused = |text: &str| {
        fs::write(&config, text).unwrap();
        let ended = run(&mut collector(), &["validate", config.to_str().unwrap()]);
        assert_eq!(ended.exit, 2, "{}{}", ended.stdout, ended.stderr);
        ended.stdout + &ended.stderr
    };
    let with = |backend: &str, more: &str| {
        format!(
            "backend = {backend}\n[prometheus]\nurl = \"https://p.invalid\"\n[replay]\npath = {file:?}\n{more}"
        )
    };
    let text = refused(&with("[\"replay\", \"prometheus\"]", ""));
    assert!(text.contains("\"replay\" cannot be merged with other backends"), "{text}");
    let text = refused(&with("\"replay\"", "speed = 5000\n"));
    assert!(text.contains("5000 is not a speed: use one from 0.01 to 1000, or 0"), "{text}");
    let text = refused("backend = \"replay\"\n");
    assert!(text.contains("replay.path: names no recording"), "{text}");
}

/// The PromQL API and the readings of a daemon that replays, whose configuration has a Prometheus as well.
#[cfg(feature = "promql")]
#[test]
fn a_daemon_serves_it_through_every_door_and_asks_no_server() {
    let server = prometheus(&["m-0", "m-1"]);
    let (_folder, file) = place();
    record(&server, &file, &[]);
    let fleet = Fleet::of_pods(&["m-0", "m-1", "m-2"]);
    server.change(move |request| fleet.reply(request));
    server.asked();
    let mut command = recorder(&server);
    command
        .env("COLLECTOR_BACKEND", "replay")
        .env("COLLECTOR_REPLAY__PATH", &file)
        .env("COLLECTOR_REPLAY__LOOP", "true")
        .env("COLLECTOR_PROMQL__ENABLED", "true")
        .env("COLLECTOR_SERVER__LISTEN", "127.0.0.1:0");
    let daemon = Daemon::start_as_configured(&mut command);
    daemon.eventually("a reading", |daemon| daemon.reading().0 == 200);
    let (_, reading) = daemon.reading();
    assert_eq!(pods(&reading), ["m-0", "m-1"]);
    let query = format!("sum(collector_replica_queue_length{{model_name=%22{MODEL}%22}})");
    daemon.eventually("the sum of two queues of 3", |daemon| {
        let answer = daemon.get(&format!("/api/v1/query?query={query}"));
        assert!(!answer.body.contains("\"9\""), "three pods: {}", answer.body);
        answer.status == 200 && answer.body.contains("\"6\"")
    });
    assert!(server.asked().is_empty(), "the server of today has no part in it");
    assert!(daemon.log().contains("over readings of the recording"), "{}", daemon.log());
    assert_eq!(daemon.stop("-TERM").0, Some(0));
}

#[test]
fn the_speed_stays_when_the_configuration_is_read_again() {
    let server = prometheus(&["m-0"]);
    let (folder, file) = place();
    record(&server, &file, &[]);
    let config = folder.path().join("collector.toml");
    let write = |more: &str, variants: &str| {
        let text = format!(
            "backend = \"replay\"\n[replay]\npath = {file:?}\nloop = true\n{more}\n[server]\nlisten = \"127.0.0.1:0\"\n{variants}"
        );
        fs::write(&config, text).unwrap();
    };
    write("", "");
    let daemon = Daemon::start_as_configured(collector().arg("--config").arg(&config));
    write("speed = 10", "");
    daemon.signal("-HUP");
    daemon.eventually("a refusal", |daemon| {
        daemon.log().contains(
            "time would pass at the speed 10 instead of 1: only a restart can change that",
        )
    });
    // Other keys can change, and the replay goes on.
    write(
        "",
        &format!("[[variants]]\nname = \"v\"\nnamespace = \"{NAMESPACE}\"\nmodel = \"{MODEL}\"\n"),
    );
    daemon.signal("-HUP");
    daemon.eventually("a variant", |daemon| {
        let (status, reading) = daemon.reading();
        status == 200 && reading["replicas"][0]["variantName"] == "v"
    });
}

#[test]
fn it_is_served_and_watched() {
    let server = prometheus(&["m-0", "m-1"]);
    let (_folder, file) = place();
    record(&server, &file, &[]);
    let name = file.to_str().unwrap();
    let mut watched = collector()
        .args(["replay", name, "--watch", "--loop"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(watched.stdout.take().unwrap()));
    let title = lines.next().unwrap().unwrap();
    assert!(
        title.starts_with(&format!("collector replay: {name} at speed 1; a line a model")),
        "{title}"
    );
    let line = lines.find(|line| line.as_ref().unwrap().contains("fresh")).unwrap().unwrap();
    assert!(line.contains("org/model in prod: fresh") && line.contains("2 pods"), "{line}");
    let sent = Command::new("kill").args(["-INT", &watched.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(watched.wait().unwrap().code(), Some(0));
    for args in [
        vec!["replay", name, "-m", MODEL, "-n", NAMESPACE],
        vec!["replay", name, "-o", "json"],
        vec!["replay", name, "--once"],
        vec!["replay", name, "--once", "--speed", "2x", "-m", MODEL, "-n", NAMESPACE],
        vec!["replay", name, "--speed", "0x"],
        vec!["replay", name, "--speed", "1001"],
        vec!["--backend", "prometheus", "replay", name],
    ] {
        let ended = run(&mut collector(), &args);
        assert_eq!((ended.exit, &*ended.stdout), (2, ""), "{args:?}: {}", ended.stderr);
    }
}
