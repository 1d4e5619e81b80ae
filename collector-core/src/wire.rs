// SPDX-License-Identifier: Apache-2.0
//! Answers in a form that outlives the process, for the snapshot and for recordings: serde types without ticks.
//!
//! Each point in time is an age at the moment of writing. What is read may be anything: texts are made printable here,
//! and the engine judges the numbers as it does those of any backend.

mod supply;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::answer::{Absent, LoadRow, LoadRows, ModelSample};
use crate::clock::Tick;
use crate::endpoint_picker::{EndpointPicker, EndpointPickerLoad, Saturation};
use crate::field::{Field, FieldReasons, FieldSet, Mark};
use crate::latency::{Latencies, LatencyHistogram};
use crate::load::LoadRates;
use crate::metrics::{LoraAdapters, ReplicaMetrics, ReplicaState};
use crate::model::{BackendName, EngineName, PodName, Role};
use crate::sanitize;

pub use self::supply::{SupplyRecord, WorkloadRecord};

/// How long ago something was at the time of writing, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Age(u64);

/// [`Mark`]s.
pub type Marks = Vec<(FieldName, BackendName, Age)>;
/// [`FieldReasons`].
pub type Reasons = Vec<(FieldName, Arc<str>)>;
/// A [`Field`] by its name in JSON.
pub type FieldName = Cow<'static, str>;

/// A [`ModelSample`], without its trace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of ModelSample")]
pub struct SampleRecord {
    pub as_of: Age,
    pub complete: bool,
    pub failed: Reasons,
    pub window: Option<Age>,
    pub warnings: Vec<Arc<str>>,
    pub unreached: Vec<PodName>,
    /// The warning under which any pod may be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_warning: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub lists_pods: bool,
    pub replicas: Vec<ReplicaRecord>,
    pub load: Vec<LoadRecord>,
    pub endpoint_picker: Option<EndpointPickerRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supply: Option<SupplyRecord>,
}

/// An endpoint picker that responds, if it has a load, or that is silent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of EndpointPicker")]
pub struct EndpointPickerRecord {
    pub responded: Option<Age>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<EndpointPickerLoadRecord>,
}

/// An [`EndpointPickerLoad`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of EndpointPickerLoad")]
pub struct EndpointPickerLoadRecord {
    pub flow_control: bool,
    pub queued_requests: Option<u64>,
    pub queued_bytes: Option<u64>,
    pub running_requests: Option<u64>,
    pub in_flight_requests: Option<u64>,
    pub in_flight_tokens: Option<u64>,
    pub saturation: [Option<f64>; 3],
    pub stale_endpoints: Option<u64>,
    pub rejected_requests: Option<u64>,
}

/// A [`ReplicaMetrics`] without its variant, which follows from the directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of ReplicaMetrics")]
pub struct ReplicaRecord {
    pub pod: PodName,
    pub sampled: Age,
    pub engine: Option<EngineName>,
    pub role: Option<Role>,
    pub lora: Option<LoraRecord>,
    pub sleeping: bool,
    pub servers: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latencies: Option<LatenciesRecord>,
    pub kv_capacity_tokens: Option<u64>,
    pub kv_tokens_in_use: Option<u64>,
    pub kv_cache_usage: Option<f64>,
    pub queue_length: Option<u64>,
    pub waiting_for_capacity: Option<u64>,
    pub running_requests: Option<u64>,
    pub num_gpu_blocks: Option<u64>,
    pub block_size: Option<u64>,
    pub avg_input_tokens: Option<f64>,
    pub avg_output_tokens: Option<f64>,
    pub prefix_cache_hit_rate: Option<f64>,
    pub marks: Marks,
    pub reasons: Reasons,
}

/// [`Latencies`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of Latencies")]
pub struct LatenciesRecord {
    pub sampled: Age,
    pub ttft: Option<HistogramRecord>,
    pub itl: Option<HistogramRecord>,
}

/// A [`LatencyHistogram`]: its finite bounds, and one count more than these.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of LatencyHistogram")]
pub struct HistogramRecord {
    pub bounds: Vec<f64>,
    pub counts: Vec<u64>,
}

/// [`LoraAdapters`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of LoraAdapters")]
pub struct LoraRecord {
    pub running: Vec<Box<str>>,
    pub waiting: Vec<Box<str>>,
    pub max: Option<u64>,
}

/// A [`LoadRow`], of a pod or of the whole model.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of LoadRow")]
pub struct LoadRecord {
    pub pod: Option<PodName>,
    pub rates: RatesRecord,
    pub reasons: Reasons,
}

/// [`LoadRates`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields of LoadRates")]
pub struct RatesRecord {
    pub requests: Option<f64>,
    pub prompt_tokens: Option<f64>,
    pub generation_tokens: Option<f64>,
    pub ttft_seconds: Option<f64>,
    pub ttft_count: Option<f64>,
    pub itl_seconds: Option<f64>,
    pub itl_count: Option<f64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

impl SampleRecord {
    /// A sample as it is at `written_at`.
    pub fn new(sample: &ModelSample, written_at: Tick) -> Self {
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
            absent_warning: sample.absent.warning().cloned(),
            lists_pods: sample.lists_pods,
            replicas: sample.replicas.iter().map(|r| ReplicaRecord::new(r, written_at)).collect(),
            load: of_model.into_iter().chain(of_pods).collect(),
            endpoint_picker: EndpointPickerRecord::new(&sample.endpoint_picker, written_at),
            supply: sample.supply.as_deref().map(|supply| SupplyRecord::new(supply, written_at)),
        }
    }

