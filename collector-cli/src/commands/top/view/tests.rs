// SPDX-License-Identifier: Apache-2.0
//! Screens of every size, drawn without a terminal.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{Field, FreshnessThresholds, ModelRef, Nearest, Source, TraceRow};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::state::{Read, Traced};
use super::*;
use crate::output::{FetchOutcome, TracedFetch, UNICODE};

const NOW: Tick = Tick::from_nanos(1_000_000_000_000);

fn row(model: &str, pods: &[(&str, Option<u64>)], age: u64) -> Row {
    let read_at = NOW;
    let sampled = read_at - Duration::from_secs(age);
    let pods = pods.iter().map(|(name, queue)| {
        let mut pod = ReplicaMetrics::new(*name, sampled);
        (pod.queue_length, pod.kv_cache_usage) = (*queue, Some(0.5));
        pod
    });
    let model = ModelRef::new(model, "prod");
    let value = Replicas::new(model.clone(), pods.collect(), "prometheus".into(), sampled);
    let reading = Reading::new(value, read_at, &FreshnessThresholds::default(), Source::Cache);
    Row { model, reading: Ok(reading) }
}

fn missing(model: &str) -> Row {
    let model = ModelRef::new(model, "prod");
    let nearest = Arc::new(Nearest::default());
    Row { model: model.clone(), reading: Err(CollectError::Missing { model, nearest }) }
}

fn state() -> State {
    let rows = vec![
        row("org/busy", &[("busy-0", Some(7)), ("busy-1", Some(30))], 1),
        missing("org/gone"),
        row("org/idle", &[("idle-0", Some(0))], 90),
        row("org/unknown", &[("unknown-0", None)], 1),
    ];
    let mut state = State::default();
    state.update(Read { rows, problem: None, at: Some(NOW) });
    state
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            key => KeyCode::Char(key),
        };
        assert!(!state.key(KeyEvent::new(code, KeyModifiers::NONE)), "{key:?} ended it");
    }
}

/// The lines of a screen of this size.
fn screen(state: &mut State, columns: u16, rows: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, state, NOW, &UNICODE, true)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..rows).map(|y| line(y).trim_end().to_owned()).collect()
}

/// The first word of each row of the table.
fn names(state: &mut State) -> Vec<String> {
    let lines = screen(state, 80, 24);
    let rows = lines[2..16].iter().map(|line| line.trim_start_matches(MARK));
    rows.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn missing_zero_and_unknown_look_different() {
    let lines = screen(&mut state(), 100, 24);
    let cells = |row: usize| lines[row].split_whitespace().collect::<Vec<_>>();
    assert_eq!(cells(1), ["MODEL", "NAMESPACE", "STATUS", "AGE", "PODS", "QUEUE", "KV", "RUNNING"]);
    assert_eq!(cells(2), [">", "org/busy", "prod", "fresh", "1.0s", "2", "37", "50%", "-"]);
    assert_eq!(cells(3), ["org/gone", "prod", "missing", "-", "-", "-", "-", "-"]);
    assert_eq!(cells(4), ["org/idle", "prod", "stale", "90.0s", "1", "0", "50%", "-"]);
    assert_eq!(cells(5), ["org/unknown", "prod", "fresh", "1.0s", "1", "-", "50%", "-"]);
    assert!(lines[0].starts_with("collector top: 4 models, by name"), "{}", lines[0]);
    assert!(lines[23].contains("? keys"), "{}", lines[23]);
}

#[test]
fn a_row_without_a_reading_says_why_below_the_table() {
    let mut state = state();
    press(&mut state, "j");
    let lines = screen(&mut state, 80, 24);
    assert!(lines[21].starts_with("no metrics of model \"org/gone\""), "{}", lines[21]);
}

#[test]
fn figures_are_ordered_from_the_greatest_and_unknown_ones_come_last() {
    let mut state = state();
    assert_eq!(names(&mut state), ["org/busy", "org/gone", "org/idle", "org/unknown"]);
    press(&mut state, "s");
    assert_eq!(names(&mut state)[..2], ["org/busy", "org/idle"]);
    press(&mut state, "r");
    assert_eq!(names(&mut state)[..2], ["org/idle", "org/busy"]);
}

#[test]
fn a_filter_leaves_names_with_its_text() {
    let mut state = state();
    press(&mut state, "/IDL\n");
    assert_eq!(names(&mut state), ["org/idle"]);
    assert!(screen(&mut state, 80, 24)[0].contains("4 models, 1 shown"));
    press(&mut state, "\u{1b}");
    assert_eq!(names(&mut state).len(), 4);
}

#[test]
fn enter_shows_the_pods_and_their_fields_and_esc_goes_back() {
    let mut state = state();
    press(&mut state, "s\n");
    assert_eq!(names(&mut state), ["busy-1", "busy-0"]);
    press(&mut state, "j\n");
    assert_eq!(names(&mut state)[..2], ["queueLength", "kvCacheUsage"]);
    assert_eq!(state.traces().unwrap().model.as_str(), "org/busy");
    press(&mut state, "\u{1b}");
    assert_eq!(screen(&mut state, 80, 24)[3].split_whitespace().nth(1), Some("busy-0"));
    press(&mut state, "/-1\n");
    assert_eq!(names(&mut state), ["busy-1"]);
    press(&mut state, "\u{1b}\u{1b}");
    assert_eq!(names(&mut state).len(), 4);
    // A model that has vanished from the list is shown as such.
    press(&mut state, "\n");
    state.update(Read { at: Some(NOW), ..Read::default() });
    assert!(names(&mut state).is_empty());
}

#[test]
fn a_pause_shows_the_newest_values_when_it_ends() {
    let mut state = state();
    press(&mut state, "p");
    state.update(Read { rows: vec![row("org/new", &[], 1)], problem: None, at: Some(NOW) });
    assert_eq!(names(&mut state).len(), 4);
    let title = "collector top PAUSED, values of 0s ago: 4 models, by name";
    assert_eq!(screen(&mut state, 80, 24)[0], title);
    press(&mut state, "p");
    assert_eq!(names(&mut state), ["org/new"]);
}

#[test]
fn values_that_stay_the_same_for_long_have_their_age_in_the_first_line() {
    let mut state = state();
    let first = |state: &mut State, seconds| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let now = NOW + Duration::from_secs(seconds);
        terminal.draw(|frame| draw(frame, state, now, &UNICODE, true)).unwrap();
        (0..80).map(|x| terminal.backend().buffer()[(x, 0)].symbol()).collect::<String>()
    };
    assert!(!first(&mut state, 2).contains("ago"));
    assert!(first(&mut state, 7).starts_with("collector top, values of 7s ago: 4 models"));
}

