//! Answers: JSON documents with their status, for results and for errors alike.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use collector_core::CollectError;
use serde::Serialize;

use crate::output::{ErrorDocument, to_json};

/// What a handler gives: an answer, or an error that is one already.
pub(super) type Answered = Result<Response, Response>;

/// When to ask again where the backend said nothing about it: about the time after which a breaker
/// tries again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A document.
pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (status, headers, to_json(document)).into_response()
}

/// An error document.
pub(super) fn fail(status: StatusCode, document: &ErrorDocument) -> Response {
    json(status, document)
}

/// A request that cannot be understood.
pub(super) fn bad_request(message: impl Into<String>) -> Response {
    fail(StatusCode::BAD_REQUEST, &ErrorDocument::new("BadRequest", message))
}

/// Why there is no reading.
pub(super) fn no_reading(error: &CollectError) -> Response {
    let status = match error {
        CollectError::Missing { .. } | CollectError::UnknownVariant { .. } => StatusCode::NOT_FOUND,
        CollectError::TooManyModels { .. } => StatusCode::TOO_MANY_REQUESTS,
        // Every other failure may pass: the old reading's, the backend's, and those to come.
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = fail(status, &ErrorDocument::of(error));
    if status != StatusCode::NOT_FOUND {
        let asked = match error {
            CollectError::Backend(error) => error.retry_after(),
            CollectError::Unavailable { cause, .. } => {
                cause.as_ref().and_then(|cause| cause.retry_after())
            }
            _ => None,
        };
        retry_after(&mut response, asked.unwrap_or(RETRY_AFTER));
    }
    response
}

/// The process is about to leave.
pub(super) fn leaving() -> Response {
    let document = ErrorDocument::new("Stopping", "the collector is stopping");
    let mut response = fail(StatusCode::SERVICE_UNAVAILABLE, &document);
    retry_after(&mut response, RETRY_AFTER);
    response
}

fn retry_after(response: &mut Response, after: Duration) {
    // Whole seconds are all the header can say; half a second is a second, not none.
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
}

/// Refuses a request with a body before reading any of it, and the connection with it: what follows
/// on it is that body.
pub(super) async fn limit_body(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if !has_body {
        return next.run(request).await;
    }
    let mut response = bad_request("no request here has a body");
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
