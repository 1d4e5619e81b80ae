// SPDX-License-Identifier: Apache-2.0
//! Local answers equal those of a Prometheus server that holds the same samples.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use collector_core::{Clock as _, ManualClock};
use collector_testkit::{History, PrometheusServer, VictoriaMetricsServer};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::Value as Json;

use super::super::{NotLocal, Selection, Value, evaluate};
use super::fixture::{Fleet, LABELS, local};
use crate::guard::whole::{Aged, Instant, Untimed, times_of, values_of};
use crate::limits::Limits;
use crate::query::Query;

/// The time that the samples cover, in seconds.
const COVERED: f64 = 1800.0;
/// The time after which a server no longer returns a sample, in seconds.
const LOOKBACK: f64 = 300.0;
/// The first evaluation, and the step to the next one, in seconds after the first sample. No sample is exactly
/// [`LOOKBACK`] old at any of them, because samples have even milliseconds.
const FIRST: f64 = 60.001;
const STEP: f64 = 14.002;
const STEPS: usize = 120;
const RANDOM: usize = 1000;

const EXPRESSIONS: &[&str] = &[
    "m:waiting",
    r#"m:waiting{namespace="prod"}"#,
    r#"m:waiting{model_name!="org/a"}"#,
    r#"m:waiting{pod=~"a-[0-9]+"}"#,
    r#"m:waiting{pod!~".*-1|b-.*",namespace=~"prod|dev"}"#,
    r#"m:waiting{pod=~"a-\\d",model_name=~`org/.`}"#,
    r#"m:waiting{pod="\x61-0"} or m:waiting{pod='\u0062-1'} or m:waiting{pod="\141-2"}"#,
    r#"m:kv{engine=""}"#,
    r#"m:kv{engine!=""}"#,
    r#"{__name__="m:kv",engine=~"0|"}"#,
    "sum(m:waiting)",
    "sum by (namespace, model_name) (m:waiting)",
    "sum without (pod) (m:waiting)",
    "sum without (pod, engine) (m:kv)",
    "avg(m:waiting)",
    "avg by (model_name) (m:odd)",
    "min by (engine) (m:kv)",
    "max(m:odd) or vector(0)",
    "count by (namespace) (m:waiting > 3)",
    "count(m:kv) - count(m:waiting)",
    "m:waiting + m:running",
    "m:waiting / m:running",
    "m:waiting % 3 + m:running ^ 2 - 1",
    "-m:waiting * -2",
    "m:waiting > 5",
    "5 < m:waiting",
    "m:waiting > bool 5",
    "m:waiting >= bool m:running",
    "m:waiting == m:running",
    "m:waiting != on (namespace, pod) m:running",
    "m:waiting <= ignoring (engine) m:running",
    "m:waiting / on (namespace) group_left m:limit",
    "m:limit * on (namespace) group_right m:waiting",
    r#"m:waiting > on (namespace) group_left (engine) label_replace(m:limit, "engine", "x", "", "")"#,
    "m:kv * on (namespace) group_left (engine) m:limit",
    "m:limit < bool on (namespace) group_right (engine) m:kv",
    "sum by (namespace) (m:waiting) / on (namespace) m:limit",
    r#"m:waiting and m:running{namespace="prod"}"#,
    "m:waiting unless on (pod) (m:running > 4)",
    "m:waiting or m:running",
    "m:gone or m:waiting",
    "sum(m:gone) or vector(0)",
    "m:waiting and on () (sum(m:running) > 10)",
    "scalar(sum(m:waiting)) + 1",
    "scalar(m:waiting) > bool 1",
    "vector(scalar(max(m:kv))) * 100",
    "clamp(m:odd, -2, 4)",
    "clamp(m:waiting, 5, 1)",
    "clamp_min(clamp_max(m:odd, 3), 0 / 0)",
    "clamp_max(sum(m:waiting), 20)",
    r#"label_replace(m:waiting, "engine", "$1", "pod", "[a-z]+-(.*)")"#,
    r#"sum by (engine) (label_replace(m:waiting, "engine", "x-${1}", "pod", "(a|b)-.*"))"#,
    r#"label_replace(vector(1), "namespace", "prod", "", "")"#,
    r#"absent(m:gone{namespace="prod",pod=~"a.*"})"#,
    r#"absent(m:waiting{namespace="prod",namespace!="dev",pod="z"})"#,
    r#"absent(m:waiting{pod="x",pod="y",engine=~"z",engine="z"})"#,
    "absent(sum(m:gone))",
    r#"absent((m:limit{namespace="dev"}))"#,
    "abs(m:odd)",
    "ceil(m:kv * 10) - floor(m:kv * 10)",
    "m:odd * 0",
    "m:waiting + 010",
    "m:waiting + 0x1F * .5 - 1e-2",
    "-m:waiting ^ 2",
    "m:waiting * 2 ^ 3 ^ 2 - -1 ^ 2",
    "m:waiting - 1 - 1 * 7 % 4 / 2",
    "m:waiting > 1 and m:waiting < 5 or m:limit unless m:running",
    "2 * m:waiting > bool 3 + 4",
    "+m:waiting - +1",
    "sum(m:waiting) by (pod,)",
    "sum by () (m:waiting)",
    "m:waiting{namespace=\"prod\",} # a comment",
    "m:waiting == bool m:waiting",
    "1 + 2 * 3 > bool sum(m:limit)",
    "max by (namespace) (m:kv) * on (namespace) group_left () (sum by (namespace) (m:waiting) > 2)",
];

