// SPDX-License-Identifier: Apache-2.0
//! Publishing: makes the record of a model after a fetch or a push, and stores it.
//!
//! Functions that are given a cell run under its lock.

use std::sync::Arc;

use collector_core::{ModelRecord, ModelRef, Outcome, Tick};

use super::{Fetched, Publisher};
use crate::engine::Engine;
use crate::fetch::{Fetch, Source};
use crate::state::State;

impl Engine {
    /// What makes the records of a model as things stand.
    pub(crate) fn publisher<'a>(
        &'a self,
        cell: &'a State<Fetch>,
        model: &'a ModelRef,
        now: Tick,
    ) -> Publisher<'a> {
        Publisher {
            config: &self.config,
            pace: self.pace_in(cell, model),
            directory: &*self.directory,
            sources: &self.names,
            model,
            tracked: cell.tracked.as_ref(),
            now,
        }
    }

    /// Publishes what a source has answered, and stores it unless it may not be stored or nobody wants it any more.
    /// Called under the lock of the model's cell.
    pub(crate) fn publish(
        &self,
        cell: &mut State<Fetch>,
        source: &Source,
        model: &ModelRef,
        fetched: Fetched,
        awaited: bool,
        may_store: bool,
    ) -> Arc<ModelRecord> {
        let now = self.clock.now();
        let outcome = fetched.outcome();
        let before = if may_store { self.cache.get(model) } else { None };
        // Collecting tracks, before the record is made: it says whether it is tracked.
        if may_store && awaited && outcome == Outcome::Found && self.cache.retains() {
            self.track(cell, model, now);
        }
        let last_read = match (&before, &cell.tracked) {
            (Some(before), _) => before.last_read(),
            // The background is no reader: else a model without a record would never look idle.
            (None, Some(tracked)) if !awaited => tracked.since,
            (None, _) => now,
        };
        let states = before.as_ref().map(|before| before.cold.sources.as_slice());
        let publisher = self.publisher(cell, model, now);
        let states = states.unwrap_or_default();
        let mut record = publisher.publish(&source.name, fetched, states, last_read);
        if let Some(before) = before.as_deref().filter(|_| outcome != Outcome::Found) {
            record = record.still_without(before);
        }
        self.number(&mut record, before.as_deref());
        let record = Arc::new(record);
        let tracked = cell.tracked.is_some();
        let wanted = may_store
            && match outcome {
                // A model that is neither read nor tracked was stopped meanwhile.
                Outcome::Found => tracked,
                Outcome::Missing => tracked || before.is_some() || awaited,
                // A failed fetch of a model that was never seen is not kept, unless
                // another source may still have it.
                Outcome::Failed => {
                    tracked || before.is_some() || (awaited && self.sources.len() > 1)
                }
            };
        if wanted {
            self.put(cell, &record, before.as_deref());
            self.learn(cell, source, outcome, &record, now);
        }
        let unclaimed = unclaimed(&record);
        if unclaimed > 0 && outcome == Outcome::Found {
            let namespace = model.namespace.to_string();
            metrics::counter!(
                "wva_pod_mapping_miss_total", "namespace" => namespace, "reason" => "no_variant"
            )
            .increment(unclaimed as u64);
        }
        record
    }

    /// Tracks a model that was read or discovered, with its variants, unless the limit is reached.
    pub(crate) fn track(&self, cell: &mut State<Fetch>, model: &ModelRef, now: Tick) {
        if cell.tracked.is_some() {
            return;
        }
        let variants = self.directory.variants_of(model);
        self.models.track(cell, now, self.max_tracked);
        if let Some(tracked) = &mut cell.tracked {
            tracked.variants = variants.iter().map(|variant| variant.name.clone()).collect();
        }
    }

    /// Replaces the record `before`. Called under the lock of the model's cell.
    pub(crate) fn put(
        &self,
        cell: &mut State<Fetch>,
        record: &Arc<ModelRecord>,
        before: Option<&ModelRecord>,
    ) {
        cell.record_changed = true;
        self.cache.put(Arc::clone(record));
        if let Some(before) = before {
            // Reads of the former record while this one was made count as well.
            record.touch(before.last_read());
        }
    }

    /// Makes the records of tracked models again, because pods may belong to other variants now: each in one step.
    pub(crate) fn publish_again(&self) {
        let now = self.clock.now();
        for model in self.models.tracked() {
            self.models.with(&model, |cell| {
                let Some(before) = self.cache.get(&model).filter(|_| cell.tracked.is_some()) else {
                    return;
                };
                let states = before.cold.sources.clone();
                let mut record =
                    self.publisher(cell, &model, now).record(states, before.last_read());
                self.number(&mut record, Some(&before));
                self.put(cell, &Arc::new(record.still_without(&before)), Some(&before));
            });
        }
    }
}

/// How many pods no variant claims.
pub(super) fn unclaimed(record: &ModelRecord) -> usize {
    let rows = record.value.iter().flat_map(|value| &value.replicas.replicas);
    rows.filter(|row| row.variant_name.is_none()).count()
}
