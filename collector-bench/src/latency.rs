// SPDX-License-Identifier: Apache-2.0
//! How long it takes from a change in a pod to a reading that shows it: scraped directly each second,
//! and through a Prometheus with the intervals that most have.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use collector_config::Loader;
use collector_core::{MetricsCollector, ModelRef, PodName, SystemClock};
use collector_engine::CachingCollector;
use collector_sim::{FleetServer, FleetSpec, Gauges, VariantSpec};
use collector_testkit::{PrometheusOptions, PrometheusServer};
use tokio::time::{Instant, sleep};

use crate::report::{Figure, Report};

const SUITE: &str = "latency";
const PODS: u32 = 40;
const MODEL: &str = "org/model";

/// How often it is looked whether a reading shows the change.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// For every pod to be known.
const PATIENCE: Duration = Duration::from_secs(90);

/// Measures both ways.
pub(crate) async fn measure(quick: bool, report: &mut Report) -> Result<()> {
    let variant = VariantSpec { pods: PODS, ..VariantSpec::new("pod", MODEL, "prod") };
    let fleet =
        FleetServer::start(FleetSpec { variants: vec![variant], ..FleetSpec::default() }).await?;

    let rounds = if quick { 5 } else { 20 };
    let direct = collector(&direct(&fleet)).await?;
    let mut waits = changes(&fleet, &direct, rounds, Duration::from_secs(1)).await?;
    direct.stop_background_worker().await;
    let p99 = tell(report, "scraped each second", &mut waits);
    report.goal("latency.direct_p99_s", 1.1, p99);
    if quick {
        // A scrape interval and a fetch interval of Prometheus take longer than all the rest together.
        return Ok(());
    }

    let seldom =
        PrometheusOptions { scrape_interval: Duration::from_secs(15), ..Default::default() };
    let prometheus = PrometheusServer::start(&fleet, seldom).await?;
    let asked = collector(&format!(
        "[prometheus]\nurl = \"{}\"\nallow_http = true\nscrape_interval = \"15s\"\n",
        prometheus.url()
    ))
    .await?;
    let mut waits = changes(&fleet, &asked, 2, Duration::from_secs(60)).await?;
    asked.stop_background_worker().await;
    tell(report, "Prometheus scraping each 15 s, asked each 30 s", &mut waits);
    Ok(())
}

fn direct(fleet: &FleetServer) -> String {
    let mut toml = "backend = \"epp\"\n[epp]\ntargets = [\n".to_owned();
    for target in fleet.targets() {
        // Writing to a string cannot fail.
        let _ = writeln!(
            toml,
            "{{ url = \"http://{}/metrics\", namespace = \"prod\", pod = \"{}\" }},",
            target.address, target.pod
        );
    }
    toml + "]\n"
}

/// A collector as a user's configuration makes it, its worker running.
async fn collector(toml: &str) -> Result<Arc<CachingCollector>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("collector.toml");
    let variant =
        format!("[[variants]]\nname = \"pod\"\nnamespace = \"prod\"\nmodel = \"{MODEL}\"\n");
    std::fs::write(&file, format!("{toml}{variant}"))?;
    let loaded = Loader::new().file(file).load()?;
    let collector = loaded.config.build(Arc::new(SystemClock::new()))?;
    collector.start_background_worker().await?;
    Ok(Arc::new(collector))
}

/// Changes every pod once a round, each at a moment of its own within `span`, and waits for each change
/// to show.
async fn changes(
    fleet: &FleetServer,
    collector: &CachingCollector,
    rounds: u32,
    span: Duration,
) -> Result<Vec<Duration>> {
    let model = ModelRef::new(MODEL, "prod");
    let started = Instant::now();
    while shown(collector, &model).await.len() < PODS as usize {
        ensure!(started.elapsed() < PATIENCE, "the fleet is not known after {PATIENCE:?}");
        sleep(Duration::from_millis(50)).await;
    }
    let mut waits = Vec::new();
    for round in 1..=rounds {
        // Spread by the golden ratio, which meets every phase of an interval alike.
        let phase = |pod: u32| (f64::from(pod + round * PODS) * 0.618_034).fract();
        let began = Instant::now();
        let mut changes: Vec<(u32, Instant)> =
            (0..PODS).map(|pod| (pod, began + span.mul_f64(phase(pod)))).collect();
        changes.sort_by_key(|(_, at)| *at);
        let mut to_make = changes.into_iter().peekable();
        let mut made: Vec<(PodName, Instant)> = Vec::new();
        loop {
            while let Some((pod, _)) = to_make.next_if(|(_, at)| *at <= Instant::now()) {
                let name = format!("pod-{pod}");
                let gauges = Gauges { waiting: 0, running: round, kv_cache_usage: 0.5 };
                fleet.pin("prod", &name, 0, gauges)?;
                made.push((name.into(), Instant::now()));
            }
            let now_shown = shown(collector, &model).await;
            made.retain(|(pod, at)| {
                let shows = now_shown
                    .iter()
                    .any(|(name, running)| name == pod && *running == Some(u64::from(round)));
                if shows {
                    waits.push(at.elapsed());
                }
                !shows
            });
            if made.is_empty() && to_make.peek().is_none() {
                break;
            }
            ensure!(began.elapsed() < span + PATIENCE, "changes do not show: {made:?}");
            sleep(LOOK_INTERVAL).await;
        }
    }
    Ok(waits)
}

/// What a reading shows of each pod's running requests.
async fn shown(collector: &CachingCollector, model: &ModelRef) -> Vec<(PodName, Option<u64>)> {
    let Ok(reading) = collector.collect_replica_metrics(model).await else { return Vec::new() };
    let rows = reading.value().replicas.iter();
    rows.map(|row| (row.pod_name.clone(), row.running_requests)).collect()
}

/// Adds the row, and tells the 99th percentile.
fn tell(report: &mut Report, case: &'static str, waits: &mut [Duration]) -> f64 {
    waits.sort_unstable();
    let quantile = |hundredths: usize| {
        let place = (waits.len() * hundredths / 100).min(waits.len().saturating_sub(1));
        waits.get(place).map_or(f64::NAN, Duration::as_secs_f64)
    };
    let figure = |name, value, unit| Figure { name, value, unit };
    report.row(
        SUITE,
        case,
        "collector",
        &[
            figure("p50", quantile(50), "s"),
            figure("p99", quantile(99), "s"),
            figure("changes", waits.len() as f64, ""),
        ],
    );
    quantile(99)
}
