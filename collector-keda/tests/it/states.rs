// SPDX-License-Identifier: Apache-2.0
//! What each state of a model is answered with: the table of states.

use std::sync::Arc;

use collector_core::supply::{Pod, PodState, Workload};
use collector_core::{
    Absent, EndpointPicker, ErrorKind, MetricsCollector as _, ModelSample, Supply, Tick,
};
use collector_keda::Settings;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::fixture::{Client, Fixture, MODEL, held_back, model, pod, queue_of, seconds, trigger};

#[track_caller]
fn is(answer: &Result<f64, (Code, String)>, code: Code, text: &str) {
    assert_eq!(*answer, Err((code, text.to_owned())));
}

async fn started() -> (Fixture, Client) {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    (fixture, client)
}

#[tokio::test(start_paused = true)]
async fn fresh_and_stale_readings_have_a_value() {
    let (fixture, client) = started().await;
    fixture.serve(queue_of(3));
    assert_eq!(client.value(&[]).await, Ok(3.0));
    fixture.backend.fail(ErrorKind::Connect);
    sleep(seconds(290)).await;
    assert_eq!(client.value(&[]).await, Ok(3.0));
}

#[tokio::test(start_paused = true)]
async fn known_zero_pods_are_zero_plus_the_pickers_queue() {
    let (fixture, client) = started().await;
    fixture.serve(|as_of| ModelSample::new(as_of, Vec::new()));
    // Series that are gone are no proof.
    let (code, text) = client.value(&[]).await.unwrap_err();
    assert_eq!((code, text.contains("does not prove")), (Code::Unavailable, true), "{text}");
    assert_eq!(client.value(&[("onMissing", "zero")]).await, Ok(0.0));
    fixture.serve(|as_of| {
        let mut sample = ModelSample::new(as_of, Vec::new());
        sample.lists_pods = true;
        sample
    });
    fixture.forget();
    for signal in ["queue", "running", "kv-sum", "kv-max"] {
        assert_eq!(client.value(&[("signal", signal)]).await, Ok(0.0), "{signal}");
    }
    fixture.serve(held_back(3));
    fixture.forget();
    for signal in ["queue", "running", "kv-sum", "kv-max"] {
        assert_eq!(client.value(&[("signal", signal)]).await, Ok(3.0), "{signal}");
    }
}

