// SPDX-License-Identifier: Apache-2.0
//! What a record counts as: a cache is bounded by it.

use std::sync::Arc;
use std::time::Duration;

use collector_core::raw::{Cold, SourceAnswer, SourceState};
use collector_core::{
    Absent, Allocation, Deadlines, Field, Latencies, LatencyHistogram, LoadRates, LoadRow,
    LoraAdapters, Mark, ModelId, ModelRecord, ModelRef, ModelSample, ModelValue, Namespace,
    Nearest, Outcome, PodName, ReplicaMetrics, Replicas, Tick, TraceRow,
};

fn model() -> ModelRef {
    ModelRef::new("llama", "prod")
}

fn mark() -> Mark {
    Mark { field: Field::QueueLength, backend: "test".into(), sampled_at: Tick::MIN }
}

fn row(pod: &str) -> ReplicaMetrics {
    ReplicaMetrics::new(pod, Tick::MIN)
}

fn replicas(rows: Vec<ReplicaMetrics>) -> Replicas {
    Replicas::new(model(), rows, "test".into(), Tick::MIN)
}

fn value(rows: Vec<ReplicaMetrics>, allocations: Vec<Allocation>) -> ModelValue {
    ModelValue::new(replicas(rows), allocations)
}

fn source(answer: Option<SourceAnswer>) -> SourceState {
    SourceState {
        backend: "test".into(),
        outcome: Outcome::Found,
        ended_at: Tick::MIN,
        answered_at: None,
        as_of: None,
        answer,
        error: None,
        nearest: None,
    }
}

fn bytes(value: Option<ModelValue>, cold: Cold) -> usize {
    let deadlines = Deadlines {
        current_until: Tick::MAX,
        refresh_after: Tick::MAX,
        keep_until: Tick::MAX,
        keep_unread: Duration::ZERO,
    };
    let (value, cold) = (value.map(Arc::new), Arc::new(cold));
    ModelRecord::new(model(), value, Outcome::Found, cold, deadlines, false, Tick::MIN).bytes()
}

const EMPTY: usize = size_of::<ModelRecord>() + size_of::<Cold>();

#[test]
fn a_record_without_a_value_counts_itself_and_what_is_known() {
    assert_eq!(bytes(None, Cold::default()), EMPTY);
    let nearest = Nearest {
        models: vec!["a".into(), "b".into()],
        namespaces: vec!["prod".into(); 3],
        known: None,
        in_namespace: vec!["a".into()],
        ..Nearest::default()
    };
    let cold = Cold { nearest: Some(Arc::new(nearest)), ..Cold::default() };
    let names = 3 * size_of::<ModelId>() + 3 * size_of::<Namespace>();
    assert_eq!(bytes(None, cold), EMPTY + names);
}

#[test]
fn rows_count_with_their_marks_adapters_latencies_and_pods_names() {
    let of = |rows| bytes(Some(value(rows, vec![])), Cold::default());
    let none = EMPTY + size_of::<ModelValue>();
    assert_eq!(of(vec![]), none);
    let one = size_of::<ReplicaMetrics>() + "pod-1".len();
    assert_eq!(of(vec![row("pod-1")]), none + one);
    assert_eq!(of(vec![row("pod-1"), row("pod-2")]), none + 2 * one);
    let mut rich = row("pod-1");
    rich.marks = vec![mark(), mark()];
    rich.lora_adapters = Some(Box::default());
    let ttft = LatencyHistogram::new([1.0, f64::INFINITY].into(), [3, 0]);
    rich.latencies = Some(Arc::new(Latencies::new(Tick::MIN, ttft, None)));
    let latencies = size_of::<Latencies>() + 2 * (size_of::<f64>() + size_of::<u64>());
    let more = 2 * size_of::<Mark>() + size_of::<LoraAdapters>() + latencies;
    assert_eq!(of(vec![rich, row("pod-2")]), none + 2 * one + more);
}

#[test]
fn what_each_source_last_said_counts() {
    let of = |sources| bytes(None, Cold { sources, ..Cold::default() });
    let one = size_of::<SourceState>();
    assert_eq!(of(vec![source(None)]), EMPTY + one);
    assert_eq!(of(vec![source(None), source(None)]), EMPTY + 2 * one);

    let answer = |sample: ModelSample| SourceAnswer {
        sample: Arc::new(sample),
        arrived_at: Tick::MIN,
        load_marks: vec![mark()],
        terminated: vec![("gone".into(), Tick::MIN); 2],
        absent: Vec::new(),
    };
    let load = |pod: &str| {
        let mut row = LoadRow::from(LoadRates::ZERO);
        row.reasons.insert(Field::ArrivalRate, "no two samples");
        (PodName::from(pod), row)
    };
    let trace = TraceRow {
        pod: None,
        field: Field::QueueLength,
        asked: "up".into(),
        matched: None,
        raw: None,
        sampled_at: None,
        asked_at: Tick::MIN,
        answered_at: Tick::MIN,
    };
    let mut sample = ModelSample::new(Tick::MIN, vec![row("pod-1"), row("pod-2")]);
    sample.load = ["pod-1", "pod-2", "pod-3"].map(load).into_iter().collect();
    sample.absent = Absent::Pods(vec!["hung".into(); 4]);
    sample.failed =
        [(Field::QueueLength, "422"), (Field::KvCacheUsage, "422")].into_iter().collect();
    sample.warnings = vec!["late".into(); 6];
    sample.trace = vec![trace; 5];
    let behind = size_of::<ModelSample>()
        + 2 * size_of::<ReplicaMetrics>()
        + 3 * size_of::<(PodName, LoadRow)>()
        + 4 * size_of::<PodName>()
        + 5 * size_of::<TraceRow>()
        + (3 + 2) * size_of::<(Field, Arc<str>)>()
        + 6 * size_of::<Arc<str>>();
    let terminated = 2 * size_of::<(PodName, Tick)>();
    let expected = EMPTY + one + behind + size_of::<Mark>() + terminated;
    assert_eq!(of(vec![source(Some(answer(sample)))]), expected);
}

#[test]
fn each_allocation_counts_with_its_marks() {
    let mut allocation = Allocation::new(model(), "v".into(), 1, "test".into(), Tick::MIN);
    allocation.marks = vec![mark(); 3];
    let one = size_of::<Allocation>() + 3 * size_of::<Mark>();
    let none = EMPTY + size_of::<ModelValue>();
    let two = value(vec![], vec![allocation.clone(), allocation]);
    assert_eq!(bytes(Some(two), Cold::default()), none + 2 * one);
}
