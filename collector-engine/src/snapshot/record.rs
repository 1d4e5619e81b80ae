//! A line of the snapshot: what each source last answered about one model.
//!
//! These types are the format. They hold no tick, only ages at the time of writing. What is read is judged like
//! an answer of a server: what is there twice counts once, and what cannot be true is unknown.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use collector_core::raw::{SourceAnswer, SourceState};
use collector_core::{
    Absent, BackendName, EndpointPicker, EngineName, Field, FieldReasons, LoadRates, LoadRow,
    LoadRows, LoraAdapters, Mark, ModelId, ModelRef, ModelSample, Namespace, Outcome, PodName,
    ReplicaMetrics, ReplicaState, Role, Tick, sanitize,
};
use serde::{Deserialize, Serialize};

use crate::publish::sane::{keep_first, keep_what_can_be};

/// One model that was tracked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ModelRecord {
    model: ModelId,
    namespace: Namespace,
    /// For how long nobody had read it.
    unread: Age,
    sources: Vec<SourceRecord>,
}

/// How long ago something was when the snapshot was written, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Age(u64);

type Marks = Vec<(FieldName, BackendName, Age)>;
type Reasons = Vec<(FieldName, Arc<str>)>;
type FieldName = Cow<'static, str>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SourceRecord {
    backend: BackendName,
    #[serde(with = "OutcomeRecord")]
    outcome: Outcome,
    answered: Age,
    as_of: Age,
    arrived: Age,
    sample: SampleRecord,
    load_marks: Marks,
    #[serde(rename = "departed")]
    terminated: Vec<(PodName, Age)>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Outcome", rename_all = "lowercase")]
enum OutcomeRecord {
    Found,
    Missing,
    Failed,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SampleRecord {
    as_of: Age,
    complete: bool,
    failed: Reasons,
    window: Option<Age>,
    warnings: Vec<Arc<str>>,
    unreached: Vec<PodName>,
    replicas: Vec<ReplicaRecord>,
    load: Vec<LoadRecord>,
    endpoint_picker: Option<EndpointPickerRecord>,
}

/// That there is an endpoint picker. Its numbers are not kept: they change within seconds, and a queue that was empty
/// says nothing about the queue after a restart.
#[derive(Debug, Serialize, Deserialize)]
struct EndpointPickerRecord {
    responded: Option<Age>,
}

/// A replica without its variant, which follows from the directory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReplicaRecord {
    pod: PodName,
    sampled: Age,
    engine: Option<EngineName>,
    role: Option<Role>,
    lora: Option<LoraRecord>,
    sleeping: bool,
    servers: u32,
    kv_capacity_tokens: Option<u64>,
    kv_tokens_in_use: Option<u64>,
    kv_cache_usage: Option<f64>,
    queue_length: Option<u64>,
    waiting_for_capacity: Option<u64>,
    running_requests: Option<u64>,
    num_gpu_blocks: Option<u64>,
    block_size: Option<u64>,
    avg_input_tokens: Option<f64>,
    avg_output_tokens: Option<f64>,
    prefix_cache_hit_rate: Option<f64>,
    marks: Marks,
    reasons: Reasons,
}

#[derive(Debug, Serialize, Deserialize)]
struct LoraRecord {
    running: Vec<Box<str>>,
    waiting: Vec<Box<str>>,
    max: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct LoadRecord {
    pod: Option<PodName>,
    rates: RatesRecord,
    reasons: Reasons,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RatesRecord {
    requests: Option<f64>,
    prompt_tokens: Option<f64>,
    generation_tokens: Option<f64>,
    ttft_seconds: Option<f64>,
    ttft_count: Option<f64>,
    itl_seconds: Option<f64>,
    itl_count: Option<f64>,
}

impl ModelRecord {
    /// The line of a model at `written_at`: the last answer of each source that ever had it.
    pub(super) fn new(
        model: &ModelRef,
        unread: Duration,
        states: &[SourceState],
        written_at: Tick,
    ) -> Self {
        Self {
            model: model.model.clone(),
            namespace: model.namespace.clone(),
            unread: unread.into(),
            sources: states.iter().filter_map(|s| SourceRecord::new(s, written_at)).collect(),
        }
    }

    /// For how long nobody had read the model when the snapshot was written.
    pub(super) fn unread(&self) -> Duration {
        self.unread.into()
    }

    /// The model again, on a clock on which the snapshot was written at `written_at`.
    pub(super) fn recall(self, written_at: Tick) -> (ModelRef, Vec<SourceState>) {
        let states = self.sources.into_iter().map(|source| source.recall(written_at));
        let mut states: Vec<SourceState> = states.collect();
        keep_first(&mut states, |state| state.backend.clone());
        (ModelRef::new(self.model, self.namespace), states)
    }
}

impl fmt::Display for ModelRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", ModelRef::new(self.model.clone(), self.namespace.clone()))
    }
}

