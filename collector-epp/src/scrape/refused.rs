// SPDX-License-Identifier: Apache-2.0
//! Answers without a metrics page, as errors.

use collector_core::ErrorKind;
use collector_transport::{Cause, quote, shown};
use http::header::CONTENT_ENCODING;
use http::response::Parts;
use http::{HeaderMap, HeaderName};
use url::Url;

/// Refuses an answer in an encoding that was not asked for.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Cause> {
    match text(headers, CONTENT_ENCODING) {
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => Err(Cause::new(
            ErrorKind::BadAnswer,
            format!("its encoding {:?} is none that was asked for", quote(&encoding)),
        )
        .with_remedy("does a proxy stand between?")),
        _ => Ok(()),
    }
}

/// The value of a header, as far as it is text.
pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Returns the error of an answer that is neither a page nor a redirect. `credential` describes what was sent, and
/// `words` are the server's own.
pub(super) fn status(head: &Parts, url: &Url, credential: &str, words: Option<&str>) -> Cause {
    let code = head.status.as_u16();
    let numbered = |kind| Cause::new(kind, code.to_string());
    let cause = match code {
        401 => Cause::new(ErrorKind::Unauthorized, credential)
            .with_remedy("check epp.bearer_token or epp.token_path"),
        403 => Cause::new(ErrorKind::Forbidden, credential)
            .with_remedy("may this credential read the metrics of this pod?"),
        404 => Cause::new(ErrorKind::NotFound, quote(url.path()))
            .with_remedy("is the path of the target's URL right?"),
        429 => numbered(ErrorKind::RateLimited),
        // Most servers answer 503 for other reasons: while they load a model, for example.
        503 if words.is_some_and(says_overloaded) => numbered(ErrorKind::Overloaded),
        500..=599 => numbered(ErrorKind::ServerError).with_remedy("the pod's own log may say more"),
        400..=499 => numbered(ErrorKind::Rejected)
            .with_remedy("are the path and the parameters of the target's URL right?"),
        _ => Cause::new(ErrorKind::BadAnswer, format!("{code} without a page to read"))
            .with_remedy("check the target's URL"),
    };
    super::words::quoted(cause, words)
}

/// Whether a server says that it is overloaded.
fn says_overloaded(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ["overload", "too many requests", "too busy"].iter().any(|word| words.contains(word))
}

/// The error of too many redirects.
pub(super) fn too_many(redirects: usize, to: &Url) -> Cause {
    Cause::new(
        ErrorKind::Redirected,
        format!("more than {redirects} redirects, the last one to {}", shown(to)),
    )
    .with_remedy("set the target's URL to where the page is")
}
