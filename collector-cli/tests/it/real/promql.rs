// SPDX-License-Identifier: Apache-2.0
//! The PromQL API in front of a real Prometheus: what an autoscaler gets in each state of a model and its exporter.

use std::time::Duration;

use collector_sim::{Faults, FleetSpec, PickerSpec, VariantSpec};
use serde_json::Value;

use super::fixture::{World, eventually, variant};
use crate::process::{Answer, Served, collector, run};

/// A `collector serve` with its PromQL API in front of a Prometheus that scrapes a fleet.
pub(super) struct Fixture {
    pub(super) world: World,
    served: Served,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn start(variants: Vec<VariantSpec>, settings: &str) -> Option<Self> {
        Self::of(World::start(variants).await, settings)
    }

    pub(super) fn of(world: Option<World>, settings: &str) -> Option<Self> {
        let world = world?;
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("collector.toml");
        let settings = format!("[promql]\nenabled = true\n{settings}\n[cache]\nttl = \"2s\"\n");
        std::fs::write(&config, world.toml(&settings)).unwrap();
        let mut command = collector();
        command.arg("--config").arg(&config);
        let served = Served::start(&mut command);
        Some(Self { world, served, _folder: folder })
    }

    pub(super) fn get(&self, path: &str, query: &str, more: &str) -> Answer {
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        self.served.get(&format!("{path}?query={query}{more}"))
    }

    fn ask(&self, query: &str) -> Answer {
        self.get("/api/v1/query", query, "")
    }
}

/// The value of the one sample of an answer.
#[track_caller]
fn value(answer: &Answer) -> String {
    let document: Value = answer.json();
    assert_eq!(answer.status, 200, "{document}");
    let result = document["data"]["result"].as_array().unwrap();
    assert_eq!(result.len(), 1, "{document}");
    result[0]["value"][1].as_str().expect("a value is text").to_owned()
}

