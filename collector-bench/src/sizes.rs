// SPDX-License-Identifier: Apache-2.0
//! How big the program is, how much memory it takes, and how long a user waits for it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use collector_sim::{FleetServer, FleetSpec, VariantSpec};
use collector_testkit::{PrometheusOptions, PrometheusServer};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::collector::{Serving, command};
use crate::report::{Figure, Report};

const SUITE: &str = "sizes";
const VARIANTS: usize = 100;
const PODS: u32 = 8;
const MEGABYTE: f64 = 1e6;

/// How often pods are scraped and the collector refreshes: often enough for some cycles to pass,
/// seldom enough for 800 pods on a small machine.
const INTERVAL: Duration = Duration::from_secs(5);

/// For the collector to know the whole fleet.
const KNOWN_WITHIN: Duration = Duration::from_secs(120);

/// 11.6 without the PromQL API, which may take 1.5.
const BINARY_MB: f64 = 13.1;

/// Measures `program` against a Prometheus that scrapes a simulated fleet.
pub(crate) async fn measure(program: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let size = fs::metadata(program)
        .with_context(|| format!("cannot measure {}", program.display()))?
        .len() as f64;
    let figure = |name, value, unit| Figure { name, value, unit };
    report.row(SUITE, "binary", "collector", &[figure("size", size / MEGABYTE, "MB")]);
    report.goal("size.binary_mb", BINARY_MB, size / MEGABYTE);
    if size / MEGABYTE > BINARY_MB {
        report.note(
            SUITE,
            "size.binary_mb is missed: the PromQL API, the external scaler and the checks of autoscalers' objects take 3.7 MB, \
             1.8 of them the parser of PromQL with the regular expressions that it uses",
        );
    }

    let fleet = FleetServer::start(fleet()).await?;
    let options = PrometheusOptions { scrape_interval: INTERVAL, ..PrometheusOptions::default() };
    let prometheus = PrometheusServer::start(&fleet, options).await?;
    prometheus.stored_scrape(&fleet).await?;

    let (resident, peak) = serve(program, &prometheus.url(), quick).await?;
    report.row(
        SUITE,
        "serve, 100 variants of 8 pods",
        "collector",
        &[figure("resident", resident / MEGABYTE, "MB"), figure("peak", peak / MEGABYTE, "MB")],
    );
    report.goal("size.serve_resident_mb", 25.0, resident / MEGABYTE);

    let mut waits = get(program, &prometheus.url(), if quick { 5 } else { 21 })?;
    waits.sort_unstable();
    let milliseconds = |wait: Duration| wait.as_secs_f64() * 1000.0;
    let median = milliseconds(waits[waits.len() / 2]);
    let worst = milliseconds(waits[waits.len() - 1]);
    report.row(
        SUITE,
        "get replicas, process start to end",
        "collector",
        &[figure("median", median, "ms"), figure("worst", worst, "ms")],
    );
    report.goal("size.get_ms", 50.0, median);
    Ok(())
}

fn model(variant: usize) -> String {
    format!("org/model-{variant}")
}

fn fleet() -> FleetSpec {
    let variant = |number| {
        let name = format!("variant-{number}");
        let mut variant = VariantSpec::new(&name, &model(number), "prod");
        variant.pods = PODS;
        variant
    };
    FleetSpec { variants: (0..VARIANTS).map(variant).collect(), ..FleetSpec::default() }
}

/// Lets the daemon track the whole fleet, and tells its memory, now and at most, in bytes.
async fn serve(program: &Path, prometheus: &str, quick: bool) -> Result<(f64, f64)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("collector.toml");
    fs::write(&path, configuration(prometheus))?;
    let mut serving = Serving::start(program, &path)?;

    let started = Instant::now();
    while !serving.get("/api/v1/replicas").is_ok_and(|list| is_known(&list)) {
        serving.still_runs()?;
        ensure!(
            started.elapsed() < KNOWN_WITHIN,
            "the collector does not know the whole fleet after {KNOWN_WITHIN:?}"
        );
        sleep(Duration::from_millis(200)).await;
    }
    let cycles = if quick { 2 } else { 6 };
    sleep(INTERVAL * cycles).await;
    ensure!(
        is_known(&serving.get("/api/v1/replicas")?),
        "the collector has forgotten a part of the fleet"
    );
    serving.memory()
}

/// Whether each variant is there with all its pods.
fn is_known(list: &Value) -> bool {
    let pods = |item: &Value| item["replicas"].as_array().map_or(0, Vec::len);
    let items = list["items"].as_array();
    items.is_some_and(|items| {
        items.len() == VARIANTS && items.iter().all(|item| pods(item) == PODS as usize)
    })
}

fn configuration(prometheus: &str) -> String {
    let interval = INTERVAL.as_secs();
    let mut text = format!(
        "[cache]\nttl = \"{interval}s\"\nfetch_interval = \"{interval}s\"\n\
         [prometheus]\nurl = \"{prometheus}\"\nallow_http = true\ntimeout = \"2s\"\n\
         scrape_interval = \"{interval}s\"\n"
    );
    for number in 0..VARIANTS {
        let model = model(number);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "[[variants]]\nname = \"variant-{number}\"\nnamespace = \"prod\"\nmodel = \"{model}\"\n\
             accelerator = \"H100\"\npods = \"variant-{number}-*\"\n"
        );
    }
    text
}

/// How long a user waits for one reading, process start and end included.
fn get(program: &Path, prometheus: &str, times: usize) -> Result<Vec<Duration>> {
    let one = || {
        let mut command = command(program);
        command
            .args([
                "get",
                "replicas",
                "-o",
                "json",
                "-n",
                "prod",
                "-m",
                &model(0),
                "--log-level",
                "error",
            ])
            .env("PROMETHEUS_BASE_URL", prometheus)
            .env("PROMETHEUS_ALLOW_HTTP", "true");
        let started = Instant::now();
        let status = command.status().context("cannot run the collector")?;
        let waited = started.elapsed();
        ensure!(status.success(), "collector get replicas: {status}");
        Ok(waited)
    };
    // The first one also reads the program from disk.
    one()?;
    (0..times).map(|_| one()).collect()
}
