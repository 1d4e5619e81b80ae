// SPDX-License-Identifier: Apache-2.0
//! The facade: what a read does, from the cache to the backend and back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use collector_core::text::counted;
use collector_core::{
    Allocation, Availability, AvailabilityReason, Backend, CollectError, CollectorState, Freshness,
    IntervalError, KnownModel, MetricsCollector, ModelRef, Pace, Reading, Replicas, Scope,
    TrackedModel, Variant, VariantName, VariantRef, duration,
};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, broadcast};

use crate::builder::{Builder, TimingErrors};
use crate::config::CacheConfig;
use crate::engine::Engine;
use crate::fetch::Fetch;
use crate::read::WorkloadHandle;
use crate::read::assess::pending;
use crate::refresh::Worker;
use crate::state::State;

/// A [`MetricsCollector`] over any [`Backend`] and any [`MetricsCache`](collector_core::MetricsCache).
///
/// Reads come from the cache; what the cache does not have is fetched once for all who want it, and
/// what is read is tracked and refreshed in the background once
/// [`start_background_worker`](Self::start_background_worker) was called.
pub struct CachingCollector {
    pub(crate) engine: Arc<Engine>,
    worker: Mutex<Option<Worker>>,
}

/// The background worker was started outside of a tokio runtime.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the background worker needs a tokio runtime: start it from within one")]
pub struct NoRuntime;

impl CachingCollector {
    /// A collector over `backend` with the defaults of [`CacheConfig`].
    ///
    /// # Errors
    /// When the [limits](Backend::limits) of the backend contradict them: a request that may take longer than
    /// an interval.
    pub fn new(backend: impl Backend) -> Result<Self, TimingErrors> {
        Self::builder(Arc::new(backend)).build()
    }

    /// A collector over `backend` that caches and refreshes as `config` says.
    ///
    /// # Errors
    /// When the timings of `config` contradict each other.
    pub fn with_config(backend: impl Backend, config: CacheConfig) -> Result<Self, TimingErrors> {
        Self::builder(Arc::new(backend)).config(config).build()
    }

    /// Builds a collector of chosen parts.
    pub fn builder(backend: Arc<dyn Backend>) -> Builder {
        Builder::new(backend)
    }

    pub(crate) fn of(engine: Engine) -> Self {
        if engine.cache.retains() {
            engine.track_variants();
            tracing::info!(
                ttl = %duration::format(engine.config.ttl),
                cleanupInterval = %duration::format(engine.config.cleanup_interval),
                "Metrics cache enabled"
            );
        } else {
            tracing::info!("Metrics cache disabled");
        }
        Self { engine: Arc::new(engine), worker: Mutex::new(None) }
    }

    /// A handle on the allocation of one variant, or on a model's replicas alone, for a loop that reads them
    /// again and again: see [`WorkloadHandle`].
    pub fn handle(&self, model: ModelRef, variant: Option<VariantName>) -> WorkloadHandle {
        WorkloadHandle::new(Arc::clone(&self.engine), model, variant)
    }

    /// Starts the background refresh of tracked models, [discovery](Builder::discover), and the sweep of what expires.
    /// Does nothing when it runs already. If nothing is cached, it only lists the models of the backends, if that; with a
    /// `fetch_interval` of 0 it also sweeps.
    ///
    /// With `snapshot_path` the first start reads the readings of a former run: milliseconds for a file on a disk, at
    /// most some seconds if the disk hangs.
    ///
    /// # Errors
    /// Outside of a tokio runtime, which it would run on.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing was started.
    pub async fn start_background_worker(&self) -> Result<(), NoRuntime> {
        Handle::try_current().map_err(|_| NoRuntime)?;
        let mut worker = self.worker.lock().await;
        if worker.is_none() && (self.engine.cache.retains() || self.engine.discoverer.is_some()) {
            if self.engine.cache.retains() {
                self.engine.restore().await;
            }
            *worker = Some(Worker::start(&self.engine));
        }
        Ok(())
    }

    /// Stops the background refresh, and waits for fetches in flight and for the snapshot to be written. What is cached
    /// can still be read, and a miss still asks the backend.
    pub async fn stop_background_worker(&self) {
        let worker = self.worker.lock().await.take();
        if let Some(worker) = &worker {
            worker.signal();
        }
        // Misses from here on belong to the next task scope, which is not waited for.
        let ended = std::mem::take(&mut *self.engine.task_scope());
        ended.stopping.cancel();
        if let Some(worker) = worker {
            worker.ended().await;
        }
        ended.tasks.close();
        ended.tasks.wait().await;
    }

    /// Stops tracking a variant and drops its allocation; the model's replicas go with its last
    /// tracked variant. The next read tracks again. It may have left the directory before: what was tracked of
    /// it is remembered. False when nothing was.
    pub fn stop_tracking(&self, variant: &VariantRef) -> bool {
        self.engine.stop_tracking(variant)
    }

