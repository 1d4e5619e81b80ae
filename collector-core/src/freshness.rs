// SPDX-License-Identifier: Apache-2.0
//! How old is too old: thresholds on the age of a reading.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::nanos;

/// What an age means for a decision that is based on the value.
///
/// There is no "missing" here: a reading exists, so it has an age. A model without series has none
/// (see [`CollectError::Missing`](crate::CollectError::Missing)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Freshness {
    /// Younger than `fresh_threshold`: decide from it.
    Fresh,
    /// Usable, and outdated.
    Stale,
    /// As old as `unavailable_threshold` or older: not to be used.
    Unavailable,
}

impl Freshness {
    /// The word used in JSON, labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Ages at which a reading changes its [`Freshness`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FreshnessThresholds {
    /// Below this age a reading is fresh. Default 1 minute.
    #[serde(with = "crate::duration")]
    pub fresh_threshold: Duration,
    /// From this age on a warning is logged; the reading is stale already. Default 2 minutes.
    #[serde(with = "crate::duration")]
    pub stale_threshold: Duration,
    /// From this age on a reading is unavailable. Default 5 minutes.
    #[serde(with = "crate::duration")]
    pub unavailable_threshold: Duration,
}

impl Default for FreshnessThresholds {
    /// The thresholds that users of the Workload Variant Autoscaler already have.
    fn default() -> Self {
        Self {
            fresh_threshold: Duration::from_secs(60),
            stale_threshold: Duration::from_secs(120),
            unavailable_threshold: Duration::from_secs(300),
        }
    }
}

/// Thresholds that are not in ascending order.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{lower} ({}) is above {upper} ({}): set {upper} to at least {}", humantime::format_duration(*.lower_value), humantime::format_duration(*.upper_value), humantime::format_duration(*.lower_value))]
pub struct ThresholdsError {
    /// The key whose value must not be the greater one.
    pub lower: &'static str,
    /// Its value.
    pub lower_value: Duration,
    /// The key whose value must be at least as great.
    pub upper: &'static str,
    /// Its value.
    pub upper_value: Duration,
}

impl FreshnessThresholds {
    /// Freshness of a reading of this age.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use collector_core::{Freshness, FreshnessThresholds};
    /// let thresholds = FreshnessThresholds::default();
    /// assert_eq!(thresholds.determine_status(Duration::from_secs(59)), Freshness::Fresh);
    /// assert_eq!(thresholds.determine_status(Duration::from_secs(60)), Freshness::Stale);
    /// assert_eq!(thresholds.determine_status(Duration::from_secs(300)), Freshness::Unavailable);
    /// ```
    pub fn determine_status(&self, age: Duration) -> Freshness {
        self.status_of_nanos(nanos(age))
    }

    pub(crate) fn status_of_nanos(&self, age: u64) -> Freshness {
        if age < nanos(self.fresh_threshold) {
            Freshness::Fresh
        } else if age < nanos(self.unavailable_threshold) {
            Freshness::Stale
        } else {
            Freshness::Unavailable
        }
    }

    /// Whether a reading of this age is worth a warning.
    pub fn warns(&self, age: Duration) -> bool {
        age >= self.stale_threshold
    }

    /// Checks `fresh <= stale <= unavailable`.
    ///
    /// # Errors
    /// Names the two keys that are out of order and a value that would do.
    pub fn validate(&self) -> Result<(), ThresholdsError> {
        let in_order = |lower, lower_value, upper, upper_value| {
            if lower_value > upper_value {
                Err(ThresholdsError { lower, lower_value, upper, upper_value })
            } else {
                Ok(())
            }
        };
        in_order("fresh_threshold", self.fresh_threshold, "stale_threshold", self.stale_threshold)?;
        in_order(
            "stale_threshold",
            self.stale_threshold,
            "unavailable_threshold",
            self.unavailable_threshold,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(age_ms: u64, expected: Freshness, warns: bool) {
        let thresholds = FreshnessThresholds::default();
        let age = Duration::from_millis(age_ms);
        assert_eq!(thresholds.determine_status(age), expected);
        assert_eq!(thresholds.warns(age), warns);
    }

    #[test]
    fn a_threshold_belongs_to_the_state_it_begins() {
        check(0, Freshness::Fresh, false);
        check(59_999, Freshness::Fresh, false);
        check(60_000, Freshness::Stale, false);
        check(119_999, Freshness::Stale, false);
        check(120_000, Freshness::Stale, true);
        check(299_999, Freshness::Stale, true);
        check(300_000, Freshness::Unavailable, true);
        // Longer than nanoseconds can be counted.
        check(u64::MAX, Freshness::Unavailable, true);
    }

    #[test]
    fn thresholds_out_of_order_are_named_with_a_value_that_works() {
        let thresholds = FreshnessThresholds {
            stale_threshold: Duration::from_secs(30),
            ..FreshnessThresholds::default()
        };
        let error = thresholds.validate().unwrap_err();
        assert_eq!(
            error.to_string(),
            "fresh_threshold (1m) is above stale_threshold (30s): set stale_threshold to at least 1m"
        );
        assert!(FreshnessThresholds::default().validate().is_ok());
    }
}
