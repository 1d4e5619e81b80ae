// SPDX-License-Identifier: Apache-2.0
//! The server behind a guard.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// A request to the server.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Request {
    /// The path after the server's address: `api/v1/query`.
    pub path: String,
    /// The parameters, in order.
    pub parameters: Vec<(String, String)>,
    /// Headers of the client to pass on.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// Creates a request without headers of the client.
    pub fn new(path: impl Into<String>, parameters: Vec<(String, String)>) -> Self {
        Self { path: path.into(), parameters, headers: Vec::new() }
    }
}

/// The server's answer, unchanged.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Passed {
    /// The HTTP status.
    pub status: u16,
    /// The media type.
    pub content_type: Option<String>,
    /// The body, unpacked.
    pub body: Bytes,
}

impl Passed {
    /// Creates an answer.
    pub fn new(status: u16, content_type: Option<String>, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, body: body.into() }
    }
}

/// Why the server did not answer a request.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Unanswered {
    /// The cause, with the server's address.
    pub message: String,
    /// The answer exceeded the limit.
    pub too_large: bool,
}

impl Unanswered {
    /// The request failed or timed out.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), too_large: false }
    }

    /// The answer exceeded the limit.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self { message: message.into(), too_large: true }
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Unanswered {}

/// A PromQL server.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// Sends a request and returns the answer, whatever its status.
    ///
    /// Implementations bound the time (`within`) and the size of the answer, and are cancel safe.
    ///
    /// # Errors
    /// When the server does not answer.
    async fn ask(&self, request: Request, within: Duration) -> Result<Passed, Unanswered>;
}
