//! What is written of one model; `recall` reads it again.
//!
//! These types are the format: a change in them is another version of it. They hold no tick, only ages
//! at the time of writing. Whatever is read is hostile: counted, measured and sanitised as an answer of
//! a server is.

mod recall;

use std::sync::Arc;
use std::time::Duration;

use collector_core::raw::SourceState;
use collector_core::{
    BackendName, EngineName, Field, FieldReasons, LoadRates, LoadRow, Mark, ModelId, ModelRef,
    ModelSample, Namespace, Outcome, PodName, ReplicaMetrics, ReplicaState, Role, Tick,
};
use serde::{Deserialize, Serialize};

pub(super) use self::recall::Remembered;

/// The longest name: that of the HTTP API.
const MAX_NAME_BYTES: usize = 4096;

/// The most sources of one model. There are two kinds of backends.
const MAX_SOURCES: usize = 16;

/// The most rows, pods or adapters in one list: ten times what `epp.max_targets` lets in by default.
const MAX_ROWS: usize = 100_000;

/// One model that was tracked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ModelRecord {
    model: ModelId,
    namespace: Namespace,
    /// Since when nobody had read it.
    unread: Age,
    sources: Vec<SourceRecord>,
}

/// How long ago something was when the snapshot was written, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct Age(u64);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SourceRecord {
    backend: BackendName,
    outcome: OutcomeRecord,
    answered: Age,
    as_of: Age,
    arrived: Age,
    sample: SampleRecord,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    load_marks: Vec<MarkRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    departed: Vec<(PodName, Age)>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OutcomeRecord {
    Found,
    Missing,
    Failed,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SampleRecord {
    as_of: Age,
    complete: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    failed: Vec<(FieldRecord, Arc<str>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<Age>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unreached: Vec<PodName>,
    replicas: Vec<ReplicaRecord>,
    load: Vec<LoadRecord>,
}

/// A replica without its variant, which follows from the directory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReplicaRecord {
    pod: PodName,
    sampled: Age,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    engine: Option<EngineName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lora: Option<LoraRecord>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sleeping: bool,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    servers: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kv_capacity_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kv_tokens_in_use: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kv_cache_usage: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue_length: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running_requests: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    num_gpu_blocks: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    block_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    avg_input_tokens: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    avg_output_tokens: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix_cache_hit_rate: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    marks: Vec<MarkRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<(FieldRecord, Arc<str>)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LoraRecord {
    running: Vec<Box<str>>,
    waiting: Vec<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LoadRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<PodName>,
    #[serde(with = "RatesRecord")]
    rates: LoadRates,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<(FieldRecord, Arc<str>)>,
}

impl LoadRecord {
    fn new(row: &LoadRow) -> Self {
        Self { pod: row.pod.clone(), rates: row.rates, reasons: reasons_of(&row.reasons) }
    }

    fn is_within_limits(&self) -> bool {
        self.pod.as_ref().is_none_or(|pod| is_name(pod.as_str())) && are_reasons(&self.reasons)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "LoadRates", rename_all = "camelCase", deny_unknown_fields)]
struct RatesRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requests: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt_tokens: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation_tokens: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttft_seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttft_count: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    itl_seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    itl_count: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MarkRecord {
    field: FieldRecord,
    backend: BackendName,
    sampled: Age,
}

/// A field by its name in JSON.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
struct FieldRecord(Field);

impl From<FieldRecord> for &'static str {
    fn from(FieldRecord(field): FieldRecord) -> Self {
        field.as_str()
    }
}

impl TryFrom<String> for FieldRecord {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let field = Field::ALL.iter().copied().find(|field| field.as_str() == name);
        field.map(Self).ok_or("no such field")
    }
}

impl Age {
    fn of(tick: Tick, written_at: Tick) -> Self {
        Self::from(tick.age(written_at))
    }

    /// The tick, given when the snapshot was written on the clock of this process.
    fn tick(self, written_at: Tick) -> Tick {
        written_at - Duration::from(self)
    }
}

impl From<Duration> for Age {
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Age> for Duration {
    fn from(Age(nanos): Age) -> Self {
        Self::from_nanos(nanos)
    }
}

impl ModelRecord {
    /// What is written of a model at `written_at`: of each source that ever had it the last that it
    /// said. `None` when it is beyond what would be read again.
    pub(super) fn new(
        model: &ModelRef,
        unread: Duration,
        states: &[SourceState],
        written_at: Tick,
    ) -> Option<Self> {
        let record = Self {
            model: model.model.clone(),
            namespace: model.namespace.clone(),
            unread: unread.into(),
            sources: states.iter().filter_map(|s| SourceRecord::new(s, written_at)).collect(),
        };
        record.is_within_limits().then_some(record)
    }

