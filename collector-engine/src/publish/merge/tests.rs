// SPDX-License-Identifier: Apache-2.0
//! What becomes of each row and field when the answers of two sources meet.

use super::*;
use collector_core::{
    Absent, Allocation, Clock as _, LoadRates, LoadRow, LoadRows, ManualClock, ModelSample, Variant,
};
use std::sync::Arc;
use std::time::Duration;

fn now() -> Tick {
    ManualClock::new().now()
}

fn row(pod: &str, sampled_at: Tick) -> ReplicaMetrics {
    let mut row = ReplicaMetrics::new(pod, sampled_at);
    row.variant_name = Some("v".into());
    row.queue_length = Some(3);
    row
}

fn answer(rows: Vec<ReplicaMetrics>) -> SourceAnswer {
    SourceAnswer {
        sample: Arc::new(ModelSample::new(now(), rows)),
        arrived_at: now(),
        load_marks: Vec::new(),
        terminated: Vec::new(),
        absent: Vec::new(),
    }
}

/// A mark of so many seconds ago.
fn mark(field: Field, backend: &str, seconds: u64) -> Mark {
    Mark { field, backend: backend.into(), sampled_at: now() - Duration::from_secs(seconds) }
}

fn load(prompt_tokens: Option<f64>, generation_tokens: Option<f64>) -> LoadRows {
    let rates = LoadRates::default().with_requests(1.0);
    LoadRows::Model(rates.with_tokens(prompt_tokens, generation_tokens).into())
}

fn merged(answers: &[&SourceAnswer]) -> Vec<ReplicaMetrics> {
    replicas_of(answers, [Outcome::Found; 2]).replicas
}

fn replicas_of(answers: &[&SourceAnswer], outcomes: [Outcome; 2]) -> Replicas {
    both_of(answers, outcomes).0
}

fn allocation_of(answers: &[&SourceAnswer]) -> Allocation {
    both_of(answers, [Outcome::Found; 2]).1
}

/// The replicas, and the allocation of the variant that has all of them.
fn both_of(answers: &[&SourceAnswer], outcomes: [Outcome; 2]) -> (Replicas, Allocation) {
    let names = ["pods", "server"].map(BackendName::from);
    let thresholds = FreshnessThresholds::default();
    let mut views = Vec::new();
    for ((name, answer), outcome) in names.iter().zip(answers).zip(outcomes) {
        let rows = answer.sample.replicas.clone();
        views.push(View::new((name, outcome), answer, rows, &thresholds, now()));
    }
    let variant = Variant {
        name: "v".into(),
        model: ModelRef::new("llama", "prod"),
        accelerator: None,
        cost: 10.0,
        max_batch: None,
        fetch_interval: None,
    };
    let replicas = replicas(&variant.model, &views, &thresholds, now()).unwrap();
    let allocation = allocation(&variant, &replicas, &views, &thresholds, now());
    (replicas, allocation)
}

#[test]
fn a_pod_sampled_when_another_source_saw_it_terminate_is_shown() {
    let mut left = answer(vec![row("a", now())]);
    left.terminated = vec![("b".into(), now())];
    let before = now() - Duration::from_nanos(1);
    for (sampled_at, shown) in [(now(), 2), (before, 1)] {
        let other = answer(vec![row("a", now()), row("b", sampled_at)]);
        assert_eq!(merged(&[&left, &other]).len(), shown, "{sampled_at:?}");
    }
}

#[test]
fn a_field_that_no_source_has_lately_is_removed_with_its_mark_only() {
    let mut old = row("a", now());
    old.running_requests = Some(5);
    old.marks =
        vec![mark(Field::QueueLength, "pods", 300), mark(Field::RunningRequests, "pods", 299)];
    let rows = merged(&[&answer(vec![old]), &answer(Vec::new())]);
    assert_eq!((rows[0].queue_length, rows[0].running_requests), (None, Some(5)));
    assert_eq!(rows[0].marks, [mark(Field::RunningRequests, "pods", 299)]);
}

