// SPDX-License-Identifier: Apache-2.0
//! The section `[metrics]`: what is on `/metrics` of `serve`.

use serde::Deserialize;

/// What is on `/metrics` of `serve`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Whether each replica has series of its own. Default true.
    pub per_replica: bool,
    /// Whether the families that the upstream autoscaler names `wva_*` are there under those names as well. Default
    /// true.
    pub upstream_names: bool,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { per_replica: true, upstream_names: true }
    }
}
