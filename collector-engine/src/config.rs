// SPDX-License-Identifier: Apache-2.0
//! How a collector caches and refreshes: the architecture's `CacheConfig`.

use std::path::PathBuf;
use std::time::Duration;

use collector_core::{FreshnessThresholds, IntervalError, ThresholdsError, VariantName, duration};
use serde::{Deserialize, Serialize};

use crate::refresh::adaptive::AdaptiveConfig;

/// How values are cached, refreshed and labelled.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// False: nothing is kept and every read asks the backend, still coalesced. Default true.
    pub enabled: bool,
    /// How long a value is served without starting a refresh. Default 30 s.
    #[serde(with = "collector_core::duration")]
    pub ttl: Duration,
    /// How often entries that have expired are removed. Default 1 minute.
    #[serde(with = "collector_core::duration")]
    pub cleanup_interval: Duration,
    /// How often everything tracked is refreshed in the background; 0 is never. Default 30 s, half
    /// of `fresh_threshold`: one lost cycle still leaves a fresh value.
    #[serde(with = "collector_core::duration")]
    pub fetch_interval: Duration,
    /// How many entries are kept at most: one for the replicas of each model, one for each allocation. Default
    /// 100 000.
    pub max_entries: usize,
    /// About how many bytes the entries hold at most, their values included. Default 256 MiB, enough for
    /// some 45 000 models of 8 replicas at 5.9 kB each.
    pub max_bytes: usize,
    /// Which entries are evicted when the cache is full. Default LRU.
    pub eviction: EvictionPolicy,
    /// How long the news that a model has no series is believed. Default 10 s.
    #[serde(with = "collector_core::duration")]
    pub missing_ttl: Duration,
    /// The file that the last readings are written to, each minute and when the background worker stops,
    /// and read from when it starts. Without it, the default, a restart begins with nothing.
    pub snapshot_path: Option<PathBuf>,
    /// What an age means.
    pub freshness: FreshnessThresholds,
    /// Whether each model has a ttl of its own.
    pub adaptive: AdaptiveConfig,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            ttl: Duration::from_secs(30),
            cleanup_interval: Duration::from_secs(60),
            fetch_interval: Duration::from_secs(30),
            max_entries: 100_000,
            max_bytes: 256 << 20,
            eviction: EvictionPolicy::Lru,
            missing_ttl: Duration::from_secs(10),
            snapshot_path: None,
            freshness: FreshnessThresholds::default(),
            adaptive: AdaptiveConfig::default(),
        }
    }
}

/// Which entries are evicted when the cache is full. Untracked models are evicted first in any case.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EvictionPolicy {
    /// The least recently read.
    #[default]
    Lru,
    /// A former policy: accepted, with a warning, and the least recently read are evicted.
    Sieve,
}

/// Settings that cannot work together, or on their own.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TimingError {
    /// Two keys contradict each other.
    #[error(
        "{lower} ({}) must be below {upper} ({}): {advice}",
        duration::format(*.lower_value), duration::format(*.upper_value)
    )]
    Order {
        /// The key whose value must be the smaller one.
        lower: &'static str,
        /// Its value.
        lower_value: Duration,
        /// The key whose value must be the greater one.
        upper: &'static str,
        /// Its value.
        upper_value: Duration,
        /// A value that works.
        advice: String,
    },
    /// A variant has an interval of its own that cannot work.
    #[error("variant {variant:?}: {error}")]
    Interval {
        /// The variant.
        variant: VariantName,
        /// What is wrong with its interval.
        error: IntervalError,
    },
    /// The freshness thresholds are out of order.
    #[error("cache.freshness: {0}")]
    Thresholds(#[from] ThresholdsError),
    /// A key that must not be zero is.
    #[error("{key} is 0, which means nothing here: set it to {advice}")]
    Zero {
        /// The key.
        key: &'static str,
        /// A value that works.
        advice: &'static str,
    },
    /// A path of a file that can be none.
    #[error("{key} ({}) names no file: set it to {advice}", .path.display())]
    NoFile {
        /// The key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
        /// A value that works.
        advice: &'static str,
    },
}

