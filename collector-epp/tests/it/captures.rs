// SPDX-License-Identifier: Apache-2.0
//! Every capture gives exactly what its expected file says.

use std::fs;
use std::path::PathBuf;

use collector_epp::endpoint_picker::EndpointPickerMetrics;
use collector_epp::engines::{EngineRow, Engines, Exposition, Quantity, ServerExposition};
use serde_json::Value;

use crate::read::read;

const SERVERS: [&str; 8] = [
    "vllm_v1",
    "vllm_dp4",
    "vllm_dp8",
    "vllm_lora",
    "vllm_old_names",
    "sglang",
    "trtllm",
    "triton_trtllm",
];
const ENDPOINT_PICKERS: [&str; 3] = ["epp", "epp_router_names", "epp_llm_d_names"];

/// What the expected files have.
const QUANTITIES: [Quantity; 20] = [
    Quantity::Waiting,
    Quantity::Running,
    Quantity::KvCacheUsage,
    Quantity::BlockSize,
    Quantity::NumGpuBlocks,
    Quantity::RequestSuccessTotal,
    Quantity::RequestsTotal,
    Quantity::PromptTokensSum,
    Quantity::PromptTokensCount,
    Quantity::PromptTokensTotal,
    Quantity::GenerationTokensSum,
    Quantity::GenerationTokensCount,
    Quantity::GenerationTokensTotal,
    Quantity::TtftSum,
    Quantity::TtftCount,
    Quantity::ItlSum,
    Quantity::ItlCount,
    Quantity::PrefixHits,
    Quantity::PrefixQueries,
    Quantity::CachedTokensTotal,
];

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name)
}

fn capture(name: &str) -> Vec<u8> {
    fs::read(file(&format!("{name}.txt"))).unwrap()
}

