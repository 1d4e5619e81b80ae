// SPDX-License-Identifier: Apache-2.0
//! What is in `deploy`: the container image and the systemd unit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{collector, run};

const DOCKERFILE: &str = include_str!("../../../deploy/docker/Dockerfile");
const UNIT: &str = include_str!("../../../deploy/systemd/collector.service");

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn available(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// The instructions of a Dockerfile with their arguments, without comments, on one line each.
fn instructions() -> Vec<(&'static str, String)> {
    let mut found: Vec<(&str, String)> = Vec::new();
    let mut continued = false;
    for line in DOCKERFILE.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let part = line.trim_end_matches('\\').trim();
        if continued {
            let (_, arguments) = found.last_mut().unwrap();
            arguments.push(' ');
            arguments.push_str(part);
        } else {
            let (instruction, arguments) = part.split_once(' ').expect("it has arguments");
            found.push((instruction, arguments.to_owned()));
        }
        continued = line.ends_with('\\');
    }
    found
}

#[test]
fn the_image_has_the_daemon_alone_and_an_unprivileged_user() {
    let instructions = instructions();
    let last = instructions.iter().rposition(|(name, _)| *name == "FROM").unwrap();
    let (build, image) = instructions.split_at(last);
    assert!(build[0].1.ends_with(" AS build"), "{:?}", build[0]);
    assert_eq!(image[0], ("FROM", "scratch".to_owned()));
    let of = |name: &str| {
        let mut found = image.iter().filter(|(known, _)| *known == name);
        let (_, arguments) = found.next().unwrap_or_else(|| panic!("the image has no {name}"));
        assert!(found.next().is_none(), "the image has two {name}");
        arguments.as_str()
    };
    assert_eq!(of("COPY"), "--from=build /rootfs/ /");
    // Kubernetes' `runAsNonRoot` refuses names of users.
    let (user, group) = of("USER").split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
    let entry: Vec<String> = serde_json::from_str(of("ENTRYPOINT")).unwrap();
    assert_eq!(entry, ["/usr/bin/collector"]);
    let arguments: Vec<String> = serde_json::from_str(of("CMD")).unwrap();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert_eq!(run(collector().args(arguments), &["--help"]).exit, 0);
    let defaults = run(&mut collector(), &["config", "show", "--defaults", "-o", "json"]).stdout;
    assert!(defaults.contains(&format!("127.0.0.1:{}", of("EXPOSE"))), "another port");

    let (_, steps) = build.iter().find(|(name, _)| *name == "RUN").unwrap();
    let compile = steps.split("&&").next().unwrap();
    let only_server = "--no-default-features --features server,kubernetes";
    assert!(compile.trim_end().ends_with(only_server), "{compile}");
    let manifest = include_str!("../../Cargo.toml");
    let manifest: toml::Table = manifest.parse().unwrap();
    let server = manifest["features"]["server"].as_array().unwrap();
    for absent in ["sim", "tui", "default"] {
        assert!(!server.iter().any(|feature| feature.as_str() == Some(absent)), "{absent}");
    }
    assert!(manifest["features"]["default"].as_array().unwrap().contains(&"server".into()));
}

/// Runs the steps of the image's build after the compilation, with the program that is tested, and then the program in
/// the folder that becomes the image.
#[test]
#[cfg(target_os = "linux")]
fn the_program_runs_in_the_files_of_the_image() {
    if !Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        skipped("ca-certificates is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("rootfs");
    let (_, steps) = instructions().into_iter().find(|(name, _)| *name == "RUN").unwrap();
    for step in steps.split("&&").map(str::trim) {
        // The notices have tests of their own, in `xtask`.
        if step.starts_with("cargo ") {
            continue;
        }
        let step = step
            .replace("target/dist/collector", env!("CARGO_BIN_EXE_collector"))
            .replace(" /rootfs", &format!(" {}", root.display()));
        let output = Command::new("sh").args(["-euc", &step]).current_dir(repository()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{step}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(root.join("etc/ssl/certs/ca-certificates.crt").exists());
    assert!(root.join("usr/share/doc/collector/LICENSE").exists());
    assert!(fs::read_to_string(root.join("etc/passwd")).unwrap().contains(":65532:65532:"));

    let mut chroot = Command::new("chroot");
    chroot.arg("--userspec=65532:65532").arg(&root).arg("/usr/bin/collector").arg("--version");
    let output = chroot.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("not permitted") {
        skipped("only root may change the root folder");
        return;
    }
    assert!(output.status.success(), "{stderr}");
    assert!(output.stdout.starts_with(b"collector "));
}

#[test]
fn systemd_takes_the_unit_and_finds_it_confined() {
    let start = UNIT.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/collector "));
    let arguments: Vec<&str> = start.unwrap().split(' ').chain(["--help"]).collect();
    assert_eq!(run(&mut collector(), &arguments).exit, 0);
    if !available("systemd-analyze") {
        skipped("systemd-analyze is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("collector.service");
    let here = UNIT
        .replace("/usr/bin/collector", env!("CARGO_BIN_EXE_collector"))
        // Not installed here.
        .replace("Documentation=man:collector(1)\n", "");
    fs::write(&unit, here).unwrap();
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(arguments).arg(&unit).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let (ok, text) = analyze(&["verify"]);
    assert!(ok && !text.contains("collector.service:"), "{text}");
    // The exposure times ten; 12 when this was written.
    let (ok, text) = analyze(&["security", "--offline=true", "--threshold=15"]);
    assert!(ok, "{text}");
}
