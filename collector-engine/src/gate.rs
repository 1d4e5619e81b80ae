//! Orders stores against invalidations: what was begun before an invalidation is not stored after
//! it.
//!
//! A generation inside the cache entry would not do, because the entry may not exist yet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use collector_core::{ModelRef, Scope, Tick};

use crate::sync::{Mutex, MutexGuard};

/// How long an invalidation keeps out pushes of what was looked at before it. A push follows its look
/// within moments.
const PUSH_HORIZON: Duration = Duration::from_secs(60);

/// Invalidations that are kept apart for pushes. A sweep of ten thousand idle models is no reason to keep
/// ten thousand scopes that each push is compared with.
const RECENT_MAX: usize = 256;

/// Serves tickets to those who set out to fetch something, and checks them when it is stored.
#[derive(Default)]
pub(crate) struct Gate {
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    /// Number of the last invalidation.
    sequence: u64,
    /// The invalidations that an open ticket may be older than.
    invalidations: VecDeque<(u64, Scope)>,
    /// How many tickets are open, by the sequence number they were given at.
    open: BTreeMap<u64, usize>,
    /// When each scope was last invalidated, latest last; those that pushes can be older than.
    recent: VecDeque<(Tick, Scope)>,
}

/// Says when a fetch began, in invalidations.
pub(crate) struct Ticket {
    sequence: u64,
    log: Arc<Mutex<Log>>,
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    // The closures that run under this lock put to and remove from a cache; should one panic, the
    // log itself is still whole.
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    /// A ticket for what begins now.
    pub(crate) fn ticket(&self) -> Ticket {
        let mut log = lock(&self.log);
        let sequence = log.sequence;
        *log.open.entry(sequence).or_default() += 1;
        Ticket { sequence, log: Arc::clone(&self.log) }
    }

    /// Logs an invalidation, then removes. Returns what `remove` returned, and the number that
    /// tickets from before are below of.
    pub(crate) fn invalidate<R>(
        &self,
        scope: &Scope,
        now: Tick,
        remove: impl FnOnce() -> R,
    ) -> (R, u64) {
        let mut log = lock(&self.log);
        // Clocks are read before the lock is taken: the log stays in order all the same.
        let at = log.recent.back().map_or(now, |(last, _)| now.max(*last));
        while log.recent.front().is_some_and(|(at, _)| at.age(now) >= PUSH_HORIZON) {
            log.recent.pop_front();
        }
        if log.recent.len() >= RECENT_MAX {
            // A push that is refused without need is made up for by the next one.
            log.recent.clear();
            log.recent.push_back((at, Scope::all()));
        }
        log.recent.push_back((at, scope.clone()));
        log.sequence += 1;
        let sequence = log.sequence;
        if !log.open.is_empty() {
            log.invalidations.push_back((sequence, scope.clone()));
        }
        (remove(), sequence)
    }

    /// Runs `store` with whether it may store: not when the model was invalidated since the ticket
    /// was given. Check and store are one step.
    pub(crate) fn store<R>(
        &self,
        ticket: &Ticket,
        model: &ModelRef,
        store: impl FnOnce(bool) -> R,
    ) -> R {
        let log = lock(&self.log);
        let overtaken = log
            .invalidations
            .iter()
            .any(|(sequence, scope)| *sequence > ticket.sequence && scope.touches(model));
        store(!overtaken)
    }

    /// The same for what was pushed: it has no ticket, but says when it was looked at.
    pub(crate) fn store_pushed<R>(
        &self,
        as_of: Tick,
        model: &ModelRef,
        store: impl FnOnce(bool) -> R,
    ) -> R {
        let log = lock(&self.log);
        let since = log.recent.iter().rev().take_while(|(at, _)| *at >= as_of);
        let overtaken = since.into_iter().any(|(_, scope)| scope.touches(model));
        store(!overtaken)
    }
}

impl Ticket {
    /// The number of the last invalidation before the ticket was given.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut log = lock(&self.log);
        if let Some(open) = log.open.get_mut(&self.sequence) {
            *open -= 1;
            if *open == 0 {
                log.open.remove(&self.sequence);
            }
        }
        let oldest = log.open.keys().next().copied().unwrap_or(u64::MAX);
        while log.invalidations.front().is_some_and(|(sequence, _)| *sequence <= oldest) {
            log.invalidations.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_core::{Clock as _, ManualClock};

    fn model(name: &str) -> ModelRef {
        ModelRef::new(name, "prod")
    }

    #[test]
    fn what_began_before_an_invalidation_is_not_stored() {
        let gate = Gate::default();
        let before = gate.ticket();
        gate.invalidate(&Scope::of_model(&model("llama")), Tick::MIN, || ());
        let after = gate.ticket();
        let may_store = |ticket, name| gate.store(ticket, &model(name), |may_store| may_store);
        assert!(!may_store(&before, "llama"));
        assert!(may_store(&before, "llama-8b"));
        assert!(may_store(&after, "llama"));
    }

    #[test]
    fn what_was_looked_at_before_an_invalidation_is_not_stored_when_it_is_pushed_after() {
        let gate = Gate::default();
        let clock = ManualClock::new();
        let before = clock.now();
        clock.advance(Duration::from_millis(1));
        gate.invalidate(&Scope::of_model(&model("llama")), clock.now(), || ());
        gate.invalidate(&Scope::of_model(&model("other")), clock.now(), || ());
        clock.advance(Duration::from_millis(1));
        let may_store = |as_of, name| gate.store_pushed(as_of, &model(name), |may_store| may_store);
        assert!(!may_store(before, "llama"));
        assert!(may_store(before, "llama-8b"));
        assert!(may_store(clock.now(), "llama"));
        clock.advance(PUSH_HORIZON);
        gate.invalidate(&Scope::of_model(&model("other")), clock.now(), || ());
        assert_eq!(lock(&gate.log).recent.len(), 1, "what is long ago is forgotten");
        for n in 0..10 * RECENT_MAX {
            gate.invalidate(&Scope::of_model(&model(&n.to_string())), clock.now(), || ());
        }
        assert!(lock(&gate.log).recent.len() <= RECENT_MAX);
        assert!(!may_store(clock.now(), "0"), "what is no longer kept apart is still kept out");
    }

    #[test]
    fn an_invalidation_that_reads_its_clock_first_and_comes_second_hides_no_other() {
        let gate = Gate::default();
        let clock = ManualClock::new();
        let first = clock.now();
        clock.advance(Duration::from_millis(2));
        let looked_at = first + Duration::from_millis(1);
        gate.invalidate(&Scope::of_model(&model("llama")), clock.now(), || ());
        gate.invalidate(&Scope::of_model(&model("other")), first, || ());
        assert!(!gate.store_pushed(looked_at, &model("llama"), |may_store| may_store));
    }

    #[test]
    fn the_log_is_as_long_as_open_tickets_need_it() {
        let gate = Gate::default();
        gate.invalidate(&Scope::all(), Tick::MIN, || ());
        assert!(lock(&gate.log).invalidations.is_empty());
        let first = gate.ticket();
        gate.invalidate(&Scope::all(), Tick::MIN, || ());
        let second = gate.ticket();
        gate.invalidate(&Scope::all(), Tick::MIN, || ());
        assert_eq!(lock(&gate.log).invalidations.len(), 2);
        drop(first);
        assert_eq!(lock(&gate.log).invalidations.len(), 1);
        drop(second);
        assert!(lock(&gate.log).invalidations.is_empty());
        assert!(lock(&gate.log).open.is_empty());
    }
}