#[test]
fn a_field_has_its_value_backend_age_and_series_or_the_reason_why_not() {
    let mut state = state();
    press(&mut state, "\n\n");
    let line = |state: &mut State, at: usize| {
        let lines = screen(state, 80, 24);
        lines[at].split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line(&mut state, 1), "FIELD VALUE FROM AGE SERIES");
    assert_eq!(line(&mut state, 2), "> queueLength 7 prometheus 1.0s -");
    assert_eq!(line(&mut state, 4), "runningRequests - - - -");
    assert!(screen(&mut state, 80, 24).join("\n").contains("its series is being looked for"));
    let row = TraceRow {
        pod: Some("busy-0".into()),
        field: Field::QueueLength,
        asked: "max_over_time(vllm:num_requests_waiting[1m])".into(),
        matched: Some("vllm:num_requests_waiting".into()),
        raw: Some(7.0),
        sampled_at: Some(NOW),
        asked_at: NOW,
        answered_at: NOW,
    };
    let fetch = TracedFetch {
        backend: "prometheus".into(),
        outcome: FetchOutcome::Found(NOW),
        rows: vec![row],
    };
    let model = ModelRef::new("org/busy", "prod");
    state.traced = Some(Traced { model: model.clone(), fetches: Ok(vec![fetch]) });
    assert_eq!(line(&mut state, 2), "> queueLength 7 prometheus 1.0s vllm:num_requests_waiting");
    let about = "queueLength: when this was opened, the server wrote 7; asked:";
    assert!(screen(&mut state, 80, 24).iter().any(|line| line.starts_with(about)));
    press(&mut state, "jj");
    let why = "runningRequests: it was not measured";
    assert!(screen(&mut state, 80, 24).iter().any(|line| line == why));
    press(&mut state, "kk");
    state.traced = Some(Traced { model, fetches: Err("no \u{1b} answer".to_owned()) });
    let why = "queueLength: no \\u{1b} answer";
    assert!(screen(&mut state, 80, 24).iter().any(|line| line == why));
}

#[test]
fn long_names_are_cut_with_a_sign() {
    let mut state = State::default();
    let rows = vec![row(&"x".repeat(90), &[], 1)];
    state.update(Read { rows, problem: None, at: Some(NOW) });
    assert!(screen(&mut state, 80, 24)[2].contains("x…x"));
}

#[test]
fn the_help_names_every_key() {
    let mut state = state();
    press(&mut state, "?");
    let text = screen(&mut state, 80, 24).join("\n");
    for (key, what) in KEYS {
        assert!(text.contains(key) && text.contains(what), "{key:?} is not in {text}");
    }
    press(&mut state, "x");
    assert_eq!(names(&mut state).len(), 4);
}

#[test]
fn narrow_and_low_screens_keep_the_model_and_its_queue() {
    for (columns, rows) in [(40, 24), (24, 6), (200, 60)] {
        let lines = screen(&mut state(), columns, rows);
        let header: Vec<&str> = lines[1].split_whitespace().collect();
        assert!(header.contains(&"MODEL") && header.contains(&"QUEUE"), "{lines:?}");
        assert!(lines[2].contains("37"), "{lines:?}");
    }
    for (columns, rows) in [(1, 1), (3, 2), (10, 3)] {
        screen(&mut state(), columns, rows);
    }
}

#[test]
fn hostile_names_are_escaped() {
    let mut state = State::default();
    let rows = vec![row("m\u{1b}[2J\u{202e}", &[], 1)];
    state.update(Read { rows, problem: Some("x\u{7}".to_owned()), at: Some(NOW) });
    let text = screen(&mut state, 80, 24).join("");
    assert!(text.contains("m\\u{1b}[2J\\u{202e}"), "{text}");
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[test]
fn a_sum_of_some_pods_is_marked_at_every_width() {
    let whole = row("org/some", &[("some-0", Some(7))], 1);
    let mut value = whole.reading.unwrap().value().clone();
    value.partial = true;
    let reading = Reading::new(value, NOW, &FreshnessThresholds::default(), Source::Cache);
    let some = Row { model: whole.model, reading: Ok(reading) };
    let mut state = State::default();
    state.update(Read { rows: vec![some], problem: None, at: Some(NOW) });
    for columns in [30, 55, 80, 160] {
        let lines = screen(&mut state, columns, 20);
        let line = lines.iter().find(|line| line.contains("org/some") && line.contains('7'));
        assert!(line.is_some_and(|line| line.contains("7+")), "{columns}: {lines:?}");
    }
}
