// SPDX-License-Identifier: Apache-2.0
//! The section `[promql]`: the PromQL API of `serve`.

use std::time::Duration;

use serde::Deserialize;

/// The upper bound of `answer_within`: within the 3 s of an adapter there must be time for two tries.
pub(crate) const ANSWER_WITHIN_MAX: Duration = Duration::from_millis(1400);

/// The lower bound of `max_answer_bytes`: an answer about one model fits.
pub(crate) const ANSWER_BYTES_MIN: usize = 64 << 10;

/// The PromQL API of `serve`, in front of the server of `[prometheus]`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PromqlConfig {
    /// Default false, because every client of the API reads with the credentials of `[prometheus]`.
    pub enabled: bool,
    /// The server's URL, if it is not that of `[prometheus]`, whose other keys apply to it.
    pub upstream: Option<String>,
    /// How long an answer is returned again without a request. Default 5 s.
    #[serde(with = "collector_core::duration")]
    pub ttl: Duration,
    /// How long a caller waits. Default 1 s.
    #[serde(with = "collector_core::duration")]
    pub answer_within: Duration,
    /// The maximum age of the newest sample of a selector. Default 2 min.
    #[serde(with = "collector_core::duration")]
    pub max_age: Duration,
    /// The maximum age of an answer that is returned while the server does not respond. Default 2 min.
    #[serde(with = "collector_core::duration")]
    pub max_stale: Duration,
    /// What a query over several models gets if one of them has no data. Default an error.
    pub partial: PartialAnswers,
    /// How long a model without data is missed. Default 5 min.
    #[serde(with = "collector_core::duration")]
    pub vanished_after: Duration,
    /// The maximum size of a query in bytes. Default 16 KiB.
    pub max_query_bytes: usize,
    /// The maximum nesting depth of brackets. Default 64.
    pub max_depth: usize,
    /// The maximum number of operators. Default 256.
    pub max_operators: usize,
    /// The maximum number of remembered queries. Default 10 000.
    pub max_entries: usize,
    /// The maximum size of remembered answers in bytes. Default 64 MiB.
    pub max_bytes: usize,
    /// The maximum size of one answer in bytes. Default 16 MiB.
    pub max_answer_bytes: usize,
    /// Headers of clients that are passed on.
    pub forward_headers: Vec<String>,
    /// Anchors that are tried before the built-in ones.
    pub anchors: Vec<AnchorSpec>,
}

/// What a query over several models gets if one of them has no data.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartialAnswers {
    /// An error that names the model.
    #[default]
    Error,
    /// The result, with a warning.
    Warn,
}

/// One entry of `[[promql.anchors]]`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorSpec {
    /// A regular expression for complete names of metrics.
    pub name: String,
    /// The anchor's name, which may use groups of `name` (`${1}`).
    pub anchor: String,
    /// What it proves. Default alive.
    #[serde(default)]
    pub strength: AnchorStrength,
}

/// What an anchor proves.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnchorStrength {
    /// Without series of the metric, their sum is 0.
    Strong,
    /// The exporter is up, so a default in the query is right.
    #[default]
    Alive,
}

impl Default for PromqlConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            upstream: None,
            ttl: Duration::from_secs(5),
            answer_within: Duration::from_secs(1),
            max_age: Duration::from_secs(120),
            max_stale: Duration::from_secs(120),
            partial: PartialAnswers::default(),
            vanished_after: Duration::from_secs(300),
            max_query_bytes: 16 << 10,
            max_depth: 64,
            max_operators: 256,
            max_entries: 10_000,
            max_bytes: 64 << 20,
            max_answer_bytes: 16 << 20,
            forward_headers: Vec::new(),
            anchors: Vec::new(),
        }
    }
}
