// SPDX-License-Identifier: Apache-2.0
//! A PromQL server that answers from a script.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use collector_core::{
    Answer, Ask, Backend, BackendError, Clock, ManualClock, ModelRef, ModelSample, SystemClock,
    Urgency,
};
use collector_prometheus::{PrometheusBackend, PrometheusConfig};
use collector_testkit::joined_queries;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// The evaluation time of an unmoved clock.
pub(crate) const NOW: f64 = 1_732_000_000.0;

type Make = dyn Fn(&Parameters) -> Option<ResponseTemplate> + Send + Sync;

/// A rule for answers.
enum Rule {
    /// Makes an answer from the parameters of a request; `None` passes it to the next rule.
    Any(Box<Make>),
    /// Answers queries, or joined ones, that contain this with these rows.
    Rows(&'static str, Vec<(String, f64)>),
}

/// What the server holds, for discovery queries.
#[derive(Clone, Default)]
struct Held {
    names: HashSet<String>,
    labels: HashSet<String>,
    pods: u32,
    /// Series are stored more than once.
    doubled: bool,
}

/// The received requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) time: Option<f64>,
    /// The parameters of the URL besides those of a query.
    pub(crate) in_url: Vec<(String, String)>,
    /// Whether the server was told not to use a cache.
    pub(crate) nocache: bool,
    pub(crate) headers: wiremock::http::HeaderMap,
}

impl Parameters {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

#[derive(Default)]
struct Script {
    /// Seconds by which the `Date` header is ahead of the script's time.
    date_ahead: Mutex<u64>,
    clock: Arc<ManualClock>,
    rules: Mutex<Vec<Rule>>,
    held: Mutex<Held>,
    asked: Mutex<Vec<Parameters>>,
}

struct Responder(Arc<Script>);

impl Respond for Responder {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let body = String::from_utf8(request.body.clone()).unwrap();
        let in_body = url::form_urlencoded::parse(body.as_bytes()).map(|pair| (pair, false));
        let in_url = request.url.query_pairs().map(|pair| (pair, true));
        let mut parameters = Parameters {
            method: request.method.to_string(),
            path: request.url.path().to_owned(),
            headers: request.headers.clone(),
            ..Parameters::default()
        };
        for ((key, value), in_url) in in_body.chain(in_url) {
            match &*key {
                "query" => parameters.query = value.into_owned(),
                "time" => parameters.time = value.parse().ok(),
                "nocache" => parameters.nocache = value == "1",
                "timeout" => assert!(value.ends_with("ms"), "{value}"),
                other if in_url => parameters.in_url.push((other.to_owned(), value.into_owned())),
                other => panic!("the parameter {other:?} is none"),
            }
        }
        assert!(parameters.query.len() <= 12_000, "a query of {} bytes", parameters.query.len());
        self.0.asked.lock().unwrap().push(parameters.clone());
        let answer = self.0.answer(&parameters);
        let passed = self.0.clock.wall().duration_since(UNIX_EPOCH).unwrap();
        let ahead = Duration::from_secs(*self.0.date_ahead.lock().unwrap());
        let date = UNIX_EPOCH + Duration::from_secs(1_732_000_000) + passed + ahead;
        answer
            .unwrap_or_else(|| vector(&[]))
            .insert_header("date", httpdate::fmt_http_date(date).as_str())
    }
}