fn expected(name: &str) -> Value {
    let text = fs::read_to_string(file(&format!("{name}.expected.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn whole(name: &str) -> Exposition {
    let engines = Engines::builtin();
    read(&engines, &mut engines.reader(), &capture(name), usize::MAX).unwrap()
}

fn server(name: &str) -> ServerExposition {
    match whole(name) {
        Exposition::Server(page) => page,
        page @ Exposition::EndpointPicker(_) => panic!("{name}: {page:?}"),
    }
}

fn endpoint_picker(name: &str) -> EndpointPickerMetrics {
    match whole(name) {
        Exposition::EndpointPicker(page) => page,
        page @ Exposition::Server(_) => panic!("{name}: {page:?}"),
    }
}

/// One number; what the expected file does not have must be absent.
#[track_caller]
fn check(what: &str, actual: Option<f64>, expected: &Value) {
    assert_eq!(actual, expected.as_f64(), "{what}");
}

fn check_row(name: &str, row: &EngineRow, expected: &Value) {
    for quantity in QUANTITIES {
        let key = match quantity {
            Quantity::KvCacheUsage => "kv_usage",
            quantity => quantity.key(),
        };
        let what = format!("{name}, rank {:?}, {key}", row.rank);
        check(&what, row.numbers[quantity], &expected[key]);
    }
    if let Some(capacity) = expected["max_total_num_tokens"].as_f64() {
        assert_eq!(row.capacity(), Some(capacity), "{name}");
    }
}

#[test]
fn every_model_server_page_gives_exactly_its_expected_values() {
    for name in SERVERS {
        let page = server(name);
        let expected = expected(name);
        assert_eq!(page.engine.as_str(), expected["kind"].as_str().unwrap());
        let none = Vec::new();
        let per_server = expected["per_server"].as_array().unwrap_or(&none);
        let per_engine = expected["per_engine"].as_array().unwrap();
        assert_eq!(page.rows.len(), per_engine.len() + per_server.len(), "{name}");
        for (row, expected) in page.rows.iter().zip(per_engine.iter().chain(per_server)) {
            assert_eq!(row.model.as_ref().map(AsRef::as_ref), expected["model"].as_str());
            assert_eq!(row.rank.as_deref(), expected["engine"].as_str(), "{name}");
            check_row(name, row, expected);
        }
        if let Some(family) = expected["itl_family"].as_str() {
            let itl =
                page.matched.iter().find(|matched| matched.quantity == Quantity::ItlSum).unwrap();
            assert_eq!(itl.spec.to_string(), format!("{family}_sum"));
        }
        assert_eq!((page.repeated, page.beyond_limit), (0, 0), "{name}");
    }
}

#[test]
fn the_newest_lora_series_is_the_current_one() {
    for name in SERVERS {
        let lora = server(name).lora;
        let expected = &expected(name)["lora_current"];
        let Some(max) = expected["max_lora"].as_u64() else {
            assert_eq!(lora, None, "{name}");
            continue;
        };
        let lora = lora.unwrap();
        let names =
            |key: &str| -> Vec<Box<str>> { serde_json::from_value(expected[key].clone()).unwrap() };
        assert_eq!(lora.max, Some(max));
        assert_eq!((lora.running, lora.waiting), (names("running"), names("waiting")));
    }
}

const KEYS: [&str; 13] = [
    "requests_total",
    "errors_total",
    "flow_control_queue_size",
    "duration_sum",
    "duration_count",
    "input_tokens_sum",
    "input_tokens_count",
    "output_tokens_sum",
    "output_tokens_count",
    "ntpot_sum",
    "ntpot_count",
    "itl_sum",
    "itl_count",
];

#[test]
fn every_generation_of_an_endpoint_picker_gives_its_expected_values() {
    for name in ENDPOINT_PICKERS {
        let page = endpoint_picker(name);
        let expected = expected(name);
        let models = expected["per_model"].as_array().unwrap();
        for expected in models {
            let (model, target) = (expected["model"].as_str(), expected["target"].as_str());
            let row = page.models.iter().find(|row| {
                row.model.as_ref().map(AsRef::as_ref) == model
                    && row.target.as_ref().map(AsRef::as_ref) == target
            });
            let row = row.unwrap_or_else(|| panic!("{name}: {model:?} {target:?}"));
            for key in KEYS {
                let what = format!("{name}, {model:?}, {key}");
                check(&what, row.numbers.get(key).copied(), &expected[key]);
            }
            for (label, kind) in [("streaming=true", "streaming"), ("streaming=false", "whole")] {
                for (index, half) in ["sum", "count"].into_iter().enumerate() {
                    let number = row.numbers.get(&*format!("ttft_{kind}_{half}")).copied();
                    check(&format!("{name}, {model:?}"), number, &expected["ttft"][label][index]);
                }
            }
        }
        check_running(name, &page, models);
        check_pool(name, &page, &expected["pool"]);
    }
}

/// The first generation counts running requests by model alone: of a model with several targets it
/// tells the sum, and the share of each target cannot be told.
fn check_running(name: &str, page: &EndpointPickerMetrics, models: &[Value]) {
    for expected in models {
        let same_model = |other: &&Value| other["model"] == expected["model"];
        let of_model: Vec<&Value> = models.iter().filter(same_model).collect();
        let rows = page
            .models
            .iter()
            .filter(|row| row.model.as_ref().map(AsRef::as_ref) == expected["model"].as_str());
        let running: Vec<Option<f64>> =
            rows.map(|row| row.numbers.get("running").copied()).collect();
        let each: Vec<Option<f64>> = of_model.iter().map(|row| row["running"].as_f64()).collect();
        if name == "epp" && of_model.len() > 1 {
            let sum = each.iter().copied().sum::<Option<f64>>();
            assert_eq!(running, [&[sum][..], &vec![None; of_model.len()]].concat(), "{name}");
        } else {
            assert_eq!(running, each, "{name}");
        }
    }
}

fn check_pool(name: &str, page: &EndpointPickerMetrics, expected: &Value) {
    let [pool] = &page.pools[..] else { panic!("{name}: {:?}", page.pools) };
    assert_eq!(pool.name.as_deref(), expected["name"].as_str());
    for key in ["avg_kv", "avg_queue", "avg_running", "ready", "saturation_effective"] {
        check(name, pool.numbers.get(key).copied(), &expected[key]);
    }
    let pods = expected["per_pod_queue"].as_object().unwrap();
    assert_eq!(pool.per_pod_queue.len(), pods.len());
    for (pod, waiting) in &pool.per_pod_queue {
        assert_eq!(Some(*waiting), pods[pod.as_str()].as_f64(), "{name}, {pod}");
    }
}

#[test]
fn the_newest_generation_on_an_endpoint_pickers_page_is_read() {
    for (name, prefix) in
        [("epp_router_names", "llm_d_router_epp_"), ("epp_llm_d_names", "llm_d_epp_")]
    {
        for matched in &endpoint_picker(name).matched {
            assert!(matched.1.starts_with(prefix), "{name}: {matched:?}");
        }
    }
    let matched = endpoint_picker("epp").matched;
    assert!(matched.iter().all(|(_, series)| series.starts_with("inference_")));
}

#[test]
fn no_chunking_of_a_page_changes_what_it_says() {
    let engines = Engines::builtin();
    let mut reader = engines.reader();
    for name in SERVERS.iter().chain(&ENDPOINT_PICKERS) {
        let page = capture(name);
        let at_once = read(&engines, &mut reader, &page, usize::MAX);
        for chunk in [1, 7, 4096] {
            assert_eq!(read(&engines, &mut reader, &page, chunk), at_once, "{name} by {chunk}");
        }
    }
}

#[test]
fn no_order_of_its_lines_changes_what_a_page_says() {
    let engines = Engines::builtin();
    let mut reader = engines.reader();
    for name in SERVERS.iter().chain(&ENDPOINT_PICKERS) {
        let page = String::from_utf8(capture(name)).unwrap();
        let in_order = read(&engines, &mut reader, page.as_bytes(), usize::MAX);
        let backwards: Vec<&str> = page.lines().rev().collect();
        let backwards = backwards.join("\n");
        assert_eq!(
            read(&engines, &mut reader, backwards.as_bytes(), usize::MAX),
            in_order,
            "{name}"
        );
        // Families interleave when every seventh line is read first.
        let lines: Vec<&str> = page.lines().collect();
        let dealt: Vec<&str> =
            (0..7).flat_map(|start| lines.iter().skip(start).step_by(7).copied()).collect();
        let dealt = dealt.join("\n");
        assert_eq!(read(&engines, &mut reader, dealt.as_bytes(), usize::MAX), in_order, "{name}");
    }
}

#[test]
fn a_forced_engine_reads_its_own_pages_and_no_others() {
    let engines = Engines::builtin();
    for name in SERVERS {
        let engine = server(name).engine;
        let mut reader = engines.reader_of(&engine).unwrap();
        let page = read(&engines, &mut reader, &capture(name), usize::MAX);
        assert!(matches!(page, Ok(Exposition::Server(page)) if page.engine == engine), "{name}");
    }
    let mut reader = engines.reader_of(&"vllm".into()).unwrap();
    let Err(page) = read(&engines, &mut reader, &capture("sglang"), usize::MAX) else {
        panic!("an SGLang page is none of vLLM's")
    };
    assert_eq!(page.expected, Some("vllm".into()));
    assert_eq!(page.looks_like, Some("sglang".into()));
    assert!(engines.reader_of(&"vlm".into()).is_none());
}
