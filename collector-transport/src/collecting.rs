//! The two families of self-metrics that all backends count under: how long a query took, and what went
//! wrong with it. A backend names its queries, and no family a second time.

use std::time::Duration;

use collector_core::ErrorKind;
use collector_core::sanitize::Rejected;
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

const DURATION: &str = "wva_metrics_collection_duration_seconds";
const ERRORS: &str = "wva_metrics_collection_errors_total";

/// Describes the families and brings them into being for these queries, so that each is there before its
/// first event.
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

/// A query ended, well or, for a reason, badly.
pub fn ended(query_type: &'static str, took: Duration, failure: Option<ErrorKind>) {
    histogram!(DURATION, "query_type" => query_type).record(took.as_secs_f64());
    if let Some(kind) = failure {
        counter!(ERRORS, "query_type" => query_type, "reason" => kind.as_str()).increment(1);
    }
}

/// A value that cannot be true was left out.
pub fn refused(query_type: &'static str, why: Rejected) {
    let reason = match why {
        Rejected::NotFinite => "not_finite",
        Rejected::OutOfRange => "out_of_range",
    };
    counter!(ERRORS, "query_type" => query_type, "reason" => reason).increment(1);
}
