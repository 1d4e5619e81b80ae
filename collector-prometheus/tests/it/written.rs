// SPDX-License-Identifier: Apache-2.0
//! Fleets that are written as the history of a server, which a real Prometheus then holds.

use std::collections::HashSet;
use std::sync::Arc;

use collector_core::{
    Answer, Ask, Backend, BackendError, Check, Clock, LoadRates, ModelRef, ModelSample, PodName,
    ProbeAsk, ReplicaMetrics, SystemClock, Urgency,
};
use collector_prometheus::{PrometheusBackend, PrometheusConfig};
use collector_testkit::{History, PrometheusServer};

use crate::fake::found;

/// The model that most fleets serve.
pub(crate) const MODEL: &str = "org/model";

/// The load of two pods: requests a minute, prompt and generated tokens, TTFT and ITL in ms.
pub(crate) const LOAD: [Option<u64>; 5] = [Some(240), Some(512), Some(128), Some(200), Some(20)];

/// One series: `base + slope * t`, where t is the seconds since the history began.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) base: f64,
    pub(crate) slope: f64,
    /// Ages between which there are samples, in seconds.
    pub(crate) oldest: f64,
    pub(crate) newest: f64,
}

impl Row {
    /// A series that does not change.
    pub(crate) fn still(name: &str, labels: &[(&str, &str)], value: f64) -> Self {
        let labels = labels.iter().map(|(label, value)| ((*label).into(), (*value).into()));
        Self {
            name: name.to_owned(),
            labels: labels.collect(),
            base: value,
            slope: 0.0,
            oldest: f64::INFINITY,
            newest: f64::NEG_INFINITY,
        }
    }

    /// The value of a label; empty where there is none.
    pub(crate) fn get(&self, label: &str) -> &str {
        let found = self.labels.iter().find(|(known, _)| known == label);
        found.map_or("", |(_, value)| value)
    }

    /// Gives a label another value; an empty one removes it.
    pub(crate) fn set(&mut self, label: &str, value: &str) {
        self.labels.retain(|(known, _)| known != label);
        if !value.is_empty() {
            self.labels.push((label.to_owned(), value.to_owned()));
        }
    }

    /// Renames a label.
    pub(crate) fn rename(&mut self, label: &str, name: &str) {
        for (known, _) in &mut self.labels {
            if known == label {
                name.clone_into(known);
            }
        }
    }
}

/// A vLLM pod: gauges that do not change, and counters at exact rates.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) model: &'static str,
    pub(crate) waiting: u32,
    pub(crate) running: u32,
    pub(crate) usage: f64,
    /// Per second.
    pub(crate) requests: f64,
    pub(crate) ttft: f64,
    pub(crate) itl: f64,
    pub(crate) engine: &'static str,
    /// The value of its counters at the beginning.
    pub(crate) start: f64,
}

impl Pod {
    pub(crate) fn new(name: &str, waiting: u32, running: u32, usage: f64) -> Self {
        Self {
            name: name.to_owned(),
            model: MODEL,
            waiting,
            running,
            usage,
            requests: 2.0,
            ttft: 0.2,
            itl: 0.02,
            engine: "0",
            start: 1000.0,
        }
    }

