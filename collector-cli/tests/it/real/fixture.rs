// SPDX-License-Identifier: Apache-2.0
//! A fleet, a Prometheus that scrapes it every second, and a collector over that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use collector_config::Loader;
use collector_core::{MetricsCollector, ModelRef, Reading, Replicas, SystemClock};
use collector_engine::CachingCollector;
use collector_sim::{FleetServer, FleetSpec, VariantSpec};
use collector_testkit::{PrometheusOptions, PrometheusServer};

/// Long enough for a scrape a second under load, short enough to be waited for.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);
/// At one a second.
pub(crate) const SCRAPES_OF_A_WINDOW: usize = 10;

pub(crate) struct World {
    pub(crate) fleet: FleetServer,
    pub(crate) prometheus: PrometheusServer,
    scrape_interval: Duration,
}

impl World {
    /// `None` where no Prometheus is installed and none is required.
    pub(crate) async fn start(variants: Vec<VariantSpec>) -> Option<Self> {
        Self::start_scraped_as(variants, PrometheusOptions::default()).await
    }

    pub(crate) async fn start_scraped_as(
        variants: Vec<VariantSpec>,
        options: PrometheusOptions,
    ) -> Option<Self> {
        let warm_up = Duration::from_secs(60);
        Self::of_fleet(FleetSpec { seed: 7, warm_up, variants, ..FleetSpec::default() }, options)
            .await
    }

    #[cfg(feature = "promql")]
    pub(crate) async fn of(spec: FleetSpec) -> Option<Self> {
        Self::of_fleet(spec, PrometheusOptions::default()).await
    }

    async fn of_fleet(spec: FleetSpec, options: PrometheusOptions) -> Option<Self> {
        let fleet = FleetServer::start(spec).await.unwrap();
        let scrape_interval = options.scrape_interval;
        let prometheus = PrometheusServer::start_or_skip(&fleet, options).await?;
        prometheus.stored_scrape(&fleet).await.unwrap();
        Some(Self { fleet, prometheus, scrape_interval })
    }

    /// A configuration for this Prometheus. Of samples that come later than it says, windows would end
    /// where they do, for each scrape that is missing with a query of its own.
    pub(crate) fn toml(&self, more: &str) -> String {
        let interval = self.scrape_interval.as_secs();
        format!(
            "{more}\n[prometheus]\nurl = {:?}\nallow_http = true\nscrape_interval = \"{interval}s\"\n\
             window = \"{}s\"\n",
            self.prometheus.url(),
            interval * SCRAPES_OF_A_WINDOW as u64
        )
    }

    /// A collector as the binary builds it.
    pub(crate) fn collector(&self, more: &str) -> Arc<CachingCollector> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("collector.toml");
        std::fs::write(&file, self.toml(more)).unwrap();
        let loaded = Loader::new().file(file).load().unwrap();
        Arc::new(loaded.config.build(Arc::new(SystemClock::new())).unwrap())
    }

    /// Requests that Prometheus has answered to queries.
    pub(crate) async fn queries(&self) -> u64 {
        self.prometheus.requests_total("/api/v1/query").await.unwrap()
    }

    /// Lets so many scrapes of every living pod be stored.
    pub(crate) async fn scrapes(&self, count: usize) {
        for _ in 0..count {
            self.prometheus.stored_scrape(&self.fleet).await.unwrap();
        }
    }
}

pub(crate) fn variant(name: &str, model: &str) -> VariantSpec {
    VariantSpec::new(name, model, "prod")
}

/// Reads past the cache.
pub(crate) async fn read_anew(collector: &CachingCollector, model: &ModelRef) -> Reading<Replicas> {
    collector.invalidate_cache(model);
    collector.collect_replica_metrics(model).await.unwrap()
}

/// Looks again and again until `condition` holds; a real server takes its own time.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    within: Duration,
    condition: impl Fn() -> F,
) {
    let deadline = now() + within;
    while !condition().await {
        assert!(now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "real servers live in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
