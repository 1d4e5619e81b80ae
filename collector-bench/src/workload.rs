// SPDX-License-Identifier: Apache-2.0
//! What the cache suites read: replicas of models with names as they are in clusters.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use collector_cache::MemoryCache;
use collector_core::raw::Cold;
use collector_core::{
    Answer, Answers, Ask, Backend, BackendError, BackendName, Clock, Deadlines,
    FreshnessThresholds, KnownModel, ListAsk, LoadRates, LoadRows, MetricsCache,
    MetricsCollector as _, ModelRecord, ModelRef, ModelSample, ModelValue, Outcome, PodName, Probe,
    ProbeAsk, ReplicaMetrics, Replicas, Supports, SystemClock, Tick,
};
use collector_engine::{Builder, CacheConfig, CachingCollector, StaticDirectory, VariantSpec};

/// Pods of each model.
pub(crate) const REPLICAS: usize = 8;

/// Far longer than a measurement: nothing expires meanwhile, and everything is checked all the same.
pub(crate) const TTL: Duration = Duration::from_secs(3600);

/// What ages mean.
pub(crate) const THRESHOLDS: FreshnessThresholds = FreshnessThresholds {
    fresh_threshold: Duration::from_secs(3600),
    stale_threshold: Duration::from_secs(7200),
    unavailable_threshold: Duration::from_secs(10_800),
};

/// So many models.
pub(crate) fn models(count: usize) -> Vec<ModelRef> {
    let model = |number| {
        ModelRef::new(format!("meta-llama/Llama-3.1-8B-Instruct-{number}"), "inference-prod")
    };
    (0..count).map(model).collect()
}

/// The same in an order that no prefetcher guesses, the same in each run.
pub(crate) fn shuffled<T>(mut things: Vec<T>) -> Vec<T> {
    fastrand::Rng::with_seed(7).shuffle(&mut things);
    things
}

/// So many replicas of a model, everything about them measured.
pub(crate) fn replicas(count: usize, sampled_at: Tick) -> Vec<ReplicaMetrics> {
    let replica = |number| {
        let pod = PodName::from(format!("llama-8b-6f7c9d8b5-{number:05}"));
        let mut replica = ReplicaMetrics::new(pod, sampled_at);
        replica.kv_cache_usage = Some(0.5);
        replica.queue_length = Some(3);
        replica.running_requests = Some(12);
        replica.num_gpu_blocks = Some(27_000);
        replica.block_size = Some(16);
        replica.avg_input_tokens = Some(512.0);
        replica.avg_output_tokens = Some(128.0);
        replica.prefix_cache_hit_rate = Some(0.3);
        replica
    };
    (0..count).map(replica).collect()
}

/// The same as caches hold it.
pub(crate) fn value(model: &ModelRef, sampled_at: Tick) -> Arc<ModelValue> {
    let rows = replicas(REPLICAS, sampled_at);
    let replicas = Replicas::new(model.clone(), rows, BackendName::from("bench"), sampled_at);
    Arc::new(ModelValue::new(replicas, Vec::new()))
}

/// A record of our cache.
pub(crate) fn record(model: &ModelRef, value: &Arc<ModelValue>, now: Tick) -> Arc<ModelRecord> {
    // What its sources last said, which no peer keeps, is shared by all.
    static COLD: LazyLock<Arc<Cold>> = LazyLock::new(Arc::default);
    let deadlines = Deadlines {
        current_until: now + TTL,
        refresh_after: now + TTL,
        keep_until: now + TTL,
        keep_unread: Duration::ZERO,
    };
    let (value, cold) = (Some(Arc::clone(value)), Arc::clone(&COLD));
    let model = model.clone();
    Arc::new(ModelRecord::new(model, value, Outcome::Found, cold, deadlines, true, now))
}

/// A cache with a record for each model, and room for as many again.
pub(crate) fn cache_of(models: &[ModelRef], now: Tick) -> MemoryCache {
    let cache = MemoryCache::new(models.len() * 2, usize::MAX);
    for model in models {
        cache.put(record(model, &value(model, now), now));
    }
    cache
}

/// A collector that knows these models.
pub(crate) async fn collector_of(models: &[ModelRef]) -> Result<Arc<CachingCollector>> {
    Ok(Arc::new(read_all(builder(models).build()?, models).await?))
}

/// A collector that knows these models, each with a variant that has all of its pods.
pub(crate) async fn collector_with_variants(models: &[ModelRef]) -> Result<CachingCollector> {
    let variant = |(number, model): (usize, &ModelRef)| VariantSpec {
        accelerator: Some("H100".into()),
        max_batch: Some(256),
        ..VariantSpec::new(format!("variant-{number}"), model)
    };
    let directory = StaticDirectory::new(models.iter().enumerate().map(variant).collect())?;
    read_all(builder(models).directory(Arc::new(directory)).build()?, models).await
}

fn builder(models: &[ModelRef]) -> Builder {
    let clock: Arc<SystemClock> = Arc::new(SystemClock::new());
    let config = CacheConfig {
        ttl: TTL,
        max_entries: models.len() * 4,
        max_bytes: usize::MAX,
        freshness: THRESHOLDS,
        ..CacheConfig::default()
    };
    let backend = Steady { clock: clock.clone(), pods: REPLICAS, takes: Duration::ZERO };
    CachingCollector::builder(Arc::new(backend))
        .config(config)
        .max_tracked(models.len())
        .clock(clock)
}

async fn read_all(collector: CachingCollector, models: &[ModelRef]) -> Result<CachingCollector> {
    for read in collector.collect_many(models).await {
        ensure!(read?.value().replicas.len() == REPLICAS, "a replica is lost");
    }
    Ok(collector)
}

/// A backend that knows every model.
pub(crate) struct Steady {
    pub(crate) clock: Arc<dyn Clock>,
    /// Of each model.
    pub(crate) pods: usize,
    /// For a look, however many models it is at.
    pub(crate) takes: Duration,
}

#[async_trait]
impl Backend for Steady {
    fn name(&self) -> &'static str {
        "bench"
    }

    fn supports(&self) -> Supports {
        Supports::ALL
    }

    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
        let now = self.clock.now();
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        let answer = |model: &ModelRef| {
            let mut sample = ModelSample::new(now, replicas(self.pods, now));
            sample.load = LoadRows::Model(LoadRates::ZERO.into());
            (model.clone(), Answer::Found(sample))
        };
        Ok(ask.models.iter().map(answer).collect())
    }

    async fn list_models(&self, _: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        Ok(Vec::new())
    }

    async fn probe(&self, _: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        Ok(Probe::default())
    }
}
