//! What the collector tells about its own queries, through the `metrics` facade.

use std::time::Duration;

use collector_core::sanitize::Rejected;
use collector_transport::collecting;
use metrics::counter;

use crate::failure::Failure;
use crate::plan::QueryKind;

const UNMAPPED: &str = "wva_pod_mapping_miss_total";

/// Brings the families into being, so that each is there before its first event.
pub(crate) fn register() {
    collecting::register(QueryKind::ALL.iter().map(|kind| kind.as_str()));
}

/// A query ended, well or badly.
pub(crate) fn query_ended(kind: QueryKind, took: Duration, failure: Option<&Failure>) {
    collecting::ended(kind.as_str(), took, failure.map(|failure| failure.kind));
}

/// A value that cannot be true was left out.
pub(crate) fn value_refused(kind: QueryKind, reason: Rejected) {
    collecting::refused(kind.as_str(), reason);
}

/// A series of a model that was asked for names no pod.
pub(crate) fn no_pod_label(namespace: &str) {
    counter!(UNMAPPED, "namespace" => namespace.to_owned(), "reason" => "no_pod_label")
        .increment(1);
}

/// The value, or nothing and a count of why.
pub(crate) fn accepted<T>(kind: QueryKind, value: Result<T, Rejected>) -> Option<T> {
    value.inspect_err(|reason| value_refused(kind, *reason)).ok()
}