    fn is_within_limits(&self) -> bool {
        is_name(self.model.as_str())
            && is_name(self.namespace.as_str())
            && self.sources.len() <= MAX_SOURCES
            && self.sources.iter().all(SourceRecord::is_within_limits)
    }
}

impl SourceRecord {
    fn new(state: &SourceState, written_at: Tick) -> Option<Self> {
        let answer = state.answer.as_ref()?;
        let age = |tick| Age::of(tick, written_at);
        Some(Self {
            backend: state.backend.clone(),
            outcome: match state.outcome {
                Outcome::Found => OutcomeRecord::Found,
                Outcome::Missing => OutcomeRecord::Missing,
                Outcome::Failed => OutcomeRecord::Failed,
            },
            answered: age(state.answered_at.unwrap_or(answer.arrived_at)),
            as_of: age(state.as_of.unwrap_or(answer.sample.as_of)),
            arrived: age(answer.arrived_at),
            sample: SampleRecord::new(&answer.sample, written_at),
            load_marks: marks_of(&answer.load_marks, written_at),
            departed: answer.departed.iter().map(|(pod, left)| (pod.clone(), age(*left))).collect(),
        })
    }

    fn is_within_limits(&self) -> bool {
        is_name(self.backend.as_str())
            && are_marks(&self.load_marks)
            && self.departed.len() <= MAX_ROWS
            && self.departed.iter().all(|(pod, _)| is_name(pod.as_str()))
            && self.sample.is_within_limits()
    }
}

impl SampleRecord {
    fn new(sample: &ModelSample, written_at: Tick) -> Self {
        let replicas = sample.replicas.iter();
        Self {
            as_of: Age::of(sample.as_of, written_at),
            complete: sample.absent.is_none(),
            failed: reasons_of(&sample.failed),
            window: sample.window.map(Age::from),
            warnings: sample.warnings.clone(),
            unreached: sample.absent.named().to_vec(),
            replicas: replicas.map(|row| ReplicaRecord::new(row, written_at)).collect(),
            load: sample.load.iter().map(LoadRecord::new).collect(),
        }
    }

    fn is_within_limits(&self) -> bool {
        let lists = [self.unreached.len(), self.replicas.len(), self.load.len()];
        lists.into_iter().all(|length| length <= MAX_ROWS)
            && are_reasons(&self.failed)
            && self.warnings.len() <= MAX_ROWS
            && self.warnings.iter().all(|warning| is_name(warning))
            && self.unreached.iter().all(|pod| is_name(pod.as_str()))
            && self.load.iter().all(LoadRecord::is_within_limits)
            && self.replicas.iter().all(ReplicaRecord::is_within_limits)
    }
}

impl ReplicaRecord {
    fn new(row: &ReplicaMetrics, written_at: Tick) -> Self {
        Self {
            pod: row.pod_name.clone(),
            sampled: Age::of(row.sampled_at, written_at),
            engine: row.engine.clone(),
            role: row.role.clone(),
            lora: row.lora_adapters.as_deref().map(|lora| LoraRecord {
                running: lora.running.clone(),
                waiting: lora.waiting.clone(),
                max: lora.max,
            }),
            sleeping: row.state == ReplicaState::Sleeping,
            servers: row.servers,
            kv_capacity_tokens: row.kv_capacity_tokens,
            kv_tokens_in_use: row.kv_tokens_in_use,
            kv_cache_usage: row.kv_cache_usage,
            queue_length: row.queue_length,
            running_requests: row.running_requests,
            num_gpu_blocks: row.num_gpu_blocks,
            block_size: row.block_size,
            avg_input_tokens: row.avg_input_tokens,
            avg_output_tokens: row.avg_output_tokens,
            prefix_cache_hit_rate: row.prefix_cache_hit_rate,
            marks: marks_of(&row.marks, written_at),
            reasons: reasons_of(&row.reasons),
        }
    }

    fn is_within_limits(&self) -> bool {
        let adapters = self.lora.iter().flat_map(|lora| [&lora.running, &lora.waiting]);
        is_name(self.pod.as_str())
            && self.engine.as_ref().is_none_or(|engine| is_name(engine.as_str()))
            && self.role.as_ref().is_none_or(|role| is_name(role.as_str()))
            && are_marks(&self.marks)
            && are_reasons(&self.reasons)
            && adapters
                .into_iter()
                .all(|names| names.len() <= MAX_ROWS && names.iter().all(|name| is_name(name)))
    }
}

fn reasons_of(reasons: &FieldReasons) -> Vec<(FieldRecord, Arc<str>)> {
    reasons.iter().map(|(field, reason)| (FieldRecord(field), Arc::clone(reason))).collect()
}

fn are_reasons(reasons: &[(FieldRecord, Arc<str>)]) -> bool {
    reasons.len() <= Field::ALL.len() && reasons.iter().all(|(_, reason)| is_name(reason))
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_one(count: &u32) -> bool {
    *count == 1
}

fn marks_of(marks: &[Mark], written_at: Tick) -> Vec<MarkRecord> {
    let record = |mark: &Mark| MarkRecord {
        field: FieldRecord(mark.field),
        backend: mark.backend.clone(),
        sampled: Age::of(mark.sampled_at, written_at),
    };
    marks.iter().map(record).collect()
}

fn are_marks(marks: &[MarkRecord]) -> bool {
    marks.len() <= Field::ALL.len() && marks.iter().all(|mark| is_name(mark.backend.as_str()))
}

fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
}

#[cfg(test)]
mod tests;
