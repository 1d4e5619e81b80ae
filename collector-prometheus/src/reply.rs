// SPDX-License-Identifier: Apache-2.0
//! Responses with an error status: what the status means, and what the server said.

use std::fmt::Write as _;
use std::time::Duration;

use collector_core::ErrorKind;
use collector_transport::quote;
use reqwest::Response;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};

use crate::credentials::Credentials;
use crate::failure::{Failure, Split};
use crate::{answer, body};

/// Bytes of an error's body that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Schemes of one 401 that are read.
const SCHEMES_MAX: usize = 4;

/// Converts a response with an error status to a request of `path` with `credential`, in words.
pub(crate) async fn refused(
    response: Response,
    credentials: &Credentials,
    credential: &str,
    path: &str,
) -> Failure {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    let wanted = wanted_schemes(response.headers());
    let said = words(response, credentials).await;
    let numbered = || said.after(&status.as_u16().to_string());
    let mut failure = match status.as_u16() {
        401 => unauthorized(&wanted, &said, credentials, credential),
        403 => Failure::new(ErrorKind::Forbidden, said.beside(credential))
            .with_remedy("may this credential read these metrics? check prometheus.tenant as well"),
        404 => Failure::new(ErrorKind::NotFound, said.beside(path))
            .with_remedy("is prometheus.url the address of a PromQL server, with its path?"),
        413 => Failure::new(ErrorKind::Rejected, numbered()).with_split(Split::UntilItFits),
        429 => Failure::new(ErrorKind::RateLimited, numbered()),
        503 if said.is_timeout() => {
            Failure::new(ErrorKind::Overloaded, numbered()).with_split(Split::Once)
        }
        503 => Failure::new(ErrorKind::Overloaded, numbered()),
        500..=599 => Failure::new(ErrorKind::ServerError, numbered()),
        400 | 422 if said.is_limit() => {
            Failure::new(ErrorKind::Rejected, numbered()).with_split(Split::UntilItFits)
        }
        400 if said.wants_a_namespace() => Failure::new(ErrorKind::Rejected, numbered())
            .with_remedy(
                "if this address answers for one namespace alone, name it: prometheus.parameters = \
                 { namespace = \"NAMESPACE\" }",
            ),
        400..=499 => Failure::new(ErrorKind::Rejected, numbered()),
        _ => Failure::bad_answer(format!("{} without a body to read", status.as_u16()))
            .with_remedy("check prometheus.url"),
    };
    failure.retry_after = retry_after;
    failure
}

/// Converts a 401, given the schemes that the server accepts, in lower case.
fn unauthorized(
    wanted: &[String],
    said: &ErrorBody,
    credentials: &Credentials,
    credential: &str,
) -> Failure {
    let mut detail = credential.to_owned();
    if !wanted.is_empty() {
        let _ = write!(detail, "; the server wants {}", wanted.join(" or "));
    }
    let failure = Failure::new(ErrorKind::Unauthorized, said.beside(&detail));
    if said.wants_a_tenant() {
        return failure
            .with_remedy("set prometheus.tenant (COLLECTOR_PROMETHEUS__TENANT) to your tenant");
    }
    let wants = |scheme: &str| wanted.iter().any(|it| it.eq_ignore_ascii_case(scheme));
    let sent = credentials.scheme();
    let remedy = match sent {
        Some((scheme, keys)) if wanted.is_empty() || wants(scheme) => format!("check {keys}"),
        _ if wants("basic") => {
            "set prometheus.username, with prometheus.password_path or prometheus.password".into()
        }
        _ if wants("bearer") => "set prometheus.token_path, prometheus.bearer_token or \
                                 prometheus.token_command (PROMETHEUS_TOKEN_PATH, \
                                 PROMETHEUS_BEARER_TOKEN)"
            .into(),
        _ if wants("aws4-hmac-sha256") => {
            "set prometheus.sigv4.region, in a build with the cargo feature `sigv4`".into()
        }
        _ if !wanted.is_empty() => "the collector has no such scheme: it sends bearer tokens \
                                    (prometheus.token_path), user names (prometheus.username) and \
                                    signatures of AWS (prometheus.sigv4)"
            .into(),
        _ => "check prometheus.bearer_token or prometheus.token_path (PROMETHEUS_BEARER_TOKEN, \
              PROMETHEUS_TOKEN_PATH), or set prometheus.username or prometheus.token_command"
            .to_owned(),
    };
    failure.with_remedy(remedy)
}

