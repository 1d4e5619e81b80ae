// SPDX-License-Identifier: Apache-2.0
//! Which data the queries of autoscalers need, and their values without it.

use proptest::prelude::*;

use super::*;

fn query(text: &str) -> Query {
    Query::parse(text, &Limits::default()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Formats a need: `S0 & (S1 | S2?)` is the first selector and one of two others, of which the last has a default.
fn shown(need: &Need) -> String {
    let joined = |needs: &[Need], between| {
        format!("({})", needs.iter().map(shown).collect::<Vec<_>>().join(between))
    };
    match need {
        Need::Nothing => "-".to_owned(),
        Need::Selector { index, has_default } => {
            format!("S{index}{}", if *has_default { "?" } else { "" })
        }
        Need::All(needs) => joined(needs, " & "),
        Need::Any(needs) => joined(needs, " | "),
    }
}

#[test]
fn queries_need_data_and_have_a_value_without_it() {
    let zero = Some(0.0);
    for (text, need, worth) in [
        (
            r#"sum(llm_d_epp_flow_control_queue_size{namespace="prod",model_name="org/m"})"#,
            "S0",
            zero,
        ),
        (r#"sum(llm_d_epp_request_running{namespace="prod",service="pool-epp"})"#, "S0", zero),
        (r#"max(llm_d_epp_flow_control_pool_saturation{inference_pool="pool"})"#, "S0", zero),
        (r#"max(kube_deployment_status_replicas_unavailable{deployment="m"})"#, "S0", zero),
        (
            r#"(sum(llm_d_epp_inflight_tokens{producer_name="p"}) / 30000) or vector(0)"#,
            "S0?",
            zero,
        ),
        (r#"sum(vllm:kv_cache_usage_perc{pod=~".*decode.*"}) or vector(0)"#, "S0?", zero),
        (
            r#"sum(label_replace(a{namespace="prod"}, "t", "$1", "e", "(.+)") and on (t) label_replace(b, "t", "$1", "m", "(.+)"))"#,
            "(S0 & S1)",
            zero,
        ),
        (
            "avg_over_time(sum(vllm:num_requests_waiting_by_reason{reason=\"capacity\"})[2m:15s])",
            "S0",
            None,
        ),
        (
            "(histogram_quantile(0.9, sum by (le) (rate(a_bucket[1m]))) >= 0) or histogram_quantile(0.9, sum by (le) (rate(b_bucket[1m])))",
            "(S0 | S1)",
            None,
        ),
        ("max(recorded:saturation:smoothed)", "S0", zero),
        (
            "max by (instance, pod) (max_over_time(vllm:kv_cache_usage_perc{model_name=\"m\"}[1m]))",
            "S0",
            None,
        ),
        ("max by (pod) (vllm:cache_config_info)", "S0", None),
        ("max by (pod) (rate(a_sum[5m]) / rate(a_count[5m]))", "(S0 & S1)", None),
        (
            r#"sum(q{target_model_name="m"}) or sum(q{model_name="m",target_model_name=""})"#,
            "(S0 | S1)",
            zero,
        ),
        ("sum(increase(vllm:request_success_total{model_name=\"m\"}[10m]))", "S0", zero),
        ("sum by (pod) (rate(a[5m])) / sum by (pod) (rate(b[5m]))", "(S0 & S1)", None),
        ("histogram_quantile(0.95, sum by (le) (rate(a_bucket[5m])))", "S0", None),
        ("avg(gpu_utilization{serving=\"m\"})", "S0", None),
        ("vllm:num_requests_waiting", "S0", None),
        ("sum(vllm:num_requests_waiting{namespace=\"prod\"}) by (namespace)", "S0", None),
        (r#"sum({__name__=~"sglang[:_]num_queue_reqs",model_name="m"})"#, "S0", zero),
        ("absent(vllm:num_requests_running{namespace=\"prod\"})", "-", None),
        ("count(vllm:num_requests_running)", "S0", zero),
        ("vllm:num_requests_waiting{namespace=\"prod\"} > 3", "S0", None),
        ("1 + 1", "-", None),
        ("vector(1)", "-", None),
        ("a unless b", "S0", None),
        ("sum(a) + sum(b)", "(S0 & S1)", zero),
        ("sum(a) + sum(a)", "(S0 & S0)", zero),
        ("sum(a) / sum(b)", "(S0 & S1)", None),
        ("sum(a) + b", "(S0 & S1)", None),
        ("absent(a) or sum(b)", "S0", None),
        ("(sum(a) or vector(0)) + (sum(b) or vector(0))", "(S0? & S1?)", zero),
        ("clamp_max(sum(a) * 2, 10)", "S0", zero),
        ("10 - sum(a)", "S0", Some(10.0)),
        ("clamp(-sum(a) + 3, 4, 9)", "S0", Some(4.0)),
        ("quantile(0.9, a)", "S0", None),
        ("topk(3, a)", "S0", None),
        ("scalar(sum(a))", "S0", None),
    ] {
        let query = query(text);
        assert_eq!((shown(&query.need).as_str(), query.value_if_empty), (need, worth), "{text}");
        let again = super::Query::parse(&query.text, &Limits::default()).unwrap();
        // Formatting sorts the matchers.
        let query = super::Query { expression: again.expression.clone(), ..query };
        assert_eq!(again, query, "formatting it again changes nothing");
    }
}

#[test]
fn a_query_without_its_filters_has_a_result_wherever_there_are_data() {
    for (text, unfiltered) in [
        ("sum(rate(a[1m])) > 0", Some("sum(rate(a[1m])) > bool 0")),
        ("a > on (pod) b == 3", Some("a > bool on (pod) b == bool 3")),
        ("rate(a[1m]) < bool 3", None),
        ("sum((rate(a[1m]) > 1) and b) / c", Some("sum(((rate(a[1m]) > bool 1))) / c")),
        ("rate(a[1m]) unless absent(b)", Some("(rate(a[1m]))")),
        (
            "max_over_time((a >= 1)[5m:1m]) or -clamp(rate(b[1m]) != 2, 0, 9)",
            Some("max_over_time((a >= bool 1)[5m:1m]) or -clamp(rate(b[1m]) != bool 2, 0, 9)"),
        ),
        // Matching series are enough, or nothing has a result.
        ("sum(a) > 3", None),
        ("sum(a) > 3 or vector(1)", None),
        ("absent(rate(a[1m])) * 2", None),
        ("absent(rate(a[1m])) and b", None),
    ] {
        let shown = query(text).unfiltered().map(|expression| expression.to_string());
        assert_eq!(shown.as_deref(), unfiltered, "{text}");
    }
}

#[test]
fn equal_queries_have_one_text() {
    let one = query("sum( vllm:x{a=\"b\" , c='d'} )by(  e )");
    assert_eq!(one.text, query("sum by (e) (vllm:x{a=\"b\",c=\"d\"})").text);
}

#[test]
fn a_selector_has_no_range_offset_or_time() {
    let query = query(r#"rate(a{b="c",d="e"}[5m] offset 1h) + a{d="e",b="c"} @ 17"#);
    let selectors: Vec<&str> = query.selectors.iter().map(Selector::text).collect();
    assert_eq!(selectors, [r#"a{b="c",d="e"}"#]);
    assert!(query.of_past && !super::tests::query("a").of_past);
}

#[test]
fn arithmetic_with_two_selectors_differs_from_arithmetic_with_a_number() {
    for (text, expected) in [
        ("sum(a) / sum(b)", true),
        ("a > b", true),
        ("sum(a) / 2 > 3", false),
        ("a and b", true),
        ("a or b", false),
    ] {
        assert_eq!(query(text).forms.has_arithmetic, expected, "{text}");
    }
    assert!(query("(sum(a) + sum(b)) or vector(0)").forms.hides_arithmetic);
    assert!(!query("(sum(a) or vector(0)) + (sum(b) or vector(0))").forms.hides_arithmetic);
    assert!(query("sum(a) + scalar(sum(b))").forms.hides_arithmetic);
}

#[test]
fn only_a_filter_may_have_an_empty_result() {
    for (text, expected) in [
        ("a > 3", true),
        ("a > bool 3", false),
        ("a and b", true),
        ("a unless b", true),
        ("absent(a)", true),
        ("sum(rate(a[5m]))", false),
        ("sum(a) or vector(0)", false),
    ] {
        assert_eq!(query(text).forms.is_filter, expected, "{text}");
    }
}

#[test]
fn a_value_depends_on_the_number_of_replicas_or_does_not() {
    for (text, expected) in [
        ("sum(a) or vector(0)", Kind::Sum),
        ("(count(a) * 2)", Kind::Sum),
        ("sum(a) / sum(b)", Kind::Ratio),
        ("max(a)", Kind::Ratio),
        ("clamp_max(avg(a), 1)", Kind::Ratio),
        ("histogram_quantile(0.9, sum by (le) (rate(a_bucket[1m])))", Kind::Ratio),
        ("a", Kind::Unknown),
        ("sum(a) or max(a)", Kind::Unknown),
    ] {
        assert_eq!(query(text).kind, expected, "{text}");
    }
    let text = "sum(a{b=\"c\",e!=\"\",f=~\".+\",g=\"\"}) or d";
    let described = describe(text, &Limits::default()).unwrap();
    let labels: Vec<&[String]> = described.selectors.iter().map(|(_, labels)| &**labels).collect();
    assert_eq!(labels, [&["b".to_owned()][..], &[]]);
}

#[test]
fn a_result_has_one_element_or_one_for_each_series() {
    for (text, expected) in [
        ("sum(a)", true),
        ("(-max(a) + 1) * 100", true),
        ("sum(a) / count(b)", true),
        ("sum(a) / on () group_left b", true),
        ("sum by (model_name) (a)", true),
        ("sum(a) or vector(0)", true),
        ("max_over_time(sum(a)[5m:])", true),
        ("quantile_over_time(0.9, sum(a)[5m:])", true),
        ("scalar(a)", true),
        ("sum(a) and b", true),
        ("a", false),
        ("a * 100", false),
        ("rate(a[1m])", false),
        ("avg_over_time(a[1m])", false),
        ("sum by (pod) (a)", false),
        ("topk(1, a)", true),
        ("topk(2, a)", false),
        ("topk by (pod) (1, a)", false),
        ("a or vector(0)", false),
        ("a and sum(b)", false),
    ] {
        let described = describe(text, &Limits::default()).unwrap();
        assert_eq!(described.is_aggregated, expected, "{text}");
    }
}

#[test]
fn an_invalid_query_has_an_error() {
    for (text, why) in
        [("sum(", ""), ("", ""), ("a{b=~\"[\"}", ""), ("unknown_function(a)", "unknown_function")]
    {
        let error = Query::parse(text, &Limits::default()).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}

/// Generates queries of every form, most of them valid.
fn any_query() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "a",
        "a{b=\"c\"}",
        "a{b=~'c.*',d!=\"\"}",
        "{__name__=~\"a|b\"}",
        "1",
        "vector(0)",
        "a offset 5m",
        "a @ 17",
        "rate(a_total[5m])",
        "max_over_time(a{b=`c`}[5m:1m])",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 24, 2, |inner| {
        let operators = [
            "+",
            "-",
            "*",
            "/",
            "%",
            "^",
            "==",
            "> bool",
            "and on (x)",
            "or",
            "unless",
            "/ ignoring (y)",
        ];
        let around = [
            "sum(#)",
            "max by (x) (#)",
            "count without (x, y) (#)",
            "topk(3, #)",
            "clamp(#, 1, 2)",
            "(#)",
            "-#",
            "absent(#)",
            "label_replace(#, \"x\", \"$1\", \"y\", \"(.*)\")",
            "avg_over_time((#)[5m:])",
        ];
        let binary = (inner.clone(), prop::sample::select(operators.to_vec()), inner.clone());
        prop_oneof![
            binary.prop_map(|(left, operator, right)| format!("{left} {operator} {right}")),
            (prop::sample::select(around.to_vec()), inner)
                .prop_map(|(around, inner)| around.replace('#', &inner)),
        ]
    })
}

proptest! {
    #[test]
    fn formatting_a_query_does_not_change_it(text in any_query()) {
        if let Ok(query) = Query::parse(&text, &Limits::default()) {
            let again = Query::parse(&query.text, &Limits::default());
            let again = again.unwrap_or_else(|error| panic!("{text:?} as {:?}: {error}", query.text));
            prop_assert_eq!(&again.text, &query.text);
            prop_assert_eq!(again.need, query.need);
            prop_assert_eq!(again.of_past, query.of_past);
        }
    }

    #[test]
    fn the_check_of_limits_never_panics(text in ".{0,200}") {
        let _ = Limits::default().check(&text);
    }
}
