//! Fetches under way at one source, one a model: whoever wants the same model joins, and models wanted within a
//! few milliseconds board one batch.

use std::sync::{Arc, OnceLock};

use collector_core::{ModelRef, Scope, Stored, VariantName};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::gate::{Gate, Ticket};
use crate::publish::Published;

pub(crate) mod table;

use table::Table;

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
    /// When somebody first waited for it.
    awaited_since: OnceLock<Instant>,
    /// Wakes the batch from the pause before its next try.
    hurry: Arc<Notify>,
    landing: watch::Sender<Option<Landing>>,
}

impl Flight {
    fn new(model: &ModelRef, awaited: bool, hurry: Arc<Notify>) -> Self {
        Self {
            model: model.clone(),
            awaited_since: awaited.then(Instant::now).map_or_else(OnceLock::new, OnceLock::from),
            hurry,
            landing: watch::Sender::new(None),
        }
    }

    /// One that boards with those that do already: all of a batch are woken by the same.
    fn boarding(model: &ModelRef, awaited: bool, first: Option<&Self>) -> Self {
        let hurry = first.map_or_else(Arc::default, |first| Arc::clone(&first.hurry));
        Self::new(model, awaited, hurry)
    }

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

/// All flights of a source.
#[derive(Default)]
pub(crate) struct Flights {
    table: Table<Flight>,
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
    /// Joins the flight of a model, or lets one board.
    ///
    /// `landed` is asked under the table's lock whether the value has arrived since the caller looked.
    pub(crate) fn join<T>(
        &self,
        model: &ModelRef,
        awaited: bool,
        landed: impl FnOnce() -> Option<T>,
    ) -> Result<Joined, T> {
        let board = |first: Option<&Flight>| Flight::boarding(model, awaited, first);
        joined(self.table.join(model, landed, board), awaited)
    }

    /// The same for several models that a caller waits for. They board in one step, so that those which
    /// do not fly yet leave in one batch.
    pub(crate) fn join_all<T>(
        &self,
        models: &[&ModelRef],
        landed: impl Fn(&ModelRef) -> Option<T>,
    ) -> Vec<Result<Joined, T>> {
        let board = |model: &ModelRef, first: Option<&Flight>| Flight::boarding(model, true, first);
        let found = self.table.join_all(models, landed, board);
        found.into_iter().map(|found| joined(found, true)).collect()
    }

    /// Closes the boarding and returns its batch.
    pub(crate) fn depart(&self, gate: &Gate) -> Batch {
        let (flights, ticket) = self.table.depart(gate);
        let hurry = flights.first().map_or_else(Arc::default, |first| Arc::clone(&first.hurry));
        Batch { flights, ticket, hurry }
    }

    /// A batch of all these models that are not under way already, which nobody waits for.
    pub(crate) fn charter(&self, models: Vec<ModelRef>, gate: &Gate) -> Batch {
        let hurry = Arc::new(Notify::new());
        let make = |model: &ModelRef| Flight::new(model, false, Arc::clone(&hurry));
        let (flights, ticket) = self.table.charter(gate, models, make);
        Batch { flights, ticket, hurry }
    }

    /// Takes a flight off the list and hands its landing to whoever waits. Call it after storing.
    pub(crate) fn land(&self, flight: &Arc<Flight>, landing: Landing) {
        self.take_off_list(flight);
        flight.landing.send_replace(Some(landing));
    }

    /// Takes a flight off the list when there is nothing to hand over. Those who wait find that the
    /// sender is gone once the last `Arc` of the flight is.
    pub(crate) fn take_off_list(&self, flight: &Arc<Flight>) {
        self.table.take_off_list(&flight.model, flight);
    }

    /// Takes the flights of a scope off the list that departed before an invalidation: whoever reads
    /// after it starts a new one.
    pub(crate) fn overtake(&self, scope: &Scope, sequence: u64) {
        self.table.overtake(scope, sequence);
    }
}

/// Begins to wait.
fn joined<T>(found: table::Joined<Flight, T>, awaited: bool) -> Result<Joined, T> {
    let (flight, opens_boarding, coalesced) = match found {
        table::Joined::Listed(flight) => {
            if awaited && flight.awaited_since.set(Instant::now()).is_ok() {
                flight.hurry.notify_one();
            }
            (flight, false, true)
        }
        table::Joined::Boards { flight, opens_boarding } => (flight, opens_boarding, false),
        table::Joined::Landed(value) => return Err(value),
    };
    Ok(Joined { landing: flight.landing.subscribe(), opens_boarding, coalesced })
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
        // Nor has one that departed after.
        let _after = flights.depart(&gate);
        flights.overtake(&scope, sequence);
        assert!(join(&flights, "a").coalesced);
        // Its landing does not take the newer flight off the list.
        flights.take_off_list(&overtaken);
        assert!(join(&flights, "a").coalesced);
    }
}