type Series = (&'static str, Vec<(&'static str, String)>, Vec<(f64, f64)>);

/// Returns series with random values, distances and gaps. Times are seconds after the first sample.
fn history(runner: &mut TestRunner) -> Vec<Series> {
    let mut draw = |least: f64, most: f64| (least..most).new_tree(runner).unwrap().current();
    let mut history: Vec<Series> = Vec::new();
    let mut series = |name, labels: Vec<(&'static str, String)>, odd: bool| {
        let (mut samples, mut at) = (Vec::new(), draw(0.0, 20.0));
        let interval = draw(1.0, 15.0);
        while at < COVERED {
            let value = match draw(0.0, 20.0) {
                kind if odd && kind < 2.0 => f64::NAN,
                kind if odd && kind < 3.0 => f64::INFINITY,
                kind if odd && kind < 4.0 => f64::NEG_INFINITY,
                kind if odd => kind - 12.0,
                kind if name == "m:kv" => kind / 20.0,
                kind => kind.floor(),
            };
            samples.push(((at * 500.0).round() / 500.0, value));
            let gap = if draw(0.0, 1.0) < 0.02 { draw(30.0, 700.0) } else { 0.0 };
            at += interval * draw(0.8, 1.2) + gap;
        }
        history.push((name, labels, samples));
    };
    for namespace in ["prod", "dev"] {
        let limit = vec![("namespace", namespace.to_owned())];
        series("m:limit", limit, false);
        for (model, letter) in [("org/a", "a"), ("org/b", "b")] {
            for number in 0..3 {
                let labels = |engine: Option<&str>| {
                    let values =
                        [namespace, model, &format!("{letter}-{number}")].map(str::to_owned);
                    let labels = LABELS.into_iter().zip(values);
                    labels.chain(engine.map(|it| ("engine", it.to_owned()))).collect::<Vec<_>>()
                };
                series("m:waiting", labels(None), false);
                series("m:running", labels(None), false);
                series("m:odd", labels(None), true);
                series("m:kv", labels(Some("0").filter(|_| number > 0)), false);
            }
        }
    }
    history
}

fn page(history: &[Series], start: f64) -> String {
    let mut page = String::new();
    for (name, labels, samples) in history {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        for (at, value) in samples {
            let value = if value.is_infinite() {
                if *value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
            } else {
                value.to_string()
            };
            let _ = writeln!(page, "{name}{{{}}} {value} {:.3}", labels.join(","), start + at);
        }
    }
    page.push_str("# EOF\n");
    page
}

