// SPDX-License-Identifier: Apache-2.0
//! A page of every kind of model server, and of odd ones, read by the backend: what it says of each is what
//! is true of it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use collector_core::{Answer, Clock, ErrorKind, Field, ModelSample, ReplicaMetrics, Tick};
use collector_epp::discover::TargetSpec;
use collector_epp::engines::{EngineRow, EngineSpec, Engines, Exposition, Quantity};
use collector_epp::{EppBackend, EppConfig};
use collector_testkit::TokioClock;
use serde_json::Value;

use crate::fake_pod::FakePod;
use crate::read::{page_of, server_of};
use crate::world::{answer, config, failure, found};

/// A clock that was set, so that the times on pages can be judged.
struct SetClock(TokioClock);

/// What it says at first: seconds since 1970.
const START: u64 = 1_870_000_000;

impl Clock for SetClock {
    fn now(&self) -> Tick {
        self.0.now()
    }

    fn wall(&self) -> SystemTime {
        self.0.wall() + Duration::from_secs(START)
    }

    fn catch_up(&self) {}
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pages")
}

fn page(file: &str) -> String {
    fs::read_to_string(folder().join(file)).unwrap()
}

fn expected() -> serde_json::Map<String, Value> {
    let text = fs::read_to_string(folder().join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn backend(config: EppConfig) -> (EppBackend, Arc<SetClock>) {
    let clock = Arc::new(SetClock(TokioClock::new()));
    (EppBackend::new(config, Arc::clone(&clock) as Arc<dyn Clock>).unwrap(), clock)
}

/// What the backend says of a page that is the only target.
async fn sample(file: &str, model: &str, given: Option<&str>) -> (ModelSample, Arc<SetClock>) {
    let pod = FakePod::with_page(&page(file)).await;
    let target = TargetSpec { model: given.map(str::to_owned), ..pod.target("m-0") };
    let (backend, clock) = backend(config(vec![target]));
    match answer(&backend, model).await {
        Answer::Found(sample) => (sample, clock),
        other => panic!("{file}: {other:?}"),
    }
}

#[track_caller]
fn check(file: &str, what: &str, said: Option<f64>, expected: &Value) {
    match (said, expected.as_f64()) {
        (Some(said), Some(expected)) => {
            assert!(
                (said - expected).abs() < 0.6e-6_f64.max(expected * 1e-9),
                "{file}, {what}: {said} {expected}"
            );
        }
        (said, expected) => assert_eq!(said, expected, "{file}, {what}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "the numbers of the pages are small")]
fn check_row(file: &str, row: &ReplicaMetrics, expected: &Value) {
    let number = |count: Option<u64>| count.map(|count| count as f64);
    check(file, "waiting", number(row.queue_length), &expected["waiting"]);
    check(file, "running", number(row.running_requests), &expected["running"]);
    check(file, "KV", row.kv_cache_usage, &expected["kvCacheUsage"]);
    if let Some(capacity) = expected.get("capacityTokens") {
        check(file, "capacity", number(row.total_kv_capacity_tokens()), capacity);
        // A row has whole tokens.
        let in_use = expected["tokensInUse"].as_f64().map(f64::round);
        assert_eq!(number(row.tokens_in_use()), in_use, "{file}, in use");
    }
    let state = expected["state"].as_str().unwrap_or("serving");
    assert_eq!(row.state.as_str(), state, "{file}");
    assert_eq!(row.role.as_ref().map(AsRef::as_ref), expected["role"].as_str(), "{file}");
    if let Some(adapters) = expected["loraRunning"].as_array() {
        let running = &row.lora_adapters.as_ref().unwrap().running;
        let running: Vec<&str> = running.iter().map(AsRef::as_ref).collect();
        let adapters: Vec<&str> = adapters.iter().filter_map(Value::as_str).collect();
        assert_eq!(running, adapters, "{file}");
    }
    for (field, part) in expected["reasons"].as_object().into_iter().flatten() {
        let reason = row.reasons.iter().find(|(of, _)| of.as_str() == field);
        let reason = reason.unwrap_or_else(|| panic!("{file}: no reason for {field}")).1;
        assert!(reason.contains(part.as_str().unwrap()), "{file}, {field}: {reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_page_says_what_is_true_of_its_server() {
    let expected = expected();
    let files = fs::read_dir(folder()).unwrap().filter(|entry| {
        entry.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "txt")
    });
    // All but a router's, and the Endpoint Picker's.
    assert_eq!(files.count(), expected.len() + 2);
    for (file, truth) in expected {
        let rows = truth["rows"].as_array().unwrap();
        let mut models: Vec<&str> = rows.iter().filter_map(|row| row["model"].as_str()).collect();
        models.dedup();
        for model in models {
            let (sample, clock) = sample(&file, model, truth["given"].as_str()).await;
            let of_model: Vec<&Value> = rows.iter().filter(|row| row["model"] == model).collect();
            assert_eq!(sample.replicas.len(), of_model.len(), "{file}");
            for expected in of_model {
                let name = expected["replica"].as_str().unwrap_or("m-0");
                let row = sample.replicas.iter().find(|row| row.pod_name.as_str() == name);
                let row = row.unwrap_or_else(|| panic!("{file}: no row {name}"));
                let engine = row.engine.as_ref().map(AsRef::as_ref);
                assert_eq!(engine, truth["engine"].as_str(), "{file}");
                check_row(&file, row, expected);
                let years = row.sampled_at.age(clock.now()).as_secs() / (365 * 24 * 3600);
                assert_eq!(
                    years,
                    expected["agesYears"].as_u64().unwrap_or(0).saturating_sub(1),
                    "{file}"
                );
            }
        }
    }
}

#[test]
fn hit_rates_are_told_since_the_server_was_started() {
    for (file, truth) in expected() {
        for row in truth["rows"].as_array().unwrap() {
            let Some(expected) = row["prefixHitRate"].as_f64() else { continue };
            let page = server_of(&Engines::builtin(), &page(&file));
            let rates: Vec<f64> =
                page.rows.iter().filter_map(EngineRow::hit_rate_since_start).collect();
            assert_eq!(rates.len(), 1, "{file}: {rates:?}");
            assert!((rates[0] - expected).abs() < 1e-9, "{file}: {rates:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_model_cannot_be_told_fails_with_what_to_do() {
    let fails = async |file: &str, given: Option<&str>| {
        let pod = FakePod::with_page(&page(file)).await;
        let target = TargetSpec { model: given.map(str::to_owned), ..pod.target("m-0") };
        let error = failure(&backend(config(vec![target])).0, "lab/any").await;
        assert_eq!(error.kind(), ErrorKind::BadAnswer);
        format!("{error} {}", error.remedy())
    };
    let triton = fails("triton-trtllm-a.txt", None).await;
    assert!(
        triton.contains("\"tensorrt_llm\" on its triton-tensorrt-llm page is not a model id"),
        "{triton}"
    );
    assert!(triton.contains("give the model: model = "), "{triton}");
    let undefined = fails("trtllm-no-prefix.txt", None).await;
    assert!(
        undefined.contains("\"undefined\" on its trtllm-serve page is not a model id"),
        "{undefined}"
    );
    let tgi = fails("tgi.txt", None).await;
    assert!(tgi.contains("no series of its tgi page names a model"), "{tgi}");
    let router = fails("production-stack-router.txt", None).await;
    assert!(router.contains("the vLLM production-stack router"), "{router}");
    assert!(router.contains("name the model servers behind it"), "{router}");
    let several = fails("triton-vllm-two-models.txt", Some("lab/other")).await;
    assert!(several.contains("names several models: alpha-7b, beta-9b"), "{several}");
}

#[tokio::test(start_paused = true)]
async fn ids_of_a_frontend_are_compared_without_case() {
    let (sample, _) = sample("dynamo-frontend.txt", "Lab/Tiny-0.5B", None).await;
    assert_eq!(sample.replicas[0].queue_length, Some(21));
}

#[test]
fn an_endpoint_picker_before_1_0_is_read() {
    let Ok(Exposition::EndpointPicker(page)) =
        page_of(&Engines::builtin(), &page("picker-before-1.0.txt"))
    else {
        panic!("it is the Endpoint Picker's")
    };
    let [model] = &page.models[..] else { panic!("{:?}", page.models) };
    assert_eq!(model.model.as_ref().map(AsRef::as_ref), Some("chat"));
    assert_eq!(model.target.as_ref().map(AsRef::as_ref), Some("chat-v1"));
    assert_eq!((model.numbers["requests_total"], model.numbers["errors_total"]), (300.0, 9.0));
    assert_eq!((model.numbers["running"], model.numbers["input_tokens_sum"]), (4.0, 15_000.0));
    let pool = &page.pools[0].numbers;
    assert_eq!((pool["ready"], pool["avg_queue"]), (5.0, 7.5));
}

#[tokio::test(start_paused = true)]
async fn a_users_engine_is_taken_only_where_its_model_can_be_told() {
    // vLLM's names under Triton's label, and plain vLLM beside it.
    let spec: EngineSpec = serde_json::from_value(serde_json::json!({
        "name": "mine", "base": "vllm", "model_label": "model"
    }))
    .unwrap();
    let engines = Engines::new(&[spec]).unwrap();
    let triton = server_of(&engines, &page("triton-vllm-two-models.txt"));
    assert_eq!((triton.engine.as_str(), triton.no_model), ("mine", None));
    let plain = server_of(&engines, &page("vllm-hybrid-cache.txt"));
    assert_eq!((plain.engine.as_str(), plain.no_model), ("vllm", None));
}

#[tokio::test(start_paused = true)]
async fn why_requests_wait_is_known_if_every_engine_reports_it() {
    let waiting = |engine: u32, all: u32, for_capacity: Option<u32>| {
        let labels = format!("engine=\"{engine}\",model_name=\"m\"");
        let by_reason = for_capacity.map(|waiting| {
            let name = "vllm:num_requests_waiting_by_reason";
            let deferred = all - waiting;
            format!(
                "{name}{{{labels},reason=\"capacity\"}} {waiting}\n{name}{{{labels},reason=\"deferred\"}} {deferred}\n"
            )
        });
        let by_reason = by_reason.unwrap_or_default();
        format!("vllm:num_requests_waiting{{{labels}}} {all}\n{by_reason}")
    };
    for (page, queue, for_capacity) in [
        (waiting(0, 7, Some(2)) + &waiting(1, 3, Some(3)), 10, Some(5)),
        (waiting(0, 7, Some(0)), 7, Some(0)),
        (waiting(0, 7, Some(2)) + &waiting(1, 3, None), 10, None),
        (waiting(0, 7, None), 7, None),
    ] {
        let pod = FakePod::with_page(&page).await;
        let sample = found(answer(&backend(config(vec![pod.target("m-0")])).0, "m").await);
        let row = &sample.replicas[0];
        assert_eq!((row.queue_length, row.waiting_for_capacity), (Some(queue), for_capacity));
        assert!(!row.reasons.contains(Field::QueueLength), "{page}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_prefix_makes_an_engine_of_a_known_one() {
    let spec: EngineSpec = serde_json::from_value(serde_json::json!({
        "name": "kserve", "base": "vllm", "prefix": "kserve_vllm:"
    }))
    .unwrap();
    let pod = FakePod::with_page(&page("vllm-kserve-prefix.txt")).await;
    let config = EppConfig { engines: vec![spec], ..config(vec![pod.target("m-0")]) };
    let sample = found(answer(&backend(config).0, "lab/hosted").await);
    assert_eq!(sample.replicas[0].engine.as_ref().unwrap().as_str(), "kserve");
    assert_eq!(sample.replicas[0].queue_length, Some(18));
}

#[test]
fn an_optional_part_that_cannot_be_read_is_not_absent() {
    let gauge = |name: &str, process: u32, value: u32| {
        let labels = format!("dp_rank=\"0\",model_name=\"m\",pid=\"{process}\"");
        format!("sglang:{name}{{{labels}}} {value}\n")
    };
    let paused = [gauge("num_paused_reqs", 1, 2), gauge("num_paused_reqs", 2, 5)].concat();
    let queue = gauge("num_queue_reqs", 1, 3);
    let engines = Engines::builtin();
    let waiting = |page: &str| server_of(&engines, page).rows[0].numbers[Quantity::Waiting];
    assert_eq!(waiting(&queue), Some(3.0));
    assert_eq!(waiting(&(queue.clone() + &gauge("num_paused_reqs", 1, 2))), Some(5.0));
    assert_eq!(waiting(&(queue.clone() + &paused)), None, "each process has its own");
    let hits = "vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"m\"} 30\n\
                vllm:external_prefix_cache_hits_total{engine=\"0\",model_name=\"m\"} 5x\n";
    let row = &server_of(&engines, hits).rows[0];
    assert_eq!(row.numbers[Quantity::PrefixHits], None);
    let reason = "lines of vllm:external_prefix_cache_hits_total cannot be read";
    assert_eq!(row.reasons, [(Quantity::PrefixHits, reason.into())]);
}
