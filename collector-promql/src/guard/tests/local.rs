// SPDX-License-Identifier: Apache-2.0
//! Queries over series that the program holds itself, with and without a server.

use crate::local::{
    Gap, Held, HeldSample, HeldSeries, KnownEmpty, KnownLabels, Labels, Part, Wanted,
};

use super::*;

const WAITING: &str = r#"sum(held:waiting{model_name="m"})"#;

/// `held:waiting` of the model `m`, its age in seconds, and two models without series.
struct Waiting(Mutex<u64>);

impl HeldSeries for Waiting {
    fn labels(&self, wanted: &Wanted<'_>) -> Option<KnownLabels> {
        (wanted.metric == "held:waiting").then(|| KnownLabels::Only(vec!["model_name".to_owned()]))
    }

    fn select(&self, wanted: &[Wanted<'_>]) -> Vec<Held> {
        let of = |name: &str| Labels::new([("model_name", name)]);
        let part = |name: &str, text: &str| {
            let (labels, text) = (of(name), text.to_owned());
            Part { labels, is_one_series: true, text }
        };
        let age = Duration::from_secs(*lock(&self.0));
        let held = Held {
            samples: vec![HeldSample { labels: of("m"), value: 7.0, age }],
            gaps: vec![Gap { part: part("down", "down is down"), reason: Reason::Backend }],
            empty: vec![KnownEmpty { part: part("idle", "idle has no pods"), age }],
        };
        vec![held; wanted.len()]
    }
}

fn world(does: Does, has_server: bool) -> (World, Arc<Waiting>) {
    let mut world = World::new(does);
    let upstream = Arc::clone(&world.server);
    let held = Arc::new(Waiting(Mutex::new(0)));
    world.guard = Guard::new(
        has_server.then_some(upstream as Arc<dyn Upstream>),
        Some(Arc::clone(&held) as Arc<dyn HeldSeries>),
        Arc::new(OneModel),
        Arc::new(TokioClock::new()),
        Anchors::built_in(),
        Settings::default(),
    );
    (world, held)
}

#[tokio::test(start_paused = true)]
async fn held_series_are_answered_without_the_server() {
    let (world, held) = world(Does::Hang, true);
    let reply = world.ask(WAITING).await;
    check_value(&reply, "7");
    assert!(reply.is_local && reply.age.is_none());
    *lock(&held.0) = 61;
    let reply = world.ask(WAITING).await;
    assert_eq!((reply.status, reply.age), (200, Some(Duration::from_secs(61))));
    let raw = r"sum(held:waiting{model_name=~`\w`,model_name!~`\.`})";
    assert_eq!(world.ask(raw).await.status, 200, "its strings are raw");
    let scalar = world.ask(r#"scalar(held:waiting{model_name="m"})"#).await;
    assert!(text(&scalar).contains(r#""resultType":"scalar","result":["#), "{}", text(&scalar));
    assert!(text(&scalar).ends_with(r#","7"]}}"#), "{}", text(&scalar));
    *lock(&held.0) = 121;
    check_refused(&world.ask(WAITING).await, 503, Some(Reason::Stale), "2m1s old");
    let question = |max_age| InstantQuery {
        query: WAITING.to_owned(),
        max_age: Some(Duration::from_secs(max_age)),
        ..InstantQuery::default()
    };
    check_value(&world.guard.query(question(122)).await, "7");
    assert_eq!(world.asked(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn held_series_are_judged_as_those_of_a_server() {
    let (world, _) = world(Does::Nothing { anchor: false }, false);
    let idle = world.ask(&WAITING.replace("\"m\"", "\"idle\"")).await;
    check_value(&idle, "0");
    assert!(text(&idle).contains("0: idle has no pods"), "{}", text(&idle));
    // The largest of nothing is 0 and its mean is nothing.
    let mean = world.ask(r#"avg(held:waiting{model_name="idle"})"#).await;
    assert!(text(&mean).contains(r#""result":[]"#), "{}", text(&mean));
    let down = WAITING.replace("\"m\"", "\"down\"");
    check_refused(&world.ask(&down).await, 503, Some(Reason::Backend), "down is down");
    check_refused(
        &world.ask("sum(held:waiting)").await,
        503,
        Some(Reason::Partial),
        "down is down",
    );
    let typo = WAITING.replace("\"m\"", "\"typo\"");
    check_refused(&world.ask(&typo).await, 422, Some(Reason::UnknownModel), "did you mean");
    let others = r#"sum(held:waiting{model_name=~"typo.*"})"#;
    check_refused(&world.ask(others).await, 503, Some(Reason::Missing), "missing is not 0");
    let filtered = world.ask(r#"held:waiting{model_name="m"} > 8"#).await;
    assert!(text(&filtered).contains(r#""result":[]"#), "a filter: {}", text(&filtered));
    let of_m = r#"held:waiting{model_name="m"}"#;
    assert!(text(&world.ask(&format!("{of_m} > {of_m}")).await).contains(r#""result":[]"#));
    let other = format!(r#"{of_m} > label_replace({of_m}, "model_name", "x", "", "")"#);
    let reply = world.ask(&other).await;
    check_refused(&reply, 503, Some(Reason::Missing), "arithmetic needs matching labels");
    let lost = r#"sum(held:waiting{model_name="m"}) + sum(held:waiting{model_name="idle"})"#;
    check_refused(&world.ask(lost).await, 503, Some(Reason::Partial), "or vector(0)");
    let question = InstantQuery { query: typo, empty: Empty::Zero, ..InstantQuery::default() };
    check_value(&world.guard.query(question).await, "0");
}

#[tokio::test(start_paused = true)]
async fn everything_else_goes_to_the_server() {
    let (world, _) = world(Does::Value("9", 1), true);
    let local = InstantQuery { query: WAITING.to_owned(), ..InstantQuery::default() };
    let with = |name: &str| InstantQuery {
        parameters: vec![(name.to_owned(), "x".to_owned())],
        ..local.clone()
    };
    let mixed = format!("{WAITING} + sum(up)");
    let rate = r#"sum(rate(held:waiting{model_name="m"}[1m]))"#.to_owned();
    let label = r#"sum(held:waiting{model_name="m",job="a"})"#.to_owned();
    for question in [
        InstantQuery { query: mixed, ..local.clone() },
        InstantQuery { query: rate, ..local.clone() },
        InstantQuery { query: label, ..local.clone() },
        InstantQuery { query: "held:waiting offset 1s".to_owned(), ..local.clone() },
        InstantQuery { query: "vector(1)".to_owned(), ..local.clone() },
        InstantQuery { time: Some(4e9), ..local.clone() },
        InstantQuery { empty: Empty::Pass, ..local.clone() },
        InstantQuery {
            headers: vec![("x-scope-orgid".to_owned(), "a".to_owned())],
            ..local.clone()
        },
        with("namespace"),
        with("extra_label"),
    ] {
        let before = world.asked().0;
        let reply = world.guard.query(question.clone()).await;
        assert!(world.asked().0 > before, "{question:?}");
        assert!(!reply.is_local, "{question:?}");
        check_value(&reply, "9");
    }
    for name in ["timeout", "partial_response", "nocache"] {
        assert!(world.guard.query(with(name)).await.is_local, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_server_the_reason_says_what_needs_one() {
    let (world, _) = world(Does::Value("9", 1), false);
    for (query, why) in [
        ("sum(up)", "does not hold all series that up may select"),
        ("rate(held:waiting[1m])", "it selects a range"),
        ("held:waiting offset 1m", "it is about the past"),
        (r#"held:waiting{job="a"}"#, "a scrape configuration may add it"),
        ("vector(1)", "it selects no series"),
    ] {
        let reply = world.ask(query).await;
        check_refused(&reply, 503, Some(Reason::NoServer), why);
        assert!(text(&reply).contains("set prometheus.url"), "{}", text(&reply));
    }
    let passed = world.guard.pass(Request::new("api/v1/query", Vec::new())).await;
    assert!(passed.unwrap_err().message.contains("no PromQL server is configured"));
    check_refused(&world.ask("sum(").await, 400, Some(Reason::BadQuery), "invalid parameter");
}
