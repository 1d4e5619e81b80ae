// SPDX-License-Identifier: Apache-2.0
//! What the server answers, and what of it is believed.

use std::time::Duration;

use collector_core::sanitize::{self, Rejected};
use collector_core::{
    Field, FieldReasons, KnownModel, LoadRow, ModelRef, ModelSample, ReplicaMetrics, Tick,
};
use serde::Deserialize;

/// The whole answer. Keys that are not known are left out: a server may have more to say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    #[serde(default)]
    age_seconds: f64,
    pub(crate) models: Vec<Model>,
}

/// A model in a namespace.
#[derive(Debug, Deserialize)]
pub(crate) struct Model {
    #[serde(rename = "model")]
    id: String,
    namespace: String,
    pods: Vec<Pod>,
}

/// A live pod. A key that is left out was not measured, which is not 0.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    name: String,
    kv_cache_usage: Option<f64>,
    queue_length: Option<f64>,
    running_requests: Option<f64>,
    requests_per_second: Option<f64>,
    prompt_tokens_per_second: Option<f64>,
    generation_tokens_per_second: Option<f64>,
}

impl Document {
    /// The age of the values; an age that is no duration is that of values which nobody should use.
    pub(crate) fn age(&self) -> Duration {
        Duration::try_from_secs_f64(self.age_seconds).unwrap_or(Duration::MAX)
    }

    /// The model asked for, by its exact name and namespace, if the server has it.
    pub(crate) fn model(&self, wanted: &ModelRef) -> Option<&Model> {
        self.models.iter().find(|model| model.reference() == *wanted)
    }
}

impl Model {
    fn reference(&self) -> ModelRef {
        ModelRef::new(self.id.as_str(), self.namespace.as_str())
    }

    /// The model as a list shows it.
    pub(crate) fn known(&self) -> KnownModel {
        KnownModel::new(self.reference(), u32::try_from(self.pods.len()).ok())
    }

    /// The model as it was asked for at `as_of`, in values that were sampled at `sampled_at`.
    pub(crate) fn sample(&self, as_of: Tick, sampled_at: Tick) -> ModelSample {
        let replicas = self.pods.iter().map(|pod| pod.replica(sampled_at));
        let mut sample = ModelSample::new(as_of, replicas.collect());
        sample.load = self.pods.iter().map(|pod| (pod.name.as_str().into(), pod.load())).collect();
        sample
    }
}

impl Pod {
    fn replica(&self, sampled_at: Tick) -> ReplicaMetrics {
        let mut row = ReplicaMetrics::new(self.name.as_str(), sampled_at);
        let reasons = &mut row.reasons;
        row.kv_cache_usage =
            judged(self.kv_cache_usage, sanitize::ratio, Field::KvCacheUsage, reasons);
        row.queue_length = judged(self.queue_length, sanitize::count, Field::QueueLength, reasons);
        row.running_requests =
            judged(self.running_requests, sanitize::count, Field::RunningRequests, reasons);
        row
    }

    fn load(&self) -> LoadRow {
        let mut row = LoadRow::default();
        let (rates, reasons) = (&mut row.rates, &mut row.reasons);
        rates.requests =
            judged(self.requests_per_second, sanitize::rate, Field::ArrivalRate, reasons);
        rates.prompt_tokens =
            judged(self.prompt_tokens_per_second, sanitize::rate, Field::AvgInputTokens, reasons);
        rates.generation_tokens = judged(
            self.generation_tokens_per_second,
            sanitize::rate,
            Field::AvgOutputTokens,
            reasons,
        );
        row
    }
}

/// A value that can be true; what cannot is unknown, with the reason.
fn judged<T>(
    said: Option<f64>,
    judge: fn(f64) -> Result<T, Rejected>,
    field: Field,
    reasons: &mut FieldReasons,
) -> Option<T> {
    let said = said?;
    let judged = judge(said).ok();
    if judged.is_none() {
        reasons.insert(field, format!("the server said {said}"));
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(text: &str) -> Pod {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_cannot_be_true_is_unknown_and_says_so() {
        let row =
            pod(r#"{"name": "m-0", "kvCacheUsage": 42, "queueLength": -1}"#).replica(Tick::MIN);
        assert_eq!((row.kv_cache_usage, row.queue_length), (None, None));
        assert_eq!(
            row.reasons.get(Field::KvCacheUsage).map(|it| &**it),
            Some("the server said 42")
        );
        let row = pod(r#"{"name": "m-0", "requestsPerSecond": -1}"#).load();
        assert_eq!(row.rates.requests, None);
    }

    #[test]
    fn a_key_left_out_was_not_measured() {
        let row = pod(r#"{"name": "m-0", "queueLength": 0}"#).replica(Tick::MIN);
        assert_eq!((row.queue_length, row.running_requests), (Some(0), None));
        assert!(row.reasons.is_empty());
    }
}
