// SPDX-License-Identifier: Apache-2.0
//! The two families of metrics about queries that all backends share: durations and errors. Each backend names its
//! own queries.

use std::time::Duration;

use collector_core::ErrorKind;
use collector_core::sanitize::Rejected;
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

const DURATION: &str = "wva_metrics_collection_duration_seconds";
const ERRORS: &str = "wva_metrics_collection_errors_total";

/// Describes the families and creates them for these queries, so that each exists before its first event.
pub fn register(query_types: impl IntoIterator<Item = &'static str>) {
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
    for query_type in query_types {
        let _ = histogram!(DURATION, "query_type" => query_type);
        counter!(ERRORS, "query_type" => query_type, "reason" => "timeout").increment(0);
    }
}

/// Counts a query that ended, successfully or with an error.
pub fn ended(query_type: &'static str, took: Duration, failure: Option<ErrorKind>) {
    histogram!(DURATION, "query_type" => query_type).record(took.as_secs_f64());
    if let Some(kind) = failure {
        counter!(ERRORS, "query_type" => query_type, "reason" => kind.as_str()).increment(1);
    }
}

/// Counts a value that cannot be true and was ignored.
pub fn refused(query_type: &'static str, why: Rejected) {
    let reason = match why {
        Rejected::NotFinite => "not_finite",
        Rejected::OutOfRange => "out_of_range",
    };
    counter!(ERRORS, "query_type" => query_type, "reason" => reason).increment(1);
}
