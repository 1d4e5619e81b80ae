// SPDX-License-Identifier: Apache-2.0
//! Many queries that select from one metric: it is read once for all of them.

use super::*;

/// Models with series, `m-0` and on, and how many series each has.
const MODELS: usize = 30;

fn queue_of(model: usize) -> String {
    format!(r#"sum(vllm:num_requests_waiting{{model_name="m-{model}",namespace="prod"}})"#)
}

/// A server with two pods for each model, which have the model's number as their queues.
#[derive(Default)]
struct Fleet {
    /// Reads of whole metrics, other queries, and probes.
    wholes: AtomicUsize,
    /// Reads of the times of a metric's samples.
    times: AtomicUsize,
    queries: AtomicUsize,
    probes: AtomicUsize,
    /// The series of each model, instead of two.
    series: AtomicUsize,
    rejects_wholes: AtomicBool,
    warns: AtomicBool,
    hangs: AtomicBool,
    /// A whole metric takes two seconds.
    is_slow: AtomicBool,
}

impl Fleet {
    fn asked(&self) -> (usize, usize, usize) {
        let of = |counter: &AtomicUsize| counter.swap(0, Ordering::SeqCst);
        (of(&self.wholes), of(&self.queries), of(&self.probes))
    }

    /// The labels of each series, with its model.
    fn labels(&self) -> impl Iterator<Item = (usize, String)> {
        let series = self.series.load(Ordering::SeqCst).max(2);
        let pods = (0..MODELS).flat_map(move |model| (0..series).map(move |pod| (model, pod)));
        pods.map(|(model, pod)| {
            let labels =
                format!(r#""namespace":"prod","model_name":"m-{model}","pod":"p-{model}-{pod}""#);
            (model, labels)
        })
    }

    fn whole(&self) -> Passed {
        let values = self.labels().map(|(model, labels)| {
            let name = r#""__name__":"vllm:num_requests_waiting""#;
            sample(&format!("{name},{labels}"), &model.to_string())
        });
        vector(&values.collect::<Vec<_>>().join(","))
    }

    /// Samples are 3 s old.
    fn times(&self) -> Passed {
        let times = self.labels().map(|(_, labels)| sample(&labels, "-1.5"));
        vector(&times.collect::<Vec<_>>().join(","))
    }
}

#[async_trait]
impl Upstream for Fleet {
    async fn ask(&self, request: Request, within: Duration) -> Result<Passed, Unanswered> {
        if self.hangs.load(Ordering::SeqCst) {
            tokio::time::sleep(within).await;
            return Err(Unanswered::new("no answer"));
        }
        let query = &request.parameters.iter().find(|(name, _)| name == "query").unwrap().1;
        if query.starts_with("timestamp(") {
            self.times.fetch_add(1, Ordering::SeqCst);
            let time = request.parameters.iter().find(|(name, _)| name == "time");
            assert_eq!(time.unwrap().1, "1.500", "at the instant of the values");
            return Ok(self.times());
        }
        if query.starts_with("{__name__=~") {
            self.wholes.fetch_add(1, Ordering::SeqCst);
            if self.is_slow.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            let rejects = query.contains("odd") || self.rejects_wholes.load(Ordering::SeqCst);
            if self.warns.load(Ordering::SeqCst) {
                let body = answer::with_warnings(&self.whole().body, &["partial".to_owned()]);
                return Ok(Passed::new(200, None, body.unwrap()));
            }
            return if rejects { Err(Unanswered::too_large("16 MiB")) } else { Ok(self.whole()) };
        }
        if query.starts_with("label_replace(label_replace(count(") {
            self.probes.fetch_add(1, Ordering::SeqCst);
            let matched = [("n", "2"), ("age", "3")]
                .map(|(kind, value)| sample(&format!(r#""i":"0","k":"{kind}""#), value));
            return Ok(vector(&model_of(query).map_or(String::new(), |_| matched.join(","))));
        }
        self.queries.fetch_add(1, Ordering::SeqCst);
        let value = model_of(query).map(|model| sample("", &(2 * model).to_string()));
        Ok(vector(&value.unwrap_or_default()))
    }
}

/// Returns the model of a query, if it has series.
fn model_of(query: &str) -> Option<usize> {
    let model = query.split("m-").nth(1)?.split('"').next()?;
    model.parse().ok().filter(|model| *model < MODELS)
}

struct AllModels;

#[async_trait]
impl Models for AllModels {
    async fn find(&self, _: &str) -> Found {
        Found::Known
    }
}

fn guard(fleet: &Arc<Fleet>) -> Guard {
    let upstream: Arc<dyn Upstream> = Arc::clone(fleet) as _;
    let clock = Arc::new(TokioClock::new());
    let (models, anchors) = (Arc::new(AllModels), Anchors::built_in());
    Guard::new(Some(upstream), None, models, clock, anchors, Settings::default())
}

async fn ask(guard: &Guard, query: String) -> Reply {
    guard.query(InstantQuery { query, ..InstantQuery::default() }).await
}

/// Sends the query of each model.
async fn ask_all(guard: &Guard) -> Vec<Reply> {
    let mut replies = Vec::new();
    for model in 0..MODELS {
        replies.push(ask(guard, queue_of(model)).await);
    }
    replies
}

#[track_caller]
fn check_all(replies: &[Reply]) {
    for (model, reply) in replies.iter().enumerate() {
        check_value(reply, &(2 * model).to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_metric_is_read_once_per_ttl_for_all_queries() {
    let fleet = Arc::new(Fleet::default());
    let guard = guard(&fleet);
    check_all(&ask_all(&guard).await);
    assert_eq!(fleet.asked(), (1, 9, 9), "the tenth query makes the metric worth it");
    for _ in 0..3 {
        pass(5).await;
        let replies = ask_all(&guard).await;
        check_all(&replies);
        assert_eq!(fleet.asked(), (1, 0, 0));
    }
    assert_eq!(fleet.times.swap(0, Ordering::SeqCst), 1, "the series are known");
    // An HPA repeats its query after 15 s.
    pass(15).await;
    check_all(&ask_all(&guard).await);
    assert_eq!(fleet.asked(), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_computed_answer_is_not_older_than_the_ttl() {
    let fleet = Arc::new(Fleet::default());
    let guard = guard(&fleet);
    ask_all(&guard).await;
    pass(5).await;
    ask(&guard, queue_of(0)).await;
    pass(4).await;
    assert_eq!(ask(&guard, queue_of(1)).await.age, Some(Duration::from_secs(4)));
    fleet.asked();
    pass(1).await;
    assert_eq!(ask(&guard, queue_of(1)).await.age, None);
    assert_eq!(fleet.asked(), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_query_that_needs_younger_samples_than_are_known_is_left_to_the_server() {
    let fleet = Arc::new(Fleet::default());
    let guard = guard(&fleet);
    ask_all(&guard).await;
    for (passed, max_age, asked) in [(4, 6, (0, 1, 1)), (1, 8, (1, 0, 0)), (5, 12, (1, 1, 1))] {
        pass(passed).await;
        fleet.asked();
        let max_age = Some(Duration::from_secs(max_age));
        let question = InstantQuery { query: queue_of(20), max_age, ..InstantQuery::default() };
        check_value(&guard.query(question).await, "40");
        assert_eq!(fleet.asked(), asked, "{max_age:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_times_of_samples_are_read_for_a_new_series_and_now_and_then() {
    let fleet = Arc::new(Fleet::default());
    let guard = guard(&fleet);
    let mut times = Vec::new();
    for step in 0..9 {
        if step == 3 {
            fleet.series.store(3, Ordering::SeqCst);
        }
        ask_all(&guard).await;
        times.push(fleet.times.swap(0, Ordering::SeqCst));
        pass(5).await;
    }
    // A quarter of the greatest age of 2 minutes is 30 s.
    assert_eq!(times, [1, 0, 0, 1, 0, 0, 0, 0, 0]);
    ask_all(&guard).await;
    assert_eq!(fleet.times.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_model_without_series_is_missing() {
    let fleet = Arc::new(Fleet::default());
    let guard = guard(&fleet);
    ask_all(&guard).await;
    fleet.asked();
    let reply = ask(&guard, queue_of(99)).await;
    check_refused(&reply, 503, Some(Reason::Missing), "missing is not 0");
    // The hint for it, in the background.
    pass(1).await;
    fleet.asked();
    let zero = InstantQuery { query: queue_of(98), empty: Empty::Zero, ..InstantQuery::default() };
    // An empty result is confirmed by the server.
    let reply = guard.query(zero).await;
    assert_eq!((reply.status, fleet.asked().1), (200, 1), "{}", text(&reply));
}

#[tokio::test(start_paused = true)]
async fn what_only_the_server_evaluates_is_sent_to_it() {
    let fleet = Arc::new(Fleet::default());
    let guard = guard(&fleet);
    ask_all(&guard).await;
    fleet.asked();
    for query in [
        queue_of(1).replace("sum(", "stddev("),
        queue_of(1).replace("})", "}[1m]) ").replace("sum(", "max_over_time("),
        queue_of(1).replace("vllm:num_requests_waiting{", r#"{__name__=~"vllm:.*","#),
    ] {
        ask(&guard, query.clone()).await;
        let (wholes, queries, _) = fleet.asked();
        assert_eq!((wholes, queries), (0, 1), "{query}");
    }
    let headers = vec![("X-Scope-OrgID".to_owned(), "a".to_owned())];
    let tenant = InstantQuery { query: queue_of(1), headers, ..InstantQuery::default() };
    guard.query(tenant).await;
    assert_eq!(fleet.asked(), (0, 1, 1), "of a tenant");
}

#[tokio::test(start_paused = true)]
async fn a_metric_that_cannot_be_read_is_left_to_the_server() {
    let fleet = Arc::new(Fleet::default());
    fleet.rejects_wholes.store(true, Ordering::SeqCst);
    let guard = guard(&fleet);
    check_all(&ask_all(&guard).await);
    assert_eq!(fleet.asked(), (1, 30, 30));
    pass(5).await;
    check_all(&ask_all(&guard).await);
    assert_eq!(fleet.asked(), (0, 30, 30), "it is not tried again at once");
}

#[tokio::test(start_paused = true)]
async fn a_metric_that_the_server_warns_of_is_left_to_it() {
    let fleet = Arc::new(Fleet::default());
    fleet.warns.store(true, Ordering::SeqCst);
    let guard = guard(&fleet);
    ask_all(&guard).await;
    assert_eq!(fleet.asked(), (1, 30, 30));
}

#[tokio::test(start_paused = true)]
async fn a_metric_with_many_series_is_read_once_enough_queries_select_from_it() {
    let fleet = Arc::new(Fleet::default());
    fleet.series.store(40, Ordering::SeqCst);
    let guard = guard(&fleet);
    for model in 0..20 {
        ask(&guard, queue_of(model)).await;
    }
    let (wholes, queries, _) = fleet.asked();
    assert_eq!((wholes, queries), (1, 19), "1200 series for 10 queries are many");
    for model in 20..24 {
        ask(&guard, queue_of(model)).await;
    }
    assert_eq!(fleet.asked(), (0, 3, 3), "the 24th query makes them worth it");
    pass(5).await;
    ask_all(&guard).await;
    assert_eq!(fleet.asked(), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn callers_get_their_answers_in_time_while_the_server_hangs() {
    let fleet = Arc::new(Fleet::default());
    let guard = guard(&fleet);
    ask_all(&guard).await;
    pass(5).await;
    fleet.hangs.store(true, Ordering::SeqCst);
    let started_at = tokio::time::Instant::now();
    let reply = ask(&guard, queue_of(7)).await;
    check_value(&reply, "14");
    assert!(reply.age >= Some(Duration::from_secs(5)) && text(&reply).contains("from memory"));
    assert!(started_at.elapsed() <= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn queries_do_not_wait_for_a_slow_read_of_the_whole_metric() {
    let fleet = Arc::new(Fleet::default());
    fleet.is_slow.store(true, Ordering::SeqCst);
    let guard = guard(&fleet);
    let started_at = tokio::time::Instant::now();
    let replies =
        futures_util::future::join_all((0..MODELS).map(|it| ask(&guard, queue_of(it)))).await;
    check_all(&replies);
    assert!(started_at.elapsed() < Duration::from_secs(1), "the server answers these at once");
    let (wholes, queries, _) = fleet.asked();
    assert_eq!((wholes, queries), (1, 30));
    pass(5).await;
    check_all(&ask_all(&guard).await);
    assert_eq!(fleet.asked().0, 0, "it is not read again for a while");
}

#[tokio::test(start_paused = true)]
async fn of_metrics_that_cannot_be_read_together_only_the_cause_is_left_out() {
    let fleet = Arc::new(Fleet::default());
    let guard = guard(&fleet);
    let odd = |model| queue_of(model).replace("num_requests_waiting", "odd");
    let ask_both = async || {
        for model in 0..MODELS {
            check_value(&ask(&guard, queue_of(model)).await, &(2 * model).to_string());
            ask(&guard, odd(model)).await;
        }
    };
    for _ in 0..4 {
        ask_both().await;
        pass(5).await;
    }
    fleet.asked();
    ask_both().await;
    assert_eq!(fleet.asked(), (1, 30, 30), "the other one is read");
}

#[tokio::test(start_paused = true)]
async fn a_metric_that_is_no_longer_asked_for_is_no_longer_read() {
    let fleet = Arc::new(Fleet::default());
    let guard = guard(&fleet);
    ask_all(&guard).await;
    pass(61).await;
    fleet.asked();
    ask(&guard, queue_of(1)).await;
    assert_eq!(fleet.asked(), (1, 0, 0), "the queries are forgotten at the next read");
    pass(5).await;
    ask(&guard, queue_of(1)).await;
    assert_eq!(fleet.asked(), (0, 1, 1));
}

#[test]
fn a_sample_whose_time_is_no_number_has_no_age() {
    let answer = |labels: &str, value: &str| vector(&sample(labels, value)).body;
    let metrics = ["m".to_owned()];
    let timed = |time| {
        let values = answer(r#""__name__":"m""#, "1");
        let times = HashMap::from([("m".to_owned(), answer("", time))]);
        super::super::whole::Untimed::read(&values, &metrics).unwrap().timed(&times, Tick::MIN)
    };
    assert!(timed("1").is_ok());
    assert!(timed("NaN").is_err());
}
