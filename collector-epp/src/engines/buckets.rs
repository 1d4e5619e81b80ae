// SPDX-License-Identifier: Apache-2.0
//! Collects the buckets of histograms from the samples of a metrics page.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use collector_core::LatencyHistogram;
use foldhash::fast::RandomState;

use super::exposition::Buckets;
use super::rows::RowId;
use super::table::SlotId;
use crate::scan::{NameId, Sample, number_of};

/// The label of a bucket's upper bound.
pub(super) const BOUND: &str = "le";
/// Buckets of one series: three times what servers have. A histogram with more is not used.
const BUCKETS_MAX: usize = 64;
/// Series of histograms of one page: four for each of 256 ranks. Of a page with more, no histogram is used.
const SERIES_MAX: usize = 1024;
/// The greatest count that a sample gives exactly.
const COUNT_MAX: f64 = (1_u64 << 53) as f64;

/// The buckets of one page, by series.
#[derive(Default, Debug)]
pub(super) struct BucketsSeen {
    series: Vec<Seen>,
    ids: HashMap<(NameId, u64), usize, RandomState>,
    /// The series of the last bucket: those of one series follow each other.
    last: usize,
    beyond_limit: bool,
}

/// One series of a histogram.
#[derive(Debug)]
struct Seen {
    name: NameId,
    /// Hash of its labels without the bound.
    hash: u64,
    /// The histograms and rows that it is part of.
    places: Vec<(SlotId, RowId)>,
    /// Bounds with the observations up to each, in page order; `None` if they cannot be a histogram.
    points: Option<Vec<(f64, u64)>>,
}

impl BucketsSeen {
    /// Adds a bucket of the series with this hash. `places` returns the histograms and rows of a new series; `None` if
    /// there are too many rows.
    pub(super) fn take(
        &mut self,
        sample: &Sample<'_>,
        hash: u64,
        places: impl FnOnce() -> Option<Vec<(SlotId, RowId)>>,
    ) {
        let name = sample.name;
        let is_it = |seen: &Seen| (seen.name, seen.hash) == (name, hash);
        if !self.series.get(self.last).is_some_and(is_it) {
            if let Some(index) = self.ids.get(&(name, hash)) {
                self.last = *index;
            } else {
                let places = places().filter(|_| self.series.len() < SERIES_MAX);
                let Some(places) = places else {
                    self.beyond_limit = true;
                    return;
                };
                self.last = self.series.len();
                self.ids.insert((name, hash), self.last);
                let points = Some(Vec::with_capacity(BUCKETS_MAX / 2));
                self.series.push(Seen { name, hash, places, points });
            }
        }
        self.series[self.last].take(sample);
    }

    /// Returns the usable histograms by slot and row, of those slots that are used. `homes` has the row that each row
    /// belongs to, and `may_lack` returns whether buckets of a name may be missing.
    pub(super) fn histograms(
        self,
        homes: &[RowId],
        is_used: impl Fn(SlotId) -> bool,
        may_lack: impl Fn(NameId) -> bool,
    ) -> HashMap<(SlotId, RowId), Buckets> {
        if self.beyond_limit {
            return HashMap::new();
        }
        let mut all: HashMap<(SlotId, RowId), Option<Buckets>> = HashMap::new();
        for Seen { name, hash, mut places, points } in self.series {
            places.retain(|(slot, _)| is_used(*slot));
            if places.is_empty() {
                continue;
            }
            let own = points.filter(|_| !may_lack(name)).and_then(histogram);
            for (slot, row) in places {
                let own = own.clone();
                match all.entry((slot, homes[usize::from(row)])) {
                    Entry::Vacant(place) => {
                        place.insert(own.map(|(bounds, counts)| Buckets {
                            bounds,
                            series: vec![(hash, counts)],
                        }));
                    }
                    Entry::Occupied(mut place) => {
                        let joined = place.get_mut().take().zip(own);
                        *place.get_mut() = joined.and_then(|(mut buckets, (bounds, counts))| {
                            buckets.series.push((hash, counts));
                            (buckets.bounds == bounds).then_some(buckets)
                        });
                    }
                }
            }
        }
        all.into_iter().filter_map(|(place, buckets)| Some((place, buckets?))).collect()
    }
}

impl Seen {
    fn take(&mut self, sample: &Sample<'_>) {
        let bound = sample.labels.get(BOUND);
        let bound = bound.and_then(|bound| number_of(bound.as_bytes()).ok());
        let value = sample.value;
        let is_count = (0.0..=COUNT_MAX).contains(&value) && value.fract() == 0.0;
        match (&mut self.points, bound) {
            (Some(points), Some(bound)) if is_count && points.len() < BUCKETS_MAX => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "it is a count"
                )]
                points.push((bound, value as u64));
            }
            (points, _) => *points = None,
        }
    }
}

/// The bounds of buckets, and the observations of each bucket alone.
type Histogram = (Arc<[f64]>, Box<[u64]>);

/// Returns the histogram of these buckets. Of a bucket that is there several times, the first counts. `None` if these are
/// no buckets of a histogram: without an infinite bound, or with falling counts.
fn histogram(mut points: Vec<(f64, u64)>) -> Option<Histogram> {
    points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    points.dedup_by_key(|(bound, _)| bound.to_bits());
    let bounds: Arc<[f64]> = points.iter().map(|(bound, _)| *bound).collect();
    let mut below = 0;
    let own = points.iter().map(|(_, up_to)| {
        let own = up_to.checked_sub(below)?;
        below = *up_to;
        Some(own)
    });
    let counts: Box<[u64]> = own.collect::<Option<_>>()?;
    LatencyHistogram::are_bounds(&bounds).then_some((bounds, counts))
}
