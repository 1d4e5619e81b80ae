// SPDX-License-Identifier: Apache-2.0
//! What is replayed is what was answered.

use std::time::Duration;

use collector_core::{
    Answer, Ask, Backend as _, Check, CheckStatus, Clock as _, ErrorKind, ListAsk, ManualClock,
    ModelRef, ModelSample, ProbeAsk, ReplicaMetrics,
};
use collector_record::Replay;
use collector_testkit::Failure;
use proptest::prelude::*;

use crate::samples::sample;
use crate::{World, model};

const SECOND: Duration = Duration::from_secs(1);

/// Asks a backend about one model.
pub(crate) async fn answer_of(
    backend: &dyn collector_core::Backend,
    clock: &ManualClock,
    model: &ModelRef,
) -> Answer {
    let models = std::slice::from_ref(model);
    match backend.fetch(Ask::new(models, clock)).await {
        Ok(mut answers) => answers.remove(model).unwrap(),
        Err(error) => Answer::Failed(error),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_sample_is_replayed_as_it_was_answered_and_goes_on_aging(
        sample in sample(ManualClock::new().now()),
        later in 0_u64..100_000,
    ) {
        let world = World::new(false);
        let llama = model("llama");
        let answered = sample.clone();
        world.fake.serve(&llama, move |_| answered.clone());
        block_on(async {
            world.fetch(std::slice::from_ref(&llama)).await.unwrap();
            // The recording lasts long enough for the second look.
            world.clock.advance(Duration::from_millis(later));
            world.recorder.end();
            world.write();
            let how = Replay { start: Some(Duration::ZERO), ..Replay::default() };
            let replay = world.replay(how);
            // Ages count from the beginning of the replay, as they did from the beginning of the recording.
            let shift = Duration::from_millis(later);
            let found = |answer| match answer {
                Answer::Found(sample) => sample,
                other => panic!("{other:?}"),
            };
            let first = found(answer_of(&replay, &world.clock, &llama).await);
            prop_assert_eq!(&shifted(first, shift), &sample);
            world.clock.advance(shift);
            let last = found(answer_of(&replay, &world.clock, &llama).await);
            prop_assert_eq!(&shifted(last, shift), &sample);
            Ok(())
        })?;
    }
}

/// The sample as it would be if the replay had begun earlier by this.
fn shifted(mut sample: ModelSample, by: Duration) -> ModelSample {
    sample.as_of = sample.as_of - by;
    for row in &mut sample.replicas {
        row.sampled_at = row.sampled_at - by;
        for mark in &mut row.marks {
            mark.sampled_at = mark.sampled_at - by;
        }
        if let Some(latencies) = row.latencies.take() {
            let mut latencies = (*latencies).clone();
            latencies.sampled_at = latencies.sampled_at - by;
            row.latencies = Some(latencies.into());
        }
    }
    if let Some(supply) = &mut sample.supply {
        let supply = std::sync::Arc::make_mut(supply);
        supply.as_of = supply.as_of - by;
        let pods = supply.workloads.iter_mut().flat_map(|workload| &mut workload.pods);
        pods.for_each(|pod| pod.since = pod.since - by);
        supply.deleted.iter_mut().for_each(|(_, at)| *at = *at - by);
    }
    sample.endpoint_picker = match sample.endpoint_picker {
        collector_core::EndpointPicker::Responding(load) => {
            let mut load = (*load).clone();
            load.sampled_at = load.sampled_at - by;
            collector_core::EndpointPicker::Responding(load.into())
        }
        collector_core::EndpointPicker::Silent { since, reason } => {
            collector_core::EndpointPicker::silent(since.map(|since| since - by), reason)
        }
        other => other,
    };
    sample
}

#[tokio::test]
async fn missing_failed_and_zero_stay_what_they_were() {
    let world = World::new(false);
    let (idle, gone, slow, busy) = (model("idle"), model("gone"), model("slow"), model("busy"));
    let all = [idle.clone(), gone.clone(), slow.clone(), busy.clone()];
    world.fake.serve(&idle, |now| {
        let mut row = ReplicaMetrics::new("idle-0", now);
        row.queue_length = Some(0);
        ModelSample::new(now, vec![row])
    });
    let retry_after = Some(SECOND * 7);
    world.fake.fail_model(&slow, Failure { kind: ErrorKind::Overloaded, retry_after });
    world.fake.omit(&busy);
    world.fetch(&all).await.unwrap();
    world.clock.advance(SECOND);
    world.fake.fail(ErrorKind::Connect);
    world.fetch(&all).await.unwrap_err();
    world.clock.advance(SECOND);
    world.recorder.end();
    world.write();

    let replay = world.replay(Replay::default());
    let mut answers = replay.fetch(Ask::new(&all, &*world.clock)).await.unwrap();
    match answers.remove(&idle).unwrap() {
        Answer::Found(sample) => {
            assert_eq!(sample.replicas[0].queue_length, Some(0));
            assert_eq!(sample.replicas[0].running_requests, None);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(answers.remove(&gone).unwrap(), Answer::Missing { .. }));
    match answers.remove(&slow).unwrap() {
        Answer::Failed(error) => {
            assert_eq!(error.kind(), ErrorKind::Overloaded);
            assert_eq!(error.retry_after(), retry_after);
        }
        other => panic!("{other:?}"),
    }
    // A model that the backend said nothing about has failed, as it has for the engine.
    assert!(matches!(answers.remove(&busy).unwrap(), Answer::Failed(_)));

    // Then the server was down.
    world.clock.advance(SECOND);
    let error = replay.fetch(Ask::new(&all, &*world.clock)).await.unwrap_err();
    assert_eq!((error.kind(), error.backend().as_str()), (ErrorKind::Connect, "fake"));

    // Nothing is known of the time after the end.
    world.clock.advance(SECOND * 2);
    let error = replay.fetch(Ask::new(&all, &*world.clock)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRecorded);
    assert_eq!(error.detail(), "the recording ended at 2s");
}

#[tokio::test]
async fn models_are_listed_as_they_were() {
    let world = World::new(false);
    world.fake.serve_pods(&model("llama"), &["llama-0"]);
    world.wrapped.list_models(ListAsk::new(&*world.clock)).await.unwrap();
    world.clock.advance(SECOND);
    world.fake.fail(ErrorKind::Forbidden);
    world.wrapped.list_models(ListAsk::new(&*world.clock)).await.unwrap_err();
    world.clock.advance(SECOND);
    world.recorder.end();
    world.write();

    let how = Replay { start: Some(Duration::ZERO), ..Replay::default() };
    let replay = world.replay(how);
    let listed = replay.list_models(ListAsk::new(&*world.clock)).await.unwrap();
    assert_eq!(listed[0].model, model("llama"));
    // Of a model that the list lacks it is known that it is missing; of one that it has, nothing.
    let absent = answer_of(&replay, &world.clock, &model("absent")).await;
    assert!(matches!(absent, Answer::Missing { .. }), "{absent:?}");
    let llama = answer_of(&replay, &world.clock, &model("llama")).await;
    assert!(matches!(&llama, Answer::Failed(error) if error.kind() == ErrorKind::NotRecorded));
    world.clock.advance(SECOND);
    let error = replay.list_models(ListAsk::new(&*world.clock)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    world.clock.advance(SECOND * 2);
    let error = replay.list_models(ListAsk::new(&*world.clock)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRecorded);
}

#[tokio::test]
async fn models_are_not_listed_from_answers_of_some() {
    let world = World::new(false);
    let llama = model("llama");
    world.fake.serve_pods(&llama, &["llama-0"]);
    world.fake.serve_pods(&model("qwen"), &["qwen-0"]);
    world.fetch(std::slice::from_ref(&llama)).await.unwrap();
    world.clock.advance(SECOND);
    world.wrapped.list_models(ListAsk::new(&*world.clock)).await.unwrap();
    world.write();
    let begun = Replay { start: Some(Duration::ZERO), ..Replay::default() };
    let error = world.replay(begun).list_models(ListAsk::new(&*world.clock)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRecorded);
    // By default it begins with the list.
    let listed = world.replay(Replay::default()).list_models(ListAsk::new(&*world.clock)).await;
    assert_eq!(listed.unwrap().len(), 2);
}

#[tokio::test]
async fn a_fetch_that_the_caller_gave_up_is_recorded_as_a_timeout() {
    let world = World::new(false);
    let llama = model("llama");
    world.fake.serve_pods(&llama, &["llama-0"]);
    world.fake.hang();
    let asked = [llama.clone()];
    tokio::select! {
        biased;
        _ = world.fetch(&asked) => panic!("it hangs"),
        () = world.fake.entered() => {}
    }
    world.recorder.end();
    world.write();
    let replay = world.replay(Replay::default());
    let answer = answer_of(&replay, &world.clock, &llama).await;
    assert!(matches!(&answer, Answer::Failed(error) if error.kind() == ErrorKind::Timeout));
}

#[tokio::test]
async fn a_probe_says_what_the_recording_has() {
    let world = World::new(false);
    let llama = model("llama");
    world.fake.serve_pods(&llama, &["llama-0"]);
    world.fetch(std::slice::from_ref(&llama)).await.unwrap();
    world.write();
    let probe = world.replay(Replay::default()).probe(ProbeAsk::new(&*world.clock)).await.unwrap();
    let Check { status, detail, .. } = &probe.checks[0];
    assert_eq!(*status, CheckStatus::Pass);
    assert!(detail.ends_with("1 answer within 0"), "{detail}");
}
