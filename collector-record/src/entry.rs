// SPDX-License-Identifier: Apache-2.0
//! The entries of a recording: a JSON document each. These types are the format.

use std::sync::Arc;
use std::time::Duration;

use collector_core::raw::wire::{Age, SampleRecord};
use collector_core::text::printable;
use collector_core::{
    Answer, BackendError, BackendName, ErrorKind, KnownModel, ModelRef, Operation, Supports, Tick,
};
use serde::{Deserialize, Serialize};

use crate::texts::{redact_error, redact_sample};

/// One line of a block. Times are nanoseconds since the session began.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Entry {
    /// A process begins to record.
    Session(SessionRecord),
    /// What a source said about a model.
    Answer { at: u64, source: u32, model: ModelRef, answer: AnswerRecord },
    /// Which models a source listed.
    Models { at: u64, source: u32, models: ModelsRecord },
    /// A source that pushes has tried everything once.
    Cycle { at: u64, source: u32 },
    /// The process ended the recording.
    End { at: u64 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionRecord {
    /// When it began, in nanoseconds since the Unix epoch.
    pub(crate) began: u64,
    /// The version of the program that records.
    pub(crate) version: String,
    pub(crate) anonymized: bool,
    pub(crate) sources: Vec<SourceRecord>,
}

/// A backend by its name, and what it can do. No address and no credential.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SourceRecord {
    pub(crate) name: BackendName,
    pub(crate) load: bool,
    pub(crate) load_per_pod: bool,
}

impl SourceRecord {
    pub(crate) fn new(name: &str, supports: Supports) -> Self {
        Self { name: name.into(), load: supports.load, load_per_pod: supports.load_per_pod }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum AnswerRecord {
    Found(Box<SampleRecord>),
    #[serde(rename_all = "camelCase")]
    Missing {
        as_of: Age,
        last_seen: Option<Age>,
    },
    /// `whole`: the fetch failed as a whole.
    Failed {
        error: ErrorRecord,
        whole: bool,
    },
    /// An answer of a kind, or of a size, that this version does not record.
    Unrecorded {
        reason: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ModelsRecord {
    Listed(Vec<(ModelRef, Option<u32>)>),
    Failed(ErrorRecord),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorRecord {
    pub(crate) kind: String,
    pub(crate) subject: String,
    pub(crate) detail: String,
    pub(crate) remedy: String,
    pub(crate) retry_after: Option<u64>,
}

impl AnswerRecord {
    pub(crate) fn new(answer: &Answer, now: Tick) -> Self {
        match answer {
            Answer::Found(sample) => {
                let mut sample = Box::new(SampleRecord::new(sample, now));
                redact_sample(&mut sample);
                Self::Found(sample)
            }
            Answer::Missing { as_of, last_seen } => Self::Missing {
                as_of: Age::of(*as_of, now),
                last_seen: last_seen.map(|seen| Age::of(seen, now)),
            },
            Answer::Failed(error) => Self::failed(error, false),
            _ => Self::Unrecorded { reason: "a kind of answer that cannot be recorded".into() },
        }
    }

    pub(crate) fn failed(error: &BackendError, whole: bool) -> Self {
        Self::Failed { error: ErrorRecord::new(error), whole }
    }

    /// The answer of a source again, on a clock on which it came at `at`.
    pub(crate) fn recall(self, source: &BackendName, at: Tick) -> Answer {
        match self {
            Self::Found(sample) => Answer::Found(sample.recall(at)),
            Self::Missing { as_of, last_seen } => Answer::Missing {
                as_of: as_of.tick(at),
                last_seen: last_seen.map(|seen| seen.tick(at)),
            },
            Self::Failed { error, .. } => Answer::Failed(error.recall(source, Operation::Fetch)),
            Self::Unrecorded { reason } => {
                let name = source.clone();
                let subject = "the recording";
                let error =
                    BackendError::new(ErrorKind::NotRecorded, name, Operation::Fetch, subject);
                Answer::Failed(error.with_detail(printable(&reason).to_string()))
            }
        }
    }
}

impl ModelsRecord {
    pub(crate) fn new(listed: &Result<Vec<KnownModel>, BackendError>) -> Self {
        match listed {
            Ok(models) => Self::Listed(
                models.iter().map(|known| (known.model.clone(), known.replicas)).collect(),
            ),
            Err(error) => Self::Failed(ErrorRecord::new(error)),
        }
    }
}

impl ErrorRecord {
    fn new(error: &BackendError) -> Self {
        let mut record = Self {
            kind: error.kind().as_str().to_owned(),
            subject: error.subject().to_owned(),
            detail: error.detail().to_owned(),
            remedy: error.remedy().to_owned(),
            retry_after: error
                .retry_after()
                .map(|after| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)),
        };
        redact_error(&mut record);
        record
    }

    /// The same error. A kind that this version does not know is an unexpected response.
    pub(crate) fn recall(self, source: &BackendName, operation: Operation) -> BackendError {
        let kind = ErrorKind::ALL.iter().find(|kind| kind.as_str() == self.kind);
        let kind = kind.copied().unwrap_or(ErrorKind::BadAnswer);
        let text = |text: &str| printable(text).to_string();
        let error = BackendError::new(kind, source.clone(), operation, text(&self.subject))
            .with_detail(text(&self.detail))
            .with_remedy(text(&self.remedy));
        match self.retry_after {
            Some(after) => error.with_retry_after(Duration::from_nanos(after)),
            None => error,
        }
    }
}

/// What can stand in for a text that may hold a name.
pub(crate) fn removed() -> Arc<str> {
    "(text removed by --anonymize)".into()
}
