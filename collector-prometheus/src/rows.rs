//! The rows of an answer that belong to a look, in the least memory: all others are dropped as they
//! are read.

use std::borrow::Cow;

use collector_core::{Namespace, PodName};

use crate::answer::Row;
use crate::memory::CacheConfig;
use crate::plan::QueryKind;
use crate::shard::Asked;

/// A row of a model that was asked for.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Its position in [`Asked`].
    pub(crate) model: usize,
    pub(crate) pod: Option<PodName>,
    /// The evaluation time.
    pub(crate) time: f64,
    pub(crate) value: f64,
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
    Samples(Vec<Sample>),
    Engines(Vec<EngineConfig>),
}

impl Rows {
    /// None yet, of the form that `kind` has.
    pub(crate) fn of(kind: QueryKind) -> Self {
        match kind {
            QueryKind::CacheConfig => Self::Engines(Vec::new()),
            _ => Self::Samples(Vec::new()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Samples(samples) => samples.len(),
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
                let Some(model) =
                    labels.model_name.as_deref().and_then(|model| asked.position(namespace, model))
                else {
                    return;
                };
                samples.push(Sample {
                    model,
                    pod: labels.pod().map(PodName::from),
                    time: row.time,
                    value: row.value,
                });
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
