// SPDX-License-Identifier: Apache-2.0
//! PromQL queries over pods that the daemon scrapes itself: with no Prometheus, and beside one.

use std::time::Duration;

use collector_sim::{Faults, FleetServer, FleetSpec, Gauges, VariantSpec};
use serde_json::Value;
use tempfile::TempDir;

use super::fixture::{World, eventually};
use crate::pods::targets;
use crate::process::{Answer, Served, collector};

/// A `collector serve` that scrapes pods of the namespace `prod`, and has a PromQL API.
struct Fixture {
    served: Served,
    _folder: TempDir,
}

impl Fixture {
    fn start(fleet: &FleetServer, backend: &str, more: &str) -> Self {
        let mut toml = format!("backend = {backend}\n[promql]\nenabled = true\n{more}\n");
        toml.push_str("[scrape]\nscrape_interval = \"300ms\"\nidle_interval = \"300ms\"\n");
        toml.push_str(&targets(fleet));
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("collector.toml");
        std::fs::write(&config, toml).unwrap();
        Self { served: Served::start(collector().arg("--config").arg(config)), _folder: folder }
    }

    fn get(&self, path: &str, query: &str) -> Answer {
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        self.served.get(&format!("{path}?query={query}"))
    }

    fn ask(&self, query: &str) -> Answer {
        self.get("/api/v1/query", query)
    }

    async fn becomes(&self, query: &str, value: &str) {
        let what = format!("{query} becomes {value}");
        eventually(&what, Duration::from_secs(20), || async {
            result(&self.ask(query)).is_some_and(|result| result.contains(&format!("\"{value}\"]")))
        })
        .await;
    }
}

/// The samples of an answer as text, without their times; `None` if it has none.
fn result(answer: &Answer) -> Option<String> {
    let document: Value = answer.json();
    let samples = document["data"]["result"].as_array()?.iter();
    let mut samples: Vec<String> =
        samples.map(|sample| format!("{} [{}]", sample["metric"], sample["value"][1])).collect();
    samples.sort_unstable();
    (!samples.is_empty()).then(|| samples.join("\n"))
}

#[track_caller]
fn check_refused(answer: &Answer, reason: &str, says: &str) {
    let document: Value = answer.json();
    assert_eq!(
        (answer.status, answer.header("x-collector-reason")),
        (503, Some(reason)),
        "{document}"
    );
    assert!(document["error"].as_str().unwrap().contains(says), "{document}");
}

fn spec() -> FleetSpec {
    let variant = VariantSpec { pods: 3, ..VariantSpec::new("m", "org/m", "prod") };
    let other = VariantSpec { pods: 1, ..VariantSpec::new("o", "org/o", "prod") };
    FleetSpec {
        warm_up: Duration::from_secs(60),
        variants: vec![variant, other],
        ..FleetSpec::default()
    }
}

/// Pins the gauges of all pods: the queues are 1 to 4.
fn pin(fleet: &FleetServer) {
    for (waiting, pod) in (1..).zip(["m-0", "m-1", "m-2", "o-0"]) {
        let gauges = Gauges { waiting, running: 3, kv_cache_usage: 0.25 };
        fleet.pin("prod", pod, 0, gauges).unwrap();
    }
}

const WAITING: &str = r#"sum(vllm:num_requests_waiting{namespace="prod",model_name="org/m"})"#;

