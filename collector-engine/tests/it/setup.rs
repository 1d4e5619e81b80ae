// SPDX-License-Identifier: Apache-2.0
//! What these tests start from.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{AcceleratorName, Clock, MetricsCollector as _, ModelRef, Reading, Replicas};
use collector_engine::{Builder, CacheConfig, CachingCollector, StaticDirectory, VariantSpec};
use collector_testkit::{FakeBackend, TokioClock};

pub(crate) struct Setup {
    pub(crate) backend: FakeBackend,
    pub(crate) collector: Arc<CachingCollector>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Defaults: ttl and fetch interval 30 s, fresh below 1 m, unavailable from 5 m on.
pub(crate) fn setup() -> Setup {
    setup_with(|builder| builder)
}

pub(crate) fn setup_with(change: impl FnOnce(Builder) -> Builder) -> Setup {
    setup_of(|backend| backend, change)
}

/// With another fake, and another collector.
pub(crate) fn setup_of(
    backend: impl FnOnce(FakeBackend) -> FakeBackend,
    change: impl FnOnce(Builder) -> Builder,
) -> Setup {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let backend = backend(FakeBackend::new(Arc::clone(&clock)));
    let builder = CachingCollector::builder(Arc::new(backend.clone())).clock(Arc::clone(&clock));
    let collector = Arc::new(change(builder).build().unwrap());
    Setup { backend, collector, clock }
}

pub(crate) fn config(change: impl FnOnce(&mut CacheConfig)) -> impl FnOnce(Builder) -> Builder {
    let mut config = CacheConfig::default();
    change(&mut config);
    move |builder| builder.config(config)
}

pub(crate) fn variant(name: &str, model: &ModelRef, pods: &str) -> VariantSpec {
    VariantSpec {
        accelerator: Some(AcceleratorName::from("H100")),
        cost: 40.0,
        pods: pods.to_owned(),
        max_batch: Some(256),
        ..VariantSpec::new(name, model)
    }
}

pub(crate) fn variants(specs: Vec<VariantSpec>) -> impl FnOnce(Builder) -> Builder {
    move |builder| builder.directory(Arc::new(StaticDirectory::new(specs).unwrap()))
}

pub(crate) fn llama() -> ModelRef {
    ModelRef::new("llama", "prod")
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Lets time pass, and everything that is due in it happen.
pub(crate) async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}

impl Setup {
    pub(crate) async fn read(&self, model: &ModelRef) -> Reading<Replicas> {
        self.collector.collect_replica_metrics(model).await.unwrap()
    }
}
