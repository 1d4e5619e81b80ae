// SPDX-License-Identifier: Apache-2.0
//! Which queries are local, and when a local query is refused.

use std::time::Duration;

use super::super::{Gap, KnownEmpty, Labels, NotLocal, Part, Selection, Value, judge};
use super::fixture::{Fleet, local};
use crate::guard::Empty;
use crate::limits::Limits;
use crate::query::Query;
use crate::refusal::{Reason, Refusal};
use crate::verdict::{Terms, Verdict};

const A: &[(&str, &str)] = &[("namespace", "prod"), ("model_name", "org/a"), ("pod", "a-0")];
const B: &[(&str, &str)] = &[("namespace", "prod"), ("model_name", "org/b"), ("pod", "b-0")];

fn fleet() -> Fleet {
    let mut fleet = Fleet::default();
    fleet.add("m:waiting", A, 3.0, 1.0);
    fleet.add("m:waiting", B, 4.0, 1.0);
    fleet.add("m:running", A, 1.0, 1.0);
    fleet
}

fn model(name: &str, text: &str) -> Part {
    let labels = Labels::new([("namespace", "prod"), ("model_name", name)]);
    Part { labels, is_one_series: false, text: text.to_owned() }
}

#[track_caller]
fn check_not_local(query: &str, why: &str) {
    match local(query, &fleet()) {
        Err(NotLocal(text)) => assert!(text.contains(why), "{query}: {text}"),
        Ok(value) => panic!("{query}: {value:?}"),
    }
}

