//! The section `[promql]`: the PromQL API of `serve`.

use std::time::Duration;

use serde::Deserialize;

/// The longest that callers may wait: an adapter's 3 s hold two tries of the shorter of its time-outs.
pub(crate) const ANSWER_WITHIN_MAX: Duration = Duration::from_millis(1400);

/// The PromQL API of `serve`, in front of the server of `[prometheus]`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PromqlConfig {
    /// Off unless switched on: whoever reaches the API reads with the credentials of `[prometheus]`.
    pub enabled: bool,
    /// How long an answer is given again without asking. Default 5 s.
    #[serde(with = "collector_core::duration")]
    pub ttl: Duration,
    /// How long a caller waits. Default 1 s.
    #[serde(with = "collector_core::duration")]
    pub answer_within: Duration,
    /// The greatest age of the newest sample that a selector matches. Default 2 min.
    #[serde(with = "collector_core::duration")]
    pub max_age: Duration,
    /// The greatest age of an answer that is given while the server does not answer. Default 2 min.
    #[serde(with = "collector_core::duration")]
    pub max_stale: Duration,
    /// Bytes of a query. Default 16 KiB.
    pub max_query_bytes: usize,
    /// Brackets within brackets. Default 64.
    pub max_depth: usize,
    /// Operators of a query. Default 256.
    pub max_operators: usize,
    /// Queries that are remembered. Default 10 000.
    pub max_entries: usize,
    /// Bytes of what is remembered. Default 64 MiB.
    pub max_bytes: usize,
    /// Headers of clients that are passed on.
    pub forward_headers: Vec<String>,
    /// Series that vouch for others, before the built-in ones.
    pub anchors: Vec<AnchorSpec>,
}

/// One entry of `[[promql.anchors]]`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorSpec {
    /// A regular expression for whole names of metrics.
    pub name: String,
    /// The metric that vouches for them, which may use groups of `name` (`${1}`).
    pub anchor: String,
    /// What it proves. Default alive, the lesser of the two.
    #[serde(default)]
    pub strength: AnchorStrength,
}

/// How much an anchor proves.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnchorStrength {
    /// Without a series of that name, their sum is 0.
    Strong,
    /// The exporter is alive, so a default that a query writes is a true one.
    #[default]
    Alive,
}

impl Default for PromqlConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            ttl: Duration::from_secs(5),
            answer_within: Duration::from_secs(1),
            max_age: Duration::from_secs(120),
            max_stale: Duration::from_secs(120),
            max_query_bytes: 16 << 10,
            max_depth: 64,
            max_operators: 256,
            max_entries: 10_000,
            max_bytes: 64 << 20,
            forward_headers: Vec::new(),
            anchors: Vec::new(),
        }
    }
}
