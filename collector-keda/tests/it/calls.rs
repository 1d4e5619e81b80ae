// SPDX-License-Identifier: Apache-2.0
//! What each method answers: the table of RPCs.

use std::time::Duration;

use collector_core::ErrorKind;
use collector_keda::Signal;
use collector_keda::api::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, path,
};
use tokio::time::Instant;
use tonic::Code;

use crate::fixture::{Fixture, held_back, queue_of, seconds, trigger};

/// Metadata with the name and both targets of their metric.
type Case = (&'static [(&'static str, &'static str)], &'static str, i64, f64);

#[tokio::test(start_paused = true)]
async fn a_metric_spec_comes_from_metadata_alone() {
    let fixture = Fixture::start().await;
    fixture.backend.hang();
    let client = fixture.client().await;
    let begun = Instant::now();
    let cases: [Case; 9] = [
        (&[], "collector-queue", 5, 5.0),
        (&[("signal", "kv-max")], "collector-kv-max", 1, 0.8),
        (&[("signal", "kv-max"), ("target", "0.5")], "collector-kv-max", 1, 0.5),
        (&[("target", "7.2")], "collector-queue", 8, 7.2),
        (&[("signal", "nonsense"), ("target", "3")], "collector-queue", 3, 3.0),
        (&[("target", "-1")], "collector-queue", 5, 5.0),
        (&[("target", "NaN")], "collector-queue", 5, 5.0),
        (&[("model", ""), ("maxAge", "x"), ("activation", "x")], "collector-queue", 5, 5.0),
        (&[("signal", "composite")], "collector-queue", 5, 5.0),
    ];
    for (metadata, name, size, float) in cases {
        for _ in 0..2 {
            let spec = client.spec(trigger(metadata)).await;
            assert_eq!(spec.metric_name, name, "{metadata:?}");
            assert_eq!((spec.target_size, spec.target_size_float), (size, float), "{metadata:?}");
        }
    }
    let huge = "x".repeat(1_500_000);
    let spec = client.spec(trigger(&[("model", &huge), ("query", &huge[..100])])).await;
    assert_eq!(spec.metric_name, "collector-queue");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(fixture.backend.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_metric_has_both_fields_and_zero_is_zero_in_both() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    for (queue, signal, int, float) in [
        (7, "queue", 7, 7.0),
        (0, "queue", 0, 0.0),
        (1, "kv-max", 0, 0.3),
        (4, "saturation", 1, 0.8),
        (1_000_000_000_000, "queue", 1_000_000_000_000, 1e12),
    ] {
        fixture.serve(queue_of(queue));
        fixture.forget();
        let metric = client.metric(trigger(&[("signal", signal)])).await.unwrap();
        assert_eq!(metric.metric_name, format!("collector-{signal}"));
        assert_eq!((metric.metric_value, metric.metric_value_float), (int, float), "{signal}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_kedas_fields_cannot_hold_is_an_error() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    fixture.serve(queue_of(1_000_000_000_001));
    let (code, text) = client.value(&[]).await.unwrap_err();
    assert_eq!(code, Code::Unavailable);
    assert!(text.contains("cannot be true"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn active_is_a_value_above_the_activation() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    fixture.serve(queue_of(3));
    for (activation, expected) in [("0", true), ("2.9", true), ("3", false), ("100", false)] {
        let active = client.is_active(trigger(&[("activation", activation)])).await.unwrap();
        assert_eq!(active, expected, "{activation}");
    }
    fixture.serve(held_back(0));
    fixture.forget();
    assert!(!client.is_active(trigger(&[])).await.unwrap());
    fixture.backend.fail(ErrorKind::Connect);
    fixture.forget();
    assert_eq!(client.is_active(trigger(&[])).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn bad_metadata_are_an_error_of_the_calls_that_can_report_it() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    for (metadata, part) in [
        (("model", ""), "model is empty"),
        (("signal", "kvmax"), "there is no signal \"kvmax\"; there are queue, running, kv-sum"),
        (("target", "much"), "target: \"much\" is not a number"),
        (("onMissing", "never"), "onMissing: \"never\" is none of error, zero and hold=10m"),
    ] {
        let (code, text) = client.value(&[metadata]).await.unwrap_err();
        assert_eq!(code, Code::InvalidArgument);
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    let request = GetMetricsRequest { scaled_object_ref: None, metric_name: String::new() };
    let refused = client.unary::<_, GetMetricsResponse>(path::GET_METRICS, request).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(fixture.backend.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_signal_is_served() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    fixture.serve(queue_of(4));
    let values = [4.0, 2.0, 0.3, 0.3, 0.8, 4.0, 4.0, 0.8];
    for (signal, expected) in Signal::NAMES.into_iter().zip(values) {
        if signal == "backlog-seconds" {
            // The length of prompts is unknown here.
            continue;
        }
        let metadata = [("signal", signal), ("signals", "queue=5,kv-max=0.8")];
        assert_eq!(client.value(&metadata).await, Ok(expected), "{signal}");
    }
    fixture.backend.serve_pods(&crate::fixture::model(), &["chat-0"]);
    fixture.forget();
    let metadata = [("signal", "backlog-seconds"), ("peakPrefillThroughput", "50")];
    // One waits, of 100 tokens.
    assert_eq!(client.value(&metadata).await, Ok(2.0));
}

#[tokio::test(start_paused = true)]
async fn targets_are_not_streamed_and_other_methods_are_not_there() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    let streamed =
        client.streaming::<_, GetMetricSpecResponse>(path::STREAM_METRIC_SPEC, trigger(&[])).await;
    assert_eq!(streamed.unwrap_err().code(), Code::Unimplemented);
    for path in ["/externalscaler.ExternalScaler/Other", "/other.Service/IsActive"] {
        let called = client.unary::<_, IsActiveResponse>(path, trigger(&[])).await;
        assert_eq!(called.unwrap_err().code(), Code::Unimplemented);
    }
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_longer_than_600_ms_while_the_backend_hangs() {
    let fixture = Fixture::start().await;
    fixture.backend.hang();
    let mut clients = Vec::new();
    for index in 0..200 {
        let client = fixture.client().await;
        clients.push(tokio::spawn(async move {
            let model = format!("org/m{}", index % 7);
            let trigger = trigger(&[("model", &model)]);
            let begun = Instant::now();
            // As KEDA does: the metric first, and at once again on an error.
            for _ in 0..2 {
                let begun = Instant::now();
                let status = client.metric(trigger.clone()).await.unwrap_err();
                assert_eq!(status.code(), Code::Unavailable);
                assert!(begun.elapsed() <= Duration::from_millis(600), "{:?}", begun.elapsed());
            }
            let begun_active = Instant::now();
            assert!(client.is_active(trigger.clone()).await.is_err());
            assert!(begun_active.elapsed() <= Duration::from_millis(600));
            let begun_spec = Instant::now();
            client.spec(trigger).await;
            assert_eq!(begun_spec.elapsed(), Duration::ZERO);
            assert!(begun.elapsed() <= seconds(2));
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    // A fetch goes on without its callers, and is joined by the next.
    assert_eq!(fixture.backend.in_flight(), fixture.backend.fetches());
}
