// SPDX-License-Identifier: Apache-2.0
//! What is written is what is read; a file or a line that is anything else is refused.

use collector_core::raw::{SourceAnswer, SourceState};
use collector_core::supply::{Pod, PodState, Supply, Workload};
use collector_core::{
    Absent, EndpointPicker, EndpointPickerLoad, Field, LoadRates, LoadRows, LoraAdapters,
    ManualClock, Mark, ModelSample, Outcome, PodName, ReplicaMetrics, Scope,
};
use collector_testkit::FakeBackend;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::{CacheConfig, CachingCollector};

const WRITTEN: SystemTime = SystemTime::UNIX_EPOCH;

fn now() -> Tick {
    ManualClock::new().now()
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The file as a process writes it at `now()`.
fn file_of(models: &[(ModelRef, Duration, Vec<SourceState>)]) -> Vec<u8> {
    let record = |(model, unread, states): &(ModelRef, Duration, Vec<SourceState>)| {
        ModelRecord::new(model, *unread, states, now())
    };
    let mut file = Vec::new();
    let bytes = format::write(&mut file, WRITTEN, models.iter().map(record)).unwrap();
    assert_eq!(bytes, file.len() as u64);
    file
}

/// The states as a process reads them `gap` after the writing, by its clock at `now()`.
fn states_after(file: &[u8], gap: Duration) -> Vec<(ModelRef, Duration, Vec<SourceState>)> {
    let recall = |record: ModelRecord| {
        let unread = record.unread();
        let (model, states) = record.recall(now() - gap);
        (model, unread, states)
    };
    format::read(file).unwrap().models.into_iter().map(recall).collect()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9/:._-]{0,12}", ".{0,6}", "[\"\\\\\n\u{0}\u{1b}]{1,4}"]
}

/// Up to four hours ago, to the nanosecond, or before there was time.
fn past() -> impl Strategy<Value = Tick> {
    prop_oneof![9 => (0..14_400_000_000_000u64).prop_map(|n| now() - Duration::from_nanos(n)),
        1 => Just(Tick::MIN)]
}

fn field() -> impl Strategy<Value = Field> {
    proptest::sample::select(Field::ALL.to_vec())
}

fn marks() -> impl Strategy<Value = Vec<Mark>> {
    btree_set(field(), 0..3).prop_flat_map(|fields| {
        let count = fields.len();
        (Just(fields), vec((text(), past()), count)).prop_map(|(fields, rest)| {
            let mark = |(field, (backend, sampled_at)): (Field, (String, Tick))| Mark {
                field,
                backend: backend.into(),
                sampled_at,
            };
            fields.into_iter().zip(rest).map(mark).collect()
        })
    })
}

fn adapters() -> impl Strategy<Value = Option<Box<LoraAdapters>>> {
    let names = || vec(text().prop_map(String::into_boxed_str), 0..3);
    option::of(
        (names(), names(), option::of(0..100u64))
            .prop_map(|(running, waiting, max)| Box::new(LoraAdapters { running, waiting, max })),
    )
}

fn replica(pod: String) -> impl Strategy<Value = ReplicaMetrics> {
    let count = || option::of(0..=(1u64 << 53));
    let ratio = || option::of(0.0..=1.0f64);
    let rate = || option::of(0.0..=1e15f64);
    let identity = (past(), option::of(text()), option::of(text()), adapters(), marks());
    let counts = (count(), count(), count(), count());
    (identity, counts, (ratio(), ratio(), rate(), rate())).prop_map(move |(who, counts, shares)| {
        let mut row = ReplicaMetrics::new(pod.clone(), who.0);
        row.engine = who.1.map(Into::into);
        row.role = who.2.map(Into::into);
        row.lora_adapters = who.3;
        row.marks = who.4;
        (row.queue_length, row.running_requests, row.num_gpu_blocks, row.block_size) = counts;
        (
            row.kv_cache_usage,
            row.prefix_cache_hit_rate,
            row.avg_input_tokens,
            row.avg_output_tokens,
        ) = shares;
        row
    })
}

fn rates() -> impl Strategy<Value = LoadRates> {
    proptest::array::uniform7(option::of(0.0..1e15f64)).prop_map(|[a, b, c, d, e, f, g]| {
        LoadRates::default().with_requests(a).with_tokens(b, c).with_ttft(d, e).with_itl(f, g)
    })
}