/// Returns what a server would hold at a time.
fn fleet_at(history: &[Series], at: f64) -> Fleet {
    let mut fleet = Fleet::default();
    for (name, labels, samples) in history {
        let newest = samples.iter().rfind(|(sampled_at, _)| *sampled_at <= at);
        if let Some((sampled_at, value)) = newest.filter(|(it, _)| at - it < LOOKBACK) {
            let labels: Vec<(&'static str, &str)> =
                labels.iter().map(|(label, value)| (*label, value.as_str())).collect();
            fleet.add(name, &labels, *value, at - sampled_at);
        }
    }
    fleet
}

/// Labels as text, with the value. A scalar has the labels of no series.
type Answer = BTreeMap<String, f64>;

fn ours(value: Value) -> Answer {
    match value {
        Value::Scalar(value) => BTreeMap::from([("scalar".to_owned(), value)]),
        Value::Vector(vector) => {
            let samples = vector.samples.into_iter();
            samples
                .map(|(labels, value)| (serde_json::to_string(&labels).unwrap(), value))
                .collect()
        }
    }
}

fn labels_of(series: &Json) -> String {
    let labels: BTreeMap<String, String> =
        serde_json::from_value(series["metric"].clone()).unwrap();
    serde_json::to_string(&labels).unwrap()
}

fn number(value: &Json) -> f64 {
    value.as_str().unwrap().replace("Inf", "inf").parse().unwrap()
}

fn is_equal(a: &Answer, b: &Answer) -> bool {
    #[expect(clippy::float_cmp, reason = "infinities have no difference")]
    let is_close = |a: f64, b: f64| {
        a == b
            || (a.is_nan() && b.is_nan())
            || (a - b).abs() <= 1e-12 * a.abs().max(b.abs()).max(1.0)
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && is_close(*a.1, *b.1))
}

struct Fixture {
    history: Vec<Series>,
    start: f64,
    server: PrometheusServer,
    runner: TestRunner,
}

impl Fixture {
    async fn start() -> Option<Self> {
        let mut runner = TestRunner::deterministic();
        let history = history(&mut runner);
        #[expect(clippy::disallowed_methods, reason = "a real server lives in real time")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let start = f64::from(u32::try_from(now).unwrap()) - COVERED - 600.0;
        let page = page(&history, start);
        let server = PrometheusServer::start_with_history_or_skip(&page).await?;
        Some(Self { history, start, server, runner })
    }

    fn draw<S: Strategy>(&mut self, strategy: &S) -> S::Value {
        strategy.new_tree(&mut self.runner).unwrap().current()
    }

    /// Returns the server's answers at all steps.
    async fn range(&self, query: &str) -> Vec<Answer> {
        let query: String = escaped(query);
        let (first, last) = (self.start + FIRST, self.start + FIRST + STEP * (STEPS - 1) as f64);
        let path =
            format!("/api/v1/query_range?query={query}&start={first:.3}&end={last:.3}&step={STEP}");
        let document: Json = serde_json::from_str(&self.server.get(&path).await.unwrap()).unwrap();
        let mut answers = vec![Answer::new(); STEPS];
        for series in document["data"]["result"].as_array().unwrap() {
            for pair in series["values"].as_array().unwrap() {
                let step = ((pair[0].as_f64().unwrap() - first) / STEP).round();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "it is the number of a step"
                )]
                answers[step as usize].insert(labels_of(series), number(&pair[1]));
            }
        }
        answers
    }

    /// Returns the server's document at a time; `None` if it rejects the query.
    async fn get(&self, query: &str, at: f64) -> Option<String> {
        let path = format!("/api/v1/query?query={}&time={:.3}", escaped(query), self.start + at);
        self.server.get(&path).await.ok()
    }

    /// Returns the server's answer at a time; `None` if it rejects the query.
    async fn instant(&self, query: &str, at: f64) -> Option<Answer> {
        Some(theirs(&self.get(query, at).await?))
    }
}

/// Reads a server's document.
fn theirs(document: &str) -> Answer {
    let document: Json = serde_json::from_str(document).unwrap();
    let data = &document["data"];
    if data["resultType"] == "scalar" {
        return Answer::from([("scalar".to_owned(), number(&data["result"][1]))]);
    }
    let series = data["result"].as_array().unwrap().iter();
    series.map(|it| (labels_of(it), number(&it["value"][1]))).collect()
}

