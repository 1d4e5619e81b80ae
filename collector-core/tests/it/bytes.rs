//! What an entry counts as: a cache is bounded by it.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Absent, Allocation, CacheKey, Cold, Field, LoadRates, LoadRow, LoraAdapters, Mark, ModelId,
    ModelRef, ModelSample, Namespace, Nearest, Outcome, PodName, ReplicaMetrics, Replicas,
    SourceAnswer, SourceState, Stored, Tick, TraceRow, Value,
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

fn replicas(rows: Vec<ReplicaMetrics>) -> Value {
    Value::Replicas(Arc::new(Replicas::new(model(), rows, "test".into(), Tick::MIN)))
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

fn bytes(value: Value, cold: Cold) -> usize {
    let stored = Stored {
        value,
        outcome: Outcome::Found,
        current_until: Tick::MAX,
        refresh_after: Tick::MAX,
        keep_until: Tick::MAX,
        keep_unread: Duration::ZERO,
        tracked: false,
        cold: Arc::new(cold),
    };
    stored.bytes()
}

const EMPTY: usize = size_of::<Stored>() + size_of::<Cold>();

#[test]
fn an_entry_without_a_value_counts_itself_and_what_is_known_besides() {
    assert_eq!(bytes(Value::None, Cold::default()), EMPTY);
    let nearest = Nearest {
        models: vec!["a".into(), "b".into()],
        namespaces: vec!["prod".into(); 3],
        known: None,
        in_namespace: vec!["a".into()],
        last_seen: None,
    };
    let cold = Cold { nearest: Some(Arc::new(nearest)), ..Cold::default() };
    let names = 3 * size_of::<ModelId>() + 3 * size_of::<Namespace>();
    assert_eq!(bytes(Value::None, cold), EMPTY + names);
}

#[test]
fn rows_count_with_their_marks_their_adapters_and_their_pods_names() {
    let of = |rows| bytes(replicas(rows), Cold::default());
    let none = EMPTY + size_of::<Replicas>();
    assert_eq!(of(vec![]), none);
    let one = size_of::<ReplicaMetrics>() + "pod-1".len();
    assert_eq!(of(vec![row("pod-1")]), none + one);
    assert_eq!(of(vec![row("pod-1"), row("pod-2")]), none + 2 * one);
    let mut rich = row("pod-1");
    rich.marks = vec![mark(), mark()];
    rich.lora_adapters = Some(Box::default());
    let more = 2 * size_of::<Mark>() + size_of::<LoraAdapters>();
    assert_eq!(of(vec![rich, row("pod-2")]), none + 2 * one + more);
}

#[test]
fn what_each_source_last_said_counts() {
    let of = |sources| bytes(Value::None, Cold { sources, ..Cold::default() });
    let one = size_of::<SourceState>();
    assert_eq!(of(vec![source(None)]), EMPTY + one);
    assert_eq!(of(vec![source(None), source(None)]), EMPTY + 2 * one);

    let answer = |sample: ModelSample| SourceAnswer {
        sample: Arc::new(sample),
        arrived_at: Tick::MIN,
        load_marks: vec![mark()],
        departed: vec![("gone".into(), Tick::MIN); 2],
        absent: Vec::new(),
    };
    let load = LoadRow::new(None, LoadRates::ZERO);
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
    sample.load = vec![load; 3];
    sample.absent = Absent::Pods(vec!["hung".into(); 4]);
    sample.trace = vec![trace; 5];
    let behind = size_of::<ModelSample>()
        + 2 * size_of::<ReplicaMetrics>()
        + 3 * size_of::<LoadRow>()
        + 4 * size_of::<PodName>()
        + 5 * size_of::<TraceRow>();
    let departed = 2 * size_of::<(PodName, Tick)>();
    let expected = EMPTY + one + behind + size_of::<Mark>() + departed;
    assert_eq!(of(vec![source(Some(answer(sample)))]), expected);
}

#[test]
fn an_allocation_leaves_what_its_model_shares_to_the_replicas() {
    let mut allocation = Allocation::new(model(), "v".into(), 1, "test".into(), Tick::MIN);
    allocation.marks = vec![mark(); 3];
    let cold = Cold { sources: vec![source(None)], ..Cold::default() };
    let expected = size_of::<Stored>() + size_of::<Allocation>() + 3 * size_of::<Mark>();
    assert_eq!(bytes(Value::Allocation(Arc::new(allocation)), cold), expected);
}

#[test]
fn a_key_counts_the_text_of_its_parts_and_a_head() {
    assert_eq!(CacheKey::replicas(&model()).heap_bytes(), 4 + "llamaprod".len());
    let key = CacheKey::allocation(&model(), &"quick".into(), Some(&"L4".into()));
    assert_eq!(key.heap_bytes(), 4 + "llamaprodquick:L4".len());
}
