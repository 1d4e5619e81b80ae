// SPDX-License-Identifier: Apache-2.0
//! Errors in the API server's words.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::kinds::Kind;

/// An error as the API server reports it: a `Status` object.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Option<Value>,
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub(super) fn forbidden(kind: Kind, verb: &str, namespace: Option<&str>) -> Self {
        let Kind { group, plural, .. } = kind;
        let place = match namespace {
            Some(namespace) => format!("in the namespace {namespace:?}"),
            None => "at the cluster scope".to_owned(),
        };
        let resource =
            if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        let message = format!(
            "{resource} is forbidden: User {USER:?} cannot {verb} resource {plural:?} in API group {group:?} {place}"
        );
        let mut error = Self::new(StatusCode::FORBIDDEN, "Forbidden", message);
        error.details = Some(json!({ "group": group, "kind": plural }));
        error
    }

    /// As [`forbidden`](Self::forbidden), for a path that belongs to no kind.
    pub(super) fn forbidden_path() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "Forbidden",
            format!("forbidden: User {USER:?} cannot get path"),
        )
    }

    pub(super) fn not_found(kind: Kind, name: &str) -> Self {
        let Kind { group, plural, .. } = kind;
        let resource =
            if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        let mut error =
            Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{resource} {name:?} not found"));
        error.details = Some(json!({ "name": name, "group": group, "kind": plural }));
        error
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    pub(super) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            "Internal error occurred: etcdserver: request timed out",
        )
    }

    /// The version is older than the history of changes.
    pub(super) fn version_too_old(version: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {version} ({oldest})"))
    }

    pub(super) fn continue_expired() -> Self {
        Self::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter.",
        )
    }

    fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// The version is newer than any change that this server knows.
    pub(super) fn version_too_large(version: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {version}, current: {current}");
        let mut error =
            Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", format!("Timeout: {message}"));
        let cause =
            json!({ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" });
        error.details = Some(json!({ "causes": [cause], "retryAfterSeconds": 1 }));
        error
    }

    /// The `Status` object.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}

/// Who every request is from: the tests have one client, and its token says nothing more.
const USER: &str = "system:serviceaccount:monitoring:collector";

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        json_response(self.code, self.status().to_string())
    }
}

/// The answer to a path that no API serves. It is not a `Status`: the API server writes plain text.
pub(super) fn unknown_path() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (StatusCode::NOT_FOUND, headers, "404 page not found\n").into_response()
}

/// The answer of a server that has no room for the request; plain text too.
pub(super) fn too_many_requests(retry_after_seconds: u32) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (header::RETRY_AFTER, retry_after_seconds.to_string()),
    ];
    (StatusCode::TOO_MANY_REQUESTS, headers, "Too many requests, please try again later.\n")
        .into_response()
}

pub(super) fn json_response(code: StatusCode, body: impl Into<Body>) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}