fn supply() -> impl Strategy<Value = Supply> {
    let states = [PodState::Starting, PodState::Ready, PodState::NotReady, PodState::Terminating];
    let pods = btree_map(text(), (proptest::sample::select(states.to_vec()), past()), 0..3);
    let pods = pods.prop_map(|pods| {
        let pod = |(name, (state, since)): (String, _)| Pod::new(name.into(), state, since);
        pods.into_iter().map(pod).collect::<Vec<_>>()
    });
    let workload = (option::of(text()), option::of(any::<u32>()), pods);
    let deleted = btree_map(text().prop_map(PodName::from), past(), 0..3);
    (past(), vec(workload, 0..3), deleted).prop_map(|(as_of, workloads, deleted)| {
        let workload = |(variant, wanted, pods): (Option<String>, _, _)| {
            Workload::new(variant.map(Into::into), wanted, pods)
        };
        let mut supply = Supply::new(as_of, workloads.into_iter().map(workload).collect());
        supply.deleted = deleted.into_iter().collect();
        supply
    })
}

fn sample() -> impl Strategy<Value = ModelSample> {
    let replicas = btree_set(text(), 0..4)
        .prop_flat_map(|pods| pods.into_iter().map(replica).collect::<Vec<_>>());
    let of_pods = btree_map(text(), rates(), 1..4).prop_map(|pods| {
        pods.into_iter().map(|(pod, rates)| (pod.into(), rates.into())).collect::<LoadRows>()
    });
    let of_model = rates().prop_map(|rates| LoadRows::Model(rates.into()));
    let load = prop_oneof![Just(LoadRows::None), of_model, of_pods];
    let unreached = vec(text().prop_map(PodName::from), 0..3);
    let rows = (replicas, option::of(supply()));
    (past(), rows, load, vec(field(), 0..4), any::<bool>(), unreached).prop_map(
        |(as_of, (replicas, supply), load, failed, complete, unreached)| {
            let mut sample = ModelSample::new(as_of, replicas);
            sample.load = load;
            sample.supply = supply.map(Arc::new);
            sample.failed = failed.into_iter().map(|field| (field, "422")).collect();
            sample.absent = match (complete, unreached.is_empty()) {
                (true, _) => Absent::None,
                (false, true) => Absent::Unknown(None),
                (false, false) => Absent::Pods(unreached),
            };
            sample
        },
    )
}

fn state(backend: String) -> impl Strategy<Value = SourceState> {
    let outcome = proptest::sample::select(vec![Outcome::Found, Outcome::Missing, Outcome::Failed]);
    let terminated = proptest::collection::btree_map(text().prop_map(PodName::from), past(), 0..3);
    (outcome, past(), past(), past(), sample(), marks(), terminated).prop_map(
        move |(outcome, answered, as_of, arrived_at, sample, load_marks, terminated)| SourceState {
            backend: backend.clone().into(),
            outcome,
            // Of the former process: it never crosses.
            ended_at: Tick::MIN,
            answered_at: Some(answered),
            as_of: Some(as_of),
            answer: Some(SourceAnswer {
                sample: Arc::new(sample),
                arrived_at,
                load_marks,
                terminated: terminated.into_iter().collect(),
                absent: Vec::new(),
            }),
            error: None,
            nearest: None,
        },
    )
}

fn model() -> impl Strategy<Value = (ModelRef, Duration, Vec<SourceState>)> {
    let states = btree_set(text(), 0..3)
        .prop_flat_map(|names| names.into_iter().map(state).collect::<Vec<_>>());
    ((text(), text()), 0..1_000_000_000_000u64, states).prop_map(
        |((model, namespace), n, states)| {
            (ModelRef::new(model, namespace), Duration::from_nanos(n), states)
        },
    )
}

