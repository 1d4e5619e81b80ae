// SPDX-License-Identifier: Apache-2.0
//! The pauses between the tries of one fetch. Backends never retry: the engine's loop is the only one.

use std::time::Duration;

use collector_core::{BackendError, Urgency};

/// Tries of one fetch, the first included.
pub(crate) const TRIES: u32 = 3;

/// Pause after the first failed try of a background refresh: what the Go collector waits.
const BACKGROUND_PAUSE: Duration = Duration::from_secs(1);

/// Pause after the first failed try while somebody waits.
const WAITING_PAUSE: Duration = Duration::from_millis(100);

const FACTOR: u32 = 2;

/// How long to wait after the failed try number `failed` (1 for the first): doubled with each, less up to
/// half of it at random, so that collectors that failed together do not come back together. At least as
/// long as the server says.
pub(crate) fn pause(failed: u32, urgency: Urgency, error: &BackendError) -> Duration {
    let base = match urgency {
        Urgency::Background => BACKGROUND_PAUSE,
        Urgency::Waiting => WAITING_PAUSE,
    };
    let full = base * FACTOR.pow(failed.saturating_sub(1).min(8));
    full.mul_f64(1.0 - fastrand::f64() / 2.0).max(error.retry_after().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_core::{ErrorKind, Operation};

    fn error() -> BackendError {
        BackendError::new(ErrorKind::RateLimited, "test".into(), Operation::Fetch, "x")
    }

    #[track_caller]
    fn check(failed: u32, urgency: Urgency, at_most_ms: u64) {
        for _ in 0..100 {
            let pause = pause(failed, urgency, &error());
            assert!(pause <= Duration::from_millis(at_most_ms), "{pause:?}");
            assert!(pause >= Duration::from_millis(at_most_ms / 2), "{pause:?}");
        }
    }

    #[test]
    fn pauses_double_from_their_base_and_are_spread() {
        check(1, Urgency::Waiting, 100);
        check(2, Urgency::Waiting, 200);
        check(1, Urgency::Background, 1000);
        check(2, Urgency::Background, 2000);
    }

    #[test]
    fn a_server_that_names_a_pause_is_obeyed() {
        let error = error().with_retry_after(Duration::from_secs(7));
        assert_eq!(pause(1, Urgency::Waiting, &error), Duration::from_secs(7));
    }
}
