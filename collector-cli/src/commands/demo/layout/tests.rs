// SPDX-License-Identifier: Apache-2.0
use std::sync::Arc;

use collector_core::{
    Allocation, BackendError, CollectError, ErrorKind, FreshnessThresholds, ModelRef, Operation,
    Reading, ReplicaMetrics, Replicas, Source, Tick,
};
use unicode_width::UnicodeWidthStr as _;

use super::*;
use crate::output::{ASCII, UNICODE};

const NAME: &str = "meta-llama/Llama-3.1-8B-Instruct";

fn read_at() -> Tick {
    Tick::from_nanos(60_000_000_000)
}

fn reading(model: &ModelRef, rows: Vec<ReplicaMetrics>) -> Reading<Replicas> {
    let replicas = Replicas::new(model.clone(), rows, "epp".into(), read_at());
    Reading::new(replicas, read_at(), &FreshnessThresholds::default(), Source::Cache)
}

fn row(pod: String, queue: Option<u64>, usage: Option<f64>) -> ReplicaMetrics {
    let mut row = ReplicaMetrics::new(pod, read_at());
    (row.queue_length, row.kv_cache_usage) = (queue, usage);
    row
}

/// A model whose pod `n` has `n` requests in its queue.
fn model(name: &str, pods: u64) -> Shown {
    let model = ModelRef::new(name, "chat");
    let rows = (0..pods).map(|pod| row(format!("pod-{pod}"), Some(pod), Some(0.5)));
    let replicas = Ok(reading(&model, rows.collect()));
    let mut allocation =
        Allocation::new(model.clone(), "variant".into(), 1, "epp".into(), read_at());
    allocation.load.arrival_rate = Some(2600.4);
    allocation.ttft_average = Some(71.0);
    let thresholds = FreshnessThresholds::default();
    let allocation = Reading::new(allocation, read_at(), &thresholds, Source::Cache);
    Shown { model, replicas, allocation: Some(allocation) }
}

/// Three models of eight pods, as the demo has them.
fn fleet() -> Vec<Shown> {
    [NAME, "meta-llama/Llama-3.3-70B-Instruct", "Qwen/Qwen3-Coder-30B-A3B-Instruct"]
        .map(|name| model(name, 8))
        .into()
}

#[track_caller]
fn drawn_with(signs: &Signs, models: &[Shown], rows: usize, columns: usize) -> Vec<String> {
    let mut history = History::default();
    for shown in models {
        if let Ok(reading) = &shown.replicas {
            history.add(&shown.model, &reading.value().replicas);
        }
    }
    let (title, ending) = ("collector demo: a title", "q or Ctrl-C ends the demo");
    let frame = Frame { title, ending, models, history: &history, signs };
    let lines = frame.lines(Size { rows, columns });
    let lines: Vec<String> = lines.iter().map(|line| line.on_terminal(false)).collect();
    let text = lines.join("\n");
    assert_eq!(lines.len(), rows, "{text}");
    assert!(lines.iter().all(|line| line.width() <= columns), "wider than {columns}:\n{text}");
    lines
}

#[track_caller]
fn drawn(models: &[Shown], rows: usize, columns: usize) -> Vec<String> {
    drawn_with(&UNICODE, models, rows, columns)
}

fn titles(lines: &[String]) -> Vec<&str> {
    let header = lines.iter().find(|line| line.starts_with("MODEL")).unwrap();
    header.split_whitespace().skip(3).collect()
}

fn row_of<'a>(lines: &'a [String], name: &str) -> &'a str {
    lines.iter().find(|line| line.trim_start().starts_with(name)).unwrap()
}

fn pods(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.starts_with("  pod-")).count()
}

#[test]
fn eighty_by_twenty_four_shows_models_worst_pods_and_the_explanation() {
    let lines = drawn(&fleet(), 24, 80);
    assert_eq!(lines[0], "collector demo: a title");
    assert_eq!(titles(&lines), ["STATUS", "AGE", "PODS", "QUEUE", "TREND", "KV", "REQ/MIN"]);
    let first = row_of(&lines, NAME);
    let words: Vec<&str> = first.split_whitespace().collect();
    assert_eq!(words[..5], [NAME, "fresh", "0.0s", "8", "28"], "{first}");
    assert_eq!(words[words.len() - 2..], ["50%", "2600"], "{first}");
    assert!((9..=15).contains(&pods(&lines)), "{}", lines.join("\n"));
    let place = lines.iter().position(|line| line == &lines[2]).unwrap();
    assert!(lines[place + 1].starts_with("  pod-7") && lines[place + 2].starts_with("  pod-6"));
    let text = lines.join(" ");
    for title in titles(&lines) {
        assert!(text.contains(&format!(" {title}: ")), "no {title:?} in {text}");
    }
    assert_eq!(lines[23], "q or Ctrl-C ends the demo");
}

