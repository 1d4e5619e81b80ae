// SPDX-License-Identifier: Apache-2.0
//! What a large cluster costs: 10 000 pods of 1000 workloads in 200 namespaces. The server is a process of its own, so
//! that memory and CPU are those of the watches alone. Not a part of the tests, because it measures:
//!
//! `cargo test --release -p collector-kubernetes --test it -- --ignored --nocapture scale::costs`
#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use collector_core::{
    Answer, Answers, LiveContext, LiveSource as _, ModelRef, SystemClock, UpdateSink,
    VariantDirectory as _,
};
use collector_kubernetes::Cluster;
use collector_testkit::kubernetes::{self, fixtures};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep};

use crate::fixture::Kubeconfig;

const NAMESPACES: usize = 200;
const WORKLOADS: usize = 1000;
const PODS_EACH: u8 = 10;
const CHANGES_A_SECOND: usize = 100;
const MEASURED: Duration = Duration::from_secs(20);

fn namespace(workload: usize) -> String {
    format!("ns-{}", workload % NAMESPACES)
}

fn model(workload: usize) -> ModelRef {
    ModelRef::new(format!("org/model-{workload}"), namespace(workload))
}

fn objects(workload: usize) -> Vec<Value> {
    let (namespace, name) = (namespace(workload), format!("d-{workload}"));
    let mut objects = fixtures::deployment(&namespace, &name, PODS_EACH);
    // A pod of a real cluster has several kB, half of them managed fields.
    let fields: Vec<Value> = (0..40)
        .map(|n| json!({"manager": "kubelet", "operation": "Update", "path": format!("f:status/f:field-{n}"),
            "fieldsV1": {"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}}}}}}))
        .collect();
    for object in &mut objects {
        object["metadata"]["managedFields"] = fields.clone().into();
    }
    let annotations =
        [("llm-d.ai/managed", "true"), ("llm-d.ai/model-id", &*format!("org/model-{workload}"))];
    let hpa = fixtures::horizontal_pod_autoscaler(&namespace, &name, &name);
    objects.push(hpa.annotations(&annotations).build());
    objects
}

/// The server of `costs`, in a process of its own: prints its address, and changes pods once a line comes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of scale::costs"]
async fn server() {
    let server = kubernetes::Cluster::start().await.unwrap();
    server.set_history(100_000);
    (0..WORKLOADS).for_each(|workload| server.apply_all(objects(workload)));
    println!("\nserver {}", server.url());
    let lines = || tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    lines().await.unwrap().unwrap();
    let end = lines();
    let mut every = interval(Duration::from_secs(1) / u32::try_from(CHANGES_A_SECOND).unwrap());
    let mut changes = 0;
    while !end.is_finished() {
        every.tick().await;
        let workload = changes * 7 % WORKLOADS;
        let pods = objects(workload);
        let mut pod = pods[2 + changes % usize::from(PODS_EACH)].clone();
        let ready = if (changes / WORKLOADS).is_multiple_of(2) { "False" } else { "True" };
        pod["status"]["conditions"][0]["status"] = ready.into();
        server.apply(pod);
        changes += 1;
    }
}

struct Server(Child);

impl Server {
    fn start() -> (Self, String) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "scale::server"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = |line: String| line.strip_prefix("server ").map(str::to_owned);
        let url = lines.map_while(Result::ok).find_map(url).unwrap();
        (Self(child), url)
    }

    fn begin_changes(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Counts what is pushed.
#[derive(Default)]
struct Counts {
    found: watch::Sender<usize>,
    pushed: AtomicUsize,
}

impl UpdateSink for Counts {
    fn push(&self, answers: Answers) {
        let found = answers.iter().filter(|(_, answer)| matches!(answer, Answer::Found(_))).count();
        self.pushed.fetch_add(answers.len(), Ordering::Relaxed);
        self.found.send_modify(|count| *count += found);
    }

    fn cycle_ended(&self) {}
}

fn status(key: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// CPU seconds of this process, in ticks of 10 ms.
fn cpu() -> f64 {
    cpu_of(std::process::id())
}

fn cpu_of(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it measures"]
async fn costs() {
    let (mut server, url) = Server::start();
    let kubeconfig = Kubeconfig::new(&url);
    let cluster = Cluster::new(kubeconfig.config(), Arc::new(SystemClock::new())).unwrap();
    cluster.tracked(Arc::new((0..WORKLOADS).map(model).collect()));
    let counts = Arc::new(Counts::default());
    let of_server = cpu_of(server.0.id());
    let (began, before) = (Instant::now(), status("VmRSS"));
    let sink = Arc::<Counts>::clone(&counts);
    let context = LiveContext::new(sink, Arc::new(SystemClock::new()));
    let live = cluster.clone();
    let task = tokio::spawn(async move { live.run(context).await });
    counts.found.subscribe().wait_for(|found| *found >= WORKLOADS).await.unwrap();
    let cpu_of_sync = cpu();
    let of_server = cpu_of(server.0.id()) - of_server;
    println!(
        "first sync: {:.2} s, {cpu_of_sync:.2} s of CPU, and {of_server:.2} s of the server",
        began.elapsed().as_secs_f64()
    );
    println!(
        "memory: {:.0} MB, at most {:.0} MB, {before:.0} MB before",
        status("VmRSS"),
        status("VmHWM")
    );

    let directory = cluster.directory();
    let looked_up: Vec<_> = (0..WORKLOADS)
        .map(|workload| (model(workload), format!("d-{workload}-5d4f8c7b9-3").into()))
        .collect();
    let began = Instant::now();
    for (model, pod) in looked_up.iter().cycle().take(1_000_000) {
        assert!(black_box(directory.variant_of(model, pod)).is_some());
    }
    println!("look-up: {:.0} ns", began.elapsed().as_nanos() as f64 / 1e6);

    for changes in [false, true] {
        if changes {
            server.begin_changes();
            sleep(Duration::from_secs(1)).await;
        }
        let (before, pushed) = (cpu(), counts.pushed.load(Ordering::Relaxed));
        sleep(MEASURED).await;
        let share = (cpu() - before) / MEASURED.as_secs_f64() * 100.0;
        let pushed =
            (counts.pushed.load(Ordering::Relaxed) - pushed) as f64 / MEASURED.as_secs_f64();
        let a_second = if changes { CHANGES_A_SECOND } else { 0 };
        println!(
            "{a_second} changes a second: {share:.1} % of a core, {pushed:.0} models pushed a second"
        );
    }
    println!("memory: {:.0} MB, at most {:.0} MB", status("VmRSS"), status("VmHWM"));
    task.abort();
}
