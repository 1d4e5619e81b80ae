// SPDX-License-Identifier: Apache-2.0
//! `demo`: the product on a simulated fleet.

#[cfg(all(feature = "epp", target_os = "linux"))]
use std::io::{Read as _, Write as _};
use std::process::Command;
#[cfg(all(feature = "epp", target_os = "linux"))]
use std::process::Stdio;

use crate::process::{Ended, collector, run};

/// Three models of eight pods each, with what only rates can tell.
fn check_once(ended: &Ended, backend: &str) {
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let list = ended.json();
    assert_eq!(list["schemaVersion"], 1);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    for item in items {
        assert_eq!((&item["kind"], &item["backend"]), (&"replicas".into(), &backend.into()));
        assert_eq!(item["status"], "fresh");
        assert_eq!(item["replicas"].as_array().unwrap().len(), 8);
        let replica = &item["replicas"][0];
        assert!(replica["totalKvCapacityTokens"].as_u64().unwrap() > 0, "{replica}");
        assert!(replica["variantName"].is_string(), "{replica}");
    }
}

#[cfg(feature = "epp")]
#[test]
fn one_reading_of_every_model_is_a_list_document() {
    let ended = run(&mut collector(), &["demo", "--once", "-o", "json"]);
    check_once(&ended, "epp");
    // A look scrapes twice, so that there are rates.
    let items = ended.json()["items"].clone();
    let tokens = |item: &serde_json::Value| item["replicas"][0]["avgInputTokens"].as_f64();
    assert!(items.as_array().unwrap().iter().any(|item| tokens(item).is_some()), "{items}");
}

#[cfg(feature = "epp")]
#[test]
fn without_a_terminal_it_prints_a_line_a_model_and_a_summary() {
    let ended = run(&mut collector(), &["demo", "--duration", "3500ms"]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let text = &ended.stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("24 simulated pods") && lines[0].contains("Ctrl-C"), "{text}");
    assert!(lines.len() >= 1 + 3 + 2, "a title, the models, a summary: {text}");
    for line in &lines[1..4] {
        for part in ["s ", ": fresh, ", "from epp, 8 pods, queue ", "KV cache ", "requests/min "] {
            assert!(line.contains(part), "no {part:?} in {text}");
        }
    }
    let [.., first, second] = &lines[..] else { unreachable!() };
    for part in ["readings served in 3.", "% of them from the cache", "(p99)"] {
        assert!(first.contains(part), "no {part:?} in {text}");
    }
    assert!(second.contains("scrapes of pods") && second.contains("MB"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

/// What a terminal of 80x24 is sent: `script` of util-linux gives the demo one, and
/// presses a key; `None` where it is not installed.
#[cfg(all(feature = "epp", target_os = "linux"))]
fn in_a_terminal(term: &str, args: &str, key: Option<u8>) -> Option<String> {
    let program = env!("CARGO_BIN_EXE_collector");
    let command = format!("stty rows 24 cols 80; exec {program} demo {args}");
    let mut script = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", term)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = script.stdin.take().unwrap();
    let mut stdout = script.stdout.take().unwrap();
    let mut text = Vec::new();
    if let Some(key) = key {
        // With the first readings; it has read keys since before.
        let mut some = [0; 4096];
        while !String::from_utf8_lossy(&text).contains("  llama-8b-") {
            let read = stdout.read(&mut some).unwrap();
            assert!(read > 0, "it ended: {:?}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&some[..read]);
        }
        stdin.write_all(&[key]).unwrap();
    }
    stdout.read_to_end(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(script.wait().unwrap().success(), "{text:?}");
    drop(stdin);
    Some(text)
}

#[cfg(all(feature = "epp", target_os = "linux"))]
#[test]
fn the_alternate_screen_is_left_on_q_and_on_ctrl_c() {
    for key in [b'q', 3] {
        let Some(text) = in_a_terminal("xterm", "--duration 60s", Some(key)) else { return };
        let (enter, leave) = ("\u{1b}[?1049h\u{1b}[?25l", "\u{1b}[?25h\u{1b}[?1049l");
        assert!(text.starts_with(enter), "{text:?}");
        let (frames, after) = text.split_once(leave).expect("it left the alternate screen");
        let after: Vec<&str> = after.lines().collect();
        assert_eq!(after.len(), 2, "a summary on the normal screen: {after:?}");
        assert!(after[0].contains("readings served"), "{after:?}");
        let frame = frames.rsplit("\u{1b}[H").next().unwrap();
        assert_eq!(frame.lines().count(), 24, "{frame}");
        assert!(frame.contains("24 simulated pods") && frame.contains("  llama-8b-"), "{frame}");
        assert!(frame.contains("q or Ctrl-C ends the demo"), "{frame}");
    }
}

#[cfg(all(feature = "epp", target_os = "linux"))]
#[test]
fn in_a_terminal_without_such_a_screen_it_prints_lines() {
    let Some(text) = in_a_terminal("dumb", "--duration 2500ms", None) else { return };
    assert!(!text.contains('\u{1b}') && text.contains("8 pods, queue"), "{text:?}");
}

#[cfg(feature = "prometheus")]
#[test]
fn it_does_the_same_through_a_real_prometheus() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        assert!(
            std::env::var_os(collector_testkit::REQUIRE_REAL_SERVERS).is_none(),
            "real servers are required, and prometheus is not installed"
        );
        return;
    }
    let args = ["demo", "--backend", "prometheus", "--once", "-o", "json"];
    check_once(&run(&mut collector(), &args), "prometheus");
}

#[cfg(feature = "prometheus")]
#[test]
fn without_prometheus_it_says_what_to_install() {
    let mut without = collector();
    without.env("PATH", "/nowhere");
    let ended = run(&mut without, &["demo", "--backend", "prometheus", "--once"]);
    assert_eq!(ended.exit, 1);
    assert!(ended.stderr.contains("apt-get install prometheus"), "{}", ended.stderr);
}

#[cfg(feature = "epp")]
#[test]
fn it_ends_when_nobody_reads_its_lines_any_more() {
    use std::io::BufRead as _;

    let mut demo = collector().arg("demo").stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("24 simulated pods"));
    drop(lines);
    // Only a failure waits as long.
    for _ in 0..600 {
        if let Some(status) = demo.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    demo.kill().unwrap();
    panic!("it prints to nobody");
}
