// SPDX-License-Identifier: Apache-2.0
//! How a backend is doing, for `/readyz` and `collector explain`.

use std::fmt::Write as _;
use std::time::Duration;

use collector_core::{BackendState, BreakerState};
use serde::Serialize;

document! {
    /// How a backend is doing.
    pub BackendDocument of (backend: &BackendState);
    name: String = backend.name.to_string();
    /// `up`, `down`, or `unknown` before the first fetch.
    state: &'static str = match (&backend.last_error, backend.last_success) {
        (Some(_), _) => "down",
        (None, Some(_)) => "up",
        (None, None) => "unknown",
    };
    /// `closed`, `half-open` or `open`.
    breaker: &'static str = backend.breaker.as_str();
    /// For how long the breaker has not been closed; null when it is.
    breaker_open_seconds: Option<f64> = seconds(backend.open_for);
    /// Time until the breaker lets a fetch through again; null unless it is open.
    retry_in_seconds: Option<f64> = seconds(backend.retry_in);
    /// Fetches that the breaker counts: the last 20 of the last minute, since it was closed.
    recent_looks: usize = backend.recent_looks;
    /// How many of them failed. The breaker opens when it is half of them, and three.
    recent_failures: usize = backend.recent_failures;
    /// Time since the last fetch that was answered; null when none was.
    last_success_age_seconds: Option<f64> = seconds(backend.last_success);
    /// Why the last fetch, or a field of it, failed; null when none did.
    last_error: Option<String> = {
        let error = backend.last_error.as_ref().or(backend.failed_fields.as_ref());
        error.map(ToString::to_string)
    };
    /// Requests sent.
    requests: u64 = backend.requests;
    /// Requests in flight. Scrapes of pods are not counted.
    requests_in_flight: usize = backend.budget.in_flight;
    /// How many may be in flight at once.
    max_requests_in_flight: usize = backend.budget.max_in_flight;
    /// How many may be sent a second in the long run; null without a limit.
    requests_per_second: Option<u32> = Some(backend.budget.per_second).filter(|it| *it > 0);
    /// How many of them may be sent at once now; null without a limit.
    burst_left: Option<u32> = backend.budget.burst_left;
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

impl BackendDocument {
    /// Why nothing is fetched from the backend, in a line; `None` while its breaker is closed.
    pub fn trouble(&self) -> Option<String> {
        if self.breaker == BreakerState::Closed.as_str() {
            return None;
        }
        let mut text = format!(
            "its circuit is {}: {} of the last {} fetches failed",
            self.breaker, self.recent_failures, self.recent_looks
        );
        if let Some(seconds) = self.retry_in_seconds {
            let _ = write!(text, "; it is asked again in {seconds:.1}s");
        }
        Some(text)
    }
}
