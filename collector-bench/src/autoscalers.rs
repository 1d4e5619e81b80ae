// SPDX-License-Identifier: Apache-2.0
//! What autoscalers cost that read through the collector: the Prometheus behind it, and the collector itself.

mod grpc;
pub(crate) mod http;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use collector_core::ModelRef;
use collector_keda::api::ScaledObjectRef;
use collector_testkit::{PrometheusError, PrometheusServer};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use url::form_urlencoded::byte_serialize;

use self::grpc::{Scaler, trigger};
use self::http::{Bare, Connection};
use crate::collector::Serving;
use crate::refresh::feed::{Feed, models};
use crate::report::{Figure, Report};

const SUITE: &str = "autoscalers";
/// ScaledObjects, each with a model and three triggers.
const OBJECTS: usize = 200;
/// KEDA's own poll, and that of the HPA through it.
const KEDA_EVERY: Duration = Duration::from_secs(5);
const HPA_EVERY: Duration = Duration::from_secs(15);
/// For the server to have seen every pod.
const PATIENCE: Duration = Duration::from_secs(120);
const CONNECTIONS: u32 = 8;
/// Calls at a time on KEDA's one connection.
const SCALER_CALLS: usize = 32;

/// Measures the program behind a real Prometheus.
pub(crate) async fn measure(program: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let feed = Feed::start(OBJECTS).await?;
    let prometheus = match PrometheusServer::start_with(&feed.configuration(15)).await {
        Err(PrometheusError::NotInstalled) => {
            report.note(SUITE, "not measured: there is no `prometheus` program");
            return Ok(());
        }
        other => other?,
    };
    let folder = tempfile::tempdir()?;
    let start = |name: &str, more: &str| {
        let configuration = folder.path().join(name);
        let toml = format!(
            "[prometheus]\nurl = \"{}\"\nallow_http = true\nscrape_interval = \"15s\"\n\
             [promql]\nenabled = true\n{more}",
            prometheus.url()
        );
        fs::write(&configuration, toml)?;
        Serving::start(program, &configuration)
    };
    let direct = Door::direct(&prometheus)?;
    wait_for_series(&direct).await?;
    let time = Duration::from_secs(if quick { 15 } else { 60 });

    // A collector that refreshes nothing: the bursts of a refresh would hide what queries cost.
    let untracked = start("untracked.toml", "[tracking]\ndiscover = false\n")?;
    let idle = idle(&prometheus, time).await?;
    let of_engines = Arc::new(triggers(OF_ENGINES));
    let polled = poll_door(&direct, &of_engines, time);
    let directly = cost(&prometheus, idle, time, "directly", polled, report).await?;
    let door = Door::guarded(&untracked);
    let polled = poll_door(&door, &of_engines, time);
    let guarded =
        cost(&prometheus, idle, time, "PromQL API, engines' series", polled, report).await?;
    drop(untracked);

    let scaler = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let collector = start("collector.toml", &format!("[keda]\nlisten = \"{scaler}\"\n"))?;
    let door = Door::guarded(&collector);
    wait_for_readings(&collector).await?;
    cached_answers(&door, folder.path(), quick, report).await?;
    refusals(&door, report).await?;
    let scaler = Scaler::connect(scaler).await?;
    signals(&scaler, quick, report).await?;

    // The collector refreshes the fleet without being polled, so the idle time contains that cost.
    let idle = self::idle(&prometheus, time).await?;
    let of_readings = Arc::new(triggers(OF_READINGS));
    let polled = poll_door(&door, &of_readings, time);
    let readings = cost(&prometheus, idle, time, "PromQL API, readings", polled, report).await?;
    let objects = scaler_triggers();
    let ask = |index: usize| {
        let (scaler, object) = (scaler.clone(), objects[index].clone());
        async move { scaler.get_metrics(object).await.map(drop) }
    };
    let polled = poll(objects.len(), ask, time);
    let scaler = cost(&prometheus, idle, time, "external scaler", polled, report).await?;

    // The server's clock shows hundredths of a second, so that less cannot be told from nothing.
    let least = 1e-2 / time.as_secs_f64();
    report.goal_at_least("autoscalers.200.guarded_cpu", 10.0, directly / guarded.max(least));
    report.goal_at_least("autoscalers.200.readings_cpu", 10.0, directly / readings.max(least));
    report.goal_at_least("autoscalers.200.scaler_cpu", 10.0, directly / scaler.max(least));
    Ok(())
}