/// Returns the names of the schemes in a 401.
fn wanted_schemes(headers: &HeaderMap) -> Vec<String> {
    let mut schemes: Vec<String> = Vec::new();
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let text = String::from_utf8_lossy(value.as_bytes());
        // In `Basic realm="a, b", Bearer` two words begin a challenge: the first, and one after a comma
        // without `=`.
        let words = text.split(',').map(|part| part.split_whitespace().next().unwrap_or_default());
        for word in words.filter(|word| !word.is_empty()) {
            let is_scheme = word.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
            let is_known = schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case(word));
            if is_scheme && !is_known && schemes.len() < SCHEMES_MAX {
                schemes.push(quote(word));
            }
        }
    }
    schemes
}

/// Returns the requested pause: in seconds, or until a time on the server's clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| Some(headers.get(name)?.to_str().ok()?.trim());
    let after = text(RETRY_AFTER)?;
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(after).ok()?;
    let now = httpdate::parse_http_date(text(DATE)?).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

/// The body of an error response: empty, an HTML page, a text, or a kind and a text.
#[derive(Default)]
struct ErrorBody {
    html: bool,
    kind: Option<String>,
    text: String,
}

impl ErrorBody {
    fn is_nothing(&self) -> bool {
        self.kind.is_none() && self.text.is_empty()
    }

    /// Returns `text` and the server's words after a colon.
    fn after(&self, text: &str) -> String {
        match &self.kind {
            _ if self.html => format!("{text}, with an HTML page"),
            _ if self.is_nothing() => text.to_owned(),
            None => format!("{text}: {}", self.text),
            Some(kind) => format!("{text}: {kind}: {}", self.text),
        }
    }

    /// Returns `text` and the server's words as a separate statement.
    fn beside(&self, text: &str) -> String {
        if self.html {
            format!("{text}; the server sent an HTML page")
        } else if self.is_nothing() {
            text.to_owned()
        } else {
            format!("{text}; the server said: {:?}", self.text)
        }
    }

    fn has(&self, sign: &str) -> bool {
        self.text.to_ascii_lowercase().contains(sign)
    }

    fn is_kind(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    fn is_timeout(&self) -> bool {
        self.is_kind("timeout") || (self.kind.is_some() && self.text.contains("timed out"))
    }

    /// The query was understood and hit a limit while it ran, or is refused in words for a limit. Prometheus:
    /// "query processing would load too many samples into memory"; VictoriaMetrics and Mimir name what was
    /// exceeded.
    fn is_limit(&self) -> bool {
        self.is_kind("execution")
            || ["too many", "exceed", "maximum number", "cannot select more"]
                .iter()
                .any(|sign| self.has(sign))
    }

    /// Mimir and Cortex: "no org id".
    fn wants_a_tenant(&self) -> bool {
        self.has("no org id")
    }

    /// A gateway that shows a caller one namespace. prom-label-proxy: `The "namespace" query parameter
    /// must be provided.`; kube-rbac-proxy says no more than that the request is malformed.
    fn wants_a_namespace(&self) -> bool {
        (self.has("namespace") && self.has("parameter"))
            || self.has("the request or configuration is malformed")
    }
}

/// Reads the beginning of an error's body.
async fn words(response: Response, credentials: &Credentials) -> ErrorBody {
    let body = body::beginning(response, ERROR_BYTES_MAX).await;
    let body = String::from_utf8_lossy(&body);
    // Some gateways quote what they refuse.
    let redact = |text: &str| credentials.redact(text);
    if let Some((kind, text)) = answer::error_of(body.as_bytes(), &redact) {
        return ErrorBody { kind: Some(kind), text, ..ErrorBody::default() };
    }
    let text = redact(&body);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with('<') {
        ErrorBody { html: true, ..ErrorBody::default() }
    } else {
        ErrorBody { text: quote(text), ..ErrorBody::default() }
    }
}