fn shown<T: std::fmt::Debug>(value: &T) -> String {
    format!("{value:#?}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_written_is_read_as_it_was(models in vec(model(), 0..4)) {
        let file = file_of(&models);
        prop_assert_eq!(format::read(&file).unwrap().written, WRITTEN);
        prop_assert_eq!(shown(&states_after(&file, Duration::ZERO)), shown(&models));
    }

    #[test]
    fn ages_grow_by_exactly_the_time_in_between(
        models in vec(model(), 1..3), gap in 0..10_000_000_000_000_000u64,
    ) {
        let gap = Duration::from_nanos(gap);
        let sampled = |models: &[(ModelRef, Duration, Vec<SourceState>)]| -> Vec<Tick> {
            let answers = models.iter().flat_map(|model| &model.2).filter_map(|s| s.answer.as_ref());
            let of_supply = answers.clone().filter_map(|answer| answer.sample.supply.as_ref());
            let of_supply = of_supply.flat_map(|supply| {
                let of_pods = supply.pods().map(|pod| pod.since);
                let deleted = supply.deleted.iter().map(|(_, at)| *at);
                std::iter::once(supply.as_of).chain(of_pods).chain(deleted).collect::<Vec<_>>()
            });
            let rows = answers.flat_map(|answer| answer.sample.replicas.iter());
            of_supply.chain(rows.flat_map(|row| {
                let of_marks = row.marks.iter().map(|mark| mark.sampled_at);
                std::iter::once(row.sampled_at).chain(of_marks).collect::<Vec<_>>()
            }))
            .collect()
        };
        let after = states_after(&file_of(&models), gap);
        let expected: Vec<Tick> = sampled(&models).into_iter().map(|tick| tick - gap).collect();
        prop_assert_eq!(sampled(&after), expected);
    }

    #[test]
    fn a_file_that_is_cut_loses_the_models_behind_the_cut(
        models in vec(model(), 1..4), at in any::<proptest::sample::Index>(),
    ) {
        let file = file_of(&models);
        let header = file.iter().position(|byte| *byte == b'\n').unwrap();
        let at = header + at.index(file.len() - header);
        // A line is complete where only its end of line is cut off.
        let ends = file[..=at].split(|byte| *byte == b'\n').count() - 1;
        let parts = usize::from(![file[at - 1], file[at]].contains(&b'\n'));
        let read = format::read(&file[..at]).unwrap();
        prop_assert_eq!((read.models.len(), read.lost), (ends - 1, parts));
    }

    #[test]
    fn a_damaged_line_loses_its_model_and_no_other(
        models in vec(model(), 1..4), which in any::<proptest::sample::Index>(),
        junk in "[^\n]{0,20}",
    ) {
        let file = file_of(&models);
        let mut lines = file_lines(&file);
        let junk = format!("{{{junk}");
        let which = 1 + which.index(models.len());
        lines[which] = junk.as_bytes();
        let read = format::read(&lines.join(&b'\n')).unwrap();
        prop_assert_eq!((read.lost, read.models.len()), (1, models.len() - 1));
    }

    #[test]
    fn a_file_with_any_byte_changed_or_added_is_no_panic(
        models in vec(model(), 1..3), at in any::<proptest::sample::Index>(),
        byte in any::<u8>(), add in any::<bool>(),
    ) {
        let mut file = file_of(&models);
        let at = at.index(file.len());
        if add { file.insert(at, byte) } else { file[at] = byte }
        recall_all(&file);
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in vec(any::<u8>(), 0..300), line in "\\{\"[a-z\":\\[\\],{}0-9]{0,60}") {
        prop_assert!(format::read(&bytes).is_err());
        for body in [bytes, line.into_bytes()] {
            recall_all(&headed(&body));
        }
    }

    /// A number of a sound file made another.
    #[test]
    fn no_number_is_a_panic(model in model(), at in any::<proptest::sample::Index>(), number in prop_oneof![
        any::<u64>().prop_map(|n| n.to_string()), any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:e}")), Just("1e999".to_owned()),
    ]) {
        let file = String::from_utf8(file_of(&[model])).unwrap();
        let digits: Vec<_> = file.match_indices(|c: char| c.is_ascii_digit()).map(|(at, _)| at).collect();
        let at = digits[at.index(digits.len())];
        let file = format!("{}{number}{}", &file[..at], &file[at + 1..]);
        for state in recall_all(file.as_bytes()) {
            for row in &state.answer.as_ref().unwrap().sample.replicas {
                prop_assert!(row.sampled_at <= now());
                prop_assert!(row.kv_cache_usage.is_none_or(|usage| (0.0..=1.0).contains(&usage)));
                prop_assert!(row.queue_length.is_none_or(|length| length <= 1 << 53));
            }
        }
    }
}

/// The lines of a file without the empty one at its end.
fn file_lines(file: &[u8]) -> Vec<&[u8]> {
    file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect()
}

/// Whatever can be made of a file, long after its writing.
fn recall_all(file: &[u8]) -> Vec<SourceState> {
    let Ok(contents) = format::read(file) else { return Vec::new() };
    let recall = |record: ModelRecord| record.recall(now() - secs(u64::from(u32::MAX))).1;
    contents.models.into_iter().flat_map(recall).collect()
}

/// Lines behind a header that fits.
fn headed(lines: &[u8]) -> Vec<u8> {
    [b"{\"collectorSnapshot\":3,\"writtenAt\":0}\n", lines].concat()
}

#[track_caller]
fn refused(file: &[u8], reason: &str) {
    let refused = format::read(file).unwrap_err().to_string();
    assert!(refused.contains(reason), "{refused}");
}

