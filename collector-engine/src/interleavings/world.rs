// SPDX-License-Identifier: Apache-2.0
//! What the models of fetches and invalidations share.

use std::sync::{Arc, OnceLock};

use collector_core::{ModelRef, Tick};
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::thread::{self, JoinHandle};

use crate::state::{Joined, Models, Tracked};

/// One model, and what concerns it.
pub(super) struct World {
    pub(super) model: ModelRef,
    pub(super) models: Models<Fetch>,
    /// Stands for the cache.
    cache: Mutex<Option<u64>>,
    /// What the server would answer now.
    truth: AtomicU64,
    /// The time, which only moves around invalidations.
    clock: AtomicU64,
    fetches: AtomicUsize,
}

/// A fetch with its result, for those who wait.
#[derive(Default)]
pub(super) struct Fetch {
    pub(super) result: OnceLock<u64>,
}

/// How a read ends.
pub(super) enum Seen {
    /// With the value in the cache.
    Cached(u64),
    /// With the result of a fetch, once there is one.
    Waits(Arc<Fetch>),
}

impl Seen {
    /// What the reader gets in the end; `None` when it would wait for ever.
    pub(super) fn value(&self) -> Option<u64> {
        match self {
            Self::Cached(value) => Some(*value),
            Self::Waits(fetch) => fetch.result.get().copied(),
        }
    }
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            model: ModelRef::new("llama", "prod"),
            models: Models::default(),
            cache: Mutex::new(None),
            truth: AtomicU64::new(1),
            clock: AtomicU64::new(1),
            fetches: AtomicUsize::new(0),
        })
    }

    /// A thread that does something here.
    pub(super) fn spawn<T: 'static>(
        self: &Arc<Self>,
        act: impl FnOnce(&Self) -> T + 'static,
    ) -> JoinHandle<T> {
        let world = Arc::clone(self);
        thread::spawn(move || act(&world))
    }

    pub(super) fn cached(&self) -> Option<u64> {
        *self.cache.lock().unwrap()
    }

    pub(super) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    /// As a read does: the cache first, then the fetches, and the cache again under the cell's lock.
    pub(super) fn read(&self) -> Seen {
        if let Some(value) = self.cached() {
            return Seen::Cached(value);
        }
        let joined = self.models.with(&self.model, |cell| match self.cached() {
            Some(value) => Err(value),
            None => Ok(cell.join(0, Fetch::default)),
        });
        match joined {
            Err(value) => Seen::Cached(value),
            Ok(Joined::InFlight(fetch)) => Seen::Waits(fetch),
            Ok(Joined::New(fetch)) => {
                self.fetch(&fetch);
                Seen::Waits(fetch)
            }
        }
    }

    /// As the worker does in each cycle.
    pub(super) fn refresh(&self) {
        if let Joined::New(fetch) = self.join() {
            self.fetch(&fetch);
        }
    }

    fn join(&self) -> Joined<Fetch> {
        self.models.with(&self.model, |cell| cell.join(0, Fetch::default))
    }

    /// As a batch does: dispatches, asks, stores and deregisters in one step, hands over.
    fn fetch(&self, fetch: &Arc<Fetch>) {
        self.models.with(&self.model, |cell| cell.dispatch(0, fetch));
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let value = self.truth.load(Ordering::SeqCst);
        self.models.with(&self.model, |cell| {
            if cell.finish(0, fetch) {
                self.models.track(cell, Tick::MIN, 1);
                *self.cache.lock().unwrap() = Some(value);
            }
        });
        assert_eq!(fetch.result.set(value), Ok(()), "a fetch ends once");
    }

    /// A task that is dropped before its fetch has ended, if it had one to make.
    pub(super) fn give_up(&self) -> Option<Arc<Fetch>> {
        match self.join() {
            Joined::InFlight(_) => None,
            Joined::New(fetch) => {
                self.models.with(&self.model, |cell| cell.finish(0, &fetch));
                Some(fetch)
            }
        }
    }

    /// Tracks the model, as what pushes are stored for.
    pub(super) fn track(&self) {
        self.models.with(&self.model, |cell| self.models.track(cell, Tick::MIN, 1));
    }

    /// As a live source does: samples, and pushes a moment later.
    pub(super) fn push(&self) {
        let as_of = Tick::from_nanos(self.clock.load(Ordering::SeqCst));
        let value = self.truth.load(Ordering::SeqCst);
        self.models.with(&self.model, |cell| {
            if cell.tracked.is_some() && cell.may_store(as_of) {
                *self.cache.lock().unwrap() = Some(value);
            }
        });
    }

    /// The server changes, and somebody who knows invalidates; with `untrack` the model is not tracked any more. All of
    /// it may happen within one tick of the clock.
    pub(super) fn change_and_invalidate(&self, untrack: bool) {
        self.truth.fetch_add(1, Ordering::SeqCst);
        let now = Tick::from_nanos(self.clock.fetch_add(1, Ordering::SeqCst) + 1);
        self.models.with(&self.model, |cell| {
            cell.supersede(now);
            if untrack {
                self.models.untrack(cell);
            }
            *self.cache.lock().unwrap() = None;
        });
        self.clock.fetch_add(1, Ordering::SeqCst);
    }

    /// Nothing is in flight: a fetch that stayed listed would be waited for in vain by every caller.
    pub(super) fn nothing_is_in_flight(&self) -> bool {
        matches!(self.join(), Joined::New(_))
    }

    /// Whether the model is tracked.
    pub(super) fn is_tracked(&self) -> bool {
        self.models
            .peek(&self.model, |cell| cell.tracked.clone())
            .flatten()
            .is_some_and(|tracked: Tracked| !tracked.pinned)
    }
}
