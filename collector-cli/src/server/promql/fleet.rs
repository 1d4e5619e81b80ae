// SPDX-License-Identifier: Apache-2.0
//! What configuration and readings say of the pods of models, for queries whose series do not tell.

use std::collections::BTreeSet;
use std::sync::Arc;
#[cfg(feature = "epp")]
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[cfg(feature = "epp")]
use super::targets::Targets;
use collector_config::Loaded;
use collector_core::{EngineName, Freshness, MetricsCollector as _, ModelRef, ReplicaState};
use collector_engine::CachingCollector;
#[cfg(feature = "epp")]
use collector_engine::StaticDirectory;
use collector_engines::{Engine, Engines, Quantity};

use crate::exit::Failure;

/// The name of direct scraping in readings.
const DIRECT_SCRAPING: &str = "epp";

/// The models that are configured, their pods, and the metrics of their engines.
pub(super) struct Fleet {
    collector: Arc<CachingCollector>,
    engines: Engines,
    /// Every metric that is read of some engine.
    metrics: BTreeSet<String>,
    #[cfg(feature = "epp")]
    configured: BTreeSet<ModelRef>,
    /// Configured models that had targets, until these were removed: the list is about them.
    #[cfg(feature = "epp")]
    listed: Mutex<BTreeSet<ModelRef>>,
    #[cfg(feature = "epp")]
    targets: Option<Targets>,
}

impl Fleet {
    pub(super) fn new(loaded: &Loaded, collector: Arc<CachingCollector>) -> Result<Self, Failure> {
        let config = &loaded.config;
        let usage = |error: &dyn std::fmt::Display| Failure::usage(error.to_string());
        let engines = Engines::new(&config.engines).map_err(|error| usage(&error))?;
        let names = engines.iter().flat_map(Engine::sample_names).map(str::to_owned);
        #[cfg(feature = "epp")]
        let directory =
            StaticDirectory::new(config.variants.clone()).map_err(|error| usage(&error))?;
        Ok(Self {
            collector,
            metrics: names.collect(),
            #[cfg(feature = "epp")]
            configured: config
                .variants
                .iter()
                .map(|it| ModelRef::new(it.model.clone(), it.namespace.clone()))
                .collect(),
            #[cfg(feature = "epp")]
            listed: Mutex::default(),
            #[cfg(feature = "epp")]
            targets: Targets::of(config, directory),
            engines,
        })
    }

    pub(super) fn is_of_model_servers(&self, metric: &str) -> bool {
        self.metrics.contains(metric)
    }

    /// Returns whether a model has no pods: a cluster lists none, or it is configured and no target is a pod of it. A server
    /// that has no series of a model may not scrape it.
    pub(super) async fn has_no_pods(&self, model: &ModelRef) -> bool {
        let (mut in_cluster, mut is_scraped) = (false, false);
        if let Some(reading) = self.collector.cached_replicas(model) {
            let value = reading.value();
            if !value.replicas.is_empty() {
                return false;
            }
            let is_recent = reading.freshness() == Freshness::Fresh && !value.partial;
            let is_listed = is_recent && value.lists_pods;
            in_cluster = is_listed && value.supply.is_some();
            is_scraped = is_listed && value.backend.as_str() == DIRECT_SCRAPING;
        }
        in_cluster || self.has_no_targets(model, is_scraped).await
    }

    /// Returns whether a configured model has no pods by a complete list of targets. `is_listed`: direct scraping says so. An
    /// endpoint picker may have requests of a model whose pods are no targets.
    #[cfg(feature = "epp")]
    async fn has_no_targets(&self, model: &ModelRef, is_listed: bool) -> bool {
        let targets = self.targets.as_ref().filter(|_| self.configured.contains(model));
        let Some(targets) = targets else { return false };
        if is_listed {
            self.lock_listed().insert(model.clone());
            return true;
        }
        let was_listed = self.lock_listed().contains(model);
        (targets.are_all_pods() || was_listed) && targets.has_none_of(model).await
    }

    /// Without direct scraping there is no list of targets.
    #[cfg(not(feature = "epp"))]
    #[expect(clippy::unused_async, reason = "the other one reads a file")]
    async fn has_no_targets(&self, _: &ModelRef, _: bool) -> bool {
        false
    }

