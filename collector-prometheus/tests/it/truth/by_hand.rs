// SPDX-License-Identifier: Apache-2.0
//! Scenes with one fault each, and the required result.

use collector_core::{Answer, Field, ModelRef, ModelSample, ReplicaMetrics, Urgency};

use super::fleet::World;
use super::plan::{Fault, Plan, Scope, Struck};
use super::{Played, play, start};

/// A scene of one model with a fault in these fetches.
fn scene(model: &str, world: World, fault: Fault, scope: Scope, fetches: [bool; 2]) -> Plan {
    Plan {
        seed: 0,
        world,
        model: ModelRef::new(model, "prod"),
        with_others: false,
        per_pod: false,
        urgency: Urgency::Background,
        times: vec![0.0, 30.0],
        faults: vec![Struck { fault, scope, fetches }],
        skew: 0,
    }
}

#[track_caller]
fn found(answer: Option<&Answer>) -> &ModelSample {
    match answer {
        Some(Answer::Found(sample)) => sample,
        other => panic!("not found: {other:?}"),
    }
}

#[track_caller]
fn failed(answer: Option<&Answer>) -> String {
    match answer {
        Some(Answer::Failed(error)) => error.to_string(),
        other => panic!("not failed: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_contradiction_is_reported() {
    let Some((gateway, pods)) = start().await else { return };
    let both = [true, true];
    let say = async |plan: Plan| -> Vec<Option<Answer>> {
        let Played { answers, violations, .. } = play(plan, &gateway, &pods).await;
        assert!(violations.is_empty(), "{violations:#?}");
        answers
    };

    // A pod without a name: the others are returned, and the answer is incomplete.
    let nothing = Fault::Delay { hangs: false };
    let said = say(scene("org/alpha", World::UnnamedPod, nothing, Scope::All, both)).await;
    assert_eq!(
        (found(said[0].as_ref()).replicas.len(), found(said[0].as_ref()).absent.is_none()),
        (2, false)
    );

    // Two values of one gauge: neither is used.
    let waiting = Scope::With("max_over_time(vllm:num_requests_waiting{");
    let fault = Fault::Double { label: None, older: true, first: false };
    let said = say(scene("org/alpha", World::Plain, fault, waiting, both)).await;
    let row = &found(said[0].as_ref()).replicas[0];
    assert_eq!(row.queue_length, None);
    assert!(row.reasons.contains(Field::QueueLength) && row.running_requests.is_some());

    // A cache answers one query as of ten minutes ago, and reports that time.
    let scope = Scope::With("rate(vllm:request_prompt_tokens_sum{");
    let fault = Fault::Earlier { seconds: 600.0, own_time: true, time_too: false };
    let said = say(scene("org/alpha", World::Plain, fault, scope, both)).await;
    let reason = found(said[0].as_ref()).failed.get(Field::AvgInputTokens).unwrap();
    assert!(reason.contains("600 s before those of the liveness query"), "{reason}");

    // A pod that lives in one query and not in another.
    let lives = Scope::With("timestamp(vllm:num_requests_running{");
    let fault = Fault::DropPod("alpha-2".into());
    let said = say(scene("org/alpha", World::Plain, fault, lives, both)).await;
    assert_eq!(
        (found(said[0].as_ref()).replicas.len(), found(said[0].as_ref()).absent.is_none()),
        (2, false)
    );

    // An invalid time.
    let fault = Fault::Value { value: "-1", salt: 0, percent: 50 };
    let said = say(scene("org/alpha", World::Plain, fault, lives, both)).await;
    assert!(
        found(said[0].as_ref()).replicas.len() < 3 && !found(said[0].as_ref()).absent.is_none()
    );

    // What the server holds is unknown, or known in part: no model is missing.
    let probe = Scope::With("label_replace(count(");
    let said =
        say(scene("org/lang", World::Plain, Fault::Type("streams"), probe, [true, false])).await;
    assert!(
        failed(said[1].as_ref()).contains("which engines it holds"),
        "{}",
        failed(said[1].as_ref())
    );
    let fault = Fault::Partial { salt: 0, percent: 100, flag: false };
    let probe = Scope::With("label_replace(count(vllm:cache_config_info");
    let said = say(scene("org/alpha", World::Plain, fault, probe, both)).await;
    failed(said[0].as_ref());

    // Three pods half a minute ago, and none within the last minute.
    let fault = Fault::DropRows { salt: 0, percent: 100 };
    let said = say(scene("org/alpha", World::Plain, fault, Scope::All, [false, true])).await;
    assert_eq!(found(said[0].as_ref()).replicas.len(), 3);
    assert!(failed(said[1].as_ref()).contains("within the window"), "{}", failed(said[1].as_ref()));

    // Copies with absurd counters are not two servers.
    let counters = Scope::With("vllm:request_success_total{");
    let fault = Fault::Value { value: "1e300", salt: 1, percent: 50 };
    let said = say(scene("org/ranks", World::TwoInstances, fault, counters, both)).await;
    let running: Vec<_> =
        found(said[0].as_ref()).replicas.iter().map(|row| row.running_requests).collect();
    assert_eq!(running, [Some(42), Some(44)]);

    // A rank without its row makes the sum of its pod unknown.
    let lives = Scope::With("timestamp(sglang:num_running_reqs{");
    let fault = Fault::DropRows { salt: 3, percent: 50 };
    let said = say(scene("org/lang", World::Plain, fault, lives, both)).await;
    let rows = &found(said[0].as_ref()).replicas;
    let lacks = rows.iter().filter(|row| row.queue_length.is_none());
    assert!(lacks.clone().count() > 0, "{rows:?}");
    let reason = |row: &ReplicaMetrics| row.reasons.get(Field::QueueLength).cloned();
    assert!(lacks.filter_map(reason).any(|it| it.starts_with("rank 1 of 2")), "{rows:?}");
}
