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
const PODS: usize = 50;
/// What a vLLM with a few adapters shows.
const PAGE_BYTES: usize = 100_000;

/// For the fleet to listen, and for the collector to have seen all of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures `program` on 1000 pods.
pub(crate) async fn measure(program: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (fleet, targets) = (folder.path().join("fleet.toml"), folder.path().join("targets.json"));
    let configuration = folder.path().join("collector.toml");
    fs::write(&fleet, fleet_of(VARIANTS, PODS))?;
    fs::write(&configuration, configured())?;
    let mut simulating = Simulating::start(program, &fleet, &targets)?;
    let started = Instant::now();
    while !targets.exists() {
        simulating.still_runs()?;
        ensure!(started.elapsed() < PATIENCE, "the simulated fleet does not listen");
        sleep(Duration::from_millis(50)).await;
    }
    let mut serving = Serving::start(program, &configuration)?;
    let started = Instant::now();
    while !serving.get("/api/v1/replicas").is_ok_and(|list| pods_of(&list) == VARIANTS * PODS) {
        serving.still_runs()?;
        ensure!(started.elapsed() < PATIENCE, "the collector does not see the whole fleet");
        sleep(Duration::from_millis(200)).await;
    }
    // Connections are open and buffers have their size.
    sleep(Duration::from_secs(3)).await;

    let seconds = if quick { 6 } else { 20 };
    let scrapes = |outcome| serving.counter("collector_epp_scrapes_total", outcome);
    let (ok, failed) = (scrapes("outcome=\"ok\"")?, scrapes("outcome=\"failed\"")?);
    let (used, simulator_used) = (serving.cpu()?, simulating.cpu()?);
    let began = Instant::now();
    let mut worst_age: f64 = 0.0;
    for _ in 0..seconds {
        sleep(Duration::from_secs(1)).await;
        worst_age = worst_age.max(oldest(&serving.get("/api/v1/replicas")?));
    }
    let used = serving.cpu()?.saturating_sub(used);
    let simulator_used = simulating.cpu()?.saturating_sub(simulator_used);
    let took = began.elapsed().as_secs_f64();
    let (ok, failed) = (scrapes("outcome=\"ok\"")? - ok, scrapes("outcome=\"failed\"")? - failed);
    let (resident, _) = serving.memory()?;

    let core = used.as_secs_f64() / took;
    let each = used.as_secs_f64() / ok;
    let figure = |name, value, unit| Figure { name, value, unit };
    report.row(
        SUITE,
        "serve, 1000 pods of 100 KB pages each second",
        "collector",
        &[
            figure("scrapes", ok / took, "/s"),
            figure("failed", failed, ""),
            figure("processor", core, "cores"),
            figure("a scrape", each * 1e6, "us"),
            figure("resident", resident / 1e6, "MB"),
            figure("oldest", worst_age, "s"),
            figure("at 50 ms", 0.05 / each, "pods a core"),
            figure("simulator", simulator_used.as_secs_f64() / took, "cores"),
        ],
    );
    report.goal("scrape.1000.core", 1.0, core);
    report.goal("scrape.1000.resident_mb", 64.0, resident / 1e6);
    report.goal("scrape.1000.failed", 0.0, failed);
    // Each pod's page is from within its interval: an interval, a scrape, and the time to the read.
    report.goal("scrape.1000.oldest_s", 1.5, worst_age);
    Ok(())
}

fn model(variant: usize) -> String {
    format!("org/model-{variant}")
}

fn fleet_of(variants: usize, pods: usize) -> String {
    let mut toml = "seed = 1\nwarm_up = \"1m\"\n".to_owned();
    for variant in 0..variants {
        // Writing to a string cannot fail.
        let _ = write!(
            toml,
            "[[variants]]\nname = \"v{variant}\"\nnamespace = \"prod\"\nmodel = \"{}\"\n\
             pods = {pods}\nengine = {{ page_bytes = {PAGE_BYTES} }}\n\
             load = {{ requests_per_minute = 600 }}\n",
            model(variant)
        );
    }
    toml
}

fn configured() -> String {
    let mut toml = "backend = \"epp\"\n[epp]\ntarget_file = \"targets.json\"\n".to_owned();
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
