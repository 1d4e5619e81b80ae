// SPDX-License-Identifier: Apache-2.0
//! What every field means over a window: the one definition that all backends share.
//!
//! A backend that scrapes computes these from its samples, one that asks a PromQL server writes the
//! query that does; both are tested against the functions here. The window of the peaks and rates is
//! the backend's setting (`window`); that of the prefix cache is at least [`PREFIX_CACHE_WINDOW`],
//! because hits come in bursts.
//!
//! | field | of each data-parallel engine | of the replica | unknown | a known zero |
//! |---|---|---|---|---|
//! | `kv_cache_usage` | [`peak`] over the window | the greatest | no sample of it | the gauge was 0 |
//! | `queue_length` | [`peak`] over the window | the sum | no sample of it | the gauge was 0 |
//! | `waiting_for_capacity` | [`peak`] over the window | the sum | an engine does not report it | the gauge was 0 |
//! | `running_requests` | the latest sample | the sum | not on the last page | the gauge is 0 |
//! | `num_gpu_blocks` | the latest | the sum | not on the last page, `None` | |
//! | `block_size` | the latest | the same for all | likewise | |
//! | `prefix_cache_hit_rate` | | [`mean_over_window`](crate::mean_over_window) of hits over queries | no rate of either; nothing was looked up and something runs | nothing was looked up and nothing runs |
//! | rates of [`LoadRates`](crate::LoadRates) | [`rate`] of the counter over the window | the sum | fewer than two samples in the window | the counter did not move |
//! | means of [`Load`](crate::Load) | | [`mean_over_window`](crate::mean_over_window) of summed rates | a rate is unknown; no request finished and something runs | no request finished and nothing runs |
//!
//! # Counters
//! A counter that falls has been reset: its new value is all that was counted since ([`step`]), so that
//! a restart never makes a rate negative. A [`rate`] is the increase between the first and the last
//! sample in the window over the time between the two. PromQL's `rate` extends it to the ends of the
//! window, which is the same for a series that lives longer than the window, and less for a younger one.
//!
//! # Peaks
//! A gauge is read at its samples; what it does between two of them is not seen. The peaks of the engines
//! of one pod need not have been at one moment, so their sum is an upper bound of the pod's own peak.

use std::time::Duration;

/// The least time over which the hit rate of the prefix cache is taken.
pub const PREFIX_CACHE_WINDOW: Duration = Duration::from_secs(300);

/// The greatest of a gauge's samples in the window; `None` when there is none. NaN is no sample.
pub fn peak(samples: impl IntoIterator<Item = f64>) -> Option<f64> {
    samples.into_iter().filter(|sample| !sample.is_nan()).reduce(f64::max)
}

/// By how much a counter went up between two samples that follow each other. A fall is a reset, after
/// which the new value is all that was counted.
pub fn step(before: f64, now: f64) -> f64 {
    if now < before { now } else { now - before }
}

/// By how much a counter went up over its samples, oldest first; `None` for fewer than two.
pub fn increase(samples: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut samples = samples.into_iter();
    let mut before = samples.next()?;
    let mut sum = None;
    for now in samples {
        sum = Some(sum.unwrap_or(0.0) + step(before, now));
        before = now;
    }
    sum
}

/// The rate per second of a counter that went up by `increase` within `time`; `None` for no time.
pub fn rate(increase: f64, time: Duration) -> Option<f64> {
    (!time.is_zero()).then(|| increase / time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_the_greatest_sample_and_none_of_none() {
        assert_eq!(peak([0.2, 0.9, 0.1]), Some(0.9));
        assert_eq!(peak([f64::NAN, 0.0]), Some(0.0));
        assert_eq!(peak([]), None);
    }

    #[test]
    fn a_reset_counts_what_came_after_it_and_is_never_negative() {
        assert_eq!(increase([10.0, 15.0, 2.0, 4.0]), Some(5.0 + 2.0 + 2.0));
        assert_eq!(increase([10.0, 0.0]), Some(0.0));
    }

    #[test]
    fn one_sample_has_no_increase_and_a_counter_that_stands_still_has_a_known_zero() {
        assert_eq!(increase([10.0]), None);
        assert_eq!(increase([10.0, 10.0]), Some(0.0));
        assert_eq!(rate(0.0, Duration::from_secs(1)), Some(0.0));
        assert_eq!(rate(5.0, Duration::from_secs(2)), Some(2.5));
        assert_eq!(rate(5.0, Duration::ZERO), None);
    }
}
