// SPDX-License-Identifier: Apache-2.0
//! Passes requests of clients to the server, with the backend's credentials.

use std::sync::atomic::Ordering;

use collector_core::{Clock, ErrorKind};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, Url};
use tokio::time::Instant;

use super::{Client, Course, headers_of_ours};
use crate::failure::Failure;

/// The paths that accept a form: long parameters do not fit into a request line.
const FORMS: [&str; 5] = [
    "api/v1/query",
    "api/v1/query_range",
    "api/v1/query_exemplars",
    "api/v1/labels",
    "api/v1/series",
];

/// A request of a client.
#[derive(Clone, Copy, Debug)]
pub struct PassedRequest<'a> {
    /// The path after the server's address: `api/v1/query`.
    pub path: &'a str,
    /// The parameters, in order.
    pub parameters: &'a [(String, String)],
    /// Headers to pass on.
    pub headers: &'a [(String, String)],
}

/// The server's answer, unchanged.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PassedAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub content_type: Option<String>,
    /// The body, decompressed. The body of an error contains no secret of ours.
    pub body: Vec<u8>,
}

impl Client {
    /// Sends a request and returns the answer with any status but 401, which is an error of our credential.
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
        let url = self.url_of(passing.path)?;
        let mut course = Course::new(url);
        loop {
            let sent = self.credentials.headers(clock, deadline).await?;
            let get = !FORMS.contains(&passing.path) || self.use_get.load(Ordering::Relaxed);
            let mut headers = sent.headers.clone();
            headers.extend(headers_of_ours(true));
            headers.extend(passed_on(passing.headers));
            let response = self.send(&course.url, form(passing.parameters), get, headers).await?;
            match self.or_again(response, &course.url, get).await? {
                Ok(response) => return self.received(response).await,
                Err(again) => course.follow(again, self, &sent, clock, deadline).await?,
            }
        }
    }

    /// Returns the URL of a path, which must not leave the server's base URL: the request carries credentials.
    fn url_of(&self, path: &str) -> Result<Url, Failure> {
        let base = self.query_url.join("../../").ok();
        let url = base.as_ref().and_then(|base| base.join(path).ok());
        url.zip(base)
            .filter(|(url, base)| url.as_str().starts_with(base.as_str()))
            .map(|(url, _)| url)
            .ok_or_else(|| {
                Failure::new(ErrorKind::NotFound, format!("{path:?} is not a path of the server"))
            })
    }

    async fn received(&self, response: Response) -> Result<PassedAnswer, Failure> {
        let status = response.status();
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|it| it.to_str().ok()).map(str::to_owned);
        let body = self.bodies.read(response, 0, |error| self.explain(error)).await?.bytes;
        // A server may repeat the request's headers in an error.
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

/// Returns the headers of the client. Invalid ones are left out.
fn passed_on(headers: &[(String, String)]) -> HeaderMap {
    let headers = headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value).ok()?))
    });
    headers.collect()
}
