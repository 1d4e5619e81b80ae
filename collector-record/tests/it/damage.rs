// SPDX-License-Identifier: Apache-2.0
//! Recordings that are cut, spliced and altered at random. A reader that knows the truth compares every number.

use std::sync::OnceLock;
use std::time::Duration;

use collector_core::{Answer, Clock as _, ErrorKind, ModelSample, ReplicaMetrics};
use collector_record::{Recording, Replay, Writer};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::round_trip::answer_of;
use crate::{MAX_BYTES, World, model};

const SECOND: Duration = Duration::from_secs(1);
const ANSWERS: u64 = 24;

/// The queue in a recording of this seed after so many seconds.
fn truth(seed: u64, second: u64) -> u64 {
    seed * 1_000_000 + second * 7919 + 1
}

/// A recording of one answer a second, in blocks of a few.
fn recording(seed: u64) -> Vec<u8> {
    let world = World::new(false);
    let llama = model("llama");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for second in 0..ANSWERS {
        world.fake.serve(&llama, move |now| {
            let mut row = ReplicaMetrics::new("llama-0", now);
            row.queue_length = Some(truth(seed, second));
            ModelSample::new(now, vec![row])
        });
        runtime.block_on(world.fetch(std::slice::from_ref(&llama))).unwrap();
        if second % 5 == 4 {
            world.write();
        }
        world.clock.advance(SECOND);
    }
    world.recorder.end();
    world.write();
    world.bytes()
}

fn recordings() -> &'static [Vec<u8>; 2] {
    static BOTH: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    BOTH.get_or_init(|| [recording(1), recording(2)])
}

/// What happens to a file. Places are parts of its length.
#[derive(Clone, Debug)]
enum Damage {
    Cut(f64),
    Flip(f64, u8),
    Remove(f64, f64),
    Repeat(f64, f64),
    /// Bytes of the other recording in the place of ours.
    Splice(f64, f64),
    Insert(f64, Vec<u8>),
    /// A whole block: gone, in the place of another one, or out of the other recording.
    RemoveBlock(usize),
    MoveBlock(usize, usize),
    ForeignBlock(usize, usize),
}

/// Where the blocks of a recording are that nothing happened to yet; of others, those until then.
fn blocks(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut blocks = Vec::new();
    let mut start = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |it| it + 1);
    while let Some(length) = bytes.get(start..start + 4) {
        let end = start + 16 + u32::from_le_bytes(length.try_into().unwrap()) as usize;
        if end > bytes.len() {
            break;
        }
        blocks.push(start..end);
        start = end;
    }
    blocks
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (0.0..1.0).prop_map(Damage::Cut),
        (0.0..1.0, 1_u8..).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        (0.0..1.0, 0.0..0.3).prop_map(|(at, length)| Damage::Remove(at, length)),
        (0.0..1.0, 0.0..0.5).prop_map(|(at, length)| Damage::Repeat(at, length)),
        (0.0..1.0, 0.0..1.0).prop_map(|(at, length)| Damage::Splice(at, length)),
        (0_usize..6).prop_map(Damage::RemoveBlock),
        (0_usize..6, 0_usize..6).prop_map(|(from, to)| Damage::MoveBlock(from, to)),
        (0_usize..6, 0_usize..6).prop_map(|(from, to)| Damage::ForeignBlock(from, to)),
        (0.0..1.0, vec(any::<u8>(), 1..64)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
    ]
}

