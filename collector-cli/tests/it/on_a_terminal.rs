// SPDX-License-Identifier: Apache-2.0
//! What commands print differently where they write to a terminal.

use std::net::TcpListener;
use std::time::Duration;

use vt100::Color;

use crate::fake_prometheus::{MODEL, NAMESPACE, with_one_model};
use crate::terminal::Terminal;

fn start(server: &str, args: &[&str], more: &[(&str, &str)]) -> Terminal {
    let env = [
        ("PROMETHEUS_BASE_URL", server),
        ("PROMETHEUS_ALLOW_HTTP", "true"),
        ("COLLECTOR_PROMETHEUS__TIMEOUT", "2s"),
        ("LC_ALL", "C.UTF-8"),
    ];
    Terminal::start(env!("CARGO_BIN_EXE_collector"), args, &[&env, more].concat(), (120, 100))
}

#[test]
fn check_shows_what_it_waits_for_and_leaves_only_its_checks() {
    // Connections are accepted by the system, and never answered.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", hanging.local_addr().unwrap());
    for (more, turning) in [(&[][..], "⠹"), (&[("LC_ALL", "C")], "/")] {
        let mut terminal = start(&url, &["check"], more);
        // What is known already stands above.
        terminal.wait_for("loaded: ");
        terminal.wait_for("waiting for prometheus at http://");
        terminal.wait_for("(1s)");
        terminal.wait_until(|screen| {
            let text = screen.contents();
            let last = text.lines().last().unwrap_or_default();
            last.starts_with(turning) && last.contains("the connection and the metrics")
        });
        let (exit, text) = terminal.end();
        assert_eq!(exit, 1, "{text}");
        assert!(!text.contains("waiting for"), "{text}");
        let last = text.lines().last().unwrap();
        assert!(last.contains(" checks failed"), "{text}");
    }
}

#[test]
fn ctrl_c_leaves_the_checks_until_then() {
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", hanging.local_addr().unwrap());
    let slow = [("COLLECTOR_PROMETHEUS__TIMEOUT", "25s")];
    let mut terminal = start(&url, &["check"], &slow);
    terminal.wait_for("waiting for");
    terminal.press("\u{3}");
    let (exit, text) = terminal.end();
    assert_eq!(exit, 1, "{text}");
    assert!(text.contains("loaded: ") && !text.contains("waiting for"), "{text}");
    assert!(text.contains("stopped by SIGINT: "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signs_and_the_verdict_are_in_colours_unless_no_color_is_set() {
    let server = with_one_model(Duration::ZERO).await.uri();
    for (more, has_colours) in [(&[][..], true), (&[("NO_COLOR", "1")], false)] {
        let mut terminal = start(&server, &["check"], more);
        // The last cell of a word stays when the program has ended.
        terminal.wait_for("none of ");
        let screen = terminal.screen();
        let (rows, columns) = screen.size();
        let lines: Vec<String> = screen.rows(0, columns.get()).collect();
        let row = lines.iter().position(|line| line.starts_with("none of ")).unwrap();
        assert!(row < rows.get().into());
        let colour = screen.cell(u16::try_from(row).unwrap(), 0).unwrap().fgcolor();
        assert_eq!(colour != Color::Default, has_colours, "{colour:?}");
        assert_eq!(terminal.end().0, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_in_lines() {
    let server = with_one_model(Duration::ZERO).await.uri();
    let args = ["get", "replicas", MODEL, "-n", NAMESPACE, "-o", "json"];
    let (exit, text) = start(&server, &args, &[]).end();
    assert_eq!(exit, 0, "{text}");
    assert!(text.contains("\n  \"kind\": \"replicas\",\n"), "{text}");
    assert_eq!(text.lines().last(), Some("}"), "{text}");
}