impl SourceRecord {
    fn new(state: &SourceState, written_at: Tick) -> Option<Self> {
        let answer = state.answer.as_ref()?;
        let age = |tick| Age::of(tick, written_at);
        Some(Self {
            backend: state.backend.clone(),
            outcome: state.outcome,
            answered: age(state.answered_at.unwrap_or(answer.arrived_at)),
            as_of: age(state.as_of.unwrap_or(answer.sample.as_of)),
            arrived: age(answer.arrived_at),
            sample: SampleRecord::new(&answer.sample, written_at),
            load_marks: marks_of(&answer.load_marks, written_at),
            terminated: answer
                .terminated
                .iter()
                .map(|(pod, left)| (pod.clone(), age(*left)))
                .collect(),
        })
    }

    fn recall(self, written_at: Tick) -> SourceState {
        let terminated =
            self.terminated.into_iter().map(|(pod, left)| (pod, left.tick(written_at)));
        let mut terminated: Vec<(PodName, Tick)> = terminated.collect();
        // It is searched by halves.
        terminated.sort_unstable();
        terminated.dedup_by(|(a, _), (b, _)| a == b);
        SourceState {
            backend: self.backend,
            outcome: self.outcome,
            // No fetch of this process: its ttl is over, so that the value is last-known-good and due at once.
            ended_at: Tick::MIN,
            answered_at: Some(self.answered.tick(written_at)),
            as_of: Some(self.as_of.tick(written_at)),
            answer: Some(SourceAnswer {
                sample: Arc::new(self.sample.recall(written_at)),
                arrived_at: self.arrived.tick(written_at),
                load_marks: recall_marks(self.load_marks, written_at),
                terminated,
                absent: Vec::new(),
            }),
            error: None,
            nearest: None,
        }
    }
}

impl SampleRecord {
    fn new(sample: &ModelSample, written_at: Tick) -> Self {
        let of_model = sample.load.of_model().map(|row| LoadRecord::new(None, row));
        let of_pods = sample.load.pods().iter();
        let of_pods = of_pods.map(|(pod, row)| LoadRecord::new(Some(pod.clone()), row));
        Self {
            as_of: Age::of(sample.as_of, written_at),
            complete: sample.absent.is_none(),
            failed: reasons_of(&sample.failed),
            window: sample.window.map(Age::from),
            warnings: sample.warnings.clone(),
            unreached: sample.absent.named().to_vec(),
            replicas: sample.replicas.iter().map(|r| ReplicaRecord::new(r, written_at)).collect(),
            load: of_model.into_iter().chain(of_pods).collect(),
            endpoint_picker: EndpointPickerRecord::new(&sample.endpoint_picker, written_at),
        }
    }

    fn recall(self, written_at: Tick) -> ModelSample {
        let replicas = self.replicas.into_iter().map(|row| row.recall(written_at));
        let mut sample = ModelSample::new(self.as_of.tick(written_at), replicas.collect());
        let mut load = self.load.into_iter().map(LoadRecord::recall).peekable();
        sample.load = match load.next_if(|(pod, _)| pod.is_none()) {
            Some((_, of_model)) => LoadRows::Model(of_model),
            None if load.peek().is_none() => LoadRows::None,
            None => load.filter_map(|(pod, row)| Some((pod?, row))).collect(),
        };
        sample.failed = recall_reasons(self.failed);
        sample.window = self.window.map(Duration::from);
        sample.warnings = self.warnings.iter().map(|warning| printable(warning)).collect();
        sample.absent = if self.complete {
            Absent::None
        } else if self.unreached.is_empty() {
            Absent::Unknown(None)
        } else {
            Absent::Pods(self.unreached)
        };
        if let Some(picker) = self.endpoint_picker {
            let since = picker.responded.map(|age| age.tick(written_at));
            sample.endpoint_picker =
                EndpointPicker::silent(since, "it has not been asked since the restart");
        }
        keep_what_can_be(&mut sample);
        sample
    }
}

impl EndpointPickerRecord {
    fn new(picker: &EndpointPicker, written_at: Tick) -> Option<Self> {
        let responded = match picker {
            EndpointPicker::Responding(load) => Some(load.sampled_at),
            EndpointPicker::Silent { since, .. } => *since,
            _ => return None,
        };
        Some(Self { responded: responded.map(|at| Age::of(at, written_at)) })
    }
}

