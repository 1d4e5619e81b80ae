// SPDX-License-Identifier: Apache-2.0
//! Queries over models of which one vanishes, is old, has no pods or was never there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;
use collector_testkit::TokioClock;
use regex::Regex;

use super::*;
use crate::anchor::Anchors;
use crate::guard::{Found, Guard, Models, Reply, Settings};
use crate::limits::Limits;
use crate::upstream::{Passed, Request, Unanswered, Upstream};

const WAITING: &str = "vllm:num_requests_waiting";
const SUM: &str = r#"sum(vllm:num_requests_waiting{namespace="prod"})"#;

/// The series of a server, each with the age of its newest sample in seconds. The value of a query is the number of
/// series of its first selector.
#[derive(Default)]
struct Series {
    ages: Mutex<BTreeMap<(String, ModelRef), u64>>,
    probes: Mutex<Vec<String>>,
    partial_response: Mutex<Option<String>>,
    /// What each answer has besides its data.
    mark: Mutex<&'static str>,
}

impl Series {
    fn set(&self, metric: &str, name: &str, age: u64) {
        lock(&self.ages).insert((metric.to_owned(), model(name)), age);
    }

    fn remove(&self, name: &str) {
        lock(&self.ages).retain(|(_, of), _| *of != model(name));
    }

    fn matching(&self, selector: &str) -> Vec<(ModelRef, u64)> {
        let query = Query::parse(selector, &Limits::default()).unwrap();
        let selector = &query.selectors[0];
        let ages = lock(&self.ages);
        let matching = ages.iter().filter(|((metric, model), _)| {
            selector.name() == Some(metric) && selector.selects_model(model) != Some(false)
        });
        matching.map(|((_, model), age)| (model.clone(), *age)).collect()
    }

    /// The samples of one part of a probe.
    fn part(&self, expression: &str, index: &str, kind: &str) -> Vec<String> {
        let inner = ["timestamp(", "last_over_time("]
            .into_iter()
            .find_map(|function| Some(expression.find(function)? + function.len()));
        let selector = expression[inner.unwrap_or("count(".len())..].trim_end_matches(')');
        let selector = selector.rsplit_once('[').map_or(selector, |(selector, _)| selector);
        let matching = self.matching(selector);
        let sample = |labels: String, value: u64| {
            format!(r#"{{"metric":{{"i":"{index}","k":"{kind}"{labels}}},"value":[1,"{value}"]}}"#)
        };
        match kind {
            _ if matching.is_empty() => Vec::new(),
            "n" => vec![sample(String::new(), matching.len() as u64)],
            "age" => vec![sample(String::new(), matching.iter().map(|it| it.1).min().unwrap())],
            _ => matching
                .iter()
                .map(|(model, age)| {
                    let (name, namespace) = (model.model.as_str(), model.namespace.as_str());
                    sample(format!(r#","model_name":"{name}","namespace":"{namespace}""#), *age)
                })
                .collect(),
        }
    }
}

#[async_trait]
impl Upstream for Series {
    async fn ask(&self, request: Request, _: Duration) -> Result<Passed, Unanswered> {
        let of = |name: &str| request.parameters.iter().find(|(known, _)| known == name);
        let query = &of("query").unwrap().1;
        *lock(&self.partial_response) = of("partial_response").map(|(_, value)| value.clone());
        let part = r#"label_replace\(label_replace\((.*?), "i", "(\d+)", "", ""\), "k", "(\w+)", "", ""\)"#;
        let parts = Regex::new(part).unwrap();
        let samples: Vec<String> = if query.starts_with("label_replace(label_replace(count(") {
            lock(&self.probes).push(query.clone());
            let parts = parts.captures_iter(query);
            parts.flat_map(|part| self.part(&part[1], &part[2], &part[3])).collect()
        } else if query.starts_with("count(present_over_time")
            || query.starts_with("label_replace(topk")
        {
            Vec::new()
        } else {
            let parsed = Query::parse(query, &Limits::default()).unwrap();
            let count = self.matching(parsed.selectors[0].text()).len();
            let sample = format!(r#"{{"metric":{{}},"value":[1,"{count}"]}}"#);
            (count > 0).then_some(sample).into_iter().collect()
        };
        let (samples, mark) = (samples.join(","), *lock(&self.mark));
        let body = format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}{mark}}}"#
        );
        Ok(Passed::new(200, None, body))
    }
}

