// SPDX-License-Identifier: Apache-2.0
//! What a thousand pods cost that are scraped each second: `collector serve` on a fleet of `collector
//! sim`, each in a process of its own.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::collector::{Serving, Simulating};
use crate::report::{Figure, Report};

const SUITE: &str = "scrape";
const VARIANTS: usize = 20;
/// What a vLLM with a few adapters shows.
const PAGE_BYTES: usize = 100_000;

/// For the fleet to listen, and for the collector to have seen all of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fleet, and how often its pods are scraped.
struct Case {
    name: &'static str,
    pods_of_variant: usize,
    interval: &'static str,
}

/// What was measured of it.
struct Cost {
    scrapes_per_second: f64,
    failed: f64,
    cores: f64,
    resident: f64,
    worst_age: f64,
    simulator_cores: f64,
}

/// Measures `program` on 1000 pods, and on as many as leave the simulator room at the shortest interval.
pub(crate) async fn measure(program: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let seconds = if quick { 6 } else { 20 };
    let thousand = Case {
        name: "serve, 1000 pods of 100 KB pages each second",
        pods_of_variant: 50,
        interval: "1s",
    };
    let cost = run(program, &thousand, seconds).await?;
    tell(report, &thousand, &cost);
    report.goal("scrape.1000.core", 1.0, cost.cores);
    report.goal("scrape.1000.resident_mb", 64.0, cost.resident / 1e6);
    report.goal("scrape.1000.failed", 0.0, cost.failed);
    // Each pod's page is from within its interval: an interval, a scrape, and the time to the read.
    report.goal("scrape.1000.oldest_s", 1.5, cost.worst_age);

    let often = Case { name: "serve, 100 pods each 50 ms", pods_of_variant: 5, interval: "50ms" };
    let cost = run(program, &often, seconds).await?;
    tell(report, &often, &cost);
    Ok(())
}

fn tell(report: &mut Report, case: &Case, cost: &Cost) {
    let figure = |name, value, unit| Figure { name, value, unit };
    let pods = (VARIANTS * case.pods_of_variant) as f64;
    report.row(
        SUITE,
        case.name,
        "collector",
        &[
            figure("scrapes", cost.scrapes_per_second, "/s"),
            figure("failed", cost.failed, ""),
            figure("processor", cost.cores, "cores"),
            figure("a scrape", cost.cores / cost.scrapes_per_second * 1e6, "us"),
            figure("a core has", pods / cost.cores, "pods"),
            figure("resident", cost.resident / 1e6, "MB"),
            figure("oldest", cost.worst_age, "s"),
            figure("simulator", cost.simulator_cores, "cores"),
        ],
    );
}

async fn run(program: &Path, case: &Case, seconds: u32) -> Result<Cost> {
    let pods = VARIANTS * case.pods_of_variant;
    let folder = tempfile::tempdir()?;
    let (fleet, targets) = (folder.path().join("fleet.toml"), folder.path().join("targets.json"));
    let configuration = folder.path().join("collector.toml");
    fs::write(&fleet, fleet_of(case))?;
    fs::write(&configuration, configured(case))?;
    let mut simulating = Simulating::start(program, &fleet, &targets)?;
    let started = Instant::now();
    while !targets.exists() {
        simulating.still_runs()?;
        ensure!(started.elapsed() < PATIENCE, "the simulated fleet does not listen");
        sleep(Duration::from_millis(50)).await;
    }
    let mut serving = Serving::start(program, &configuration)?;
    let started = Instant::now();
    while !serving.get("/api/v1/replicas").is_ok_and(|list| pods_of(&list) == pods) {
        serving.still_runs()?;
        ensure!(started.elapsed() < PATIENCE, "the collector does not see the whole fleet");
        sleep(Duration::from_millis(200)).await;
    }
    // Connections are open and buffers have their size.
    sleep(Duration::from_secs(3)).await;

    let scrapes = |outcome| serving.counter("collector_epp_scrapes_total", outcome);
    let (ok, failed) = (scrapes("outcome=\"ok\"")?, scrapes("outcome=\"failed\"")?);
    let (used, simulator_used) = (serving.cpu()?, simulating.cpu()?);
    let began = Instant::now();
    let mut worst_age: f64 = 0.0;
    for _ in 0..seconds {
        sleep(Duration::from_secs(1)).await;
        worst_age = worst_age.max(oldest(&serving.get("/api/v1/replicas")?));
    }
    let took = began.elapsed().as_secs_f64();
    let cores = |now: Duration, before| now.saturating_sub(before).as_secs_f64() / took;
    Ok(Cost {
        scrapes_per_second: (scrapes("outcome=\"ok\"")? - ok) / took,
        failed: scrapes("outcome=\"failed\"")? - failed,
        cores: cores(serving.cpu()?, used),
        resident: serving.memory()?.0,
        worst_age,
        simulator_cores: cores(simulating.cpu()?, simulator_used),
    })
}

fn model(variant: usize) -> String {
    format!("org/model-{variant}")
}

fn fleet_of(case: &Case) -> String {
    let mut toml = "seed = 1\nwarm_up = \"1m\"\n".to_owned();
    for variant in 0..VARIANTS {
        // Writing to a string cannot fail.
        let _ = write!(
            toml,
            "[[variants]]\nname = \"v{variant}\"\nnamespace = \"prod\"\nmodel = \"{}\"\n\
             pods = {}\nengine = {{ page_bytes = {PAGE_BYTES} }}\n\
             load = {{ requests_per_minute = 600 }}\n",
            model(variant),
            case.pods_of_variant,
        );
    }
    toml
}

fn configured(case: &Case) -> String {
    let mut toml = format!(
        "backend = \"epp\"\n[epp]\ntarget_file = \"targets.json\"\nscrape_interval = \"{}\"\n",
        case.interval
    );
    for variant in 0..VARIANTS {
        let _ = write!(
            toml,
            "[[variants]]\nname = \"v{variant}\"\nnamespace = \"prod\"\nmodel = \"{}\"\n\
             pods = \"v{variant}-*\"\n",
            model(variant)
        );
    }
    toml
}

fn pods_of(list: &Value) -> usize {
    replicas(list).count()
}

fn oldest(list: &Value) -> f64 {
    replicas(list).filter_map(|replica| replica["ageSeconds"].as_f64()).fold(0.0, f64::max)
}

fn replicas(list: &Value) -> impl Iterator<Item = &Value> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["replicas"].as_array()).flatten()
}
