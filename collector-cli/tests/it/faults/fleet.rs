// SPDX-License-Identifier: Apache-2.0
//! A healthy Prometheus that scrapes two pods of one model, as a script that cases change in places.

use std::time::{SystemTime, UNIX_EPOCH};

use collector_testkit::joined_queries;
use serde_json::{Value, json};

use super::server::{Reply, Request};

pub(crate) const MODEL: &str = "org/model";
pub(crate) const NAMESPACE: &str = "prod";

/// What a query is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Quantity {
    Time,
    /// Which names, labels and pods there are.
    Shape,
    /// How often series are scraped.
    Scrapes,
    /// One series with all of its labels.
    Example,
    Liveness,
    /// Whether anything is there of a model that has no live pods, or when it was.
    Presence,
    Models,
    KvCache,
    Queue,
    Running,
    CacheConfig,
    /// A counter as it stands.
    Counter,
    /// A rate, of whatever.
    Rate,
}

impl Request {
    /// Told by the names and functions in the query, or in the first of those that it joins.
    pub(crate) fn about(&self) -> Quantity {
        about(&self.query)
    }
}

fn about(query: &str) -> Quantity {
    let has = |part: &str| query.contains(part);
    let is_joined = query.starts_with("label_replace(");
    let inner = query.trim_start_matches("label_replace(");
    if query == "vector(time())" {
        Quantity::Time
    } else if inner.starts_with("count by (__name__)") || inner.starts_with("count(") {
        Quantity::Shape
    } else if has("count_over_time(") {
        Quantity::Scrapes
    } else if has("topk(1, ") {
        Quantity::Example
    } else if (is_joined && has("timestamp(")) || has("[1h:1m]") {
        Quantity::Presence
    } else if has("timestamp(") {
        Quantity::Liveness
    } else if has("rate(") {
        Quantity::Rate
    } else if has("cache_config_info") {
        Quantity::CacheConfig
    } else if has("count by (") {
        Quantity::Models
    } else if has("cache_usage_perc") {
        Quantity::KvCache
    } else if has("num_requests_waiting") {
        Quantity::Queue
    } else if has("num_requests_running") {
        Quantity::Running
    } else {
        assert!(has("prompt_tokens_count"), "{query}");
        Quantity::Counter
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
    /// The series of each pod.
    pub(crate) names: &'static [&'static str],
    /// The servers that scrape each pod, told apart by the label [`COPY_LABEL`]; one has none.
    pub(crate) copies: &'static [&'static str],
    /// The running requests of each pod.
    pub(crate) running: u64,
}

/// The label that a pair of servers attaches.
pub(crate) const COPY_LABEL: &str = "prometheus_replica";

impl Default for Fleet {
    fn default() -> Self {
        Self {
            pods: vec!["m-0".into(), "m-1".into()],
            age: 3.0,
            pod_label: "pod",
            names: &NEW_NAMES,
            copies: &[""],
            running: 7,
        }
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
        Reply::ok(self.document(&request.query, request.time))
    }

    /// The answer to a query as of a time.
    pub(crate) fn document(&self, query: &str, time: f64) -> String {
        if about(query) == Quantity::Time { number(time) } else { vector(&self.all(query, time)) }
    }

    /// A row with this value for each pod, or for the model where the query has no pods.
    pub(crate) fn each(&self, request: &Request, value: &str) -> Vec<Value> {
        self.grouped(&request.query, request.time, value, &[])
    }

    pub(crate) fn rows(&self, request: &Request) -> Vec<Value> {
        self.all(&request.query, request.time)
    }

    /// The rows of a query; of one that joins several, each with the number of its own.
    fn all(&self, query: &str, time: f64) -> Vec<Value> {
        let joined = joined_queries(query);
        if joined.is_empty() {
            return self.part(query, time);
        }
        let numbered = joined.into_iter().flat_map(|(part, number)| {
            let mut rows = self.part(part, time);
            for row in &mut rows {
                row["metric"]["what"] = json!(number);
            }
            rows
        });
        numbered.collect()
    }

