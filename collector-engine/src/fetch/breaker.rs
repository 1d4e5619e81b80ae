// SPDX-License-Identifier: Apache-2.0
//! A circuit breaker for each backend: closed; open when too many of the last fetches failed; half-open
//! while one fetch decides.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use collector_core::{BackendError, BreakerState, ErrorKind, Tick};

use crate::sync::{Mutex, MutexGuard};

/// Fetches that are remembered: a server that dies after a busy minute gets ten more at most, not as many
/// as went well before.
const WINDOW_FETCHES: usize = 20;

/// For how long they are remembered: two background cycles by default, with the tries of each.
const WINDOW: Duration = Duration::from_secs(60);

/// Fewer failures do not open the circuit, or a fetch would not have all of its tries.
const FAILURES_TO_OPEN: usize = 3;

/// The first pause; it doubles with each fetch that finds the backend still failing.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause that a server can name. With a longer one, readings would become unavailable before
/// the next fetch, because of one header.
const LONGEST_NAMED_PAUSE: Duration = Duration::from_secs(300);

/// How far a coarse clock may be behind the timer that ends a named pause.
const CLOCK_LAG: Duration = Duration::from_millis(20);

/// A circuit breaker. Synchronous and without a clock of its own: `now` is passed in.
pub(crate) struct Breaker {
    state: Mutex<State>,
    longest_pause: Duration,
}

#[derive(Clone)]
struct State {
    /// When the last fetches ended, oldest first, and whether they failed; since it was last closed.
    recent: VecDeque<(Tick, bool)>,
    circuit: Circuit,
    /// Since when it has not been closed.
    opened_at: Option<Tick>,
    pause: Duration,
    trials: u64,
    last_error: Option<Arc<BackendError>>,
    last_success: Option<Tick>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Circuit {
    Closed,
    Open {
        until: Tick,
    },
    /// The fetch of this number decides.
    HalfOpen {
        trial: u64,
    },
}

/// The state of a breaker, for people and metrics.
pub(crate) struct Report {
    pub(crate) state: BreakerState,
    /// Fetches that ended within the window, and how many of them failed.
    pub(crate) recent_looks: usize,
    pub(crate) recent_failures: usize,
    /// For how long it has not been closed.
    pub(crate) open_for: Option<Duration>,
    /// In how long a fetch is let through, where none is now.
    pub(crate) retry_in: Option<Duration>,
    /// When a fetch was last answered.
    pub(crate) last_success: Option<Tick>,
    /// Why the last fetch failed; `None` when it did not.
    pub(crate) last_error: Option<Arc<BackendError>>,
}

/// What has changed, for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// The backend has answered for the first time.
    FirstAnswer,
    /// The circuit has opened, after so many failures; a fetch is let through after the pause.
    Opened { failures: usize, pause: Duration },
    /// It has closed, after so long.
    Closed { after: Duration },
}

/// A permit for one fetch, whose result must be reported. Dropped without one, as when the fetch is
/// cancelled, it counts as neither answered nor failed.
#[must_use = "report the result of the fetch"]
pub(crate) struct Admission<'a> {
    breaker: &'a Breaker,
    /// Its number, where it is the one fetch of a half-open circuit.
    trial: Option<u64>,
}

impl State {
    /// Remembers how a fetch ended.
    fn note(&mut self, failed: bool, now: Tick) {
        if self.recent.len() == WINDOW_FETCHES {
            self.recent.pop_front();
        }
        self.recent.push_back((now, failed));
    }

    /// Fetches within the window, and how many of them failed.
    fn recent(&self, now: Tick) -> (usize, usize) {
        let within = self.recent.iter().filter(|(ended, _)| ended.age(now) < WINDOW);
        within.fold((0, 0), |(fetches, failures), (_, failed)| {
            (fetches + 1, failures + usize::from(*failed))
        })
    }

    /// Whether half of the last fetches failed, or more.
    fn fails_too_often(&self, now: Tick) -> bool {
        let (fetches, failures) = self.recent(now);
        failures >= FAILURES_TO_OPEN && failures * 2 >= fetches
    }

    fn open(&mut self, until: Tick, now: Tick) -> Option<Change> {
        self.circuit = Circuit::Open { until };
        if self.opened_at.is_some() {
            return None;
        }
        self.opened_at = Some(now);
        let (_, failures) = self.recent(now);
        Some(Change::Opened { failures, pause: until.until(now) })
    }