#[track_caller]
fn check_refused(answer: &Answer, status: u16, reason: &str, says: &str) {
    let document: Value = answer.json();
    assert_eq!(
        (answer.status, answer.header("x-collector-reason")),
        (status, Some(reason)),
        "{document}"
    );
    assert!(document["error"].as_str().unwrap().contains(says), "{document}");
    assert_eq!(document["status"], "error");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_data_is_an_error_and_not_zero() {
    let Some(fixture) = Fixture::start(vec![variant("llama", "org/llama")], "").await else {
        return;
    };
    let running = r#"sum(vllm:num_requests_running{namespace="prod",model_name="org/llama"})"#;
    let direct = || fixture.get("/raw/api/v1/query", running, "");
    eventually("there are series", Duration::from_secs(20), || async {
        direct().body.contains("value")
    })
    .await;

    let heard = fixture.ask(running);
    assert!(value(&heard).parse::<f64>().is_ok());
    assert_eq!(heard.header("content-type"), Some("application/json"));
    // Several metrics, whose series differ in their name alone.
    let both = r#"sum({__name__=~"vllm:num_requests_(running|waiting)",model_name="org/llama"})"#;
    assert!(value(&fixture.ask(both)).parse::<f64>().is_ok());
    // By POST, below /prometheus and with a slash too many it is the same question.
    let form: String =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("query", running).finish();
    let post = format!(
        "POST /prometheus/api/v1/query HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    assert_eq!(value(&fixture.served.send(&post)), value(&heard));
    assert_eq!(value(&fixture.get("//api/v1/query", running, "")), value(&heard));

    // A typo: the nearest name. KEDA would take the server's own answer for 0.
    let typo = running.replace("org/llama", "org/lama");
    check_refused(&fixture.ask(&typo), 422, "unknown_model", r#"did you mean "org/llama"?"#);
    assert!(fixture.get("/raw/api/v1/query", &typo, "").body.contains(r#""result":[]"#));
    // A name that is scraped nowhere.
    let nowhere = r#"sum(vllm:num_requests_wating{namespace="prod"})"#;
    check_refused(&fixture.ask(nowhere), 503, "missing", "missing is not 0");
    assert_eq!(value(&fixture.get("/api/v1/query", nowhere, "&empty=zero")), "0");
    // The exporter is alive, so the default that the query writes is a true one.
    let reasons =
        r#"sum(vllm:num_requests_waiting_by_reason{namespace="prod",reason="none"}) or vector(0)"#;
    let defaulted = fixture.ask(reasons);
    assert_eq!(value(&defaulted), "0");
    assert!(defaulted.body.contains("the query's own default"), "{}", defaulted.body);
    let gone = reasons.replace("\"prod\"", "\"nowhere\"");
    check_refused(&fixture.ask(&gone), 503, "missing", "no series match");

    check_refused(&fixture.ask("sum("), 400, "bad_query", "invalid parameter");
    assert_eq!(fixture.served.get("/api/v1/query").status, 400);
    // As Grafana saves a data source.
    let saved = fixture.get("/api/v1/query", "1+1", "&time=4");
    assert_eq!(saved.json()["data"]["result"][1], "2");
    assert_eq!(fixture.served.get("/raw/api/v1/status/buildinfo").status, 200);
    assert_eq!(fixture.served.get("/raw/api/v1/status/config").status, 404);
    let names = fixture.served.get("/api/v1/label/__name__/values").body;
    assert!(names.contains("vllm:num_requests_running"), "{names}");
    let metrics = fixture.served.get("/metrics").body;
    assert!(metrics.contains("collector_promql_requests_total{"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_outage_the_last_answer_is_returned_until_it_is_too_old() {
    let settings = "ttl = \"500ms\"\nmax_stale = \"6s\"\nanswer_within = \"500ms\"";
    let Some(mut fixture) = Fixture::start(vec![variant("llama", "org/llama")], settings).await
    else {
        return;
    };
    let running = r#"sum(vllm:num_requests_running{namespace="prod",model_name="org/llama"})"#;
    eventually("it is heard", Duration::from_secs(20), || async {
        fixture.ask(running).status == 200
    })
    .await;
    fixture.world.prometheus.stop();
    let ages = std::cell::RefCell::new(Vec::new());
    eventually("it is too old", Duration::from_secs(20), || {
        let answer = fixture.ask(running);
        if answer.status == 200 && answer.body.contains("from memory") {
            ages.borrow_mut().push(answer.header("age").unwrap().parse::<u64>().unwrap());
        }
        let is_over = answer.status == 503;
        if is_over {
            check_refused(&answer, 503, "backend", "the limit is 6s (promql.max_stale)");
            assert_eq!(answer.header("retry-after"), Some("5"));
        }
        async move { is_over }
    })
    .await;
    let ages = ages.into_inner();
    assert!(ages.len() > 1 && ages.is_sorted(), "{ages:?}");
    assert!(ages.last() <= Some(&6), "{ages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_endpoint_picker_is_zero_and_an_absent_one_is_not() {
    // The endpoint picker has no flow of the idle model, like a real one that has removed it.
    let (idle, other) = (variant("idle", "org/idle"), variant("other", "org/other"));
    let picker =
        PickerSpec { variants: vec!["other".to_owned()], ..PickerSpec::new("pool", "prod") };
    let spec =
        FleetSpec { variants: vec![idle, other], pickers: vec![picker], ..FleetSpec::default() };
    let Some(fixture) = Fixture::of(World::of(spec).await, "") else { return };
    let queue = r#"llm_d_epp_flow_control_queue_size{namespace="prod",model_name="org/idle"}"#;
    let sum = format!("sum({queue})");
    let raw = || fixture.get("/raw/api/v1/query", "llm_d_epp_flow_control_pool_saturation", "");
    eventually("the picker is scraped", Duration::from_secs(20), || async {
        raw().body.contains("value")
    })
    .await;
    // It is scaled to zero: no engine has a series of it any more.
    for pod in fixture.world.fleet.targets().iter().filter(|pod| pod.pod.starts_with("idle-")) {
        fixture.world.fleet.delete_pod("prod", &pod.pod).await.unwrap();
    }
    let engines = r#"vllm:num_requests_running{model_name="org/idle"}"#;
    eventually("it has no pod", Duration::from_secs(20), || async {
        fixture.get("/raw/api/v1/query", engines, "").body.contains(r#""result":[]"#)
    })
    .await;
    let direct = fixture.get("/raw/api/v1/query", &sum, "");
    assert!(direct.body.contains(r#""result":[]"#), "an idle flow has no series: {}", direct.body);
    let answer = fixture.ask(&sum);
    assert_eq!(value(&answer), "0");
    assert!(
        answer.body.contains("llm_d_epp_flow_control_pool_saturation is present"),
        "{}",
        answer.body
    );
    // Without a label of the scrape: there is one picker.
    assert_eq!(value(&fixture.ask(&sum.replace(r#"namespace="prod","#, ""))), "0");
    let typo = sum.replace("org/idle", "org/idel");
    check_refused(&fixture.ask(&typo), 422, "unknown_model", "no metrics of model \"org/idel\"");

    let gone = Faults { vanish: true, ..Faults::default() };
    fixture.world.fleet.set_faults("prod", "pool-epp", gone).await.unwrap();
    eventually("it is refused", Duration::from_secs(30), || async {
        fixture.ask(&sum).status == 503
    })
    .await;
    check_refused(&fixture.ask(&sum), 503, "missing", "missing is not 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_runs_the_queries_of_a_scaled_object() {
    let Some(world) = World::start(vec![variant("llama", "org/llama")]).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let (config, object) =
        (folder.path().join("collector.toml"), folder.path().join("object.yaml"));
    std::fs::write(&config, world.toml("")).unwrap();
    let yaml = r#"
kind: ScaledObject
metadata: {name: llama, namespace: prod}
spec:
  minReplicaCount: 1
  triggers:
    - type: prometheus
      metadata:
        serverAddress: http://collector:9464
        query: sum(vllm:num_requests_running{namespace="prod",model_name="org/llama"})
        threshold: "5"
    - type: prometheus
      metadata:
        serverAddress: http://prometheus:9090
        query: sum(vllm:num_requests_running{namespace="prod",model_name="org/lama"})
        threshold: "5"
"#;
    std::fs::write(&object, yaml).unwrap();
    let mut command = collector();
    command
        .arg("--config")
        .arg(&config)
        .args(["-o", "json", "check", "--scaled-object"])
        .arg(&object);
    let ended = run(&mut command, &[]);
    assert_eq!(ended.exit, 1, "{}", ended.stdout);
    let document = ended.json();
    let checks = document["checks"].as_array().unwrap();
    let of = |id: &str, status: &str| {
        let is_it = |check: &&Value| check["id"] == id && check["status"] == status;
        let details = checks.iter().filter(is_it).map(|check| check["detail"].as_str().unwrap());
        details.map(str::to_owned).collect::<Vec<String>>()
    };
    let values = of("scaled-object.value", "pass");
    assert_eq!(values.len(), 1, "{document}");
    assert!(values[0].starts_with("prod/llama: trigger 1: "), "{values:?}");
    assert!(values[0].contains("through the collector "), "{values:?}");
    let wrong = of("scaled-object.value", "fail");
    assert!(
        wrong[0].contains(r#"no metrics of model "org/lama"; did you mean "org/llama"?"#),
        "{wrong:?}"
    );
    assert!(wrong[0].ends_with("(directly: nothing, which KEDA reads as 0)"), "{wrong:?}");
    assert_eq!(of("scaled-object.address", "warn").len(), 1);
    assert_eq!(of("scaled-object.minimum", "pass").len(), 1);

    let mut piped = collector();
    piped.arg("--config").arg(&config).args(["check", "--scaled-object", "nowhere.yaml"]);
    let ended = run(&mut piped, &[]);
    assert_eq!(ended.exit, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("nowhere.yaml"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_can_have_a_server_of_their_own() {
    let Some(world) = World::start(vec![variant("llama", "org/llama")]).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("collector.toml");
    let toml = format!(
        "[prometheus]\nurl = \"http://127.0.0.1:1\"\nallow_http = true\n\
         [promql]\nenabled = true\nupstream = {:?}\nmax_answer_bytes = 65536\n",
        world.prometheus.url()
    );
    std::fs::write(&config, toml).unwrap();
    let mut command = collector();
    command.arg("--config").arg(&config);
    let served = Served::start(&mut command);
    let fixture = Fixture { world, served, _folder: folder };
    let running = r#"sum(vllm:num_requests_running{namespace="prod",model_name="org/llama"})"#;
    eventually("there are series", Duration::from_secs(20), || async {
        fixture.ask(running).status == 200
    })
    .await;
    check_refused(&fixture.ask(r#"{__name__=~".+"}"#), 503, "too_large", "promql.max_answer_bytes");
}
