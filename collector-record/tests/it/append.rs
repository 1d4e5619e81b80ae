// SPDX-License-Identifier: Apache-2.0
//! A recording is continued, and its end may be missing.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use collector_core::{Answer, Clock as _, ErrorKind};
use collector_record::{Recorder, RecordingError, Replay, Tail, Writer};
use collector_testkit::FakeBackend;

use crate::round_trip::answer_of;
use crate::{MAX_BYTES, World, model, opened};

const SECOND: Duration = Duration::from_secs(1);

/// Records an answer a second, as one block.
async fn recorded(world: &World, answers: usize) {
    let llama = model("llama");
    world.fake.serve_pods(&llama, &["llama-0"]);
    for _ in 0..answers {
        world.fetch(std::slice::from_ref(&llama)).await.unwrap();
        world.clock.advance(SECOND);
    }
    world.write();
}

#[tokio::test]
async fn a_cut_loses_the_entry_that_it_is_in_and_no_other() {
    let world = World::new(false);
    recorded(&world, 30).await;
    let whole = world.bytes();
    let mut before = 30;
    for end in (50..whole.len()).rev() {
        std::fs::write(world.path(), &whole[..end]).unwrap();
        let (answers, tail) = match collector_record::Recording::open(&world.path()) {
            Ok(recording) => (recording.answers(), recording.tail()),
            // Not even the session is whole.
            Err(error) => {
                assert!(error.to_string().ends_with("it is cut before its first entry ends"));
                (0, Tail::Cut { at: 0, bytes: 0 })
            }
        };
        assert!(matches!(tail, Tail::Cut { .. }), "{end}: {tail:?}");
        // One byte has no two entries.
        assert!(before - answers <= 1, "{end}: {answers} of {before}");
        before = answers;
    }
    assert_eq!(before, 0);
}

#[tokio::test]
async fn a_recording_that_was_cut_is_continued_with_what_is_whole() {
    let world = World::new(false);
    recorded(&world, 10).await;
    let whole = world.bytes();
    std::fs::write(world.path(), &whole[..whole.len() - 10]).unwrap();
    let kept = opened(&world.path()).answers();
    assert!((1..=10).contains(&kept), "{kept}");

    // An hour later, by another process.
    world.clock.advance(SECOND * 3600);
    let fake = FakeBackend::new(world.clock.clone());
    let (recorder, wrapped) =
        Recorder::wrap(vec![std::sync::Arc::new(fake)], world.clock.clone(), "1.2.4", false);
    world.clock.advance(SECOND);
    answer_of(&*wrapped[0], &world.clock, &model("llama")).await;
    recorder.end();
    let (mut writer, tail) = Writer::open(&world.path(), MAX_BYTES, &*world.clock).unwrap();
    assert!(matches!(tail, Tail::Cut { .. }), "{tail:?}");
    assert!(writer.continues());
    writer.write(&recorder.take().unwrap()).unwrap();
    writer.sync().unwrap();

    let recording = opened(&world.path());
    assert_eq!((recording.tail(), recording.answers()), (Tail::Complete, kept + 1));
    assert_eq!(recording.length(), SECOND * 3611);
    // The hour between is an outage, and nothing of before it goes on.
    let how = Replay { start: Some(SECOND * 1800), ..Replay::default() };
    let replay = world.replay(how);
    match answer_of(&replay, &world.clock, &model("llama")).await {
        Answer::Failed(error) => {
            assert_eq!(error.kind(), ErrorKind::NotRecorded);
            let between =
                format!("nothing was recorded from {}s to 1h10s of the recording", kept - 1);
            assert_eq!(error.detail(), between);
        }
        other => panic!("{other:?}"),
    }
    world.clock.advance(SECOND * 1811);
    let answer = answer_of(&replay, &world.clock, &model("llama")).await;
    assert!(matches!(answer, Answer::Missing { .. }), "{answer:?}");
}

#[tokio::test]
async fn two_processes_cannot_record_to_one_file() {
    let world = World::new(false);
    recorded(&world, 1).await;
    let (first, _) = Writer::open(&world.path(), MAX_BYTES, &*world.clock).unwrap();
    let error = Writer::open(&world.path(), MAX_BYTES, &*world.clock).unwrap_err();
    assert!(matches!(error, RecordingError::Refused { .. }));
    assert!(error.to_string().ends_with("another process records to it"), "{error}");
    drop(first);
    Writer::open(&world.path(), MAX_BYTES, &*world.clock).unwrap();
}

#[tokio::test]
async fn other_files_are_not_touched() {
    let world = World::new(false);
    for content in
        ["a letter", "collector-recording 2 0123456789abcdef\n", "collector-recording 1 0123"]
    {
        std::fs::write(world.path(), content).unwrap();
        let error = Writer::open(&world.path(), MAX_BYTES, &*world.clock).unwrap_err();
        assert!(matches!(error, RecordingError::Refused { .. }), "{content:?}: {error}");
        assert_eq!(world.bytes(), content.as_bytes());
    }
    // A recording that was altered is not continued either: a reader would stop before what is added.
    std::fs::remove_file(world.path()).unwrap();
    recorded(&world, 3).await;
    OpenOptions::new().append(true).open(world.path()).unwrap().write_all(&[7; 40]).unwrap();
    let altered = world.bytes();
    let error = Writer::open(&world.path(), MAX_BYTES, &*world.clock).unwrap_err();
    assert!(error.to_string().contains("it was changed at byte"), "{error}");
    assert_eq!(world.bytes(), altered);
}

#[tokio::test]
async fn the_limit_of_its_size_keeps_what_was_recorded() {
    let world = World::new(false);
    recorded(&world, 3).await;
    let size = world.bytes().len() as u64;
    world.fetch(&[model("llama")]).await.unwrap();
    let entries = world.recorder.take().unwrap();
    let (mut writer, _) = Writer::open(&world.path(), size + 10, &*world.clock).unwrap();
    let error = writer.write(&entries).unwrap_err();
    assert!(matches!(error, RecordingError::Full { .. }), "{error}");
    drop(writer);
    let recording = opened(&world.path());
    assert_eq!((recording.tail(), recording.answers()), (Tail::Complete, 3));
    assert!(world.clock.wall() > std::time::UNIX_EPOCH);
}
