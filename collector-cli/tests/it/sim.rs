// SPDX-License-Identifier: Apache-2.0
//! `collector sim`: the simulated fleet as a program of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::process::{collector, run};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/fleet.toml");

/// A running `sim`, killed with this.
struct Sim {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// What it printed when it was ready.
    printed: Value,
}

struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Sim {
    fn start(args: &[&str]) -> Self {
        let mut child = collector()
            .args(["sim", "--listen", "127.0.0.1:0", "-o", "json"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let printed = serde_json::from_str(&line).unwrap();
        Self { child, stdout, printed }
    }

    fn control(&self) -> &str {
        self.printed["control"].as_str().unwrap().strip_prefix("http://").unwrap()
    }

    fn ask(&self, request_line: &str, body: &str) -> Answer {
        ask(self.control(), request_line, body)
    }

    fn address_of(&self, pod: &str) -> String {
        let targets = self.printed["targets"].as_array().unwrap();
        let target = targets.iter().find(|target| target["pod"] == pod).unwrap();
        target["address"].as_str().unwrap().to_owned()
    }

    /// Sends a signal and waits for the end; the exit code and what was printed meanwhile.
    fn stop(mut self, signal: &str) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(address: &str, request_line: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    // 1.0, so that no body comes in chunks and the connection ends with the answer.
    let request =
        format!("{request_line} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), body: body.to_owned() }
}

/// A file of this name with this in it.
fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[cfg(feature = "epp")]
#[test]
fn every_pod_of_the_example_fleet_passes_the_check_by_direct_scraping() {
    let folder = tempfile::TempDir::new().unwrap();
    let targets = folder.path().join("targets.json");
    let _sim = Sim::start(&["--fleet", EXAMPLE, "--targets", targets.to_str().unwrap()]);
    let config = EXAMPLE.replace("fleet.toml", "direct-scraping.toml");
    let config = std::fs::read_to_string(config).unwrap();
    let config = file(folder.path(), "collector.toml", &config);
    let ended = run(&mut collector(), &["check", "--config", &config, "-o", "json"]);
    assert_eq!(ended.exit, 0, "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("all 15 targets answer"), "{}", ended.stdout);
}

const SMALL: &str = r#"
[[variants]]
namespace = "ns"
name = "v"
model = "org/model"
pods = 1
"#;

#[test]
fn the_example_fleet_shows_every_kind_of_page_until_sigterm() {
    let sim = Sim::start(&["--fleet", EXAMPLE]);
    for (pod, family) in [
        ("llama-8b-h100-3", "vllm:kv_cache_usage_perc{"),
        ("llama-8b-a100-0", "vllm:gpu_cache_usage_perc{"),
        ("qwen-32b-1", "sglang:token_usage{dp_rank=\"1\","),
        ("mistral-lora-0", "vllm:lora_requests_info{max_lora=\"3\","),
        ("llama-70b-trtllm-0", "trtllm_kv_cache_utilization{"),
        ("gemma-triton-0", "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\","),
        ("chat-pool-epp", "llm_d_epp_average_queue_size{name=\"chat-pool\"}"),
        ("tools-pool-epp", "inference_pool_ready_pods{name=\"tools-pool\"} 4\n"),
    ] {
        let page = ask(&sim.address_of(pod), "GET /metrics", "");
        assert_eq!(page.status, 200, "{pod}");
        assert!(page.body.contains(family), "no {family} on the page of {pod}");
    }
    let state = sim.ask("GET /state", "").json();
    assert!(state["simulated_seconds"].as_f64().unwrap() >= 300.0);
    let names: Vec<_> = state["variants"].as_array().unwrap().iter().map(|v| &v["name"]).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    let (exit, rest) = sim.stop("-TERM");
    assert_eq!((exit, rest.as_str()), (Some(0), ""));
}

#[test]
fn loads_pods_and_faults_change_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Sim::start(&["--fleet", &file(folder.path(), "fleet.toml", SMALL)]);
    let pod = sim.address_of("v-0");

    assert_eq!(sim.ask("PUT /pods/ns/v-0/faults", r#"{"status": 502}"#).status, 204);
    assert_eq!(ask(&pod, "GET /metrics", "").status, 502);
    assert_eq!(sim.ask("DELETE /faults", "").status, 204);
    assert_eq!(ask(&pod, "GET /metrics", "").status, 200);

    let load = sim.ask("POST /variants/ns/v/load", r#"{"requests_per_minute": 0}"#);
    assert_eq!(load.json()["requests_per_minute"], 0.0);
    assert_eq!(sim.ask("POST /variants/ns/v/load", r#"{"rate": 0}"#).status, 400);

    assert_eq!(sim.ask("POST /pods/ns/v-0", r#"{"action": "kill"}"#).status, 204);
    assert!(TcpStream::connect(&pod).is_err());
    assert_eq!(sim.ask("POST /pods/ns/v-0", r#"{"action": "restart"}"#).status, 204);
    assert_eq!(ask(&pod, "GET /metrics", "").status, 200);
    assert_eq!(sim.ask("DELETE /pods/ns/nobody", "").status, 404);
}

#[test]
fn the_targets_file_follows_the_pods() {
    let folder = tempfile::tempdir().unwrap();
    let targets = folder.path().join("targets.json");
    let fleet = file(folder.path(), "fleet.toml", SMALL);
    let sim = Sim::start(&["--fleet", &fleet, "--targets", targets.to_str().unwrap()]);
    let written =
        || -> Value { serde_json::from_slice(&std::fs::read(&targets).unwrap()).unwrap() };
    let expected = json!([{
        "targets": [sim.address_of("v-0")],
        "labels": { "namespace": "ns", "pod": "v-0" },
    }]);
    assert_eq!(written(), expected);
    assert_eq!(sim.ask("GET /targets", "").json(), expected);

    let added = sim.ask("POST /variants/ns/v/pods", "").json();
    assert_eq!(added["pod"], "v-1");
    assert_eq!(written()[1]["targets"], json!([added["address"]]));
    sim.ask("DELETE /pods/ns/v-0", "");
    assert_eq!(written().as_array().unwrap().len(), 1);
}

#[test]
fn a_description_may_be_yaml_and_the_result_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = "variants:\n  - namespace: ns\n    name: v\n    model: org/model\n    pods: 1\n    \
                engine:\n      kind: sglang\n    load:\n      itl: 25ms\n      \
                shape: { kind: wave, period: 60s }\n";
    let fleet = file(folder.path(), "fleet.yaml", yaml);
    let mut child = collector()
        .args(["sim", "--fleet", &fleet, "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut printed = String::new();
    while !printed.contains("stops it") {
        assert!(stdout.read_line(&mut printed).unwrap() > 0, "it ended: {printed}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(printed.starts_with("control on http://127.0.0.1:"), "{printed}");
    assert!(printed.contains("org/model   sglang   http://127.0.0.1:"), "{printed}");
}

#[test]
fn it_stops_though_a_pod_hangs_and_clients_stay() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Sim::start(&["--fleet", &file(folder.path(), "fleet.toml", SMALL)]);
    sim.ask("PUT /faults", r#"{"hang": true}"#);
    let mut hanging = TcpStream::connect(sim.address_of("v-0")).unwrap();
    hanging.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let _idle = TcpStream::connect(sim.control()).unwrap();
    assert_eq!(sim.stop("-INT").0, Some(0));
}

#[test]
fn what_makes_no_fleet_exits_with_2_and_says_where_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = 0;
    let mut check = |text: &str, words: &[&str]| {
        case += 1;
        let name = format!("fleet{case}.toml");
        let ended = run(&mut collector(), &["sim", "--fleet", &file(folder.path(), &name, text)]);
        assert_eq!((ended.exit, ended.stdout.as_str()), (2, ""), "{}", ended.stderr);
        for word in words.iter().chain([&name.as_str()]) {
            assert!(ended.stderr.contains(word), "no {word} in {}", ended.stderr);
        }
    };
    check("", &["describes no variants"]);
    check("sed = 1\n", &["line 1", "sed", "seed"]);
    check(&format!("{SMALL}pots = 3\n"), &["pots", "pods"]);
    check(&format!("{SMALL}engine = {{ kind = \"vlm\" }}\n"), &["vlm", "vllm", "sglang"]);
    check(&format!("{SMALL}load = {{ itl = \"20\" }}\n"), &["20", "unit"]);
    check(&format!("{SMALL}engine = {{ num_gpu_blocks = 1 }}\n"), &["\"v\"", "could never run"]);
    check(&format!("{SMALL}{SMALL}"), &["two of this name"]);

    let missing = run(&mut collector(), &["sim", "--fleet", "/nowhere.toml"]);
    assert_eq!(missing.exit, 2, "{}", missing.stderr);
    assert!(missing.stderr.contains("/nowhere.toml"), "{}", missing.stderr);
}

#[test]
fn where_it_cannot_listen_or_write_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = file(folder.path(), "fleet.toml", SMALL);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (listen, port) = (address.to_string(), address.port().to_string());
    for (args, exit, words) in [
        (&["--listen", listen.as_str()][..], 1, listen.as_str()),
        (&["--listen", "127.0.0.1:0", "--port", &port], 1, &listen),
        (&["--listen", "0.0.0.0:9470"], 2, "loopback"),
        (&["--listen", "127.0.0.1:0", "--port", "0"], 2, "--port"),
        (&["--listen", "127.0.0.1:0", "--targets", "/nowhere/t.json"], 1, "/nowhere/t.json"),
        (&["--listen", "127.0.0.1:0", "-o", "wide"], 2, "wide"),
        (&["--listen", "127.0.0.1:0", "--backend", "prometheus"], 2, "--backend"),
    ] {
        let ended = run(&mut collector(), &[&["sim", "--fleet", &fleet], args].concat());
        assert_eq!((ended.exit, ended.stdout.as_str()), (exit, ""), "{}", ended.stderr);
        assert!(ended.stderr.contains(words), "no {words} in {}", ended.stderr);
    }
}
