// SPDX-License-Identifier: Apache-2.0
//! `top`, in a pseudo-terminal.

use std::time::Duration;

use vt100::{Color, Screen};

use crate::fake_prometheus::{MODEL, empty, with_one_model};
use crate::process::{collector_of, run};
use crate::terminal::Terminal;

/// Starts `top` in a terminal of this size.
fn top(server: &str, size: (u16, u16), more: &[(&str, &str)]) -> Terminal {
    let env = [
        ("PROMETHEUS_BASE_URL", server),
        ("PROMETHEUS_ALLOW_HTTP", "true"),
        ("COLLECTOR_PROMETHEUS__TIMEOUT", "1s"),
        ("LC_ALL", "C.UTF-8"),
    ];
    Terminal::start(env!("CARGO_BIN_EXE_collector"), &["top"], &[&env, more].concat(), size)
}

/// The words of a line of the screen.
fn words(screen: &Screen, line: u16) -> Vec<String> {
    let (_, columns) = screen.size();
    let line = screen.rows(0, columns.get()).nth(line.into()).unwrap_or_default();
    line.split_whitespace().map(str::to_owned).collect()
}

fn colours(screen: &Screen) -> Vec<Color> {
    let (rows, columns) = screen.size();
    let cells = (0..rows.get()).flat_map(|row| (0..columns.get()).map(move |column| (row, column)));
    let of = cells.filter_map(|(row, column)| Some(screen.cell(row, column)?.fgcolor()));
    of.filter(|colour| *colour != Color::Default).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn enter_leads_from_a_model_to_the_series_of_a_field_and_q_restores_the_terminal() {
    let server = with_one_model(Duration::ZERO).await.uri();
    for size in [(24, 80), (50, 160)] {
        let mut terminal = top(&server, size, &[]);
        terminal.wait_for(MODEL);
        let screen = terminal.screen();
        assert!(screen.alternate_screen() && screen.hide_cursor());
        assert_eq!(words(screen, 2)[..2], [">", MODEL]);
        assert!(screen.contents().contains("fresh"), "{}", screen.contents());
        assert_eq!(words(screen, 1).contains(&"NAMESPACE".to_owned()), size.1 >= 100);
        terminal.press("\r");
        terminal.wait_for("> m-0");
        // An arrow is no Esc, and the pods stay.
        terminal.press("\u{1b}[B");
        terminal.wait_for("> m-1");
        terminal.press("\r");
        terminal.wait_for("pod m-1");
        terminal.wait_for("asked: ");
        let text = terminal.text();
        assert!(text.contains("> queueLength           3         prometheus"), "{text}");
        assert!(text.contains("vllm:num_requests_waiting"), "{text}");
        terminal.press("\u{1b}[D");
        terminal.wait_for("> m-1");
        terminal.press("q");
        assert_eq!(terminal.end(), (0, String::new()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_sort_filter_pause_and_help() {
    let server = with_one_model(Duration::ZERO).await.uri();
    let mut terminal = top(&server, (24, 80), &[]);
    terminal.wait_for(MODEL);
    terminal.press("?");
    terminal.wait_for("reverse the order");
    terminal.press("x\r");
    terminal.wait_for("> m-0");
    terminal.press("sr");
    terminal.wait_for("by queue reversed");
    terminal.press("/-1\r");
    terminal.wait_for("/-1  (Esc shows all)");
    terminal.wait_until(|screen| !screen.contents().contains("m-0"));
    terminal.press("p");
    terminal.wait_for("collector top PAUSED, values of ");
    // Time goes on, and the values are those of the pause.
    terminal.wait_for("values of 2s ago");
    terminal.press("p");
    terminal.wait_until(|screen| !screen.contents().contains("PAUSED"));
    terminal.press("q");
    assert_eq!(terminal.end(), (0, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_changes_its_size_is_drawn_anew() {
    let server = with_one_model(Duration::ZERO).await.uri();
    let mut terminal = top(&server, (24, 80), &[]);
    terminal.wait_for("RUNNING");
    terminal.resize(10, 40);
    terminal.wait_until(|screen| {
        let (columns, row) = (words(screen, 1), words(screen, 2));
        columns == ["MODEL", "STATUS", "QUEUE", "KV"] && row.get(1).is_some_and(|it| it == MODEL)
    });
    terminal.resize(40, 200);
    terminal.wait_until(|screen| words(screen, 1).contains(&"NAMESPACE".to_owned()));
    terminal.wait_until(|screen| words(screen, 39).first().is_some_and(|word| word == "q"));
    terminal.press("q");
    assert_eq!(terminal.end(), (0, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_and_signals_restore_the_terminal() {
    let server = with_one_model(Duration::ZERO).await.uri();
    for signal in [None, Some("-TERM"), Some("-INT"), Some("-HUP")] {
        let mut terminal = top(&server, (24, 80), &[]);
        terminal.wait_for(MODEL);
        match signal {
            None => terminal.press("\u{3}"),
            Some(signal) => terminal.signal(signal),
        }
        assert_eq!(terminal.end(), (0, String::new()), "{signal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_its_terminal() {
    let server = with_one_model(Duration::ZERO).await.uri();
    let mut terminal = top(&server, (24, 80), &[]);
    terminal.wait_for(MODEL);
    terminal.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_unavailable_and_missing_are_words_and_colours_are_not_needed() {
    for (age, word) in [(90, "stale"), (3600, "unavailable")] {
        let server = with_one_model(Duration::from_secs(age)).await.uri();
        for (variables, has_colours) in [(&[][..], true), (&[("NO_COLOR", "1")], false)] {
            let mut terminal = top(&server, (24, 80), variables);
            terminal.wait_for(word);
            assert_eq!(!colours(terminal.screen()).is_empty(), has_colours, "{}", terminal.text());
            terminal.press("q");
            assert_eq!(terminal.end(), (0, String::new()));
        }
    }
    let server = empty().await.uri();
    let named = [("COLLECTOR_MODEL", "org/none"), ("COLLECTOR_NAMESPACE", "prod")];
    let mut terminal = top(&server, (24, 80), &named);
    terminal.wait_for("missing");
    assert!(terminal.text().contains("no metrics of model \"org/none\""), "{}", terminal.text());
    terminal.press("q");
    assert_eq!(terminal.end(), (0, String::new()));
}

#[test]
fn it_shows_why_there_is_nothing_while_the_server_is_down() {
    // Port 9 of loopback is closed everywhere.
    let mut terminal = top("http://127.0.0.1:9", (24, 80), &[]);
    terminal.wait_for("0 models");
    terminal.wait_for("cannot connect");
    terminal.press("q");
    assert_eq!(terminal.end(), (0, String::new()));
}

#[test]
fn without_a_terminal_it_is_refused() {
    let ended = run(&mut collector_of("http://127.0.0.1:9"), &["top", "-A"]);
    assert_eq!((ended.exit, ended.stdout.as_str()), (2, ""));
    assert!(ended.stderr.contains("collector watch"), "{}", ended.stderr);
}
