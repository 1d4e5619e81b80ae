// SPDX-License-Identifier: Apache-2.0
//! Why a query has no answer.

use std::time::Duration;

use crate::answer;

/// Why a query has no answer; the header `X-Collector-Reason` has it too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The query is invalid or exceeds a limit.
    BadQuery,
    /// A selector matches no series, and it is not known that this means 0.
    Missing,
    /// The samples of a selector are too old.
    Stale,
    /// The server does not respond, and the last answer is too old.
    Backend,
    /// A part of the query has no data.
    Partial,
    /// The server has not responded since the start.
    Starting,
    /// No backend knows the model that a selector names.
    UnknownModel,
    /// The answer exceeds the limit.
    TooLarge,
    /// Only a server could answer the query, and none is configured.
    NoServer,
}

impl Reason {
    /// Returns the value of `X-Collector-Reason` and of the label `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadQuery => "bad_query",
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::Backend => "backend",
            Self::Partial => "partial",
            Self::Starting => "starting",
            Self::UnknownModel => "unknown_model",
            Self::TooLarge => "too_large",
            Self::NoServer => "no_server",
        }
    }

    /// Returns the HTTP status. Clients show the texts of 400, 422 and 503 only.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadQuery => 400,
            Self::UnknownModel => 422,
            _ => 503,
        }
    }

    const fn error_type(self) -> &'static str {
        match self {
            Self::BadQuery => "bad_data",
            Self::UnknownModel => "execution",
            _ => "unavailable",
        }
    }
}

/// A query without an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// What is wrong and what to do, for people.
    pub text: String,
}

/// When clients should retry.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Refusal {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    /// Returns the document of the error.
    pub fn document(&self) -> Vec<u8> {
        answer::of_error(self.reason.error_type(), &self.text)
    }
}
