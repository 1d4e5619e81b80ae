// SPDX-License-Identifier: Apache-2.0
//! The queries, word by word.

use std::collections::HashSet;
use std::time::Duration;

use collector_engines::{Engine, Engines};

use super::*;
use crate::labels::Labels;
use crate::promql::{Filter, Matcher};

fn engine(name: &str) -> Engine {
    Engines::builtin().iter().find(|engine| engine.name.as_str() == name).unwrap().clone()
}

fn boxed(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| Box::from(*name)).collect()
}

/// Series of the release in the table of the module.
const VLLM: [&str; 14] = [
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:request_success_total",
    "vllm:request_prompt_tokens_sum",
    "vllm:request_prompt_tokens_count",
    "vllm:request_generation_tokens_sum",
    "vllm:time_to_first_token_seconds_sum",
    "vllm:time_to_first_token_seconds_count",
    "vllm:inter_token_latency_seconds_sum",
    "vllm:inter_token_latency_seconds_count",
    "vllm:prefix_cache_hits_total",
    "vllm:prefix_cache_queries_total",
    "vllm:cache_config_info",
];

fn plan_of(engine_name: &str, names: &[&str], native: &[&str], window: u64) -> Plan {
    let set = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect();
    let (names, native): (HashSet<Box<str>>, HashSet<Box<str>>) = (set(names), set(native));
    let held = Held { names: &names, native: &native };
    Plan::new(&engine(engine_name), held, Duration::from_secs(window)).unwrap()
}

fn vllm() -> Plan {
    plan_of("vllm", &VLLM, &[], 60)
}

fn labels(rank: &str) -> Labels {
    Labels {
        namespace: boxed(&["namespace"]),
        pod: boxed(&["pod"]),
        model: boxed(&["model_name"]),
        rank: boxed(&[rank]),
        ..Labels::default()
    }
}

fn filter() -> Filter {
    Filter(vec![Matcher::is("namespace", "prod")])
}

fn query(plan: &Plan, kind: QueryKind) -> String {
    let level = plan.level(kind, Level::Model);
    plan.query(kind, &labels("engine"), &filter(), level, false)
}