#[test]
fn latencies_are_those_of_the_source_that_has_them_lately() {
    let scraped = |seconds| {
        let sampled_at = now() - Duration::from_secs(seconds);
        let mut row = row("a", now());
        row.latencies = Some(Arc::new(Latencies::new(sampled_at, None, None)));
        (answer(vec![row.clone()]), row.latencies)
    };
    let without = answer(vec![row("a", now())]);
    let ((new, new_ones), (old, _)) = (scraped(10), scraped(300));
    assert_eq!(merged(&[&without, &new])[0].latencies, new_ones);
    assert_eq!(merged(&[&old, &new])[0].latencies, new_ones);
    assert_eq!(merged(&[&without, &old])[0].latencies, None, "unavailable by now");
}

#[test]
fn averages_that_a_replica_knows_itself_stay_whatever_the_load_says() {
    let mut own = row("a", now());
    own.avg_input_tokens = Some(100.0);
    own.avg_output_tokens = Some(10.0);
    let mut answer = answer(vec![own]);
    let sample = Arc::make_mut(&mut answer.sample);
    sample.load = load(Some(700.0), None);
    let rows = merged(&[&answer]);
    assert_eq!(rows[0].avg_input_tokens, Some(100.0));
    assert_eq!(rows[0].avg_output_tokens, Some(10.0));
}

#[test]
fn an_average_from_the_load_is_as_old_as_its_own_field_or_the_arrivals() {
    let mut answer = answer(vec![row("a", now())]);
    let sample = Arc::make_mut(&mut answer.sample);
    sample.load = load(Some(700.0), Some(70.0));
    answer.load_marks = vec![
        mark(Field::AvgInputTokens, "pods", 30),
        mark(Field::AvgOutputTokens, "pods", 10),
        mark(Field::ArrivalRate, "pods", 20),
        mark(Field::TtftAverage, "pods", 90),
    ];
    let rows = merged(&[&answer]);
    assert_eq!(
        rows[0].marks,
        [mark(Field::AvgInputTokens, "pods", 30), mark(Field::AvgOutputTokens, "pods", 20)]
    );
}

#[test]
fn the_answer_of_a_single_source_is_handed_through() {
    let mut old = row("a", now());
    old.marks = vec![mark(Field::QueueLength, "pods", 300)];
    (old.avg_input_tokens, old.avg_output_tokens) = (Some(100.0), Some(10.0));
    assert_eq!(merged(&[&answer(vec![old.clone()])]), [old]);
}

#[test]
fn a_mean_that_is_unknown_says_why() {
    let reasons = |load: LoadRows, running: u64| {
        let mut row = row("a", now());
        row.running_requests = Some(running);
        let mut answer = answer(vec![row]);
        Arc::make_mut(&mut answer.sample).load = load;
        let rows = merged(&[&answer]);
        let reason = |field| rows[0].reasons.get(field).map(ToString::to_string);
        [Field::AvgInputTokens, Field::AvgOutputTokens].map(reason)
    };
    let both = |reason: &str| [Some(reason.to_owned()), Some(reason.to_owned())];
    let nothing = "nothing was counted in the window, and requests run";
    let idle = || LoadRows::Model(LoadRates::ZERO.into());
    assert_eq!(reasons(idle(), 3), both(nothing));
    assert_eq!(reasons(idle(), 0), [None, None]);
    assert_eq!(reasons(LoadRows::None, 3), both("no load is reported"));
    let mut load = LoadRow::default();
    load.reasons.insert(Field::AvgInputTokens, "no two samples");
    let expected = [Some("no two samples".to_owned()), Some("not reported".to_owned())];
    assert_eq!(reasons(LoadRows::Model(load), 3), expected);
}

