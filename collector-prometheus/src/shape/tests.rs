// SPDX-License-Identifier: Apache-2.0
//! Which engines are recognised by the names that a server holds, and under which labels.

use collector_engines::{EngineSpec, Series};

use super::ask::{engines_of, interval_of};
use super::items::{Item, count_of, items};
use super::*;

fn terms(set: impl FnOnce(&mut crate::PrometheusConfig)) -> DiscoverySettings {
    let mut config =
        crate::PrometheusConfig { url: "https://h".into(), ..crate::PrometheusConfig::default() };
    set(&mut config);
    config.terms().unwrap()
}

/// The engines that are recognised, as name and prefix.
fn found(names: &[&str], terms: &DiscoverySettings) -> Vec<(String, String)> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let engines = engines_of(&names, terms);
    engines.iter().map(|it| (it.name.to_string(), it.prefix.to_string())).collect()
}

#[track_caller]
fn check(names: &[&str], expected: &[(&str, &str)]) {
    let expected: Vec<(String, String)> =
        expected.iter().map(|(name, prefix)| ((*name).into(), (*prefix).into())).collect();
    assert_eq!(found(names, &terms(|_| {})), expected, "{names:?}");
}

#[test]
fn each_spelling_and_each_unknown_prefix_is_its_own_engine() {
    check(&["vllm:num_requests_running", "vllm:num_requests_waiting"], &[("vllm", "vllm:")]);
    check(&["vllm_num_requests_running"], &[("vllm", "vllm_")]);
    check(
        &["vllm:num_requests_running", "vllm_num_requests_running"],
        &[("vllm", "vllm:"), ("vllm", "vllm_")],
    );
    check(&["kserve_vllm:num_requests_waiting"], &[("kserve-vllm", "kserve_vllm:")]);
    check(&["ray_vllm_num_requests_running"], &[("ray-vllm", "ray_vllm_")]);
    check(&["acme:llm_num_requests_running"], &[("vllm", "acme:llm_")]);
    check(&["acme_num_running_reqs", "acme_num_queue_reqs"], &[("sglang", "acme_")]);
    check(&["node_cpu_seconds_total", "up"], &[]);
}

#[test]
fn unprefixed_names_identify_an_engine_with_all_required_names() {
    check(&["num_requests_running", "num_requests_waiting"], &[("nim", "")]);
    check(&["request_success_total"], &[]);
    check(&["request_success_total", "e2e_request_latency_seconds_count"], &[("trtllm-serve", "")]);
    check(&["prompt_tokens_sum", "completion_tokens_sum"], &[]);
    let of_mlc = ["engine_prefill_time_sum", "engine_decode_time_sum", "prompt_tokens_sum"];
    check(&of_mlc, &[("mlc", "")]);
}

#[test]
fn an_engine_that_is_described_by_its_counters_alone_is_recognised_by_them() {
    let spec: EngineSpec = serde_json::from_value(serde_json::json!({
        "name": "acme", "metrics": {"generation_tokens_total": "acme_tokens_total"},
    }))
    .unwrap();
    let terms = terms(|config| config.engines = vec![spec]);
    assert_eq!(found(&["acme_tokens_total"], &terms), [("acme".to_owned(), String::new())]);
}

#[test]
fn a_name_prefix_stands_before_the_names_of_every_engine() {
    let terms = terms(|config| config.name_prefix = Some("team_".into()));
    let names = ["team_vllm:num_requests_running", "team_tgi_queue_size", "tgi_queue_size"];
    let pair = |name: &str, prefix: &str| (name.to_owned(), prefix.to_owned());
    assert_eq!(
        found(&names, &terms),
        [pair("vllm", "team_vllm:"), pair("tgi", "team_tgi_"), pair("tgi", "tgi_")]
    );
}

#[test]
fn the_users_engine_is_recognised_before_a_built_in_one_of_the_same_names() {
    let spec: EngineSpec =
        serde_json::from_value(serde_json::json!({"name": "acme", "base": "vllm"})).unwrap();
    let terms = terms(|config| config.engines = vec![spec]);
    let names = found(&["vllm:num_requests_running", "sglang:num_running_reqs"], &terms);
    let names: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["acme", "sglang"]);
}

