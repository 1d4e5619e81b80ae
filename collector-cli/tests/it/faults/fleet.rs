//! A healthy Prometheus that scrapes two pods of one model, as a script that cases change in places.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::server::{Reply, Request};

pub(crate) const MODEL: &str = "org/model";
pub(crate) const NAMESPACE: &str = "prod";

/// What a query is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Quantity {
    Time,
    Shape,
    Liveness,
    Models,
    KvCache,
    Queue,
    Running,
    CacheConfig,
    /// A rate, of whatever.
    Rate,
}

impl Request {
    /// Told by the names in the query and not by its grammar.
    pub(crate) fn about(&self) -> Quantity {
        let has = |part: &str| self.query.contains(part);
        if self.query == "time()" {
            Quantity::Time
        } else if has("label_replace") {
            Quantity::Shape
        } else if has("timestamp(") {
            Quantity::Liveness
        } else if has("rate(") {
            Quantity::Rate
        } else if has("count by (namespace,model_name)") {
            Quantity::Models
        } else if has("cache_usage_perc") {
            Quantity::KvCache
        } else if has("num_requests_waiting") {
            Quantity::Queue
        } else if has("num_requests_running") {
            Quantity::Running
        } else {
            assert!(has("cache_config_info"), "{}", self.query);
            Quantity::CacheConfig
        }
    }
}

/// The fleet.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    pub(crate) pods: Vec<String>,
    /// Seconds since the last scrape.
    pub(crate) age: f64,
    /// The label that names pods.
    pub(crate) pod_label: &'static str,
}

impl Default for Fleet {
    fn default() -> Self {
        Self { pods: vec!["m-0".into(), "m-1".into()], age: 3.0, pod_label: "pod" }
    }
}

impl Fleet {
    pub(crate) fn of_pods(pods: &[&str]) -> Self {
        Self { pods: pods.iter().map(|pod| (*pod).to_owned()).collect(), ..Self::default() }
    }

    pub(crate) fn of_age(age: f64) -> Self {
        Self { age, ..Self::default() }
    }

    pub(crate) fn reply(&self, request: &Request) -> Reply {
        if request.about() == Quantity::Time {
            return time(wall());
        }
        Reply::ok(vector(&self.rows(request)))
    }

    /// A row with this value for each pod, or for the model where the query has no pods.
    pub(crate) fn each(&self, request: &Request, value: &str) -> Vec<Value> {
        let by_pod = request.query.contains(self.pod_label);
        let rows = self.pods.iter().take(if by_pod { usize::MAX } else { 1 }).map(|pod| {
            let mut labels = json!({"namespace": NAMESPACE, "model_name": MODEL});
            if by_pod {
                labels[self.pod_label] = json!(pod);
            }
            row(&labels, request.time, value)
        });
        rows.collect()
    }

    pub(crate) fn rows(&self, request: &Request) -> Vec<Value> {
        let other = |label: &str, value: &str| {
            let names = |value: &str| request.query.contains(&format!("{label}=\"{value}"));
            names("") && !names(&format!("{value}\""))
        };
        if request.about() != Quantity::Shape
            && (other("model_name", MODEL) || other("namespace", NAMESPACE))
        {
            return Vec::new();
        }
        let each = |value: &str| self.each(request, value);
        match request.about() {
            Quantity::Time => unreachable!("it is no vector"),
            Quantity::Shape => shape(&NEW_NAMES, self.pod_label, self.pods.len(), request.time),
            Quantity::Liveness => each(&(request.time - self.age).to_string()),
            Quantity::Models if self.pods.is_empty() => Vec::new(),
            Quantity::Models => {
                let labels = json!({"namespace": NAMESPACE, "model_name": MODEL});
                vec![row(&labels, request.time, &self.pods.len().to_string())]
            }
            Quantity::KvCache => each("0.42"),
            Quantity::Queue => each("3"),
            Quantity::Running => each("7"),
            Quantity::CacheConfig => self.cache_config(request, "1000"),
            Quantity::Rate => {
                let values = [
                    ("prompt_tokens_count", "2"),
                    ("prompt_tokens_sum", "1024"),
                    ("generation_tokens_sum", "256"),
                    ("first_token_seconds_sum", "0.5"),
                    ("first_token_seconds_count", "2"),
                    ("seconds_sum", "5"),
                    ("seconds_count", "250"),
                    ("prefix_cache_hits", "60"),
                    ("prefix_cache_queries", "100"),
                ];
                let known = values.iter().find(|(name, _)| request.query.contains(name));
                each(known.unwrap_or_else(|| panic!("{}", request.query)).1)
            }
        }
    }

    pub(crate) fn cache_config(&self, request: &Request, blocks: &str) -> Vec<Value> {
        let rows = self.pods.iter().map(|pod| {
            let mut labels = json!({
                "namespace": NAMESPACE, "engine": "0", "num_gpu_blocks": blocks, "block_size": "16",
            });
            labels[self.pod_label] = json!(pod);
            row(&labels, request.time, "1")
        });
        rows.collect()
    }
}

pub(crate) const NEW_NAMES: [&str; 4] = [
    "vllm:num_requests_running",
    "vllm:kv_cache_usage_perc",
    "vllm:inter_token_latency_seconds_count",
    "vllm:prefix_cache_hits_total",
];

/// What a server says that holds these names.
pub(crate) fn shape(names: &[&str], pod_label: &str, pods: usize, time: f64) -> Vec<Value> {
    names
        .iter()
        .chain(&[pod_label])
        .map(|what| row(&json!({"what": what}), time, &pods.to_string()))
        .collect()
}

pub(crate) fn row(labels: &Value, time: f64, value: &str) -> Value {
    json!({"metric": labels, "value": [time, value]})
}

/// The document of a vector.
pub(crate) fn vector(rows: &[Value]) -> String {
    json!({"status": "success", "data": {"resultType": "vector", "result": rows}}).to_string()
}

/// The answer to `time()`.
pub(crate) fn time(seconds: f64) -> Reply {
    let result = json!([seconds, seconds.to_string()]);
    Reply::ok(
        json!({"status": "success", "data": {"resultType": "scalar", "result": result}})
            .to_string(),
    )
}

/// Seconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "a server has a wall clock of its own")]
pub(crate) fn wall() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