impl Damage {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "parts of a length"
    )]
    fn apply(&self, bytes: &mut Vec<u8>, other: &[u8]) {
        let length = bytes.len();
        let place = |part: f64| ((part * length as f64) as usize).min(length.saturating_sub(1));
        let range = |at: f64, part: f64| place(at)..(place(at) + place(part)).min(length);
        if length == 0 {
            return;
        }
        let places = blocks(bytes);
        let block = |index: usize| places.get(index).cloned().unwrap_or_default();
        match self {
            Self::RemoveBlock(index) => {
                bytes.drain(block(*index));
            }
            Self::MoveBlock(from, to) => {
                let moved = bytes[block(*from)].to_vec();
                bytes.splice(block(*to), moved);
            }
            Self::ForeignBlock(from, to) => {
                let foreign =
                    blocks(other).get(*from).map_or(&[][..], |range| &other[range.clone()]);
                bytes.splice(block(*to), foreign.iter().copied());
            }
            Self::Cut(at) => bytes.truncate(place(*at)),
            Self::Flip(at, bits) => bytes[place(*at)] ^= bits,
            Self::Remove(at, part) => {
                bytes.drain(range(*at, *part));
            }
            Self::Repeat(at, part) => {
                let again = bytes[range(*at, *part)].to_vec();
                bytes.splice(place(*at)..place(*at), again);
            }
            Self::Splice(at, part) => {
                let range = range(*at, *part);
                let end = range.end.min(other.len());
                let foreign = other[range.start.min(end)..end].to_vec();
                bytes.splice(range, foreign);
            }
            Self::Insert(at, inserted) => {
                bytes.splice(place(*at)..place(*at), inserted.iter().copied());
            }
        }
    }
}

/// Replays a file to behind its end, and compares each answer with what was recorded.
fn compare(bytes: &[u8]) -> Result<(), TestCaseError> {
    let world = World::new(false);
    std::fs::write(world.path(), bytes).unwrap();
    let Ok(recording) = Recording::open(&world.path()) else { return Ok(()) };
    let whole = recording.length();
    // The other recording may stand here as a whole, but not a part of each.
    let how = Replay { start: Some(Duration::ZERO), ..Replay::default() };
    let clock: std::sync::Arc<dyn collector_core::Clock> = world.clock.clone();
    let replays = collector_record::replay(&std::sync::Arc::new(recording), how, &clock);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut seed = None;
    for second in 0..ANSWERS + 3 {
        for replay in &replays {
            match runtime.block_on(answer_of(replay, &world.clock, &model("llama"))) {
                Answer::Found(sample) => {
                    let queue = sample.replicas[0].queue_length.unwrap();
                    let of = seed.get_or_insert(queue / 1_000_000);
                    // The last answer stays the newest until the end.
                    let expected = truth(*of, second.min(ANSWERS - 1));
                    prop_assert_eq!(queue, expected, "at {}s", second);
                    let age = sample.as_of.age(world.clock.now());
                    prop_assert_eq!(
                        age,
                        SECOND * u32::try_from(second - second.min(ANSWERS - 1)).unwrap()
                    );
                    prop_assert!(SECOND * u32::try_from(second).unwrap() <= whole);
                }
                Answer::Failed(error) => prop_assert_eq!(error.kind(), ErrorKind::NotRecorded),
                other => prop_assert!(false, "{:?}", other),
            }
        }
        world.clock.advance(SECOND);
    }
    Ok(())
}

#[test]
fn a_recording_is_compared_as_a_whole() {
    compare(&recordings()[0]).unwrap();
    // The comparison finds a number that is not the recorded one.
    assert_ne!(truth(1, 3), truth(1, 4));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_damaged_recording_has_no_wrong_number(all in vec(damage(), 1..4)) {
        let [ours, other] = recordings();
        let mut bytes = ours.clone();
        for damage in &all {
            damage.apply(&mut bytes, other);
        }
        compare(&bytes)?;
    }

    #[test]
    fn a_damaged_recording_is_continued_without_a_loss_of_what_is_whole(all in vec(damage(), 1..3)) {
        let [ours, other] = recordings();
        let mut bytes = ours.clone();
        for damage in &all {
            damage.apply(&mut bytes, other);
        }
        let world = World::new(false);
        std::fs::write(world.path(), &bytes).unwrap();
        let answers = |world: &World| Recording::open(&world.path()).map_or(0, |it| it.answers());
        let before = answers(&world);
        if let Ok((writer, _)) = Writer::open(&world.path(), MAX_BYTES, &*world.clock) {
            drop(writer);
            prop_assert_eq!(answers(&world), before);
            compare(&world.bytes())?;
        } else {
            // Then it is as it was.
            prop_assert_eq!(world.bytes(), bytes);
        }
    }
}
