// SPDX-License-Identifier: Apache-2.0
//! What a guard is set up with, what it is asked, what it answers, and what it has to know of models.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use collector_core::ModelRef;

use crate::limits::Limits;
use crate::refusal::{RETRY_AFTER, Reason, Refusal};

/// The times and limits of a guard.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// How long an answer is returned again without a request. Default 5 s.
    pub ttl: Duration,
    /// How long a caller waits. Default 1 s: a slow error makes KEDA scale to zero.
    pub answer_within: Duration,
    /// The maximum age of the newest sample of a selector. Default 2 min.
    pub max_age: Duration,
    /// The maximum age of an answer that is returned while the server does not respond. Default 2 min.
    pub max_stale: Duration,
    /// What a query over several models gets if one of them has no data. Default an error.
    pub partial: Partial,
    /// How long a model without data is missed by queries that had it. Default 5 min.
    pub vanished_after: Duration,
    /// The timeout of one request to the server. Default 10 s.
    pub timeout: Duration,
    /// The limits of a query.
    pub limits: Limits,
    /// The maximum number of remembered queries. Default 10 000.
    pub max_entries: usize,
    /// The maximum size of remembered answers in bytes. Default 64 MiB.
    pub max_bytes: usize,
    /// The maximum size of an answer that the guard computes itself, in bytes. Default 16 MiB. The server's are limited by
    /// [`Upstream`](crate::Upstream).
    pub max_answer_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(5),
            answer_within: Duration::from_secs(1),
            max_age: Duration::from_secs(120),
            max_stale: Duration::from_secs(120),
            partial: Partial::default(),
            vanished_after: Duration::from_secs(300),
            timeout: Duration::from_secs(10),
            limits: Limits::default(),
            max_entries: 10_000,
            max_bytes: 64 << 20,
            max_answer_bytes: 16 << 20,
        }
    }
}

/// What a query over several models gets if one of them has no data.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Partial {
    /// An error that names the model: the result would be too small.
    #[default]
    Error,
    /// The result, with a warning.
    Warn,
}

/// How a client wants an answer without samples to be treated.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Empty {
    /// As an error, unless the guard knows that it is 0.
    #[default]
    Error,
    /// As 0.
    Zero,
    /// Not at all: the server's answer is passed on.
    Pass,
}

/// An instant query of a client.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct InstantQuery {
    /// The query.
    pub query: String,
    /// The evaluation time in Unix seconds; `None`: now.
    pub time: Option<f64>,
    /// How an answer without samples is treated.
    pub empty: Empty,
    /// The maximum age of samples; `None`: that of the settings.
    pub max_age: Option<Duration>,
    /// All parameters of the request. Those that the guard does not set itself are passed on.
    pub parameters: Vec<(String, String)>,
    /// The headers of the client that are passed on.
    pub headers: Vec<(String, String)>,
}

/// The answer of a guard.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Reply {
    /// 200, 400, 422 or 503.
    pub status: u16,
    /// A JSON document.
    pub body: Bytes,
    /// The age of an answer from memory, and of the oldest sample of an answer from held series.
    pub age: Option<Duration>,
    /// It was answered from series that the program holds itself.
    pub is_local: bool,
    /// Why there is no answer.
    pub reason: Option<Reason>,
    /// When to retry.
    pub retry_after: Option<Duration>,
}

impl Reply {
    pub(super) fn given(body: Bytes, age: Option<Duration>) -> Self {
        Self { status: 200, body, age, is_local: false, reason: None, retry_after: None }
    }

    pub(super) fn refused(refusal: &Refusal) -> Self {
        let status = refusal.reason.status();
        Self {
            status,
            body: refusal.document().into(),
            age: None,
            is_local: false,
            reason: Some(refusal.reason),
            retry_after: (status == 503).then_some(RETRY_AFTER),
        }
    }
}

/// Returns what is known of models besides the series of the server, for the guard.
#[async_trait]
pub trait Models: Send + Sync + 'static {
    /// Looks up a model by its id.
    async fn find(&self, model: &str) -> Found;

    /// Returns whether model servers export this metric, for their own model. Default: no, and then nothing is known
    /// of its models.
    fn is_of_model_servers(&self, _metric: &str) -> bool {
        false
    }

    /// Returns whether a model is known to have no pods, because a list of all pods has none of it. Default: no.
    async fn has_no_pods(&self, _model: &ModelRef) -> bool {
        false
    }

    /// Returns the models that have pods of which each exports this metric, if that was known within this time.
    /// Default: none.
    fn with_pods(&self, _metric: &str, _within: Duration) -> Vec<ModelRef> {
        Vec::new()
    }
}

/// The result of [`Models::find`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// The model exists.
    Known,
    /// It does not; these are the nearest names.
    Unknown(Vec<String>),
    /// The look-up failed.
    CannotTell,
}
