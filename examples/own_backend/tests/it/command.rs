// SPDX-License-Identifier: Apache-2.0
//! The binary: the command line over a configuration that chooses this backend.

use std::path::Path;
use std::process::{Command, Output};

use crate::FileFleet;

/// A fleet with a configuration beside it.
fn configured() -> FileFleet {
    let fleet = FileFleet::new();
    let toml = "backend = \"static-json\"\n[static-json]\npath = \"fleet.json\"\n";
    std::fs::write(fleet.folder.path().join("collector.toml"), toml).unwrap();
    fleet
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_static-json-backend"));
    command.args(arguments).current_dir(folder).env_clear().output().unwrap()
}

#[track_caller]
fn check(arguments: &[&str], exit: i32, part: &str) {
    let fleet = configured();
    let Output { status, stdout, stderr } = run(fleet.folder.path(), arguments);
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(exit), "{stdout}{stderr}");
    assert!(stdout.contains(part) || stderr.contains(part), "no {part:?} in {stdout}{stderr}");
}

#[test]
fn every_command_works_with_a_registered_backend() {
    const CONFIG: [&str; 2] = ["--config", "collector.toml"];
    let with_config = |command: &[&'static str]| [&CONFIG, command].concat();
    let model = ["-m", "org/chat", "-n", "prod"];
    let get = [&["get", "replicas"], &model[..]].concat();
    check(&with_config(&get), 0, "chat-1");
    check(&with_config(&["get", "models"]), 0, "org/asleep");
    let absent = ["get", "replicas", "-m", "org/chatt", "-n", "prod"];
    check(&with_config(&absent), 3, "did you mean \"org/chat\"");
    let checked = [&["check"], &model[..]].concat();
    check(&with_config(&checked), 0, "2 models, ");
    check(&["validate", "collector.toml"], 0, "static-json.path: fleet.json");
    check(&with_config(&["config", "show", "--origin"]), 0, "collector.toml:3");
    // A name that is not registered is refused with those that are.
    check(&with_config(&["--backend", "graphite", "get", "models"]), 2, "static-json");
}

#[test]
fn a_wrong_key_of_its_section_is_refused_with_the_nearest() {
    let fleet = configured();
    let toml = "backend = \"static-json\"\n[static-json]\npaht = \"fleet.json\"\n";
    std::fs::write(fleet.folder.path().join("wrong.toml"), toml).unwrap();
    let output = run(fleet.folder.path(), &["validate", "wrong.toml"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let expected = "wrong.toml:3: static-json.paht: unknown key; did you mean static-json.path?";
    assert!(stderr.contains(expected), "{stderr}");
    assert!(stderr.contains("static-json.path: not set; name the file"), "{stderr}");
}