fn escaped(query: &str) -> String {
    query.bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "%{byte:02X}");
        text
    })
}

#[tokio::test]
async fn answers_equal_those_of_a_server() {
    let Some(fixture) = Fixture::start().await else { return };
    let fleets: Vec<Fleet> =
        (0..STEPS).map(|step| fleet_at(&fixture.history, FIRST + STEP * step as f64)).collect();
    for expression in EXPRESSIONS {
        let theirs = fixture.range(expression).await;
        let mut samples = 0;
        for (step, (theirs, fleet)) in theirs.iter().zip(&fleets).enumerate() {
            let value = local(expression, fleet)
                .unwrap_or_else(|NotLocal(why)| panic!("{expression}: not local: {why}"));
            // A server returns the range of a scalar as a series without labels.
            let ours = match value {
                Value::Scalar(value) => Answer::from([("{}".to_owned(), value)]),
                value @ Value::Vector(_) => ours(value),
            };
            samples += ours.len();
            assert!(is_equal(&ours, theirs), "{expression} at step {step}:\n{ours:?}\n{theirs:?}");
        }
        let is_empty = ["clamp(m:waiting, 5, 1)"].contains(expression);
        assert_eq!(samples == 0, is_empty, "{expression}: it compares nothing");
    }
}

#[tokio::test]
async fn random_queries_have_the_answers_of_a_server() {
    let Some(mut fixture) = Fixture::start().await else { return };
    let (mut equal, mut not_local) = (0, BTreeMap::<String, usize>::new());
    for _ in 0..RANDOM {
        let expression = fixture.draw(&expression());
        // A label may be both in `on` and in `group_left`.
        if Query::parse(&expression, &Limits::default()).is_err() {
            continue;
        }
        let at = (fixture.draw(&(60.0..COVERED)) * 500.0).round() / 500.0 + 0.001;
        match local(&expression, &fleet_at(&fixture.history, at)) {
            Ok(value) => {
                let (ours, theirs) = (ours(value), fixture.instant(&expression, at).await);
                let theirs = theirs.unwrap_or_else(|| panic!("a server rejects {expression}"));
                assert!(is_equal(&ours, &theirs), "{expression} at {at}:\n{ours:?}\n{theirs:?}");
                equal += 1;
            }
            // Either side may be stricter about duplicates, and a server must be when it is here.
            Err(NotLocal(why)) => {
                let rejected = fixture.instant(&expression, at).await.is_none();
                assert!(rejected, "{expression} at {at}: {why}");
                *not_local.entry(why).or_default() += 1;
            }
        }
    }
    assert!(equal > RANDOM / 2, "{equal} of {RANDOM} were local: {not_local:?}");
}

/// Reads whole metrics.
async fn instant_of(metrics: &[String], get: impl AsyncFn(&str) -> String) -> Instant {
    let values = get(&values_of(metrics)).await;
    let untimed = Untimed::read(values.as_bytes(), metrics).unwrap();
    let mut times = HashMap::new();
    for metric in metrics {
        times.insert(metric.clone(), get(&times_of(metric)).await.into());
    }
    untimed.timed(&times, ManualClock::new().now()).unwrap()
}

#[tokio::test]
async fn queries_over_whole_metrics_have_the_answers_of_a_server() {
    let Some(mut fixture) = Fixture::start().await else { return };
    let metrics = ["m:waiting", "m:running", "m:kv", "m:odd", "m:limit", "m:gone"];
    let metrics = metrics.map(str::to_owned);
    let (mut equal, mut samples) = (0, 0);
    for number in 0..RANDOM / 4 {
        let at = (fixture.draw(&(60.0..COVERED)) * 500.0).round() / 500.0 + 0.001;
        let get = async |query: &str| fixture.get(query, at).await.unwrap();
        let instant = instant_of(&metrics, get).await;
        let series = Aged { instant: Arc::new(instant), since: Duration::ZERO };
        let expressions = EXPRESSIONS.get(number).map(|it| (*it).to_owned());
        for expression in expressions.into_iter().chain([fixture.draw(&expression())]) {
            let Ok(query) = Query::parse(&expression, &Limits::default()) else { continue };
            let selection = Selection::of(&query.expression, &series).unwrap();
            let Ok(value) = evaluate(&query.expression, &selection) else { continue };
            let (ours, theirs) = (ours(value), fixture.instant(&expression, at).await);
            let theirs = theirs.unwrap_or_else(|| panic!("a server rejects {expression}"));
            assert!(is_equal(&ours, &theirs), "{expression} at {at}:\n{ours:?}\n{theirs:?}");
            samples += ours.len();
            equal += 1;
        }
    }
    assert!(equal > RANDOM / 8 && samples > equal, "{equal} queries with {samples} samples");
}

