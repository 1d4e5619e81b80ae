// SPDX-License-Identifier: Apache-2.0
//! The collector's metrics about its own queries.

use std::time::Duration;

use collector_core::sanitize::Rejected;
use collector_transport::collecting;
use metrics::counter;

use crate::failure::Failure;
use crate::plan::QueryKind;

const UNMAPPED: &str = "wva_pod_mapping_miss_total";

/// Registers the metric families, so that each exists before its first event.
pub(crate) fn register() {
    collecting::register(QueryKind::ALL.iter().map(|kind| kind.as_str()));
}

/// Counts a finished query.
pub(crate) fn query_ended(kind: QueryKind, took: Duration, failure: Option<&Failure>) {
    collecting::ended(kind.as_str(), took, failure.map(|failure| failure.kind));
}

/// Counts a value that cannot be true.
pub(crate) fn value_refused(kind: QueryKind, reason: Rejected) {
    collecting::refused(kind.as_str(), reason);
}

/// Counts a series of a requested model that names no pod.
pub(crate) fn no_pod_label(namespace: &str) {
    counter!(UNMAPPED, "namespace" => namespace.to_owned(), "reason" => "no_pod_label")
        .increment(1);
}

/// Returns an accepted value; counts a rejected one.
pub(crate) fn accepted<T>(kind: QueryKind, value: Result<T, Rejected>) -> Option<T> {
    value.inspect_err(|reason| value_refused(kind, *reason)).ok()
}
