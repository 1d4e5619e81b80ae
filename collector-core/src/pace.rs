// SPDX-License-Identifier: Apache-2.0
//! How often a model is refreshed, and why.

use std::fmt;
use std::time::Duration;

/// The pace of one tracked model.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Pace {
    /// How long a value counts as current.
    pub ttl: Duration,
    /// Why so long.
    pub reason: PaceReason,
}

/// Why a model has its ttl.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum PaceReason {
    /// `cache.ttl`: it is that of every model without a pace of its own.
    Configured,
    /// One of its variants has a `fetch_interval`, or a caller has set one.
    Own,
    /// Adaptive: it is new, or something happened to it a few fetches ago.
    Watched,
    /// Adaptive: nothing moves.
    Still,
    /// Adaptive: this moves most.
    Moves {
        /// The name of its field in JSON.
        field: &'static str,
        /// By how much it is expected to be off after a minute, a share from 0 on.
        per_minute: f64,
    },
}

impl Pace {
    /// A ttl and its reason.
    pub fn new(ttl: Duration, reason: PaceReason) -> Self {
        Self { ttl, reason }
    }
}

impl PaceReason {
    /// The word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Own => "own",
            Self::Watched => "watched",
            Self::Still => "still",
            Self::Moves { .. } => "moves",
        }
    }
}

/// For people: `kvCacheUsage moves 4.1 points in a minute`.
impl fmt::Display for PaceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => f.write_str("cache.ttl"),
            Self::Own => f.write_str("a fetch_interval of its own"),
            Self::Watched => f.write_str(
                "watched, because it is new, jumped, or gained or lost replicas a few fetches ago",
            ),
            Self::Still => f.write_str("nothing moves"),
            Self::Moves { field, per_minute } => {
                write!(f, "{field} moves {:.1} points in a minute", per_minute * 100.0)
            }
        }
    }
}
