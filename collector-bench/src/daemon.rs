// SPDX-License-Identifier: Apache-2.0
//! What `collector serve` costs at rest, what its event stream costs, and how long a reload takes.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use collector_testkit::{PrometheusError, PrometheusServer};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use url::form_urlencoded::byte_serialize;

use crate::autoscalers::http::Connection;
use crate::collector::{Serving, Simulating};
use crate::refresh::feed::{Feed, models};
use crate::report::{Figure, Report};

const SUITE: &str = "daemon";
/// For the collector to see the whole fleet.
const PATIENCE: Duration = Duration::from_secs(180);
/// Models at rest, and models that change each second.
const MODELS: usize = 100;
const LISTENERS: usize = 100;
/// Variants of the file that is reloaded.
const VARIANTS: usize = 1000;
const RELOADS: usize = 5;
/// Connections that read without a pause while the configuration is reloaded.
const READERS: usize = 4;
/// How often the collector is asked whether a reload has taken effect.
const LOOK: Duration = Duration::from_millis(2);

pub(crate) async fn measure(program: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    events(program, folder.path(), quick, report).await?;
    let feed = Feed::start_with(VARIANTS, |_| 1).await?;
    let prometheus = match PrometheusServer::start_with(&feed.configuration(5)).await {
        Err(PrometheusError::NotInstalled) => {
            report.note(SUITE, "not measured: there is no `prometheus` program");
            return Ok(());
        }
        other => other?,
    };
    let url = prometheus.url();
    at_rest(program, folder.path(), &url, quick, report).await?;
    reload(program, folder.path(), &url, report).await
}

/// The share of a core that it takes over this time, in percent.
async fn percent_of_a_core(serving: &Serving, time: Duration) -> Result<f64> {
    let before = serving.cpu()?;
    sleep(time).await;
    let used = serving.cpu()?.saturating_sub(before);
    Ok(used.as_secs_f64() / time.as_secs_f64() * 100.0)
}

/// Waits until that number of models have a reading.
async fn all_up(serving: &mut Serving, models: usize) -> Result<()> {
    let began = Instant::now();
    while !serving.counter("collector_reading_up", "").is_ok_and(|up| up >= models as f64) {
        serving.still_runs()?;
        ensure!(began.elapsed() < PATIENCE, "the collector does not see all models");
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// Configures these variants, each of a model of its own.
fn configured(url: &str, variants: usize) -> String {
    let mut toml = format!(
        "[prometheus]\nurl = \"{url}\"\nallow_http = true\nscrape_interval = \"5s\"\n\
         [tracking]\ndiscover = false\n"
    );
    for (index, model) in models(variants).iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(
            toml,
            "[[variants]]\nname = \"v{index}\"\nnamespace = \"{}\"\nmodel = \"{}\"\n",
            model.namespace.as_str(),
            model.model.as_str()
        );
    }
    toml
}

async fn at_rest(
    program: &Path,
    folder: &Path,
    url: &str,
    quick: bool,
    report: &mut Report,
) -> Result<()> {
    let file = folder.join("rest.toml");
    fs::write(&file, configured(url, MODELS))?;
    let mut serving = Serving::start(program, &file)?;
    all_up(&mut serving, MODELS).await?;
    // A whole number of refreshes, which are 30 s apart.
    let time = Duration::from_secs(if quick { 30 } else { 120 });
    let cpu = percent_of_a_core(&serving, time).await?;
    let figure = Figure { name: "CPU", value: cpu, unit: "% of a core" };
    report.row(SUITE, "at rest, 100 tracked models", "collector", &[figure]);
    report.goal("daemon.at_rest_percent", 1.0, cpu);
    Ok(())
}

async fn events(program: &Path, folder: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let (fleet, targets) = (folder.join("fleet.toml"), folder.join("targets.json"));
    let mut toml = "seed = 1\nwarm_up = \"1m\"\n".to_owned();
    for index in 0..MODELS {
        let _ = write!(
            toml,
            "[[variants]]\nname = \"v{index}\"\nnamespace = \"prod\"\nmodel = \"org/model-{index}\"\npods = 1\n\
             load = {{ requests_per_minute = 60 }}\n"
        );
    }
    fs::write(&fleet, toml)?;
    let mut simulating = Simulating::start(program, &fleet, &targets)?;
    let began = Instant::now();
    while !targets.exists() {
        simulating.still_runs()?;
        ensure!(began.elapsed() < PATIENCE, "the simulator does not listen");
        sleep(Duration::from_millis(100)).await;
    }
    let file = folder.join("events.toml");
    fs::write(&file, "backend = \"scrape\"\n[scrape]\ntarget_file = \"targets.json\"\n")?;
    let mut serving = Serving::start(program, &file)?;
    all_up(&mut serving, MODELS).await?;
    let time = Duration::from_secs(if quick { 15 } else { 60 });
    let without = percent_of_a_core(&serving, time).await?;
    let counts = Arc::new([const { AtomicU64::new(0) }; 2]);
    let mut listeners = JoinSet::new();
    for _ in 0..LISTENERS {
        listeners.spawn(listen(serving.address(), Arc::clone(&counts)));
    }
    // They get all models first.
    sleep(Duration::from_secs(3)).await;
    let load = |index: usize| counts[index].load(Ordering::Relaxed) as f64;
    let (events, bytes) = (load(0), load(1));
    let with = percent_of_a_core(&serving, time).await?;
    let (events, bytes) = (load(0) - events, load(1) - bytes);
    if let Some(ended) = listeners.try_join_next() {
        ended??;
    }
    let seconds = time.as_secs_f64();
    let cost = (with - without).max(0.0);
    let figures = [
        Figure { name: "CPU", value: cost, unit: "% of a core" },
        Figure { name: "without listeners", value: without, unit: "% of a core" },
        Figure { name: "events to each", value: events / seconds / LISTENERS as f64, unit: "/s" },
        Figure { name: "to all", value: bytes / seconds / 1e6, unit: "MB/s" },
    ];
    report.row(SUITE, "events, 100 listeners of 100 models", "collector", &figures);
    report.goal("daemon.events_percent", 3.0, cost);
    Ok(())
}

/// Reads events for as long as there are any; counts them and their bytes.
async fn listen(address: SocketAddr, counts: Arc<[AtomicU64; 2]>) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /api/v1/events HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = stream.read(&mut buffer).await?;
        ensure!(read > 0, "the stream of events has ended");
        // One that two reads share is not counted.
        let events = memmem::find_iter(&buffer[..read], b"event: model\n").count();
        counts[0].fetch_add(events as u64, Ordering::Relaxed);
        counts[1].fetch_add(read as u64, Ordering::Relaxed);
    }
}