    /// Returns its series with the labels of a PodMonitor, and these.
    pub(crate) fn rows(&self, more: &[(&str, &str)]) -> Vec<Row> {
        let r = self.requests;
        let gauges = [
            ("num_requests_running", f64::from(self.running)),
            ("num_requests_waiting", f64::from(self.waiting)),
            ("kv_cache_usage_perc", self.usage),
        ];
        let counters = [
            ("request_success_total", r),
            ("prompt_tokens_total", r * 512.0),
            ("generation_tokens_total", r * 128.0),
            ("request_prompt_tokens_sum", r * 512.0),
            ("request_prompt_tokens_count", r),
            ("request_generation_tokens_sum", r * 128.0),
            ("request_generation_tokens_count", r),
            ("time_to_first_token_seconds_sum", r * self.ttft),
            ("time_to_first_token_seconds_count", r),
            ("inter_token_latency_seconds_sum", r * 128.0 * self.itl),
            ("inter_token_latency_seconds_count", r * 128.0),
            ("prefix_cache_queries_total", r * 512.0),
            ("prefix_cache_hits_total", r * 128.0),
        ];
        let own = [("model_name", self.model), ("engine", self.engine)];
        let row = |name: &str, base, slope| {
            let mut row = Row { slope, ..Row::still(&format!("vllm:{name}"), &own, base) };
            self.attach(&mut row, more);
            row
        };
        let mut rows: Vec<Row> =
            gauges.iter().map(|(name, value)| row(name, *value, 0.0)).collect();
        rows.extend(counters.iter().map(|(name, slope)| row(name, self.start, *slope)));
        let sizes = [("engine", self.engine), ("block_size", "16"), ("num_gpu_blocks", "12000")];
        let mut info = Row::still("vllm:cache_config_info", &sizes, 1.0);
        self.attach(&mut info, more);
        rows.push(info);
        rows
    }

    /// Its series as SGLang names them.
    pub(crate) fn sglang(&self, more: &[(&str, &str)]) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for mut row in self.rows(more) {
            let Some(name) = SGLANG.iter().find(|(vllm, _)| row.name[5..] == **vllm) else {
                continue;
            };
            row.name = format!("sglang:{}", name.1);
            row.set("engine", "");
            if row.get("engine_type").is_empty() {
                row.set("engine_type", "unified");
            }
            rows.push(row);
        }
        let mut capacity = rows[0].clone();
        "sglang:max_total_num_tokens".clone_into(&mut capacity.name);
        capacity.base = 192_000.0;
        rows.push(capacity);
        rows
    }

    /// Its series as TensorRT-LLM names them.
    pub(crate) fn tensorrt(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for mut row in self.rows(&[]) {
            let Some(name) = TENSORRT.iter().find(|(vllm, _)| row.name[5..] == **vllm) else {
                continue;
            };
            row.name = format!("trtllm_{}", name.1);
            row.set("engine", "");
            row.set("engine_type", "trtllm");
            rows.push(row);
        }
        for (name, value) in
            [("kv_cache_tokens_per_block", 16.0), ("kv_cache_max_blocks", 12_000.0)]
        {
            rows.push(Row { name: format!("trtllm_{name}"), base: value, ..rows[0].clone() });
        }
        rows
    }

    fn attach(&self, row: &mut Row, more: &[(&str, &str)]) {
        let usual = [
            ("namespace", "prod"),
            ("pod", &*self.name),
            ("container", "vllm"),
            ("endpoint", "http"),
            ("instance", "10.0.0.1:8000"),
            ("job", "prod/vllm"),
        ];
        usual.iter().chain(more).for_each(|(label, value)| row.set(label, value));
    }
}

const SGLANG: [(&str, &str); 10] = [
    ("num_requests_running", "num_running_reqs"),
    ("num_requests_waiting", "num_queue_reqs"),
    ("kv_cache_usage_perc", "token_usage"),
    ("request_success_total", "num_requests_total"),
    ("prompt_tokens_total", "prompt_tokens_total"),
    ("generation_tokens_total", "generation_tokens_total"),
    ("time_to_first_token_seconds_sum", "time_to_first_token_seconds_sum"),
    ("time_to_first_token_seconds_count", "time_to_first_token_seconds_count"),
    ("inter_token_latency_seconds_sum", "inter_token_latency_seconds_sum"),
    ("inter_token_latency_seconds_count", "inter_token_latency_seconds_count"),
];

