//! Which models are being fetched: one table under one lock, whatever a flight carries.
//!
//! It wakes nobody and knows no runtime, so that loom can explore it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError};

use collector_core::{ModelRef, Scope};

use crate::gate::{Gate, Ticket};
use crate::sync::{Mutex, MutexGuard};

/// The flights of one source, at most one of a model.
pub(crate) struct Table<F> {
    state: Mutex<State<F>>,
}

struct State<F> {
    listed: HashMap<ModelRef, Listed<F>>,
    /// Whose flights leave with the next batch. They are listed until they do.
    boarding: Vec<ModelRef>,
}

struct Listed<F> {
    flight: Arc<F>,
    /// The number of the last invalidation before it departed; none while it boards, because what has
    /// not departed cannot be overtaken.
    departed_after: Option<u64>,
}

/// What [`Table::join`] found.
pub(crate) enum Joined<F, T> {
    /// A flight that is on the list already.
    Listed(Arc<F>),
    /// None, so one boards.
    Boards {
        /// The new flight.
        flight: Arc<F>,
        /// It is the first to board: the caller must see to it that the batch leaves.
        opens_boarding: bool,
    },
    /// None, but the value has arrived since the caller looked.
    Landed(T),
}

impl<F> Default for Table<F> {
    fn default() -> Self {
        let state = State { listed: HashMap::new(), boarding: Vec::new() };
        Self { state: Mutex::new(state) }
    }
}

impl<F> Table<F> {
    fn lock(&self) -> MutexGuard<'_, State<F>> {
        // Nothing under this lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the flight of a model, or lets one board, made by `board` from the first of those that
    /// board already.
    ///
    /// `landed` is asked under the lock whether the value has arrived since the caller looked; a
    /// flight stores before it is taken off the list, so no model is fetched twice between the two.
    pub(crate) fn join<T>(
        &self,
        model: &ModelRef,
        landed: impl FnOnce() -> Option<T>,
        board: impl FnOnce(Option<&F>) -> F,
    ) -> Joined<F, T> {
        self.lock().join(model, landed, board)
    }

    /// The same for several models in one step, so that those which board leave in one batch.
    pub(crate) fn join_all<T>(
        &self,
        models: &[&ModelRef],
        landed: impl Fn(&ModelRef) -> Option<T>,
        board: impl Fn(&ModelRef, Option<&F>) -> F,
    ) -> Vec<Joined<F, T>> {
        let mut state = self.lock();
        let join =
            |model: &&ModelRef| state.join(model, || landed(model), |first| board(model, first));
        models.iter().map(join).collect()
    }

    /// Closes the boarding and returns who boarded, with the ticket of their departure: it is drawn under
    /// the lock, so that nobody joins between the two.
    pub(crate) fn depart(&self, gate: &Gate) -> (Vec<Arc<F>>, Ticket) {
        let mut state = self.lock();
        let ticket = gate.ticket();
        let mut flights = Vec::new();
        for model in std::mem::take(&mut state.boarding) {
            if let Some(listed) = state.listed.get_mut(&model) {
                listed.departed_after = Some(ticket.sequence());
                flights.push(Arc::clone(&listed.flight));
            }
        }
        (flights, ticket)
    }

    /// Lists a flight of each of these models that is not on the list already; they depart at once.
    pub(crate) fn charter(
        &self,
        gate: &Gate,
        models: Vec<ModelRef>,
        make: impl Fn(&ModelRef) -> F,
    ) -> (Vec<Arc<F>>, Ticket) {
        let mut state = self.lock();
        let ticket = gate.ticket();
        let mut flights = Vec::new();
        for model in models {
            if let Entry::Vacant(place) = state.listed.entry(model) {
                let flight = Arc::new(make(place.key()));
                flights.push(Arc::clone(&flight));
                place.insert(Listed { flight, departed_after: Some(ticket.sequence()) });
            }
        }
        (flights, ticket)
    }

    /// Takes a flight off the list, unless another has taken its place.
    pub(crate) fn take_off_list(&self, model: &ModelRef, flight: &Arc<F>) {
        let mut state = self.lock();
        let listed = state.listed.get(model);
        if listed.is_some_and(|listed| Arc::ptr_eq(&listed.flight, flight)) {
            state.listed.remove(model);
        }
    }

    /// Takes the flights of a scope off the list that departed before an invalidation: whoever reads
    /// after it starts a new one.
    pub(crate) fn overtake(&self, scope: &Scope, sequence: u64) {
        let is_before = |listed: &Listed<F>| {
            listed.departed_after.is_some_and(|departed_after| departed_after < sequence)
        };
        self.lock().listed.retain(|model, listed| !(scope.touches(model) && is_before(listed)));
    }
}

impl<F> State<F> {
    fn join<T>(
        &mut self,
        model: &ModelRef,
        landed: impl FnOnce() -> Option<T>,
        board: impl FnOnce(Option<&F>) -> F,
    ) -> Joined<F, T> {
        if let Some(listed) = self.listed.get(model) {
            return Joined::Listed(Arc::clone(&listed.flight));
        }
        if let Some(value) = landed() {
            return Joined::Landed(value);
        }
        let opens_boarding = self.boarding.is_empty();
        let first = self.boarding.first().and_then(|first| self.listed.get(first));
        let flight = Arc::new(board(first.map(|first| &*first.flight)));
        self.boarding.push(model.clone());
        let listed = Listed { flight: Arc::clone(&flight), departed_after: None };
        self.listed.insert(model.clone(), listed);
        Joined::Boards { flight, opens_boarding }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_core::{Clock as _, ManualClock};

    #[test]
    fn an_invalidation_overtakes_what_departed_before_it_and_nothing_else() {
        let (table, gate) = (Table::default(), Gate::default());
        let now = ManualClock::new().now();
        let (before, after) = (ModelRef::new("before", "prod"), ModelRef::new("after", "prod"));
        let (_, _first) = table.charter(&gate, vec![before.clone()], |_| ());
        let ((), sequence) = gate.invalidate(&Scope::all(), now, || ());
        let (_, _second) = table.charter(&gate, vec![after.clone()], |_| ());
        table.overtake(&Scope::all(), sequence);
        let join = |model| table.join(model, || None::<()>, |_| ());
        assert!(matches!(join(&before), Joined::Boards { .. }));
        assert!(matches!(join(&after), Joined::Listed(_)));
    }
}