/// As autoscalers write them. VictoriaMetrics differs from Prometheus elsewhere: it keeps names of metrics, for example.
const OF_AUTOSCALERS: &[&str] = &[
    r#"sum(m:waiting{namespace="prod",model_name="org/a"})"#,
    r#"sum(m:waiting{namespace="prod",model_name="org/a"}) or vector(0)"#,
    r#"sum(m:gone{namespace="prod"}) or vector(0)"#,
    r#"max(m:kv{namespace="prod",model_name=~"org/(a|b)",pod!~"b-.*"})"#,
    r#"avg by (model_name) (m:kv{namespace="prod"}) * 100"#,
    r#"sum by (pod) (m:waiting{namespace="dev"} + m:running{namespace="dev"})"#,
    r#"sum(m:waiting{model_name="org/b"}) / count(m:running{model_name="org/b"})"#,
    r#"sum(m:waiting{namespace="prod"}) > 5"#,
    r#"sum(m:kv{namespace="prod",engine="0"}) or sum(m:kv{namespace="prod",engine=""})"#,
    r#"clamp_min(sum(m:waiting{namespace="prod"}) - 3, 0)"#,
];

#[tokio::test]
async fn queries_of_autoscalers_over_whole_metrics_have_the_answers_of_victoria_metrics() {
    let history = history(&mut TestRunner::deterministic());
    let mut written = History::new();
    for (name, labels, samples) in &history {
        let labels: Vec<(String, String)> =
            labels.iter().map(|(label, value)| ((*label).to_owned(), value.clone())).collect();
        for (at, value) in samples.iter().filter(|(_, value)| value.is_finite()) {
            written.add(name, &labels, COVERED + 60.0 - at, *value);
        }
    }
    let Some(server) = VictoriaMetricsServer::start_over_or_skip(&written).await else { return };
    #[expect(clippy::disallowed_methods, reason = "a real server lives in real time")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let metrics = ["m:waiting", "m:running", "m:kv", "m:gone"].map(str::to_owned);
    let mut samples = 0;
    for step in 0..40 {
        let time = now - 120.0 - f64::from(step) * 37.0;
        let get = async |query: &str| {
            let path = format!("/api/v1/query?nocache=1&query={}&time={time:.3}", escaped(query));
            server.get(&path).await.unwrap()
        };
        let instant = instant_of(&metrics, get).await;
        let series = Aged { instant: Arc::new(instant), since: Duration::ZERO };
        for expression in OF_AUTOSCALERS {
            let query = Query::parse(expression, &Limits::default()).unwrap();
            let selection = Selection::of(&query.expression, &series).unwrap();
            let ours = ours(evaluate(&query.expression, &selection).unwrap());
            let theirs = theirs(&get(expression).await);
            assert!(is_equal(&ours, &theirs), "{expression} at {time}:\n{ours:?}\n{theirs:?}");
            samples += theirs.len();
        }
    }
    assert!(samples > 400, "{samples} samples are compared");
}

