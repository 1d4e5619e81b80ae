// SPDX-License-Identifier: Apache-2.0
//! `check` of objects that scale, and ScaledObjects that `collector` writes, in front of a real Prometheus.

use std::path::{Path, PathBuf};

use collector_sim::{EngineKind, FleetSpec, MetricNames, PickerSpec};
use serde_json::Value;

use super::fixture::{World, variant};
use crate::process::{Ended, collector, run};

/// A Prometheus over a fleet with an endpoint picker, and a folder with its configuration.
struct Fixture {
    _world: World,
    folder: tempfile::TempDir,
}

impl Fixture {
    async fn start() -> Option<Self> {
        let mut qwen = variant("qwen", "qwen");
        qwen.engine.kind = EngineKind::Sglang;
        let mut old = variant("mixed-old", "mixed");
        old.engine.names = MetricNames::V0;
        let mixed = [variant("mixed-new", "mixed"), old];
        let others = [variant("llama", "llama"), variant("org-llama", "org/llama"), qwen];
        let variants = others.into_iter().chain(mixed).collect();
        let picker = PickerSpec::new("pool", "prod");
        let spec = FleetSpec { variants, pickers: vec![picker], ..FleetSpec::default() };
        let world = World::of(spec).await?;
        // The endpoint picker too.
        world.scrapes(2).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("collector.toml"), world.toml("")).unwrap();
        Some(Self { _world: world, folder })
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, args: &[&str]) -> Ended {
        let mut command = collector();
        command.arg("--config").arg(self.folder.path().join("collector.toml"));
        run(&mut command, args)
    }

    /// The checks of a file, as JSON.
    fn checks(&self, flag: &str, file: &Path) -> (i32, Vec<Value>) {
        let ended = self.run(&["-o", "json", "check", flag, file.to_str().unwrap()]);
        (ended.exit, ended.json()["checks"].as_array().unwrap().clone())
    }
}

