// SPDX-License-Identifier: Apache-2.0
//! The cells of models: those that are tracked, in flight or have an interval of their own, and no others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use collector_core::{ModelRef, Tick};
use tokio::sync::{broadcast, watch};

use super::cell::{Cell, State, Tracked};
use crate::sync::{Mutex, MutexGuard};

/// All cells of a collector.
pub(crate) struct Models<F> {
    cells: Mutex<Cells<F>>,
    tracked: AtomicUsize,
    intervals: AtomicUsize,
    /// Counts the changes of which models are tracked.
    changes: watch::Sender<u64>,
    /// The models whose record or tracking changes, for those who follow them.
    followed: broadcast::Sender<ModelRef>,
}

/// A follower who is behind by more changes looks at all models again.
const FOLLOWED_CHANGES: usize = 4096;

struct Cells<F> {
    by_model: HashMap<ModelRef, Arc<Cell<F>>>,
    /// The last invalidation of all cells that were given up: new ones begin with it.
    invalidated_at: Tick,
}

/// A cell under its lock. When it is dropped, also by a panic of outside code, it counts a change of the record and
/// gives up a cell with nothing left to remember.
struct Locked<'a, F> {
    models: &'a Models<F>,
    model: &'a ModelRef,
    cell: &'a Cell<F>,
    state: MutexGuard<'a, State<F>>,
}

impl<F> Drop for Locked<'_, F> {
    fn drop(&mut self) {
        if std::mem::take(&mut self.state.record_changed) {
            self.cell.count_change();
            if self.models.followed.receiver_count() > 0 {
                // Nobody follows any more: nobody misses it.
                let _ = self.models.followed.send(self.model.clone());
            }
        }
        if let Some(invalidated_at) = self.state.give_up_if_idle() {
            self.cell.end();
            // Still under the cell's lock: a caller that finds it given up finds the map without it.
            let mut cells = self.models.cells();
            cells.invalidated_at = cells.invalidated_at.max(invalidated_at);
            cells.by_model.remove(self.model);
        }
    }
}

impl<F> Default for Models<F> {
    fn default() -> Self {
        let cells = Cells { by_model: HashMap::new(), invalidated_at: Tick::MIN };
        Self {
            cells: Mutex::new(cells),
            tracked: AtomicUsize::new(0),
            intervals: AtomicUsize::new(0),
            changes: watch::Sender::default(),
            followed: broadcast::Sender::new(FOLLOWED_CHANGES),
        }
    }
}

impl<F> Models<F> {
    /// Runs `act` under the lock of a model's cell, which is made where there is none and given up when nothing is
    /// left to remember. `act` must not lock another cell.
    pub(crate) fn with<R>(&self, model: &ModelRef, act: impl FnOnce(&mut State<F>) -> R) -> R {
        loop {
            let cell = self.cell_or_new(model);
            // Given up since: it is no longer in the map.
            let Some(state) = cell.lock() else { continue };
            let mut locked = Locked { models: self, model, cell: &cell, state };
            return act(&mut locked.state);
        }
    }

    /// What `read` returns of the state of a model that has a cell.
    pub(crate) fn peek<R>(&self, model: &ModelRef, read: impl FnOnce(&State<F>) -> R) -> Option<R> {
        let cell = self.cell(model)?;
        let state = cell.lock()?;
        Some(read(&state))
    }

    /// The cell of a model that has one.
    pub(crate) fn cell(&self, model: &ModelRef) -> Option<Arc<Cell<F>>> {
        self.cells().by_model.get(model).cloned()
    }

    /// Every model that has a cell, and what `read` returns of its state.
    pub(crate) fn all<R>(&self, read: impl Fn(&State<F>) -> Option<R>) -> Vec<(ModelRef, R)> {
        let cells: Vec<_> = {
            let cells = self.cells();
            cells.by_model.iter().map(|(model, cell)| (model.clone(), Arc::clone(cell))).collect()
        };
        let seen = |(model, cell): (ModelRef, Arc<Cell<F>>)| {
            let seen = read(&*cell.lock()?)?;
            Some((model, seen))
        };
        cells.into_iter().filter_map(seen).collect()
    }

    /// The tracked models, in order.
    pub(crate) fn tracked(&self) -> Vec<ModelRef> {
        let tracked = self.all(|state| state.tracked.as_ref().map(|_| ()));
        let mut tracked: Vec<_> = tracked.into_iter().map(|(model, ())| model).collect();
        tracked.sort_unstable();
        tracked
    }

    /// How many models are tracked.
    pub(crate) fn tracked_count(&self) -> usize {
        self.tracked.load(Relaxed)
    }