impl CacheConfig {
    /// Checks the settings against each other and against the time-outs, each with its key, of the
    /// backends that are asked; every broken relation is reported, not just the first.
    ///
    /// # Errors
    /// One error for each broken relation, with the keys' paths in a configuration file.
    pub fn validate(&self, timeouts: &[(&'static str, Duration)]) -> Result<(), Vec<TimingError>> {
        let mut errors = Vec::new();
        if let Err(error) = self.freshness.validate() {
            errors.push(error.into());
        }
        for (key, _) in timeouts.iter().filter(|(_, timeout)| timeout.is_zero()) {
            errors.push(TimingError::Zero { key, advice: "5s" });
        }
        if !self.enabled {
            // Nothing is kept and nothing refreshed: the other settings mean nothing.
            return if errors.is_empty() { Ok(()) } else { Err(errors) };
        }
        if self.adaptive.enabled && self.adaptive.min_ttl.is_zero() {
            errors.push(TimingError::Zero { key: "cache.adaptive.min_ttl", advice: "15s" });
        }
        for (key, value, advice) in [
            ("cache.ttl", self.ttl, "30s (to cache nothing, set cache.enabled = false)"),
            ("cache.cleanup_interval", self.cleanup_interval, "1m"),
            ("cache.freshness.fresh_threshold", self.freshness.fresh_threshold, "1m"),
            ("cache.freshness.unavailable_threshold", self.freshness.unavailable_threshold, "5m"),
        ] {
            if value.is_zero() {
                errors.push(TimingError::Zero { key, advice });
            }
        }
        let unavailable =
            ("cache.freshness.unavailable_threshold", self.freshness.unavailable_threshold);
        let fetch_interval = ("cache.fetch_interval", self.fetch_interval);
        let all_push = timeouts.is_empty();
        let adaptive = self.adaptive.relations(self, timeouts);
        let timeouts = timeouts.iter().map(|timeout| (*timeout, fetch_interval));
        let others = [(("cache.ttl", self.ttl), unavailable), (fetch_interval, unavailable)];
        for ((lower, lower_value), (upper, upper_value)) in timeouts.chain(others).chain(adaptive) {
            // A fetch interval of 0, or of backends that all push, means no background fetching;
            // nothing relates to it then.
            let no_fetching = self.fetch_interval.is_zero() || all_push;
            let off = no_fetching && [lower, upper].contains(&"cache.fetch_interval");
            if !off
                && !lower_value.is_zero()
                && !upper_value.is_zero()
                && lower_value >= upper_value
            {
                errors.push(TimingError::Order {
                    lower,
                    lower_value,
                    upper,
                    upper_value,
                    advice: format!(
                        "set {upper} to {} or more, or {lower} to {} or less",
                        duration::format(lower_value * 2),
                        duration::format(upper_value / 2),
                    ),
                });
            }
        }
        if let Some(path) = self.snapshot_path.as_ref().filter(|path| path.file_name().is_none()) {
            errors.push(TimingError::NoFile {
                key: "cache.snapshot_path",
                path: path.clone(),
                advice: "/var/lib/collector/readings.snapshot, for example",
            });
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// How often a model is refreshed that has no other pace, and the key that says so: a ttl where
    /// nothing is refreshed in the background.
    pub(crate) fn base(&self) -> (&'static str, Duration) {
        if self.fetch_interval.is_zero() {
            ("cache.ttl", self.ttl)
        } else {
            ("cache.fetch_interval", self.fetch_interval)
        }
    }

    /// Whether a model can be refreshed each `interval`, given the greatest time-out of the backends
    /// that are asked; zero where none is.
    ///
    /// # Errors
    /// When it is not above `timeout`, or not below `unavailable_threshold`.
    pub fn check_interval(
        &self,
        interval: Duration,
        timeout: Duration,
    ) -> Result<(), IntervalError> {
        let unavailable_threshold = self.freshness.unavailable_threshold;
        if interval <= timeout {
            Err(IntervalError::TooShort { interval, timeout })
        } else if interval >= unavailable_threshold {
            Err(IntervalError::TooLong { interval, unavailable_threshold })
        } else {
            Ok(())
        }
    }

    /// Settings that work and waste something, in words.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.enabled && !self.fetch_interval.is_zero() && self.fetch_interval > self.ttl {
            warnings.push(format!(
                "cache.fetch_interval ({}) is above cache.ttl ({}): reads between two refreshes \
                 live on last-known-good values and each start a refresh; set cache.ttl to at \
                 least {}",
                duration::format(self.fetch_interval),
                duration::format(self.ttl),
                duration::format(self.fetch_interval),
            ));
        }
        if !self.enabled && self.snapshot_path.is_some() {
            warnings.push(
                "cache.snapshot_path is ignored: with cache.enabled = false there is nothing to \
                 write to it"
                    .to_owned(),
            );
        }
        if self.enabled && self.eviction == EvictionPolicy::Sieve {
            warnings.push(
                "cache.eviction = \"sieve\" has no effect any more: the least recently read entries are \
                 evicted; remove the key or set it to \"lru\""
                    .to_owned(),
            );
        }
        if self.enabled {
            warnings.extend(self.adaptive.warnings(self));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[track_caller]
    fn check(config: &CacheConfig, timeout: Duration, expected: &[&str]) {
        let errors = config.validate(&[("prometheus.timeout", timeout)]).err().unwrap_or_default();
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), expected.len(), "{texts:?}");
        for (text, part) in texts.iter().zip(expected) {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
    }

    #[test]
    fn the_defaults_work_without_a_warning() {
        check(&CacheConfig::default(), secs(5), &[]);
        assert!(CacheConfig::default().warnings().is_empty());
    }

    #[test]
    fn each_broken_relation_names_both_keys_and_values_that_work() {
        check(
            &CacheConfig { fetch_interval: secs(4), ..CacheConfig::default() },
            secs(5),
            &[
                "prometheus.timeout (5s) must be below cache.fetch_interval (4s): set cache.fetch_interval to 10s or more",
            ],
        );
        check(
            &CacheConfig { ttl: secs(300), ..CacheConfig::default() },
            secs(5),
            &["cache.ttl (5m) must be below cache.freshness.unavailable_threshold (5m)"],
        );
        check(
            &CacheConfig { ttl: secs(400), fetch_interval: secs(600), ..CacheConfig::default() },
            secs(5),
            &["cache.ttl", "cache.fetch_interval"],
        );
        check(
            &CacheConfig { ttl: Duration::ZERO, ..CacheConfig::default() },
            secs(5),
            &["cache.ttl is 0"],
        );
    }

    #[test]
    fn without_a_cache_its_settings_mean_nothing() {
        let off = CacheConfig { enabled: false, ttl: Duration::ZERO, ..CacheConfig::default() };
        check(&off, secs(500), &[]);
        check(&off, Duration::ZERO, &["prometheus.timeout is 0"]);
    }

    #[test]
    fn a_snapshot_needs_a_file_and_something_to_keep() {
        let at =
            |path: &str| CacheConfig { snapshot_path: Some(path.into()), ..CacheConfig::default() };
        check(&at("/var/lib/collector/readings"), secs(5), &[]);
        check(&at("/var/lib/.."), secs(5), &["cache.snapshot_path (/var/lib/..) names no file"]);
        let off = CacheConfig { enabled: false, ..at("readings") };
        check(&off, secs(5), &[]);
        assert_eq!(off.warnings().len(), 1);
        assert!(off.warnings()[0].starts_with("cache.snapshot_path is ignored"));
        assert_eq!(at("readings").warnings(), [""; 0]);
        assert_eq!(CacheConfig { snapshot_path: None, ..off }.warnings(), [""; 0]);
    }

    #[test]
    fn without_background_fetching_its_relations_drop_out() {
        check(
            &CacheConfig { fetch_interval: Duration::ZERO, ..CacheConfig::default() },
            secs(50),
            &[],
        );
    }

    #[test]
    fn where_all_backends_push_nothing_relates_to_the_fetch_interval() {
        let slow = CacheConfig { fetch_interval: secs(400), ..CacheConfig::default() };
        assert_eq!(slow.validate(&[]), Ok(()));
        check(&slow, secs(5), &["cache.fetch_interval (6m40s) must be below"]);
    }

    fn adaptive(min: u64, max: u64) -> CacheConfig {
        let adaptive = AdaptiveConfig { enabled: true, min_ttl: secs(min), max_ttl: secs(max) };
        CacheConfig { adaptive, ..CacheConfig::default() }
    }

    #[test]
    fn adaptive_ttls_lie_around_the_interval_and_between_time_out_and_unavailable() {
        let mut defaults = CacheConfig::default();
        defaults.adaptive.enabled = true;
        check(&defaults, secs(5), &[]);
        assert!(defaults.warnings().is_empty(), "{:?}", defaults.warnings());

        check(
            &adaptive(15, 60),
            secs(15),
            &["prometheus.timeout (15s) must be below cache.adaptive.min_ttl (15s)"],
        );
        check(
            &adaptive(15, 300),
            secs(5),
            &[
                "cache.adaptive.max_ttl (5m) must be below cache.freshness.unavailable_threshold (5m)",
            ],
        );
        check(
            &adaptive(40, 60),
            secs(5),
            &["cache.adaptive.min_ttl (40s) must be below cache.fetch_interval (30s)"],
        );
        check(
            &adaptive(10, 20),
            secs(5),
            &["cache.fetch_interval (30s) must be below cache.adaptive.max_ttl (20s)"],
        );
        check(&adaptive(30, 30), secs(5), &["cache.adaptive.min_ttl (30s) must be below"]);
        check(&adaptive(0, 60), secs(5), &["cache.adaptive.min_ttl is 0"]);
        let mut off = adaptive(0, 1000);
        off.adaptive.enabled = false;
        check(&off, secs(5), &[]);
    }

    #[test]
    fn adaptive_ttls_far_from_the_interval_or_above_fresh_are_wasteful() {
        assert_eq!(adaptive(20, 50).warnings(), [""; 0]);
        for (min, max) in [(10, 60), (15, 61)] {
            let warnings = adaptive(min, max).warnings();
            let last = warnings.last().expect("there is a warning");
            assert!(last.contains("set them to 15s and 1m"), "{warnings:?}");
        }
        let warnings = adaptive(15, 120).warnings();
        assert!(warnings[0].contains("called stale"), "{warnings:?}");
    }

    #[test]
    fn a_fetch_interval_above_the_ttl_is_wasteful() {
        let config = CacheConfig { fetch_interval: secs(60), ..CacheConfig::default() };
        check(&config, secs(5), &[]);
        assert_eq!(config.warnings().len(), 1);
    }
}