    /// Sets how often `model` is refreshed in the background while it is tracked, whatever the
    /// configuration says; `None`: as configured, again. With an interval of its own a value is current
    /// for that long.
    ///
    /// # Errors
    /// For an interval that cannot work with the other timings, and when as many models as may be
    /// tracked have one.
    pub fn set_fetch_interval(
        &self,
        model: &ModelRef,
        interval: Option<Duration>,
    ) -> Result<(), IntervalError> {
        self.engine.set_interval(model, interval)
    }

    /// Removes the entries of a model from the cache, and returns how many there were. A fetch in flight is superseded:
    /// its callers get the answer, and nothing of it is stored.
    pub fn invalidate_cache(&self, model: &ModelRef) -> usize {
        self.engine.invalidate(&Scope::of_model(model))
    }

    /// Removes the entries of a scope, likewise.
    pub fn invalidate_by_prefix(&self, scope: &Scope) -> usize {
        self.engine.invalidate(scope)
    }

    /// How many entries are cached.
    pub fn cache_size(&self) -> usize {
        self.engine.cache.stats().entries
    }

    /// What an age means by the thresholds of this collector.
    pub fn determine_status(&self, age: Duration) -> Freshness {
        self.engine.config.freshness.determine_status(age)
    }

    /// What is tracked, with the readings as they stand now, in order. Does not count as reading.
    pub fn tracked(&self) -> Vec<TrackedModel> {
        self.tracked_where(|_| true)
    }

    /// The same for the models that `is_wanted` selects.
    pub fn tracked_where(&self, is_wanted: impl Fn(&ModelRef) -> bool) -> Vec<TrackedModel> {
        let tracked = self.tracked_names().into_iter();
        tracked.filter(is_wanted).filter_map(|model| self.tracked_model(&model)).collect()
    }

    /// The models that are tracked, in order, without their readings.
    pub fn tracked_names(&self) -> Vec<ModelRef> {
        self.engine.models.tracked()
    }

    /// The same of one model; `None` when it is not tracked.
    pub fn tracked_model(&self, model: &ModelRef) -> Option<TrackedModel> {
        let stopped = |cell: &State<Fetch>| Some(cell.tracked.as_ref()?.stopped.clone());
        let stopped = self.engine.models.peek(model, stopped).flatten()?;
        let variants = self.engine.directory.variants_of(model);
        let kept = variants.iter().filter(|variant| !stopped.contains(&variant.name));
        Some(TrackedModel {
            model: model.clone(),
            replicas: self.engine.peek(model, &()),
            allocations: kept
                .map(|variant| (variant.name.clone(), self.engine.peek(model, &variant.name)))
                .collect(),
        })
    }

    /// The variants of a model, in the order of the directory.
    pub fn variants_of(&self, model: &ModelRef) -> Vec<VariantName> {
        let variants = self.engine.directory.variants_of(model);
        variants.iter().map(|variant| variant.name.clone()).collect()
    }

    /// Every variant that the directory has.
    pub fn variants(&self) -> Vec<Arc<Variant>> {
        self.engine.directory.variants()
    }

    /// The models whose record is replaced, or which are tracked or untracked, from now on. Most of these are no change
    /// of a value: compare [generations](Reading::generation). A receiver that lags behind by thousands of changes
    /// should look at all [tracked](Self::tracked) models.
    pub fn follow(&self) -> broadcast::Receiver<ModelRef> {
        self.engine.models.follow()
    }

    /// Returns a number that follows on all generations so far, and is given to no value: for an event that belongs
    /// among them.
    pub fn next_generation(&self) -> u64 {
        self.engine.next_generation()
    }

    /// The replica metrics of a model as they stand now, without waiting and without asking a backend. Does not count
    /// as reading.
    ///
    /// # Errors
    /// As [`collect_replica_metrics`](MetricsCollector::collect_replica_metrics), and
    /// [`Pending`](CollectError::Pending) if no fetch of it has ended.
    pub fn peek_replicas(&self, model: &ModelRef) -> Result<Reading<Replicas>, CollectError> {
        self.engine.peek(model, &())
    }

    /// How long a value of `model` counts as current at present, and why.
    pub fn pace(&self, model: &ModelRef) -> Pace {
        self.engine.shown_pace(model)
    }

    /// How the collector and its backends are doing.
    pub fn state(&self) -> CollectorState {
        let engine = &self.engine;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let now = engine.clock.now();
        let backends: Vec<_> = engine.sources.iter().map(|source| source.state(now)).collect();
        // What is not asked in the background, and does not push, has no cycles to wait for.
        let asks = !engine.config.fetch_interval.is_zero();
        let cycling = engine.sources.iter().filter(|source| asks || source.pushes());
        let cycles = cycling.map(|source| source.cycles.load(Ordering::Relaxed)).min();
        let mut state = CollectorState::new(backends, engine.cache.stats());
        state.hits = engine.counters.hits.total();
        state.misses = count(&engine.counters.misses);
        state.stale_serves = engine.counters.stale_serves.total();
        state.coalesced_misses = count(&engine.counters.coalesced_misses);
        state.background_refreshes = count(&engine.counters.background_refreshes);
        state.panics = count(&engine.counters.panics);
        state.cycles = cycles.unwrap_or(0);
        state.tracked = engine.models.tracked_count();
        state.discovery = engine.discovery_state();
        state.snapshot = engine.snapshot.as_ref().map(|snapshot| snapshot.state(now));
        state
    }