#[test]
fn each_kind_of_wrong_file_has_its_reason() {
    refused(b"", "it is not a snapshot");
    refused(b"{}\n", "it is not a snapshot");
    refused(&[b'x'; 1000], "it is not a snapshot");
    refused(b"collector-snapshot 2 00000000000000001234 0a1b2c3d\n{}\n", "an earlier version");
    let later = br#"{"collectorSnapshot":4,"writtenAt":"noon","more":[]}"#;
    refused(later, "it is not a snapshot");
    let later = br#"{"collectorSnapshot":4,"writtenAt":0,"more":[]}"#;
    refused(later, "it has format 4, and this version reads format 3");
}

#[test]
fn a_line_beyond_the_limit_is_neither_written_nor_read() {
    let large = ModelRef::new("x".repeat(16 << 20), "prod");
    let small = ModelRef::new("small", "prod");
    let models = [large, small].map(|model| (model, Duration::ZERO, Vec::new()));
    let file = file_of(&models);
    assert_eq!(states_after(&file, Duration::ZERO).len(), 1);
    let line = serde_json::to_vec(&ModelRecord::new(&models[0].0, Duration::ZERO, &[], now()));
    let read = format::read(&headed(&line.unwrap())).unwrap();
    assert_eq!((read.models.len(), read.lost), (0, 1));
}

#[test]
fn no_more_is_written_than_is_read_again() {
    let model = ModelRef::new("x".repeat(15 << 20), "prod");
    let records = (0..9).map(|_| ModelRecord::new(&model, Duration::ZERO, &[], now()));
    let error = format::write(&mut std::io::sink(), WRITTEN, records).unwrap_err().to_string();
    assert_eq!(error, "it would be larger than 128 MiB");
    let many = b"{\"model\":\"m\",\"namespace\":\"n\",\"unread\":0,\"sources\":[]}\n";
    let read = format::read(&headed(&many.repeat(100_001))).unwrap();
    assert_eq!((read.models.len(), read.lost), (100_000, 1));
}

#[test]
fn what_is_there_twice_counts_once_and_what_cannot_be_true_is_unknown() {
    let pod = |usage: f64| {
        format!(
            r#"{{"pod":"p","sampled":5,"sleeping":false,"servers":1,"kvCacheUsage":{usage},
            "marks":[["queueLength","b",1],["queueLength","c",2],["nonsense","b",1]],"reasons":[]}}"#
        )
    };
    let source = format!(
        r#"{{"backend":"b","outcome":"found","answered":1,"asOf":2,"arrived":3,"loadMarks":[],
        "departed":[["z",1],["a",2],["z",3]],"sample":{{"asOf":4,"complete":true,"failed":[],
        "warnings":["a\u001bb"],"unreached":[],"replicas":[{},{}],
        "load":[{{"rates":{{"requests":-1.0,"ttftCount":2.0}},"reasons":[]}}]}}}}"#,
        pod(1.7),
        pod(0.5)
    );
    let line =
        format!(r#"{{"model":"m","namespace":"n","unread":1,"sources":[{source},{source}]}}"#);
    let file = headed(line.replace('\n', "").as_bytes());
    let (_, _, states) = states_after(&file, Duration::ZERO).remove(0);
    assert_eq!(states.len(), 1);
    let answer = states[0].answer.as_ref().unwrap();
    assert!(!answer.sample.warnings[0].contains(char::is_control));
    assert_eq!(answer.sample.replicas.len(), 1);
    let row = &answer.sample.replicas[0];
    assert_eq!((row.kv_cache_usage, row.marks.len()), (None, 1));
    let rates = LoadRates::default().with_ttft(None, 2.0);
    assert_eq!(answer.sample.load.of_model().unwrap().rates, rates);
    let terminated: Vec<&str> = answer.terminated.iter().map(|(pod, _)| pod.as_str()).collect();
    assert_eq!(terminated, ["a", "z"]);
}

#[test]
fn an_error_crosses_to_no_other_process() {
    let clock = ManualClock::new();
    let state = SourceState {
        backend: "b".into(),
        outcome: Outcome::Failed,
        ended_at: clock.now(),
        answered_at: None,
        as_of: None,
        answer: None,
        error: None,
        nearest: None,
    };
    let model = ModelRef::new("m", "n");
    let file = file_of(&[(model.clone(), secs(7), vec![state])]);
    // The model was tracked all the same.
    let models = states_after(&file, secs(1));
    assert_eq!(shown(&models), shown(&vec![(model, secs(7), Vec::<SourceState>::new())]));
}

