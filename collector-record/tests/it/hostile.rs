// SPDX-License-Identifier: Apache-2.0
//! Files whose checksums are right and whose entries are anything.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{Answer, Ask, Backend as _, Clock, ListAsk};
use collector_record::{Recording, Replay, Tail, Writer, replay};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{MAX_BYTES, World, model};

const SESSION: &str = r#"{"session":{"began":5,"version":"1","anonymized":false,"sources":[{"name":"fake","load":true,"loadPerPod":false}]}}"#;

const MODEL: &str = r#"{"model":"llama","namespace":"prod"}"#;

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("0".to_owned()),
        (0_u64..20_000_000_000).prop_map(|it| it.to_string()),
        Just(u64::MAX.to_string()),
        Just("-1".to_owned()),
        Just("1e400".to_owned()),
        Just("null".to_owned()),
        Just("\"a\"".to_owned()),
    ]
}

fn source() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => Just("fake".to_owned()),
        1 => Just(String::new()),
        1 => Just("\\u001b[31m".to_owned()),
        1 => Just("a".repeat(1000)),
    ]
}

fn sample() -> impl Strategy<Value = String> {
    (number(), number(), number(), number()).prop_map(|(as_of, sampled, queue, usage)| {
        format!(
            r#"{{"asOf":{as_of},"complete":true,"failed":[["queueLength","a"],["nothing","b"]],"window":{as_of},
            "warnings":["\u001b[0m"],"unreached":[],"replicas":[{{"pod":"a","sampled":{sampled},"engine":null,
            "role":null,"lora":null,"sleeping":false,"servers":4000000000,
            "latencies":{{"sampled":{sampled},"ttft":{{"bounds":[{usage},1.0],"counts":[1,2]}},"itl":null}},
            "kv_capacity_tokens":null,"kv_tokens_in_use":null,"kv_cache_usage":{usage},"queue_length":{queue},
            "running_requests":null,"num_gpu_blocks":null,"block_size":null,"avg_input_tokens":null,
            "avg_output_tokens":null,"prefix_cache_hit_rate":null,"marks":[],"reasons":[]}}],"load":[],
            "endpointPicker":null}}"#
        )
        .replace('\n', "")
    })
}

fn entry() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => (number(), source()).prop_map(|(began, name)| format!(
            r#"{{"session":{{"began":{began},"version":"1","anonymized":false,
            "sources":[{{"name":"{name}","load":true,"loadPerPod":false}}]}}}}"#
        ).replace('\n', "")),
        6 => (number(), number(), sample()).prop_map(|(at, source, sample)| format!(
            r#"{{"answer":{{"at":{at},"source":{source},"model":{MODEL},"answer":{{"found":{sample}}}}}}}"#
        )),
        6 => (number(), sample()).prop_map(|(at, sample)| format!(
            r#"{{"answer":{{"at":{at},"source":0,"model":{MODEL},"answer":{{"found":{sample}}}}}}}"#
        )),
        1 => number().prop_map(|at| format!(
            r#"{{"answer":{{"at":{at},"source":0,"model":{MODEL},"answer":{{"unrecorded":{{"reason":"\u0007"}}}}}}}}"#
        )),
        1 => (number(), number()).prop_map(|(at, pods)| format!(
            r#"{{"models":{{"at":{at},"source":0,"models":{{"listed":[[{MODEL},{pods}]]}}}}}}"#
        )),
        1 => number().prop_map(|at| format!(r#"{{"cycle":{{"at":{at},"source":0}}}}"#)),
        1 => number().prop_map(|at| format!(r#"{{"end":{{"at":{at}}}}}"#)),
        1 => "\\PC{0,40}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_entries_are_read_or_refused(entries in vec(entry(), 0..12), one_block in any::<bool>()) {
        let world = World::new(false);
        let (mut writer, _) = Writer::open(&world.path(), MAX_BYTES, &*world.clock).unwrap();
        let lines: Vec<String> =
            std::iter::once(SESSION.to_owned()).chain(entries).map(|line| line + "\n").collect();
        if one_block {
            writer.write(lines.concat().as_bytes()).unwrap();
        } else {
            for line in &lines {
                writer.write(line.as_bytes()).unwrap();
            }
        }
        drop(writer);
        let Ok(recording) = Recording::open(&world.path()) else { return Ok(()) };
        let recording = Arc::new(recording);
        for name in recording.sources() {
            prop_assert_eq!(name.as_str(), "fake");
        }
        let length = recording.length();
        let clock: Arc<dyn Clock> = world.clock.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let models = [model("llama"), model("other")];
        for start in [Duration::ZERO, length / 2, length, length.saturating_add(Duration::from_secs(1))] {
            for repeat in [false, true] {
                let how = Replay { start: Some(start), repeat, ..Replay::default() };
                for backend in replay(&recording, how, &clock) {
                    if let Ok(answers) = runtime.block_on(backend.fetch(Ask::new(&models, &*clock))) {
                        for (_, answer) in answers {
                            // Texts go into terminals and logs.
                            if let Answer::Found(sample) = answer {
                                let is_bad = sample.warnings.iter().any(|it| it.contains('\u{1b}'));
                                prop_assert!(!is_bad);
                            }
                        }
                    }
                    let _ = runtime.block_on(backend.list_models(ListAsk::new(&*clock)));
                }
            }
        }
    }
}

/// A block of a megabyte that unpacks to gigabytes is refused before it is unpacked.
#[test]
fn a_block_is_not_unpacked_beyond_its_limit() {
    let world = World::new(false);
    let (mut writer, _) = Writer::open(&world.path(), MAX_BYTES, &*world.clock).unwrap();
    // A session in a line of 20 MiB, which no recorder writes.
    let line = [SESSION.as_bytes(), &vec![b' '; 20 << 20], b"\n"].concat();
    writer.write(&line).unwrap();
    assert!(world.bytes().len() < 1 << 20);
    drop(writer);
    let error = Recording::open(&world.path()).unwrap_err();
    assert!(error.to_string().ends_with("it was changed before its first entry ends"), "{error}");
}

/// What is beyond a limit was not changed by anybody.
#[test]
fn a_name_beyond_its_limit_is_too_large_and_not_damage() {
    let world = World::new(false);
    let (mut writer, _) = Writer::open(&world.path(), MAX_BYTES, &*world.clock).unwrap();
    writer.write(format!("{SESSION}\n").as_bytes()).unwrap();
    let before = writer.bytes();
    let name = "m".repeat(5000);
    let answer = format!(
        r#"{{"answer":{{"at":1,"source":0,"model":{{"model":"{name}","namespace":"prod"}},"answer":"missing"}}}}"#
    );
    writer.write(format!("{answer}\n").as_bytes()).unwrap();
    let bytes = writer.bytes() - before;
    drop(writer);
    let tail = Recording::open(&world.path()).unwrap().tail();
    assert_eq!(tail, Tail::TooLarge { at: before, bytes });
    assert!(tail.to_string().starts_with("it is too large: "), "{tail}");
}