const TENSORRT: [(&str, &str); 10] = [
    ("num_requests_running", "num_requests_running"),
    ("num_requests_waiting", "num_requests_waiting"),
    ("kv_cache_usage_perc", "kv_cache_utilization"),
    ("request_success_total", "request_success_total"),
    ("prompt_tokens_total", "prompt_tokens_total"),
    ("generation_tokens_total", "generation_tokens_total"),
    ("time_to_first_token_seconds_sum", "time_to_first_token_seconds_sum"),
    ("time_to_first_token_seconds_count", "time_to_first_token_seconds_count"),
    ("inter_token_latency_seconds_sum", "time_per_output_token_seconds_sum"),
    ("inter_token_latency_seconds_count", "time_per_output_token_seconds_count"),
];

/// Two pods of [`MODEL`]: queue 6, running 20, KV 80 %, 2 requests a second each.
pub(crate) fn fleet() -> Vec<Row> {
    pods(2).iter().flat_map(|pod| pod.rows(&[])).collect()
}

pub(crate) fn pods(count: usize) -> Vec<Pod> {
    (0..count).map(|i| Pod::new(&format!("m-{i}"), 6, 20, 0.8)).collect()
}

/// The rows, each changed.
pub(crate) fn changed(mut rows: Vec<Row>, change: impl Fn(&mut Row)) -> Vec<Row> {
    rows.iter_mut().for_each(change);
    rows
}

/// The rows with one more label, by which `prometheus.matchers` selects them.
pub(crate) fn scene(name: &str, rows: Vec<Row>) -> Vec<Row> {
    changed(rows, |row| row.set("scene", name))
}

/// When series are scraped: ages in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scrapes {
    pub(crate) every: f64,
    /// How much earlier than whole intervals before now.
    pub(crate) earlier: f64,
    pub(crate) oldest: f64,
    pub(crate) newest: f64,
}

/// Every 15 s for a quarter of an hour, and for as long as a test may take.
pub(crate) const USUAL: Scrapes =
    Scrapes { every: 15.0, earlier: 0.0, oldest: 900.0, newest: -300.0 };

/// Writes the stored scrapes of these series.
pub(crate) fn write(history: &mut History, rows: &[Row], scrapes: Scrapes) {
    let mut age = scrapes.oldest;
    while age >= scrapes.newest {
        let sampled = age + scrapes.earlier;
        let t = scrapes.oldest - sampled;
        for row in rows.iter().filter(|row| (row.newest..=row.oldest).contains(&sampled)) {
            history.add(&row.name, &row.labels, sampled, row.base + row.slope * t);
        }
        age -= scrapes.every;
    }
}

/// A real Prometheus that holds these series; `None` where none is installed.
pub(crate) async fn served(rows: &[Row], scrapes: Scrapes) -> Option<PrometheusServer> {
    let mut history = History::new();
    write(&mut history, rows, scrapes);
    PrometheusServer::start_over_or_skip(&history).await
}

/// A backend and its clock.
pub(crate) struct Reader {
    pub(crate) backend: PrometheusBackend,
    pub(crate) clock: Arc<SystemClock>,
}

impl Reader {
    /// A backend with the default settings.
    pub(crate) fn new(url: &str) -> Self {
        Self::with(url, |_| {})
    }

    /// A backend that reads the series of a [`scene`].
    pub(crate) fn of_scene(url: &str, scene: &str) -> Self {
        Self::with(url, |config| config.matchers = vec![format!("scene=\"{scene}\"")])
    }

    pub(crate) fn with(url: &str, set: impl FnOnce(&mut PrometheusConfig)) -> Self {
        let clock = Arc::new(SystemClock::new());
        let mut config = PrometheusConfig {
            url: url.to_owned(),
            allow_http: true,
            ..PrometheusConfig::default()
        };
        set(&mut config);
        let backend = PrometheusBackend::new(config, clock.clone()).unwrap();
        Self { backend, clock }
    }