    /// Distinguishes a wrong name from a variant without pods.
    fn check_variant(&self, model: &ModelRef, variant: &VariantName) -> Result<(), CollectError> {
        let known = self.engine.directory.variants_of(model);
        if known.iter().any(|known| known.name == *variant) {
            return Ok(());
        }
        Err(CollectError::UnknownVariant {
            model: model.clone(),
            variant: variant.clone(),
            known: known.iter().map(|known| known.name.clone()).collect(),
        })
    }
}

#[async_trait]
impl MetricsCollector for CachingCollector {
    async fn collect_replica_metrics(
        &self,
        model: &ModelRef,
    ) -> Result<Reading<Replicas>, CollectError> {
        match self.engine.hit(model, &()) {
            Some(reading) => Ok(reading),
            // In a box of its own: else each hit would pay for a future of its size.
            None => Box::pin(self.engine.ask(model, &())).await,
        }
    }

    async fn collect_variant_metrics(
        &self,
        model: &ModelRef,
        variant: &VariantName,
    ) -> Result<Reading<Replicas>, CollectError> {
        self.check_variant(model, variant)?;
        let reading = self.collect_replica_metrics(model).await?;
        Ok(reading.narrowed_to(variant, &self.engine.config.freshness))
    }

    async fn collect_allocation(
        &self,
        model: &ModelRef,
        variant: &VariantName,
    ) -> Result<Reading<Allocation>, CollectError> {
        if let Some(reading) = self.engine.hit(model, variant) {
            return Ok(reading);
        }
        self.check_variant(model, variant)?;
        self.engine.models.with(model, |cell| {
            // It may have been stopped: who reads it wants it back.
            if let Some(tracked) = &mut cell.tracked
                && tracked.stopped.remove(variant)
            {
                tracked.variants.insert(variant.clone());
            }
        });
        Box::pin(self.engine.ask(model, variant)).await
    }

    async fn collect_many(
        &self,
        models: &[ModelRef],
    ) -> Vec<Result<Reading<Replicas>, CollectError>> {
        let mut readings: Vec<_> = models.iter().map(|model| self.engine.hit(model, &())).collect();
        let missed = readings.iter().zip(models).filter(|(reading, _)| reading.is_none());
        let missed: Vec<_> = missed.map(|(_, model)| model).collect();
        let asked = if missed.is_empty() {
            Vec::new()
        } else {
            Box::pin(self.engine.ask_all(&missed, &())).await
        };
        let mut asked = asked.into_iter();
        let mut next_asked = |model| asked.next().unwrap_or_else(|| Err(pending(model)));
        let read = readings.drain(..).zip(models);
        read.map(|(reading, model)| reading.map_or_else(|| next_asked(model), Ok)).collect()
    }

    fn cached_replicas(&self, model: &ModelRef) -> Option<Reading<Replicas>> {
        self.engine.hit(model, &())
    }

    fn cached_allocation(
        &self,
        model: &ModelRef,
        variant: &VariantName,
    ) -> Option<Reading<Allocation>> {
        self.engine.hit(model, variant)
    }

    async fn validate_metrics_availability(&self, model: &ModelRef) -> Availability {
        let read = self.collect_replica_metrics(model).await;
        let reason = match &read {
            Ok(_) => AvailabilityReason::MetricsFound,
            Err(CollectError::Missing { .. }) => AvailabilityReason::MetricsMissing,
            Err(CollectError::Unavailable { .. }) => AvailabilityReason::MetricsStale,
            Err(CollectError::TooManyModels { .. }) => AvailabilityReason::TooManyModels,
            Err(CollectError::Pending { .. }) => AvailabilityReason::MetricsPending,
            Err(_) => AvailabilityReason::BackendError,
        };
        let backend = match &read {
            Ok(reading) => reading.value().backend.clone(),
            Err(CollectError::Backend(error)) => error.backend().clone(),
            Err(_) => self.engine.names[0].clone(),
        };
        let message = match &read {
            Ok(reading) => {
                let replicas = reading.value().replicas.len();
                let age = humantime::format_duration(Duration::from_secs(reading.age().as_secs()));
                let freshness = reading.freshness();
                format!(
                    "{model} has {}; the oldest reading is {age} old ({freshness})",
                    counted(replicas, "replica", "replicas")
                )
            }
            Err(error @ CollectError::Missing { .. }) => format!(
                "{error}; check that the model id is the value of the label model_name, that the \
                 model servers run in this namespace, and that they are scraped (a ServiceMonitor \
                 or PodMonitor that selects them)"
            ),
            Err(error @ CollectError::Unavailable { .. }) => format!(
                "{error}; check that the model's pods run and that their targets are up in the \
                 backend"
            ),
            Err(error) => error.to_string(),
        };
        let available = reason == AvailabilityReason::MetricsFound;
        Availability { available, reason, backend, message }
    }

    async fn list_models(&self) -> Result<Vec<KnownModel>, CollectError> {
        Ok(self.engine.list_models().await?)
    }
}
