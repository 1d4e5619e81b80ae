// SPDX-License-Identifier: Apache-2.0
//! Metrics about the collector's own scrapes, through the `metrics` facade.

use std::time::Duration;

use collector_core::sanitize::Rejected;
use collector_core::{ErrorKind, Field};
use collector_transport::collecting;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

const SCRAPES: &str = "collector_epp_scrapes_total";
const BYTES: &str = "collector_epp_scrape_bytes_total";
const TARGETS: &str = "collector_epp_targets";
const MALFORMED: &str = "collector_epp_malformed_lines_total";

/// The `query_type` of a scrape.
const SCRAPE: &str = "scrape";

/// Describes and creates the families, so that each exists before its first event.
pub(crate) fn register() {
    collecting::register([SCRAPE]);
    describe_counter!(SCRAPES, Unit::Count, "Scrapes of pods, by outcome");
    describe_counter!(BYTES, Unit::Bytes, "Bytes of the pages that were read");
    describe_gauge!(TARGETS, Unit::Count, "Pods to scrape, by state: up, down or untried");
    describe_counter!(
        MALFORMED,
        Unit::Count,
        "Lines of wanted series that could not be read and were left out"
    );
    for outcome in ["ok", "failed"] {
        counter!(SCRAPES, "outcome" => outcome).increment(0);
    }
    counter!(BYTES).increment(0);
    counter!(MALFORMED).increment(0);
    targets(0, 0, 0);
}

/// Counts a page that was read.
pub(crate) fn scraped(took: Duration, bytes: u64, malformed: u64) {
    collecting::ended(SCRAPE, took, None);
    counter!(SCRAPES, "outcome" => "ok").increment(1);
    counter!(BYTES).increment(bytes);
    if malformed > 0 {
        counter!(MALFORMED).increment(malformed);
    }
}

/// Counts a page that could not be read.
pub(crate) fn failed(took: Duration, kind: ErrorKind) {
    collecting::ended(SCRAPE, took, Some(kind));
    counter!(SCRAPES, "outcome" => "failed").increment(1);
}

/// Sets the number of pods in each state.
pub(crate) fn targets(up: usize, down: usize, untried: usize) {
    for (state, count) in [("up", up), ("down", down), ("untried", untried)] {
        gauge!(TARGETS, "state" => state).set(count as f64);
    }
}

/// Returns an accepted value. A rejected one is counted, and becomes `None`.
pub(crate) fn judged<T>(field: Field, judged: Result<T, Rejected>) -> Option<T> {
    judged.inspect_err(|why| collecting::refused(query_type(field), *why)).ok()
}

/// Returns the name by which the Prometheus backend counts the same field.
fn query_type(field: Field) -> &'static str {
    match field {
        Field::KvCacheUsage => "kv_cache",
        Field::QueueLength => "queue_length",
        Field::RunningRequests => "running_requests",
        Field::CacheConfig => "cache_config",
        Field::PrefixCacheHitRate => "prefix_cache_hits",
        Field::ArrivalRate => "request_count",
        Field::AvgInputTokens => "input_tokens",
        Field::AvgOutputTokens => "output_tokens",
        Field::TtftAverage => "ttft",
        Field::ItlAverage => "itl",
        _ => "other",
    }
}
