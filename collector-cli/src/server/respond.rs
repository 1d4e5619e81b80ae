// SPDX-License-Identifier: Apache-2.0
//! Answers: JSON documents with their status, for results and for errors alike.

use std::convert::Infallible;
use std::iter;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use collector_core::CollectError;
use futures_util::stream;
use serde::Serialize;

use super::gzip::{self, Gzip};
use super::read;
use crate::output::{ErrorBody, ErrorDocument, SCHEMA_VERSION, to_json};

/// The value of `Retry-After` if the backend gave none: about the time after which a breaker tries again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Shorter lists are not compressed.
const MIN_COMPRESSED_BYTES: usize = 4096;

/// The result of a handler.
pub(super) type Answered = Result<Response, Refusal>;

/// A document that answers the question.
pub(super) fn found(document: &impl Serialize) -> Response {
    json(StatusCode::OK, document)
}

/// A document that is JSON already.
pub(super) fn found_json(document: String) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], document).into_response()
}

/// A list document of items that are JSON already. They are written one by one as the client takes
/// them: a list of everything is long, and clients that do not read it are many. A long one is compressed for clients
/// that ask for it.
pub(super) fn list(
    items: impl Iterator<Item = String> + Send + 'static,
    next: Option<String>,
    headers: &HeaderMap,
) -> Response {
    let separated = items.enumerate().map(|(index, item)| {
        let separator = if index == 0 { "" } else { "," };
        format!("{separator}{item}")
    });
    let start = format!("{{\"schemaVersion\":{SCHEMA_VERSION},\"items\":[");
    let end = match next {
        None => "]}".to_owned(),
        Some(next) => format!("],\"after\":{}}}", to_json(&next)),
    };
    let mut parts = iter::once(start).chain(separated).chain(iter::once(end));
    let mut first = String::new();
    while first.len() < MIN_COMPRESSED_BYTES {
        let Some(part) = parts.next() else {
            return ([(header::CONTENT_TYPE, "application/json")], first).into_response();
        };
        first.push_str(&part);
    }
    let parts = iter::once(first).chain(parts);
    let headers_of_list =
        [(header::CONTENT_TYPE, "application/json"), (header::VARY, "accept-encoding")];
    if !gzip::is_accepted(headers) {
        return (headers_of_list, streamed(parts)).into_response();
    }
    let body = Body::from_stream(stream::iter(Gzip::new(parts).map(Ok::<_, Infallible>)));
    (headers_of_list, [(header::CONTENT_ENCODING, "gzip")], body).into_response()
}

/// A body of parts that are made when the client has taken those before.
pub(super) fn streamed(parts: impl Iterator<Item = String> + Send + 'static) -> Body {
    Body::from_stream(stream::iter(parts.map(Ok::<_, Infallible>)))
}

/// A document.
pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (status, headers, to_json(document)).into_response()
}

/// Why a request has no result; becomes an error document.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    document: Box<ErrorDocument>,
    /// Set when the same request may succeed later.
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal that stays one until the request changes.
    pub(super) fn new(status: StatusCode, document: ErrorDocument) -> Self {
        Self { status, document: Box::new(document), retry_after: None }
    }

    /// A request that cannot be understood.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        let document = ErrorDocument::new("BadRequest", message);
        Self::new(StatusCode::BAD_REQUEST, document)
    }

    /// A refusal of a request that may succeed later.
    pub(super) fn later(status: StatusCode, document: ErrorDocument) -> Self {
        Self { retry_after: Some(RETRY_AFTER), ..Self::new(status, document) }
    }

    /// The process is about to exit.
    pub(super) fn leaving() -> Self {
        let document = ErrorDocument::new("Stopping", "the collector is stopping");
        Self::later(StatusCode::SERVICE_UNAVAILABLE, document)
    }

    /// The error, as an item of a list.
    pub(super) fn into_body(self) -> ErrorBody {
        self.document.into_body()
    }
}

impl From<CollectError> for Refusal {
    fn from(error: CollectError) -> Self {
        let (status, retry_after) = match &error {
            CollectError::Missing { .. } | CollectError::UnknownVariant { .. } => {
                (StatusCode::NOT_FOUND, None)
            }
            CollectError::TooManyModels { .. } => (StatusCode::TOO_MANY_REQUESTS, Some(None)),
            CollectError::Backend(error) => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(error.retry_after()))
            }
            CollectError::Unavailable { cause, .. } => {
                let asked = cause.as_ref().and_then(|cause| cause.retry_after());
                (StatusCode::SERVICE_UNAVAILABLE, Some(asked))
            }
            _ => (StatusCode::SERVICE_UNAVAILABLE, Some(None)),
        };
        Self {
            retry_after: retry_after.map(|asked| asked.unwrap_or(RETRY_AFTER)),
            ..Self::new(status, ErrorDocument::of(&error))
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &*self.document);
        if let Some(after) = self.retry_after {
            // Whole seconds are all the header can say; half a second is a second, not none.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

/// Refuses a request with a body before reading any of it, and the connection with it: what follows
/// on it is that body.
pub(super) async fn limit_body(request: Request, next: Next) -> Response {
    let may_have_one = request.method() == Method::POST && request.uri().path() == read::PATH;
    if !has_body(request.headers()) || may_have_one {
        return next.run(request).await;
    }
    let mut response =
        Refusal::bad_request("only requests of /api/v1/read have a body").into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Whether a request with these headers has a body.
pub(super) fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
}
