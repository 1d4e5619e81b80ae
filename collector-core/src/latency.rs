// SPDX-License-Identifier: Apache-2.0
//! Histograms of latencies over the window: how long requests took, not only on average.

use std::sync::Arc;

use crate::clock::Tick;

/// The latencies of one replica over the window.
///
/// A histogram is `None` if it is not known: the server has none, or there are not two metrics pages within the window
/// yet. One of no observations is known: nothing ended.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Latencies {
    /// When the window ended: the sampling time of the older of the two.
    pub sampled_at: Tick,
    /// Times to first token.
    pub ttft: Option<LatencyHistogram>,
    /// Inter-token latencies.
    pub itl: Option<LatencyHistogram>,
}

impl Latencies {
    /// Latencies of a window that ended at `sampled_at`.
    pub fn new(
        sampled_at: Tick,
        ttft: Option<LatencyHistogram>,
        itl: Option<LatencyHistogram>,
    ) -> Self {
        Self { sampled_at, ttft, itl }
    }

    /// About how many bytes they hold.
    pub(crate) fn bytes(&self) -> usize {
        let histograms = [&self.ttft, &self.itl].into_iter().flatten();
        size_of::<Self>() + histograms.map(LatencyHistogram::bytes).sum::<usize>()
    }
}

/// How many latencies ended in each range, in seconds. Cheap to clone.
#[derive(Clone, PartialEq, Debug)]
pub struct LatencyHistogram {
    /// Upper bounds of the buckets: ascending, the last one infinite.
    bounds: Arc<[f64]>,
    /// The observations of each bucket alone.
    counts: Arc<[u64]>,
}

impl LatencyHistogram {
    /// A histogram of buckets with these upper bounds in seconds, and the observations of each bucket alone, not those
    /// of the buckets below it.
    ///
    /// `None` unless the bounds ascend from at least 0 to infinity, one of them is finite, and each has a count.
    pub fn new(bounds: Arc<[f64]>, counts: impl Into<Arc<[u64]>>) -> Option<Self> {
        let counts = counts.into();
        let is_valid = Self::are_bounds(&bounds) && counts.len() == bounds.len();
        is_valid.then_some(Self { bounds, counts })
    }

    /// Whether these can be the upper bounds of a histogram, as [`new`](Self::new) demands.
    pub fn are_bounds(bounds: &[f64]) -> bool {
        let [first, .., last] = bounds else { return false };
        *first >= 0.0 && *last == f64::INFINITY && bounds.is_sorted_by(|one, next| one < next)
    }

    /// The upper bounds of the buckets in seconds; the last one is infinite.
    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    /// The observations of each bucket alone.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The number of observations.
    pub fn observations(&self) -> u64 {
        self.counts.iter().copied().fold(0, u64::saturating_add)
    }

    /// Returns the latency in seconds that a share `q` of the observations did not exceed, as
    /// `histogram_quantile` of Prometheus estimates it: linear within a bucket, and above the greatest finite bound
    /// that bound.
    ///
    /// `None` if there are no observations, or `q` is not in 0 < `q` <= 1.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let all = self.observations();
        if all == 0 || !(q > 0.0 && q <= 1.0) {
            return None;
        }
        let rank = q * all as f64;
        let (mut below, mut start) = (0, 0.0);
        for (bound, count) in self.bounds.iter().zip(&*self.counts) {
            let up_to = count.saturating_add(below);
            if bound.is_infinite() {
                break;
            }
            if up_to as f64 >= rank {
                let share = (rank - below as f64) / *count as f64;
                return Some(start + (bound - start) * share);
            }
            (below, start) = (up_to, *bound);
        }
        Some(start)
    }

    /// Returns the histogram of the observations of all of these; `None` of none.
    ///
    /// Histograms with different bounds have their common ones: the counts up to these are exact, so a quantile is
    /// within the right bucket, which is wider. If that lost the bound above which quantiles are not estimated, that
    /// is the least of their greatest finite bounds, the result is `None`: its quantiles would be too low.
    pub fn merged<'a>(all: impl IntoIterator<Item = &'a Self, IntoIter: Clone>) -> Option<Self> {
        let mut rest = all.into_iter();
        let first = rest.next()?;
        if rest.clone().next().is_none() {
            return Some(first.clone());
        }
        let bounds = common_bounds(first, rest.clone())?;
        let mut counts = vec![0_u64; bounds.len()];
        for histogram in std::iter::once(first).chain(rest) {
            let mut index = 0;
            for (bound, count) in histogram.bounds.iter().zip(&*histogram.counts) {
                counts[index] = counts[index].saturating_add(*count);
                // Each histogram has all of these bounds, and the last of both is infinite.
                if *bound >= bounds[index] {
                    index += 1;
                }
            }
        }
        Self::new(bounds, counts)
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.bounds) + size_of_val(&*self.counts)
    }

    fn greatest_finite(&self) -> f64 {
        self.bounds[self.bounds.len() - 2]
    }
}

/// The bounds that all histograms have; `None` without the greatest that can be estimated by all.
fn common_bounds<'a>(
    first: &LatencyHistogram,
    rest: impl Iterator<Item = &'a LatencyHistogram> + Clone,
) -> Option<Arc<[f64]>> {
    let is_same = |other: &LatencyHistogram| {
        Arc::ptr_eq(&first.bounds, &other.bounds) || first.bounds == other.bounds
    };
    if rest.clone().all(is_same) {
        return Some(Arc::clone(&first.bounds));
    }
    let is_common = |bound: &f64| rest.clone().all(|other| other.bounds.contains(bound));
    let common: Arc<[f64]> = first.bounds.iter().copied().filter(is_common).collect();
    let greatest = rest.map(LatencyHistogram::greatest_finite);
    let least = greatest.fold(first.greatest_finite(), f64::min);
    common.contains(&least).then_some(common)
}