    /// Resolves whenever the set of tracked models has changed since the last time.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The models whose record or tracking changes from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<ModelRef> {
        self.followed.subscribe()
    }

    /// Tracks a model unless `limit` models are tracked; false when it is not.
    pub(crate) fn track(&self, state: &mut State<F>, now: Tick, limit: usize) -> bool {
        if state.tracked.is_none() {
            if !take_one(&self.tracked, limit) {
                return false;
            }
            state.tracked = Some(Tracked::since(now));
            state.record_changed = true;
            self.changed();
        }
        true
    }

    /// Stops tracking a model.
    pub(crate) fn untrack(&self, state: &mut State<F>) {
        if state.tracked.take().is_some() {
            self.tracked.fetch_sub(1, Relaxed);
            state.record_changed = true;
            self.changed();
        }
    }

    /// Sets or removes the interval of a model; false when it has none and `limit` models have one.
    pub(crate) fn set_interval(
        &self,
        state: &mut State<F>,
        interval: Option<Duration>,
        limit: usize,
    ) -> bool {
        match (state.interval, interval) {
            (None, Some(_)) if !take_one(&self.intervals, limit) => return false,
            (Some(_), None) => _ = self.intervals.fetch_sub(1, Relaxed),
            _ => {}
        }
        state.interval = interval;
        true
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn cell_or_new(&self, model: &ModelRef) -> Arc<Cell<F>> {
        let mut cells = self.cells();
        if let Some(cell) = cells.by_model.get(model) {
            return Arc::clone(cell);
        }
        let new = Arc::new(Cell::new(cells.invalidated_at));
        cells.by_model.insert(model.clone(), Arc::clone(&new));
        new
    }

    /// The map. Its lock may be taken under that of a cell, never the other way round.
    fn cells(&self) -> MutexGuard<'_, Cells<F>> {
        // Nothing under this lock can panic half-way through a change.
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one more, unless the limit is reached.
fn take_one(count: &AtomicUsize, limit: usize) -> bool {
    let one_more = |count: usize| (count < limit).then_some(count + 1);
    count.fetch_update(Relaxed, Relaxed, one_more).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_new_cell_begins_with_the_last_invalidation_of_any_that_was_given_up() {
        let models = Models::<()>::default();
        let (one, other) = (ModelRef::new("one", "prod"), ModelRef::new("other", "prod"));
        models.with(&other, |cell| models.track(cell, Tick::MIN, 1));
        models.with(&one, |cell| cell.supersede(Tick::from_nanos(20)));
        models.with(&other, |cell| models.untrack(cell));
        assert!(models.cell(&one).is_none() && models.cell(&other).is_none());
        let may_store = |nanos| models.with(&one, |cell| cell.may_store(Tick::from_nanos(nanos)));
        assert!(!may_store(20));
        assert!(may_store(21));
    }

    #[test]
    fn a_cell_that_is_given_up_has_no_version_although_no_record_changed() {
        let models = Models::<()>::default();
        let model = ModelRef::new("llama", "prod");
        models.with(&model, |cell| models.track(cell, Tick::MIN, 1));
        let cell = models.cell(&model).unwrap();
        assert!(cell.version().is_some());
        models.with(&model, |cell| models.untrack(cell));
        assert_eq!(cell.version(), None);
    }

    #[test]
    fn an_interval_that_is_removed_makes_room_for_another() {
        let models = Models::<()>::default();
        let set = |name: &str, seconds: Option<u64>| {
            let interval = seconds.map(Duration::from_secs);
            models.with(&ModelRef::new(name, "prod"), |cell| models.set_interval(cell, interval, 1))
        };
        assert!(set("one", Some(10)));
        assert!(set("one", Some(20)));
        assert!(!set("two", Some(10)));
        assert!(set("one", None));
        assert!(set("two", Some(10)));
    }

    #[test]
    fn tracking_and_untracking_are_announced() {
        let models = Models::<()>::default();
        let model = ModelRef::new("llama", "prod");
        let mut changes = models.changes();
        for tracks in [true, false] {
            models.with(&model, |cell| {
                if tracks {
                    models.track(cell, Tick::MIN, 1);
                } else {
                    models.untrack(cell);
                }
            });
            assert!(changes.has_changed().unwrap(), "tracks: {tracks}");
            changes.mark_unchanged();
        }
    }

    #[test]
    fn a_panic_under_the_lock_leaves_no_idle_cell_and_no_handle_with_the_old_record() {
        let models = Models::<()>::default();
        let (idle, tracked) = (ModelRef::new("idle", "prod"), ModelRef::new("tracked", "prod"));
        models.with(&tracked, |cell| models.track(cell, Tick::MIN, 1));
        let cell = models.cell(&tracked).unwrap();
        let version = cell.version();
        for model in [&idle, &tracked] {
            let change = |cell: &mut State<()>| {
                cell.record_changed = true;
                panic!("a defect in a cache");
            };
            let panicked = catch_unwind(AssertUnwindSafe(|| models.with(model, change)));
            assert!(panicked.is_err());
        }
        assert!(models.cell(&idle).is_none());
        assert_ne!(cell.version(), version);
    }
}