    /// The same without what says nothing any more after a restart: that a list is complete, latencies, the numbers of an
    /// endpoint picker, which change within seconds. A queue that was empty says nothing about the queue after a restart, and neither does a
    /// list without pods. The supply stays as the last one that was known.
    #[must_use]
    pub fn for_restart(mut self) -> Self {
        self.absent_warning = None;
        self.lists_pods = false;
        if let Some(picker) = &mut self.endpoint_picker {
            picker.reason = None;
            picker.load = None;
        }
        self.replicas.iter_mut().for_each(|row| row.latencies = None);
        self
    }

    /// The sample again, on a clock on which it was written at `written_at`. Numbers that cannot be true are not judged
    /// here.
    pub fn recall(self, written_at: Tick) -> ModelSample {
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
            Absent::Unknown(self.absent_warning.map(|warning| printable(&warning)))
        } else {
            Absent::Pods(self.unreached)
        };
        sample.lists_pods = self.lists_pods;
        if let Some(picker) = self.endpoint_picker {
            sample.endpoint_picker = picker.recall(written_at);
        }
        sample.supply = self.supply.map(|supply| Arc::new(supply.recall(written_at)));
        sample
    }
}

impl EndpointPickerRecord {
    fn new(picker: &EndpointPicker, written_at: Tick) -> Option<Self> {
        let age = |tick| Age::of(tick, written_at);
        match picker {
            EndpointPicker::None => None,
            EndpointPicker::Responding(load) => Some(Self {
                responded: Some(age(load.sampled_at)),
                reason: None,
                load: Some(EndpointPickerLoadRecord::new(load)),
            }),
            EndpointPicker::Silent { since, reason } => Some(Self {
                responded: since.map(age),
                reason: Some(Arc::clone(reason)),
                load: None,
            }),
        }
    }

    fn recall(self, written_at: Tick) -> EndpointPicker {
        let responded = self.responded.map(|age| age.tick(written_at));
        match (self.load, responded) {
            (Some(load), Some(sampled_at)) => {
                EndpointPicker::Responding(Arc::new(load.recall(sampled_at)))
            }
            _ => match self.reason {
                Some(reason) => EndpointPicker::silent(responded, printable(&reason)),
                None => {
                    EndpointPicker::silent(responded, "it has not been asked since the restart")
                }
            },
        }
    }
}

impl EndpointPickerLoadRecord {
    fn new(load: &EndpointPickerLoad) -> Self {
        let Saturation { effective, prefill, decode } = load.saturation;
        Self {
            flow_control: load.flow_control,
            queued_requests: load.queued_requests,
            queued_bytes: load.queued_bytes,
            running_requests: load.running_requests,
            in_flight_requests: load.in_flight_requests,
            in_flight_tokens: load.in_flight_tokens,
            saturation: [effective, prefill, decode],
            stale_endpoints: load.stale_endpoints,
            rejected_requests: load.rejected_requests,
        }
    }

    fn recall(self, sampled_at: Tick) -> EndpointPickerLoad {
        let [effective, prefill, decode] = self.saturation;
        EndpointPickerLoad {
            sampled_at,
            flow_control: self.flow_control,
            queued_requests: self.queued_requests,
            queued_bytes: self.queued_bytes,
            running_requests: self.running_requests,
            in_flight_requests: self.in_flight_requests,
            in_flight_tokens: self.in_flight_tokens,
            saturation: Saturation { effective, prefill, decode },
            stale_endpoints: self.stale_endpoints,
            rejected_requests: self.rejected_requests,
        }
    }
}

impl LatenciesRecord {
    fn new(latencies: &Latencies, written_at: Tick) -> Self {
        let histogram = |histogram: &LatencyHistogram| {
            let bounds = histogram.bounds().iter().copied().filter(|bound| bound.is_finite());
            HistogramRecord { bounds: bounds.collect(), counts: histogram.counts().to_vec() }
        };
        Self {
            sampled: Age::of(latencies.sampled_at, written_at),
            ttft: latencies.ttft.as_ref().map(histogram),
            itl: latencies.itl.as_ref().map(histogram),
        }
    }

    fn recall(self, written_at: Tick) -> Latencies {
        let histogram = |HistogramRecord { mut bounds, counts }: HistogramRecord| {
            bounds.push(f64::INFINITY);
            LatencyHistogram::new(bounds.into(), counts)
        };
        let (ttft, itl) = (self.ttft.and_then(histogram), self.itl.and_then(histogram));
        Latencies::new(self.sampled.tick(written_at), ttft, itl)
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
            latencies: row.latencies.as_ref().map(|it| LatenciesRecord::new(it, written_at)),
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
        row.latencies = self.latencies.map(|latencies| Arc::new(latencies.recall(written_at)));
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

/// Writes marks.
pub fn marks_of(marks: &[Mark], written_at: Tick) -> Marks {
    let record = |mark: &Mark| {
        (mark.field.as_str().into(), mark.backend.clone(), Age::of(mark.sampled_at, written_at))
    };
    marks.iter().map(record).collect()
}

/// Reads marks: the first of each field counts.
pub fn recall_marks(marks: Marks, written_at: Tick) -> Vec<Mark> {
    let mark = |(name, backend, sampled): (FieldName, BackendName, Age)| {
        Some(Mark { field: field(&name)?, backend, sampled_at: sampled.tick(written_at) })
    };
    let mut seen = FieldSet::EMPTY;
    let is_first = |mark: &Mark| {
        let is_first = !seen.contains(mark.field);
        seen.insert(mark.field);
        is_first
    };
    marks.into_iter().filter_map(mark).filter(is_first).collect()
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
    crate::text::printable(text).to_string().into()
}

impl Age {
    /// The age of a tick at `written_at`.
    pub fn of(tick: Tick, written_at: Tick) -> Self {
        tick.age(written_at).into()
    }

    /// The tick, given when it was written on the clock of this process.
    pub fn tick(self, written_at: Tick) -> Tick {
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