/// The seconds of CPU that the server spends within this time while nobody polls.
async fn idle(prometheus: &PrometheusServer, time: Duration) -> Result<f64> {
    let nothing = async {
        sleep(time).await;
        Ok(())
    };
    cpu_of(prometheus, nothing).await
}

/// Reports the CPU time a second that the server spends on polls of a system, without what it spends when idle.
async fn cost(
    prometheus: &PrometheusServer,
    idle: f64,
    time: Duration,
    system: &'static str,
    polls: impl Future<Output = Result<()>>,
    report: &mut Report,
) -> Result<f64> {
    let spent = cpu_of(prometheus, polls).await?;
    let spent = (spent - idle).max(0.0) / time.as_secs_f64();
    let figure = Figure { name: "Prometheus CPU", value: spent * 1000.0, unit: "ms/s" };
    report.row(SUITE, "200 ScaledObjects of 3 triggers", system, &[figure]);
    Ok(spent)
}

/// Polls triggers through a door.
async fn poll_door(door: &Door, triggers: &Arc<Vec<String>>, time: Duration) -> Result<()> {
    let address = door.address;
    let ask = |index: usize| {
        let path = Door::path(&triggers[index]);
        async move {
            let mut connection = Connection::open(address, &path).await?;
            let (status, body) = connection.ask().await?;
            ensure!(status == 200, "status {status}: {}", String::from_utf8_lossy(body));
            Ok(())
        }
    };
    poll(triggers.len(), ask, time).await
}

/// Waits until the collector has a reading of each model, which it has discovered.
async fn wait_for_readings(collector: &Serving) -> Result<()> {
    let began = Instant::now();
    loop {
        let fresh = |list: Value| {
            let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
            items.filter(|item| item["status"] == "fresh").count()
        };
        if collector.get("/api/v1/replicas").is_ok_and(|list| fresh(list) == OBJECTS) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "the collector does not see all models");
        sleep(Duration::from_millis(200)).await;
    }
}

/// The time to refuse queries that would keep a parser or a server busy.
async fn refusals(door: &Door, report: &mut Report) -> Result<()> {
    let queries = [
        format!("up{}", " + up".repeat(3_200)),
        format!("{}up{}", "(".repeat(8_000), ")".repeat(8_000)),
        format!("up{}", " + up".repeat(257)),
        "up{a=~\"((a{0,100}){0,100}){0,100}\"}".to_owned(),
    ];
    let mut slowest: f64 = 0.0;
    for query in &queries {
        let path = Door::path(query);
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let mut connection = Connection::open(door.address, &path).await?;
            let began = Instant::now();
            let (status, _) = connection.ask().await?;
            best = best.min(began.elapsed().as_secs_f64());
            ensure!(status == 400, "status {status} for {}", &query[..20]);
        }
        slowest = slowest.max(best);
    }
    let figure = Figure { name: "slowest", value: slowest * 1e3, unit: "ms" };
    report.row(SUITE, "queries that are refused", "collector", &[figure]);
    report.goal("autoscalers.refusal_ms", 10.0, slowest * 1e3);
    Ok(())
}

/// The pace of the external scaler.
async fn signals(scaler: &Scaler, quick: bool, report: &mut Report) -> Result<()> {
    let time = Duration::from_secs(if quick { 2 } else { 5 });
    let pace = scaler.pace(&scaler_triggers(), SCALER_CALLS, time).await?;
    let figure = Figure { name: "answers", value: pace, unit: "/s" };
    report.row(SUITE, "GetMetrics, one connection, 32 calls at a time", "collector", &[figure]);
    report.goal_at_least("autoscalers.get_metrics_per_s", 20e3, pace);
    Ok(())
}

/// The same on the external scaler.
fn scaler_triggers() -> Vec<ScaledObjectRef> {
    let of_model = |model: ModelRef| ["queue", "kv-max", "running"].map(|it| trigger(&model, it));
    models(OBJECTS).into_iter().flat_map(of_model).collect()
}

/// An instant-query API.
struct Door {
    address: SocketAddr,
}

impl Door {
    fn direct(prometheus: &PrometheusServer) -> Result<Self> {
        let url = prometheus.url();
        let address = url.trim_start_matches("http://").trim_end_matches('/').parse();
        Ok(Self { address: address.with_context(|| format!("{url} is not an address"))? })
    }

    fn guarded(collector: &Serving) -> Self {
        Self { address: collector.address() }
    }

    fn path(query: &str) -> String {
        let query: String = byte_serialize(query.as_bytes()).collect();
        format!("/api/v1/query?query={query}")
    }
}

