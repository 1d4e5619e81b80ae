// SPDX-License-Identifier: Apache-2.0
//! A handle never shows less than a change of the record that has ended.

use std::sync::Arc;

use collector_core::{ModelRef, Tick};
use collector_testkit::explore;
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::state::Models;

struct Fixture {
    model: ModelRef,
    models: Models<()>,
    /// Stands for the cache.
    cache: Mutex<usize>,
    /// How many changes have ended.
    ended: AtomicUsize,
}

impl Fixture {
    fn new() -> Arc<Self> {
        let fixture = Self {
            model: ModelRef::new("llama", "prod"),
            models: Models::default(),
            cache: Mutex::new(0),
            ended: AtomicUsize::new(0),
        };
        fixture.models.with(&fixture.model, |cell| fixture.models.track(cell, Tick::MIN, 1));
        Arc::new(fixture)
    }

    /// A change of the record, as the engine makes it; the last ends the tracking, and with it the cell.
    fn change(&self, untrack: bool) {
        self.models.with(&self.model, |cell| {
            if untrack {
                self.models.untrack(cell);
            }
            cell.record_changed = true;
            *self.cache.lock().unwrap() += 1;
        });
        self.ended.fetch_add(1, Ordering::Release);
    }

    /// What a handle remembers, read as a handle does: the version before the record.
    fn look_up(&self) -> (usize, impl Fn() -> bool) {
        let cell = self.models.cell(&self.model);
        let version = cell.as_ref().and_then(|cell| cell.version());
        let shown = *self.cache.lock().unwrap();
        let is_newest = move || match (&cell, version) {
            (Some(cell), Some(version)) => cell.version() == Some(version),
            _ => false,
        };
        (shown, is_newest)
    }
}

#[test]
fn a_handle_follows_changes_and_the_end_of_tracking() {
    explore(|| {
        let fixture = Fixture::new();
        let (remembered, is_newest) = fixture.look_up();
        let writer = {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || [false, true].map(|untrack| fixture.change(untrack)))
        };
        let ended = fixture.ended.load(Ordering::Acquire);
        let shown = if is_newest() { remembered } else { fixture.look_up().0 };
        assert!(shown >= ended, "{ended} changes have ended, and it shows that of {shown}");
        writer.join().unwrap();
        assert!(!is_newest());
    });
}

#[test]
fn a_handle_that_looks_up_during_a_change_does_not_keep_the_old_record() {
    for untrack in [false, true] {
        explore(move || {
            let fixture = Fixture::new();
            let writer = {
                let fixture = Arc::clone(&fixture);
                thread::spawn(move || fixture.change(untrack))
            };
            let (remembered, is_newest) = fixture.look_up();
            writer.join().unwrap();
            assert!(remembered == 1 || !is_newest(), "the old record passes for the newest");
            assert!(!(untrack && is_newest()), "a cell that was given up would hide later changes");
        });
    }
}
