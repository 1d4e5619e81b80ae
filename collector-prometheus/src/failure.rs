// SPDX-License-Identifier: Apache-2.0
//! Why a request failed: its kind, and the message for the user.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{BackendError, ErrorKind, Operation};
use collector_transport::Cause;

/// A failed request. It can be cloned, because many models may share one failure.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    /// The cause: printable, short, without secrets.
    pub(crate) detail: String,
    pub(crate) remedy: Cow<'static, str>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) split: Split,
    /// How far the request got.
    pub(crate) stage: Stage,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// Whether a smaller query may succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Split {
    /// Size is not the reason.
    No,
    /// The server has a limit on samples: split until it fits.
    UntilItFits,
    /// The server ran out of time: split once only.
    Once,
}

/// How far a request got before it failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Stage {
    /// It was not sent.
    Unsent,
    /// Resolving, connecting or shaking hands.
    Connecting,
    /// Waiting for the head of the answer, or reading the answer.
    Answering,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            remedy: Cow::Borrowed(""),
            retry_after: None,
            split: Split::No,
            stage: Stage::Answering,
            source: None,
        }
    }

    /// The server answered something that cannot be used.
    pub(crate) fn bad_answer(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadAnswer, detail)
    }

    pub(crate) fn timeout(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Timeout, detail)
    }

    pub(crate) fn with_remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = remedy.into();
        self
    }

    pub(crate) fn with_split(mut self, split: Split) -> Self {
        self.split = split;
        self
    }

    pub(crate) fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    pub(crate) fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Describes why a connection ended.
    pub(crate) fn of(cause: Cause) -> Self {
        Self::new(cause.kind, cause.detail).with_remedy(cause.remedy)
    }

    /// The engine granted no permit.
    pub(crate) fn not_permitted(error: BackendError) -> Self {
        let mut failure =
            Self::new(error.kind(), "").with_remedy(error.remedy().to_owned()).at(Stage::Unsent);
        failure.retry_after = error.retry_after();
        failure.with_source(error)
    }

    /// Returns the failure as the reason of an unknown field.
    pub(crate) fn reason(&self) -> String {
        if self.detail.is_empty() {
            self.kind.to_string()
        } else {
            format!("{}: {}", self.kind, self.detail)
        }
    }

    /// Returns whether other requests to the same server would fail in the same way, so that they are not
    /// worth sending.
    pub(crate) fn is_of_the_server(&self) -> bool {
        match self.kind {
            ErrorKind::Dns
            | ErrorKind::Connect
            | ErrorKind::Tls
            | ErrorKind::Unauthorized
            | ErrorKind::Forbidden
            | ErrorKind::NotFound
            | ErrorKind::Redirected
            | ErrorKind::RateLimited
            | ErrorKind::Configuration
            | ErrorKind::Unsupported
            | ErrorKind::CircuitOpen
            | ErrorKind::Stopped => true,
            ErrorKind::Timeout => self.stage <= Stage::Connecting,
            _ => false,
        }
    }

    /// Converts into the error that the backend returns.
    pub(crate) fn into_error(self, operation: Operation, url: &str) -> BackendError {
        let mut error = BackendError::new(self.kind, crate::NAME.into(), operation, url)
            .with_detail(self.detail)
            .with_remedy(self.remedy);
        if let Some(after) = self.retry_after {
            error = error.with_retry_after(after);
        }
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}
