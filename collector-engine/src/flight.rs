//! Fetches under way at one source, one a model: whoever wants the same model joins, and models wanted within a
//! few milliseconds board one batch.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use collector_core::{ModelRef, Scope, Stored, VariantName};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::gate::{Gate, Ticket};
use crate::publish::Published;

/// What a flight brings back: the entries of its model, stored or not.
#[derive(Clone)]
pub(crate) struct Landing {
    pub(crate) replicas: Arc<Stored>,
    pub(crate) allocations: Arc<[(VariantName, Arc<Stored>)]>,
}

impl From<Published> for Landing {
    fn from(entries: Published) -> Self {
        let allocations = entries.allocations.into_iter();
        Self {
            replicas: entries.replicas,
            allocations: allocations.map(|(_, name, stored)| (name, stored)).collect(),
        }
    }
}

/// One fetch of one model.
pub(crate) struct Flight {
    pub(crate) model: ModelRef,
    /// The number of the last invalidation before it departed; none while it boards, because what has
    /// not departed cannot be overtaken.
    departed_after: OnceLock<u64>,
    /// When somebody first waited for it.
    awaited_since: OnceLock<Instant>,
    /// Wakes the batch from the pause before its next try.
    hurry: Arc<Notify>,
    landing: watch::Sender<Option<Landing>>,
}

impl Flight {
    /// Whether somebody waits, or has waited, for it.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited_since.get().is_some()
    }

    /// When somebody first waited for it.
    pub(crate) fn awaited_since(&self) -> Option<Instant> {
        self.awaited_since.get().copied()
    }

    /// Whether somebody waits for it now.
    pub(crate) fn has_waiters(&self) -> bool {
        self.landing.receiver_count() > 0
    }
}

/// A batch of flights that leaves together.
pub(crate) struct Batch {
    pub(crate) flights: Vec<Arc<Flight>>,
    /// From the departure.
    pub(crate) ticket: Ticket,
    /// Notified when somebody begins to wait for one of its flights.
    pub(crate) hurry: Arc<Notify>,
}

/// All flights.
#[derive(Default)]
pub(crate) struct Flights {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    under_way: HashMap<ModelRef, Arc<Flight>>,
    boarding: Vec<Arc<Flight>>,
    boarding_hurry: Arc<Notify>,
}

/// What [`Flights::join`] did.
pub(crate) struct Joined {
    /// Resolves to the landing; closed without one when the batch was given up.
    pub(crate) landing: watch::Receiver<Option<Landing>>,
    /// The caller is the first to board and must see to it that the batch leaves.
    pub(crate) opens_boarding: bool,
    /// The flight was under way already.
    pub(crate) coalesced: bool,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the flight of a model, or lets one board.
    ///
    /// `landed` is asked under the lock whether the value has arrived since the caller looked; a
    /// flight stores before it is taken off the list, so no model is fetched twice between the two.
    pub(crate) fn join<T>(
        &self,
        model: &ModelRef,
        awaited: bool,
        landed: impl FnOnce() -> Option<T>,
    ) -> Result<Joined, T> {
        self.lock().join(model, awaited, landed)
    }

    /// The same for several models that a caller waits for. They board in one step, so that those which
    /// do not fly yet leave in one batch.
    pub(crate) fn join_all<T>(
        &self,
        models: &[&ModelRef],
        landed: impl Fn(&ModelRef) -> Option<T>,
    ) -> Vec<Result<Joined, T>> {
        let mut state = self.lock();
        models.iter().map(|model| state.join(model, true, || landed(model))).collect()
    }

    /// Closes the boarding and returns its batch.
    pub(crate) fn depart(&self, gate: &Gate) -> Batch {
        let mut state = self.lock();
        let flights = std::mem::take(&mut state.boarding);
        let hurry = std::mem::take(&mut state.boarding_hurry);
        batch(flights, hurry, gate)
    }

    /// A batch of all these models that are not under way already, which nobody waits for.
    pub(crate) fn charter(&self, models: Vec<ModelRef>, gate: &Gate) -> Batch {
        let hurry = Arc::new(Notify::new());
        let mut state = self.lock();
        let mut flights = Vec::new();
        for model in models {
            if let Entry::Vacant(place) = state.under_way.entry(model) {
                let flight = new_flight(place.key(), false, &hurry);
                flights.push(Arc::clone(&flight));
                place.insert(flight);
            }
        }
        batch(flights, hurry, gate)
    }

    /// Takes a flight off the list and hands its landing to whoever waits. Call it after storing.
    pub(crate) fn land(&self, flight: &Arc<Flight>, landing: Landing) {
        self.take_off_list(flight);
        flight.landing.send_replace(Some(landing));
    }

