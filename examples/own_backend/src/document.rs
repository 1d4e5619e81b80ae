// SPDX-License-Identifier: Apache-2.0
//! The file's format: what it may say, and what of it is believed.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use collector::core::text::printable;
use collector::core::{
    KnownModel, LoadRates, ModelRef, ModelSample, ReplicaMetrics, Tick, sanitize,
};
use serde::Deserialize;

/// The whole file. Unknown keys are errors, because a misspelt one would look like "not measured".
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    /// How old the values were when the file was written, in seconds. The time since then is added.
    #[serde(default)]
    pub age_seconds: f64,
    /// Every model there is.
    pub models: Vec<Model>,
}

/// A model in a namespace.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Model {
    /// The model's id.
    pub model: String,
    /// The namespace its pods run in.
    pub namespace: String,
    /// Its live replicas; none means that the model is known and scaled to zero.
    pub replicas: Vec<Replica>,
}

/// A replica. A key that is left out was not measured, which is not 0.
#[derive(Clone, PartialEq, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "as the fields of `ReplicaMetrics`")]
pub struct Replica {
    pub pod_name: String,
    pub kv_cache_usage: Option<f64>,
    pub queue_length: Option<u64>,
    pub running_requests: Option<u64>,
    pub num_gpu_blocks: Option<u64>,
    pub block_size: Option<u64>,
    pub prefix_cache_hit_rate: Option<f64>,
    pub load: Option<Load>,
}

/// What arrives at a replica, in units per second.
#[derive(Clone, Copy, PartialEq, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "as the fields of `LoadRates`")]
pub struct Load {
    pub requests: Option<f64>,
    pub prompt_tokens: Option<f64>,
    pub generation_tokens: Option<f64>,
    pub ttft_seconds: Option<f64>,
    pub ttft_count: Option<f64>,
    pub itl_seconds: Option<f64>,
    pub itl_count: Option<f64>,
}

/// What is wrong with a file. People write this one, so a wrong value is refused and named rather
/// than left out and counted, as that of a server would be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid(String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Invalid {}

impl Document {
    /// Reads a document and checks that everything in it can be true.
    ///
    /// # Errors
    /// Names the line of what is no such JSON, or the model, pod and key that cannot be true.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        let document: Self = serde_json::from_slice(text)
            .map_err(|error| Invalid(printable(&error.to_string()).to_string()))?;
        document.check()?;
        Ok(document)
    }

    /// The age of the values when the file was written.
    pub fn age(&self) -> Duration {
        // `parse` has refused what is no duration.
        Duration::try_from_secs_f64(self.age_seconds).unwrap_or(Duration::MAX)
    }

    /// The model asked for, if the file has it.
    pub fn model(&self, wanted: &ModelRef) -> Option<&Model> {
        self.models.iter().find(|model| model.reference() == *wanted)
    }

    fn check(&self) -> Result<(), Invalid> {
        Duration::try_from_secs_f64(self.age_seconds)
            .map_err(|error| Invalid(format!("ageSeconds: {error}")))?;
        let mut models = HashSet::new();
        for model in &self.models {
            let name = model.reference();
            if !models.insert(name.clone()) {
                return Err(Invalid(format!("{name} is there twice")));
            }
            let mut pods = HashSet::new();
            for replica in &model.replicas {
                let pod = &replica.pod_name;
                if !pods.insert(pod) {
                    return Err(Invalid(format!("{name}: pod {pod:?} is there twice")));
                }
                replica
                    .check()
                    .map_err(|wrong| Invalid(format!("{name}: pod {pod:?}: {wrong}")))?;
            }
        }
        Ok(())
    }
}

impl Model {
    fn reference(&self) -> ModelRef {
        ModelRef::new(self.model.as_str(), self.namespace.as_str())
    }

    /// The model as a list shows it.
    pub fn known(&self) -> KnownModel {
        KnownModel::new(self.reference(), u32::try_from(self.replicas.len()).ok())
    }

