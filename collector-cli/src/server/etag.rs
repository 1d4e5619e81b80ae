// SPDX-License-Identifier: Apache-2.0
//! Entity tags: by them a client that has a reading learns that there is no other one.
//!
//! They are made of process, generation and status: what one replica has said proves nothing about another. What changes
//! with each answer, as ages do, is not in them, so they are weak.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher as _};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use collector_core::{CollectError, Part, Reading};

use super::process;

/// The mark of a weak entity tag.
const WEAK: &str = "W/";

/// About the longest tag: a string that grows is allocated several times.
const TAG_BYTES: usize = 64;

/// A weak entity tag, with its mark as one.
#[derive(PartialEq, Debug)]
pub(super) struct Tag(String);

impl Tag {
    /// The tag of a reading; `None` if no collector has published it.
    pub(super) fn of<T: Part>(reading: &Reading<T>) -> Option<Self> {
        let generation = reading.generation()?;
        let (process, status) = (process::name(), reading.freshness().as_str());
        let mut tag = String::with_capacity(TAG_BYTES);
        // Writing to a string cannot fail.
        let _ = write!(tag, "{WEAK}\"{process}-{generation}-{status}\"");
        Some(Self(tag))
    }

    /// The tag of all these together; `has_more`: others follow on the next page.
    pub(super) fn of_all<'a>(
        parts: impl Iterator<Item = ([&'a str; 3], PartState)>,
        has_more: bool,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        has_more.hash(&mut hasher);
        parts.for_each(|part| part.hash(&mut hasher));
        Self(format!("{WEAK}\"{}-{:016x}\"", process::name(), hasher.finish()))
    }

    /// Whether the client has what this tag is of.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let own = &self.0[WEAK.len()..];
        let known = headers.get_all(header::IF_NONE_MATCH).iter();
        let mut tags = known.filter_map(|value| value.to_str().ok()).flat_map(|it| it.split(','));
        tags.any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix(WEAK).unwrap_or(tag) == own
        })
    }

    fn value(self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.0).ok()
    }
}

/// The part of an answer that its tag depends on, which leaves out ages: the generation and the status, or the error's reason.
#[derive(PartialEq, Hash)]
pub(super) enum PartState {
    Reading(Option<u64>, &'static str),
    Error(String),
}

impl<T: Part> From<&Result<Reading<T>, CollectError>> for PartState {
    fn from(reading: &Result<Reading<T>, CollectError>) -> Self {
        match reading {
            Ok(reading) => Self::Reading(reading.generation(), reading.freshness().as_str()),
            Err(error) => Self::Error(error.reason_name()),
        }
    }
}

/// The answer with its tag, or 304 if the client has what the tag is of.
pub(super) fn unless_known(
    tag: Option<Tag>,
    headers: &HeaderMap,
    answer: impl FnOnce() -> Response,
) -> Response {
    let Some(tag) = tag else { return answer() };
    let mut response =
        if tag.is_known(headers) { StatusCode::NOT_MODIFIED.into_response() } else { answer() };
    if let Some(value) = tag.value() {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}
