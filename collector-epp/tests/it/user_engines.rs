// SPDX-License-Identifier: Apache-2.0
//! Engines that users define, and what they override.

use collector_epp::engines::{EngineSpec, Engines, Quantity};
use serde_json::{Value, json};

use crate::read::server_of;

fn spec(value: Value) -> EngineSpec {
    serde_json::from_value(value).unwrap()
}

#[track_caller]
fn refused(specs: &[Value], expected: &str) {
    let specs: Vec<EngineSpec> = specs.iter().cloned().map(spec).collect();
    assert_eq!(Engines::new(&specs).unwrap_err().to_string(), expected);
}

#[test]
fn engine_of_the_users_own_is_read_by_its_specs() {
    let engines = Engines::new(&[spec(json!({
        "name": "acme",
        "rank_label": "shard",
        "metrics": {
            "waiting": "acme_requests{state=waiting}",
            "running": ["acme_running", "acme_requests{state=\"running\"}"],
            "num_gpu_blocks": "acme_tokens_max / acme_block_tokens",
            "block_size": "acme_block_tokens",
            "kv_cache_usage": "acme_kv_percent * 0.01",
        },
    }))])
    .unwrap();
    let page = server_of(
        &engines,
        "acme_requests{model_name=\"m\",shard=\"1\",state=\"waiting\"} 3\n\
         acme_requests{model_name=\"m\",shard=\"1\",state=\"running\"} 5\n\
         acme_tokens_max{model_name=\"m\",shard=\"1\"} 32000\n\
         acme_block_tokens{model_name=\"m\",shard=\"1\"} 32\n\
         acme_kv_percent{model_name=\"m\",shard=\"2\"} 50\n",
    );
    assert_eq!(page.engine.as_str(), "acme");
    let [one, two] = &page.rows[..] else { panic!("{:?}", page.rows) };
    assert_eq!((one.rank.as_deref(), two.rank.as_deref()), (Some("1"), Some("2")));
    assert_eq!(
        (one.numbers[Quantity::Waiting], one.numbers[Quantity::Running]),
        (Some(3.0), Some(5.0))
    );
    assert_eq!(
        (one.numbers[Quantity::NumGpuBlocks], one.numbers[Quantity::BlockSize]),
        (Some(1000.0), Some(32.0))
    );
    assert_eq!(
        (one.numbers[Quantity::KvCacheUsage], two.numbers[Quantity::KvCacheUsage]),
        (None, Some(0.5))
    );
}

#[test]
fn engine_inherits_what_it_does_not_say_itself() {
    let fork = spec(json!({
        "name": "fork",
        "base": "vllm",
        "metrics": { "waiting": "fork:queue", "kv_cache_usage": [], "block_size": "16" },
    }));
    let engines = Engines::new(&[fork]).unwrap();
    let shared = "vllm:num_requests_running{model_name=\"m\",engine=\"0\"} 2\n\
                  vllm:kv_cache_usage_perc{model_name=\"m\",engine=\"0\"} 0.5\n";
    let of_fork = format!(
        "{shared}fork:queue{{model_name=\"m\",engine=\"0\"}} 7\n\
                           fork:queue{{model_name=\"m\",engine=\"1\"}} 8\n"
    );
    let page = server_of(&engines, &of_fork);
    assert_eq!(page.engine.as_str(), "fork");
    assert_eq!(
        (page.rows[0].numbers[Quantity::Waiting], page.rows[0].numbers[Quantity::Running]),
        (Some(7.0), Some(2.0))
    );
    assert_eq!(
        (page.rows[0].numbers[Quantity::KvCacheUsage], page.rows[0].numbers[Quantity::BlockSize]),
        (None, Some(16.0))
    );

    // On vLLM's own page vLLM finds more.
    let of_vllm = format!("{shared}vllm:num_requests_waiting{{model_name=\"m\",engine=\"0\"}} 9\n");
    let page = server_of(&engines, &of_vllm);
    assert_eq!(
        (page.engine.as_str(), page.rows[0].numbers[Quantity::Waiting]),
        ("vllm", Some(9.0))
    );
}

#[test]
fn built_in_engine_is_overridden_under_its_own_name() {
    let vllm = spec(json!({ "name": "vllm", "metrics": { "waiting": "acme:queue" } }));
    let engines = Engines::new(&[vllm]).unwrap();
    assert_eq!(engines.names().filter(|name| *name == "vllm").count(), 1);
    let page = server_of(
        &engines,
        "vllm:num_requests_waiting{model_name=\"m\"} 9\n\
         vllm:num_requests_running{model_name=\"m\"} 2\n\
         acme:queue{model_name=\"m\"} 7\n",
    );
    assert_eq!(
        (page.rows[0].numbers[Quantity::Waiting], page.rows[0].numbers[Quantity::Running]),
        (Some(7.0), Some(2.0))
    );
}

#[test]
fn what_cannot_work_is_told_with_engine_key_and_position() {
    refused(
        &[json!({ "name": "acme", "metrics": { "waiting": ["a", "b{c"] } })],
        "engine \"acme\", metrics.waiting, \"b{c\": at character 4: expected =, !=, =~ or !~, found the \
         end",
    );
    let unknown = spec(json!({ "name": "acme", "base": "vlm" }));
    let unknown = Engines::new(&[unknown]).unwrap_err().to_string();
    let start =
        "engine \"acme\": base \"vlm\" is not known: expected one of [\"vllm\", \"sglang\", ";
    assert!(unknown.starts_with(start), "{unknown}");
    refused(
        &[json!({ "name": "acme", "metrics": { "block_size": "16" } })],
        "engine \"acme\" reads no series: give it a base, or metrics of its own",
    );
    let acme = json!({ "name": "acme", "base": "vllm" });
    refused(&[acme.clone(), acme], "engine \"acme\" is defined twice");
    refused(&[json!({ "name": "" })], "engine 1: its name is empty");
    refused(
        &[json!({ "name": "epp", "base": "vllm" })],
        "engine \"epp\": this is the name of the Endpoint Picker, take another",
    );
    let many = json!({ "name": "acme", "metrics": { "waiting": vec!["a"; 17] } });
    refused(&[many], "engine \"acme\", metrics.waiting, alternatives: at most 16 are possible");
}

#[test]
fn key_that_is_none_is_refused_with_those_that_are() {
    let refused =
        |value: Value| serde_json::from_value::<EngineSpec>(value).unwrap_err().to_string();
    let wrong_metric = refused(json!({ "name": "acme", "metrics": { "waitng": "a" } }));
    assert!(wrong_metric.starts_with("unknown variant `waitng`, expected one of `waiting`"));
    let wrong_key = refused(json!({ "name": "acme", "waiting": "a" }));
    assert!(wrong_key.contains("unknown field `waiting`, expected one of `name`, `base`"));
    let wrong_kind = refused(json!({ "name": "acme", "metrics": { "waiting": 3 } }));
    assert!(wrong_kind.contains("an expression such as"), "{wrong_kind}");
}