    /// Takes a flight off the list when there is nothing to hand over. Those who wait find that the
    /// sender is gone once the last `Arc` of the flight is.
    pub(crate) fn take_off_list(&self, flight: &Arc<Flight>) {
        let mut state = self.lock();
        let listed = state.under_way.get(&flight.model);
        if listed.is_some_and(|listed| Arc::ptr_eq(listed, flight)) {
            state.under_way.remove(&flight.model);
        }
    }

    /// Takes the flights of a scope off the list that departed before an invalidation: whoever reads
    /// after it starts a new one.
    pub(crate) fn overtake(&self, scope: &Scope, sequence: u64) {
        let is_before = |flight: &Flight| {
            flight.departed_after.get().is_some_and(|departed_after| *departed_after < sequence)
        };
        self.lock().under_way.retain(|model, flight| !(scope.touches(model) && is_before(flight)));
    }
}

impl State {
    fn join<T>(
        &mut self,
        model: &ModelRef,
        awaited: bool,
        landed: impl FnOnce() -> Option<T>,
    ) -> Result<Joined, T> {
        if let Some(flight) = self.under_way.get(model) {
            if awaited && flight.awaited_since.set(Instant::now()).is_ok() {
                flight.hurry.notify_one();
            }
            let landing = flight.landing.subscribe();
            return Ok(Joined { landing, opens_boarding: false, coalesced: true });
        }
        if let Some(value) = landed() {
            return Err(value);
        }
        let opens_boarding = self.boarding.is_empty();
        let flight = new_flight(model, awaited, &self.boarding_hurry);
        let landing = flight.landing.subscribe();
        self.boarding.push(Arc::clone(&flight));
        self.under_way.insert(model.clone(), flight);
        Ok(Joined { landing, opens_boarding, coalesced: false })
    }
}

/// Called under the lock, so that nobody joins between the departure and the ticket.
fn batch(flights: Vec<Arc<Flight>>, hurry: Arc<Notify>, gate: &Gate) -> Batch {
    let ticket = gate.ticket();
    for flight in &flights {
        // A flight departs once.
        let _ = flight.departed_after.set(ticket.sequence());
    }
    Batch { flights, ticket, hurry }
}

fn new_flight(model: &ModelRef, awaited: bool, hurry: &Arc<Notify>) -> Arc<Flight> {
    Arc::new(Flight {
        model: model.clone(),
        departed_after: OnceLock::new(),
        awaited_since: awaited.then(Instant::now).map_or_else(OnceLock::new, OnceLock::from),
        hurry: Arc::clone(hurry),
        landing: watch::Sender::new(None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_core::Tick;

    fn model(name: &str) -> ModelRef {
        ModelRef::new(name, "prod")
    }

    fn join(flights: &Flights, name: &str) -> Joined {
        flights.join(&model(name), true, || None::<()>).unwrap_or_else(|()| panic!())
    }

    #[test]
    fn the_first_to_board_sees_to_the_departure_and_everybody_leaves_in_it() {
        let (flights, gate) = (Flights::default(), Gate::default());
        assert!(join(&flights, "a").opens_boarding);
        assert!(!join(&flights, "b").opens_boarding);
        let again = join(&flights, "a");
        assert!(again.coalesced && !again.opens_boarding);
        assert_eq!(flights.depart(&gate).flights.len(), 2);
        // The next batch has its own departure.
        assert!(join(&flights, "c").opens_boarding);
    }

    #[test]
    fn what_landed_between_the_look_into_the_cache_and_the_joining_is_not_fetched_again() {
        let (flights, gate) = (Flights::default(), Gate::default());
        let joined = flights.join(&model("a"), true, || Some("landed"));
        assert_eq!(joined.err(), Some("landed"));
        assert!(flights.depart(&gate).flights.is_empty());
    }

    #[test]
    fn a_charter_leaves_out_what_is_under_way() {
        let (flights, gate) = (Flights::default(), Gate::default());
        join(&flights, "a");
        let batch = flights.charter(vec![model("a"), model("b")], &gate);
        assert_eq!(batch.flights.len(), 1);
        assert!(!batch.flights[0].is_awaited());
        let joined = join(&flights, "b");
        assert!(joined.coalesced && batch.flights[0].is_awaited());
    }

    #[test]
    fn nobody_joins_a_flight_that_an_invalidation_overtook() {
        let (flights, gate) = (Flights::default(), Gate::default());
        join(&flights, "a");
        let overtaken = flights.depart(&gate).flights.remove(0);
        let scope = Scope::of_model(&model("a"));
        let ((), sequence) = gate.invalidate(&scope, Tick::MIN, || ());
        flights.overtake(&scope, sequence);
        assert!(!join(&flights, "a").coalesced);
        // One that still boards has not been overtaken.
        flights.overtake(&scope, sequence + 1);
        assert!(join(&flights, "a").coalesced);
        // Its landing does not take the newer flight off the list.
        flights.take_off_list(&overtaken);
        assert!(join(&flights, "a").coalesced);
    }
}
