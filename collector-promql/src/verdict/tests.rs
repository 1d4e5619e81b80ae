// SPDX-License-Identifier: Apache-2.0
//! When a query may be answered.

use super::*;
use crate::limits::Limits;

const MINUTE: Duration = Duration::from_secs(60);

/// Judges a query of which these texts are matched, each as old as it says.
fn judged(text: &str, matched: &[(&str, u64, u64)], empty: Empty) -> Result<Verdict, Refusal> {
    let query = Query::parse(text, &Limits::default()).unwrap();
    let probed = Probed::of(&query, &Anchors::built_in(), |_| false);
    let matched = matched.iter().map(|(text, series, age)| {
        assert!(probed.texts.iter().any(|it| it.text == *text), "{text} of {:?}", probed.texts);
        let age = (*series > 0).then(|| Duration::from_secs(*age));
        ((*text).to_owned(), Matched { series: *series, age, ..Matched::default() })
    });
    probed.judge(&query.need, &matched.collect(), Terms { max_age: 2 * MINUTE, empty })
}

#[track_caller]
fn check_has_data(text: &str, matched: &[(&str, u64, u64)]) {
    let verdict = judged(text, matched, Empty::Error).unwrap();
    assert!(verdict.has_data && !verdict.is_known_empty, "{verdict:?}");
}

#[track_caller]
fn check_refused(text: &str, matched: &[(&str, u64, u64)], reason: Reason, says: &str) {
    let refusal = judged(text, matched, Empty::Error).unwrap_err();
    assert_eq!(refusal.reason, reason, "{}", refusal.text);
    assert!(refusal.text.contains(says), "{}", refusal.text);
}

#[track_caller]
fn check_known_empty(text: &str, matched: &[(&str, u64, u64)], says: &str) {
    let verdict = judged(text, matched, Empty::Error).unwrap();
    assert!(verdict.is_known_empty, "{verdict:?}");
    assert!(verdict.warnings.iter().any(|warning| warning.contains(says)), "{verdict:?}");
}

const WAITING: &str = r#"vllm:num_requests_waiting{namespace="prod"}"#;
const QUEUE: &str =
    r#"llm_d_epp_flow_control_queue_size{model_name="m",namespace="prod",service="epp"}"#;
const SATURATION: &str =
    r#"llm_d_epp_flow_control_pool_saturation{namespace="prod",service="epp"}"#;
const ALIVE: &str = r#"vllm:num_requests_running{namespace="prod"}"#;

#[test]
fn recent_data_is_answered_and_old_or_missing_data_is_not() {
    let sum = format!("sum({WAITING})");
    check_has_data(&sum, &[(WAITING, 2, 119)]);
    check_has_data(&sum, &[(WAITING, 2, 120)]);
    check_refused(
        &sum,
        &[(WAITING, 2, 134)],
        Reason::Stale,
        "is 2m14s old; the limit is 2m (promql.max_age)",
    );
    check_refused(
        &sum,
        &[],
        Reason::Missing,
        "no series match vllm:num_requests_waiting{namespace=\"prod\"}",
    );
}

#[test]
fn an_idle_endpoint_picker_is_zero_and_an_absent_one_is_not() {
    let sum = format!("sum({QUEUE})");
    check_known_empty(
        &sum,
        &[(SATURATION, 1, 1)],
        "llm_d_epp_flow_control_pool_saturation is present",
    );
    check_refused(&sum, &[], Reason::Missing, "no series match");
    check_refused(&sum, &[(SATURATION, 1, 121)], Reason::Missing, "no series match");
}

#[test]
fn without_a_label_that_names_the_exporter_there_must_be_one_exporter() {
    let text = r#"sum(llm_d_epp_flow_control_queue_size{model_name="m"})"#;
    let plain = "llm_d_epp_flow_control_pool_saturation";
    let pickers = format!(
        "count by (cluster, namespace, service, job, instance, pod, inference_pool) ({plain})"
    );
    check_known_empty(text, &[(&pickers, 1, 0), (plain, 3, 1)], "0: no series match");
    check_refused(text, &[(&pickers, 2, 0), (plain, 6, 1)], Reason::Missing, "no series match");
}

#[test]
fn a_default_counts_while_the_exporter_is_up() {
    let text = format!("sum({WAITING}) or vector(0)");
    check_has_data(&text, &[(WAITING, 1, 1)]);
    check_known_empty(&text, &[(ALIVE, 1, 1)], "the query's own default");
    check_refused(&text, &[], Reason::Missing, "no series match");
    // Without a default, an exporter that is alive proves nothing.
    let sum = format!("sum({WAITING})");
    check_refused(&sum, &[], Reason::Missing, "no series match");
}

#[test]
fn one_alternative_is_enough_and_all_operands_are_needed() {
    let alternatives = "sum(a) or sum(b)";
    check_has_data(alternatives, &[("b", 1, 1)]);
    check_refused(alternatives, &[], Reason::Missing, "no series match a,");
    check_refused(alternatives, &[("a", 1, 500), ("b", 1, 1)], Reason::Stale, "sample of a");
    check_refused("sum(a) / sum(b)", &[("a", 1, 1)], Reason::Missing, "no series match b,");
    check_refused("sum(a) / sum(b)", &[("a", 1, 1), ("b", 1, 500)], Reason::Stale, "sample of b");
    check_has_data("a unless b", &[("a", 1, 1)]);
}

#[test]
fn empty_zero_applies_to_missing_data_and_not_to_old_data() {
    let sum = format!("sum({WAITING})");
    let judged_zero = judged(&sum, &[], Empty::Zero).unwrap();
    assert!(
        judged_zero.is_known_empty
            && judged_zero.warnings[0].starts_with("0 because of empty=zero")
    );
    let old = judged(&sum, &[(WAITING, 1, 500)], Empty::Zero).unwrap_err();
    assert_eq!(old.reason, Reason::Stale);
}

#[test]
fn absent_needs_no_data() {
    let absent = judged("absent(a)", &[], Empty::Error).unwrap();
    assert_eq!(absent, Verdict::default());
}
