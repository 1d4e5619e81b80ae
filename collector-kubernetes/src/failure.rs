// SPDX-License-Identifier: Apache-2.0
//! Why a request to the API server failed, in words.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use collector_core::ErrorKind;
use collector_core::text::quote;
use collector_transport::{find, root_cause};
use http::StatusCode;

use crate::objects::Status;

/// The longest time that a server can ask us to wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Why a request failed.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    /// The cause: printable, short, without secrets.
    pub(crate) why: String,
    /// The version that was asked for is too old, or what is between is lost: only a new list helps.
    pub(crate) is_gone: bool,
    /// How long the server asked us to wait.
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into(), is_gone: false, retry_after: None }
    }

    /// The failure of a request without an answer.
    pub(crate) fn of_request(error: &kube::Error) -> Self {
        let kind = match error {
            kube::Error::Auth(_) => ErrorKind::Unauthorized,
            _ => kind_of(error),
        };
        Self::new(kind, root_cause(error))
    }

    /// The failure of an answer that broke off.
    pub(crate) fn of_body(error: &(dyn Error + 'static)) -> Self {
        Self::new(ErrorKind::Disconnected, root_cause(error))
    }

    /// The failure that an answer says.
    pub(crate) fn of_status(code: u16, body: &[u8], retry_after: Option<&str>) -> Self {
        let status: Status = serde_json::from_slice(body).unwrap_or_default();
        let retry_after = retry_after.and_then(|seconds| seconds.parse().ok());
        let retry_after =
            retry_after.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        Self { retry_after, ..Self::of_object(&Status { code, ..status }) }
    }

    /// The failure that an event says.
    pub(crate) fn of_object(status: &Status) -> Self {
        let kind = match status.code {
            401 => ErrorKind::Unauthorized,
            403 => ErrorKind::Forbidden,
            404 => ErrorKind::NotFound,
            429 => ErrorKind::RateLimited,
            503 | 504 => ErrorKind::Overloaded,
            500.. => ErrorKind::ServerError,
            _ => ErrorKind::Rejected,
        };
        let code = StatusCode::from_u16(status.code).ok().and_then(|code| code.canonical_reason());
        let said = [status.message.as_str(), status.reason.as_str(), code.unwrap_or("no reason")];
        let said = said.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
        let is_gone = status.code == 410 || matches!(&*status.reason, "Expired" | "Gone");
        Self { is_gone, ..Self::new(kind, quote(said)) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.why)?;
        match self.kind {
            ErrorKind::Forbidden => {
                f.write_str("; grant it with the ClusterRole of docs/kubernetes.md")
            }
            ErrorKind::Unauthorized => {
                f.write_str("; is the token of a service account that exists?")
            }
            _ => Ok(()),
        }
    }
}

fn kind_of(error: &(dyn Error + 'static)) -> ErrorKind {
    if find::<rustls::Error>(error).is_some() {
        return ErrorKind::Tls;
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::TimedOut) => ErrorKind::Timeout,
        Some(
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof,
        ) => ErrorKind::Disconnected,
        _ => ErrorKind::Connect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_with_what_to_do() {
        let body =
            br#"{"kind":"Status","code":403,"message":"pods is forbidden: User \"x\"\u001b[2J"}"#;
        let failure = Failure::of_status(403, body, None);
        assert_eq!(
            failure.to_string(),
            "forbidden (403): pods is forbidden: User \"x\"\\u{1b}[2J; grant it with the ClusterRole of \
             docs/kubernetes.md"
        );
        let busy = Failure::of_status(429, b"<html>", Some("7"));
        assert_eq!(
            (busy.kind, busy.retry_after),
            (ErrorKind::RateLimited, Some(Duration::from_secs(7)))
        );
        assert!(busy.why.contains("Too Many Requests"), "{busy}");
    }

    #[test]
    fn a_version_that_is_too_old_is_gone() {
        assert!(Failure::of_status(410, b"", None).is_gone);
        let status = Status { code: 500, reason: "Expired".to_owned(), ..Status::default() };
        assert!(Failure::of_object(&status).is_gone);
        assert!(!Failure::of_status(404, b"{}", None).is_gone);
    }
}
