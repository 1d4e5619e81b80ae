//! Answers that are no page.

use collector_core::ErrorKind;
use collector_transport::{Cause, quote};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use http::response::Parts;
use http::{HeaderMap, HeaderName, StatusCode};
use url::Url;

/// What an answer's status and headers say against reading its body.
pub(super) fn refuse(head: &Parts, url: &Url, credential: &str) -> Result<(), Cause> {
    if head.status != StatusCode::OK {
        return Err(status(head, url, credential));
    }
    if let Some(encoding) = text(&head.headers, CONTENT_ENCODING)
        && !encoding.eq_ignore_ascii_case("identity")
    {
        return Err(Cause::new(
            ErrorKind::BadAnswer,
            format!("its encoding {:?} is none that was asked for", quote(&encoding)),
        )
        .with_remedy("does a proxy stand between?"));
    }
    let kind = text(&head.headers, CONTENT_TYPE).unwrap_or_default();
    if kind.trim_start().to_ascii_lowercase().starts_with("text/html") {
        return Err(Cause::new(ErrorKind::BadAnswer, "it is an HTML page, not metrics")
            .with_remedy("check the port and the path of the target's URL"));
    }
    Ok(())
}

/// The value of a header, as far as it is text.
pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn status(head: &Parts, url: &Url, credential: &str) -> Cause {
    let code = head.status.as_u16();
    let numbered = |kind| Cause::new(kind, code.to_string());
    match code {
        401 => Cause::new(ErrorKind::Unauthorized, credential)
            .with_remedy("check epp.bearer_token or epp.token_path"),
        403 => Cause::new(ErrorKind::Forbidden, credential)
            .with_remedy("may this credential read the metrics of this pod?"),
        404 => Cause::new(ErrorKind::NotFound, url.path())
            .with_remedy("is the path of the target's URL right?"),
        429 => numbered(ErrorKind::RateLimited),
        503 => numbered(ErrorKind::Overloaded),
        500..=599 => numbered(ErrorKind::ServerError),
        300..=399 => redirected(head, url),
        400..=499 => numbered(ErrorKind::Rejected),
        _ => Cause::new(ErrorKind::BadAnswer, format!("{code} without a page to read"))
            .with_remedy("check the target's URL"),
    }
}

fn redirected(head: &Parts, url: &Url) -> Cause {
    let code = head.status.as_u16();
    let location = text(&head.headers, LOCATION).and_then(|location| url.join(&location).ok());
    let detail = match location {
        Some(mut to) => {
            // What is shown holds neither credentials nor parameters.
            let _ = to.set_username("");
            let _ = to.set_password(None);
            to.set_query(None);
            to.set_fragment(None);
            format!("{code} to {}, which was not followed", quote(to.as_str()))
        }
        None => format!("{code} without a Location to read"),
    };
    Cause::new(ErrorKind::Redirected, detail)
        .with_remedy("if that is where the page is, set the target's URL to it")
}