/// The models that have no pods, and those that have some.
#[derive(Default)]
struct Known {
    no_pods: Mutex<BTreeSet<ModelRef>>,
    with_pods: Mutex<Vec<ModelRef>>,
}

#[async_trait]
impl Models for Known {
    async fn find(&self, _: &str) -> Found {
        Found::Known
    }

    fn is_of_model_servers(&self, metric: &str) -> bool {
        metric.starts_with("vllm:") || metric.starts_with("sglang:")
    }

    async fn has_no_pods(&self, model: &ModelRef) -> bool {
        lock(&self.no_pods).contains(model)
    }

    fn with_pods(&self, metric: &str, _: Duration) -> Vec<ModelRef> {
        if metric == WAITING { lock(&self.with_pods).clone() } else { Vec::new() }
    }
}

struct World {
    series: Arc<Series>,
    known: Arc<Known>,
    guard: Guard,
}

fn model(name: &str) -> ModelRef {
    ModelRef::new(name, "prod")
}

impl World {
    /// Models `a` and `b` have series.
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let (series, known) = (Arc::<Series>::default(), Arc::<Known>::default());
        for name in ["a", "b"] {
            series.set(WAITING, name, 1);
        }
        let (upstream, models) = (Arc::clone(&series), Arc::clone(&known));
        let clock = Arc::new(TokioClock::new());
        let guard = Guard::new(Some(upstream), None, models, clock, Anchors::built_in(), settings);
        Self { series, known, guard }
    }

    async fn ask(&self, query: &str) -> Reply {
        let query = InstantQuery { query: query.to_owned(), ..InstantQuery::default() };
        self.guard.query(query).await
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn text(reply: &Reply) -> &str {
    std::str::from_utf8(&reply.body).unwrap()
}

#[track_caller]
fn check_value(reply: &Reply, value: &str, warning: &str) {
    assert_eq!(reply.status, 200, "{}", text(reply));
    assert!(text(reply).contains(&format!(",\"{value}\"]")), "{}", text(reply));
    assert!(text(reply).contains(warning), "{}", text(reply));
    assert_eq!(warning.is_empty(), !text(reply).contains("warnings"), "{}", text(reply));
}

#[track_caller]
fn check_refused(reply: &Reply, reason: Reason, says: &str) {
    assert_eq!((reply.status, reply.reason), (503, Some(reason)), "{}", text(reply));
    assert!(text(reply).contains(says), "no {says} in {}", text(reply));
}

#[tokio::test(start_paused = true)]
async fn a_sum_without_a_model_that_vanished_is_refused_for_five_minutes_and_then_answered() {
    let world = World::new();
    check_value(&world.ask(SUM).await, "2", "");
    world.series.remove("b");
    pass(60).await;
    let refused = world.ask(SUM).await;
    check_refused(&refused, Reason::Partial, r#"nothing is known of \"b\" in \"prod\" since 1m"#);
    check_refused(
        &refused,
        Reason::Partial,
        r#"of the models that vllm:num_requests_waiting{namespace=\"prod\"} selects"#,
    );
    check_refused(
        &world.ask(&SUM.replace("sum", "max")).await,
        Reason::Partial,
        "nothing is known",
    );
    pass(240).await;
    check_refused(&world.ask(SUM).await, Reason::Partial, "since 5m");
    pass(10).await;
    check_value(&world.ask(SUM).await, "1", r#"without \"b\" in \"prod\", which "#);
    // It is forgotten after as long again, also while it is asked for.
    for _ in 0..5 {
        pass(60).await;
        world.ask(SUM).await;
    }
    check_value(&world.ask(SUM).await, "1", "");
    world.series.set(WAITING, "b", 1);
    pass(10).await;
    check_value(&world.ask(SUM).await, "2", "");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_vanished_is_missed_by_the_next_guard_too() {
    let mut world = World::new();
    check_value(&world.ask(SUM).await, "2", "");
    world.series.remove("b");
    let former = world.guard.clone();
    let (upstream, models) = (Arc::clone(&world.series), Arc::clone(&world.known));
    let (clock, settings) = (Arc::clone(&former.0.clock), Settings::default());
    let next = Guard::new(Some(upstream), None, models, clock, Anchors::built_in(), settings);
    world.guard = next.after(&former);
    pass(60).await;
    check_refused(&world.ask(SUM).await, Reason::Partial, "nothing is known of");
}

#[tokio::test(start_paused = true)]
async fn the_probe_of_an_anchor_does_not_hide_the_models_of_a_selector() {
    let world = World::new();
    for name in ["a", "b"] {
        world.series.set("vllm:num_requests_running", name, 1);
    }
    check_value(&world.ask(&format!("{SUM} or vector(0)")).await, "2", "");
    let running = SUM.replace("waiting", "running");
    check_value(&world.ask(&running).await, "2", "");
    world.series.remove("b");
    pass(10).await;
    check_refused(&world.ask(&running).await, Reason::Partial, "nothing is known");
}

#[tokio::test(start_paused = true)]
async fn a_model_with_old_samples_is_named() {
    let world = World::new();
    world.series.set(WAITING, "b", 134);
    let refused = world.ask(SUM).await;
    check_refused(
        &refused,
        Reason::Partial,
        r#"the newest sample of \"b\" in \"prod\" is 2m14s old"#,
    );
}

#[tokio::test(start_paused = true)]
async fn a_query_of_one_model_is_about_no_other() {
    let world = World::new();
    world.ask(SUM).await;
    world.series.remove("b");
    pass(10).await;
    let of = |name: &str| format!(r#"sum({WAITING}{{namespace="prod",model_name="{name}"}})"#);
    check_value(&world.ask(&of("a")).await, "1", "");
    check_refused(&world.ask(&of("b")).await, Reason::Missing, "no series match");
    let probes = lock(&world.series.probes);
    assert!(!probes.last().unwrap().contains("max by"), "{probes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_model_without_pods_by_the_directory_is_zero() {
    let world = World::new();
    world.ask(SUM).await;
    world.series.remove("b");
    lock(&world.known.no_pods).insert(model("b"));
    pass(10).await;
    let reason = r#"0: \"b\" in \"prod\" has no pods (directory)"#;
    check_value(&world.ask(SUM).await, "1", reason);
    let of_b = r#"sum(vllm:num_requests_waiting{namespace="prod",model_name="b"})"#;
    check_value(&world.ask(of_b).await, "0", reason);
    check_value(&world.ask(&of_b.replace("sum", "max")).await, "0", reason);
    let mean = world.ask(&of_b.replace("sum", "avg")).await;
    assert!(mean.status == 200 && text(&mean).contains(r#""result":[]"#), "{}", text(&mean));
    let listed = of_b.replace(r#"model_name="b""#, r#"model_name=~"b|c""#);
    check_refused(&world.ask(&listed).await, Reason::Missing, "no series match");
    lock(&world.known.no_pods).insert(model("c"));
    pass(10).await;
    check_value(&world.ask(&listed).await, "0", r#"0: \"b\" in \"prod\" (and 1 more) has no pods"#);
}

#[tokio::test(start_paused = true)]
async fn what_may_select_other_models_or_other_exporters_is_not_zero_by_the_directory() {
    let world = World::new();
    world.series.remove("b");
    lock(&world.known.no_pods).insert(model("b"));
    for query in [
        // The picker holds the requests of a model without pods.
        r#"sum(llm_d_epp_flow_control_queue_size{namespace="prod",service="epp",model_name="b"})"#,
        r#"sum(vllm:num_requests_waiting{model_name="b"})"#,
        r#"sum(vllm:num_requests_waiting{namespace="prod",model_name=~"b.*"})"#,
        r#"sum(vllm:num_requests_waiting{namespace="prod",model_name!="a"})"#,
        r#"sum({__name__=~"vllm:.*",namespace="prod",model_name="b"})"#,
    ] {
        check_refused(&world.ask(query).await, Reason::Missing, "no series match");
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_with_pods_that_was_never_matched_is_missing() {
    let world = World::new();
    *lock(&world.known.with_pods) = vec![model("a"), model("c")];
    let says = r#"\"c\" in \"prod\" has pods and no series"#;
    check_refused(&world.ask(SUM).await, Reason::Partial, says);
    check_refused(&world.ask("sum(vllm:num_requests_waiting)").await, Reason::Partial, says);
    // It selects by more than the model: `c` may be none of them.
    let of_service = SUM.replace('}', ",service=\"s\"}");
    check_value(&world.ask(&of_service).await, "2", "");
    check_value(&world.ask(r#"sum(vllm:num_requests_waiting{model_name=~"a|b"})"#).await, "2", "");
    // None of the models with pods has a series: the labels of the server mean something else.
    *lock(&world.known.with_pods) = vec![ModelRef::new("a", "default"), model("c")];
    pass(10).await;
    check_value(&world.ask(SUM).await, "2", "");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_another_alternative_has_is_not_missing() {
    let world = World::new();
    let either = format!("{SUM} or sum(vllm:num_requests_queued{{namespace=\"prod\"}})");
    check_value(&world.ask(&either).await, "2", "");
    world.series.remove("b");
    world.series.set("vllm:num_requests_queued", "b", 1);
    pass(10).await;
    check_value(&world.ask(&either).await, "1", "");
    check_refused(&world.ask(SUM).await, Reason::Partial, "nothing is known");
}

#[tokio::test(start_paused = true)]
async fn a_missing_model_is_a_warning_where_that_is_configured() {
    let settings = Settings { partial: Partial::Warn, ..Settings::default() };
    let world = World::with(settings);
    world.ask(SUM).await;
    assert_eq!(lock(&world.series.partial_response).as_deref(), Some("true"));
    world.series.remove("b");
    pass(10).await;
    check_value(&world.ask(SUM).await, "1", r#"nothing is known of \"b\""#);
}

#[tokio::test(start_paused = true)]
async fn with_empty_zero_a_model_without_series_is_zero() {
    let world = World::new();
    let zero =
        InstantQuery { query: SUM.to_owned(), empty: Empty::Zero, ..InstantQuery::default() };
    check_value(&world.guard.query(zero.clone()).await, "2", "");
    world.series.remove("b");
    pass(10).await;
    check_value(&world.guard.query(zero).await, "1", "");
}

#[tokio::test(start_paused = true)]
async fn series_without_a_model_and_metrics_of_others_are_exempt() {
    let world = World::new();
    world.series.set(WAITING, "", 1);
    check_value(&world.ask(SUM).await, "3", "");
    world.series.remove("");
    pass(10).await;
    check_value(&world.ask(SUM).await, "2", "");

    world.series.set("kube_pods", "a", 1);
    world.series.set("kube_pods", "b", 1);
    let pods = r#"sum(kube_pods{namespace="prod"})"#;
    check_value(&world.ask(pods).await, "2", "");
    world.series.remove("b");
    pass(10).await;
    check_value(&world.ask(pods).await, "1", "");
}

#[tokio::test(start_paused = true)]
async fn above_a_thousand_models_none_is_missed() {
    let world = World::new();
    for number in 0..999 {
        world.series.set(WAITING, &format!("m-{number}"), 1);
    }
    check_value(&world.ask(SUM).await, "1001", "");
    world.series.remove("b");
    pass(10).await;
    check_value(&world.ask(SUM).await, "1000", "");
    world.series.remove("m-0");
    pass(10).await;
    check_refused(&world.ask(SUM).await, Reason::Partial, r#"\"m-0\" in \"prod\""#);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_server_marks_as_partial_is_not_used() {
    for (mark, says) in [
        (r#","warnings":["a store is down"]"#, "a store is down"),
        (r#","isPartial":true"#, "partial"),
    ] {
        let first = World::new();
        first.series.remove("b");
        *lock(&first.series.mark) = mark;
        check_refused(&first.ask(SUM).await, Reason::Backend, says);

        let world = World::new();
        check_value(&world.ask(SUM).await, "2", "");
        world.series.remove("b");
        *lock(&world.series.mark) = mark;
        pass(20).await;
        let reply = world.ask(SUM).await;
        check_value(&reply, "2", "from memory: 20s old");
        assert!(text(&reply).contains(says), "{}", text(&reply));
        pass(120).await;
        check_refused(&world.ask(SUM).await, Reason::Backend, says);
        let never_asked = world.ask("sum(vllm:num_requests_waiting)").await;
        check_refused(&never_asked, Reason::Backend, says);
        let query = SUM.to_owned();
        let unguarded = InstantQuery { query, empty: Empty::Pass, ..InstantQuery::default() };
        assert_eq!(world.guard.query(unguarded).await.status, 200);
        // A probe that lacks series proves nothing about a model.
        let unknown = world.ask(&SUM.replace("namespace", "model_name")).await;
        check_refused(&unknown, Reason::Backend, says);
    }
    let world = World::new();
    *lock(&world.series.mark) = r#","warnings":["PromQL info: metric might not be a counter","3 more annotations omitted"]"#;
    let reply = world.ask(SUM).await;
    assert!(text(&reply).contains(",\"2\"]"), "it lacks nothing: {}", text(&reply));
    let world = World::with(Settings { partial: Partial::Warn, ..Settings::default() });
    *lock(&world.series.mark) = r#","warnings":["a store is down"]"#;
    check_value(&world.ask(SUM).await, "2", "a store is down");
}
