//! Whether a backend is asked at all: closed, open after failures in a row, half-open for one look.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use collector_core::{BackendError, BreakerState, ErrorKind, Tick};

/// Failed looks in a row that open the circuit: the tries of one retry loop.
const FAILURES_TO_OPEN: u32 = 3;

/// First pause; it doubles with each look that finds the backend still failing.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause that a server can name: what is known would be unavailable before the next look
/// otherwise, because of one header.
const LONGEST_NAMED_PAUSE: Duration = Duration::from_secs(300);

/// What a coarse clock may be behind the timer that ends a named pause.
const CLOCK_LAG: Duration = Duration::from_millis(20);

/// A circuit breaker. Synchronous and without a clock of its own: `now` is passed in.
pub(crate) struct Breaker {
    state: Mutex<State>,
    longest_pause: Duration,
}

struct State {
    failures: u32,
    circuit: Circuit,
    pause: Duration,
    last_error: Option<Arc<BackendError>>,
    last_success: Option<Tick>,
}

enum Circuit {
    Closed,
    Open { until: Tick },
    HalfOpen,
}

/// Leave to take one look; what became of it must be told. Dropped without a word, as when the look
/// is cancelled, it counts as neither.
#[must_use = "tell the breaker what became of the look"]
pub(crate) struct Admission<'a> {
    breaker: &'a Breaker,
    trial: bool,
    told: bool,
}

impl Breaker {
    /// A closed breaker that, once open, looks again after `longest_pause` at the latest.
    pub(crate) fn new(longest_pause: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                failures: 0,
                circuit: Circuit::Closed,
                pause: FIRST_PAUSE.min(longest_pause),
                last_error: None,
                last_success: None,
            }),
            longest_pause,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for leave to take a look.
    ///
    /// # Errors
    /// The last error, when the circuit is open.
    pub(crate) fn admit(&self, now: Tick) -> Result<Admission<'_>, Arc<BackendError>> {
        let mut state = self.lock();
        let trial = match state.circuit {
            Circuit::Closed => false,
            Circuit::Open { until } if now >= until => {
                state.circuit = Circuit::HalfOpen;
                true
            }
            Circuit::Open { .. } | Circuit::HalfOpen => {
                if let Some(error) = &state.last_error {
                    return Err(Arc::clone(error));
                }
                // Only an error opens the circuit, so there is one; if not, looking is harmless.
                false
            }
        };
        Ok(Admission { breaker: self, trial, told: false })
    }

    /// The last error while the circuit is open; requests of a look that began before must stop too.
    pub(crate) fn refusal(&self, now: Tick) -> Option<Arc<BackendError>> {
        let state = self.lock();
        match state.circuit {
            Circuit::Open { until } if now < until => state.last_error.clone(),
            _ => None,
        }
    }

    /// The backend has said something of its own accord: it is there.
    pub(crate) fn heard(&self, now: Tick) {
        let mut state = self.lock();
        self.close(&mut state, now);
    }

    fn close(&self, state: &mut State, now: Tick) {
        state.failures = 0;
        state.circuit = Circuit::Closed;
        state.pause = FIRST_PAUSE.min(self.longest_pause);
        state.last_error = None;
        state.last_success = Some(now);
    }

    /// The state, for people and metrics.
    pub(crate) fn state(&self) -> BreakerState {
        match self.lock().circuit {
            Circuit::Closed => BreakerState::Closed,
            Circuit::Open { .. } => BreakerState::Open,
            Circuit::HalfOpen => BreakerState::HalfOpen,
        }
    }

    /// When a look was last answered.
    pub(crate) fn last_success(&self) -> Option<Tick> {
        self.lock().last_success
    }

    /// Why the last look failed; `None` when it did not.
    pub(crate) fn last_error(&self) -> Option<Arc<BackendError>> {
        self.lock().last_error.clone()
    }
}

impl Admission<'_> {
    /// The backend answered.
    pub(crate) fn answered(mut self, now: Tick) {
        self.told = true;
        self.breaker.heard(now);
    }

    /// The look failed as a whole. That it was refused a permit by this very breaker is no news. A
    /// server that names a pause is left in peace for it, by everybody.
    pub(crate) fn failed(mut self, error: &Arc<BackendError>, now: Tick) {
        if error.kind() == ErrorKind::CircuitOpen {
            return;
        }
        self.told = true;
        let mut state = self.breaker.lock();
        state.last_error = Some(Arc::clone(error));
        state.failures = state.failures.saturating_add(1);
        if self.trial {
            state.pause = (state.pause * 2).min(self.breaker.longest_pause);
        }
        let opens = self.trial || state.failures >= FAILURES_TO_OPEN;
        let own = if opens { state.pause } else { Duration::ZERO };
        let named = error.retry_after().unwrap_or_default().min(LONGEST_NAMED_PAUSE);
        let pause = own.max(named.saturating_sub(CLOCK_LAG));
        if !pause.is_zero() {
            state.circuit = Circuit::Open { until: now + pause };
        }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        // A trial that was cancelled must not leave the circuit half-open for ever.
        if self.trial && !self.told {
            self.breaker.lock().circuit = Circuit::Open { until: Tick::MIN };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_core::{Clock, ManualClock, Operation};

    fn error() -> Arc<BackendError> {
        let kind = ErrorKind::Connect;
        Arc::new(BackendError::new(kind, "test".into(), Operation::Fetch, "nowhere"))
    }

    fn fail(breaker: &Breaker, clock: &ManualClock) -> bool {
        match breaker.admit(clock.now()) {
            Ok(admission) => {
                admission.failed(&error(), clock.now());
                true
            }
            Err(_) => false,
        }
    }

    #[test]
    fn a_dead_backend_is_asked_ever_more_seldom_and_one_answer_closes_the_circuit() {
        let clock = ManualClock::new();
        let breaker = Breaker::new(Duration::from_secs(10));
        let mut asked = 0;
        for _ in 0..200 {
            asked += u32::from(fail(&breaker, &clock));
            clock.advance(Duration::from_millis(50));
        }
        // Three to open it, then after 1, 2 and 4 s.
        assert_eq!(asked, 6);
        assert_eq!(breaker.state(), BreakerState::Open);
        clock.advance(Duration::from_secs(10));
        breaker.admit(clock.now()).ok().unwrap().answered(clock.now());
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(breaker.last_error().is_none());
        assert!(fail(&breaker, &clock) && fail(&breaker, &clock));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn half_open_lets_one_look_through_and_a_cancelled_one_frees_the_place() {
        let clock = ManualClock::new();
        let breaker = Breaker::new(Duration::from_secs(1));
        while fail(&breaker, &clock) {}
        clock.advance(Duration::from_secs(1));
        let trial = breaker.admit(clock.now()).ok().unwrap();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.admit(clock.now()).is_err());
        drop(trial);
        assert!(breaker.admit(clock.now()).is_ok());
    }
}
