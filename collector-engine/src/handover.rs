// SPDX-License-Identifier: Apache-2.0
//! What one collector hands over to another that takes its place: a daemon whose configuration has changed goes on
//! with what it knows.
//!
//! Both have one clock, so nothing changes its age. As with a snapshot, only what each source last answered is handed
//! over, and values are made of that with the new settings and the new directory.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use collector_core::Tick;
use collector_core::raw::SourceState;

use crate::collector::CachingCollector;
use crate::engine::Engine;
use crate::fetch::Source;

impl CachingCollector {
    /// Takes over what `former` tracks and has read, its counters, and the state of each backend that both have.
    ///
    /// A reading keeps its age. If its backend is the same one (the same `Arc`), it is refreshed when it would have been;
    /// if only the name is the same, it is last-known-good and due at once. Readings of other backends are not taken
    /// over. Call it before the background worker starts, and stop the worker of `former` before that: a backend that
    /// pushes serves one collector at a time.
    ///
    /// Both need one clock.
    pub fn take_over(&self, former: &Self) {
        self.engine.take_over(&former.engine);
    }
}

impl Engine {
    fn take_over(&self, former: &Self) {
        let now = self.catch_up();
        for source in &self.sources {
            if let Some(before) = former.source(source) {
                source.take_over(before, now);
            }
        }
        self.counters.take_over(&former.counters);
        let ages = former.age_log().clone();
        *self.age_log() = ages;
        if let Some(snapshot) = &self.snapshot {
            // What is in memory is newer than any file.
            snapshot.is_outdated();
        }
        if !self.cache.retains() {
            return;
        }
        for (model, tracked) in former.models.all(|cell| cell.tracked.clone()) {
            let former_record = former.cache.get(&model);
            let states = former_record.iter().flat_map(|record| &record.cold.sources);
            let states: Vec<_> =
                states.filter_map(|state| self.state_after(former, state)).collect();
            let last_read = former.last_read(&model, tracked.since);
            self.models.with(&model, |cell| {
                self.track(cell, &model, last_read);
                let Some(kept) = &mut cell.tracked else { return };
                kept.listed = tracked.listed && self.discovers(&model);
                let stopped = tracked.stopped.iter().cloned();
                kept.stopped.extend(stopped);
                let stopped = &kept.stopped;
                kept.variants.retain(|variant| !stopped.contains(variant));
                if !states.is_empty() && self.cache.get(&model).is_none() {
                    let mut record = self.publisher(cell, &model, now).record(states, last_read);
                    self.number(&mut record, former_record.as_deref());
                    self.put(cell, &Arc::new(record), None);
                }
            });
        }
        self.paces.changed();
    }

    /// The source of the same name.
    fn source(&self, other: &Source) -> Option<&Source> {
        self.sources.iter().find(|source| source.name == other.name)
    }

    /// What a source last answered, as this collector knows it; `None` if it has no source of that name.
    fn state_after(&self, former: &Self, state: &SourceState) -> Option<SourceState> {
        let source = self.sources.iter().find(|source| source.name == state.backend)?;
        if former.source(source).is_some_and(|before| source.is_same(before)) {
            return Some(state.clone());
        }
        // Another server was asked: its last answer is better than nothing, and all that is kept.
        state.answer.as_ref()?;
        Some(SourceState { ended_at: Tick::MIN, error: None, nearest: None, ..state.clone() })
    }
}

impl Source {
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.backend, &other.backend)
    }

    fn take_over(&self, former: &Self, now: Tick) {
        for (count, before) in self.counts().into_iter().zip(former.counts()) {
            count.fetch_add(before.load(Relaxed), Relaxed);
        }
        if self.is_same(former) {
            self.breaker.take_over(&former.breaker, now);
            self.known.take_over(&former.known);
            self.refresh_failures.store(former.refresh_failures.load(Relaxed), Relaxed);
        }
    }
}
