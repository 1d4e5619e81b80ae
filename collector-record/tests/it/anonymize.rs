// SPDX-License-Identifier: Apache-2.0
//! No name and no text of a fleet is left in a recording that is anonymized.

use std::io::Read as _;

use collector_core::{
    Ask, Backend as _, Clock as _, ErrorKind, ListAsk, ManualClock, ModelRef, ModelSample,
    ReplicaMetrics,
};
use collector_record::Replay;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::samples::{name, sample, texts_of};
use crate::{World, opened};

/// All entries of a file, unpacked.
fn unpacked(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = &bytes[bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1..];
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        flate2::read::ZlibDecoder::new(&rest[16..16 + length]).read_to_string(&mut text).unwrap();
        rest = &rest[16 + length..];
    }
    text
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// Records a sample of each model, a list, and failures.
fn record(models: &[(ModelRef, ModelSample)], anonymize: bool) -> World {
    let world = World::new(anonymize);
    for (model, sample) in models {
        let sample = sample.clone();
        world.fake.serve(model, move |_| sample.clone());
    }
    let mut asked: Vec<ModelRef> = models.iter().map(|(model, _)| model.clone()).collect();
    asked.push(ModelRef::new("ZqabsentZq", "ZqnowhereZq"));
    block_on(async {
        world.fetch(&asked).await.unwrap();
        world.wrapped.list_models(ListAsk::new(&*world.clock)).await.unwrap();
        world.fake.fail_model(&asked[0], ErrorKind::NotFound);
        world.fetch(&asked).await.unwrap();
        world.fake.fail(ErrorKind::Connect);
        world.fetch(&asked).await.unwrap_err();
        world.wrapped.list_models(ListAsk::new(&*world.clock)).await.unwrap_err();
    });
    world.recorder.end();
    world.write();
    world
}

fn models() -> impl Strategy<Value = Vec<(ModelRef, ModelSample)>> {
    let now = ManualClock::new().now();
    vec((name(), name(), sample(now)), 1..4).prop_map(|models| {
        let of = |(model, namespace, sample): (String, String, _)| {
            (ModelRef::new(model.as_str(), namespace.as_str()), sample)
        };
        models.into_iter().map(of).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_name_is_left(models in models()) {
        let mut names: Vec<String> = models.iter().flat_map(|(_, sample)| texts_of(sample)).collect();
        for (model, _) in &models {
            names.push(model.model.as_str().to_owned());
            names.push(model.namespace.as_str().to_owned());
        }
        let plain = unpacked(&record(&models, false).bytes());
        let hidden = unpacked(&record(&models, true).bytes());
        for name in names {
            prop_assert!(plain.contains(&name), "the test looks for {} in vain", name);
            prop_assert!(!hidden.contains(&name), "{} is left in {}", name, hidden);
        }
        prop_assert!(!hidden.contains("Zq"), "{}", hidden);
        // What is left can be replayed.
        let world = record(&models, true);
        prop_assert_eq!(opened(&world.path()).answers(), 3 * (models.len() + 1));
    }
}

#[tokio::test]
async fn one_name_has_one_replacement_and_numbers_stay() {
    let (first, second) =
        (ModelRef::new("acme/llama", "prod"), ModelRef::new("acme/llama", "test"));
    let world = World::new(true);
    for model in [&first, &second] {
        world.fake.serve(model, |now| {
            let mut row = ReplicaMetrics::new("acme-llama-0", now);
            row.queue_length = Some(41);
            row.engine = Some("vllm".into());
            row.role = Some("prefill".into());
            ModelSample::new(now, vec![row])
        });
    }
    for _ in 0..2 {
        world.fetch(&[first.clone(), second.clone()]).await.unwrap();
    }
    world.wrapped.list_models(ListAsk::new(&*world.clock)).await.unwrap();
    world.write();
    let replay = world.replay(Replay::default());
    let listed = replay.list_models(ListAsk::new(&*world.clock)).await.unwrap();
    let listed: Vec<ModelRef> = listed.into_iter().map(|known| known.model).collect();
    let expected =
        [ModelRef::new("model-1", "namespace-1"), ModelRef::new("model-1", "namespace-2")];
    assert_eq!(listed, expected);
    let answers = replay.fetch(Ask::new(&expected, &*world.clock)).await.unwrap();
    for (_, answer) in answers {
        let collector_core::Answer::Found(sample) = answer else { panic!("{answer:?}") };
        let row = &sample.replicas[0];
        assert_eq!((row.pod_name.as_str(), row.queue_length), ("pod-1", Some(41)));
        // What everyone calls so tells nothing.
        assert_eq!(row.engine.as_ref().unwrap().as_str(), "vllm");
        assert_eq!(row.role.as_ref().unwrap().as_str(), "prefill");
    }
}
