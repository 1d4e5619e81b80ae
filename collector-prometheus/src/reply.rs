//! Answers that are none: what their status means, and what the server said about it.

use std::time::Duration;

use collector_core::ErrorKind;
use collector_transport::{Token, quote};
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};

use crate::failure::{Failure, Split};
use crate::{answer, body};

/// Bytes of an error's body that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Who we are to the server, for messages.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) token: &'a Token,
    /// What is sent as a credential, in words.
    pub(crate) credential: &'a str,
    /// The path that was asked.
    pub(crate) path: &'a str,
}

/// 401.
pub(crate) fn unauthorized(credential: &str) -> Failure {
    Failure::new(ErrorKind::Unauthorized, credential).with_remedy(
        "check prometheus.bearer_token or prometheus.token_path (PROMETHEUS_BEARER_TOKEN, \
         PROMETHEUS_TOKEN_PATH)",
    )
}

/// An answer with a status that is no success.
pub(crate) async fn refused(response: Response, caller: Caller<'_>) -> Failure {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|after| after.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let said = words(response, caller.token).await;
    let with_words = |text: &str| match &said {
        Said::Nothing => text.to_owned(),
        Said::Html => format!("{text}, with an HTML page"),
        Said::Text(words) => format!("{text}: {words}"),
        Said::Error { kind, text: words } => format!("{text}: {kind}: {words}"),
    };
    let numbered = || with_words(&status.as_u16().to_string());
    let mut failure = match status.as_u16() {
        401 => {
            let mut failure = unauthorized(caller.credential);
            failure.detail = with_words(&failure.detail);
            failure
        }
        403 => Failure::new(ErrorKind::Forbidden, with_words(caller.credential))
            .with_remedy("may this credential read these metrics? check prometheus.tenant as well"),
        404 => Failure::new(ErrorKind::NotFound, with_words(caller.path))
            .with_remedy("is prometheus.url the address of a PromQL server, with its path?"),
        429 => Failure::new(ErrorKind::RateLimited, numbered()),
        503 if said.is_timeout() => {
            Failure::new(ErrorKind::Overloaded, numbered()).with_split(Split::Once)
        }
        503 => Failure::new(ErrorKind::Overloaded, numbered()),
        500..=599 => Failure::new(ErrorKind::ServerError, numbered()),
        422 if said.is_sample_limit() => {
            Failure::new(ErrorKind::Rejected, numbered()).with_split(Split::UntilItFits)
        }
        400..=499 => Failure::new(ErrorKind::Rejected, numbered()),
        _ => Failure::new(
            ErrorKind::BadAnswer,
            format!("{} without a body to read", status.as_u16()),
        )
        .with_remedy("check prometheus.url"),
    };
    failure.retry_after = retry_after;
    failure
}

/// Where a redirect leads: the same origin, or nowhere.
pub(crate) fn redirect(
    from: &Url,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Url, Failure> {
    let refuse = |detail: String| {
        Err(Failure::new(ErrorKind::Redirected, detail)
            .with_remedy("if that is where the server is, set prometheus.url to it"))
    };
    let target = headers.get(LOCATION).and_then(|location| from.join(location.to_str().ok()?).ok());
    let Some(mut target) = target else {
        return refuse(format!("{} without a Location to read", status.as_u16()));
    };
    // What is shown holds neither credentials nor parameters.
    let _ = target.set_username("");
    let _ = target.set_password(None);
    target.set_query(None);
    target.set_fragment(None);
    let shown = quote(target.as_str());
    if target.origin() != from.origin() {
        return refuse(format!(
            "{} to {shown}, which is another server and was not followed",
            status.as_u16()
        ));
    }
    // Only these two keep method and body.
    if !matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
        return refuse(format!(
            "{} to {shown}, which would lose the query and was not followed",
            status.as_u16()
        ));
    }
    Ok(target)
}

/// What a server wrote beside an error's status.
enum Said {
    Nothing,
    Html,
    Text(String),
    Error { kind: String, text: String },
}

impl Said {
    fn is_timeout(&self) -> bool {
        match self {
            Self::Error { kind, text } => kind == "timeout" || text.contains("timed out"),
            _ => false,
        }
    }

    /// Prometheus: "query processing would load too many samples into memory"; VictoriaMetrics and
    /// Mimir say what was exceeded.
    fn is_sample_limit(&self) -> bool {
        match self {
            Self::Error { text, .. } | Self::Text(text) => {
                ["too many", "exceed", "maximum number", "cannot select more"]
                    .iter()
                    .any(|sign| text.to_ascii_lowercase().contains(sign))
            }
            _ => false,
        }
    }
}

/// The beginning of an error's body, as far as it can be read and shown.
async fn words(response: Response, token: &Token) -> Said {
    let body = body::beginning(response, ERROR_BYTES_MAX).await;
    // Some gateways quote what they refuse.
    let text = token.redact(&String::from_utf8_lossy(&body));
    if let Some((kind, text)) = answer::error_of(text.as_bytes()) {
        return Said::Error { kind, text };
    }
    match text.trim_start().bytes().next() {
        None => Said::Nothing,
        Some(b'<') => Said::Html,
        Some(_) => Said::Text(quote(&text)),
    }
}