/// Waits until every pod can be queried.
async fn wait_for_series(direct: &Door) -> Result<()> {
    let began = Instant::now();
    let last = models(OBJECTS).pop().context("there are models")?;
    let query = format!("vllm:num_requests_waiting{{model_name=\"{}\"}}", last.model.as_str());
    let path = Door::path(&query);
    loop {
        let mut connection = Connection::open(direct.address, &path).await?;
        let (_, body) = connection.ask().await?;
        if memchr::memmem::find(body, b"\"value\"").is_some() {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "Prometheus does not see all pods");
        sleep(Duration::from_millis(200)).await;
    }
}

/// The pace of one answer from memory, beside the same answer by the web framework alone.
async fn cached_answers(
    door: &Door,
    folder: &Path,
    quick: bool,
    report: &mut Report,
) -> Result<()> {
    let first = models(OBJECTS).swap_remove(0);
    let path = Door::path(&format!(
        "sum(vllm:num_requests_waiting{{namespace=\"{}\",model_name=\"{}\"}})",
        first.namespace.as_str(),
        first.model.as_str()
    ));
    let mut connection = Connection::open(door.address, &path).await?;
    let (status, body) = connection.ask().await?;
    ensure!(status == 200, "status {status}: {}", String::from_utf8_lossy(body));
    let bare = Bare::start(body, folder).await?;
    let (own, peer) = http::beside(&bare, door.address, &path, CONNECTIONS as usize, quick).await?;
    let time = Duration::from_secs(if quick { 1 } else { 3 });
    let p99 = http::p99(door.address, &path, (CONNECTIONS, own / 4.0), time).await?;
    for (system, pace, more) in [
        ("axum alone", peer, None),
        ("collector", own, Some(Figure { name: "p99 at a quarter", value: p99 * 1e3, unit: "ms" })),
    ] {
        let mut figures = vec![Figure { name: "answers", value: pace, unit: "/s" }];
        figures.extend(more);
        report.row(SUITE, "one query from memory, 8 connections", system, &figures);
    }
    report.goal_at_least("autoscalers.cached.vs_axum", 0.6, own / peer);
    report.goal("autoscalers.cached.p99_ms", 5.0, p99 * 1e3);
    Ok(())
}

/// The triggers that people write, on the series of engines.
const OF_ENGINES: [&str; 3] =
    ["vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:num_requests_running"];
/// The same on the collector's readings.
const OF_READINGS: [&str; 3] = [
    "collector_replica_queue_length",
    "collector_replica_kv_cache_usage",
    "collector_replica_running_requests",
];

/// Three triggers for each model: a sum, a maximum and a sum.
fn triggers([waiting, usage, running]: [&str; 3]) -> Vec<String> {
    let of_model = |model: ModelRef| {
        let (namespace, model) = (model.namespace.as_str(), model.model.as_str());
        let labels = format!("namespace=\"{namespace}\",model_name=\"{model}\"");
        [("sum", waiting), ("max", usage), ("sum", running)]
            .map(|(aggregate, name)| format!("{aggregate}({name}{{{labels}}})"))
    };
    models(OBJECTS).into_iter().flat_map(of_model).collect()
}

/// Polls so many triggers as KEDA and the HPA do, each at a time of its own.
async fn poll<F>(triggers: usize, ask: impl Fn(usize) -> F, time: Duration) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let began = Instant::now();
    let mut due: BinaryHeap<Reverse<(Duration, usize, Duration)>> = BinaryHeap::new();
    for index in 0..triggers {
        for every in [KEDA_EVERY, HPA_EVERY] {
            due.push(Reverse((every.mul_f64(fastrand::f64()), index, every)));
        }
    }
    let mut asking = JoinSet::new();
    while let Some(Reverse((at, index, every))) = due.pop() {
        if at >= time {
            continue;
        }
        due.push(Reverse((at + every, index, every)));
        sleep_until(began + at).await;
        asking.spawn(ask(index));
        while let Some(ended) = asking.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = asking.join_next().await {
        ended??;
    }
    Ok(())
}

/// The seconds of CPU that the server spends while this goes on.
async fn cpu_of(
    prometheus: &PrometheusServer,
    work: impl Future<Output = Result<()>>,
) -> Result<f64> {
    let before = cpu(prometheus).await?;
    work.await?;
    Ok(cpu(prometheus).await? - before)
}

async fn cpu(prometheus: &PrometheusServer) -> Result<f64> {
    let page = prometheus.get("/metrics").await?;
    let line = page.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
    Ok(line.context("the server shows no CPU time")?.trim().parse()?)
}
