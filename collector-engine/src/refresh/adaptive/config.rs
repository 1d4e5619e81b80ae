// SPDX-License-Identifier: Apache-2.0
//! The settings of adaptive ttls, and how they relate to the others.

use std::time::Duration;

use collector_core::duration;
use serde::{Deserialize, Serialize};

use crate::config::CacheConfig;

/// Whether, and between which bounds, each model has a ttl of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdaptiveConfig {
    /// False: every model has `cache.ttl` and is refreshed each `cache.fetch_interval`. Default false.
    pub enabled: bool,
    /// No ttl is shorter. Default 15 s, how often a Prometheus usually scrapes: a fetch in between would
    /// see the same samples again.
    #[serde(with = "collector_core::duration")]
    pub min_ttl: Duration,
    /// No ttl is longer. Default 1 minute, the default of `fresh_threshold`: what is idle is then hardly
    /// ever called stale.
    #[serde(with = "collector_core::duration")]
    pub max_ttl: Duration,
}

impl Default for AdaptiveConfig {
    fn default() -> Self {
        Self { enabled: false, min_ttl: Duration::from_secs(15), max_ttl: Duration::from_secs(60) }
    }
}

/// A key with its value.
pub(crate) type Setting = (&'static str, Duration);

const MIN_TTL: &str = "cache.adaptive.min_ttl";
const MAX_TTL: &str = "cache.adaptive.max_ttl";

impl AdaptiveConfig {
    /// What must be below what, given the time-outs of the backends that are asked.
    pub(crate) fn relations(
        &self,
        cache: &CacheConfig,
        timeouts: &[Setting],
    ) -> Vec<(Setting, Setting)> {
        if !self.enabled {
            return Vec::new();
        }
        let (min, max) = ((MIN_TTL, self.min_ttl), (MAX_TTL, self.max_ttl));
        let mut relations: Vec<_> = timeouts.iter().map(|timeout| (*timeout, min)).collect();
        relations.push((min, max));
        let unavailable = cache.freshness.unavailable_threshold;
        relations.push((max, ("cache.freshness.unavailable_threshold", unavailable)));
        // Each of the bounds may be the interval itself.
        let (key, base) = cache.base();
        if self.min_ttl > base {
            relations.push((min, (key, base)));
        }
        if base > self.max_ttl {
            relations.push(((key, base), max));
        }
        relations
    }

    /// Settings that work and waste something, in words.
    pub(crate) fn warnings(&self, cache: &CacheConfig) -> Vec<String> {
        if !self.enabled {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        let fresh = cache.freshness.fresh_threshold;
        if self.max_ttl > fresh {
            warnings.push(format!(
                "{MAX_TTL} ({}) is above cache.freshness.fresh_threshold ({}): the readings of idle \
                 models are called stale before they are refreshed; set {MAX_TTL} to at most {}, or \
                 the threshold to more",
                duration::format(self.max_ttl),
                duration::format(fresh),
                duration::format(fresh),
            ));
        }
        let (key, base) = cache.base();
        if self.min_ttl < base / 2 || self.max_ttl > base.saturating_mul(2) {
            warnings.push(format!(
                "{MIN_TTL} ({}) or {MAX_TTL} ({}) is further from {key} ({}) than half of it or twice it: \
                 where all models move alike, readings are then up to twice as wrong as with one ttl for \
                 all; set them to {} and {}",
                duration::format(self.min_ttl),
                duration::format(self.max_ttl),
                duration::format(base),
                duration::format(base / 2),
                duration::format(base.saturating_mul(2)),
            ));
        }
        warnings
    }
}
