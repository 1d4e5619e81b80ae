// SPDX-License-Identifier: Apache-2.0
//! Usage errors and help.

use std::process::Stdio;

use crate::process::{collector, run};

#[test]
fn a_wrong_command_line_exits_with_2_and_prints_nothing_on_stdout() {
    for args in [
        &["get"][..],
        &["get", "replicas", "-m", "a"],
        &["get", "replicas", "-m", "", "-n", "b"],
        &["get", "allocation", "-m", "a", "-n", "b"],
        &["get", "allocation", "-m", "a", "-n", "b", "--variant", "c", "--accelerator", "d"],
        &["get", "models", "-o", "prometheus"],
        &["check", "-m", "a"],
        &["check", "--wait", "soon"],
        &["check", "-o", "wide"],
        &["check", "--fix"],
        &["check", "--hpa", "a.yaml", "-m", "a", "-n", "b"],
        &["check", "--hpa", "a.yaml", "--fix", "--wait", "1s"],
        &["check", "--hpa", "/"],
        &["scaled-object"],
        &["scaled-object", "a", "--door", "grpc"],
        &["scaled-object", "a", "--max", "0"],
        &["demo", "-o", "json"],
        &["demo", "--backend", "nonsense"],
        &["explain", "-m", "a"],
        &["--log-level", "loud", "demo"],
        &["validate"],
        &["sim"],
        &["nonsense"],
    ] {
        let ended = run(&mut collector(), args);
        assert_eq!(ended.exit, 2, "{args:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{args:?}");
    }
}

#[test]
fn every_command_has_a_help() {
    for args in [
        &["--help"][..],
        &["get", "--help"],
        &["get", "replicas", "--help"],
        &["get", "allocation", "--help"],
        &["get", "models", "--help"],
        &["check", "--help"],
        &["explain", "--help"],
        &["scaled-object", "--help"],
        &["validate", "--help"],
        &["config", "show", "--help"],
        &["serve", "--help"],
        &["sim", "--help"],
        &["demo", "--help"],
    ] {
        let ended = run(&mut collector(), args);
        assert_eq!(ended.exit, 0, "{args:?}");
        assert!(ended.stdout.contains("--config"), "{}", ended.stdout);
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let mut command = collector();
    let mut child = command
        .args(["config", "show", "--defaults"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_exits_with_1_and_names_stdout() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = collector();
    let output = command
        .args(["config", "show", "--defaults"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("stdout"));
}
