// SPDX-License-Identifier: Apache-2.0
//! What the HTTP API of the collector costs for large fleets: its own metrics, and one reading.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use collector_testkit::{PrometheusError, PrometheusServer};
use tokio::time::{Instant, sleep};
use url::form_urlencoded::byte_serialize;

use crate::autoscalers::http::{self, Bare, Connection};
use crate::collector::Serving;
use crate::refresh::feed::{Feed, models};
use crate::report::{Figure, Report};

const SUITE: &str = "own-metrics";
/// For the server to have seen every pod, and the collector every model.
const PATIENCE: Duration = Duration::from_secs(180);
const SCRAPES: usize = 11;
const CONNECTIONS: usize = 8;
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
        pods: |_| 4,
        per_replica: false,
    },
];

/// Measures the program behind a real Prometheus.
pub(crate) async fn measure(program: &Path, quick: bool, report: &mut Report) -> Result<()> {
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
        if !case.per_replica {
            one_reading(case, &serving, folder.path(), quick, report).await?;
        }
    }
    Ok(())
}

/// The pace of one model's reading, beside the same answer by the web framework alone.
async fn one_reading(
    case: &Case,
    serving: &Serving,
    folder: &Path,
    quick: bool,
    report: &mut Report,
) -> Result<()> {
    let model = models(case.models).swap_remove(case.models / 2);
    let part = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let path = format!(
        "/api/v1/replicas?namespace={}&model={}",
        part(model.namespace.as_str()),
        part(model.model.as_str())
    );
    let mut connection = Connection::open(serving.address(), &path).await?;
    let (status, body) = connection.ask().await?;
    ensure!(status == 200, "status {status}: {}", String::from_utf8_lossy(body));
    let bare = Bare::start(body, folder).await?;
    let (own, peer) = http::beside(&bare, serving.address(), &path, CONNECTIONS, quick).await?;
    for (system, pace) in [("axum alone", peer), ("collector", own)] {
        let figure = Figure { name: "answers", value: pace, unit: "/s" };
        report.row(SUITE, "a reading of 10 000, 8 connections", system, &[figure]);
    }
    report.goal_at_least("own_metrics.reading.vs_axum", 0.7, own / peer);
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
