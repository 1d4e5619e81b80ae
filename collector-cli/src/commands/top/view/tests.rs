//! Screens of every size, drawn without a terminal.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{FreshnessThresholds, ModelRef, Nearest, Source, Tick};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::state::Read;
use super::*;
use crate::output::UNICODE;

fn row(model: &str, pods: &[(&str, Option<u64>)], age: u64) -> Row {
    let read_at = Tick::from_nanos(1_000_000_000_000);
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
    state.update(Read { rows, problem: None, any: true });
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
    terminal.draw(|frame| draw(frame, state, &UNICODE, true)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..rows).map(|y| line(y).trim_end().to_owned()).collect()
}

/// The first word of each row of the table.
fn names(state: &mut State) -> Vec<String> {
    let lines = screen(state, 80, 24);
    let rows = lines[2..20].iter().filter_map(|line| line.split_whitespace().next());
    rows.map(str::to_owned).collect()
}

#[test]
fn missing_zero_and_unknown_look_different() {
    let lines = screen(&mut state(), 100, 24);
    let cells = |row: usize| lines[row].split_whitespace().collect::<Vec<_>>();
    assert_eq!(cells(1), ["MODEL", "NAMESPACE", "STATUS", "AGE", "PODS", "QUEUE", "KV", "RUNNING"]);
    assert_eq!(cells(2), ["org/busy", "prod", "fresh", "1.0s", "2", "37", "50%", "-"]);
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
fn enter_shows_the_pods_and_esc_the_models() {
    let mut state = state();
    press(&mut state, "s\n");
    assert_eq!(names(&mut state), ["busy-1", "busy-0"]);
    press(&mut state, "j\u{1b}");
    assert_eq!(names(&mut state).len(), 4);
    // A model that has vanished from the list is shown as such.
    press(&mut state, "\n");
    state.update(Read { any: true, ..Read::default() });
    assert!(names(&mut state).is_empty());
}

#[test]
fn a_pause_shows_the_newest_values_when_it_ends() {
    let mut state = state();
    press(&mut state, "p");
    state.update(Read { rows: vec![row("org/new", &[], 1)], problem: None, any: true });
    assert_eq!(names(&mut state).len(), 4);
    assert!(screen(&mut state, 80, 24)[0].ends_with("PAUSED"));
    press(&mut state, "p");
    assert_eq!(names(&mut state), ["org/new"]);
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
    state.update(Read { rows, problem: Some("x\u{7}".to_owned()), any: true });
    let text = screen(&mut state, 80, 24).join("");
    assert!(text.contains("m\\u{1b}[2J\\u{202e}"), "{text}");
    assert!(!text.contains(char::is_control), "{text:?}");
}