#[tokio::test(start_paused = true)]
async fn known_zero_pods_behind_a_silent_picker_are_unknown() {
    let (fixture, client) = started().await;
    sleep(seconds(60)).await;
    let silent = |pods: bool| {
        move |as_of| {
            let pods = if pods { vec![pod("chat-0", as_of, 1)] } else { Vec::new() };
            let mut sample = ModelSample::new(as_of, pods);
            let since = collector_core::ManualClock::new();
            let since = collector_core::Clock::now(&since) + seconds(19);
            sample.endpoint_picker = EndpointPicker::silent(Some(since), "connection refused");
            sample
        }
    };
    fixture.serve(silent(false));
    let expected = "\"org/chat\" in \"prod\" has no replicas, and the picker that holds its queue has not \
                    answered since 41s: connection refused";
    is(&client.value(&[]).await, Code::Unavailable, expected);
    is(&client.value(&[("signal", "kv-max")]).await, Code::Unavailable, expected);
    fixture.serve(silent(true));
    fixture.forget();
    let expected = "the picker that holds the queue of \"org/chat\" in \"prod\" has not answered since 41s: \
                    connection refused";
    is(&client.value(&[]).await, Code::Unavailable, expected);
    assert_eq!(client.value(&[("signal", "running")]).await, Ok(2.0));
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_its_limit_is_an_error_with_the_age_and_the_cause() {
    let (fixture, client) = started().await;
    fixture.serve(queue_of(3));
    assert_eq!(client.value(&[]).await, Ok(3.0));
    fixture.backend.fail(ErrorKind::Connect);
    sleep(seconds(65)).await;
    let limited = client.value(&[("maxAge", "1m")]).await;
    let expected =
        "nothing newer than 1m5s is known of \"org/chat\" in \"prod\"; the limit is 1m (maxAge)";
    is(&limited, Code::Unavailable, expected);
    assert_eq!(client.value(&[("maxAge", "66s")]).await, Ok(3.0));
    sleep(seconds(312 - 65)).await;
    // What a trigger allows does not make an unavailable reading usable.
    for metadata in [&[][..], &[("maxAge", "1h")]] {
        let (code, text) = client.value(metadata).await.unwrap_err();
        let start =
            "nothing newer than 5m12s is known of \"org/chat\" in \"prod\": fake: fetching metrics";
        assert_eq!(code, Code::Unavailable);
        assert!(text.starts_with(start), "{text}");
        assert!(text.contains("cannot connect"), "{text}");
    }
}

/// Three pods, of which the last cannot be reached.
fn two_of_three(as_of: collector_core::Tick) -> ModelSample {
    let pods = vec![pod("chat-0", as_of, 5), pod("chat-1", as_of, 5)];
    let mut sample = ModelSample::new(as_of, pods);
    sample.absent = Absent::pods(vec!["chat-2".into()]);
    sample
}

#[tokio::test(start_paused = true)]
async fn a_partial_reading_is_the_last_complete_one_and_then_an_error() {
    let (fixture, client) = started().await;
    fixture.serve(|as_of| {
        let names = ["chat-0", "chat-1", "chat-2"];
        ModelSample::new(as_of, names.iter().map(|name| pod(name, as_of, 1)).collect())
    });
    for signal in ["queue", "kv-max"] {
        assert!(client.value(&[("signal", signal)]).await.is_ok());
    }
    fixture.serve(two_of_three);
    sleep(seconds(40)).await;
    fixture.forget();
    // The queue is 10 or more now; what is certain is 3 of 40 s ago.
    assert_eq!(client.value(&[]).await, Ok(3.0));
    let (code, text) = client.value(&[("maxAge", "30s")]).await.unwrap_err();
    assert_eq!((code, text.contains("a sum of them")), (Code::Unavailable, true), "{text}");
    sleep(seconds(270)).await;
    fixture.forget();
    let expected =
        "2 of 3 pods of \"org/chat\" in \"prod\" answered; a sum of them would be too small";
    is(&client.value(&[]).await, Code::Unavailable, expected);
    is(&client.value(&[("maxAge", "1h")]).await, Code::Unavailable, expected);
    let expected =
        "2 of 3 pods of \"org/chat\" in \"prod\" answered; the greatest value may be another pod's";
    is(&client.value(&[("signal", "kv-max")]).await, Code::Unavailable, expected);
}

#[tokio::test(start_paused = true)]
async fn a_partial_reading_without_a_complete_one_before_is_an_error() {
    let (fixture, client) = started().await;
    fixture.serve(two_of_three);
    let expected =
        "not all pods of \"org/chat\" in \"prod\" answered; a sum of them would be too small";
    is(&client.value(&[]).await, Code::Unavailable, expected);
}

#[tokio::test(start_paused = true)]
async fn the_first_read_is_waited_for_half_a_second_and_then_tracked() {
    let (fixture, client) = started().await;
    // Another model has been read, so the backend is known to answer.
    fixture.backend.serve_pods(&collector_core::ModelRef::new("other", "prod"), &["o"]);
    assert!(client.value(&[("model", "other")]).await.is_ok());
    fixture.serve(queue_of(3));
    fixture.backend.hang();
    let begun = Instant::now();
    let answer = client.metric(crate::fixture::trigger(&[])).await.unwrap_err();
    assert_eq!(begun.elapsed().as_millis(), 500);
    assert_eq!(
        (answer.code(), answer.message()),
        (Code::Unavailable, "\"org/chat\" in \"prod\" is being read for the first time")
    );
    fixture.backend.release();
    sleep(seconds(1)).await;
    let fetches = fixture.backend.fetches();
    assert_eq!(client.value(&[]).await, Ok(3.0));
    assert_eq!(fixture.backend.fetches(), fetches, "the first fetch went on");
    let tracked: Vec<_> = fixture.collector.tracked().into_iter().map(|it| it.model).collect();
    assert!(tracked.contains(&model()), "{tracked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_answered_in_time_has_its_value() {
    let (fixture, client) = started().await;
    fixture.serve(queue_of(3));
    fixture.backend.hang();
    let asked = tokio::spawn(async move { client.metric(crate::fixture::trigger(&[])).await });
    fixture.backend.entered().await;
    sleep(std::time::Duration::from_millis(400)).await;
    fixture.backend.release();
    assert_eq!(asked.await.unwrap().unwrap().metric_value, 3);
}

#[tokio::test(start_paused = true)]
async fn after_a_start_without_any_answer_the_text_says_so() {
    let (fixture, client) = started().await;
    fixture.backend.fail(ErrorKind::Connect);
    sleep(seconds(4)).await;
    let (code, text) = client.value(&[]).await.unwrap_err();
    let start = "no backend has answered since the start 4s ago: fake: fetching metrics";
    assert_eq!(code, Code::Unavailable);
    assert!(text.starts_with(start), "{text}");
    let (fixture, client) = started().await;
    fixture.backend.hang();
    sleep(seconds(4)).await;
    let expected = "\"org/chat\" in \"prod\" is being read for the first time; no backend has answered since the \
                    start 4s ago";
    is(&client.value(&[]).await, Code::Unavailable, expected);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_hangs_later_leaves_the_age_in_the_text() {
    let (fixture, client) = started().await;
    fixture.serve(queue_of(3));
    assert_eq!(client.value(&[]).await, Ok(3.0));
    fixture.backend.hang();
    sleep(seconds(300)).await;
    let text = client.value(&[]).await.unwrap_err().1;
    assert!(text.starts_with("nothing newer than 5m is known of"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_does_not_exist_is_not_found_with_the_nearest() {
    let (fixture, client) = started().await;
    fixture.serve(queue_of(3));
    let answer = client.value(&[("model", "org/chta")]).await;
    let expected = "there is no model \"org/chta\" in \"prod\"; nearest: \"org/chat\"";
    is(&answer, Code::NotFound, expected);
    let answer = client.value(&[("modelNamespace", "dev")]).await;
    let expected =
        "there is no model \"org/chat\" in \"dev\"; it exists in \"prod\": set modelNamespace";
    is(&answer, Code::NotFound, expected);
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_the_engine_does_not_export_is_a_failed_precondition() {
    let (fixture, client) = started().await;
    fixture.serve(|as_of| {
        let mut pod = pod("chat-0", as_of, 1);
        pod.engine = Some("tgi".into());
        pod.kv_cache_usage = None;
        ModelSample::new(as_of, vec![pod])
    });
    let answer = client.value(&[("signal", "kv-max")]).await;
    let expected = "tgi has no KV cache usage: signal kv-max cannot be had";
    is(&answer, Code::FailedPrecondition, expected);
    assert_eq!(client.value(&[]).await, Ok(1.0));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_field_is_unavailable_with_its_reason() {
    let (fixture, client) = started().await;
    fixture.serve(|as_of| {
        let mut pod = pod("chat-0", as_of, 1);
        pod.queue_length = None;
        pod.reasons
            .insert(collector_core::Field::QueueLength, "no usable vllm:num_requests_waiting");
        ModelSample::new(as_of, vec![pod])
    });
    let expected = "the queue length of pod \"chat-0\" of \"org/chat\" in \"prod\" is unknown: \
                    no usable vllm:num_requests_waiting";
    is(&client.value(&[]).await, Code::Unavailable, expected);
}

#[tokio::test(start_paused = true)]
async fn a_variant_is_its_pods_and_one_that_does_not_exist_is_not_found() {
    let (fixture, client) = started().await;
    fixture.serve(|as_of| {
        ModelSample::new(as_of, vec![pod("big-0", as_of, 5), pod("small-0", as_of, 2)])
    });
    assert_eq!(client.value(&[]).await, Ok(7.0));
    assert_eq!(client.value(&[("variant", "small")]).await, Ok(2.0));
    let answer = client.value(&[("variant", "smal")]).await;
    let expected = "\"org/chat\" in \"prod\" has no variant \"smal\"; it has \"small\"";
    is(&answer, Code::NotFound, expected);
}

#[tokio::test(start_paused = true)]
async fn zero_on_missing_is_for_a_model_that_does_not_exist_alone() {
    let (fixture, client) = started().await;
    let zero = [("onMissing", "zero")];
    assert_eq!(client.value(&zero).await, Ok(0.0));
    fixture.backend.fail(ErrorKind::Connect);
    fixture.forget();
    assert_eq!(client.value(&zero).await.unwrap_err().0, Code::Unavailable);
    fixture.backend.restore();
    fixture.serve(two_of_three);
    fixture.forget();
    sleep(seconds(30)).await;
    assert_eq!(client.value(&zero).await.unwrap_err().0, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn hold_is_the_last_value_up_to_its_age() {
    let (fixture, client) = started().await;
    let hold = [("onMissing", "hold=10m")];
    fixture.serve(queue_of(3));
    assert_eq!(client.value(&hold).await, Ok(3.0));
    fixture.backend.fail(ErrorKind::Connect);
    sleep(seconds(599)).await;
    assert_eq!(client.value(&hold).await, Ok(3.0));
    assert_eq!(client.value(&[]).await.unwrap_err().0, Code::Unavailable);
    // Of another signal nothing was known before.
    let other = [("onMissing", "hold=10m"), ("signal", "running")];
    assert_eq!(client.value(&other).await.unwrap_err().0, Code::Unavailable);
    sleep(seconds(2)).await;
    assert_eq!(client.value(&hold).await.unwrap_err().0, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_not_read_is_not_found_and_never_zero() {
    let mut settings = Settings::default();
    settings.left_out = Box::new(|namespace| {
        (namespace != "dev").then(|| format!("namespace \"{namespace}\" is not read"))
    });
    let fixture = Fixture::with(None, settings).await;
    let client = fixture.client().await;
    let answer = client.value(&[("onMissing", "zero")]).await;
    is(&answer, Code::NotFound, "namespace \"prod\" is not read");
    assert_eq!(fixture.backend.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn where_the_cluster_is_not_watched_nothing_is_said_not_to_exist() {
    let mut settings = Settings::default();
    let why = |namespace: &str| format!("the cluster is not watched in {namespace}");
    settings.unwatched = Box::new(move |namespace| Some(why(namespace)));
    let fixture = Fixture::with(None, settings).await;
    let client = fixture.client().await;
    fixture.serve(queue_of(3));
    assert_eq!(client.value(&[]).await, Ok(3.0));
    for (metadata, expected) in [
        (
            &[("signal", "supply-ready")][..],
            "the supply-ready of \"org/chat\" in \"prod\" is unknown: the cluster is not watched in prod",
        ),
        (
            &[("variant", "other"), ("onMissing", "zero")],
            "the queue of variant \"other\" of \"org/chat\" in \"prod\" is unknown: the cluster is not watched in prod",
        ),
    ] {
        is(&client.value(metadata).await, Code::Unavailable, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn hostile_names_are_escaped_and_long_texts_are_cut() {
    let (_fixture, client) = started().await;
    let name = format!("a\"\u{202e}{}", "x".repeat(4000));
    let (code, text) = client.value(&[("model", &name)]).await.unwrap_err();
    assert_eq!(code, Code::NotFound);
    assert!(text.chars().count() <= 1001 && !text.contains('\u{202e}'), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_collector_reads_what_the_scaler_reads() {
    let (fixture, client) = started().await;
    fixture.serve(queue_of(3));
    assert_eq!(client.value(&[]).await, Ok(3.0));
    let reading = Arc::clone(&fixture.collector).collect_replica_metrics(&model()).await.unwrap();
    assert_eq!(reading.value().model.model.as_str(), MODEL);
    assert_eq!(fixture.backend.fetches(), 1);
}

/// A queue at one pod, and a cluster that lists it with this many that start.
fn in_a_cluster(
    queue: u64,
    starting: usize,
    listed_ago: u64,
) -> impl Fn(Tick) -> ModelSample + Send + Sync {
    move |as_of| {
        let mut sample = ModelSample::new(as_of, vec![pod("chat-0", as_of, queue)]);
        let states = std::iter::once(PodState::Ready)
            .chain(std::iter::repeat_n(PodState::Starting, starting));
        let pods = states.zip(0..);
        let pods =
            pods.map(|(state, number)| Pod::new(format!("chat-{number}").into(), state, as_of));
        let workload = Workload::new(Some("small".into()), Some(4), pods.collect());
        sample.supply = Some(Arc::new(Supply::new(as_of - seconds(listed_ago), vec![workload])));
        sample
    }
}

#[tokio::test(start_paused = true)]
async fn supply_is_a_signal_and_without_a_cluster_an_error() {
    let (fixture, client) = started().await;
    sleep(seconds(600)).await;
    fixture.serve(queue_of(3));
    let expected = "no cluster lists the pods of \"org/chat\" in \"prod\", so there is no signal supply-ready: set \
                    kubernetes.enabled = true";
    is(&client.value(&[("signal", "supply-ready")]).await, Code::FailedPrecondition, expected);
    fixture.serve(in_a_cluster(3, 2, 1));
    fixture.forget();
    for (signal, value) in [
        ("supply-ready", 1.0),
        ("supply-starting", 2.0),
        ("supply-wanted", 4.0),
        ("supply-shortfall", 3.0),
    ] {
        let of_variant = [("signal", signal), ("variant", "small")];
        assert_eq!(client.value(&[("signal", signal)]).await, Ok(value), "{signal}");
        assert_eq!(client.value(&of_variant).await, Ok(value), "{signal}");
    }
    fixture.serve(in_a_cluster(3, 2, 70));
    fixture.forget();
    let (code, text) =
        client.value(&[("signal", "supply-ready"), ("maxAge", "1m")]).await.unwrap_err();
    assert_eq!(
        (code, text.contains("nothing newer than 1m10s")),
        (Code::Unavailable, true),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn pods_that_start_count_against_demand_if_they_are_known() {
    let (fixture, client) = started().await;
    sleep(seconds(600)).await;
    let credited = [("pendingCredit", "true")];
    fixture.serve(in_a_cluster(30, 3, 1));
    // Four pods take 20.
    assert_eq!((client.value(&[]).await, client.value(&credited).await), (Ok(30.0), Ok(20.0)));
    // What is active without the pods that start is active.
    let active = [("pendingCredit", "true"), ("activation", "25")];
    assert!(client.is_active(trigger(&active)).await.unwrap());
    // A list that is too old is none, and the value counts as it is.
    fixture.serve(in_a_cluster(30, 3, 301));
    fixture.forget();
    assert_eq!(client.value(&credited).await, Ok(30.0));
    fixture.serve(queue_of(30));
    fixture.forget();
    assert_eq!(client.value(&credited).await, Ok(30.0));
}

#[tokio::test(start_paused = true)]
async fn pods_without_series_are_unavailable_whatever_is_missing() {
    let (fixture, client) = started().await;
    fixture.serve(|as_of| {
        let pods = vec![Pod::new("chat-0".into(), PodState::Starting, as_of)];
        let mut sample = ModelSample::new(as_of, Vec::new());
        sample.supply = Some(Arc::new(Supply::new(as_of, vec![Workload::new(None, None, pods)])));
        sample
    });
    let expected = "no backend has series of \"org/chat\" in \"prod\", and the cluster has 1 pod of it (1 starting)";
    for metadata in [&[][..], &[("onMissing", "zero")]] {
        is(&client.value(metadata).await, Code::Unavailable, expected);
    }
}
