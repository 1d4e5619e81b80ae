// SPDX-License-Identifier: Apache-2.0
//! One request to the server: under a permit, within the time that is left, and never tried again.

use std::fmt;
use std::time::Duration;

use collector_core::{BackendError, Clock, ErrorKind, Operation, Permits, Tick};
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode, redirect};

use crate::backend::NAME;
use crate::document::Document;

/// The largest answer that is read: some 20 000 pods. More is a mistake, and must not be buffered.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The part of the time that is left in which an answer must come, so that its error is still told.
const OF_TIME_LEFT: f64 = 0.95;

/// A token with characters that no header may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidToken;

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the token has characters that no header may have; is there a line break in it?",
        )
    }
}

impl std::error::Error for InvalidToken {}

/// What a call brings with it.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) operation: Operation,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) time_left: Duration,
    pub(crate) permits: &'a dyn Permits,
}

/// What the server has answered.
pub(crate) struct Answered {
    pub(crate) document: Document,
    pub(crate) as_of: Tick,
    pub(crate) sampled_at: Tick,
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    url: String,
    /// Its `Debug` shows nothing of it.
    authorization: Option<HeaderValue>,
    http: reqwest::Client,
}

impl Client {
    pub(crate) fn new(url: String, token: Option<&str>) -> Result<Self, InvalidToken> {
        // One that the program has installed already stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authorization = token.map(|token| {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| InvalidToken)?;
            value.set_sensitive(true);
            Ok(value)
        });
        // A redirect would carry the token elsewhere; whether to try again is the engine's to say.
        let http = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .build()
            .unwrap_or_default();
        Ok(Self { url, authorization: authorization.transpose()?, http })
    }

    /// Asks for everything there is.
    pub(crate) async fn get(&self, call: Call<'_>) -> Result<Answered, BackendError> {
        let limit = call.time_left.mul_f64(OF_TIME_LEFT);
        let late = || {
            self.error(ErrorKind::Timeout, call.operation)
                .with_detail(format!("no answer within {:.1} s", limit.as_secs_f64()))
                .with_remedy("is the server overloaded? If it needs longer, raise its timeout")
        };
        tokio::time::timeout(limit, self.get_in_time(call)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn get_in_time(&self, call: Call<'_>) -> Result<Answered, BackendError> {
        // Held until the answer was read.
        let _permit = call.permits.acquire().await?;
        let as_of = call.clock.now();
        let mut request = self.http.get(&self.url);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = request.send().await.map_err(|error| self.broken(&error, call.operation))?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(&response, call.operation));
        }
        let text = self.read(response, call.operation).await?;
        let document: Document = serde_json::from_slice(&text).map_err(|error| {
            self.error(ErrorKind::BadAnswer, call.operation)
                .with_detail(error.to_string().escape_debug().to_string())
                .with_remedy("is that the right URL?")
        })?;
        let sampled_at = as_of - document.age();
        Ok(Answered { document, as_of, sampled_at })
    }

    async fn read(
        &self,
        mut response: Response,
        operation: Operation,
    ) -> Result<Vec<u8>, BackendError> {
        let mut text = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|error| self.broken(&error, operation))?;
            let Some(chunk) = chunk else { return Ok(text) };
            if text.len() + chunk.len() > MAX_BYTES {
                return Err(self
                    .error(ErrorKind::TooLarge, operation)
                    .with_detail(format!("more than {MAX_BYTES} bytes")));
            }
            text.extend_from_slice(&chunk);
        }
    }

    /// No answer came. Its text is not shown: it may have the URL, with a password.
    fn broken(&self, error: &reqwest::Error, operation: Operation) -> BackendError {
        let kind = if error.is_timeout() {
            ErrorKind::Timeout
        } else if error.is_connect() {
            ErrorKind::Connect
        } else if error.is_builder() {
            ErrorKind::Configuration
        } else {
            ErrorKind::Disconnected
        };
        self.error(kind, operation).with_remedy("is the server running, and is the URL right?")
    }

    /// The server answered that it will not answer. What it said besides is not shown.
    fn refused(&self, response: &Response, operation: Operation) -> BackendError {
        let status = response.status();
        let (kind, remedy) = match status.as_u16() {
            300..=399 => (ErrorKind::Redirected, "set the URL that it redirects to"),
            401 => (ErrorKind::Unauthorized, "is the token right?"),
            403 => (ErrorKind::Forbidden, "may the token read this?"),
            404 => (ErrorKind::NotFound, "is the path of the URL right?"),
            429 => (ErrorKind::RateLimited, "ask less often, or raise the limit of the server"),
            503 => (ErrorKind::Overloaded, ""),
            500..=599 => (ErrorKind::ServerError, "see the log of the server"),
            _ => (ErrorKind::Rejected, "is that the right URL?"),
        };
        let error = self.error(kind, operation).with_detail(status.to_string()).with_remedy(remedy);
        let after = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
        match after.and_then(|seconds| seconds.parse().ok()) {
            Some(seconds) => error.with_retry_after(Duration::from_secs(seconds)),
            None => error,
        }
    }

    /// Of the URL the part without a password is shown.
    fn error(&self, kind: ErrorKind, operation: Operation) -> BackendError {
        let shown = reqwest::Url::parse(&self.url).ok().map(|url| {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
        });
        let shown = shown.unwrap_or_else(|| "a URL that cannot be read".to_owned());
        BackendError::new(kind, NAME.into(), operation, shown)
    }
}
