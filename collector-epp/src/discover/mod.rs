// SPDX-License-Identifier: Apache-2.0
//! Discovery of targets.
//!
//! A [`Discovery`] returns its complete set of [`Target`]s and reports when to ask again. There are a static list, a
//! file in the form of Prometheus' `file_sd_configs`, and DNS. `Sources` joins them: it keeps the last good set of a
//! source that fails, and logs that once.

mod dns;
mod file;
mod fixed;
mod sources;
mod target;

use async_trait::async_trait;
use collector_core::{ErrorKind, Namespace};

pub use dns::{DnsRecord, DnsSpec, DnsTargets};
pub use file::FileTargets;
pub use fixed::FixedTargets;
pub(crate) use sources::{Duplicate, Found, Sources};
pub use target::{Target, TargetSpec};

/// A source of targets.
#[async_trait]
pub trait Discovery: Send + Sync {
    /// Returns its name in messages: the key that sets it, a file, a DNS name.
    fn source(&self) -> &str;

    /// Returns what to check if it does not answer or has no target; empty if nothing can be.
    fn remedy(&self) -> &'static str {
        ""
    }

    /// Returns all of its current targets.
    ///
    /// # Errors
    /// If they are unknown. An empty set is no error.
    async fn targets(&self) -> Result<Vec<Target>, DiscoveryError>;

    /// Returns whether its targets are all pods that there are, so that no target means no pod. Default: they are.
    fn lists_pods(&self) -> bool {
        true
    }

    /// Returns why its targets in a namespace are not known though those of others are: then a model without a target there may
    /// have pods. Default: they are known.
    fn unknown_in(&self, _namespace: &Namespace) -> Option<DiscoveryError> {
        None
    }

    /// Returns when its targets may have changed.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    async fn changed(&self);
}

/// The targets of a source are unknown. The message names the source and what to do.
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
