// SPDX-License-Identifier: Apache-2.0
//! The words that people, labels and JSON see: tools match them, so none changes by accident.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Availability, AvailabilityReason, BackendError, BreakerState, CollectError, ErrorKind, Field,
    Freshness, ModelRef, Operation, PaceReason, ReplicaState, Source, VariantRef,
};

fn error(backend: &str) -> Arc<BackendError> {
    let error =
        BackendError::new(ErrorKind::Connect, backend.into(), Operation::Fetch, "http://server");
    Arc::new(error)
}

fn model() -> ModelRef {
    ModelRef::new("llama", "prod")
}

#[test]
fn states_have_the_words_of_json_and_labels() {
    let breaker = [BreakerState::Closed, BreakerState::HalfOpen, BreakerState::Open];
    assert_eq!(breaker.map(BreakerState::as_str), ["closed", "half-open", "open"]);
    let freshness = [Freshness::Fresh, Freshness::Stale, Freshness::Unavailable];
    assert_eq!(freshness.map(Freshness::as_str), ["fresh", "stale", "unavailable"]);
    assert_eq!(freshness.map(|word| word.to_string()), freshness.map(Freshness::as_str));
    let state = [ReplicaState::Serving, ReplicaState::Sleeping];
    assert_eq!(state.map(ReplicaState::as_str), ["serving", "sleeping"]);
    let source = [Source::Backend, Source::Cache, Source::LastKnownGood];
    assert_eq!(source.map(Source::as_str), ["backend", "cache", "last-known-good"]);
    assert_eq!(source.map(|word| word.to_string()), source.map(Source::as_str));
}

#[test]
fn the_reason_of_a_pace_is_a_word_in_json_and_a_sentence_for_people() {
    let moves = PaceReason::Moves { field: "kvCacheUsage", per_minute: 0.041 };
    let reasons = [PaceReason::Configured, PaceReason::Own, PaceReason::Watched, PaceReason::Still];
    assert_eq!(reasons.map(PaceReason::as_str), ["configured", "own", "watched", "still"]);
    assert_eq!(moves.as_str(), "moves");
    assert_eq!(moves.to_string(), "kvCacheUsage moves 4.1 points in a minute");
    assert_eq!(PaceReason::Configured.to_string(), "cache.ttl");
}

#[test]
fn fields_have_the_names_of_json() {
    let names = [
        "kvCacheUsage",
        "queueLength",
        "runningRequests",
        "cacheConfig",
        "prefixCacheHitRate",
        "arrivalRatePerMinute",
        "avgInputTokens",
        "avgOutputTokens",
        "ttftAverageMs",
        "itlAverageMs",
    ];
    assert!(Field::ALL.iter().map(|field| field.as_str()).eq(names));
}

#[test]
fn kinds_of_errors_have_the_values_of_the_label_reason() {
    assert_eq!(ErrorKind::Connect.as_str(), "connect");
    assert_eq!(ErrorKind::RateLimited.as_str(), "rate_limited");
    assert_eq!(ErrorKind::CircuitOpen.as_str(), "circuit_open");
}

#[test]
fn an_error_states_its_remedy_its_pause_and_its_cause() {
    let plain = error("test");
    assert_eq!((plain.remedy(), plain.retry_after()), ("", None));
    assert!(plain.source().is_none());
    let cause = std::io::Error::other("the cause");
    let error = BackendError::new(ErrorKind::Timeout, "test".into(), Operation::Probe, "nowhere")
        .with_remedy("try again")
        .with_retry_after(Duration::from_secs(7))
        .with_source(cause);
    assert_eq!(error.remedy(), "try again");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("the cause"));
}

#[test]
fn reasons_are_named_as_conditions_name_them() {
    let name = |reason, backend: &str| {
        let availability = Availability {
            available: false,
            reason,
            backend: backend.into(),
            message: String::new(),
        };
        availability.reason_name()
    };
    let plain = [
        (AvailabilityReason::MetricsFound, "MetricsFound"),
        (AvailabilityReason::MetricsMissing, "MetricsMissing"),
        (AvailabilityReason::MetricsStale, "MetricsStale"),
        (AvailabilityReason::MetricsPending, "MetricsPending"),
        (AvailabilityReason::TooManyModels, "TooManyModels"),
    ];
    for (reason, expected) in plain {
        assert_eq!(name(reason, "prometheus"), expected);
    }
    assert_eq!(name(AvailabilityReason::BackendError, "prometheus"), "PrometheusError");
    assert_eq!(name(AvailabilityReason::BackendError, "static-json"), "StaticJsonError");
}

#[test]
fn errors_are_named_by_the_same_reasons() {
    let missing = CollectError::Missing { model: model(), nearest: Arc::default() };
    assert_eq!(missing.reason_name(), "MetricsMissing");
    assert_eq!(CollectError::Backend(error("epp")).reason_name(), "EppError");
    assert_eq!(CollectError::Pending { model: model() }.reason_name(), "MetricsPending");
    assert_eq!(CollectError::TooManyModels { limit: 1 }.reason_name(), "TooManyModels");
}

#[test]
fn what_is_too_old_says_why_there_is_nothing_newer() {
    let unavailable = |cause| CollectError::Unavailable {
        model: model(),
        age: Duration::from_millis(600_500),
        threshold: Duration::from_secs(300),
        cause,
    };
    let shown = unavailable(None).to_string();
    assert!(shown.ends_with("are 10m old, unavailable from 5m on"), "{shown}");
    let shown = unavailable(Some(error("test"))).to_string();
    assert!(
        shown.ends_with(": test: fetching metrics from http://server: cannot connect"),
        "{shown}"
    );
}

#[test]
fn an_unknown_variant_names_those_there_are_or_says_how_to_make_one() {
    let unknown = |known: &[&str]| {
        let known = known.iter().map(|name| (*name).into()).collect();
        CollectError::UnknownVariant { model: model(), variant: "v".into(), known }.to_string()
    };
    assert!(unknown(&["a", "b"]).ends_with("; it has \"a\", \"b\""));
    assert!(unknown(&[]).contains("it has none: add [[variants]]"));
}

#[test]
fn a_variant_is_shown_with_its_namespace() {
    let variant = VariantRef { namespace: "prod".into(), name: "quick".into() };
    let shown = variant.to_string();
    assert!(shown.contains("prod") && shown.contains("quick"), "{shown}");
}
