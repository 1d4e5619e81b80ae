//! How a backend is doing, for `/readyz` and `collector explain`.

use std::fmt::Write as _;
use std::time::Duration;

use collector_core::{BackendState, BreakerState};
use serde::Serialize;

/// How a backend is doing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct BackendDocument {
    name: String,
    /// `up`, `down`, or `unknown` before the first look.
    state: &'static str,
    /// `closed`, `half-open` or `open`.
    breaker: &'static str,
    /// For how long the breaker has not been closed; null when it is.
    breaker_open_seconds: Option<f64>,
    /// In how long it is tried whether the backend is back; null unless the breaker is open.
    retry_in_seconds: Option<f64>,
    /// Looks that the breaker judges by: the last 20, of the last minute, since it was closed.
    recent_looks: usize,
    /// How many of them failed. The breaker opens when it is half of them, and three.
    recent_failures: usize,
    /// How long ago a look was last answered; null when none has been.
    last_success_age_seconds: Option<f64>,
    /// Why the last look failed, or a field of it; null when none did.
    last_error: Option<String>,
    /// Requests sent.
    requests: u64,
}

impl BackendDocument {
    /// The document of a backend's state.
    pub fn new(backend: &BackendState) -> Self {
        let seconds = |duration: &Option<Duration>| duration.as_ref().map(Duration::as_secs_f64);
        Self {
            name: backend.name.to_string(),
            state: match (&backend.last_error, backend.last_success) {
                (Some(_), _) => "down",
                (None, Some(_)) => "up",
                (None, None) => "unknown",
            },
            breaker: backend.breaker.as_str(),
            breaker_open_seconds: seconds(&backend.open_for),
            retry_in_seconds: seconds(&backend.retry_in),
            recent_looks: backend.recent_looks,
            recent_failures: backend.recent_failures,
            last_success_age_seconds: seconds(&backend.last_success),
            last_error: backend
                .last_error
                .as_ref()
                .or(backend.failed_fields.as_ref())
                .map(ToString::to_string),
            requests: backend.requests,
        }
    }

    /// Why the backend is not asked, in a line; `None` while it is.
    pub fn trouble(&self) -> Option<String> {
        if self.breaker == BreakerState::Closed.as_str() {
            return None;
        }
        let mut text = format!(
            "its circuit is {}: {} of the last {} looks failed",
            self.breaker, self.recent_failures, self.recent_looks
        );
        if let Some(seconds) = self.retry_in_seconds {
            let _ = write!(text, "; it is asked again in {seconds:.1}s");
        }
        Some(text)
    }
}
