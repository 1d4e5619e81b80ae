// SPDX-License-Identifier: Apache-2.0
//! What a reconcile loop holds on to: one workload, found once and read again and again.

use std::sync::Arc;

use collector_core::Part;
use collector_core::{Allocation, ModelRecord, ModelRef, Reading, Replicas, VariantName};

use super::assess::label;
use crate::engine::Engine;
use crate::fetch::Fetch;
use crate::state::Cell;

/// One workload's cached readings, for a loop that reads them again and again.
///
/// A read costs some 10 ns while nothing new was stored: it reads the clock and compares a version. The handle outlives
/// the records: after an invalidation it shows what is stored next. It never asks the backend by itself; where it has
/// nothing, collect:
///
/// ```
/// # use collector_core::{MetricsCollector, ModelRef};
/// # use collector_engine::CachingCollector;
/// # async fn reconcile(collector: CachingCollector) -> Result<(), collector_core::CollectError> {
/// let model = ModelRef::new("org/model", "prod");
/// let mut workload = collector.handle(model.clone(), None);
/// # for _ in 0..2 {
/// let queued = |replicas: &collector_core::Replicas| {
///     replicas.replicas.iter().filter_map(|replica| replica.queue_length).sum::<u64>()
/// };
/// let queued = match workload.replicas() {
///     Some(reading) => queued(reading.value()),
///     None => queued(collector.collect_replica_metrics(&model).await?.value()),
/// };
/// # let _ = queued;
/// # }
/// # Ok(())
/// # }
/// ```
pub struct WorkloadHandle {
    engine: Arc<Engine>,
    model: ModelRef,
    variant: Option<VariantName>,
    replicas: Held<Replicas>,
    allocation: Held<Allocation>,
}

impl WorkloadHandle {
    pub(crate) fn new(engine: Arc<Engine>, model: ModelRef, variant: Option<VariantName>) -> Self {
        Self { engine, model, variant, replicas: Held::default(), allocation: Held::default() }
    }

    /// The model.
    pub fn model(&self) -> &ModelRef {
        &self.model
    }

    /// What [`cached_replicas`](collector_core::MetricsCollector::cached_replicas) returns, labelled for
    /// this moment; clone the reading to keep it.
    pub fn replicas(&mut self) -> Option<&Reading<Replicas>> {
        self.replicas.read(&self.engine, &self.model, &())
    }

    /// What [`cached_allocation`](collector_core::MetricsCollector::cached_allocation) returns, likewise;
    /// `None` also for a handle that was made without a variant.
    pub fn allocation(&mut self) -> Option<&Reading<Allocation>> {
        self.allocation.read(&self.engine, &self.model, self.variant.as_ref()?)
    }
}

impl std::fmt::Debug for WorkloadHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkloadHandle").field("model", &self.model).finish_non_exhaustive()
    }
}

/// The record that was last read, and its reading.
struct Held<T: Part> {
    last: Option<Last>,
    reading: Option<Reading<T>>,
}

/// A record, and the cell whose version says whether it is still the newest.
struct Last {
    record: Arc<ModelRecord>,
    cell: Arc<Cell<Fetch>>,
    version: u64,
}

impl<T: Part> Default for Held<T> {
    fn default() -> Self {
        Self { last: None, reading: None }
    }
}

impl<T: Part> Held<T> {
    fn read(
        &mut self,
        engine: &Arc<Engine>,
        model: &ModelRef,
        name: &T::Name,
    ) -> Option<&Reading<T>> {
        let now = engine.now();
        let is_newest = |last: &&Last| last.cell.version() == Some(last.version);
        let Some(last) = self.last.as_ref().filter(is_newest) else {
            return self.look_up(engine, model, name);
        };
        if self.reading.is_none() || now >= last.record.deadlines.refresh_after {
            // There was nothing to read, or a refresh is due, which a read starts.
            return self.look_up(engine, model, name);
        }
        let reading = self.reading.as_mut()?;
        last.record.touch(now);
        let oldest = reading.value().oldest();
        reading.relabel(label(&last.record, oldest, &engine.config.freshness, now)?);
        engine.count_served(model, reading.source());
        Some(reading)
    }

    #[cold]
    fn look_up(
        &mut self,
        engine: &Arc<Engine>,
        model: &ModelRef,
        name: &T::Name,
    ) -> Option<&Reading<T>> {
        // The version is read before the record: the other way round an old record could pass for the newest.
        let cell = engine.models.cell(model);
        let version = cell.as_ref().and_then(|cell| cell.version());
        let record = engine.cache.get(model);
        self.reading = match &record {
            Some(record) => engine.read(record, name, engine.clock.now()),
            None => None,
        };
        self.last = match (record, cell, version) {
            (Some(record), Some(cell), Some(version)) => Some(Last { record, cell, version }),
            _ => None,
        };
        self.reading.as_ref()
    }
}
