// SPDX-License-Identifier: Apache-2.0
//! What callers get while the server answers, is late, fails or returns nonsense.

use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use collector_testkit::TokioClock;

use super::*;
use crate::refusal::RETRY_AFTER;

mod local;
mod whole;

const SUM: &str = r#"sum(vllm:num_requests_waiting{namespace="prod",model_name="m"})"#;
const QUEUE: &str = r#"sum(llm_d_epp_flow_control_queue_size{namespace="prod",model_name="m"})"#;

/// How the server answers every request.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Does {
    /// Answers one sample, of so many seconds ago.
    Value(&'static str, u64),
    /// Every selector matches series, and every result is empty.
    SeriesOnly,
    /// Every selector matches series, and every filter excludes all of them.
    Filtered,
    /// No selector matches series; the anchor may.
    Nothing {
        anchor: bool,
    },
    Status(u16, &'static str),
    Body(&'static str),
    Hang,
    Refuse,
}

struct Server {
    does: Mutex<Does>,
    queries: AtomicUsize,
    probes: AtomicUsize,
    times: Mutex<Vec<String>>,
    /// It has a history of every model.
    has_history: AtomicBool,
}

fn vector(samples: &str) -> Passed {
    let body =
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}"#);
    Passed::new(200, None, body)
}

fn sample(labels: &str, value: &str) -> String {
    format!(r#"{{"metric":{{{labels}}},"value":[1.5,"{value}"]}}"#)
}

#[async_trait]
impl Upstream for Server {
    async fn ask(&self, request: Request, within: Duration) -> Result<Passed, Unanswered> {
        let of = |name: &str| request.parameters.iter().find(|(known, _)| known == name);
        let query = of("query").unwrap().1.clone();
        let is_probe = query.starts_with("label_replace(label_replace(count(");
        assert_eq!(of("partial_response").unwrap().1, "false");
        let counter = if is_probe { &self.probes } else { &self.queries };
        counter.fetch_add(1, Ordering::SeqCst);
        if let Some((_, time)) = of("time") {
            lock(&self.times).push(time.clone());
        }
        let does = *lock(&self.does);
        if query.starts_with("count(present_over_time(") {
            let has = self.has_history.load(Ordering::SeqCst);
            return Ok(vector(&if has { sample("", "1") } else { String::new() }));
        }
        let does = match does {
            Does::SeriesOnly if is_probe => Does::Value("", 1),
            Does::Filtered if is_probe || query.contains("bool") => Does::Value("0", 1),
            Does::SeriesOnly | Does::Filtered => Does::Nothing { anchor: false },
            other => other,
        };
        match does {
            Does::Value(value, age) if is_probe => {
                // Every selector matches.
                let parts = query.matches(r#""k", "n""#).count();
                let parts = (0..parts).map(|place| {
                    let n = sample(&format!(r#""i":"{place}","k":"n""#), "1");
                    let age = sample(&format!(r#""i":"{place}","k":"age""#), &age.to_string());
                    let _ = value;
                    format!("{n},{age}")
                });
                Ok(vector(&parts.collect::<Vec<_>>().join(",")))
            }
            Does::Value(value, _) => Ok(vector(&sample("", value))),
            Does::Nothing { anchor } if is_probe => {
                let parts = query.split(" or label_replace(label_replace(count(");
                let parts = parts.enumerate().filter(|(_, part)| {
                    anchor && part.contains("llm_d_epp_flow_control_pool_saturation")
                });
                let parts = parts.flat_map(|(place, _)| {
                    ["n", "age"].map(|kind| sample(&format!(r#""i":"{place}","k":"{kind}""#), "1"))
                });
                Ok(vector(&parts.collect::<Vec<_>>().join(",")))
            }
            Does::Nothing { .. } if query.starts_with("label_replace(topk(") => {
                Ok(vector(&sample(r#""i":"namespace","namespace":"prod""#, "2")))
            }
            Does::Nothing { .. } if query.ends_with("or vector(0)") => Ok(vector(&sample("", "0"))),
            Does::Nothing { .. } => Ok(vector("")),
            Does::Status(status, body) => Ok(Passed::new(status, None, body)),
            Does::Body(body) => Ok(Passed::new(200, None, body)),
            Does::SeriesOnly | Does::Filtered => unreachable!("it was translated"),
            Does::Hang => {
                tokio::time::sleep(within).await;
                Err(Unanswered::new("http://prometheus: no answer began within 10s"))
            }
            Does::Refuse => Err(Unanswered::new("http://prometheus: connection refused")),
        }
    }
}

struct OneModel;

#[async_trait]
impl Models for OneModel {
    async fn find(&self, model: &str) -> Found {
        match model {
            "m" => Found::Known,
            _ => Found::Unknown(vec!["m".to_owned()]),
        }
    }
}

struct World {
    server: Arc<Server>,
    guard: Guard,
}

impl World {
    fn new(does: Does) -> Self {
        let server = Arc::new(Server {
            does: Mutex::new(does),
            queries: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
            times: Mutex::default(),
            has_history: AtomicBool::new(false),
        });
        let upstream = Arc::clone(&server);
        let clock = Arc::new(TokioClock::new());
        let guard = Guard::new(
            Some(upstream),
            None,
            Arc::new(OneModel),
            clock,
            Anchors::built_in(),
            Settings::default(),
        );
        Self { server, guard }
    }

    fn does(&self, does: Does) {
        *lock(&self.server.does) = does;
    }

    async fn ask(&self, query: &str) -> Reply {
        self.guard.query(InstantQuery { query: query.to_owned(), ..InstantQuery::default() }).await
    }

    /// Requests so far: queries and probes.
    fn asked(&self) -> (usize, usize) {
        let of = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (of(&self.server.queries), of(&self.server.probes))
    }
}

fn text(reply: &Reply) -> &str {
    std::str::from_utf8(&reply.body).unwrap()
}

#[track_caller]
fn check_value(reply: &Reply, value: &str) {
    assert_eq!(reply.status, 200, "{}", text(reply));
    assert!(text(reply).contains(&format!(",\"{value}\"]")), "{}", text(reply));
}

#[track_caller]
fn check_refused(reply: &Reply, status: u16, reason: Option<Reason>, says: &str) {
    assert_eq!((reply.status, reply.reason), (status, reason), "{}", text(reply));
    assert!(text(reply).contains(says), "{}", text(reply));
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_share_one_query_and_one_probe_per_ttl() {
    let world = World::new(Does::Value("7", 1));
    for round in 1..4 {
        let callers = (0..1000).map(|_| {
            let guard = world.guard.clone();
            let query = InstantQuery { query: SUM.to_owned(), ..InstantQuery::default() };
            tokio::spawn(async move { guard.query(query).await })
        });
        for caller in callers.collect::<Vec<_>>() {
            check_value(&caller.await.unwrap(), "7");
        }
        assert_eq!(world.asked(), (round, round));
        pass(5).await;
    }
}

#[tokio::test(start_paused = true)]
async fn queries_share_the_probes_of_their_selectors() {
    let world = World::new(Does::Value("7", 1));
    world.ask(SUM).await;
    world.ask(&SUM.replace("sum", "max")).await;
    assert_eq!(world.asked(), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_remembered_probe_decides_nothing_once_its_samples_may_be_too_old() {
    let world = World::new(Does::Value("7", 118));
    check_value(&world.ask(SUM).await, "7");
    pass(4).await;
    world.does(Does::Value("7", 122));
    let other = world.ask(&SUM.replace("sum", "max")).await;
    check_refused(&other, 503, Some(Reason::Stale), "is 2m2s old");
    check_refused(&world.ask(&SUM.replace("sum", "min")).await, 503, Some(Reason::Stale), "2m2s");
    assert_eq!(world.asked(), (3, 2), "that it was too old stays true");
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_memory_has_its_age() {
    let world = World::new(Does::Value("7", 1));
    assert_eq!(world.ask(SUM).await.age, None);
    pass(3).await;
    assert_eq!(world.ask(SUM).await.age, Some(Duration::from_secs(3)));
}

#[tokio::test(start_paused = true)]
async fn missing_old_and_misspelt_data_is_not_zero() {
    let world = World::new(Does::Nothing { anchor: false });
    check_refused(&world.ask(SUM).await, 503, Some(Reason::Missing), "missing is not 0");
    let typo = SUM.replace("\"m\"", "\"typo\"");
    check_refused(
        &world.ask(&typo).await,
        422,
        Some(Reason::UnknownModel),
        r#"did you mean \"m\"?"#,
    );
    let world = World::new(Does::Value("7", 600));
    check_refused(&world.ask(SUM).await, 503, Some(Reason::Stale), "10m old");
    let patient = InstantQuery {
        query: SUM.to_owned(),
        max_age: Some(Duration::from_secs(900)),
        ..InstantQuery::default()
    };
    check_value(&world.guard.query(patient).await, "7");
}

#[tokio::test(start_paused = true)]
async fn an_idle_endpoint_picker_is_zero_and_a_misspelt_model_is_not() {
    let world = World::new(Does::Nothing { anchor: true });
    let reply = world.ask(QUEUE).await;
    check_value(&reply, "0");
    assert!(text(&reply).contains("is present"), "{}", text(&reply));
    assert_eq!(world.asked(), (2, 2), "an empty answer counts only twice, and so does its probe");
    check_value(&world.ask(&format!("{QUEUE} + 2")).await, "2");
    let typo = QUEUE.replace("\"m\"", "\"typo\"");
    check_refused(&world.ask(&typo).await, 422, Some(Reason::UnknownModel), "no metrics of model");
    let grouped = QUEUE.replace("sum(", "sum by (pod) (");
    assert!(text(&world.ask(&grouped).await).contains(r#""result":[]"#));
}

#[tokio::test(start_paused = true)]
async fn during_an_outage_the_last_answer_is_returned_until_it_is_too_old() {
    let world = World::new(Does::Value("7", 1));
    world.ask(SUM).await;
    for does in [Does::Refuse, Does::Status(500, "oops"), Does::Body("<html>"), Does::Hang] {
        world.does(does);
        pass(20).await;
        let reply = world.ask(SUM).await;
        check_value(&reply, "7");
        assert!(reply.age >= Some(Duration::from_secs(20)), "{does:?}: {:?}", reply.age);
        assert!(text(&reply).contains("from memory: "), "{}", text(&reply));
    }
    pass(60).await;
    check_refused(
        &world.ask(SUM).await,
        503,
        Some(Reason::Backend),
        "the limit is 2m (promql.max_stale)",
    );
    world.does(Does::Value("8", 1));
    pass(20).await;
    check_value(&world.ask(SUM).await, "8");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_clients_misread_is_an_error() {
    for (does, says) in [
        (
            Does::Body(r#"{"status":"error","errorType":"timeout","error":"timed out"}"#),
            "timed out",
        ),
        (Does::Body(r#"{"status":"success"}"#), "no data"),
        (
            Does::Body(
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,7]}]}}"#,
            ),
            "vector",
        ),
        (Does::Status(204, ""), "status 204"),
    ] {
        let world = World::new(does);
        check_refused(&world.ask(SUM).await, 503, Some(Reason::Backend), says);
    }
    let world = World::new(Does::Refuse);
    pass(4).await;
    check_refused(
        &world.ask(SUM).await,
        503,
        Some(Reason::Starting),
        "no backend has answered since the start 4s ago: http://prometheus: connection refused",
    );
}

#[tokio::test(start_paused = true)]
async fn no_caller_waits_longer_than_a_second() {
    let world = World::new(Does::Hang);
    let began = tokio::time::Instant::now();
    let callers: Vec<_> = (0..200)
        .map(|number| {
            let guard = world.guard.clone();
            let query = format!("sum(a{number})");
            tokio::spawn(async move {
                guard.query(InstantQuery { query, ..InstantQuery::default() }).await
            })
        })
        .collect();
    for caller in callers {
        let reply = caller.await.unwrap();
        assert_eq!(reply.status, 503);
        assert!(text(&reply).contains("did not answer within 1s"), "{}", text(&reply));
        assert_eq!(reply.retry_after, Some(RETRY_AFTER));
    }
    assert_eq!(began.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_server_is_passed_on_and_stored() {
    let body = r#"{"status":"error","errorType":"execution","error":"found duplicate series"}"#;
    let world = World::new(Does::Status(422, body));
    for _ in 0..3 {
        check_refused(&world.ask(SUM).await, 422, None, "found duplicate series");
    }
    assert_eq!(world.asked().0, 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_page_is_not_passed_on() {
    let world = World::new(Does::Status(400, "<html>Bad Request</html>"));
    check_refused(&world.ask(SUM).await, 503, Some(Reason::Backend), "status 400");
}

#[tokio::test(start_paused = true)]
async fn a_query_about_the_past_is_as_fast() {
    let world = World::new(Does::Hang);
    let began = tokio::time::Instant::now();
    check_refused(&world.ask("sum(a offset 5m)").await, 503, Some(Reason::Starting), "within 1s");
    assert_eq!(began.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_invalid_or_expensive_query_is_not_sent() {
    let world = World::new(Does::Value("7", 1));
    check_refused(&world.ask("sum(").await, 400, Some(Reason::BadQuery), "invalid parameter");
    let deep = "(".repeat(100_000);
    check_refused(&world.ask(&deep).await, 400, Some(Reason::BadQuery), "the limit is 16384");
    assert_eq!(world.asked(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_query_about_the_past_is_passed_on_with_its_time() {
    let world = World::new(Does::Nothing { anchor: false });
    let past = InstantQuery {
        query: "1+1".to_owned(),
        time: Some(-100_000.0),
        parameters: vec![
            ("query".to_owned(), "1+1".to_owned()),
            ("time".to_owned(), "-100000".to_owned()),
        ],
        ..InstantQuery::default()
    };
    for _ in 0..2 {
        assert!(text(&world.guard.query(past.clone()).await).contains(r#""result":[]"#));
    }
    assert!(text(&world.ask("sum(a offset 5m)").await).contains(r#""result":[]"#));
    assert_eq!(world.asked(), (3, 0));
    assert_eq!(*lock(&world.server.times), ["-100000", "-100000"]);
}

#[tokio::test(start_paused = true)]
async fn empty_pass_disables_the_guard() {
    let world = World::new(Does::Nothing { anchor: false });
    let query = |empty| InstantQuery { query: SUM.to_owned(), empty, ..InstantQuery::default() };
    assert!(text(&world.guard.query(query(Empty::Pass)).await).contains(r#""result":[]"#));
    assert_eq!(world.asked(), (1, 0));
    check_value(&world.guard.query(query(Empty::Zero)).await, "0");
    check_refused(&world.guard.query(query(Empty::Error)).await, 503, Some(Reason::Missing), "");
}

#[tokio::test(start_paused = true)]
async fn an_empty_part_does_not_hide_one_with_data() {
    let world = World::new(Does::Nothing { anchor: true });
    let both =
        format!("{QUEUE} + sum(llm_d_epp_flow_control_pool_saturation{{namespace=\"prod\"}})");
    check_refused(&world.ask(&both).await, 503, Some(Reason::Partial), "or vector(0)");
    let filtered = format!("({both}) > 5");
    check_refused(&world.ask(&filtered).await, 503, Some(Reason::Partial), "or vector(0)");
    // A default around both would hide the part with data.
    let hidden = format!("({both}) or vector(0)");
    check_refused(&world.ask(&hidden).await, 503, Some(Reason::Partial), "around each part");
}

#[tokio::test(start_paused = true)]
async fn identical_passed_requests_share_one() {
    let world = World::new(Does::Value("7", 1));
    let parameters = [("query", "up"), ("partial_response", "false")];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let request = Request::new("api/v1/query", parameters.to_vec());
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let guard = world.guard.clone();
            let request = request.clone();
            tokio::spawn(async move { guard.pass(request).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().status, 200);
    }
    assert_eq!(world.asked().0, 1);
    pass(2).await;
    world.does(Does::Refuse);
    assert!(world.guard.pass(request).await.unwrap_err().message.contains("refused"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_matcher_that_excludes_all_series() {
    let world = World::new(Does::Nothing { anchor: false });
    let query = r#"sum(vllm:num_requests_waiting{namespace="pord"})"#;
    check_refused(&world.ask(query).await, 503, Some(Reason::Missing), "no series match");
    assert_eq!(world.asked(), (2, 1), "the query, its probe, and the hint");
    pass(10).await;
    let again = world.ask(query).await;
    check_refused(
        &again,
        503,
        Some(Reason::Missing),
        r#"Without namespace=\"pord\" there are 2, of \"prod\""#,
    );
    assert_eq!(world.asked(), (3, 2), "the hint is requested once in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_scaled_to_zero_is_not_misspelt() {
    let world = World::new(Does::Nothing { anchor: true });
    world.server.has_history.store(true, Ordering::SeqCst);
    let asleep = QUEUE.replace("\"m\"", "\"asleep\"");
    check_value(&world.ask(&asleep).await, "0");
    // With empty=zero the model need not be known.
    let world = World::new(Does::Nothing { anchor: false });
    let query = SUM.replace("\"m\"", "\"asleep\"");
    let zero = InstantQuery { query, empty: Empty::Zero, ..InstantQuery::default() };
    check_value(&world.guard.query(zero).await, "0");
}

#[tokio::test(start_paused = true)]
async fn an_empty_result_of_a_query_without_a_filter_is_an_error() {
    let world = World::new(Does::SeriesOnly);
    let rate = "sum(rate(vllm:request_success_total{model_name=\"m\"}[30s]))";
    check_refused(&world.ask(rate).await, 503, Some(Reason::Missing), "a rate needs two samples");
    let filter = world.ask("vllm:num_requests_waiting{model_name=\"m\"} > 3").await;
    assert!(filter.status == 200 && text(&filter).contains(r#""result":[]"#), "{}", text(&filter));
}

#[tokio::test(start_paused = true)]
async fn an_empty_result_repeats_the_probe() {
    let world = World::new(Does::Value("7", 1));
    check_value(&world.ask(SUM).await, "7");
    world.does(Does::Nothing { anchor: false });
    // Another query with the same selector, which has just matched.
    let reply = world.ask(&SUM.replace("sum", "max")).await;
    check_refused(&reply, 503, Some(Reason::Missing), "no series match");
}

#[tokio::test(start_paused = true)]
async fn a_default_does_not_hide_that_series_have_vanished_since_they_were_probed() {
    let world = World::new(Does::Value("7", 1));
    check_value(&world.ask(SUM).await, "7");
    world.does(Does::Nothing { anchor: false });
    let reply = world.ask(&format!("{SUM} or vector(0)")).await;
    check_refused(&reply, 503, Some(Reason::Missing), "no series match");
}

#[tokio::test(start_paused = true)]
async fn a_filter_excludes_only_what_has_a_result() {
    let rate = "sum(rate(vllm:request_success_total{model_name=\"m\"}[30s]))";
    let filters = [
        format!("{rate} > 0"),
        format!("({rate} >= 0) or {rate} / 2"),
        format!("vllm:num_requests_waiting > {rate}"),
    ];
    for filter in filters {
        let excluded = World::new(Does::Filtered).ask(&filter).await;
        assert_eq!(excluded.status, 200, "{}", text(&excluded));
        assert!(text(&excluded).contains(r#""result":[]"#), "{}", text(&excluded));
        let world = World::new(Does::SeriesOnly);
        let reply = world.ask(&filter).await;
        check_refused(&reply, 503, Some(Reason::Missing), "a rate needs two samples");
        world.does(Does::Filtered);
        pass(5).await;
        assert_eq!(world.ask(&filter).await.status, 200);
        world.does(Does::Refuse);
        pass(5).await;
        assert!(text(&world.ask(&filter).await).contains("from memory"));
    }
}

#[tokio::test(start_paused = true)]
async fn dashboards_do_not_delay_autoscalers() {
    let world = World::new(Does::Hang);
    for number in 0..200 {
        let guard = world.guard.clone();
        let query = vec![
            ("query".to_owned(), format!("a{number}")),
            ("partial_response".to_owned(), "false".to_owned()),
        ];
        tokio::spawn(async move { guard.pass(Request::new("api/v1/query_range", query)).await });
    }
    tokio::task::yield_now().await;
    world.does(Does::Value("7", 1));
    check_value(&world.ask(SUM).await, "7");
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_about_the_past_is_no_zero_for_a_client_that_asks_about_now() {
    let world = World::new(Does::Nothing { anchor: false });
    let past = InstantQuery {
        query: SUM.replace(')', " offset 1m)"),
        time: Some(0.0),
        ..InstantQuery::default()
    };
    let reply = world.guard.query(past.clone()).await;
    check_refused(&reply, 503, Some(Reason::Missing), "because the query is about the past");
    world.does(Does::Value("7", 1));
    check_value(&world.guard.query(past).await, "7");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_does_not_disable_the_guard() {
    let world = World::new(Does::Nothing { anchor: false });
    let skewed =
        InstantQuery { query: SUM.to_owned(), time: Some(300.0), ..InstantQuery::default() };
    check_refused(
        &world.guard.query(skewed.clone()).await,
        503,
        Some(Reason::Missing),
        "check the client's clock",
    );
    let ahead = InstantQuery { time: Some(86400.0), ..skewed.clone() };
    let reply = world.guard.query(ahead).await;
    check_refused(&reply, 503, Some(Reason::Missing), "check the client's clock");
    // A default would hide that the answer is empty.
    let query = format!("{SUM} or vector(0)");
    let skewed = InstantQuery { query, ..skewed };
    let reply = world.guard.query(skewed.clone()).await;
    check_refused(&reply, 503, Some(Reason::Missing), "default, and cannot be judged");
    let passed = InstantQuery { empty: Empty::Pass, ..skewed };
    check_value(&world.guard.query(passed).await, "0");
}