/// Expressions with a vector as their result.
fn expression() -> BoxedStrategy<String> {
    let label = || select(&LABELS[..]);
    let grouping = || select(&["namespace", "model_name", "pod", "engine", "__name__"][..]);
    let labels = move || vec(grouping(), 0..3).prop_map(|labels| labels.join(","));
    let metrics = ["m:waiting", "m:running", "m:kv", "m:odd", "m:limit", "m:gone"];
    let matchers = [
        r#"namespace="prod""#,
        r#"namespace!="dev""#,
        r#"pod=~"a-[01]""#,
        r#"model_name!~".*/b""#,
        r#"engine="""#,
    ];
    let selector = (select(metrics.to_vec()), vec(select(matchers.to_vec()), 0..3))
        .prop_map(|(metric, matchers)| format!("{metric}{{{}}}", matchers.join(",")));
    let number = select(vec!["0", "1", "2.5", "-3", "1e3", "NaN", "Inf"]);
    let constant = number.clone().prop_map(|number| format!("vector({number})"));
    let leaf = prop_oneof![6 => selector, 1 => constant];
    let bare = leaf.clone();
    leaf.prop_recursive(4, 24, 2, move |inner| {
        let grouping = prop_oneof![
            Just(String::new()),
            labels().prop_map(|labels| format!("by ({labels})")),
            labels().prop_map(|labels| format!("without ({labels})")),
        ];
        let aggregation = select(vec!["sum", "avg", "min", "max", "count"]);
        let scalar = prop_oneof![
            3 => number.clone().prop_map(str::to_owned),
            1 => inner.clone().prop_map(|vector| format!("scalar({vector})")),
        ];
        let arithmetic = select(vec!["+", "-", "*", "/", "%", "^"]);
        let comparison = select(vec![
            "==", "!=", ">", "<", ">=", "<=", "== bool", "!= bool", "> bool", "<= bool",
        ]);
        let operator = prop_oneof![arithmetic, comparison];
        let set = select(vec!["and", "or", "unless", "and on (pod)", "unless ignoring (engine)"]);
        let any_operator = prop_oneof![3 => operator.clone(), 1 => set];
        let any_operator = (any_operator.clone(), any_operator);
        let matching = prop_oneof![
            2 => Just(String::new()),
            1 => labels().prop_map(|labels| format!("on ({labels})")),
            1 => labels().prop_map(|labels| format!("ignoring ({labels})")),
        ];
        let grouped = (labels(), select(vec!["left", "right"]), vec(label(), 0..2));
        let grouped = grouped.prop_map(|(labels, side, included)| {
            format!("on ({labels}) group_{side} ({})", included.join(","))
        });
        let cardinality = prop_oneof![3 => matching.clone(), 2 => grouped];
        let function = select(vec!["abs", "ceil", "floor", "absent", "-"]);
        prop_oneof![
            4 => (aggregation, grouping, inner.clone())
                .prop_map(|(by, of, inner)| format!("{by} {of} ({inner})")),
            2 => (inner.clone(), operator.clone(), scalar.clone())
                .prop_map(|(left, operator, right)| format!("({left}) {operator} ({right})")),
            1 => (scalar.clone(), operator.clone(), inner.clone())
                .prop_map(|(left, operator, right)| format!("({left}) {operator} ({right})")),
            4 => (inner.clone(), operator, cardinality, inner.clone())
                .prop_map(|(left, operator, on, right)| format!("({left}) {operator} {on} ({right})")),
            3 => (inner.clone(), select(vec!["and", "or", "unless"]), matching.clone(), inner.clone())
                .prop_map(|(left, operator, on, right)| format!("({left}) {operator} {on} ({right})")),
            // By the precedence of the operators.
            3 => (inner.clone(), any_operator, bare.clone(), inner.clone()).prop_map(
                |(left, (one, other), middle, right)| {
                    format!("{left} {one} {middle} {other} -{right}")
                }
            ),
            1 => (function, inner.clone()).prop_map(|(name, of)| format!("{name}({of})")),
            1 => (select(vec!["clamp_min", "clamp_max"]), inner.clone(), scalar.clone())
                .prop_map(|(name, of, bound)| format!("{name}({of}, {bound})")),
            1 => (inner.clone(), scalar.clone(), scalar)
                .prop_map(|(of, least, most)| format!("clamp({of}, {least}, {most})")),
            1 => (inner, label(), label()).prop_map(|(of, target, source)| {
                format!(r#"label_replace({of}, "{target}", "$1-x", "{source}", "(.).*")"#)
            }),
        ]
    })
    .boxed()
}
