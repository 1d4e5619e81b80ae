//! Passes requests of others as they are, with the credentials of ours.

use std::sync::atomic::Ordering;

use collector_core::{Clock, ErrorKind};
use collector_transport::redirect;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Response, StatusCode};
use tokio::time::Instant;

use super::{Client, FOLLOWED, REDIRECTS_MAX, headers_of_ours};
use crate::failure::Failure;

/// The paths that take a form: what is long does not fit into a request line.
const FORMS: [&str; 5] = [
    "api/v1/query",
    "api/v1/query_range",
    "api/v1/query_exemplars",
    "api/v1/labels",
    "api/v1/series",
];

/// A request of somebody else.
#[derive(Clone, Copy, Debug)]
pub struct PassedRequest<'a> {
    /// What stands behind the server's address: `api/v1/query`.
    pub path: &'a str,
    /// The parameters, in their order.
    pub parameters: &'a [(String, String)],
    /// Headers that are passed on.
    pub headers: &'a [(String, String)],
}

/// What the server answered, as it was.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PassedAnswer {
    /// The status.
    pub status: u16,
    /// The media type.
    pub content_type: Option<String>,
    /// The body, unpacked. That of an error holds no secret of ours.
    pub body: Vec<u8>,
}

impl Client {
    /// Sends a request and returns the answer, whatever its status.
    pub(crate) async fn pass(
        &self,
        passing: PassedRequest<'_>,
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Result<PassedAnswer, Failure> {
        match tokio::time::timeout_at(deadline, self.passed(&passing, clock, deadline)).await {
            Ok(passed) => passed,
            Err(_) => Err(Failure::timeout("the answer was not complete in time")
                .with_remedy("is the server overloaded? prometheus.timeout may be raised")),
        }
    }

    async fn passed(
        &self,
        passing: &PassedRequest<'_>,
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Result<PassedAnswer, Failure> {
        let unusable = |error: url::ParseError| {
            Failure::new(ErrorKind::NotFound, format!("{:?}: {error}", passing.path))
        };
        let base = self.query_url.join("../../");
        let mut url = base.and_then(|base| base.join(passing.path)).map_err(unusable)?;
        let mut redirects = 0;
        let mut renewed = false;
        loop {
            let sent = self.credentials.headers(clock, deadline).await?;
            let get = !FORMS.contains(&passing.path) || self.use_get.load(Ordering::Relaxed);
            let mut headers = sent.headers.clone();
            headers.extend(headers_of_ours(true));
            headers.extend(theirs(passing.headers));
            let response = self.send(&url, form(passing.parameters), get, headers).await?;
            let status = response.status();
            match status {
                StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED if !get => {
                    self.use_get.store(true, Ordering::Relaxed);
                }
                StatusCode::UNAUTHORIZED
                    if !std::mem::replace(&mut renewed, true)
                        && self.credentials.renew(&sent, clock, deadline).await? => {}
                status if status.is_redirection() => {
                    redirects += 1;
                    if redirects > REDIRECTS_MAX {
                        let detail = format!("more than {REDIRECTS_MAX} redirects");
                        return Err(Failure::new(ErrorKind::Redirected, detail)
                            .with_remedy("check the path in prometheus.url"));
                    }
                    let location = response.headers().get(LOCATION);
                    url = redirect(&url, status.as_u16(), location, &FOLLOWED, "prometheus.url")
                        .map_err(Failure::of)?;
                }
                _ => return self.received(response).await,
            }
        }
    }

    async fn received(&self, response: Response) -> Result<PassedAnswer, Failure> {
        let status = response.status();
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|it| it.to_str().ok()).map(str::to_owned);
        let body = self.bodies.read(response, 0, |error| self.explain(error)).await?.bytes;
        // An error may repeat what was sent.
        let body = if status.is_success() {
            body
        } else {
            self.credentials.redact(&String::from_utf8_lossy(&body)).into_bytes()
        };
        Ok(PassedAnswer { status: status.as_u16(), content_type, body })
    }
}

fn form(parameters: &[(String, String)]) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(parameters);
    form.finish()
}

/// Headers of the client. Names and values that are none are left out.
fn theirs(headers: &[(String, String)]) -> HeaderMap {
    let headers = headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value).ok()?))
    });
    headers.collect()
}
