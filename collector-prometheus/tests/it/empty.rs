// SPDX-License-Identifier: Apache-2.0
//! When a model has no replica, when it is missing, and when neither can be decided.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use collector_core::{Answer, Clock, ErrorKind, Urgency};

use crate::fake::{
    Fake, LABELS, MODEL, NOW, POD_0, VLLM, found, m, two_pods, vector, vector_text_at,
};

/// A server whose liveness query finds nothing, although the model had series within the window.
async fn vanished() -> Fake {
    let fake = Fake::start().await;
    fake.holds(VLLM, &LABELS, 2);
    fake.rows("max_over_time(vllm:num_requests_running{", &[(MODEL, 5.0)]);
    fake
}

const LIVENESS: &str = "(timestamp(vllm:num_requests_running{";

#[tokio::test]
async fn no_replicas_takes_a_second_liveness_query_that_agrees() {
    let fake = vanished().await;
    let sample = fake.sample().await;
    assert!(sample.replicas.is_empty() && sample.absent.is_none());
    let looks = fake.queries().iter().filter(|query| query.contains(LIVENESS)).count();
    assert_eq!(looks, 2);
}

#[tokio::test]
async fn a_second_liveness_query_that_finds_pods_wins() {
    let fake = vanished().await;
    let looks = Arc::new(AtomicUsize::new(0));
    fake.rule(move |asked| {
        let is_second = asked.query.contains(LIVENESS) && looks.fetch_add(1, Ordering::SeqCst) == 1;
        is_second.then(|| crate::fake::ok(&vector_text_at(NOW, &[(POD_0, NOW - 2.0)])))
    });
    fake.rows("max_over_time(vllm:num_requests_waiting{", &[(POD_0, 3.0)]);
    fake.rows("request_prompt_tokens_count{", &[(MODEL, 2.0)]);
    let sample = fake.sample().await;
    assert_eq!(sample.replicas.len(), 1, "{sample:?}");
    assert_eq!(sample.replicas[0].pod_name.as_str(), "m-0");
    assert_eq!(sample.replicas[0].queue_length, Some(3), "what lives is asked for");
    assert_eq!(sample.load.of_model().unwrap().rates.requests, Some(2.0));
}

#[tokio::test]
async fn a_scrape_that_was_stored_between_two_queries_is_no_contradiction() {
    let fake = vanished().await;
    fake.rows("(timestamp(vllm:num_requests_waiting{", &[(POD_0, NOW - 2.0)]);
    let looks = Arc::new(AtomicUsize::new(0));
    fake.rule(move |asked| {
        let is_second = asked.query.contains(LIVENESS) && looks.fetch_add(1, Ordering::SeqCst) == 1;
        is_second.then(|| crate::fake::ok(&vector_text_at(NOW, &[(POD_0, NOW - 2.0)])))
    });
    assert_eq!(fake.sample().await.replicas.len(), 1);
}