#[test]
fn only_instants_of_held_series_are_local() {
    for (query, why) in [
        ("rate(m:waiting[1m])", "range"),
        ("max_over_time(m:waiting[1m])", "range"),
        ("max_over_time(sum(m:waiting)[1m:10s])", "range"),
        ("m:waiting offset 1m", "offset"),
        ("m:waiting @ 1", "offset"),
        ("m:waiting + other", "does not hold all series that other"),
        ("m:waiting unless other", "does not hold all series that other"),
        ("absent(other)", "does not hold all series that other"),
        (r#"{__name__=~"m:.*"}"#, "does not name its metric"),
        (r#"{namespace="prod"}"#, "does not name its metric"),
        (r#"m:waiting{pod="a" or pod="b"}"#, "alternatives"),
        ("topk(1, m:waiting)", "topk is not evaluated"),
        ("quantile(0.5, m:waiting)", "quantile is not evaluated"),
        ("stddev(m:waiting)", "stddev is not evaluated"),
        ("histogram_quantile(0.5, m:waiting)", "histogram_quantile is not evaluated"),
        ("timestamp(m:waiting)", "timestamp is not evaluated"),
        ("m:waiting atan2 m:running", "atan2 is not evaluated"),
        ("m:waiting + m:waiting or m:limit{pod=~\"(?i)A.*\"}", "may mean something else"),
        (r#"m:waiting{pod=~"\\pL"}"#, "may mean something else"),
        (r#"m:waiting{pod=~"[a&&b]"}"#, "may mean something else"),
        (r#"m:waiting{pod=~"[a[b]]"}"#, "may mean something else"),
        (
            r#"label_replace(m:waiting, "engine", "$1", "pod", "(?P<a>.)")"#,
            "may mean something else",
        ),
        (r#"label_replace(m:waiting, "engine", "$a", "pod", "(.)")"#, "not evaluated"),
        (r#"label_replace(m:waiting, "__name__", "x", "pod", "(.)")"#, "not evaluated"),
    ] {
        check_not_local(query, why);
    }
}

#[test]
fn a_label_that_a_scrape_configuration_adds_is_not_local() {
    for query in [
        r#"sum(m:waiting{job="vllm"})"#,
        r#"sum(m:waiting{job!="vllm"})"#,
        r#"sum(m:waiting{instance=~".+"})"#,
        "sum by (service) (m:waiting)",
        "sum without (instance) (m:waiting)",
        "m:waiting + on (job) m:running",
        "m:waiting and ignoring (instance) m:running",
        "m:waiting * on (pod) group_left (job) m:running",
        r#"absent(m:waiting{job="vllm"})"#,
        r#"label_replace(m:waiting, "pod", "$1", "instance", "(.*):.*")"#,
        // Series of org/b would keep the label that the server has.
        r#"sum by (zone) (label_replace(m:waiting, "zone", "x", "model_name", "org/a"))"#,
    ] {
        check_not_local(query, "a scrape configuration may add it");
    }
    // The labels of these results are all known.
    for query in [
        r#"sum by (zone) (label_replace(m:waiting, "zone", "x", "", ""))"#,
        "sum(m:waiting) + on (job) vector(1)",
        "sum by (job) (sum by (namespace) (m:waiting))",
        "sum by (engine) (m:waiting)",
    ] {
        assert!(local(query, &fleet()).is_ok(), "{query}");
    }
}

#[test]
fn what_a_server_rejects_is_not_local() {
    check_not_local("m:waiting + on (namespace) m:running", "both sides");
    check_not_local("m:running + on (namespace) m:waiting", "several samples of one side");
    check_not_local(
        r#"label_replace(m:waiting, "pod", "same", "", "") + on (pod) group_right () vector(1)"#,
        "several samples",
    );
    check_not_local(
        r#"label_replace(label_replace(m:waiting, "pod", "x", "", ""), "model_name", "y", "", "")"#,
        "same labels",
    );
}

#[test]
fn text_that_is_not_ascii_goes_to_the_server() {
    let mut fleet = fleet();
    fleet.add("m:waiting", &[("namespace", "prod"), ("pod", "b\u{e9}-0")], 1.0, 1.0);
    assert!(local(r#"m:waiting{pod="a-0"}"#, &fleet).is_ok());
    assert!(local(r#"m:waiting{pod=~"a-."}"#, &fleet).is_err());
    assert!(local(r#"m:running{pod=~"a-."}"#, &fleet).is_ok());
}

#[test]
fn a_query_over_too_many_series_is_not_local() {
    let mut fleet = Fleet::default();
    for number in 0..50_001 {
        fleet.add("m:waiting", &[("pod", &number.to_string())], 1.0, 1.0);
    }
    let NotLocal(why) = local("sum(m:waiting)", &fleet).unwrap_err();
    assert!(why.contains("too many series"), "{why}");
    let mut long = Fleet::default();
    for number in 0..9 {
        long.add("m:waiting", &[("pod", &format!("{number}{}", "x".repeat(1 << 20)))], 1.0, 1.0);
    }
    assert!(local("sum(m:waiting)", &long).is_err());
    fleet.metric("m:waiting").samples.truncate(40_000);
    assert!(local("sum(m:waiting)", &fleet).is_ok());
    let NotLocal(why) = local("sum(-(-(-(-(-m:waiting)))))", &fleet).unwrap_err();
    assert!(why.contains("too many samples"), "{why}");
    let many = (0..17).map(|pod| format!(r#"m:waiting{{pod="{pod}"}}"#)).collect::<Vec<_>>();
    let NotLocal(why) = local(&many.join(" or "), &fleet).unwrap_err();
    assert!(why.contains("more than 16 selectors"), "{why}");
}

#[test]
fn labels_that_grow_with_each_replacement_are_bounded() {
    let replacement = "$1".repeat(100);
    let nested = (0..6).fold("m:waiting".to_owned(), |query, _| {
        format!(r#"label_replace({query}, "pod", "{replacement}", "pod", "(.*)")"#)
    });
    check_not_local(&nested, "too long labels");
}

#[test]
fn regular_expressions_are_bounded() {
    let replaced = |pattern: &str, inner: &str| {
        format!(r#"label_replace({inner}, "engine", "x", "pod", "{pattern}")"#)
    };
    check_not_local(&replaced("(((a{9}){9}){9}){9}", "m:waiting"), "too large once compiled");
    check_not_local(&replaced(&"a".repeat(2000), "m:waiting"), "the limit is 1024");
    let nested = |count| (0..count).fold("m:waiting".to_owned(), |it, _| replaced(".*", &it));
    assert!(local(&nested(16), &fleet()).is_ok());
    check_not_local(&nested(17), "more than 16 regular expressions");
}

#[track_caller]
fn judged(query: &str, fleet: &Fleet, empty: Empty) -> Result<Verdict, Refusal> {
    let query = Query::parse(query, &Limits::default()).unwrap();
    let selection = Selection::of(&query.expression, fleet).unwrap();
    judge(&query, &selection, Terms { max_age: Duration::from_secs(120), empty })
}

#[track_caller]
fn check_refused(query: &str, fleet: &Fleet, reason: Reason, says: &str) {
    let refusal = judged(query, fleet, Empty::Error).unwrap_err();
    assert_eq!(refusal.reason, reason, "{query}: {}", refusal.text);
    assert!(refusal.text.contains(says), "{query}: {}", refusal.text);
}

#[test]
fn an_old_part_refuses_the_sum() {
    let mut fleet = fleet();
    fleet.metric("m:waiting").samples[1].age = Duration::from_secs(180);
    check_refused("sum(m:waiting)", &fleet, Reason::Stale, r#"model_name="org/b""#);
    check_refused("sum(m:waiting) or vector(0)", &fleet, Reason::Stale, "3m old; the limit is 2m");
    check_refused("m:running or m:waiting", &fleet, Reason::Stale, "the limit is 2m");
    assert!(judged(r#"m:waiting{pod="a-0"}"#, &fleet, Empty::Error).unwrap().has_data);
}

#[test]
fn an_unknown_part_refuses_the_sum() {
    let mut fleet = fleet();
    let part = model("org/c", "metrics of org/c are unavailable");
    fleet.metric("m:waiting").gaps.push(Gap { part, reason: Reason::Backend });
    let partial = "only a part of the series";
    check_refused("sum(m:waiting)", &fleet, Reason::Partial, partial);
    check_refused("sum(m:waiting) or vector(0)", &fleet, Reason::Partial, partial);
    check_refused("sum(m:running) or sum(m:waiting)", &fleet, Reason::Partial, partial);
    // Of its pods nothing is known, so any selector on pods may select them.
    check_refused(r#"sum(m:waiting{pod=~"a-.*"})"#, &fleet, Reason::Partial, partial);
    let alone = r#"sum(m:waiting{model_name="org/c"})"#;
    check_refused(alone, &fleet, Reason::Backend, "metrics of org/c are unavailable");
    check_refused(&format!("{alone} or vector(0)"), &fleet, Reason::Backend, "org/c");
    check_refused(
        &format!("sum(m:running or {})", &alone[4..alone.len() - 1]),
        &fleet,
        Reason::Backend,
        "org/c",
    );
    assert!(judged("sum(m:waiting)", &fleet, Empty::Zero).is_err());
    assert!(judged(r#"m:waiting{model_name="org/a"}"#, &fleet, Empty::Error).unwrap().has_data);
    assert!(judged("absent(m:waiting)", &fleet, Empty::Error).is_ok());
    // Without the unknown series, unless would leave too much.
    check_refused("m:running unless m:waiting", &fleet, Reason::Partial, partial);
    let unless =
        format!("m:running unless absent(m:waiting) unless {}", &alone[4..alone.len() - 1]);
    check_refused(&unless, &fleet, Reason::Backend, "org/c");
    // A gap of one series is reached by its own labels alone.
    let gap = &mut fleet.metric("m:waiting").gaps[0];
    gap.part.is_one_series = true;
    assert!(judged(r#"m:waiting{pod=~"a-.*"}"#, &fleet, Empty::Error).unwrap().has_data);
    check_refused(r#"m:waiting{pod!="a-0"}"#, &fleet, Reason::Partial, partial);
}

#[test]
fn empty_as_zero_is_for_what_is_missing_and_not_for_what_is_unknown() {
    let of = |name: &str| format!(r#"sum(m:waiting{{model_name="{name}"}})"#);
    let mut fleet = fleet();
    for reason in [Reason::Backend, Reason::Stale, Reason::Starting, Reason::Partial] {
        let part = model("org/c", "metrics of org/c are unavailable");
        fleet.metric("m:waiting").gaps = vec![Gap { part, reason }];
        let refusal = judged(&of("org/c"), &fleet, Empty::Zero).unwrap_err();
        assert_eq!((refusal.reason, &*refusal.text), (reason, "metrics of org/c are unavailable"));
    }
    fleet.metric("m:waiting").gaps[0].reason = Reason::Missing;
    for name in ["org/c", "org/d"] {
        assert!(judged(&of(name), &fleet, Empty::Zero).unwrap().is_known_empty, "{name}");
    }
}

#[test]
fn no_pods_are_zero_and_no_series_are_missing() {
    let mut fleet = fleet();
    fleet.metric("m:waiting").empty.push(KnownEmpty {
        part: model("org/c", "org/c has no pods"),
        age: Duration::from_secs(1),
    });
    let verdict = judged(r#"sum(m:waiting{model_name="org/c"})"#, &fleet, Empty::Error).unwrap();
    assert!(verdict.is_known_empty && !verdict.has_data);
    assert_eq!(verdict.warnings, ["0: org/c has no pods"]);
    assert!(judged("sum(m:waiting)", &fleet, Empty::Error).unwrap().has_data);
    let mut old = Fleet { metrics: fleet.metrics.clone() };
    old.metric("m:waiting").empty[0].age = Duration::from_secs(121);
    check_refused("sum(m:waiting)", &old, Reason::Stale, r#"model_name="org/c""#);
    check_refused(
        r#"sum(m:waiting{model_name="org/d"})"#,
        &fleet,
        Reason::Missing,
        "missing is not 0",
    );
    // A misspelt pod has no series either, and this is not known.
    check_refused(r#"sum(m:waiting{pod="c-0"})"#, &fleet, Reason::Missing, "missing is not 0");
    let pod = r#"sum(m:waiting{model_name="org/c",pod="c-0"})"#;
    assert!(judged(pod, &fleet, Empty::Error).unwrap().is_known_empty);
    // A default counts where the model has other series.
    let other = r#"sum(m:waiting{model_name="org/a",engine="1"})"#;
    check_refused(other, &fleet, Reason::Missing, "missing is not 0");
    assert!(judged(&format!("{other} or vector(0)"), &fleet, Empty::Error).unwrap().is_known_empty);
    // An old series does not show that the model is up.
    old.metric("m:waiting").empty.clear();
    old.metric("m:waiting").samples[0].age = Duration::from_secs(121);
    let defaulted = format!("{other} or vector(0)");
    check_refused(&defaulted, &old, Reason::Missing, "missing is not 0");
    old.metric("m:waiting").samples[0].age = Duration::from_secs(120);
    assert!(judged(&defaulted, &old, Empty::Error).unwrap().is_known_empty);
    let unknown = r#"sum(m:waiting{model_name="org/d"}) or vector(0)"#;
    check_refused(unknown, &fleet, Reason::Missing, "missing is not 0");
}

#[test]
fn a_scalar_is_a_scalar() {
    assert_eq!(local("scalar(sum(m:waiting))", &fleet()).unwrap(), Value::Scalar(7.0));
}
