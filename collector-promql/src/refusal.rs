//! Why a query has no answer.

use std::time::Duration;

use crate::answer;

/// Why a query has no answer, as `X-Collector-Reason` says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The query cannot be read, or exceeds a limit.
    BadQuery,
    /// Nothing matches a selector, and nothing shows that this is a 0.
    Missing,
    /// What a selector matches is too old.
    Stale,
    /// The server does not answer, and what is remembered is too old.
    Backend,
    /// A part of what the answer would be made of is not known.
    Partial,
    /// Nothing has answered since the start.
    Starting,
    /// No backend knows the model that a selector names.
    UnknownModel,
    /// The answer is larger than may be kept.
    TooLarge,
}

impl Reason {
    /// The word of `X-Collector-Reason`, and of the label `reason`.
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
        }
    }

    /// The status of the answer: clients of the field read the texts of 400, 422 and 503 alone.
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

/// When to ask again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Refusal {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    /// The refusal as the document of an error.
    pub fn document(&self) -> Vec<u8> {
        answer::of_error(self.reason.error_type(), &self.text)
    }
}
