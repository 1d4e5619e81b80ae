// SPDX-License-Identifier: Apache-2.0
//! The state of one model, under one lock.
//!
//! Every order that matters is an order of steps under this lock. It knows no runtime, so that loom explores it.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use collector_core::{Tick, VariantName};

use crate::refresh::adaptive::AdaptiveTtl;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// The state of a model. `F` is a fetch.
pub(crate) struct Cell<F> {
    state: Mutex<State<F>>,
    /// Counts the changes of the model's record, for those who hold one.
    version: AtomicU64,
}

/// The version of a cell that was given up.
const GIVEN_UP: u64 = u64::MAX;

/// Under the lock of a [`Cell`].
pub(crate) struct State<F> {
    /// The fetch in flight of each source, by its index.
    in_flight: Vec<Option<InFlight<F>>>,
    /// The time of the last invalidation: a push that was sampled up to then is not stored.
    invalidated_at: Tick,
    /// The cell was given up: another one is, or will be, the model's.
    given_up: bool,
    /// The record, or whether it is tracked, was changed since the lock was taken.
    pub(crate) record_changed: bool,
    /// Set while the model is refreshed in the background.
    pub(crate) tracked: Option<Tracked>,
    /// The refresh interval that a caller has set.
    pub(crate) interval: Option<Duration>,
}

/// What is known of a tracked model.
#[derive(Clone)]
pub(crate) struct Tracked {
    /// Configured: never untracked for idleness.
    pub(crate) pinned: bool,
    /// Discovered, and listed by a backend: not untracked for idleness either.
    pub(crate) listed: bool,
    /// The variants of it that the directory has had, until they are stopped.
    pub(crate) variants: BTreeSet<VariantName>,
    /// The variants whose allocations are not kept until they are read again.
    pub(crate) stopped: BTreeSet<VariantName>,
    /// When tracking began, the record was last invalidated, or the last backend stopped listing it; counts as a read.
    pub(crate) since: Tick,
    /// Its ttl where ttls adapt, once it was found.
    pub(crate) adaptive: Option<AdaptiveTtl>,
}

impl Tracked {
    pub(crate) fn since(now: Tick) -> Self {
        Self {
            pinned: false,
            listed: false,
            variants: BTreeSet::new(),
            stopped: BTreeSet::new(),
            since: now,
            adaptive: None,
        }
    }

    /// Whether it is tracked although nobody reads it.
    pub(crate) fn stays(&self) -> bool {
        self.pinned || self.listed
    }
}

struct InFlight<F> {
    fetch: Arc<F>,
    /// It was sent: an invalidation supersedes it.
    dispatched: bool,
}

/// What [`State::join`] returns.
pub(crate) enum Joined<F> {
    /// The fetch was in flight, or waits for its batch.
    InFlight(Arc<F>),
    /// It is new: the caller must add it to the next batch.
    New(Arc<F>),
}

impl<F> Joined<F> {
    pub(crate) fn fetch(&self) -> &Arc<F> {
        match self {
            Self::InFlight(fetch) | Self::New(fetch) => fetch,
        }
    }
}

impl<F> Cell<F> {
    /// A cell of a model that may have been invalidated up to `invalidated_at`.
    pub(crate) fn new(invalidated_at: Tick) -> Self {
        let state = State {
            in_flight: Vec::new(),
            invalidated_at,
            given_up: false,
            record_changed: false,
            tracked: None,
            interval: None,
        };
        Self { state: Mutex::new(state), version: AtomicU64::new(0) }
    }

    /// The version of the model's record, `None` once the cell was given up. Read it before the record.
    pub(crate) fn version(&self) -> Option<u64> {
        let version = self.version.load(Ordering::Acquire);
        (version != GIVEN_UP).then_some(version)
    }

    /// The record was changed, in the cache already. Called under the lock.
    pub(super) fn count_change(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The cell is given up. Called under the lock.
    pub(super) fn end(&self) {
        self.version.store(GIVEN_UP, Ordering::Release);
    }

    /// The state, unless the cell was given up.
    pub(super) fn lock(&self) -> Option<MutexGuard<'_, State<F>>> {
        // Code from outside runs under this lock, a cache and a directory; every change here is complete before it
        // does.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (!state.given_up).then_some(state)
    }
}

impl<F> State<F> {
    /// The fetch of a source: the one in flight, or a new one from `make`.
    pub(crate) fn join(&mut self, source: usize, make: impl FnOnce() -> F) -> Joined<F> {
        if self.in_flight.len() <= source {
            self.in_flight.resize_with(source + 1, || None);
        }
        if let Some(InFlight { fetch, .. }) = &self.in_flight[source] {
            return Joined::InFlight(Arc::clone(fetch));
        }
        let fetch = Arc::new(make());
        self.in_flight[source] = Some(InFlight { fetch: Arc::clone(&fetch), dispatched: false });
        Joined::New(fetch)
    }

    /// The fetch is sent now: an invalidation from here on supersedes it.
    pub(crate) fn dispatch(&mut self, source: usize, fetch: &Arc<F>) {
        if let Some(Some(in_flight)) = self.slot(source, fetch) {
            in_flight.dispatched = true;
        }
    }

    /// The fetch has ended: nobody joins it any more. True when its result may be stored, which must be done before
    /// the lock is released.
    pub(crate) fn finish(&mut self, source: usize, fetch: &Arc<F>) -> bool {
        self.slot(source, fetch).is_some_and(|slot| slot.take().is_some())
    }

    /// Whether something that was sampled at `as_of` may still be stored.
    pub(crate) fn may_store(&self, as_of: Tick) -> bool {
        as_of > self.invalidated_at
    }

    /// Supersedes the fetches that were sent before: their callers get the answer, nothing of it is stored, and nobody
    /// joins them. What is to be removed must be removed before the lock is released.
    pub(crate) fn supersede(&mut self, now: Tick) {
        self.invalidated_at = self.invalidated_at.max(now);
        for slot in &mut self.in_flight {
            slot.take_if(|in_flight| in_flight.dispatched);
        }
    }

    /// Gives the cell up when there is nothing to remember; then returns when it was last invalidated.
    pub(super) fn give_up_if_idle(&mut self) -> Option<Tick> {
        let fetching = self.in_flight.iter().any(Option::is_some);
        self.given_up = !fetching && self.tracked.is_none() && self.interval.is_none();
        self.given_up.then_some(self.invalidated_at)
    }

    /// The slot of a source, if it holds this fetch.
    fn slot(&mut self, source: usize, fetch: &Arc<F>) -> Option<&mut Option<InFlight<F>>> {
        let slot = self.in_flight.get_mut(source)?;
        let holds_it = slot.as_ref().is_some_and(|listed| Arc::ptr_eq(&listed.fetch, fetch));
        holds_it.then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalidation_that_began_earlier_does_not_undo_a_later_one() {
        let cell = Cell::<()>::new(Tick::from_nanos(20));
        let mut state = cell.lock().unwrap();
        state.supersede(Tick::from_nanos(10));
        assert!(!state.may_store(Tick::from_nanos(15)));
        assert!(state.may_store(Tick::from_nanos(21)));
    }
}
