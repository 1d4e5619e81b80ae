// SPDX-License-Identifier: Apache-2.0
//! A collector whose answers a test scripts: for tests of code that decides by readings.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use collector_core::raw::Label;
use collector_core::{
    Allocation, Availability, AvailabilityReason, Clock, CollectError, FreshnessThresholds,
    KnownModel, MetricsCollector, ModelRef, ModelValue, Nearest, Part, Reading, Replicas, Source,
    VariantName,
};

/// A [`MetricsCollector`] without a backend: it has the values and errors that a test sets, whose ages its clock
/// determines. A model of which nothing was set is missing.
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// use collector_core::{Clock as _, Freshness, ManualClock, MetricsCollector as _, ModelRef, ModelValue, Replicas};
/// use collector_testkit::FakeCollector;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let clock = Arc::new(ManualClock::new());
/// let collector = FakeCollector::new(clock.clone());
/// let model = ModelRef::new("org/chat", "prod");
/// assert!(collector.collect_replica_metrics(&model).await.is_err());
///
/// let replicas = Replicas::new(model.clone(), Vec::new(), "test".into(), clock.now());
/// collector.serve(ModelValue::new(replicas, Vec::new()));
/// clock.advance(Duration::from_secs(90));
/// let reading = collector.collect_replica_metrics(&model).await.unwrap();
/// assert_eq!(reading.freshness(), Freshness::Stale);
/// # });
/// ```
pub struct FakeCollector {
    clock: Arc<dyn Clock>,
    thresholds: FreshnessThresholds,
    models: Mutex<HashMap<ModelRef, Result<Arc<ModelValue>, CollectError>>>,
}

impl FakeCollector {
    /// A collector that has nothing, with the default thresholds.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, thresholds: FreshnessThresholds::default(), models: Mutex::default() }
    }

    /// Reads of the value's model return it from now on.
    pub fn serve(&self, value: ModelValue) {
        self.models().insert(value.replicas.model.clone(), Ok(Arc::new(value)));
    }

    /// Reads of the model fail from now on.
    pub fn fail(&self, model: &ModelRef, error: CollectError) {
        self.models().insert(model.clone(), Err(error));
    }

    /// The model is missing from now on.
    pub fn forget(&self, model: &ModelRef) {
        self.models().remove(model);
    }

    fn models(&self) -> MutexGuard<'_, HashMap<ModelRef, Result<Arc<ModelValue>, CollectError>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn value(&self, model: &ModelRef) -> Result<Arc<ModelValue>, CollectError> {
        let missing = || CollectError::Missing {
            model: model.clone(),
            nearest: Arc::new(Nearest::default()),
        };
        self.models().get(model).cloned().unwrap_or_else(|| Err(missing()))
    }

    fn reading<T: Part>(&self, value: Arc<ModelValue>, index: T::Index) -> Reading<T> {
        let oldest = T::of(&value, index).oldest();
        let label = Label::new(oldest, self.clock.now(), &self.thresholds, Source::Cache);
        Reading::in_model(value, index, label)
    }
}

#[async_trait]
impl MetricsCollector for FakeCollector {
    async fn collect_replica_metrics(
        &self,
        model: &ModelRef,
    ) -> Result<Reading<Replicas>, CollectError> {
        Ok(self.reading(self.value(model)?, ()))
    }

    async fn collect_variant_metrics(
        &self,
        model: &ModelRef,
        variant: &VariantName,
    ) -> Result<Reading<Replicas>, CollectError> {
        let reading = self.collect_replica_metrics(model).await?;
        Ok(reading.narrowed_to(variant, &self.thresholds))
    }

    async fn collect_allocation(
        &self,
        model: &ModelRef,
        variant: &VariantName,
    ) -> Result<Reading<Allocation>, CollectError> {
        let value = self.value(model)?;
        match value.allocations.iter().position(|known| known.variant == *variant) {
            Some(index) => Ok(self.reading(value, index)),
            None => Err(CollectError::UnknownVariant {
                model: model.clone(),
                variant: variant.clone(),
                known: value.allocations.iter().map(|known| known.variant.clone()).collect(),
            }),
        }
    }

    async fn collect_many(
        &self,
        models: &[ModelRef],
    ) -> Vec<Result<Reading<Replicas>, CollectError>> {
        models.iter().map(|model| Ok(self.reading(self.value(model)?, ()))).collect()
    }

    fn cached_replicas(&self, model: &ModelRef) -> Option<Reading<Replicas>> {
        Some(self.reading(self.value(model).ok()?, ()))
    }

    fn cached_allocation(
        &self,
        model: &ModelRef,
        variant: &VariantName,
    ) -> Option<Reading<Allocation>> {
        let value = self.value(model).ok()?;
        let index = value.allocations.iter().position(|known| known.variant == *variant)?;
        Some(self.reading(value, index))
    }

    async fn validate_metrics_availability(&self, model: &ModelRef) -> Availability {
        let (reason, backend, message) = match self.value(model) {
            Ok(value) => {
                let backend = value.replicas.backend.clone();
                (AvailabilityReason::MetricsFound, backend, format!("{model} was set"))
            }
            Err(error @ CollectError::Missing { .. }) => {
                (AvailabilityReason::MetricsMissing, "fake".into(), error.to_string())
            }
            Err(error) => (AvailabilityReason::BackendError, "fake".into(), error.to_string()),
        };
        let available = reason == AvailabilityReason::MetricsFound;
        Availability { available, reason, backend, message }
    }

    async fn list_models(&self) -> Result<Vec<KnownModel>, CollectError> {
        let models = self.models();
        let mut known: Vec<KnownModel> = models
            .iter()
            .filter_map(|(model, value)| {
                let replicas = u32::try_from(value.as_ref().ok()?.replicas.replicas.len()).ok();
                Some(KnownModel::new(model.clone(), replicas))
            })
            .collect();
        known.sort_unstable();
        Ok(known)
    }
}
