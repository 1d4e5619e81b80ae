// SPDX-License-Identifier: Apache-2.0
//! `record` and `replay`, with the real binary.

mod limits;
mod real;
mod replayed;
mod secrets;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::faults::fleet::{Fleet, MODEL, NAMESPACE};
use crate::faults::server::Server;
use crate::process::{Ended, collector, collector_of, run};

/// A Prometheus with one model of these pods.
fn prometheus(pods: &[&str]) -> Server {
    let fleet = Fleet::of_pods(pods);
    Server::start(move |request| fleet.reply(request))
}

/// The binary with this Prometheus, refreshing each second.
fn recorder(server: &Server) -> Command {
    let mut command = collector_of(&server.url());
    command.env("COLLECTOR_CACHE__FETCH_INTERVAL", "1s").env("COLLECTOR_CACHE__TTL", "1s");
    command.env("COLLECTOR_PROMETHEUS__TIMEOUT", "500ms");
    command
}

/// A folder, and the path of a recording in it.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("incident.rec");
    (folder, file)
}

/// Records for a while, and succeeds.
#[track_caller]
fn record(server: &Server, file: &Path, more: &[&str]) -> Ended {
    let mut args = vec!["record", file.to_str().unwrap(), "--duration", "1500ms"];
    args.extend(more);
    let ended = run(&mut recorder(server), &args);
    assert_eq!((ended.exit, &*ended.stdout), (0, ""), "{}", ended.stderr);
    ended
}

/// Prints the reading of the model at the end of a recording, or elsewhere.
fn once(file: &Path, more: &[&str]) -> Ended {
    let mut args = vec!["replay", file.to_str().unwrap(), "--once", "-o", "json"];
    args.extend(["-m", MODEL, "-n", NAMESPACE]);
    args.extend(more);
    run(&mut collector(), &args)
}

fn pods(reading: &Value) -> Vec<&str> {
    let rows = reading["replicas"].as_array().unwrap().iter();
    rows.map(|row| row["podName"].as_str().unwrap()).collect()
}

/// All entries of a recording, unpacked.
fn unpacked(file: &Path) -> String {
    let bytes = fs::read(file).unwrap();
    let mut text = String::new();
    let mut rest = &bytes[bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1..];
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        flate2::read::ZlibDecoder::new(&rest[16..16 + length]).read_to_string(&mut text).unwrap();
        rest = &rest[16 + length..];
    }
    text
}