    /// Returns the sample of a model in the namespace `prod`, for a waiting caller and for the background,
    /// which must agree.
    pub(crate) async fn answer(&self, model: &str) -> Answer {
        let first = self.fetch_all(model, Urgency::Waiting).await.unwrap();
        let second = self.fetch_all(model, Urgency::Background).await.unwrap();
        if let (Answer::Found(first), Answer::Found(second)) = (&first, &second) {
            assert_eq!(gauges_of(first), gauges_of(second), "waiting and background differ");
        }
        second
    }

    pub(crate) async fn fetch_all(
        &self,
        model: &str,
        urgency: Urgency,
    ) -> Result<Answer, BackendError> {
        let (models, per_pod) = ([ModelRef::new(model, "prod")], HashSet::new());
        let mut ask = Ask::new(&models, &*self.clock).with_load_per_pod(&per_pod);
        ask.urgency = urgency;
        Ok(self.backend.fetch(ask).await?.remove(&models[0]).unwrap())
    }

    pub(crate) async fn sample(&self, model: &str) -> ModelSample {
        let sample = found(self.answer(model).await);
        assert!(sample.failed.is_empty(), "{:?}", sample.failed);
        sample
    }

    /// Returns the failure for [`MODEL`].
    pub(crate) async fn failure(&self) -> String {
        match self.answer(MODEL).await {
            Answer::Failed(error) => error.to_string(),
            other => panic!("no failure: {other:?}"),
        }
    }

    pub(crate) async fn check(&self, id: &str) -> Check {
        let probe = self.backend.probe(ProbeAsk::new(&SystemClock::new())).await.unwrap();
        let check = probe.checks.iter().find(|check| check.id == id);
        check.unwrap_or_else(|| panic!("no {id} among {:?}", probe.checks)).clone()
    }

    /// The greatest age among these, in whole seconds.
    pub(crate) fn age(&self, replicas: &[ReplicaMetrics]) -> u64 {
        let oldest = replicas.iter().map(|replica| replica.sampled_at).min().unwrap();
        oldest.age(self.clock.now()).as_secs()
    }
}

/// Pod, queue, running and KV usage in percent of each replica.
pub(crate) type Gauges = Vec<(String, Option<u64>, Option<u64>, Option<u64>)>;

pub(crate) fn gauges_of(sample: &ModelSample) -> Gauges {
    let percent = |usage: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
        let percent = (usage * 100.0).round() as u64;
        percent
    };
    sample
        .replicas
        .iter()
        .map(|it| {
            let usage = it.kv_cache_usage.map(percent);
            (it.pod_name.to_string(), it.queue_length, it.running_requests, usage)
        })
        .collect()
}

/// The same values of a pod, to compare with.
pub(crate) fn pod(name: &str, queue: u64, running: u64, percent: u64) -> Gauges {
    vec![(name.to_owned(), Some(queue), Some(running), Some(percent))]
}

/// The expected rows of two equal pods.
pub(crate) fn two_pods() -> Gauges {
    [pod("m-0", 6, 20, 80), pod("m-1", 6, 20, 80)].concat()
}

/// Checks that the load of the model is [`LOAD`], whether it is reported for all pods or per pod.
pub(crate) fn load(sample: &ModelSample) -> [Option<u64>; 5] {
    let role_of = |pod: &PodName| {
        sample.replicas.iter().find(|row| row.pod_name == *pod).and_then(|row| row.role.as_ref())
    };
    let pods = sample.load.pods().iter().map(|(pod, row)| (role_of(pod), row.rates));
    let of_model = sample.load.of_model().map(|row| row.rates);
    let rates = of_model.or_else(|| LoadRates::of_roles(pods)).unwrap();
    let load = rates.load(false);
    [
        load.arrival_rate,
        load.avg_input_tokens,
        load.avg_output_tokens,
        rates.ttft_average(false),
        rates.itl_average(false),
    ]
    .map(|value| value.and_then(|value| collector_core::sanitize::count(value).ok()))
}
