// SPDX-License-Identifier: Apache-2.0
//! Why a backend could not answer, in a form that says whether trying again can help.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::model::BackendName;

/// The kind of failure. The engine acts on this, never on the text of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The host name has no address.
    Dns,
    /// No connection: refused, unreachable, reset before it was of use.
    Connect,
    /// The TLS handshake failed: a certificate, a name, a protocol version.
    Tls,
    /// The time ran out.
    Timeout,
    /// The connection ended before the answer did.
    Disconnected,
    /// 401: the credentials are missing or wrong.
    Unauthorized,
    /// 403: you may not.
    Forbidden,
    /// 404, or what is no such server at all.
    NotFound,
    /// The server understood the request and refused it: 400, 422 and their like.
    Rejected,
    /// The server sent us elsewhere, and following is not allowed.
    Redirected,
    /// 429.
    RateLimited,
    /// 503, or a query that the server gave up on.
    Overloaded,
    /// Another 5xx.
    ServerError,
    /// An answer that is not what the protocol says.
    BadAnswer,
    /// An answer beyond a limit of ours.
    TooLarge,
    /// Something that the user set cannot work, and it was only found now.
    Configuration,
    /// Series of the model exist several times over, in clusters that nothing distinguishes.
    Ambiguous,
    /// The backend cannot do this at all.
    Unsupported,
    /// Not sent: the last tries failed and the next one is not due yet.
    CircuitOpen,
    /// The backend's code panicked.
    Panicked,
    /// The collector is stopping.
    Stopped,
    /// A recording has nothing about that time.
    NotRecorded,
}

/// What to do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// The same request may succeed later.
    Retry,
    /// The same request fails until the configuration or the server is changed.
    GiveUp,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Disconnected,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Rejected,
        Self::Redirected,
        Self::RateLimited,
        Self::Overloaded,
        Self::ServerError,
        Self::BadAnswer,
        Self::TooLarge,
        Self::Configuration,
        Self::Ambiguous,
        Self::Unsupported,
        Self::CircuitOpen,
        Self::Panicked,
        Self::Stopped,
        Self::NotRecorded,
    ];

    /// Try again later, or give up. No wildcard arm: a new kind must choose.
    pub const fn advice(self) -> Advice {
        match self {
            Self::Dns
            | Self::Connect
            | Self::Timeout
            | Self::Disconnected
            | Self::RateLimited
            | Self::Overloaded
            | Self::ServerError => Advice::Retry,
            Self::Tls
            | Self::Unauthorized
            | Self::Forbidden
            | Self::NotFound
            | Self::Rejected
            | Self::Redirected
            | Self::BadAnswer
            | Self::TooLarge
            | Self::Configuration
            | Self::Ambiguous
            | Self::Unsupported
            | Self::CircuitOpen
            | Self::Panicked
            | Self::Stopped
            | Self::NotRecorded => Advice::GiveUp,
        }
    }

    /// The value of the label `reason` in self-metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Disconnected => "disconnected",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
            Self::Redirected => "redirected",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::BadAnswer => "bad_answer",
            Self::TooLarge => "too_large",
            Self::Configuration => "configuration",
            Self::Ambiguous => "ambiguous",
            Self::Unsupported => "unsupported",
            Self::CircuitOpen => "circuit_open",
            Self::Panicked => "panicked",
            Self::Stopped => "stopped",
            Self::NotRecorded => "not_recorded",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "the host name does not resolve",
            Self::Connect => "cannot connect",
            Self::Tls => "TLS failed",
            Self::Timeout => "timed out",
            Self::Disconnected => "the connection broke before the answer was complete",
            Self::Unauthorized => "not authorized (401)",
            Self::Forbidden => "forbidden (403)",
            Self::NotFound => "not found (404)",
            Self::Rejected => "the server refused the request",
            Self::Redirected => "the server redirects elsewhere",
            Self::RateLimited => "too many requests (429)",
            Self::Overloaded => "the server is overloaded",
            Self::ServerError => "the server failed",
            Self::BadAnswer => "unexpected response",
            Self::TooLarge => "the answer is too large",
            Self::Configuration => "invalid configuration",
            Self::Ambiguous => "the model is ambiguous",
            Self::Unsupported => "this backend cannot do that",
            Self::CircuitOpen => "not asked again yet, because the last tries failed",
            Self::Panicked => "the backend's code panicked",
            Self::Stopped => "the collector is stopping",
            Self::NotRecorded => "not recorded",
        })
    }
}

/// What a backend was doing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Operation {
    /// [`Backend::fetch`](crate::Backend::fetch).
    Fetch,
    /// [`Backend::list_models`](crate::Backend::list_models).
    ListModels,
    /// [`Backend::probe`](crate::Backend::probe).
    Probe,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fetch => "fetching metrics",
            Self::ListModels => "listing models",
            Self::Probe => "probing",
        })
    }
}

/// A backend could not answer.
///
/// The message says what failed, where, why, and what to do; it never holds a secret:
/// `prometheus: fetching metrics from http://prometheus:9090: cannot connect: connection refused;
/// is the server running, and is prometheus.url right?`
#[derive(Debug)]
pub struct BackendError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    operation: Operation,
    backend: BackendName,
    subject: String,
    detail: Cow<'static, str>,
    remedy: Cow<'static, str>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl BackendError {
    /// An error of `backend` while doing `operation` with `subject`: a model, a URL without its
    /// credentials.
    pub fn new(
        kind: ErrorKind,
        backend: BackendName,
        operation: Operation,
        subject: impl Into<String>,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            operation,
            backend,
            subject: subject.into(),
            detail: Cow::Borrowed(""),
            remedy: Cow::Borrowed(""),
            retry_after: None,
            source: None,
        }))
    }

    /// Adds the cause in words: printable, short, without secrets.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = detail.into();
        self
    }

    /// Adds what the user should do about it.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.0.remedy = remedy.into();
        self
    }

    /// Adds how long the server asked us to wait.
    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Adds the underlying error. Its text is not part of the message.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying again can help.
    pub fn advice(&self) -> Advice {
        self.0.kind.advice()
    }

    /// The backend that failed.
    pub fn backend(&self) -> &BackendName {
        &self.0.backend
    }

    /// What the backend was doing.
    pub fn operation(&self) -> Operation {
        self.0.operation
    }

    /// What it was doing that with: a model, a URL without its credentials.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The cause in words; empty when the kind is enough.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What the user should do; empty when nothing helps but waiting.
    pub fn remedy(&self) -> &str {
        &self.0.remedy
    }

    /// How long the server asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, operation, backend, subject, detail, remedy, .. } = &*self.0;
        write!(f, "{backend}: {operation} from {subject}: {kind}")?;
        if !detail.is_empty() {
            write!(f, ": {detail}")?;
        }
        if !remedy.is_empty() {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl Error for BackendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_what_where_why_and_what_to_do() {
        let error = BackendError::new(
            ErrorKind::Connect,
            "prometheus".into(),
            Operation::Fetch,
            "http://prometheus:9090",
        )
        .with_detail("connection refused")
        .with_remedy("is the server running?");
        assert_eq!(
            error.to_string(),
            "prometheus: fetching metrics from http://prometheus:9090: cannot connect: \
             connection refused; is the server running?"
        );
    }

    #[test]
    fn a_result_with_it_stays_small() {
        assert!(size_of::<BackendError>() <= 64);
    }
}
