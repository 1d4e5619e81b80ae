//! When an answer may be given.

use super::*;
use crate::limits::Limits;

const MINUTE: Duration = Duration::from_secs(60);

/// Judges a query of which these texts are heard, each as old as it says.
fn judged(text: &str, heard: &[(&str, u64, u64)], empty: Empty) -> Result<Judged, Refusal> {
    let query = Query::parse(text, &Limits::default()).unwrap();
    let questions = Questions::of(&query, &Anchors::built_in());
    let heard = heard.iter().map(|(text, series, age)| {
        assert!(questions.texts.contains(&(*text).to_owned()), "{text} of {:?}", questions.texts);
        let age = (*series > 0).then(|| Duration::from_secs(*age));
        ((*text).to_owned(), Heard { series: *series, age })
    });
    questions.judge(&query.need, &heard.collect(), Terms { max_age: 2 * MINUTE, empty })
}

#[track_caller]
fn check_heard(text: &str, heard: &[(&str, u64, u64)]) {
    let judged = judged(text, heard, Empty::Error).unwrap();
    assert!(judged.is_heard && !judged.is_empty, "{judged:?}");
}

#[track_caller]
fn check_refused(text: &str, heard: &[(&str, u64, u64)], reason: Reason, says: &str) {
    let refusal = judged(text, heard, Empty::Error).unwrap_err();
    assert_eq!(refusal.reason, reason, "{}", refusal.text);
    assert!(refusal.text.contains(says), "{}", refusal.text);
}

#[track_caller]
fn check_empty(text: &str, heard: &[(&str, u64, u64)], says: &str) {
    let judged = judged(text, heard, Empty::Error).unwrap();
    assert!(judged.is_empty, "{judged:?}");
    assert!(judged.warnings.iter().any(|warning| warning.contains(says)), "{judged:?}");
}

const WAITING: &str = r#"vllm:num_requests_waiting{namespace="prod"}"#;
const QUEUE: &str =
    r#"llm_d_epp_flow_control_queue_size{model_name="m",namespace="prod",service="epp"}"#;
const SATURATION: &str =
    r#"llm_d_epp_flow_control_pool_saturation{namespace="prod",service="epp"}"#;
const ALIVE: &str = r#"vllm:num_requests_running{namespace="prod"}"#;

#[test]
fn what_is_heard_and_young_is_answered_and_what_is_old_or_missing_is_not() {
    let sum = format!("sum({WAITING})");
    check_heard(&sum, &[(WAITING, 2, 119)]);
    check_heard(&sum, &[(WAITING, 2, 120)]);
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
fn an_idle_picker_is_a_zero_and_a_picker_that_is_gone_is_not() {
    let sum = format!("sum({QUEUE})");
    check_empty(&sum, &[(SATURATION, 1, 1)], "llm_d_epp_flow_control_pool_saturation is heard");
    check_refused(&sum, &[], Reason::Missing, "no series match");
    check_refused(&sum, &[(SATURATION, 1, 121)], Reason::Missing, "no series match");
}

#[test]
fn without_a_label_of_the_scrape_an_anchor_vouches_only_alone() {
    let text = r#"sum(llm_d_epp_flow_control_queue_size{model_name="m"})"#;
    let plain = "llm_d_epp_flow_control_pool_saturation";
    let pickers = format!(
        "count by (cluster, namespace, service, job, instance, pod, inference_pool) ({plain})"
    );
    check_empty(text, &[(&pickers, 1, 0), (plain, 3, 1)], "0: no series match");
    check_refused(text, &[(&pickers, 2, 0), (plain, 6, 1)], Reason::Missing, "no series match");
}

#[test]
fn a_written_default_counts_while_the_exporter_is_alive() {
    let text = format!("sum({WAITING}) or vector(0)");
    check_heard(&text, &[(WAITING, 1, 1)]);
    check_empty(&text, &[(ALIVE, 1, 1)], "the query's own default");
    check_refused(&text, &[], Reason::Missing, "no series match");
    // Without a default, an exporter that is alive proves nothing.
    let sum = format!("sum({WAITING})");
    check_refused(&sum, &[], Reason::Missing, "no series match");
}

#[test]
fn of_alternatives_one_is_enough_and_of_parts_all_are_needed() {
    let alternatives = "sum(a) or sum(b)";
    check_heard(alternatives, &[("b", 1, 1)]);
    check_refused(alternatives, &[], Reason::Missing, "no series match a,");
    check_refused(alternatives, &[("a", 1, 500), ("b", 1, 1)], Reason::Stale, "sample of a");
    check_refused("sum(a) / sum(b)", &[("a", 1, 1)], Reason::Missing, "no series match b,");
    check_refused("sum(a) / sum(b)", &[("a", 1, 1), ("b", 1, 500)], Reason::Stale, "sample of b");
    check_heard("a unless b", &[("a", 1, 1)]);
}

#[test]
fn who_asks_for_a_zero_gets_it_of_what_is_missing_and_not_of_what_is_old() {
    let sum = format!("sum({WAITING})");
    let judged_zero = judged(&sum, &[], Empty::Zero).unwrap();
    assert!(judged_zero.is_empty && judged_zero.warnings[0].starts_with("0 because empty=zero"));
    let old = judged(&sum, &[(WAITING, 1, 500)], Empty::Zero).unwrap_err();
    assert_eq!(old.reason, Reason::Stale);
}

#[test]
fn a_question_for_absence_needs_nothing() {
    let absent = judged("absent(a)", &[], Empty::Error).unwrap();
    assert_eq!(absent, Judged::default());
}