#[tokio::test]
async fn a_failed_second_liveness_query_decides_nothing() {
    let fake = vanished().await;
    let looks = Arc::new(AtomicUsize::new(0));
    fake.rule(move |asked| {
        let is_second = asked.query.contains(LIVENESS) && looks.fetch_add(1, Ordering::SeqCst) == 1;
        is_second.then(|| crate::fake::error(500, "internal", "boom"))
    });
    match fake.answer_for_m().await.unwrap() {
        Answer::Failed(error) => assert_eq!(error.kind(), ErrorKind::ServerError, "{error}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn rows_of_another_gauge_contradict_and_name_the_absent_series() {
    let fake = vanished().await;
    fake.rows("(timestamp(vllm:num_requests_waiting{", &[(POD_0, NOW - 2.0)]);
    let Answer::Failed(error) = fake.answer_for_m().await.unwrap() else { panic!("answered") };
    let text = error.to_string();
    for part in ["vllm:num_requests_waiting now", "none of vllm:num_requests_running", "drop"] {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}

#[tokio::test]
async fn an_incomplete_answer_is_blamed_before_the_relabelling() {
    let fake = vanished().await;
    fake.rows("(timestamp(vllm:num_requests_waiting{", &[(POD_0, NOW - 2.0)]);
    // The pod lives, but its time is unknown.
    fake.rows(LIVENESS, &[(POD_0, f64::NAN)]);
    let Answer::Failed(error) = fake.answer_for_m().await.unwrap() else { panic!("answered") };
    let text = error.to_string();
    assert!(text.contains("incomplete") && !text.contains("relabelling"), "{text}");
}

#[tokio::test]
async fn a_model_is_not_missing_where_an_engine_was_not_asked() {
    let answer = async |engines: usize| {
        let fake = Fake::start().await;
        let names: Vec<String> =
            (0..engines).map(|n| format!("e{n}_num_requests_running")).collect();
        fake.holds(names.iter().map(String::as_str), &LABELS, 1);
        fake.answer_for_m().await.unwrap()
    };
    assert!(matches!(answer(20).await, Answer::Missing { .. }), "more than are built in");
    let Answer::Failed(error) = answer(40).await else { panic!("answered") };
    assert!(error.to_string().contains("incomplete"), "{error}");
}

#[tokio::test]
async fn a_missing_model_was_last_seen_when_the_server_says_or_when_we_saw_it() {
    let fake = Fake::start().await;
    fake.holds(VLLM, &LABELS, 2);
    fake.rows("[1h:1m]", &[(MODEL, NOW - 1200.0)]);
    let missing =
        async |urgency| match fake.fetch_all(&[m()], &[], urgency).await.unwrap().remove(0).1 {
            Answer::Missing { last_seen, .. } => last_seen.map(|at| at.age(fake.clock.now())),
            other => panic!("{other:?}"),
        };
    assert_eq!(missing(Urgency::Waiting).await, Some(Duration::from_secs(1200)));
    assert_eq!(missing(Urgency::Background).await, None, "the background does not ask");

    let fake = Fake::start().await;
    two_pods(&fake);
    assert_eq!(fake.sample().await.replicas.len(), 2);
    fake.clock.advance(Duration::from_secs(100));
    fake.answer("vllm:num_requests", vector(&[]));
    let Answer::Missing { last_seen, .. } = fake.answer_for_m().await.unwrap() else {
        panic!("no longer missing")
    };
    let age = last_seen.unwrap().age(fake.clock.now());
    assert_eq!(age, Duration::from_secs(100), "it existed at the last fetch");
}

#[tokio::test]
async fn late_samples_of_one_model_move_no_other_window() {
    let fake = Fake::start().await;
    two_pods(&fake);
    let late = r#""namespace":"prod","model_name":"late","pod":"l-0""#;
    fake.rows("timestamp(", &[(POD_0, NOW - 2.0), (late, NOW - 40.0)]);
    // Each model is queried at its own time, and each answer contains both.
    let of_late = r#""namespace":"prod","model_name":"late""#;
    fake.rule(move |asked| {
        let at = asked.time.unwrap_or(NOW);
        let rates =
            if at < NOW { [(MODEL, 9.0), (of_late, 3.0)] } else { [(MODEL, 2.0), (of_late, 0.1)] };
        let arrivals = asked.query.contains("request_prompt_tokens_count{");
        arrivals.then(|| crate::fake::ok(&vector_text_at(at, &rates)))
    });
    let models = [m(), collector_core::ModelRef::new("late", "prod")];
    for (model, answer) in fake.fetch_all(&models, &[], Urgency::Background).await.unwrap() {
        let rates = found(answer).load.of_model().unwrap().rates;
        let expected = if model == m() { 2.0 } else { 3.0 };
        assert_eq!(rates.requests, Some(expected), "{model}");
    }
    let mut times: Vec<Option<f64>> = fake
        .asked()
        .into_iter()
        .filter(|asked| {
            asked.query.contains("num_requests_waiting{") && asked.query.contains("max_over")
        })
        .map(|asked| asked.time)
        .collect();
    // Both are queried at once.
    times.sort_by(|one, other| other.partial_cmp(one).unwrap());
    assert_eq!(times, [Some(NOW), Some(NOW - 30.0)], "by whole scrapes");
}
