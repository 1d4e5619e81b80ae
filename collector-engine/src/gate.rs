//! Orders stores against invalidations: what was begun before an invalidation is not stored after
//! it.
//!
//! A generation inside the cache entry would not do, because the entry may not exist yet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use collector_core::{ModelRef, Scope};

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
    pub(crate) fn invalidate<R>(&self, scope: &Scope, remove: impl FnOnce() -> R) -> (R, u64) {
        let mut log = lock(&self.log);
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

    fn model(name: &str) -> ModelRef {
        ModelRef::new(name, "prod")
    }

    #[test]
    fn what_began_before_an_invalidation_is_not_stored() {
        let gate = Gate::default();
        let before = gate.ticket();
        gate.invalidate(&Scope::of_model(&model("llama")), || ());
        let after = gate.ticket();
        let may_store = |ticket, name| gate.store(ticket, &model(name), |may_store| may_store);
        assert!(!may_store(&before, "llama"));
        assert!(may_store(&before, "llama-8b"));
        assert!(may_store(&after, "llama"));
    }

    #[test]
    fn the_log_is_as_long_as_open_tickets_need_it() {
        let gate = Gate::default();
        gate.invalidate(&Scope::all(), || ());
        assert!(lock(&gate.log).invalidations.is_empty());
        let first = gate.ticket();
        gate.invalidate(&Scope::all(), || ());
        let second = gate.ticket();
        gate.invalidate(&Scope::all(), || ());
        assert_eq!(lock(&gate.log).invalidations.len(), 2);
        drop(first);
        assert_eq!(lock(&gate.log).invalidations.len(), 1);
        drop(second);
        assert!(lock(&gate.log).invalidations.is_empty());
        assert!(lock(&gate.log).open.is_empty());
    }
}