#[test]
fn a_small_terminal_keeps_the_models_their_queues_and_how_to_end_it() {
    let lines = drawn(&fleet(), 10, 40);
    assert_eq!(titles(&lines)[..2], ["STATUS", "AGE"]);
    assert!(titles(&lines).contains(&"QUEUE") && titles(&lines).contains(&"KV"));
    assert_eq!(pods(&lines), 4, "{}", lines.join("\n"));
    assert!(row_of(&lines, "meta-ll").contains('…'), "names are cut in their middle");
    assert_eq!(lines[9], "q or Ctrl-C ends the demo");
    let lines = drawn(&fleet(), 4, 40);
    assert!(lines[2].starts_with("… 2 more models: make the terminal "), "{lines:?}");
    for rows in 1..30 {
        for columns in [1, 2, 10, 25, 33, 79, 120] {
            let lines = drawn(&fleet(), rows, columns);
            assert!("q or Ctrl-C ends the demo".starts_with(lines[rows - 1].trim_end_matches('…')));
        }
    }
    assert!(drawn(&fleet(), 0, 0).is_empty());
}

#[test]
fn a_large_terminal_shows_every_pod_and_every_column() {
    let lines = drawn(&fleet(), 60, 200);
    assert_eq!(pods(&lines), 24);
    let all = [
        "NAMESPACE",
        "STATUS",
        "AGE",
        "PODS",
        "QUEUE",
        "TREND",
        "KV",
        "KV",
        "TREND",
        "RUNNING",
        "REQ/MIN",
        "TTFT",
        "ITL",
        "IN",
        "OUT",
    ];
    assert_eq!(titles(&lines), all);
}

#[test]
fn a_fleet_without_models_is_explained() {
    let lines = drawn(&[], 24, 80);
    assert!(lines[1].starts_with("no readings yet"), "{lines:?}");
    assert_eq!(lines[23], "q or Ctrl-C ends the demo");
}

#[test]
fn what_was_not_measured_is_a_dash_and_zero_is_zero() {
    let name = ModelRef::new("org/model", "chat");
    let rows = vec![row("a".into(), None, Some(0.0)), row("b".into(), Some(0), None)];
    let replicas = Ok(reading(&name, rows));
    let unknown = Shown { model: name, replicas, allocation: None };
    let empty = model("org/empty", 0);
    let lines = drawn(&[unknown, empty], 24, 64);
    let words = |name| row_of(&lines, name).split_whitespace().collect::<Vec<_>>();
    // No trend either: nothing was measured. The queue, the KV cache, what runs and what arrives are unknown.
    assert_eq!(words("org/model")[..5], ["org/model", "fresh", "0.0s", "2", "-"]);
    assert_eq!(words("org/model")[5..8], ["-", "-", "-"]);
    // Pods without a known queue come last.
    assert_eq!(words("b")[..4], ["b", "0.0s", "0", "▁"]);
    assert_eq!(words("a")[..4], ["a", "0.0s", "-", "0%"]);
    assert_eq!(words("org/empty")[..5], ["org/empty", "fresh", "0.0s", "0", "-"]);
}

#[test]
fn a_model_without_a_reading_says_why_in_its_row() {
    let model = ModelRef::new("org/model", "chat");
    let error = BackendError::new(ErrorKind::Connect, "epp".into(), Operation::Fetch, "the pods");
    let replicas = Err(CollectError::Backend(Arc::new(error)));
    let lines = drawn(&[Shown { model, replicas, allocation: None }], 24, 80);
    assert!(row_of(&lines, "org/model").contains("epp"), "{lines:?}");
}

#[test]
fn a_locale_without_utf8_gets_ascii() {
    let mut models = fleet();
    models.push(model(&"long-".repeat(30), 2));
    let lines = drawn_with(&ASCII, &models, 24, 80);
    assert!(lines.iter().all(|line| line.is_ascii()), "{}", lines.join("\n"));
    assert!(lines.iter().any(|line| line.contains("...")), "{}", lines.join("\n"));
}

#[test]
fn rows_are_shared_among_the_models_in_turn() {
    assert_eq!(shares(&[8, 1, 3], 7), [3, 1, 3]);
    assert_eq!(shares(&[8, 1, 3], 2), [1, 1, 0]);
    assert_eq!(shares(&[1, 0], 9), [1, 0]);
}