/// The details of the checks with this id and status.
fn of(checks: &[Value], id: &str, status: &str) -> Vec<String> {
    let is_it = |check: &&Value| check["id"] == id && check["status"] == status;
    checks.iter().filter(is_it).map(|check| check["detail"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_written_object_passes_its_check() {
    let Some(fixture) = Fixture::start().await else { return };
    for (args, triggers) in [
        (&["org/llama", "--target", "llama"][..], 2),
        (&["org/llama", "--min", "0", "-n", "prod"], 3),
        (&["org/llama", "--signal", "kv-max", "--signal", "kv-sum", "--max", "3"], 3),
        (&["qwen"], 2),
        (&["qwen", "--min", "0", "--signal", "running", "--signal", "kv-max"], 3),
        (&["org/llama", "--door", "keda", "--address", "collector:9465", "--min", "2"], 1),
        (&["qwen", "--door", "keda", "--signal", "kv-max", "--signal", "saturation"], 2),
        (&["qwen", "--door", "keda", "--min", "0"], 2),
        (&["mixed", "--min", "0", "--signal", "kv-sum", "--signal", "kv-max"], 4),
    ] {
        let ended = fixture.run(&[&["scaled-object"], args].concat());
        assert_eq!(ended.exit, 0, "{args:?}: {}", ended.stderr);
        let object: Value = serde_saphyr::from_str(&ended.stdout).unwrap();
        assert_eq!(object["metadata"]["namespace"], "prod", "{args:?}");
        assert_eq!(object["spec"]["triggers"].as_array().unwrap().len(), triggers, "{args:?}");
        let file = fixture.write("object.yaml", &ended.stdout);
        let (exit, checks) = fixture.checks("--scaled-object", &file);
        let bad = |check: &&Value| check["status"] == "fail" || check["status"] == "warn";
        let bad: Vec<&Value> = checks.iter().filter(bad).collect();
        assert_eq!((exit, bad.len()), (0, 0), "{args:?}: {bad:?}\n{}", ended.stdout);
        assert!(!of(&checks, "scaled-object.value", "pass").is_empty(), "{args:?}: {checks:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_has_the_names_of_the_models_engine() {
    let Some(fixture) = Fixture::start().await else { return };
    let ended = fixture.run(&["scaled-object", "qwen"]);
    let of = |name: &str| {
        format!(r#"sum(sglang:{name}{{namespace="prod",model_name="qwen",priority=""}})"#)
    };
    let names = ["num_queue_reqs", "num_grammar_queue_reqs", "num_paused_reqs"];
    let query = names.map(of).join(" + ");
    assert!(ended.stdout.contains(&format!("query: {query}\n")), "{}", ended.stdout);
    let picker = r#"sum(llm_d_epp_flow_control_queue_size{namespace="prod",model_name="qwen"})"#;
    assert!(ended.stdout.contains(&format!("query: {picker}\n")), "{}", ended.stdout);
    // Pods of two releases of vLLM.
    let ended = fixture.run(&["scaled-object", "mixed", "--signal", "kv-sum"]);
    let of = |name: &str| format!(r#"vllm:{name}{{namespace="prod",model_name="mixed",pid=""}}"#);
    let names = ["kv_cache_usage_perc", "gpu_cache_usage_perc"].map(of).join(" or ");
    assert!(ended.stdout.contains(&format!("query: sum({names})\n")), "{}", ended.stdout);
    // Without pods the sum of several sums is empty, and not known to be 0.
    let ended = fixture.run(&["scaled-object", "qwen", "--min", "0"]);
    assert_eq!((ended.exit, ended.stdout.as_str()), (2, ""));
    assert!(ended.stderr.contains("is a sum of several queries"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_object_is_written_without_the_model_or_its_server() {
    let Some(fixture) = Fixture::start().await else { return };
    let ended = fixture.run(&["scaled-object", "org/lama"]);
    assert_eq!((ended.exit, ended.stdout.as_str()), (3, ""));
    assert!(ended.stderr.contains("did you mean \"org/llama\""), "{}", ended.stderr);
    let ended = fixture.run(&["scaled-object", "org/llama", "-n", "prd"]);
    assert_eq!((ended.exit, ended.stdout.as_str()), (3, ""));
    assert!(ended.stderr.contains("prod"), "{}", ended.stderr);
    for wrong in [
        &["--signal", "saturation"][..],
        &["--min", "9", "--max", "3"],
        &["--address", "collector:9465"],
        &["--door", "keda", "--address", "http://collector:9465"],
        &["-o", "json"],
    ] {
        let ended = fixture.run(&[&["scaled-object", "org/llama"], wrong].concat());
        assert_eq!((ended.exit, ended.stdout.as_str()), (2, ""), "{wrong:?}: {}", ended.stderr);
    }
    let mut command = collector();
    command.env("PROMETHEUS_BASE_URL", "http://127.0.0.1:1").env("PROMETHEUS_ALLOW_HTTP", "true");
    let ended = run(&mut command, &["scaled-object", "org/llama", "-n", "prod"]);
    assert_eq!((ended.exit, ended.stdout.as_str()), (5, ""), "{}", ended.stderr);
}

const HPA: &str = "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: llama, namespace: prod}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: llama}
  maxReplicas: 8 # of GPUs
  metrics:
    - type: External
      external:
        metric: {name: 'vllm:num_requests_running', selector: {matchLabels: {model_name: llama}}}
        target: {type: Value, value: 16}
";

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_an_hpa_have_values() {
    let Some(fixture) = Fixture::start().await else { return };
    let file = fixture.write("hpa.yaml", HPA);
    let (exit, checks) = fixture.checks("--hpa", &file);
    let value = of(&checks, "hpa.value", "pass").remove(0);
    let query = r#"sum(vllm:num_requests_running{model_name="llama",namespace="prod"})"#;
    assert!(value.starts_with(&format!("prod/llama: metric 1: {query}: through")), "{value}");
    assert_eq!((exit, of(&checks, "hpa.target", "warn").len()), (0, 1), "{checks:?}");

    let wrong = HPA.replace("model_name: llama", "model_name: lama");
    let (exit, checks) = fixture.checks("--hpa", &fixture.write("hpa.yaml", &wrong));
    let value = of(&checks, "hpa.value", "fail").remove(0);
    assert!(value.contains(r#"no metrics of model "lama"; did you mean "llama"?"#), "{value}");
    assert!(value.ends_with("(directly: nothing, so the HPA keeps its replicas)"), "{value}");
    assert_eq!(exit, 1);
    // Both flags, one file twice, on standard input too.
    let ended = fixture.run(&["check", "--hpa", "-", "--scaled-object", "-"]);
    assert_eq!(ended.exit, 2);
    assert!(
        ended.stderr.contains("no object of kind ScaledObject or Horizontal"),
        "{}",
        ended.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fix_prints_the_file_and_reports_on_stderr() {
    let Some(fixture) = Fixture::start().await else { return };
    let file = fixture.write("hpa.yaml", HPA);
    let ended = fixture.run(&["check", "--fix", "--hpa", file.to_str().unwrap()]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let changed = HPA.replace("type: Value, value: 16", "type: AverageValue, averageValue: 16");
    let (comment, rest) = ended.stdout.split_once('\n').unwrap();
    assert_eq!(rest, changed);
    assert!(comment.starts_with("# collector check --fix: spec.metrics[0].external"), "{comment}");
    assert!(ended.stderr.contains("none of "), "{}", ended.stderr);
    let again = fixture.write("hpa.yaml", &ended.stdout);
    let twice = fixture.run(&["check", "--fix", "--hpa", again.to_str().unwrap()]);
    assert_eq!(twice.stdout, ended.stdout);
    // As a document, on stderr too.
    let json = fixture.run(&["-o", "json", "check", "--fix", "--hpa", again.to_str().unwrap()]);
    assert_eq!(json.stdout, ended.stdout);
    assert!(serde_json::from_str::<Value>(&json.stderr).is_ok(), "{}", json.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_trigger_has_the_value_of_a_reading() {
    let Some(fixture) = Fixture::start().await else { return };
    let object = "kind: ScaledObject
metadata: {name: llama, namespace: prod}
spec:
  minReplicaCount: 1
  triggers:
    - type: external
      metadata: {scalerAddress: 'collector:9465', model: org/llama, signal: running}
    - type: external-push
      metadata: {scalerAddress: 'collector:9465', model: org/lama, signal: running}
    - type: external
      metricType: Value
      metadata: {scalerAddress: 'collector:9465', model: org/llama, signal: kv-max, variant: other}
";
    let (exit, checks) = fixture.checks("--scaled-object", &fixture.write("object.yaml", object));
    assert_eq!(exit, 1);
    let value = of(&checks, "scaled-object.value", "pass").remove(0);
    assert!(value.contains("trigger 1: signal running is "), "{value}");
    assert!(value.ends_with("now, in a reading of 2 pods and an endpoint picker"), "{value}");
    let wrong = of(&checks, "scaled-object.value", "fail");
    assert!(wrong[0].contains("did you mean \"org/llama\""), "{wrong:?}");
    assert!(wrong[1].contains("\"org/llama\" in \"prod\" has no variant \"other\""), "{wrong:?}");
}
