// SPDX-License-Identifier: Apache-2.0
//! Ages after a suspend of the machine, for each documented way of building a collector.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use collector::config::Loader;
use collector::prelude::*;
use collector::prometheus::{PrometheusBackend, PrometheusConfig};
use collector_core::raw::simulate_suspend;
use collector_sim::{FleetServer, FleetSpec, Target};
use collector_testkit::{PrometheusOptions, PrometheusServer};

/// Makes a reading stale, but it is still served.
const MINUTES: Duration = Duration::from_secs(200);
/// Makes a reading unavailable.
const HOUR: Duration = Duration::from_secs(3600);
const A_MINUTE: Duration = Duration::from_secs(60);

/// A clock of its own for each caller, as in the documentation.
fn clock() -> Arc<SystemClock> {
    Arc::new(SystemClock::new())
}

/// Builds a collector in each documented way.
fn collectors(url: &str, targets: &[Target]) -> Vec<(&'static str, CachingCollector)> {
    let backend = || {
        let url = url.to_owned();
        let config = PrometheusConfig { url, allow_http: true, ..PrometheusConfig::default() };
        PrometheusBackend::new(config, clock()).unwrap()
    };
    let mut scrape = "[scrape]\ntargets = [\n".to_owned();
    for Target { address, namespace, pod, .. } in targets {
        let url = format!("http://{address}/metrics");
        writeln!(scrape, "{{ url = {url:?}, namespace = {namespace:?}, pod = {pod:?} }},").unwrap();
    }
    scrape.push_str("]\n");
    let prometheus = format!("[prometheus]\nurl = {url:?}\nallow_http = true\n");
    let from_file = |text: String| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("collector.toml");
        fs::write(&file, text).unwrap();
        Loader::new().file(&file).load().unwrap().config
    };
    let one = from_file(format!("backend = \"prometheus\"\n{prometheus}"));
    let pods = from_file(format!("backend = \"scrape\"\n{scrape}"));
    let both = from_file(format!("backend = [\"scrape\", \"prometheus\"]\n{prometheus}{scrape}"));
    let config = CacheConfig::default();
    vec![
        ("new", CachingCollector::new(backend()).unwrap()),
        ("with_config", CachingCollector::with_config(backend(), config).unwrap()),
        ("builder", CachingCollector::builder(Arc::new(backend())).build().unwrap()),
        (
            "builder with a clock",
            CachingCollector::builder(Arc::new(backend())).clock(clock()).build().unwrap(),
        ),
        ("a file: prometheus", one.build(clock()).unwrap()),
        ("a file: scrape", pods.build(clock()).unwrap()),
        ("a file: both", both.build(clock()).unwrap()),
        ("a file: the builder", both.builder(clock()).unwrap().build().unwrap()),
    ]
}

/// Where there is no Prometheus the test is skipped, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspend_ages_readings_and_the_next_fetch_is_fresh() {
    let fleet = FleetServer::start(FleetSpec::demo()).await.unwrap();
    let options = PrometheusOptions::default();
    let Some(server) = PrometheusServer::start_or_skip(&fleet, options).await else { return };
    server.stored_scrape(&fleet).await.unwrap();
    let variant = &FleetSpec::demo().variants[0];
    let model = ModelRef::new(variant.model.as_str(), variant.namespace.as_str());

    let collectors = collectors(&server.url(), &fleet.targets());
    for (way, collector) in &collectors {
        let reading = collector.collect_replica_metrics(&model).await.unwrap();
        assert_eq!(reading.freshness(), Freshness::Fresh, "{way}");
    }
    simulate_suspend(MINUTES);
    for (way, collector) in &collectors {
        // A read checks for a suspend once a second.
        let aged = async {
            loop {
                let age = collector.cached_replicas(&model).unwrap().age();
                if age >= MINUTES {
                    return age;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let aged = tokio::time::timeout(A_MINUTE, aged).await;
        let age = aged.unwrap_or_else(|_| panic!("{way}: the reading did not age"));
        assert!(age < MINUTES + A_MINUTE, "{way}: {age:?} old");
    }
    simulate_suspend(HOUR);
    // The clocks share the suspended time; readings are unavailable now, and are fetched.
    clock().catch_up();
    for (way, collector) in &collectors {
        let reading = collector.collect_replica_metrics(&model).await.unwrap();
        assert_eq!(reading.freshness(), Freshness::Fresh, "{way}: {:?} old", reading.age());
        assert!(reading.age() < A_MINUTE, "{way}: {:?} old", reading.age());
    }
}
