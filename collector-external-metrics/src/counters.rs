// SPDX-License-Identifier: Apache-2.0
//! What is counted of the API.

use http::StatusCode;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::front_proxy::Stranger;

/// Requests for values, by status.
const REQUESTS: &str = "collector_external_metrics_requests_total";
/// Clients that are not the front proxy, by reason.
const REFUSED: &str = "collector_external_metrics_refused_clients_total";
/// Questions to the API server about users, by outcome.
const REVIEWS: &str = "collector_external_metrics_access_reviews_total";
/// Whether the last read of the front proxy succeeded.
const FRONT_PROXY: &str = "collector_external_metrics_front_proxy_up";

/// Shows the families before there are any requests.
pub(crate) fn announce() {
    describe_counter!(REQUESTS, Unit::Count, "Requests for External Metrics, by HTTP status");
    describe_counter!(
        REFUSED,
        Unit::Count,
        "Clients of the External Metrics API that are not the front proxy, by reason"
    );
    describe_counter!(
        REVIEWS,
        Unit::Count,
        "Questions to the API server whether a user may read a metric, by outcome"
    );
    describe_gauge!(
        FRONT_PROXY,
        Unit::Count,
        "1 if the front proxy's certificates and headers were read last time"
    );
    counter!(REQUESTS, "code" => "200").increment(0);
    counter!(REFUSED, "reason" => "expired").increment(0);
    for outcome in ["allowed", "denied", "error"] {
        counter!(REVIEWS, "outcome" => outcome).increment(0);
    }
    gauge!(FRONT_PROXY).set(0.0);
}

pub(crate) fn answered(code: StatusCode) {
    counter!(REQUESTS, "code" => code.as_str().to_owned()).increment(1);
}

pub(crate) fn refused(stranger: &Stranger) {
    counter!(REFUSED, "reason" => stranger.reason()).increment(1);
}

/// Whether the user may; `None`: there was no answer.
pub(crate) fn reviewed(is_allowed: Option<bool>) {
    let outcome = match is_allowed {
        Some(true) => "allowed",
        Some(false) => "denied",
        None => "error",
    };
    counter!(REVIEWS, "outcome" => outcome).increment(1);
}

pub(crate) fn front_proxy_read(succeeded: bool) {
    gauge!(FRONT_PROXY).set(if succeeded { 1.0 } else { 0.0 });
}