    /// The model as a fetch at `as_of` found it, in values that were sampled at `sampled_at`.
    pub fn sample(&self, as_of: Tick, sampled_at: Tick) -> ModelSample {
        let replicas = self.replicas.iter();
        let mut sample =
            ModelSample::new(as_of, replicas.map(|replica| replica.metrics(sampled_at)).collect());
        let row = |replica: &Replica| {
            let rates = replica.load.unwrap_or_default().rates();
            (replica.pod_name.as_str().into(), rates.into())
        };
        sample.load = self.replicas.iter().map(row).collect();
        sample
    }
}

impl Replica {
    fn metrics(&self, sampled_at: Tick) -> ReplicaMetrics {
        let mut metrics = ReplicaMetrics::new(self.pod_name.as_str(), sampled_at);
        metrics.kv_cache_usage = self.kv_cache_usage;
        metrics.queue_length = self.queue_length;
        metrics.running_requests = self.running_requests;
        metrics.num_gpu_blocks = self.num_gpu_blocks;
        metrics.block_size = self.block_size;
        metrics.prefix_cache_hit_rate = self.prefix_cache_hit_rate;
        metrics
    }

    fn check(&self) -> Result<(), String> {
        let ratios = [
            ("kvCacheUsage", self.kv_cache_usage),
            ("prefixCacheHitRate", self.prefix_cache_hit_rate),
        ];
        for (key, value) in ratios {
            // `sanitize` forgives the noise of sums; a file has no excuse for it.
            if value.is_some_and(|value| sanitize::ratio(value) != Ok(value)) {
                return Err(format!("{key} is not within 0 and 1"));
            }
        }
        let load = self.load.unwrap_or_default();
        let rates = [
            ("requests", load.requests),
            ("promptTokens", load.prompt_tokens),
            ("generationTokens", load.generation_tokens),
            ("ttftSeconds", load.ttft_seconds),
            ("ttftCount", load.ttft_count),
            ("itlSeconds", load.itl_seconds),
            ("itlCount", load.itl_count),
        ];
        for (key, value) in rates {
            if value.is_some_and(|value| sanitize::rate(value) != Ok(value)) {
                return Err(format!("load.{key} is not a rate"));
            }
        }
        Ok(())
    }
}

impl Load {
    fn rates(self) -> LoadRates {
        LoadRates::default()
            .with_requests(self.requests)
            .with_tokens(self.prompt_tokens, self.generation_tokens)
            .with_ttft(self.ttft_seconds, self.ttft_count)
            .with_itl(self.itl_seconds, self.itl_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(replica: &str, expected: &str) {
        let text = format!(
            r#"{{"models": [{{"model": "m", "namespace": "n", "replicas": [{replica}]}}]}}"#
        );
        let error = Document::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_cannot_be_true_is_named() {
        check_refused(
            r#"{"podName": "m-0", "kvCacheUsage": 42}"#,
            r#"model "m" in namespace "n": pod "m-0": kvCacheUsage is not within 0 and 1"#,
        );
        check_refused(
            r#"{"podName": "m-0", "load": {"requests": -1}}"#,
            "load.requests is not a rate",
        );
        check_refused(r#"{"podName": "m-0"}, {"podName": "m-0"}"#, r#"pod "m-0" is there twice"#);
        check_refused(r#"{"podName": "m-0", "kvCachUsage": 0.5}"#, "kvCachUsage");
        check_refused(r#"{"podName": "m-0", "queueLength": -1}"#, "line 1");
    }

    #[test]
    fn a_key_left_out_was_not_measured() {
        let text = br#"{"models": [{"model": "m", "namespace": "n", "replicas": [
            {"podName": "m-0", "queueLength": 0}]}]}"#;
        let document = Document::parse(text).unwrap();
        let model = document.model(&ModelRef::new("m", "n")).unwrap();
        let sample = model.sample(Tick::MAX, Tick::MIN);
        assert_eq!(sample.replicas[0].queue_length, Some(0));
        assert_eq!(sample.replicas[0].running_requests, None);
        assert_eq!(sample.load.pods()[0].1.rates, LoadRates::default());
    }
}
