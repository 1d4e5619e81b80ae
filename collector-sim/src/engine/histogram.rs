// SPDX-License-Identifier: Apache-2.0
//! A Prometheus histogram whose sum is exact.

use std::time::Duration;

/// Counts by bucket, and the sum of the observations.
///
/// Observations are integers (tokens, nanoseconds), so the sum does not depend on their grouping: reading a
/// pod more often must not change its values.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// Units per unit of the page: 1, or 10^9 for nanoseconds shown as seconds.
    scale: f64,
    /// Not cumulative; the last one is `+Inf`.
    counts: Box<[u64]>,
    sum: u64,
}

impl Histogram {
    /// Makes a histogram of numbers of tokens.
    pub(crate) fn of_tokens(bounds: &'static [f64]) -> Self {
        Self::new(bounds, 1.0)
    }

    /// Makes a histogram of times with bounds in seconds.
    pub(crate) fn of_times(bounds: &'static [f64]) -> Self {
        Self::new(bounds, 1e9)
    }

    fn new(bounds: &'static [f64], scale: f64) -> Self {
        Self { bounds, scale, counts: vec![0; bounds.len() + 1].into(), sum: 0 }
    }

    /// Returns the upper bounds of its buckets, without `+Inf`.
    pub(crate) fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    pub(crate) fn observe(&mut self, value: impl Unit) {
        self.observe_many(value, 1);
    }

    /// Observes the same value several times.
    pub(crate) fn observe_many(&mut self, value: impl Unit, times: u64) {
        let units = value.units();
        let shown = units as f64 / self.scale;
        let bucket = self.bounds.partition_point(|bound| *bound < shown);
        self.counts[bucket] += times;
        self.sum = self.sum.saturating_add(units.saturating_mul(times));
    }

    /// Returns the sum in whole units: tokens, or nanoseconds.
    pub(crate) fn sum_units(&self) -> u64 {
        self.sum
    }

    /// Returns the sum as shown on the page.
    pub(crate) fn sum(&self) -> f64 {
        self.sum as f64 / self.scale
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the cumulative count of a bucket.
    pub(crate) fn up_to(&self, bucket: usize) -> u64 {
        self.counts.iter().take(bucket + 1).sum()
    }

    /// Adds the observations of another histogram with the same bounds.
    pub(crate) fn add(&mut self, other: &Self) {
        debug_assert_eq!(self.bounds, other.bounds, "histograms of different bounds");
        for (count, others) in self.counts.iter_mut().zip(&other.counts) {
            *count += others;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }
}

/// An observable value: a whole number of a unit.
pub(crate) trait Unit {
    fn units(self) -> u64;
}

impl Unit for u32 {
    fn units(self) -> u64 {
        u64::from(self)
    }
}

impl Unit for Duration {
    fn units(self) -> u64 {
        u64::try_from(self.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_below_it() {
        let mut histogram = Histogram::of_times(&[0.01, 0.025]);
        histogram.observe(Duration::from_millis(10));
        histogram.observe_many(Duration::from_millis(25), 2);
        histogram.observe(Duration::from_secs(1));

        assert_eq!([0, 1, 2].map(|bucket| histogram.up_to(bucket)), [1, 3, 4]);
        assert_eq!(histogram.count(), 4);
        assert!((histogram.sum() - 1.06).abs() < 1e-12);
    }
}
