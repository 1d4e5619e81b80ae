//! What is beyond the limits is neither written nor read.

use std::sync::Arc;

use collector_core::raw::SourceAnswer;
use collector_core::{Absent, Clock as _, LoraAdapters, ManualClock};

use super::*;

fn now() -> Tick {
    ManualClock::new().now()
}

/// Whether a model is written of which one source has said this.
fn is_written(change: impl FnOnce(&mut SourceState, &mut SourceAnswer, &mut ModelSample)) -> bool {
    let mut sample = ModelSample::new(now(), vec![ReplicaMetrics::new("pod", now())]);
    let mut answer = SourceAnswer {
        sample: Arc::new(sample.clone()),
        arrived_at: now(),
        load_marks: Vec::new(),
        departed: Vec::new(),
        absent: Vec::new(),
    };
    let mut state = SourceState {
        backend: "b".into(),
        outcome: Outcome::Found,
        ended_at: now(),
        answered_at: Some(now()),
        as_of: Some(now()),
        answer: None,
        error: None,
        nearest: None,
    };
    change(&mut state, &mut answer, &mut sample);
    state.answer = Some(SourceAnswer { sample: Arc::new(sample), ..answer });
    ModelRecord::new(&ModelRef::new("m", "n"), Duration::ZERO, &[state], now()).is_some()
}

#[test]
fn every_name_has_its_limit() {
    let adapters = |running: &[&str], waiting: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        Some(Box::new(LoraAdapters { running: names(running), waiting: names(waiting), max: None }))
    };
    let mark = |backend: &str| Mark {
        field: Field::ArrivalRate,
        backend: backend.into(),
        sampled_at: now(),
    };
    for (length, is_within) in [(4096, true), (4097, false)] {
        let name = &*"x".repeat(length);
        let model = ModelRef::new("m", name);
        let is_namespace = ModelRecord::new(&model, Duration::ZERO, &[], now()).is_some();
        let written = [
            is_namespace,
            is_written(|state, _, _| state.backend = name.into()),
            is_written(|_, answer, _| answer.load_marks = vec![mark(name)]),
            is_written(|_, answer, _| answer.departed = vec![(name.into(), now())]),
            is_written(|_, _, sample| sample.absent = Absent::Pods(vec![name.into()])),
            is_written(|_, _, sample| {
                let rates = LoadRates::default();
                sample.load = vec![LoadRow::new(Some(name.into()), rates)];
            }),
            is_written(|_, _, sample| sample.replicas[0].pod_name = name.into()),
            is_written(|_, _, sample| sample.replicas[0].engine = Some(name.into())),
            is_written(|_, _, sample| sample.replicas[0].role = Some(name.into())),
            is_written(|_, _, sample| sample.replicas[0].marks = vec![mark(name)]),
            is_written(|_, _, sample| sample.replicas[0].lora_adapters = adapters(&[name], &[])),
            is_written(|_, _, sample| sample.replicas[0].lora_adapters = adapters(&[], &[name])),
        ];
        assert_eq!(written, [is_within; 12], "{length}");
    }
}

#[test]
fn every_list_has_its_limit() {
    let mark = Mark { field: Field::ArrivalRate, backend: "b".into(), sampled_at: now() };
    for more in [0, 1] {
        let (rows, marks) = (100_000 + more, Field::ALL.len() + more);
        let written = [
            is_written(|_, answer, _| answer.load_marks = vec![mark.clone(); marks]),
            is_written(|_, answer, _| answer.departed = vec![("p".into(), now()); rows]),
            is_written(|_, _, sample| sample.absent = Absent::Pods(vec!["p".into(); rows])),
            is_written(|_, _, sample| {
                sample.load = vec![LoadRow::new(None, LoadRates::default()); rows];
            }),
            is_written(|_, _, sample| sample.replicas.resize(rows, sample.replicas[0].clone())),
            is_written(|_, _, sample| sample.replicas[0].marks = vec![mark.clone(); marks]),
            is_written(|_, _, sample| {
                let (running, waiting) = (vec!["x".into(); rows], Vec::new());
                let lora = LoraAdapters { running, waiting, max: None };
                sample.replicas[0].lora_adapters = Some(Box::new(lora));
            }),
        ];
        assert_eq!(written, [more == 0; 7], "{more} more");
    }
    // A set has no field twice; a file may.
    for (fields, is_within) in [(Field::ALL.len(), true), (Field::ALL.len() + 1, false)] {
        let failed = vec!["[\"queueLength\",\"422\"]"; fields].join(",");
        let record = format!(
            r#"{{"model":"m","namespace":"n","unread":1,"sources":[{{"backend":"b","outcome":"found",
            "answered":1,"asOf":1,"arrived":1,"sample":{{"asOf":1,"complete":true,
            "failed":[{failed}],"replicas":[],"load":[]}}}}]}}"#
        );
        let record: ModelRecord = serde_json::from_str(&record).unwrap();
        assert_eq!(record.recall(now()).is_some(), is_within, "{fields}");
    }
}