#[test]
fn the_queries_of_vllm_are_those_of_the_table() {
    let plan = vllm();
    let rank = "max by (namespace,model_name,pod,engine)";
    let model = "sum by (namespace,model_name)";
    let rate = |name: &str| format!(r#"{model} (rate(vllm:{name}{{namespace="prod"}}[60s]))"#);
    for (kind, expected) in [
        (
            QueryKind::Liveness,
            "max by (namespace,model_name,pod,engine,instance) \
             (timestamp(vllm:num_requests_running{namespace=\"prod\"}))"
                .to_owned(),
        ),
        (
            QueryKind::KvCache,
            format!(
                r#"{rank} (max_over_time(vllm:kv_cache_usage_perc{{namespace="prod",pid=""}}[60s]))"#
            ),
        ),
        (
            QueryKind::QueueLength,
            format!(
                r#"{rank} (max_over_time(vllm:num_requests_waiting{{namespace="prod"}}[60s]))"#
            ),
        ),
        (
            QueryKind::RunningRequests,
            format!(r#"{rank} (vllm:num_requests_running{{namespace="prod"}})"#),
        ),
        (QueryKind::RequestCount, rate("request_prompt_tokens_count")),
        (QueryKind::InputTokens, rate("request_prompt_tokens_sum")),
        (QueryKind::OutputTokens, rate("request_generation_tokens_sum")),
        (QueryKind::TtftSum, rate("time_to_first_token_seconds_sum")),
        (QueryKind::TtftCount, rate("time_to_first_token_seconds_count")),
        (QueryKind::ItlSum, rate("inter_token_latency_seconds_sum")),
        (QueryKind::ItlCount, rate("inter_token_latency_seconds_count")),
    ] {
        assert_eq!(query(&plan, kind), expected, "{kind:?}");
    }
    let config = plan.cache_config(&labels("engine"), &filter(), false, &["m-0", "m-1"]).unwrap();
    assert_eq!(
        config,
        "count by (namespace,pod,engine,kv_cache_size_tokens,block_size,num_gpu_blocks) \
         (vllm:cache_config_info{namespace=\"prod\",pod=~\"m-0|m-1\"})"
    );
    assert!(!plan.asks(QueryKind::Capacity), "no gauge reports it");
}

#[test]
fn prefix_cache_hits_and_lookups_share_a_query_over_five_minutes() {
    let part = |plan: &Plan, name: &str, at: usize, window: &str| {
        let leaf = plan.leaves(QueryKind::PrefixCache)[at];
        format!(
            "label_replace(sum by (namespace,model_name,pod) \
             (rate(vllm:{name}{{namespace=\"prod\"}}{window})),\"what\",\"{leaf}\",\"namespace\",\".*\")"
        )
    };
    for (seconds, window) in [(60, "[300s]"), (600, "[600s]")] {
        let plan = plan_of("vllm", &VLLM, &[], seconds);
        let expected = [
            part(&plan, "prefix_cache_hits_total", 0, window),
            part(&plan, "prefix_cache_queries_total", 1, window),
        ];
        assert_eq!(query(&plan, QueryKind::PrefixCache), expected.join(" or "));
        assert!(query(&plan, QueryKind::TtftSum).contains(&format!("[{seconds}s]")));
    }
}

#[test]
fn half_of_a_hit_rate_is_not_asked_for() {
    let gauge = "sglang:num_running_reqs";
    let pair = ["sglang:cached_tokens_total", "sglang:prompt_tokens_total"];
    let asks = |names: &[&str]| {
        plan_of("sglang", &[&[gauge], names].concat(), &[], 60).asks(QueryKind::PrefixCache)
    };
    assert!(asks(&pair));
    assert!(!asks(&pair[..1]) && !asks(&pair[1..]));
}

#[test]
fn an_expression_is_one_query_of_all_its_series_and_evaluated_rank_by_rank() {
    let names = [
        "sglang:num_running_reqs",
        "sglang:num_queue_reqs",
        "sglang:num_grammar_queue_reqs",
        "sglang:num_decode_prealloc_queue_reqs",
    ];
    let plan = plan_of("sglang", &names, &[], 60);
    let leaves = plan.leaves(QueryKind::QueueLength);
    assert_eq!(leaves.len(), 3, "those that the server holds");
    let level = Level::Rank;
    let text = plan.query(QueryKind::QueueLength, &labels("dp_rank"), &filter(), level, false);
    let part = |at: usize, selector: &str| {
        format!(
            "label_replace(max by (namespace,model_name,pod,dp_rank) \
             (max_over_time(sglang:{selector}[60s])),\"what\",\"{}\",\"namespace\",\".*\")",
            leaves[at]
        )
    };
    let expected = [
        part(0, r#"num_queue_reqs{namespace="prod",priority=""}"#),
        part(1, r#"num_grammar_queue_reqs{namespace="prod",priority=""}"#),
        part(
            2,
            r#"num_decode_prealloc_queue_reqs{namespace="prod",engine_type="decode",priority=""}"#,
        ),
    ];
    assert_eq!(text, expected.join(" or "));

    let waiting = |values: &[f64]| {
        let value = |leaf: LeafId| values.get(leaves.iter().position(|it| *it == leaf)?).copied();
        plan.value(QueryKind::QueueLength, Quantity::Waiting, &value)
    };
    assert_eq!(waiting(&[3.0, 2.0, 1.0]), Some(6.0));
    assert_eq!(waiting(&[3.0]), Some(3.0), "the others count as 0 where they are absent");
    assert_eq!(waiting(&[]), None);
}

#[test]
fn sums_and_counts_are_taken_from_one_release() {
    let names = [
        "vllm:num_requests_running",
        "vllm:inter_token_latency_seconds_sum",
        "vllm:inter_token_latency_seconds_count",
        "vllm:time_per_output_token_seconds_sum",
        "vllm:time_per_output_token_seconds_count",
    ];
    let plan = plan_of("vllm", &names, &[], 60);
    let (sums, counts) = (plan.leaves(QueryKind::ItlSum), plan.leaves(QueryKind::ItlCount));
    // Of one pod: the new sum without its count, and both of the old release.
    let values = [(sums[0], 1.0), (sums[1], 10.0), (counts[1], 5.0)];
    let value = |leaf| values.iter().find(|(known, _)| *known == leaf).map(|(_, value)| *value);
    let of = |quantity| plan.value(QueryKind::ItlSum, quantity, &value);
    assert_eq!((of(Quantity::ItlSum), of(Quantity::ItlCount)), (Some(10.0), Some(5.0)));
}

#[test]
fn only_quantities_with_two_names_are_queried_per_pod() {
    let old =
        ["vllm:time_per_output_token_seconds_sum", "vllm:time_per_output_token_seconds_count"];
    let plan = plan_of("vllm", &[VLLM.as_slice(), &old].concat(), &[], 60);
    assert_eq!(plan.level(QueryKind::ItlSum, Level::Model), Level::Pod);
    assert_eq!(plan.level(QueryKind::ItlCount, Level::Model), Level::Pod);
    assert_eq!(plan.level(QueryKind::TtftSum, Level::Model), Level::Model);
    assert_eq!(plan.level(QueryKind::TtftSum, Level::Pod), Level::Pod);
    let text = query(&plan, QueryKind::ItlSum);
    assert_eq!(text.matches("sum by (namespace,model_name,pod) (rate(").count(), 2, "{text}");
    assert_eq!(vllm().level(QueryKind::ItlSum, Level::Model), Level::Model);
}

#[test]
fn native_histograms_are_queried_by_functions_unless_a_classic_one_exists() {
    let base = "vllm:time_to_first_token_seconds";
    let without: Vec<&str> =
        VLLM.into_iter().filter(|name| !name.starts_with("vllm:time_to_first_token")).collect();
    let plan = plan_of("vllm", &without, &[base], 60);
    for (kind, call) in
        [(QueryKind::TtftSum, "histogram_sum"), (QueryKind::TtftCount, "histogram_count")]
    {
        assert_eq!(
            query(&plan, kind),
            format!(
                "sum by (namespace,model_name) ({call}(rate({base}{{namespace=\"prod\"}}[60s])))"
            )
        );
    }
    assert!(!plan_of("vllm", &without, &[], 60).asks(QueryKind::TtftSum));
    let both = query(&plan_of("vllm", &VLLM, &[base], 60), QueryKind::TtftSum);
    assert!(both.contains("rate(vllm:time_to_first_token_seconds_sum{"), "{both}");
}

#[test]
fn presence_queries_other_gauges_and_the_window() {
    let part = |number: usize, text: &str| {
        format!("label_replace({text},\"what\",\"{number}\",\"namespace\",\".*\")")
    };
    let (pods, models) = ("max by (namespace,model_name,pod)", "max by (namespace,model_name)");
    let expected = [
        part(0, &format!(r#"{pods} (timestamp(vllm:num_requests_waiting{{namespace="prod"}}))"#)),
        part(
            1,
            &format!(r#"{pods} (timestamp(vllm:kv_cache_usage_perc{{namespace="prod",pid=""}}))"#),
        ),
        part(
            2,
            &format!(
                r#"{models} (max_over_time(vllm:num_requests_running{{namespace="prod"}}[60s]))"#
            ),
        ),
        part(
            3,
            &format!(
                r#"{models} (max_over_time(vllm:num_requests_waiting{{namespace="prod"}}[60s]))"#
            ),
        ),
    ];
    assert_eq!(query(&vllm(), QueryKind::Presence), expected.join(" or "));
    assert_eq!(vllm().selectors(), 4);
}

#[test]
fn counters_show_the_live_pods_of_an_engine_without_gauges() {
    let plan = plan_of("mlc", &["prompt_tokens_sum", "completion_tokens_sum"], &[], 60);
    assert_eq!(&*plan.liveness.name, "prompt_tokens_sum");
    let presence = query(&plan, QueryKind::Presence);
    assert!(presence.contains("(timestamp(completion_tokens_sum{"), "{presence}");
    let plan = plan_of("mlc", &["completion_tokens_sum"], &[], 60);
    assert_eq!(&*plan.liveness.name, "completion_tokens_sum");
}

#[test]
fn the_first_gauge_present_shows_the_live_pods() {
    let liveness = |names: &[&str]| plan_of("vllm", names, &[], 60).liveness.name.to_string();
    assert_eq!(liveness(&VLLM), "vllm:num_requests_running");
    assert_eq!(liveness(&VLLM[1..]), "vllm:num_requests_waiting");
    assert_eq!(liveness(&VLLM[3..]), "vllm:request_success_total");
    let nothing = HashSet::new();
    let names = VLLM[4..].iter().map(|name| Box::from(*name)).collect();
    let held = Held { names: &names, native: &nothing };
    assert!(Plan::new(&engine("vllm"), held, Duration::from_secs(60)).is_none());
}

#[test]
fn copies_are_distinguished_by_instance_and_differing_labels() {
    let mut labels = labels("engine");
    labels.apart = boxed(&["prometheus_replica"]);
    let text = vllm().query(QueryKind::RunningRequests, &labels, &filter(), Level::Rank, true);
    assert!(
        text.starts_with("max by (namespace,model_name,pod,engine,prometheus_replica,instance)"),
        "{text}"
    );
    labels.cluster = boxed(&["cluster"]);
    labels.role = Some("engine_type".into());
    let text = vllm().query(QueryKind::Liveness, &labels, &filter(), Level::Rank, false);
    assert!(
        text.contains("engine,prometheus_replica,instance,engine_type,cluster) (timestamp("),
        "{text}"
    );
}

#[test]
fn capacities_are_asked_of_pods_under_each_label_that_may_name_them() {
    let mut labels = labels("engine");
    labels.pod = boxed(&["exported_pod", "pod"]);
    let text = vllm().cache_config(&labels, &filter(), false, &["m-0"]).unwrap();
    let parts: Vec<&str> = text.split(" or ").collect();
    assert!(parts[0].ends_with(r#"{namespace="prod",exported_pod="m-0"})"#), "{text}");
    assert!(parts[1].ends_with(r#"{namespace="prod",pod="m-0"})"#), "{text}");
    let all = vllm().cache_config(&labels, &filter(), false, &[]).unwrap();
    assert!(all.ends_with(r#"(vllm:cache_config_info{namespace="prod"})"#), "{all}");
}

#[test]
fn models_are_listed_with_their_pods_which_are_named_where_labels_are_mixed() {
    let text = |level| vllm().query(QueryKind::Models, &labels("engine"), &filter(), level, false);
    let pods =
        r#"count by (namespace,model_name,pod) (vllm:num_requests_running{namespace="prod"})"#;
    assert_eq!(text(Level::Model), format!("count by (namespace,model_name) ({pods})"));
    assert_eq!(text(Level::Pod), pods);
}

#[test]
fn capacities_are_queried_for_all_if_no_label_names_pods() {
    let labels = Labels { pod: Vec::new(), ..labels("engine") };
    let text = vllm().cache_config(&labels, &filter(), false, &["m-0"]).unwrap();
    assert!(text.ends_with(r#"(vllm:cache_config_info{namespace="prod"})"#), "{text}");
}
