// SPDX-License-Identifier: Apache-2.0
//! Reads the samples of an endpoint picker's metrics page.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;

pub use collector_engines::endpoint_picker::{
    EndpointPickerEndpoint, EndpointPickerMetrics, EndpointPickerModel, EndpointPickerPool, Numbers,
};
use collector_engines::endpoint_picker::{Rows, Series};
use foldhash::fast::RandomState;

use crate::scan::{Labels, NameId, Sample, Wanted};

/// Series that are read of one page.
const SERIES_MAX: usize = 1 << 17;
/// Rows that are read of one series name. A pool of a thousand pods with as many models has fewer.
const ROWS_MAX: usize = 8192;

/// All series of endpoint pickers, looked up by the id of their name.
#[derive(Debug)]
pub(crate) struct Names {
    series: Vec<Series>,
    by_name: HashMap<NameId, Vec<usize>>,
}

impl Names {
    /// The names that a scanner must look for.
    pub(crate) fn all() -> impl Iterator<Item = Box<str>> {
        Series::all().into_iter().map(|series| series.name.into())
    }

    /// The series, by the ids that a scanner gives their names.
    pub(crate) fn new(wanted: &Wanted) -> Self {
        let series = Series::all();
        let mut by_name: HashMap<NameId, Vec<usize>> = HashMap::new();
        for (index, series) in series.iter().enumerate() {
            if let Some(id) = wanted.id_of(&series.name) {
                by_name.entry(id).or_default().push(index);
            }
        }
        Self { series, by_name }
    }

    /// The ids of the names.
    pub(crate) fn ids(&self) -> impl Iterator<Item = NameId> {
        self.by_name.keys().copied()
    }

    /// The series of a name, by their indices.
    fn of(&self, name: NameId) -> &[usize] {
        self.by_name.get(&name).map_or(&[], Vec::as_slice)
    }
}

/// Takes the samples of one metrics page after the other.
#[derive(Default, Debug)]
pub(crate) struct Reader {
    rows: Rows,
    /// Hashes of the label sets that were read of each series.
    seen: BTreeMap<usize, HashSet<u64, RandomState>>,
    /// How many were there before.
    repeated: BTreeMap<usize, u64>,
    series: usize,
    beyond_limit: u64,
    hasher: RandomState,
}

impl Reader {
    /// Takes a sample of one of the `names`.
    pub(crate) fn take(&mut self, names: &Names, sample: &Sample<'_>) {
        let value_of = |label: &str| sample.labels.get(label).filter(|value| !value.is_empty());
        for index in names.of(sample.name) {
            let series = &names.series[*index];
            if let Some((label, value)) = series.matcher
                && value_of(label).unwrap_or_default() != value
            {
                continue;
            }
            let row = series.labels.map(|label| Some(Arc::from(&*value_of(label)?)));
            let (count, is_known) = self.rows.count(*index, &row);
            if (count == ROWS_MAX && !is_known) || self.series == SERIES_MAX {
                self.beyond_limit += 1;
                continue;
            }
            let seen = self.seen.entry(*index).or_default();
            if !seen.insert(hash(&self.hasher, &sample.labels)) {
                *self.repeated.entry(*index).or_default() += 1;
                continue;
            }
            self.series += 1;
            let value = series.owner.counted(sample.value, value_of("outcome").as_deref());
            self.rows.add(*index, series.owner, row, value);
        }
    }

    /// How many of an endpoint picker's numbers are on the page.
    pub(crate) fn count(&self, names: &Names) -> usize {
        self.rows.used(&names.series).len()
    }

    /// Returns what the page says, and is ready for the next page. `may_lack` returns whether samples of a
    /// name may be missing: a sum of them is unknown.
    pub(crate) fn finish(
        &mut self,
        names: &Names,
        may_lack: impl Fn(&str) -> bool,
    ) -> EndpointPickerMetrics {
        let Self { rows, repeated, beyond_limit, .. } = std::mem::take(self);
        let is_unknown = |series: &Series| beyond_limit > 0 || may_lack(&series.name);
        let repeated =
            rows.used(&names.series).iter().filter_map(|index| repeated.get(index)).sum();
        let mut metrics = rows.metrics(&names.series, is_unknown);
        metrics.repeated = repeated;
        metrics.beyond_limit = beyond_limit;
        metrics
    }
}

/// The same for the same labels in any order.
fn hash(hasher: &RandomState, labels: &Labels<'_>) -> u64 {
    labels.iter().fold(0, |sum, label| sum.wrapping_add(hasher.hash_one(label)))
}