impl LoadRecord {
    fn new(pod: Option<PodName>, row: &LoadRow) -> Self {
        let rates = row.rates;
        let rates = RatesRecord {
            requests: rates.requests,
            prompt_tokens: rates.prompt_tokens,
            generation_tokens: rates.generation_tokens,
            ttft_seconds: rates.ttft_seconds,
            ttft_count: rates.ttft_count,
            itl_seconds: rates.itl_seconds,
            itl_count: rates.itl_count,
        };
        Self { pod, rates, reasons: reasons_of(&row.reasons) }
    }

    fn recall(self) -> (Option<PodName>, LoadRow) {
        let rates = self.rates;
        let rates = LoadRates::default()
            .with_requests(rates.requests)
            .with_tokens(rates.prompt_tokens, rates.generation_tokens)
            .with_ttft(rates.ttft_seconds, rates.ttft_count)
            .with_itl(rates.itl_seconds, rates.itl_count);
        let mut row = LoadRow::from(rates);
        row.reasons = recall_reasons(self.reasons);
        (self.pod, row)
    }
}

impl ReplicaRecord {
    fn new(row: &ReplicaMetrics, written_at: Tick) -> Self {
        Self {
            pod: row.pod_name.clone(),
            sampled: Age::of(row.sampled_at, written_at),
            engine: row.engine.clone(),
            role: row.role.clone(),
            lora: row.lora_adapters.as_deref().cloned().map(|lora| LoraRecord {
                running: lora.running,
                waiting: lora.waiting,
                max: lora.max,
            }),
            sleeping: row.state == ReplicaState::Sleeping,
            servers: row.servers,
            kv_capacity_tokens: row.kv_capacity_tokens,
            kv_tokens_in_use: row.kv_tokens_in_use,
            kv_cache_usage: row.kv_cache_usage,
            queue_length: row.queue_length,
            waiting_for_capacity: row.waiting_for_capacity,
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

    fn recall(self, written_at: Tick) -> ReplicaMetrics {
        let mut row = ReplicaMetrics::new(self.pod, self.sampled.tick(written_at));
        row.engine = self.engine;
        row.role = self.role;
        row.lora_adapters = self.lora.map(|LoraRecord { running, waiting, max }| {
            let max = max.and_then(|max| sanitize::count(max as f64).ok());
            Box::new(LoraAdapters { running, waiting, max })
        });
        if self.sleeping {
            row.state = ReplicaState::Sleeping;
        }
        row.servers = self.servers;
        row.kv_capacity_tokens = self.kv_capacity_tokens;
        row.kv_tokens_in_use = self.kv_tokens_in_use;
        row.kv_cache_usage = self.kv_cache_usage;
        row.queue_length = self.queue_length;
        row.waiting_for_capacity = self.waiting_for_capacity;
        row.running_requests = self.running_requests;
        row.num_gpu_blocks = self.num_gpu_blocks;
        row.block_size = self.block_size;
        row.avg_input_tokens = self.avg_input_tokens;
        row.avg_output_tokens = self.avg_output_tokens;
        row.prefix_cache_hit_rate = self.prefix_cache_hit_rate;
        row.marks = recall_marks(self.marks, written_at);
        row.reasons = recall_reasons(self.reasons);
        row
    }
}

fn marks_of(marks: &[Mark], written_at: Tick) -> Marks {
    let record = |mark: &Mark| {
        (mark.field.as_str().into(), mark.backend.clone(), Age::of(mark.sampled_at, written_at))
    };
    marks.iter().map(record).collect()
}

fn recall_marks(marks: Marks, written_at: Tick) -> Vec<Mark> {
    let mark = |(name, backend, sampled): (FieldName, BackendName, Age)| {
        Some(Mark { field: field(&name)?, backend, sampled_at: sampled.tick(written_at) })
    };
    let mut marks: Vec<Mark> = marks.into_iter().filter_map(mark).collect();
    keep_first(&mut marks, |mark| mark.field);
    marks
}

fn reasons_of(reasons: &FieldReasons) -> Reasons {
    reasons.iter().map(|(field, reason)| (field.as_str().into(), Arc::clone(reason))).collect()
}

fn recall_reasons(reasons: Reasons) -> FieldReasons {
    let reason = |(name, reason): (FieldName, Arc<str>)| Some((field(&name)?, printable(&reason)));
    reasons.into_iter().filter_map(reason).collect()
}

fn field(name: &str) -> Option<Field> {
    Field::ALL.iter().copied().find(|field| field.as_str() == name)
}

/// A text that goes into terminals and logs, which could be written by anyone.
fn printable(text: &str) -> Arc<str> {
    collector_core::text::printable(text).to_string().into()
}

impl Age {
    fn of(tick: Tick, written_at: Tick) -> Self {
        tick.age(written_at).into()
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
