//! A record read again: what is told twice counts once, and what cannot be true is unknown.

use std::sync::Arc;
use std::time::Duration;

use collector_core::raw::{SourceAnswer, SourceState};
use collector_core::{
    Absent, FieldReasons, LoadRow, LoraAdapters, Mark, ModelRef, ModelSample, Outcome, PodName,
    ReplicaMetrics, ReplicaState, Tick, sanitize,
};

use crate::publish::sane::{keep_first, keep_what_can_be};

use super::{
    FieldRecord, LoadRecord, LoraRecord, MarkRecord, ModelRecord, OutcomeRecord, ReplicaRecord,
    SampleRecord, SourceRecord,
};

/// One model as it comes out of a snapshot.
#[derive(Debug)]
pub(in crate::snapshot) struct Remembered {
    pub(in crate::snapshot) model: ModelRef,
    /// For how long nobody had read it when the snapshot was written.
    pub(in crate::snapshot) unread: Duration,
    pub(in crate::snapshot) states: Vec<SourceState>,
}

impl ModelRecord {
    /// The model again, on a clock on which the snapshot was written at `written_at`. `None` when it
    /// is beyond the limits.
    pub(in crate::snapshot) fn recall(self, written_at: Tick) -> Option<Remembered> {
        if !self.is_within_limits() {
            return None;
        }
        let states = self.sources.into_iter().map(|source| source.recall(written_at));
        let mut states: Vec<SourceState> = states.collect();
        keep_first(&mut states, |state| state.backend.clone());
        let model = ModelRef::new(self.model, self.namespace);
        Some(Remembered { model, unread: self.unread.into(), states })
    }
}

impl SourceRecord {
    fn recall(self, written_at: Tick) -> SourceState {
        let mut departed: Vec<(PodName, Tick)> =
            self.departed.into_iter().map(|(pod, left)| (pod, left.tick(written_at))).collect();
        // It is searched by halves.
        departed.sort_unstable();
        departed.dedup_by(|(a, _), (b, _)| a == b);
        SourceState {
            backend: self.backend,
            outcome: match self.outcome {
                OutcomeRecord::Found => Outcome::Found,
                OutcomeRecord::Missing => Outcome::Missing,
                OutcomeRecord::Failed => Outcome::Failed,
            },
            // No look of this process: whatever ttl counts from here is over, so that the value is
            // last-known-good and due at once.
            ended_at: Tick::MIN,
            answered_at: Some(self.answered.tick(written_at)),
            as_of: Some(self.as_of.tick(written_at)),
            answer: Some(SourceAnswer {
                sample: Arc::new(self.sample.recall(written_at)),
                arrived_at: self.arrived.tick(written_at),
                load_marks: recall_marks(self.load_marks, written_at),
                departed,
                absent: Vec::new(),
            }),
            error: None,
            nearest: None,
        }
    }
}

impl SampleRecord {
    fn recall(self, written_at: Tick) -> ModelSample {
        let replicas = self.replicas.into_iter().map(|row| row.recall(written_at));
        let mut sample = ModelSample::new(self.as_of.tick(written_at), replicas.collect());
        let load = |row: LoadRecord| {
            let mut load = LoadRow::new(row.pod, row.rates);
            load.reasons = recall_reasons(row.reasons);
            load
        };
        sample.load = self.load.into_iter().map(load).collect();
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
        keep_what_can_be(&mut sample);
        sample
    }
}

impl ReplicaRecord {
    fn recall(self, written_at: Tick) -> ReplicaMetrics {
        let mut row = ReplicaMetrics::new(self.pod, self.sampled.tick(written_at));
        row.engine = self.engine;
        row.role = self.role;
        row.lora_adapters = self.lora.map(|lora| {
            let LoraRecord { running, waiting, max } = lora;
            Box::new(LoraAdapters { running, waiting, max: count(max) })
        });
        if self.sleeping {
            row.state = ReplicaState::Sleeping;
        }
        row.servers = self.servers;
        row.kv_capacity_tokens = self.kv_capacity_tokens;
        row.kv_tokens_in_use = self.kv_tokens_in_use;
        row.kv_cache_usage = self.kv_cache_usage;
        row.queue_length = self.queue_length;
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

fn recall_reasons(reasons: Vec<(FieldRecord, Arc<str>)>) -> FieldReasons {
    reasons.into_iter().map(|(FieldRecord(field), reason)| (field, printable(&reason))).collect()
}

/// A text that goes into terminals and logs, whoever wrote the file.
fn printable(text: &str) -> Arc<str> {
    collector_core::text::printable(text).to_string().into()
}

fn recall_marks(marks: Vec<MarkRecord>, written_at: Tick) -> Vec<Mark> {
    let mark = |MarkRecord { field: FieldRecord(field), backend, sampled }| Mark {
        field,
        backend,
        sampled_at: sampled.tick(written_at),
    };
    let mut marks: Vec<Mark> = marks.into_iter().map(mark).collect();
    keep_first(&mut marks, |mark| mark.field);
    marks
}

fn count(value: Option<u64>) -> Option<u64> {
    sanitize::count(value? as f64).ok()
}
