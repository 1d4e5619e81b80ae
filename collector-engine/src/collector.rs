//! The facade: what a read does, from the cache to the backend and back.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{
    Allocation, Availability, AvailabilityReason, Backend, CollectError, CollectorState, ErrorKind,
    Freshness, KeyRef, KnownModel, MetricsCollector, ModelRef, Reading, Replicas, Scope, Source,
    Stored, TrackedModel, VariantName, VariantRef, duration,
};

use crate::assess::{Assessment, Kept, assess, conclude};
use crate::builder::Builder;
use crate::builder::TimingErrors;
use crate::config::CacheConfig;
use crate::engine::Engine;
use crate::flight::Landing;
use crate::worker::Worker;

/// A [`MetricsCollector`] over any [`Backend`] and any [`MetricsCache`](collector_core::MetricsCache).
///
/// Reads come from the cache; what the cache does not have is fetched once for all who want it, and
/// what is read is tracked and refreshed in the background once
/// [`start_background_worker`](MetricsCollector::start_background_worker) was called.
pub struct CachingCollector {
    engine: Arc<Engine>,
    worker: Mutex<Option<Worker>>,
}

impl CachingCollector {
    /// A collector over `backend` with the defaults of [`CacheConfig`].
    pub fn new(backend: impl Backend) -> Self {
        Builder::new(Arc::new(backend)).assemble()
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
            engine.tracker.follow(&*engine.directory, engine.clock.now());
            tracing::info!(
                TTL = %duration::format(engine.config.ttl),
                cleanupInterval = %duration::format(engine.config.cleanup_interval),
                "Metrics cache enabled"
            );
        } else {
            tracing::info!("Metrics cache disabled");
        }
        Self { engine: Arc::new(engine), worker: Mutex::new(None) }
    }

    /// One read: cache first. `may_ask` is consulted before the backend is.
    async fn read<T: Kept>(
        &self,
        model: &ModelRef,
        key: KeyRef<'_>,
        may_ask: impl FnOnce() -> Result<(), CollectError> + Send,
        landed: impl Fn(&Landing) -> Option<Arc<Stored>> + Send,
    ) -> Result<Reading<T>, CollectError> {
        match self.cached(key) {
            // Past its ttl, and its refresh has just failed: the next one waits a moment.
            Some(Assessment::Serve(reading)) if reading.source() == Source::LastKnownGood => {
                self.engine.counters.stale_serves.fetch_add(1, Ordering::Relaxed);
                Ok(reading)
            }
            Some(Assessment::Serve(reading)) => {
                self.engine.counters.hits.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(modelID = ?model.model, namespace = ?model.namespace, "Cache hit");
                Ok(reading)
            }
            Some(Assessment::ServeAndRefresh(reading)) => {
                self.engine.counters.stale_serves.fetch_add(1, Ordering::Relaxed);
                self.refresh(model);
                Ok(reading)
            }
            Some(Assessment::Missing(nearest)) => {
                Err(CollectError::Missing { model: model.clone(), nearest })
            }
            Some(Assessment::Ask) | None => {
                may_ask()?;
                self.ask(model, key, landed).await
            }
        }
    }

    fn cached<T: Kept>(&self, key: KeyRef<'_>) -> Option<Assessment<T>> {
        let now = self.engine.clock.now();
        let mut assessment = None;
        self.engine.cache.visit(key, now, &mut |stored| {
            assessment = Some(assess(stored, &self.engine.config.freshness, now));
        });
        assessment
    }

    /// Starts a refresh that nobody waits for, unless one is under way.
    fn refresh(&self, model: &ModelRef) {
        let engine = &self.engine;
        let joined = engine.flights.join(model, false, || None::<()>);
        if joined.is_ok_and(|joined| joined.opens_boarding) {
            engine.open_boarding();
        }
    }

    /// Waits for the model's fetch: the one under way, or a new one.
    async fn ask<T: Kept>(
        &self,
        model: &ModelRef,
        key: KeyRef<'_>,
        landed: impl Fn(&Landing) -> Option<Arc<Stored>> + Send,
    ) -> Result<Reading<T>, CollectError> {
        let engine = &self.engine;
        if engine.cache.retains()
            && engine.tracker.len() >= engine.max_tracked
            && !engine.tracker.contains(model)
        {
            return Err(CollectError::TooManyModels { limit: engine.max_tracked });
        }
        tracing::debug!(modelID = ?model.model, namespace = ?model.namespace, "Cache miss");
        engine.counters.misses.fetch_add(1, Ordering::Relaxed);
        let joined = engine.flights.join(model, true, || match self.cached(key)? {
            Assessment::Serve(reading) | Assessment::ServeAndRefresh(reading) => Some(Ok(reading)),
            Assessment::Missing(nearest) => {
                Some(Err(CollectError::Missing { model: model.clone(), nearest }))
            }
            Assessment::Ask => None,
        });
        let mut joined = match joined {
            Ok(joined) => joined,
            Err(arrived_meanwhile) => return arrived_meanwhile,
        };
        if joined.coalesced {
            engine.counters.coalesced_misses.fetch_add(1, Ordering::Relaxed);
        }
        if joined.opens_boarding {
            engine.open_boarding();
        }
        let wait = joined.landing.wait_for(Option::is_some);
        let error = match tokio::time::timeout(engine.call_limit, wait).await {
            Ok(Ok(landing)) => {
                let stored = landing.as_ref().and_then(&landed);
                drop(landing);
                return match stored {
                    Some(stored) => {
                        let now = engine.clock.now();
                        conclude(model, &stored, &engine.config.freshness, now, true)
                    }
                    // Stopped being tracked while the fetch was under way.
                    None => Err(CollectError::Pending { model: model.clone() }),
                };
            }
            // Whoever waits is never given up: the task of the fetch is gone.
            Ok(Err(_gone)) => engine
                .source
                .error(ErrorKind::Panicked, model.to_string())
                .with_detail("the fetch ended without an answer"),
            Err(_elapsed) => {
                let limit = humantime::format_duration(engine.call_limit);
                engine
                    .source
                    .error(ErrorKind::Timeout, model.to_string())
                    .with_detail(format!("no answer within {limit}"))
                    .with_remedy("is the server overloaded? If it needs longer, raise its timeout")
            }
        };
        let cause = Arc::new(error);
        // A value that is too old to be used still says since when there is nothing newer.
        match self.peek::<T>(model, key) {
            Err(CollectError::Unavailable { model, age, threshold, .. }) => {
                Err(CollectError::Unavailable { model, age, threshold, cause: Some(cause) })
            }
            _ => Err(CollectError::Backend(cause)),
        }
    }

    /// The variants of a model by name, to tell a wrong name from one that has no pods.
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

    /// An entry as it stands, without asking anybody and without counting as a read.
    fn peek<T: Kept>(&self, model: &ModelRef, key: KeyRef<'_>) -> Result<Reading<T>, CollectError> {
        match self.engine.cache.peek(key) {
            Some(peeked) => {
                let now = self.engine.clock.now();
                conclude(model, &peeked.stored, &self.engine.config.freshness, now, false)
            }
            None => Err(CollectError::Pending { model: model.clone() }),
        }
    }

    fn availability(&self, reason: AvailabilityReason, message: String) -> Availability {
        Availability {
            available: reason == AvailabilityReason::MetricsFound,
            reason,
            backend: self.engine.source.name.clone(),
            message,
        }
    }
}

