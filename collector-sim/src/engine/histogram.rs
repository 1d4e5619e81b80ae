//! A Prometheus histogram whose sum is exact.

use std::time::Duration;

/// Counts by bucket, and the sum of what was observed.
///
/// Observations are whole numbers (tokens, nanoseconds), so that the sum does not depend on how
/// they were grouped: looking at a pod more often must not change what it shows.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// How many units make one on the page: 1, or 10^9 for nanoseconds shown as seconds.
    scale: f64,
    /// Not cumulative; the last one is `+Inf`.
    counts: Box<[u64]>,
    sum: u64,
}

impl Histogram {
    /// A histogram of numbers of tokens.
    pub(crate) fn of_tokens(bounds: &'static [f64]) -> Self {
        Self::new(bounds, 1.0)
    }

    /// A histogram of times, whose bounds are seconds.
    pub(crate) fn of_times(bounds: &'static [f64]) -> Self {
        Self::new(bounds, 1e9)
    }

    fn new(bounds: &'static [f64], scale: f64) -> Self {
        Self { bounds, scale, counts: vec![0; bounds.len() + 1].into(), sum: 0 }
    }

    /// The upper bounds of its buckets, without `+Inf`.
    pub(crate) fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    pub(crate) fn observe(&mut self, value: impl Unit) {
        self.observe_many(value, 1);
    }

    /// The same value `times` times.
    pub(crate) fn observe_many(&mut self, value: impl Unit, times: u64) {
        let units = value.units();
        let shown = units as f64 / self.scale;
        let bucket = self.bounds.partition_point(|bound| *bound < shown);
        self.counts[bucket] += times;
        self.sum = self.sum.saturating_add(units.saturating_mul(times));
    }

    /// The sum in whole units: tokens, or nanoseconds.
    pub(crate) fn sum_units(&self) -> u64 {
        self.sum
    }

    /// The sum as the page shows it.
    pub(crate) fn sum(&self) -> f64 {
        self.sum as f64 / self.scale
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many observations lie in this bucket and those below it.
    pub(crate) fn up_to(&self, bucket: usize) -> u64 {
        self.counts.iter().take(bucket + 1).sum()
    }

    /// Adds what another histogram of the same bounds has observed.
    pub(crate) fn add(&mut self, other: &Self) {
        debug_assert_eq!(self.bounds, other.bounds, "histograms of different bounds");
        for (count, others) in self.counts.iter_mut().zip(&other.counts) {
            *count += others;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }
}

/// What can be observed: a whole number of some unit.
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