/// The time from the signal until one more variant is tracked, while others read.
async fn reload(program: &Path, folder: &Path, url: &str, report: &mut Report) -> Result<()> {
    let file = folder.join("reload.toml");
    fs::write(&file, configured(url, VARIANTS))?;
    let mut serving = Serving::start(program, &file)?;
    all_up(&mut serving, VARIANTS).await?;
    let first = models(1).swap_remove(0);
    let part = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let path = format!(
        "/api/v1/replicas?namespace={}&model={}",
        part(first.namespace.as_str()),
        part(first.model.as_str())
    );
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let mut connection = Connection::open(serving.address(), &path).await?;
        let stop = Arc::clone(&stop);
        readers.spawn(async move {
            let (mut reads, mut failed) = (0_u32, 0_u32);
            while !stop.load(Ordering::Relaxed) {
                let (status, _) = connection.ask().await?;
                reads += 1;
                failed += u32::from(status != 200);
                sleep(Duration::from_millis(1)).await;
            }
            anyhow::Ok((reads, failed))
        });
    }
    let mut times = Vec::new();
    for round in 0..RELOADS {
        let time = reloaded(&serving, &file, url, VARIANTS + 1 + round).await?;
        times.push(time.as_secs_f64() * 1e3);
        sleep(Duration::from_secs(1)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut reads, mut failed) = (0.0, 0.0);
    while let Some(ended) = readers.join_next().await {
        let of_one = ended??;
        reads += f64::from(of_one.0);
        failed += f64::from(of_one.1);
    }
    times.sort_by(f64::total_cmp);
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    let figures = [
        Figure { name: "median", value: median, unit: "ms" },
        Figure { name: "slowest", value: worst, unit: "ms" },
        Figure { name: "reads meanwhile", value: reads, unit: "" },
        Figure { name: "failed", value: failed, unit: "" },
    ];
    report.row(SUITE, "reload, 1000 variants", "collector", &figures);
    report.goal("daemon.reload_ms", 200.0, median);
    report.goal("daemon.reload_failed_reads", 0.0, failed);
    Ok(())
}

/// Replaces the watched file by one with that number of variants, and waits until all are tracked.
async fn reloaded(serving: &Serving, file: &Path, url: &str, variants: usize) -> Result<Duration> {
    let new = file.with_extension("new");
    fs::write(&new, configured(url, variants))?;
    let mut connection = Connection::open(serving.address(), "/readyz").await?;
    fs::rename(&new, file)?;
    let began = Instant::now();
    serving.reload()?;
    loop {
        let (_, body) = connection.ask().await?;
        let ready: serde_json::Value = serde_json::from_slice(body)?;
        let tracked = ready["tracked"].as_u64().context("/readyz shows no `tracked`")?;
        if tracked == variants as u64 {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < PATIENCE, "{tracked} models are tracked, and not {variants}");
        sleep(LOOK).await;
    }
}