impl Script {
    fn answer(&self, asked: &Parameters) -> Option<ResponseTemplate> {
        let rules = self.rules.lock().unwrap();
        let evaluated = asked.time.unwrap_or(NOW);
        let joined = joined_queries(&asked.query);
        if joined.is_empty() {
            return rules.iter().find_map(|rule| match rule {
                Rule::Any(rule) => rule(asked),
                Rule::Rows(part, rows) => asked
                    .query
                    .contains(part)
                    .then(|| ok(&vector_text_at(evaluated, &borrowed(rows)))),
            });
        }
        let any = rules.iter().find_map(|rule| match rule {
            Rule::Any(rule) => rule(asked),
            Rule::Rows(..) => None,
        });
        any.or_else(|| {
            let mut rows: Vec<(String, f64)> = Vec::new();
            for (query, number) in joined {
                let what = |labels: &str| {
                    let comma = if labels.is_empty() { "" } else { "," };
                    format!(r#"{labels}{comma}"what":"{number}""#)
                };
                if query.starts_with("count(") {
                    let count = self.held.lock().unwrap().count(query);
                    rows.extend(count.map(|count| (what(""), count)));
                    continue;
                }
                let rule = rules.iter().find_map(|rule| match rule {
                    Rule::Rows(part, rows) => query.contains(part).then_some(rows),
                    Rule::Any(_) => None,
                });
                let of_part = rule.into_iter().flatten();
                rows.extend(of_part.map(|(labels, value)| (what(labels), *value)));
            }
            Some(ok(&vector_text_at(evaluated, &borrowed(&rows))))
        })
    }
}

impl Held {
    /// The one row of a discovery query.
    fn count(&self, query: &str) -> Option<f64> {
        let inner = query.strip_prefix("count(")?;
        let selector = inner.rsplit_once(") (").map_or(inner, |(_, selector)| selector);
        let end = selector.find(['{', ')']).unwrap();
        let labels = labels_of(&selector[end..]);
        let is_there = self.names.contains(&selector[..end])
            && labels.iter().all(|label| self.labels.contains(label));
        let count = match (inner.starts_with("count by"), query.ends_with("> 1)")) {
            (true, true) => u32::from(self.doubled),
            (true, false) => self.pods,
            _ => 1,
        };
        (is_there && count > 0).then_some(f64::from(count))
    }
}

/// The labels of the matchers between braces.
fn labels_of(text: &str) -> Vec<String> {
    let mut labels = Vec::new();
    let (mut quoted, mut escaped) = (false, false);
    let mut word = String::new();
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            c if c.is_ascii_alphanumeric() || c == '_' => word.push(c),
            '=' | '!' if !word.is_empty() => labels.push(std::mem::take(&mut word)),
            _ => word.clear(),
        }
    }
    labels
}

fn borrowed(rows: &[(String, f64)]) -> Vec<(&str, f64)> {
    rows.iter().map(|(labels, value)| (labels.as_str(), *value)).collect()
}

/// A scripted server and a backend that queries it.
pub(crate) struct Fake {
    pub(crate) server: MockServer,
    script: Arc<Script>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) backend: PrometheusBackend,
}