/// An engine with a snapshot in this folder, that knows nothing yet.
fn engine_in(folder: &tempfile::TempDir) -> Arc<Engine> {
    let clock = Arc::new(ManualClock::new());
    let backend = FakeBackend::new(Arc::clone(&clock) as Arc<dyn Clock>).named("b");
    let path = Some(folder.path().join("readings"));
    let config = CacheConfig { snapshot_path: path, ..CacheConfig::default() };
    let builder = CachingCollector::builder(Arc::new(backend)).clock(clock).config(config);
    builder.build().unwrap().engine
}

/// The state of the source `b` that has just answered with this sample.
fn state_of(sample: ModelSample) -> SourceState {
    let answer = SourceAnswer {
        sample: Arc::new(sample),
        arrived_at: now(),
        load_marks: Vec::new(),
        terminated: Vec::new(),
        absent: Vec::new(),
    };
    SourceState {
        backend: "b".into(),
        outcome: Outcome::Found,
        ended_at: now(),
        answered_at: Some(now()),
        as_of: Some(now()),
        answer: Some(answer),
        error: None,
        nearest: None,
    }
}

fn two_models() -> Contents {
    let state = state_of(ModelSample::new(now(), vec![ReplicaMetrics::new("pod", now())]));
    let models = ["llama", "qwen"].map(|name| ModelRef::new(name, "prod"));
    let states = [state];
    let record = |model| ModelRecord::new(&model, Duration::ZERO, &states, now());
    Contents { written: WRITTEN, models: models.map(record).into(), lost: 0 }
}

#[test]
fn what_is_invalidated_while_the_file_is_read_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine_in(&folder);
    let llama = ModelRef::new("llama", "prod");
    let began = engine.clock.now();
    engine.invalidate(&Scope::of_model(&llama));
    let (models, _) = engine.recall(began, Some(two_models())).unwrap().unwrap();
    // Both are tracked, and fetched at once.
    assert_eq!((models, engine.models.tracked_count()), (2, 2));
    assert!(engine.cache.get(&llama).is_none());
}

#[test]
fn while_one_write_hangs_no_other_begins() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine_in(&folder);
    let snapshot = engine.snapshot.as_ref().unwrap();
    let hanging = snapshot.writing.lock().unwrap();
    let refused = engine.write_snapshot().unwrap_err();
    assert!(refused.to_string().contains("still being written"), "{refused}");
    assert!(!snapshot.path.exists());
    drop(hanging);
    assert!(engine.write_snapshot().is_ok());
    assert!(snapshot.path.is_file());
}

#[test]
fn the_file_is_the_owners_alone_and_replaced_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("readings");
    std::fs::write(folder.path().join("readings.new"), "left behind by a kill").unwrap();
    let write =
        |text: &'static str| file::replace(&path, |out| io::Write::write_all(out, text.as_bytes()));
    write("one").unwrap();
    write("two").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
    let failed = file::replace(&path, |out| {
        io::Write::write_all(out, b"half of thr")?;
        Err::<(), _>(io::Error::other("the disk is full"))
    });
    assert!(failed.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn only_a_regular_file_within_the_limit_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("readings");
    assert!(file::read(&path, 3).unwrap().is_none());
    std::fs::write(&path, "abc").unwrap();
    assert_eq!(file::read(&path, 3).unwrap().unwrap(), b"abc");
    assert!(file::read(&path, 2).unwrap_err().to_string().contains("larger than"));
    assert!(file::read(&path.join("below"), 3).is_err(), "that is another mistake");
    assert!(file::read(folder.path(), 3).unwrap_err().to_string().contains("not a regular file"));
    #[cfg(unix)]
    assert!(file::read(Path::new("/dev/zero"), 3).is_err());
}

#[test]
fn an_endpoint_picker_is_unknown_after_a_restart_and_not_idle() {
    let load = EndpointPickerLoad::new(now() - secs(3));
    for (picker, since) in [
        (EndpointPicker::None, None),
        (EndpointPicker::Responding(load.into()), Some(Some(now() - secs(13)))),
        (EndpointPicker::silent(None, "refused"), Some(None)),
    ] {
        let mut sample = ModelSample::new(now(), Vec::new());
        sample.endpoint_picker = picker;
        let states = vec![state_of(sample)];
        let file = file_of(&[(ModelRef::new("m", "n"), Duration::ZERO, states)]);
        let (_, _, states) = states_after(&file, secs(10)).remove(0);
        let recalled = &states[0].answer.as_ref().unwrap().sample.endpoint_picker;
        let is_silent =
            |since| EndpointPicker::silent(since, "it has not been asked since the restart");
        assert_eq!(*recalled, since.map_or(EndpointPicker::None, is_silent));
    }
}