    fn note_answer(&mut self, now: Tick) -> Option<Change> {
        self.last_error = None;
        self.last_success.replace(now).is_none().then_some(Change::FirstAnswer)
    }
}

impl Breaker {
    /// A closed breaker that, once open, lets a fetch through after `longest_pause` at the latest.
    pub(crate) fn new(longest_pause: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                recent: VecDeque::new(),
                circuit: Circuit::Closed,
                opened_at: None,
                pause: FIRST_PAUSE.min(longest_pause),
                trials: 0,
                last_error: None,
                last_success: None,
            }),
            longest_pause,
        }
    }

    /// Goes on from the state of another breaker of the same backend.
    pub(crate) fn take_over(&self, former: &Self, now: Tick) {
        let mut state = former.lock().clone();
        if let Circuit::HalfOpen { .. } = state.circuit {
            // The fetch that decides reports to the former breaker: this one needs another.
            state.circuit = Circuit::Open { until: now };
        }
        state.pause = state.pause.min(self.longest_pause);
        *self.lock() = state;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a permit for a fetch.
    ///
    /// # Errors
    /// The last error, when the circuit is open.
    pub(crate) fn admit(&self, now: Tick) -> Result<Admission<'_>, Arc<BackendError>> {
        let mut state = self.lock();
        let trial = match (state.circuit, &state.last_error) {
            (Circuit::Closed, _) => None,
            (Circuit::Open { until }, _) if now >= until => {
                state.trials = state.trials.wrapping_add(1);
                state.circuit = Circuit::HalfOpen { trial: state.trials };
                Some(state.trials)
            }
            (_, Some(error)) => return Err(Arc::clone(error)),
            // Only an error opens the circuit, so there is one; if not, a fetch is harmless.
            (_, None) => None,
        };
        Ok(Admission { breaker: self, trial })
    }

    /// The last error while the circuit is open; requests of a fetch that began before must stop too.
    pub(crate) fn refusal(&self, now: Tick) -> Option<Arc<BackendError>> {
        let state = self.lock();
        match state.circuit {
            Circuit::Open { until } if now < until => state.last_error.clone(),
            _ => None,
        }
    }

    /// The backend has pushed something: it is there.
    pub(crate) fn note_push(&self, now: Tick) -> Option<Change> {
        let mut state = self.lock();
        let closed = self.close(&mut state, now);
        state.note_answer(now).or(closed)
    }

    /// Closes the circuit, and forgets what failed before.
    fn close(&self, state: &mut State, now: Tick) -> Option<Change> {
        state.recent.clear();
        state.circuit = Circuit::Closed;
        state.pause = FIRST_PAUSE.min(self.longest_pause);
        state.last_error = None;
        let opened_at = state.opened_at.take()?;
        Some(Change::Closed { after: opened_at.age(now) })
    }

    /// Returns the state, for people and metrics.
    pub(crate) fn report(&self, now: Tick) -> Report {
        let state = self.lock();
        let (recent_looks, recent_failures) = state.recent(now);
        let (word, retry_in) = match state.circuit {
            Circuit::Closed => (BreakerState::Closed, None),
            Circuit::Open { until } => (BreakerState::Open, Some(until.until(now))),
            Circuit::HalfOpen { .. } => (BreakerState::HalfOpen, None),
        };
        Report {
            state: word,
            recent_looks,
            recent_failures,
            open_for: state.opened_at.map(|opened_at| opened_at.age(now)),
            retry_in,
            last_success: state.last_success,
            last_error: state.last_error.clone(),
        }
    }

    /// Why the last fetch failed; `None` when it did not.
    pub(crate) fn last_error(&self) -> Option<Arc<BackendError>> {
        self.lock().last_error.clone()
    }
}

