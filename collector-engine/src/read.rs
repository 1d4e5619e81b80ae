// SPDX-License-Identifier: Apache-2.0
//! How readings are made of records: from the cache, through a handle, or after a fetch.

mod ask;
pub(crate) mod assess;
mod handle;

use std::sync::Arc;

use collector_core::Part;
use collector_core::{ModelRecord, ModelRef, Reading, Source, Tick};

use crate::engine::Engine;
use assess::label;

pub use handle::WorkloadHandle;

impl Engine {
    /// The reading of what is cached and young enough to be used. Past the ttl it starts a refresh.
    #[inline]
    pub(crate) fn hit<T: Part>(
        self: &Arc<Self>,
        model: &ModelRef,
        name: &T::Name,
    ) -> Option<Reading<T>> {
        let record = self.cache.get(model)?;
        self.read(&record, name, self.now())
    }

    /// The reading of a record that is young enough to be used. Counts as a read.
    #[inline]
    fn read<T: Part>(
        self: &Arc<Self>,
        record: &ModelRecord,
        name: &T::Name,
        now: Tick,
    ) -> Option<Reading<T>> {
        record.touch(now);
        let (value, index) = T::find(record, name)?;
        let label = label(record, T::of(value, index).oldest(), &self.config.freshness, now)?;
        self.count_served(&record.model, label.source());
        if now >= record.deadlines.refresh_after {
            self.refresh(record, now);
        }
        Some(Reading::in_model(Arc::clone(value), index, label))
    }

    /// A reading was served from the cache.
    #[inline]
    fn count_served(&self, model: &ModelRef, source: Source) {
        if source == Source::LastKnownGood {
            self.counters.stale_serves.add();
        } else {
            self.counters.hits.add();
            tracing::debug!(model = ?model.model, namespace = ?model.namespace, "Cache hit");
        }
    }
}