#[test]
fn a_field_from_another_source_replaces_the_former_mark() {
    let mut ours = row("a", now());
    ours.running_requests = Some(5);
    ours.marks =
        vec![mark(Field::QueueLength, "pods", 90), mark(Field::RunningRequests, "pods", 10)];
    let theirs = row("a", now());
    let rows = merged(&[&answer(vec![ours]), &answer(vec![theirs])]);
    assert_eq!(
        rows[0].marks,
        [mark(Field::RunningRequests, "pods", 10), mark(Field::QueueLength, "server", 0)]
    );
}

#[test]
fn a_pod_that_only_another_source_shows_is_marked_field_by_field() {
    let mut theirs = row("b", now());
    theirs.running_requests = Some(5);
    theirs.marks = vec![mark(Field::RunningRequests, "server", 10)];
    let rows = merged(&[&answer(vec![row("a", now())]), &answer(vec![theirs])]);
    assert!(rows[0].marks.is_empty());
    assert_eq!(
        rows[1].marks,
        [mark(Field::RunningRequests, "server", 10), mark(Field::QueueLength, "server", 0)]
    );
}

#[test]
fn a_result_is_complete_if_a_current_source_or_else_any_source_is() {
    let complete = answer(vec![row("a", now())]);
    let mut part = complete.clone();
    Arc::make_mut(&mut part.sample).absent = Absent::Unknown(None);
    let is_partial = |answers: &[&SourceAnswer], outcomes| replicas_of(answers, outcomes).partial;
    let (found, failed) = (Outcome::Found, Outcome::Failed);
    assert!(is_partial(&[&part, &complete], [found, failed]));
    assert!(!is_partial(&[&part, &complete], [failed, found]));
    assert!(!is_partial(&[&part, &complete], [failed, failed]));

    // Likewise of those that have answered lately.
    let mut unresponsive = complete.clone();
    Arc::make_mut(&mut unresponsive.sample).as_of = now() - Duration::from_secs(120);
    assert!(is_partial(&[&part, &unresponsive], [found, found]));
    assert!(!is_partial(&[&unresponsive, &unresponsive], [found, found]));
}

#[test]
fn a_field_of_the_load_that_was_kept_says_since_when_and_no_other_does() {
    let mut kept = answer(vec![row("a", now())]);
    Arc::make_mut(&mut kept.sample).load = load(Some(700.0), Some(70.0));
    kept.load_marks = vec![mark(Field::ArrivalRate, "pods", 20)];
    let allocation = allocation_of(&[&kept]);
    assert_eq!(allocation.load.avg_input_tokens, Some(700.0));
    assert_eq!(allocation.load.avg_output_tokens, Some(70.0));
    assert_eq!(allocation.marks, kept.load_marks);

    // Of a mean that is no longer known, too.
    Arc::make_mut(&mut kept.sample).load = load(None, Some(70.0));
    kept.load_marks = vec![mark(Field::AvgInputTokens, "pods", 30)];
    let allocation = allocation_of(&[&kept]);
    assert_eq!(allocation.load.avg_input_tokens, None);
    assert_eq!(allocation.marks, kept.load_marks);
}

#[test]
fn a_field_of_the_load_that_was_kept_too_long_gives_way_to_a_fresh_one() {
    let mut ours = answer(vec![row("a", now())]);
    Arc::make_mut(&mut ours.sample).load = load(None, None);
    let mut theirs = ours.clone();
    let load = LoadRows::Model(LoadRates::default().with_requests(2.0).into());
    Arc::make_mut(&mut theirs.sample).load = load;
    assert_eq!(allocation_of(&[&ours, &theirs]).load.arrival_rate, Some(60.0));
    ours.load_marks = vec![mark(Field::TtftAverage, "pods", 90)];
    assert_eq!(allocation_of(&[&ours, &theirs]).load.arrival_rate, Some(60.0));
    ours.load_marks.push(mark(Field::ArrivalRate, "pods", 90));
    assert_eq!(allocation_of(&[&ours, &theirs]).load.arrival_rate, Some(120.0));
}
