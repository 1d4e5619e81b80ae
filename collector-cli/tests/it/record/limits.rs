// SPDX-License-Identifier: Apache-2.0
//! Full disks, ends that are missing, and files that are no recordings.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::{once, place, pods, prometheus, record, recorder};
use crate::faults::fleet::{MODEL, NAMESPACE};
use crate::process::{collector, run};

/// The binary under a limit of its files, in blocks of 512 bytes, as a full disk is one.
fn limited(recorder: &Command, blocks: u64) -> Command {
    let mut command = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    command.env_clear().stdin(Stdio::null()).args(["-c", &script]);
    command.arg(recorder.get_program());
    for (name, value) in recorder.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command
}

#[test]
fn a_full_disk_ends_it_and_keeps_what_was_written() {
    let server = prometheus(&["m-0", "m-1"]);
    let (_folder, file) = place();
    record(&server, &file, &[]);
    let blocks = fs::metadata(&file).unwrap().len() / 512 + 1;
    let before = once(&file, &[]).json();
    let args = ["record", file.to_str().unwrap(), "--duration", "1m"];
    let ended = run(&mut limited(&recorder(&server), blocks), &args);
    assert_eq!(ended.exit, 1, "{}", ended.stderr);
    let error = format!("error: {}: File too large", file.display());
    assert!(ended.stderr.contains(&error), "{}", ended.stderr);
    assert!(ended.stderr.contains("what was recorded before is kept"), "{}", ended.stderr);
    // What was recorded before is read as before, also when there is more of it.
    let after = once(&file, &["--start", "1s"]);
    assert_eq!(after.exit, 0, "{}", after.stderr);
    assert_eq!(pods(&after.json()), pods(&before));
    // With room again it is continued.
    record(&server, &file, &[]);
    assert_eq!(once(&file, &[]).json()["status"], "fresh");
}

#[test]
fn no_room_for_its_first_line_leaves_no_broken_file() {
    let server = prometheus(&["m-0"]);
    let (_folder, file) = place();
    let args = ["record", file.to_str().unwrap(), "--duration", "1m"];
    let ended = run(&mut limited(&recorder(&server), 0), &args);
    assert_eq!(ended.exit, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("File too large"), "{}", ended.stderr);
    record(&server, &file, &[]);
}

#[test]
fn the_greatest_size_ends_it() {
    let server = prometheus(&["m-0"]);
    let (_folder, file) = place();
    record(&server, &file, &[]);
    // The limit is in MiB: a recording that is as large already takes nothing more.
    let args = ["record", file.to_str().unwrap(), "--max-size", "0"];
    let ended = run(&mut recorder(&server), &args);
    assert_eq!(ended.exit, 2, "{}", ended.stderr);
}

#[test]
fn an_end_that_is_missing_is_said_and_costs_one_entry() {
    let server = prometheus(&["m-0", "m-1"]);
    let (_folder, file) = place();
    record(&server, &file, &[]);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 9]).unwrap();
    let ended = once(&file, &[]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert_eq!(pods(&ended.json()), ["m-0", "m-1"]);
    assert!(ended.stderr.contains("the last entry is lost"), "{}", ended.stderr);

    let continued = record(&server, &file, &[]);
    assert!(continued.stderr.contains("the last entry is lost"), "{}", continued.stderr);
    assert!(continued.stderr.contains("continues a recording"), "{}", continued.stderr);
    let ended = once(&file, &[]);
    assert!(!ended.stderr.contains("lost"), "{}", ended.stderr);
}

#[test]
fn what_is_no_recording_is_refused_and_kept() {
    let server = prometheus(&["m-0"]);
    let (folder, file) = place();
    let text = "backend = \"prometheus\"\n";
    fs::write(&file, text).unwrap();
    let name = file.to_str().unwrap();
    let error = format!("error: {name}: it is not a recording of this program");
    for args in [vec!["record", name], vec!["replay", name], vec!["replay", name, "--watch"]] {
        let ended = run(&mut recorder(&server), &args);
        assert_eq!(ended.exit, 2, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(&error), "{}", ended.stderr);
        assert!(!ended.stderr.contains("Readings are those"), "{}", ended.stderr);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    let absent = folder.path().join("absent.rec");
    let ended = run(&mut collector(), &["replay", absent.to_str().unwrap()]);
    assert_eq!(ended.exit, 2, "{}", ended.stderr);
    let error = format!("error: {}: No such file", absent.display());
    assert!(ended.stderr.contains(&error), "{}", ended.stderr);
    for device in ["/dev/full", "/dev/zero"] {
        for command in ["record", "replay"] {
            let ended = run(&mut recorder(&server), &[command, device]);
            assert_eq!(ended.exit, 2, "{}", ended.stderr);
            assert!(ended.stderr.contains("it is not a regular file"), "{}", ended.stderr);
        }
    }
}

#[test]
fn a_signal_ends_it_with_success() {
    let server = prometheus(&["m-0"]);
    for signal in ["-INT", "-TERM"] {
        let (_folder, file) = place();
        let mut child = recorder(&server)
            .args(["record", file.to_str().unwrap(), "-m", MODEL, "-n", NAMESPACE])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        assert!(line.starts_with("Recording model \"org/model\""), "{line}");
        // A recording that grows can be read.
        while once(&file, &[]).exit != 0 {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(0));
        line.clear();
        log.read_line(&mut line).unwrap();
        assert!(line.contains("incident.rec: ") && line.contains("answer"), "{line}");
        let ended = once(&file, &[]);
        assert_eq!(ended.exit, 0, "{}", ended.stderr);
        assert!(!ended.stderr.contains("lost"), "{}", ended.stderr);
    }
}

#[test]
fn nothing_is_recorded_where_nothing_is_refreshed() {
    let server = prometheus(&["m-0"]);
    let (_folder, file) = place();
    let mut command = recorder(&server);
    command.env("COLLECTOR_CACHE__FETCH_INTERVAL", "0");
    let ended = run(&mut command, &["record", file.to_str().unwrap(), "--duration", "1s"]);
    assert_eq!(ended.exit, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("cache.fetch_interval"), "{}", ended.stderr);
    assert!(!file.exists());
}

/// `script` of util-linux gives it a terminal; where that is not installed, nothing is tested.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_shows_how_far_it_is() {
    let server = prometheus(&["m-0"]);
    let (_folder, file) = place();
    let program = env!("CARGO_BIN_EXE_collector");
    let line = format!("exec {program} record {} --duration 1500ms", file.display());
    let mut command = Command::new("script");
    command.env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "xterm");
    for (name, value) in recorder(&server).get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let Ok(output) = command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output()
    else {
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text:?}");
    let progress = "\r\u{1b}[KRecording: ";
    assert!(text.matches(progress).count() >= 2, "{text:?}");
    let last = text.rsplit(progress).next().unwrap();
    assert!(last.contains(" answers in 1s, ") && last.contains("incident.rec: "), "{last:?}");
    assert_eq!(once(&file, &[]).exit, 0);
}

#[cfg(unix)]
#[test]
fn a_recording_is_its_owners_alone() {
    let server = prometheus(&["m-0"]);
    let (_folder, file) = place();
    record(&server, &file, &[]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}
