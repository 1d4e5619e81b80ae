//! What the models of flights and of the gate share.

use std::sync::{Arc, OnceLock};

use collector_core::{ModelRef, Scope, Tick};
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::thread::{self, JoinHandle};

use crate::flight::table::{Joined, Table};
use crate::gate::{Gate, Ticket};

/// One model, and who has to do with it.
pub(super) struct World {
    pub(super) model: ModelRef,
    pub(super) gate: Gate,
    pub(super) table: Table<Flight>,
    /// Stands for the cache with its writer's lock.
    cache: Mutex<Option<u64>>,
    /// What the server would answer now.
    truth: AtomicU64,
    /// The time, which only moves around invalidations.
    clock: AtomicU64,
    fetches: AtomicUsize,
    /// Fetches under way that began before the invalidation, and after it.
    under_way: [AtomicUsize; 2],
    /// Whether something was stored that was fetched after the invalidation. Nothing for loom to explore.
    stored_after: OnceLock<()>,
}

/// A flight that carries what it brings back, for whoever rides.
#[derive(Default)]
pub(super) struct Flight {
    pub(super) landing: OnceLock<u64>,
}

/// How a read ends.
pub(super) enum Seen {
    /// With the value in the cache.
    Cached(u64),
    /// With the landing of a flight, once there is one.
    Rides(Arc<Flight>),
}

impl Seen {
    /// What the reader is told in the end; `None` when it would wait for ever.
    pub(super) fn value(&self) -> Option<u64> {
        match self {
            Self::Cached(value) => Some(*value),
            Self::Rides(flight) => flight.landing.get().copied(),
        }
    }
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            model: ModelRef::new("llama", "prod"),
            gate: Gate::default(),
            table: Table::default(),
            cache: Mutex::new(None),
            truth: AtomicU64::new(1),
            clock: AtomicU64::new(0),
            fetches: AtomicUsize::new(0),
            under_way: [AtomicUsize::new(0), AtomicUsize::new(0)],
            stored_after: OnceLock::new(),
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

    /// As `Engine::ask` does: the cache first, then the flights, and the first to board flies.
    pub(super) fn read(&self) -> Seen {
        match self.cached() {
            Some(value) => Seen::Cached(value),
            None => self.join_and_fly(),
        }
    }

    /// The second half of a read.
    fn join_and_fly(&self) -> Seen {
        match self.table.join(&self.model, || self.cached(), |_| Flight::default()) {
            Joined::Landed(value) => Seen::Cached(value),
            Joined::Listed(flight) => Seen::Rides(flight),
            Joined::Boards { flight, opens_boarding } => {
                if opens_boarding {
                    let (flights, ticket) = self.table.depart(&self.gate);
                    self.fly(&flights, &ticket);
                }
                Seen::Rides(flight)
            }
        }
    }

    /// As the worker does in each cycle.
    pub(super) fn refresh(&self) {
        let models = vec![self.model.clone()];
        let (flights, ticket) = self.table.charter(&self.gate, models, |_| Flight::default());
        self.fly(&flights, &ticket);
    }

    /// As `Engine::fly` and `Engine::land` do: fetches, stores, takes off the list, hands over.
    fn fly(&self, flights: &[Arc<Flight>], ticket: &Ticket) {
        for flight in flights {
            let value = self.fetch(ticket);
            self.gate.store(ticket, &self.model, |may_store| {
                self.put(value, may_store);
                if may_store && ticket.sequence() > 0 {
                    let _ = self.stored_after.set(());
                }
            });
            self.table.take_off_list(&self.model, flight);
            let landed = flight.landing.set(value);
            assert_eq!(landed, Ok(()), "a flight lands once");
        }
    }

    /// What is fetched after an invalidation may overlap with what it overtook, and with nothing else.
    fn fetch(&self, ticket: &Ticket) -> u64 {
        let under_way = &self.under_way[usize::from(ticket.sequence() > 0)];
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let others = under_way.fetch_add(1, Ordering::SeqCst);
        assert_eq!(others, 0, "the model is being fetched already");
        let value = self.truth.load(Ordering::SeqCst);
        under_way.fetch_sub(1, Ordering::SeqCst);
        value
    }

    fn put(&self, value: u64, may_store: bool) {
        if may_store {
            *self.cache.lock().unwrap() = Some(value);
        }
    }

    /// As a live source does: looks, and pushes a moment later.
    pub(super) fn push(&self) {
        let as_of = Tick::from_nanos(self.clock.load(Ordering::SeqCst));
        let value = self.truth.load(Ordering::SeqCst);
        self.gate.store_pushed(as_of, &self.model, |may_store| self.put(value, may_store));
    }

    /// The server changes, and somebody who knows invalidates, as `Engine::invalidate` does. All of it
    /// may happen within one tick of the clock.
    pub(super) fn change_and_invalidate(&self) {
        let now = Tick::from_nanos(1 + self.clock.fetch_add(1, Ordering::SeqCst));
        self.truth.fetch_add(1, Ordering::SeqCst);
        let scope = Scope::of_model(&self.model);
        let remove = || *self.cache.lock().unwrap() = None;
        let ((), sequence) = self.gate.invalidate(&scope, now, remove);
        self.table.overtake(&scope, sequence);
        self.clock.fetch_add(1, Ordering::SeqCst);
    }

    /// After everything: what the server said before it changed is not kept, and what was fetched after
    /// the invalidation is.
    #[track_caller]
    pub(super) fn assert_only_what_came_after_is_kept(&self) {
        let cached = self.cached();
        assert_ne!(cached, Some(1), "an old value was left behind");
        if self.stored_after.get().is_some() {
            assert_eq!(cached, Some(2), "a new value was removed");
        }
    }

    /// Whether nothing is on the list: a flight that stayed there would be waited for in vain by all who
    /// come.
    pub(super) fn nothing_is_listed(&self) -> bool {
        let joined = self.table.join(&self.model, || None::<()>, |_| Flight::default());
        matches!(joined, Joined::Boards { opens_boarding: true, .. })
    }
}