#[async_trait]
impl MetricsCollector for CachingCollector {
    async fn collect_replica_metrics(
        &self,
        model: &ModelRef,
    ) -> Result<Reading<Replicas>, CollectError> {
        let landed = |landing: &Landing| Some(Arc::clone(&landing.replicas));
        self.read(model, KeyRef::replicas(model), || Ok(()), landed).await
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
        let may_ask = || {
            self.check_variant(model, variant)?;
            // It may have been stopped; whoever reads it wants it back.
            self.engine.tracker.resume(model, variant);
            Ok(())
        };
        let landed = |landing: &Landing| {
            let found = landing.allocations.iter().find(|(name, _)| name == variant);
            found.map(|(_, stored)| Arc::clone(stored))
        };
        self.read(model, KeyRef::allocation(model, variant), may_ask, landed).await
    }

    async fn validate_metrics_availability(&self, model: &ModelRef) -> Availability {
        match self.collect_replica_metrics(model).await {
            Ok(reading) => {
                let replicas = reading.value().replicas.len();
                let age = humantime::format_duration(Duration::from_secs(reading.age().as_secs()));
                let message = format!(
                    "{model} has {replicas} replicas; the oldest reading is {age} old ({})",
                    reading.freshness()
                );
                self.availability(AvailabilityReason::MetricsFound, message)
            }
            Err(error @ CollectError::Missing { .. }) => self.availability(
                AvailabilityReason::MetricsMissing,
                format!(
                    "{error}; check that the model id is the value of the label model_name, that \
                     the model servers run in this namespace, and that they are scraped (a \
                     ServiceMonitor or PodMonitor that selects them)"
                ),
            ),
            Err(error @ CollectError::Unavailable { .. }) => self.availability(
                AvailabilityReason::MetricsStale,
                format!(
                    "{error}; check that the model's pods run and that their targets are up in the \
                     backend"
                ),
            ),
            Err(error) => {
                let reason = match error {
                    CollectError::TooManyModels { .. } => AvailabilityReason::TooManyModels,
                    CollectError::Pending { .. } => AvailabilityReason::MetricsPending,
                    _ => AvailabilityReason::BackendError,
                };
                self.availability(reason, error.to_string())
            }
        }
    }

