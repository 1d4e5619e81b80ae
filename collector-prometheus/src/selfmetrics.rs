//! What the collector tells about its own queries, through the `metrics` facade.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use crate::failure::Failure;
use crate::plan::QueryKind;

const DURATION: &str = "wva_metrics_collection_duration_seconds";
const ERRORS: &str = "wva_metrics_collection_errors_total";
const UNMAPPED: &str = "wva_pod_mapping_miss_total";

/// Describes the families and brings them into being, so that each is there before its first event.
pub(crate) fn register() {
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "Time to collect metrics from the backend, by query"
    );
    describe_counter!(
        ERRORS,
        Unit::Count,
        "Failed queries and refused values, by query and reason"
    );
    for kind in QueryKind::ALL {
        let kind = kind.as_str();
        let _ = histogram!(DURATION, "query_type" => kind);
        counter!(ERRORS, "query_type" => kind, "reason" => "timeout").increment(0);
    }
}

/// A query ended, well or badly.
pub(crate) fn query_ended(kind: QueryKind, took: Duration, failure: Option<&Failure>) {
    histogram!(DURATION, "query_type" => kind.as_str()).record(took.as_secs_f64());
    if let Some(failure) = failure {
        counter!(ERRORS, "query_type" => kind.as_str(), "reason" => failure.kind.as_str())
            .increment(1);
    }
}

/// A value that cannot be true was left out.
pub(crate) fn value_refused(kind: QueryKind, reason: collector_core::sanitize::Rejected) {
    use collector_core::sanitize::Rejected;
    let reason = match reason {
        Rejected::NotFinite => "not_finite",
        Rejected::OutOfRange => "out_of_range",
    };
    counter!(ERRORS, "query_type" => kind.as_str(), "reason" => reason).increment(1);
}

/// A series of a model that was asked for names no pod.
pub(crate) fn no_pod_label(namespace: &str) {
    counter!(UNMAPPED, "namespace" => namespace.to_owned(), "reason" => "no_pod_label")
        .increment(1);
}
