//! The rows of an answer that belong to a look, in the least memory: all others are dropped as they
//! are read.

use std::borrow::Cow;

use collector_core::{Namespace, PodName};

use crate::answer::Row;
use crate::memory::CacheConfig;
use crate::plan::QueryKind;
use crate::shard::Asked;

/// What the name of a pod takes, more or less.
const POD_BYTES: usize = 32;

/// A row of a model that was asked for.
#[derive(Debug)]
pub(crate) struct Sample<'a> {
    /// Its position in [`Asked`].
    pub(crate) model: usize,
    pub(crate) pod: Option<&'a str>,
    /// The evaluation time.
    pub(crate) time: f64,
    pub(crate) value: f64,
}

/// Rows of models that were asked for, with the names of their pods in one text.
#[derive(Debug)]
pub(crate) struct Samples {
    kept: Vec<Kept>,
    pods: String,
}

#[derive(Debug)]
struct Kept {
    model: usize,
    /// Where the pod ends in the text; it begins where that of the row before ends.
    pod_end: usize,
    time: f64,
    value: f64,
}

impl Samples {
    /// The rows, in the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Sample<'_>> {
        let mut start = 0;
        self.kept.iter().map(move |Kept { model, pod_end, time, value }| {
            let pod = &self.pods[start..*pod_end];
            start = *pod_end;
            let pod = (!pod.is_empty()).then_some(pod);
            Sample { model: *model, pod, time: *time, value: *value }
        })
    }

    fn push(&mut self, model: usize, row: &Row<'_>) {
        self.pods.push_str(row.labels.pod().unwrap_or_default());
        let pod_end = self.pods.len();
        self.kept.push(Kept { model, pod_end, time: row.time, value: row.value });
    }
}

/// A row of `vllm:cache_config_info`.
#[derive(Debug)]
pub(crate) struct EngineConfig {
    pub(crate) namespace: Namespace,
    pub(crate) pod: PodName,
    pub(crate) engine: Box<str>,
    pub(crate) config: CacheConfig,
    /// How many series say so; more than one are duplicates.
    pub(crate) copies: f64,
}

/// The rows of one answer that belong to the models of a look.
#[derive(Debug)]
pub(crate) enum Rows {
    Samples(Samples),
    Engines(Vec<EngineConfig>),
}

impl Rows {
    /// None yet, of the form that `kind` has, and room for so many.
    pub(crate) fn of(kind: QueryKind, likely: usize) -> Self {
        match kind {
            QueryKind::CacheConfig => Self::Engines(Vec::new()),
            _ => Self::Samples(Samples {
                kept: Vec::with_capacity(likely),
                pods: String::with_capacity(likely * POD_BYTES),
            }),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Samples(samples) => samples.kept.len(),
            Self::Engines(engines) => engines.len(),
        }
    }

    /// Keeps a row if its model was asked for.
    pub(crate) fn push(&mut self, row: &Row<'_>, asked: &Asked) {
        let labels = &row.labels;
        let Some(namespace) = labels.namespace.as_deref() else {
            return;
        };
        match self {
            Self::Samples(samples) => {
                let Some(name) = labels.model_name.as_deref() else {
                    return;
                };
                // Most rows are of the same model as the one before.
                let last = samples.kept.last().map(|last| last.model);
                let model = last
                    .filter(|last| asked.is_at(*last, namespace, name))
                    .or_else(|| asked.position(namespace, name));
                if let Some(model) = model {
                    samples.push(model, row);
                }
            }
            Self::Engines(engines) => {
                let (Some(namespace), Some(pod)) = (asked.namespace(namespace), labels.pod())
                else {
                    return;
                };
                // The text may be "None", while an engine has not measured its memory yet.
                let number = |text: &Option<Cow<'_, str>>| text.as_ref()?.parse().ok();
                engines.push(EngineConfig {
                    namespace,
                    pod: pod.into(),
                    engine: labels.engine.as_deref().unwrap_or_default().into(),
                    config: CacheConfig {
                        num_gpu_blocks: number(&labels.num_gpu_blocks),
                        block_size: number(&labels.block_size),
                    },
                    copies: row.value,
                });
            }
        }
    }
}