    async fn list_models(&self) -> Result<Vec<KnownModel>, CollectError> {
        let engine = &self.engine;
        let max_age =
            if engine.cache.retains() { engine.config.missing_ttl } else { Duration::ZERO };
        let listing =
            engine.known.models(&engine.source, &*engine.clock, max_age, engine.call_limit).await;
        Ok(listing.map_err(CollectError::Backend)?.to_vec())
    }

    fn start_background_worker(&self) {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.is_none() && self.engine.cache.retains() {
            *worker = Some(Worker::start(&self.engine));
        }
    }

    async fn stop_background_worker(&self) {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(worker) = &worker {
            worker.signal();
        }
        // Misses from here on belong to the next shift, which is not waited for.
        let ended = std::mem::take(&mut *self.engine.shift());
        ended.stopping.cancel();
        if let Some(worker) = worker {
            worker.ended().await;
        }
        ended.tasks.close();
        ended.tasks.wait().await;
    }

    fn stop_tracking(&self, variant: &VariantRef) {
        let variants = self.engine.directory.variants();
        let Some(known) = variants.iter().find(|known| known.reference() == *variant) else {
            tracing::debug!(%variant, "Not tracked, so not stopped");
            return;
        };
        let of_model = Scope::of_model(&known.model);
        let variants = self.engine.directory.variants_of(&known.model);
        if self.engine.tracker.stop(&known.model, &known.name, &variants) {
            self.engine.invalidate(&of_model);
        } else {
            self.engine.invalidate(&of_model.variant(known.name.as_str()));
        }
    }

    fn invalidate_cache(&self, model: &ModelRef) -> usize {
        self.engine.invalidate(&Scope::of_model(model))
    }

    fn invalidate_by_prefix(&self, scope: &Scope) -> usize {
        self.engine.invalidate(scope)
    }

    fn cache_size(&self) -> usize {
        self.engine.cache.len()
    }

    fn determine_status(&self, age: Duration) -> Freshness {
        self.engine.config.freshness.determine_status(age)
    }

    fn tracked(&self) -> Vec<TrackedModel> {
        let tracked = self.engine.tracker.all().into_iter();
        tracked
            .map(|(model, tracked)| TrackedModel {
                replicas: self.peek(&model, KeyRef::replicas(&model)),
                allocations: self
                    .engine
                    .directory
                    .variants_of(&model)
                    .iter()
                    .filter(|variant| !tracked.stopped.contains(&variant.name))
                    .map(|variant| {
                        let key = KeyRef::allocation(&model, &variant.name);
                        (variant.name.clone(), self.peek(&model, key))
                    })
                    .collect(),
                model,
            })
            .collect()
    }

    fn state(&self) -> CollectorState {
        let engine = &self.engine;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let backends = vec![engine.source.state(engine.clock.now())];
        let mut state = CollectorState::new(backends, engine.cache.stats());
        state.hits = count(&engine.counters.hits);
        state.misses = count(&engine.counters.misses);
        state.stale_serves = count(&engine.counters.stale_serves);
        state.coalesced_misses = count(&engine.counters.coalesced_misses);
        state.background_refreshes = count(&engine.counters.background_refreshes);
        state.cycles = count(&engine.counters.cycles);
        state.tracked = engine.tracker.len();
        state
    }
}