#[test]
fn the_interval_ignores_a_lost_or_early_scrape() {
    let interval = |times: &[f64]| interval_of(times);
    let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
    assert_eq!(interval(&[0.0, 15.002, 29.998, 45.0, 75.0]), seconds(15.0));
    assert_eq!(interval(&[0.0, 60.0]), seconds(60.0));
    assert_eq!(interval(&[0.0, 0.5, 1.0, 1.5]), seconds(0.5));
    for times in [&[][..], &[7.0], &[7.0, 7.0], &[f64::NAN, 1.0]] {
        assert_eq!(interval(times), None, "{times:?}");
    }
}

#[test]
fn only_series_that_name_a_model_count_as_pods_and_copies() {
    let terms = terms(|_| {});
    let engine = terms.engines.iter().next().unwrap().clone();
    let candidates = terms.labels_of(&engine);
    let lives = Series::named("vllm:num_requests_running");
    let all = Filter::default();
    let query = |item: &Item| count_of(item, &engine, &lives, &candidates, &all, &all);
    let items = items(&engine, &candidates);
    let pods: Vec<String> =
        items.iter().filter(|it| matches!(it, Item::Pods(_))).map(query).collect();
    assert_eq!(pods.len(), 2, "by the labels model_name and model");
    assert!(
        pods[0].ends_with(r#"(vllm:num_requests_running{model_name!=""}))"#)
            && pods[0].starts_with("count(count by (exported_namespace,namespace,"),
        "{pods:?}"
    );
    let doubled: Vec<String> =
        items.iter().filter(|it| matches!(it, Item::Doubled(_))).map(query).collect();
    assert!(doubled[0].ends_with(r#"{model_name!=""}) > 1)"#), "{doubled:?}");
    assert!(doubled[0].contains("engine,instance)"), "ports of one pod are no copies: {doubled:?}");
}

#[test]
fn pods_of_a_configured_model_count_whatever_their_labels() {
    let spec: EngineSpec = serde_json::from_value(
        serde_json::json!({"name": "acme", "base": "vllm", "model": "org/m"}),
    )
    .unwrap();
    let terms = terms(|config| config.engines = vec![spec]);
    let engine = terms.engines.iter().next().unwrap().clone();
    let items = items(&engine, &terms.labels_of(&engine));
    let pods: Vec<&Item> = items.iter().filter(|it| matches!(it, Item::Pods(_))).collect();
    assert!(matches!(pods.as_slice(), [Item::Pods(None)]));
}

#[test]
fn the_first_absent_label_is_named_if_there_are_series() {
    let expected = |set: fn(&mut Labels), is_there| {
        let shape = Shape::unknown(&terms(|_| {}));
        let served = Arc::into_inner(shape.served.into_iter().next().unwrap()).unwrap();
        let mut served = Served { is_there, ..served };
        set(&mut served.labels);
        served.lacks()
    };
    assert_eq!(expected(|_| {}, true), None);
    assert_eq!(expected(|labels| labels.namespace.clear(), true), Some("namespace"));
    assert_eq!(expected(|labels| labels.pod.clear(), true), Some("pod"));
    assert_eq!(expected(|labels| labels.model.clear(), true), Some("model"));
    assert_eq!(expected(|labels| labels.namespace.clear(), false), None, "only expected");
    let replica = |labels: &mut Labels| {
        labels.pod.clear();
        labels.replica = Some("ReplicaId".into());
    };
    assert_eq!(expected(replica, true), None, "a replica has a name of its own");
}

#[test]
fn a_window_holds_four_scrapes_and_a_minute_unless_configured() {
    let window = |set: fn(&mut crate::PrometheusConfig), found: Option<u64>| {
        terms(set).window(found.map(Duration::from_secs)).as_secs()
    };
    assert_eq!(window(|_| {}, None), 60);
    assert_eq!(window(|_| {}, Some(5)), 60);
    assert_eq!(window(|_| {}, Some(60)), 240);
    assert_eq!(window(|config| config.window = Some(Duration::from_secs(90)), Some(60)), 90);
}

#[test]
fn the_default_window_is_four_scrapes_and_at_least_a_minute() {
    let seconds = Duration::from_secs;
    assert_eq!(terms(|_| {}).window(None), seconds(60));
    assert_eq!(terms(|config| config.scrape_interval = seconds(60)).window(None), seconds(240));
    assert_eq!(terms(|_| {}).window(Some(seconds(30))), seconds(120), "as discovered");
    let set = terms(|config| config.window = Some(seconds(45)));
    assert_eq!(set.window(Some(seconds(30))), seconds(45));
}