impl Fake {
    /// A server that knows the time and holds nothing.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server with other settings of the backend.
    pub(crate) async fn with(set: impl FnOnce(&mut PrometheusConfig)) -> Self {
        let server = MockServer::start().await;
        let clock = Arc::new(ManualClock::new());
        let script = Arc::new(Script { clock: clock.clone(), ..Script::default() });
        Mock::given(any()).respond_with(Responder(Arc::clone(&script))).mount(&server).await;
        let mut config = PrometheusConfig {
            url: server.uri(),
            allow_http: true,
            timeout: Duration::from_secs(20),
            ..PrometheusConfig::default()
        };
        set(&mut config);
        let backend = PrometheusBackend::new(config, clock.clone()).unwrap();
        let fake = Self { server, script, clock, backend };
        let clock = Arc::clone(&fake.clock);
        fake.rule(move |asked| {
            let passed = clock.wall().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            (asked.query == "vector(time())").then(|| number(asked.time.unwrap_or(NOW + passed)))
        });
        let script = Arc::clone(&fake.script);
        fake.rule(move |asked| {
            let by_name = asked.query.starts_with("count by (__name__)");
            by_name.then(|| {
                let names = script.held.lock().unwrap().names.clone();
                let row = |name: &String| (format!(r#""__name__":"{name}""#), 1.0);
                let rows: Vec<(String, f64)> = names.iter().map(row).collect();
                vector(&borrowed(&rows))
            })
        });
        fake
    }

    /// Sets the `Date` header ahead of the script's time.
    pub(crate) fn set_date_ahead(&self, seconds: u64) {
        *self.script.date_ahead.lock().unwrap() = seconds;
    }

    /// Adds a rule that answers from now on, if it returns anything.
    pub(crate) fn rule(
        &self,
        rule: impl Fn(&Parameters) -> Option<ResponseTemplate> + Send + Sync + 'static,
    ) {
        self.script.rules.lock().unwrap().insert(0, Rule::Any(Box::new(rule)));
    }

    /// Sets what discovery finds: series of these names, their labels, and the number of pods.
    pub(crate) fn holds<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        labels: &[&str],
        pods: u32,
    ) {
        *self.script.held.lock().unwrap() = Held {
            names: names.into_iter().map(str::to_owned).collect(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            pods,
            doubled: false,
        };
    }

    /// Makes discovery find series that are stored more than once.
    pub(crate) fn doubled(&self) {
        self.script.held.lock().unwrap().doubled = true;
    }

    /// Answers queries that contain `part` with these rows, evaluated at the requested time.
    pub(crate) fn rows(&self, part: &'static str, rows: &[(&str, f64)]) {
        let rows = rows.iter().map(|(labels, value)| ((*labels).to_owned(), *value)).collect();
        self.script.rules.lock().unwrap().insert(0, Rule::Rows(part, rows));
    }

    /// Answers queries that contain `part` with this.
    pub(crate) fn answer(&self, part: &'static str, answer: ResponseTemplate) {
        self.rule(move |asked| asked.query.contains(part).then(|| answer.clone()));
    }

    /// Answers everything with this.
    pub(crate) fn always(&self, answer: ResponseTemplate) {
        self.rule(move |_| Some(answer.clone()));
    }

    /// Returns the requests since the last call.
    pub(crate) fn asked(&self) -> Vec<Parameters> {
        std::mem::take(&mut self.script.asked.lock().unwrap())
    }

    /// Returns the queries since the last call.
    pub(crate) fn queries(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.query).collect()
    }

    pub(crate) async fn fetch_all(
        &self,
        models: &[ModelRef],
        per_pod: &[ModelRef],
        urgency: Urgency,
    ) -> Result<Vec<(ModelRef, Answer)>, BackendError> {
        let per_pod: HashSet<ModelRef> = per_pod.iter().cloned().collect();
        let clock = SystemClock::new();
        let mut ask = Ask::new(models, &clock).with_load_per_pod(&per_pod);
        ask.urgency = urgency;
        Ok(self.backend.fetch(ask).await?.into_iter().collect())
    }

    /// Fetches `m` in `prod`.
    pub(crate) async fn answer_for_m(&self) -> Result<Answer, BackendError> {
        let mut answers = self.fetch_all(&[m()], &[], Urgency::Background).await?;
        assert_eq!(answers.len(), 1);
        Ok(answers.remove(0).1)
    }

    /// Fetches `m` in `prod`, which exists.
    pub(crate) async fn sample(&self) -> ModelSample {
        found(self.answer_for_m().await.unwrap())
    }

    /// Returns why a fetch fails.
    pub(crate) async fn failure(&self) -> BackendError {
        self.answer_for_m().await.unwrap_err()
    }
}

pub(crate) fn m() -> ModelRef {
    ModelRef::new("m", "prod")
}

#[track_caller]
pub(crate) fn found(answer: Answer) -> ModelSample {
    match answer {
        Answer::Found(sample) => sample,
        other => panic!("not found: {other:?}"),
    }
}

/// A vector of one row without labels.
pub(crate) fn number(value: f64) -> ResponseTemplate {
    vector(&[("", value)])
}

/// A vector of rows that were evaluated at [`NOW`]: their labels without braces, and their values.
pub(crate) fn vector(rows: &[(&str, f64)]) -> ResponseTemplate {
    ok(&vector_text(rows))
}

pub(crate) fn vector_text(rows: &[(&str, f64)]) -> String {
    vector_text_at(NOW, rows)
}

pub(crate) fn vector_text_at(time: f64, rows: &[(&str, f64)]) -> String {
    let rows: Vec<String> = rows
        .iter()
        .map(|(labels, value)| format!(r#"{{"metric":{{{labels}}},"value":[{time},"{value}"]}}"#))
        .collect();
    format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#,
        rows.join(",")
    )
}

pub(crate) fn ok(body: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(body, "application/json")
}

pub(crate) fn error(status: u16, kind: &str, text: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_raw(
        format!(r#"{{"status":"error","errorType":"{kind}","error":"{text}"}}"#),
        "application/json",
    )
}

/// The labels of a row of `m` in `prod`.
pub(crate) const POD_0: &str = r#""namespace":"prod","model_name":"m","pod":"m-0""#;
pub(crate) const POD_1: &str = r#""namespace":"prod","model_name":"m","pod":"m-1""#;
pub(crate) const MODEL: &str = r#""namespace":"prod","model_name":"m""#;

/// Two pods and their load.
pub(crate) fn two_pods(fake: &Fake) {
    fake.rows("num_requests_running{", &[(POD_0, 7.0), (POD_1, 5.0)]);
    fake.rows("timestamp(", &[(POD_0, NOW - 2.5), (POD_1, NOW - 4.0)]);
    fake.rows("kv_cache_usage_perc{", &[(POD_0, 0.42), (POD_1, 0.5)]);
    fake.rows("num_requests_waiting{", &[(POD_0, 3.0), (POD_1, 0.0)]);
    fake.rows("request_prompt_tokens_count{", &[(MODEL, 2.0)]);
    fake.rows("request_prompt_tokens_sum{", &[(MODEL, 1024.0)]);
    fake.rows("request_generation_tokens_sum{", &[(MODEL, 256.0)]);
    fake.rows("time_to_first_token_seconds_sum{", &[(MODEL, 0.5)]);
    fake.rows("time_to_first_token_seconds_count{", &[(MODEL, 2.0)]);
    fake.rows("inter_token_latency_seconds_sum{", &[(MODEL, 5.0)]);
    fake.rows("inter_token_latency_seconds_count{", &[(MODEL, 250.0)]);
    fake.rows("prefix_cache_hits_total{", &[(POD_0, 60.0), (POD_1, 0.0)]);
    fake.rows("prefix_cache_queries_total{", &[(POD_0, 100.0), (POD_1, 0.0)]);
    let sizes = |pod: &str, blocks: &str| {
        format!(r#""namespace":"prod","pod":"{pod}","num_gpu_blocks":"{blocks}","block_size":"16""#)
    };
    let sizes = [(sizes("m-0", "2001"), 1.0), (sizes("m-1", "None"), 1.0)];
    fake.rows("cache_config_info{", &borrowed(&sizes));
    fake.holds(VLLM, &LABELS, 2);
}

/// The series of vLLM that [`two_pods`] has.
pub(crate) const VLLM: [&str; 14] = [
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:request_prompt_tokens_sum",
    "vllm:request_prompt_tokens_count",
    "vllm:request_generation_tokens_sum",
    "vllm:request_success_total",
    "vllm:time_to_first_token_seconds_sum",
    "vllm:time_to_first_token_seconds_count",
    "vllm:inter_token_latency_seconds_sum",
    "vllm:inter_token_latency_seconds_count",
    "vllm:prefix_cache_hits_total",
    "vllm:prefix_cache_queries_total",
    "vllm:cache_config_info",
];

/// The labels that a PodMonitor and vLLM attach.
pub(crate) const LABELS: [&str; 4] = ["namespace", "pod", "model_name", "engine"];