    fn part(&self, query: &str, time: f64) -> Vec<Value> {
        let each = |value: &str| self.grouped(query, time, value, &[]);
        let one = |value: usize| vec![row(&json!({}), time, &value.to_string())];
        if query.starts_with("count by (__name__)") {
            let names = self.names.iter().filter(|_| !self.pods.is_empty());
            return names.map(|name| row(&json!({"__name__": name}), time, "1")).collect();
        }
        if !self.selects(query) {
            return Vec::new();
        }
        match about(query) {
            Quantity::Time => unreachable!("it is no vector"),
            Quantity::Shape if query.ends_with("> 1)") && self.copies.len() < 2 => Vec::new(),
            Quantity::Shape => one(self.pods.len()),
            Quantity::Scrapes if query.starts_with("max(") => one(4),
            // Nothing has been there for long enough.
            Quantity::Scrapes => Vec::new(),
            Quantity::Example => {
                let copies = self.copies.iter().map(|copy| {
                    let mut labels = self.labels(&self.pods[0]);
                    labels[COPY_LABEL] = json!(copy);
                    row(&labels, time, "1")
                });
                copies.collect()
            }
            Quantity::Liveness | Quantity::Presence => each(&(time - self.age).to_string()),
            Quantity::Models => each(&self.pods.len().to_string()),
            Quantity::KvCache => each("0.42"),
            Quantity::Queue => each("3"),
            Quantity::Running => each(&self.running.to_string()),
            Quantity::CacheConfig => self.sizes(query, time, "1000"),
            Quantity::Counter => each("1000"),
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
                let known = values.iter().find(|(name, _)| query.contains(name));
                each(known.unwrap_or_else(|| panic!("{query}")).1)
            }
        }
    }

    pub(crate) fn cache_config(&self, request: &Request, blocks: &str) -> Vec<Value> {
        self.sizes(&request.query, request.time, blocks)
    }

    fn sizes(&self, query: &str, time: f64, blocks: &str) -> Vec<Value> {
        self.grouped(query, time, "1", &[("num_gpu_blocks", blocks), ("block_size", "16")])
    }

    /// A row with this value for each group of the outer aggregation. What is added up without the label
    /// of the copies counts each of them.
    fn grouped(&self, query: &str, time: f64, value: &str, more: &[(&str, &str)]) -> Vec<Value> {
        let by = by(query);
        let value = match value.parse::<f64>() {
            Ok(number) if query.contains("sum by (") && !by.contains(&COPY_LABEL) => {
                // Exact for one copy, whatever the number.
                (number * self.copies.len() as f64).to_string()
            }
            _ => value.to_owned(),
        };
        let mut rows: Vec<Value> = Vec::new();
        for pod in &self.pods {
            for copy in self.copies {
                let mut labels = self.labels(pod);
                labels[COPY_LABEL] = json!(copy);
                for (label, value) in more {
                    labels[*label] = json!(value);
                }
                let group = labels.as_object_mut().unwrap();
                group.retain(|label, value| by.contains(&label.as_str()) && *value != "");
                let row = row(&labels, time, &value);
                if !rows.contains(&row) {
                    rows.push(row);
                }
            }
        }
        rows
    }

    /// The labels of a pod's series.
    fn labels(&self, pod: &str) -> Value {
        let mut labels = json!({"namespace": NAMESPACE, "model_name": MODEL, "engine": "0"});
        labels[self.pod_label] = json!(pod);
        labels
    }

    /// Whether the first selector of a query is of series of this fleet. Patterns match all: what was
    /// not asked for is ignored by the reader of the rows.
    fn selects(&self, query: &str) -> bool {
        let known = |name: &&&str| {
            let behind = query.split(**name).nth(1);
            behind.is_some_and(|behind| behind.starts_with(['{', '[', ')', ',']))
        };
        let Some(name) = self.names.iter().find(known) else { return false };
        let Some(pod) = self.pods.first() else { return false };
        let mut labels = self.labels(pod);
        if name.ends_with("_info") {
            labels["model_name"] = json!("");
        }
        let behind = query.split(name).nth(1).unwrap_or_default();
        matchers(behind).iter().all(|(label, operator, value)| {
            let actual = labels[*label].as_str().unwrap_or_default();
            match *operator {
                "=" => actual == value,
                "!=" => actual != value,
                _ => true,
            }
        })
    }
}

/// The labels of the outer aggregation.
fn by(query: &str) -> Vec<&str> {
    let list = query.split_once("by (").and_then(|(_, rest)| rest.split_once(')'));
    list.map(|(list, _)| list.split(',').collect()).unwrap_or_default()
}

/// The matchers at the beginning of `text`: label, operator and value.
fn matchers(mut text: &str) -> Vec<(&str, &str, String)> {
    let mut all = Vec::new();
    if !text.starts_with('{') {
        return all;
    }
    while let Some(rest) = text.strip_prefix(['{', ',']) {
        let (label, rest) = rest.split_at(rest.find(['=', '!']).unwrap());
        let (operator, mut rest) = rest.split_once('"').unwrap();
        let mut value = String::new();
        while !rest.starts_with('"') {
            let mut chars = rest.strip_prefix('\\').unwrap_or(rest).chars();
            value.push(chars.next().unwrap());
            rest = chars.as_str();
        }
        all.push((label, operator, value));
        text = &rest[1..];
    }
    all
}

/// The series of vLLM.
pub(crate) const NEW_NAMES: [&str; 13] = [
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:request_prompt_tokens_sum",
    "vllm:request_prompt_tokens_count",
    "vllm:request_generation_tokens_sum",
    "vllm:time_to_first_token_seconds_sum",
    "vllm:time_to_first_token_seconds_count",
    "vllm:inter_token_latency_seconds_sum",
    "vllm:inter_token_latency_seconds_count",
    "vllm:prefix_cache_hits_total",
    "vllm:prefix_cache_queries_total",
    "vllm:cache_config_info",
];

/// The series of an older vLLM.
pub(crate) const OLD_NAMES: [&str; 11] = [
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:gpu_cache_usage_perc",
    "vllm:request_prompt_tokens_sum",
    "vllm:request_prompt_tokens_count",
    "vllm:request_generation_tokens_sum",
    "vllm:time_to_first_token_seconds_sum",
    "vllm:time_to_first_token_seconds_count",
    "vllm:time_per_output_token_seconds_sum",
    "vllm:time_per_output_token_seconds_count",
    "vllm:cache_config_info",
];

pub(crate) fn row(labels: &Value, time: f64, value: &str) -> Value {
    json!({"metric": labels, "value": [time, value]})
}

/// The document of a vector.
pub(crate) fn vector(rows: &[Value]) -> String {
    json!({"status": "success", "data": {"resultType": "vector", "result": rows}}).to_string()
}

/// The document of a number, as `vector(time())` has it.
pub(crate) fn number(seconds: f64) -> String {
    vector(&[json!({"metric": {}, "value": [seconds, seconds.to_string()]})])
}

/// Seconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "a server has a wall clock of its own")]
pub(crate) fn wall() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
