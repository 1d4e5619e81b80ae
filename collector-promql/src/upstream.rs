//! The server behind a door.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// A request that is passed to the server.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Request {
    /// What stands behind the server's address: `api/v1/query`.
    pub path: String,
    /// The parameters in their order.
    pub parameters: Vec<(String, String)>,
    /// Headers of the client that are passed on.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// A request without headers of the client.
    pub fn new(path: impl Into<String>, parameters: Vec<(String, String)>) -> Self {
        Self { path: path.into(), parameters, headers: Vec::new() }
    }
}

/// What the server answered, as it was.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Passed {
    /// The status.
    pub status: u16,
    /// The media type.
    pub content_type: Option<String>,
    /// The body, unpacked.
    pub body: Bytes,
}

impl Passed {
    /// An answer.
    pub fn new(status: u16, content_type: Option<String>, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, body: body.into() }
    }
}

/// Why a request has no answer of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Unanswered {
    /// What happened, with the server's address.
    pub message: String,
    /// The answer was larger than may be kept.
    pub too_large: bool,
}

impl Unanswered {
    /// The server could not be asked, or did not answer in time.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), too_large: false }
    }

    /// The answer was larger than may be kept.
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

/// A PromQL server that answers requests as they are.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// Sends a request and returns the answer, whatever its status.
    ///
    /// Both must be bounded: an answer in time by the server's own time-out, in size by a limit. Cancel safe.
    ///
    /// # Errors
    /// When there is no answer.
    async fn ask(&self, request: Request, within: Duration) -> Result<Passed, Unanswered>;
}