#[tokio::test(flavor = "multi_thread")]
async fn gauges_of_scraped_pods_are_answered_without_a_prometheus() {
    let fleet = FleetServer::start(spec()).await.unwrap();
    pin(&fleet);
    let fixture = Fixture::start(&fleet, "\"scrape\"", "");
    fixture.becomes(WAITING, "6").await;
    fixture.becomes("sum(vllm:num_requests_waiting)", "10").await;
    let answer = fixture.ask("max by (pod) (vllm:kv_cache_usage_perc{model_name=\"org/o\"}) * 100");
    assert_eq!(result(&answer).as_deref(), Some(r#"{"pod":"o-0"} ["25"]"#));
    let either = "sum(sglang:num_queue_reqs or sglang_num_queue_reqs or vllm:num_requests_waiting)";
    assert_eq!(result(&fixture.ask(either)).as_deref(), Some(r#"{} ["10"]"#));

    check_refused(&fixture.ask("sglang:num_queue_reqs"), "missing", "missing is not 0");
    let typo = fixture.ask(&WAITING.replace("org/m", "org/n"));
    assert_eq!((typo.status, typo.header("x-collector-reason")), (422, Some("unknown_model")));
    let nowhere = WAITING.replace("\"prod\"", "\"prdo\"");
    check_refused(&fixture.ask(&nowhere), "missing", "missing is not 0");
    let job = WAITING.replace('}', ",job=\"vllm\"}");
    check_refused(&fixture.ask(&job), "no_server", "a scrape configuration may add it");
    check_refused(&fixture.ask("rate(vllm:prompt_tokens_total[1m])"), "no_server", "range");
    check_refused(
        &fixture.ask("vllm:prompt_tokens_total"),
        "no_server",
        "does not hold all series",
    );
    assert_eq!(fixture.get("/raw/api/v1/query", WAITING).status, 503);

    // The readings of all models, which are discovered.
    fixture.becomes("sum(collector_replica_running_requests)", "12").await;

    // A pod that does not answer is unknown, and not gone.
    let faults = Faults { status: Some(500), ..Faults::default() };
    fleet.set_faults("prod", "m-1", faults).await.unwrap();
    eventually("it is partial", Duration::from_secs(20), || async {
        fixture.ask(WAITING).status == 503
    })
    .await;
    check_refused(&fixture.ask(WAITING), "partial", "pod \"m-1\" in \"prod\"");
    let others = WAITING.replace('}', ",pod!=\"m-1\"}");
    assert_eq!(result(&fixture.ask(&others)).as_deref(), Some(r#"{} ["4"]"#));
    let alone = WAITING.replace('}', ",pod=\"m-1\"}");
    check_refused(&fixture.ask(&alone), "backend", "500");
    fixture.becomes(&WAITING.replace("org/m", "org/o"), "4").await;
    fleet.set_faults("prod", "m-1", Faults::default()).await.unwrap();
    fixture.becomes(WAITING, "6").await;

    let metrics = fixture.served.get("/metrics").body;
    for outcome in ["local", "refused"] {
        let series =
            format!("collector_promql_requests_total{{door=\"query\",outcome=\"{outcome}\"");
        assert!(metrics.contains(&series), "no {series}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_answers_equal_those_of_the_prometheus_that_scrapes_the_same_pods() {
    let Some(world) = World::of(spec()).await else { return };
    pin(&world.fleet);
    world.scrapes(1).await;
    let server = format!("[prometheus]\nurl = {:?}\nallow_http = true\n", world.prometheus.url());
    let fixture = Fixture::start(&world.fleet, "\"scrape\"", &server);
    // Until the pods are scraped, the server is asked.
    eventually("it is answered here", Duration::from_secs(20), || async {
        assert_eq!(result(&fixture.ask(WAITING)).as_deref(), Some(r#"{} ["6"]"#));
        fixture.served.get("/metrics").body.contains("outcome=\"local\"")
    })
    .await;
    let asked = world.queries().await;
    let queries = [
        WAITING,
        r#"max by (model_name) (vllm:num_requests_waiting{namespace=~"prod",namespace="prod"})"#,
        r#"sum by (pod) (vllm:num_requests_running{namespace="prod"}) > bool 2"#,
        r#"avg(vllm:kv_cache_usage_perc{namespace="prod"}) / 0.8"#,
        r#"count(vllm:num_requests_waiting{namespace="prod"} > 1)"#,
    ];
    let mut ours = Vec::new();
    for query in queries {
        ours.push(result(&fixture.ask(query)));
        assert_eq!(world.queries().await, asked, "the server was asked for {query}");
    }
    for (query, ours) in queries.iter().zip(ours) {
        let theirs = result(&fixture.get("/raw/api/v1/query", query));
        assert!(ours.is_some() && ours == theirs, "{query}: {ours:?} {theirs:?}");
    }
    // The server may have pods of other namespaces, and labels of its own.
    let asked = world.queries().await;
    for query in [
        "sum(vllm:num_requests_waiting)",
        r#"sum(vllm:num_requests_waiting{namespace="dev"}) or vector(0)"#,
        r#"sum(vllm:num_requests_waiting{namespace="prod",job="fleet"})"#,
        r#"sum(vllm:num_requests_waiting{namespace=~"prod"})"#,
    ] {
        let before = world.queries().await;
        let answer = fixture.ask(query);
        assert!(world.queries().await > before, "{query}: {}", answer.body);
    }
    assert!(world.queries().await > asked);

    // With a Prometheus as a backend too, it may know pods that no target names.
    let both = Fixture::start(&world.fleet, "[\"scrape\", \"prometheus\"]", &server);
    eventually("all pods are scraped", Duration::from_secs(20), || async {
        let metrics = both.served.get("/metrics").body;
        metrics.contains("collector_epp_targets{state=\"up\"} 4")
    })
    .await;
    let before = world.queries().await;
    assert_eq!(result(&both.ask(WAITING)).as_deref(), Some(r#"{} ["6"]"#));
    assert!(world.queries().await > before);
}
