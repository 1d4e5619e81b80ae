// SPDX-License-Identifier: Apache-2.0
//! How long the collector takes to write its own metrics, for large fleets.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use collector_testkit::{PrometheusError, PrometheusServer};
use tokio::time::{Instant, sleep};

use crate::collector::Serving;
use crate::refresh::feed::Feed;
use crate::report::{Figure, Report};

const SUITE: &str = "own-metrics";
/// For the server to have seen every pod, and the collector every model.
const PATIENCE: Duration = Duration::from_secs(180);
const SCRAPES: usize = 11;
/// For one page.
const PAGE_MS: f64 = 150.0;

/// A fleet, and what of it is on the page.
struct Case {
    name: &'static str,
    goal: &'static str,
    models: usize,
    pods: fn(usize) -> usize,
    per_replica: bool,
}

const CASES: [Case; 2] = [
    Case {
        name: "/metrics, 1000 models of 4 replicas",
        goal: "own_metrics.1000_with_replicas_ms",
        models: 1000,
        pods: |_| 4,
        per_replica: true,
    },
    Case {
        name: "/metrics, 10 000 models, without single replicas",
        goal: "own_metrics.10000_without_replicas_ms",
        models: 10_000,
        pods: |_| 1,
        per_replica: false,
    },
];

/// Measures the program behind a real Prometheus.
pub(crate) async fn measure(program: &Path, report: &mut Report) -> Result<()> {
    for case in &CASES {
        let feed = Feed::start_with(case.models, case.pods).await?;
        let prometheus = match PrometheusServer::start_with(&feed.configuration(5)).await {
            Err(PrometheusError::NotInstalled) => {
                report.note(SUITE, "not measured: there is no `prometheus` program");
                return Ok(());
            }
            other => other?,
        };
        let folder = tempfile::tempdir()?;
        let configuration = folder.path().join("collector.toml");
        let toml = format!(
            "[prometheus]\nurl = \"{}\"\nallow_http = true\nscrape_interval = \"5s\"\n\
             [server]\nmax_tracked = {}\n[metrics]\nper_replica = {}\n",
            prometheus.url(),
            case.models,
            case.per_replica
        );
        fs::write(&configuration, toml)?;
        let mut serving = Serving::start(program, &configuration)?;
        let began = Instant::now();
        while !serving.counter("collector_reading_up", "").is_ok_and(|up| up >= case.models as f64)
        {
            serving.still_runs()?;
            ensure!(began.elapsed() < PATIENCE, "the collector does not see all models");
            sleep(Duration::from_millis(500)).await;
        }
        tell(case, &serving, report)?;
    }
    Ok(())
}

fn tell(case: &Case, serving: &Serving, report: &mut Report) -> Result<()> {
    let (mut times, mut page) = (Vec::new(), String::new());
    for _ in 0..SCRAPES {
        let began = Instant::now();
        page = serving.text("/metrics")?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    let series = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    let figure = |name, value, unit| Figure { name, value, unit };
    report.row(
        SUITE,
        case.name,
        "collector",
        &[
            figure("median", median, "ms"),
            figure("slowest", worst, "ms"),
            figure("series", series as f64, ""),
            figure("page", page.len() as f64 / 1e6, "MB"),
        ],
    );
    report.goal(case.goal, PAGE_MS, median);
    Ok(())
}