impl Admission<'_> {
    /// The backend answered. Whichever fetch reports it, a circuit that was open closes.
    pub(crate) fn answered(mut self, now: Tick) -> Option<Change> {
        self.trial = None;
        let mut state = self.breaker.lock();
        let is_closed = state.circuit == Circuit::Closed;
        let closed = if is_closed { None } else { self.breaker.close(&mut state, now) };
        state.note(false, now);
        state.note_answer(now).or(closed)
    }

    /// The fetch failed as a whole. One that failed because this breaker is open is not counted. A server
    /// that names a pause gets it, from every caller.
    pub(crate) fn failed(mut self, error: &Arc<BackendError>, now: Tick) -> Option<Change> {
        if error.kind() == ErrorKind::CircuitOpen {
            return None;
        }
        let trial = self.trial.take();
        let mut state = self.breaker.lock();
        state.last_error = Some(Arc::clone(error));
        state.note(true, now);
        let mut until = now;
        match state.circuit {
            Circuit::HalfOpen { trial: deciding } if trial == Some(deciding) => {
                state.pause = (state.pause * 2).min(self.breaker.longest_pause);
                until = now + state.pause;
            }
            Circuit::Closed if state.fails_too_often(now) => until = now + state.pause,
            // One that began before the circuit opened, and does not prolong its pause.
            Circuit::Open { until: already } => until = already,
            Circuit::Closed | Circuit::HalfOpen { .. } => {}
        }
        let named = error.retry_after().unwrap_or_default().min(LONGEST_NAMED_PAUSE);
        until = until.max(now + named.saturating_sub(CLOCK_LAG));
        if until > now { state.open(until, now) } else { None }
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        // A trial that was cancelled must not leave the circuit half-open for ever; where another fetch has
        // decided meanwhile, it changes nothing.
        let Some(trial) = self.trial else { return };
        let mut state = self.breaker.lock();
        if state.circuit == (Circuit::HalfOpen { trial }) {
            state.circuit = Circuit::Open { until: Tick::MIN };
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

    fn answer(breaker: &Breaker, clock: &ManualClock) {
        breaker.admit(clock.now()).ok().unwrap().answered(clock.now());
    }

    fn state(breaker: &Breaker, clock: &ManualClock) -> BreakerState {
        breaker.report(clock.now()).state
    }

    #[test]
    fn pauses_double_and_one_answer_closes_the_circuit() {
        let clock = ManualClock::new();
        let breaker = Breaker::new(Duration::from_secs(10));
        let mut asked = 0;
        for _ in 0..200 {
            asked += u32::from(fail(&breaker, &clock));
            clock.advance(Duration::from_millis(50));
        }
        // Three to open it, then after 1, 2 and 4 s.
        assert_eq!(asked, 6);
        assert_eq!(state(&breaker, &clock), BreakerState::Open);
        clock.advance(Duration::from_secs(10));
        answer(&breaker, &clock);
        assert_eq!(state(&breaker, &clock), BreakerState::Closed);
        assert!(breaker.last_error().is_none());
        // What failed before it closed does not count any more.
        assert!(fail(&breaker, &clock) && fail(&breaker, &clock));
        assert_eq!(state(&breaker, &clock), BreakerState::Closed);
    }

    #[test]
    fn half_of_the_last_fetches_must_fail_to_open() {
        let clock = ManualClock::new();
        let breaker = Breaker::new(Duration::from_secs(10));
        // One in three fails.
        for _ in 0..50 {
            answer(&breaker, &clock);
            answer(&breaker, &clock);
            assert!(fail(&breaker, &clock));
            clock.advance(Duration::from_millis(100));
        }
        assert_eq!(state(&breaker, &clock), BreakerState::Closed);
        // Every second one: it opens, though there are never three in a row.
        let mut pairs = 0;
        while state(&breaker, &clock) == BreakerState::Closed {
            assert!(fail(&breaker, &clock));
            if state(&breaker, &clock) == BreakerState::Closed {
                answer(&breaker, &clock);
            }
            pairs += 1;
        }
        assert!((2..=10).contains(&pairs), "{pairs}");
    }

    #[test]
    fn a_server_that_dies_gets_ten_more_fetches_at_most() {
        let clock = ManualClock::new();
        let breaker = Breaker::new(Duration::from_secs(10));
        for _ in 0..1000 {
            answer(&breaker, &clock);
            clock.advance(Duration::from_millis(1));
        }
        let mut asked = 0;
        while fail(&breaker, &clock) {
            asked += 1;
        }
        assert_eq!(asked, 10);
        let report = breaker.report(clock.now());
        assert_eq!((report.recent_looks, report.recent_failures), (20, 10));
    }

    #[test]
    fn failures_count_for_a_minute() {
        let clock = ManualClock::new();
        let breaker = Breaker::new(Duration::from_secs(10));
        assert!(fail(&breaker, &clock) && fail(&breaker, &clock));
        clock.advance(WINDOW);
        assert!(fail(&breaker, &clock) && fail(&breaker, &clock));
        assert_eq!(state(&breaker, &clock), BreakerState::Closed);
        assert!(fail(&breaker, &clock));
        assert_eq!(state(&breaker, &clock), BreakerState::Open);
    }

    #[test]
    fn a_report_has_the_time_it_is_open_and_the_next_try() {
        let clock = ManualClock::new();
        let breaker = Breaker::new(Duration::from_secs(10));
        answer(&breaker, &clock);
        let report = breaker.report(clock.now());
        assert_eq!((report.recent_looks, report.recent_failures), (1, 0));
        assert_eq!((report.open_for, report.retry_in), (None, None));
        clock.advance(WINDOW);
        while fail(&breaker, &clock) {}
        clock.advance(Duration::from_secs(1));
        assert!(fail(&breaker, &clock));
        clock.advance(Duration::from_millis(500));
        let report = breaker.report(clock.now());
        assert_eq!((report.recent_looks, report.recent_failures), (4, 4));
        assert_eq!(report.open_for, Some(Duration::from_millis(1500)));
        assert_eq!(report.retry_in, Some(Duration::from_millis(1500)));
        clock.advance(Duration::from_millis(1500));
        answer(&breaker, &clock);
        assert_eq!(breaker.report(clock.now()).open_for, None);
    }

    #[test]
    fn half_open_lets_one_fetch_through_and_another_when_it_is_cancelled() {
        let clock = ManualClock::new();
        let breaker = Breaker::new(Duration::from_secs(1));
        while fail(&breaker, &clock) {}
        clock.advance(Duration::from_secs(1));
        let trial = breaker.admit(clock.now()).ok().unwrap();
        assert_eq!(state(&breaker, &clock), BreakerState::HalfOpen);
        assert!(breaker.admit(clock.now()).is_err());
        drop(trial);
        assert!(breaker.admit(clock.now()).is_ok());
    }

    #[test]
    fn an_earlier_fetch_neither_prolongs_the_pause_nor_ends_a_trial() {
        let clock = ManualClock::new();
        let breaker = Breaker::new(Duration::from_secs(10));
        let slow = breaker.admit(clock.now()).ok().unwrap();
        while fail(&breaker, &clock) {}
        clock.advance(Duration::from_millis(900));
        slow.failed(&error(), clock.now());
        clock.advance(Duration::from_millis(100));
        let first = breaker.admit(clock.now()).ok().unwrap();
        // A push closes the circuit, and it opens again: the first trial is over.
        breaker.note_push(clock.now());
        while fail(&breaker, &clock) {}
        clock.advance(Duration::from_secs(1));
        let second = breaker.admit(clock.now()).ok().unwrap();
        drop(first);
        assert!(breaker.admit(clock.now()).is_err(), "one fetch at a time");
        second.answered(clock.now());
        assert_eq!(state(&breaker, &clock), BreakerState::Closed);
    }

    #[test]
    fn an_earlier_fetch_that_fails_does_not_decide_a_trial() {
        let clock = ManualClock::new();
        let breaker = Breaker::new(Duration::from_secs(10));
        let slow = breaker.admit(clock.now()).ok().unwrap();
        while fail(&breaker, &clock) {}
        clock.advance(Duration::from_secs(1));
        let trial = breaker.admit(clock.now()).ok().unwrap();
        slow.failed(&error(), clock.now());
        assert_eq!(state(&breaker, &clock), BreakerState::HalfOpen);
        trial.failed(&error(), clock.now());
        assert_eq!(breaker.report(clock.now()).retry_in, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_request_is_refused_until_the_pause_is_over() {
        let clock = ManualClock::new();
        let breaker = Breaker::new(Duration::from_secs(10));
        assert!(breaker.refusal(clock.now()).is_none());
        while fail(&breaker, &clock) {}
        assert!(breaker.refusal(clock.now()).is_some());
        clock.advance(Duration::from_secs(1));
        assert!(breaker.refusal(clock.now()).is_none());
    }
}
