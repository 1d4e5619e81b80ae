//! Which pods there are.
//!
//! A [`Discovery`] tells its whole set of [`Target`]s and when it is worth asking again; there are a
//! static list, a file in the form of Prometheus' `file_sd_configs`, and DNS. `Sources` puts them
//! together: it keeps the last good set of a source that fails, and says so once.

mod dns;
mod file;
mod fixed;
mod sources;
mod target;

use async_trait::async_trait;
use collector_core::ErrorKind;

pub use dns::{DnsRecord, DnsSpec, DnsTargets};
pub use file::FileTargets;
pub use fixed::FixedTargets;
pub(crate) use sources::{Copied, Found, Sources};
pub use target::{Target, TargetError, TargetSpec};

/// A source of targets.
#[async_trait]
pub trait Discovery: Send + Sync {
    /// What it is, in messages: the key that sets it, a file, a name.
    fn source(&self) -> &str;

    /// All of its targets as they are now.
    ///
    /// # Errors
    /// When it cannot tell. An empty set is no error: then there are none.
    async fn look(&self) -> Result<Vec<Target>, DiscoveryError>;

    /// Returns when it is worth looking again: something changed, or a time has passed.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    async fn changed(&self);
}

/// A source could not tell its targets. The message names the source and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct DiscoveryError {
    kind: ErrorKind,
    message: String,
}

impl DiscoveryError {
    /// An error whose message names the source.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