    #[cfg(feature = "epp")]
    fn lock_listed(&self) -> MutexGuard<'_, BTreeSet<ModelRef>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the models whose readings are not older than this and have serving pods that export a metric.
    pub(super) fn with_pods(&self, metric: &str, within: Duration) -> Vec<ModelRef> {
        let always = self.engines.iter().filter(|engine| is_always_exported(engine, metric));
        let always: BTreeSet<&EngineName> = always.map(|engine| &engine.name).collect();
        if always.is_empty() {
            return Vec::new();
        }
        let tracked = self.collector.tracked().into_iter();
        let with_pods = tracked.filter_map(|tracked| {
            let reading = tracked.replicas.ok().filter(|reading| reading.age() <= within)?;
            let mut pods = reading.value().replicas.iter();
            let exports = pods.any(|pod| {
                pod.state == ReplicaState::Serving
                    && pod.engine.as_ref().is_some_and(|engine| always.contains(engine))
            });
            exports.then_some(tracked.model)
        });
        with_pods.collect()
    }
}

/// Returns whether every server of an engine exports a metric, in all of its versions.
fn is_always_exported(engine: &Engine, metric: &str) -> bool {
    let of_quantity = |quantity: Quantity| match engine.alternatives(quantity) {
        [only] => only.required().iter().any(|series| *series.name == *metric),
        _ => false,
    };
    engine.required.iter().any(|name| **name == *metric)
        || [Quantity::Waiting, Quantity::Running].into_iter().any(of_quantity)
}

#[cfg(test)]
mod tests {
    use collector_config::Loader;
    use collector_core::supply::Workload;
    use collector_core::{Clock, ModelSample, Supply};
    use collector_testkit::{FakeBackend, TokioClock};

    use super::*;

    #[cfg(feature = "epp")]
    #[tokio::test(start_paused = true)]
    async fn a_reading_without_pods_is_a_proof_only_if_its_backend_lists_them() {
        // Another backend may know other pods, so the list of targets does not prove that there are none.
        let toml = r#"
backend = ["scrape", "prometheus"]
[scrape]
targets = [{ url = "http://o:1/metrics", namespace = "prod", pod = "o-0" }]
[prometheus]
url = "https://p:9090"
[[variants]]
name = "v"
namespace = "prod"
model = "org/m"
pods = "m-*"
"#;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("collector.toml");
        std::fs::write(&file, toml).unwrap();
        let loaded = Loader::new().file(file).load().unwrap();
        let model = ModelRef::new("org/m", "prod");
        for lists_pods in [false, true] {
            let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
            let backend = FakeBackend::new(Arc::clone(&clock)).named(DIRECT_SCRAPING);
            backend.serve(&model, move |as_of| {
                let mut sample = ModelSample::new(as_of, Vec::new());
                sample.lists_pods = lists_pods;
                sample
            });
            let collector = CachingCollector::builder(Arc::new(backend)).clock(clock).build();
            let collector = Arc::new(collector.unwrap());
            collector.collect_replica_metrics(&model).await.unwrap();
            let fleet = Fleet::new(&loaded, collector).unwrap();
            assert_eq!(fleet.has_no_pods(&model).await, lists_pods);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_has_no_pods_if_a_cluster_knows_all_of_them() {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        let backend = FakeBackend::new(Arc::clone(&clock));
        let model = ModelRef::new("org/m", "prod");
        let collector = CachingCollector::builder(Arc::new(backend.clone())).clock(clock);
        let collector = Arc::new(collector.build().unwrap());
        let url = ("PROMETHEUS_BASE_URL".to_owned(), "https://prometheus".to_owned());
        let loaded = Loader::new().env([url]).read().unwrap();
        let fleet = Fleet::new(&loaded, Arc::clone(&collector)).unwrap();
        assert!(!fleet.has_no_pods(&model).await, "nothing is known of it");
        for is_known in [true, false] {
            backend.serve(&model, move |as_of| {
                let workload = Workload::new(Some("v".into()), Some(0), Vec::new());
                let mut sample = ModelSample::new(as_of, Vec::new());
                sample.supply = Some(Arc::new(Supply::new(as_of, vec![workload])));
                sample.lists_pods = is_known;
                sample
            });
            collector.invalidate_cache(&model);
            let _ = collector.collect_replica_metrics(&model).await;
            assert_eq!(fleet.has_no_pods(&model).await, is_known);
        }
    }

    #[test]
    fn a_server_is_missed_only_in_a_metric_that_all_of_its_versions_export() {
        let engines = Engines::builtin();
        let exports = |name: &str, metric: &str| {
            engines.iter().any(|it| it.name.as_str() == name && is_always_exported(it, metric))
        };
        assert!(exports("vllm", "vllm:num_requests_waiting"));
        assert!(exports("sglang", "sglang:num_running_reqs"));
        // Renamed, optional, or of another engine.
        for metric in ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"] {
            assert!(!exports("vllm", metric), "{metric}");
        }
        assert!(!exports("sglang", "sglang:num_paused_reqs"));
        assert!(!exports("sglang", "vllm:num_requests_waiting"));
    }
}
