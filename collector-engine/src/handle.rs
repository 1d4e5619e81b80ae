//! What a reconcile loop holds on to: one workload, found once and read again and again.

use std::sync::Arc;

use collector_cache::{Handle, Shown};
use collector_core::{
    Allocation, CacheKey, ModelRef, Reading, Replicas, Stored, Tick, VariantName,
};

use crate::assess::{Kept, Terms, usable};
use crate::cache::Cache;
use crate::engine::Engine;

/// One workload's cached readings, for a loop that reads them again and again.
///
/// A read is a look at the clock and a comparison while nothing new was stored, some 10 ns, and shares
/// nothing that readers on other cores write. The handle outlives its entries: after an invalidation it
/// shows what is stored next. It never asks the backend by itself; where it has nothing, collect:
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
    replicas: Place<Replicas>,
    allocation: Option<Place<Allocation>>,
}

impl WorkloadHandle {
    pub(crate) fn new(engine: Arc<Engine>, model: ModelRef, variant: Option<VariantName>) -> Self {
        let replicas = Place::new(&engine, CacheKey::replicas(&model));
        let allocation = variant
            .map(|variant| Place::new(&engine, CacheKey::allocation(&model, &variant, None)));
        Self { engine, model, replicas, allocation }
    }

    /// The model.
    pub fn model(&self) -> &ModelRef {
        &self.model
    }

    /// What [`cached_replicas`](collector_core::MetricsCollector::cached_replicas) says, labelled for
    /// this moment; clone the reading to keep it.
    pub fn replicas(&mut self) -> Option<&Reading<Replicas>> {
        self.replicas.read(&self.engine, &self.model)
    }

    /// What [`cached_allocation`](collector_core::MetricsCollector::cached_allocation) says, likewise;
    /// `None` also for a handle that was made without a variant.
    pub fn allocation(&mut self) -> Option<&Reading<Allocation>> {
        self.allocation.as_mut()?.read(&self.engine, &self.model)
    }
}

impl std::fmt::Debug for WorkloadHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkloadHandle").field("model", &self.model).finish_non_exhaustive()
    }
}

/// One key, and what it last showed.
struct Place<T> {
    key: CacheKey,
    /// `None` for a cache that has no handles.
    handle: Option<Handle>,
    reading: Option<Reading<T>>,
}

impl<T: Kept> Place<T> {
    fn new(engine: &Engine, key: CacheKey) -> Self {
        let handle = match &engine.cache {
            Cache::Memory(cache) => Some(cache.handle(key.clone())),
            Cache::Other(_) => None,
        };
        Self { key, handle, reading: None }
    }

    fn read(&mut self, engine: &Arc<Engine>, model: &ModelRef) -> Option<&Reading<T>> {
        let now = engine.clock.now();
        let Self { key, handle, reading } = self;
        let mut look = |stored: &Stored, shown| {
            show(engine, reading, stored, shown, now);
            now >= stored.refresh_after
        };
        let is_due = match (handle, &engine.cache) {
            (Some(handle), Cache::Memory(cache)) => {
                handle.read(cache, now).map(|(stored, shown)| look(stored, shown))
            }
            (_, cache) => cache.read(key.as_ref(), now, |stored| look(stored, Shown::New)),
        };
        let Some(is_due) = is_due else {
            self.reading = None;
            return None;
        };
        let reading = self.reading.as_ref()?;
        engine.readers.own().served(model, reading.source());
        if is_due {
            engine.refresh(model, self.key.as_ref(), now);
        }
        Some(reading)
    }
}

/// Labels what is shown again, and reads what is new.
fn show<T: Kept>(
    engine: &Engine,
    reading: &mut Option<Reading<T>>,
    stored: &Stored,
    shown: Shown,
    now: Tick,
) {
    let thresholds = &engine.config.freshness;
    match reading {
        Some(same) if shown == Shown::Again => {
            match Terms::of(stored, &**same.value()).label(thresholds, now) {
                Some(label) => same.relabel(label),
                None => *reading = None,
            }
        }
        _ => *reading = usable(stored, thresholds, now),
    }
}
