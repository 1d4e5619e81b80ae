//! Reads the samples of an endpoint picker's metrics page.

use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use collector_core::{ModelId, PodName};
use foldhash::fast::RandomState;

use super::names::{Names, Owner, Series};
use super::{
    EndpointPickerEndpoint, EndpointPickerMetrics, EndpointPickerModel, EndpointPickerPool,
};
use crate::scan::{Labels, Sample};

/// Series that are read of one page.
const SERIES_MAX: usize = 1 << 17;
/// Rows that are read of one series name. A pool of a thousand pods with as many models has fewer.
const ROWS_MAX: usize = 8192;

/// The values of the labels that name a row. An empty label is absent, as in PromQL.
type Row = [Option<Arc<str>>; 2];

/// Takes the samples of one metrics page after the other.
#[derive(Default, Debug)]
pub(crate) struct Reader {
    /// By the index of the series in [`Names`].
    found: BTreeMap<usize, Found>,
    series: usize,
    beyond_limit: u64,
    hasher: RandomState,
}

/// The samples of one series name.
#[derive(Default, Debug)]
struct Found {
    rows: BTreeMap<Row, f64>,
    /// Hashes of the label sets that were read.
    seen: HashSet<u64, RandomState>,
    repeated: u64,
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
            let found = self.found.entry(*index).or_default();
            let row = series.labels.map(|label| Some(Arc::from(&*value_of(label)?)));
            let is_full = found.rows.len() == ROWS_MAX && !found.rows.contains_key(&row);
            if is_full || self.series == SERIES_MAX {
                self.beyond_limit += 1;
                continue;
            }
            if !found.seen.insert(hash(&self.hasher, &sample.labels)) {
                found.repeated += 1;
                continue;
            }
            self.series += 1;
            let value = series.owner.counted(sample.value, value_of("outcome").as_deref());
            let known = found.rows.entry(row);
            known.and_modify(|known| *known = series.owner.fold(*known, value)).or_insert(value);
        }
    }

    /// How many of an endpoint picker's numbers are on the page.
    pub(crate) fn count(&self, names: &Names) -> usize {
        let mut keys: Vec<&str> = self.found.keys().map(|index| names.series[*index].key).collect();
        keys.dedup();
        keys.len()
    }

    /// Returns what the page says, and is ready for the next page. `may_lack` returns whether samples of a
    /// name may be missing: a sum of them is unknown.
    pub(crate) fn finish(
        &mut self,
        names: &Names,
        may_lack: impl Fn(&str) -> bool,
    ) -> EndpointPickerMetrics {
        let Self { found, beyond_limit, .. } = std::mem::take(self);
        let is_unknown = |series: &Series| beyond_limit > 0 || may_lack(&series.name);
        let unknown = names.series.iter().filter(|series| is_unknown(series));
        let unknown = unknown.map(|series| series.key).collect();
        let mut used = Vec::new();
        for (index, found) in found {
            let series = &names.series[index];
            if used.last().is_none_or(|(last, _): &(&Series, _)| last.key != series.key) {
                used.push((series, found));
            }
        }
        let models = used.iter().filter(|(series, _)| matches!(series.owner, Owner::Model));
        let targets = only_targets(models.flat_map(|(_, found)| found.rows.keys()));
        let mut models: BTreeMap<Row, EndpointPickerModel> = BTreeMap::new();
        let mut pools: BTreeMap<Option<Arc<str>>, EndpointPickerPool> = BTreeMap::new();
        let mut endpoints: BTreeMap<Row, EndpointPickerEndpoint> = BTreeMap::new();
        let mut matched = Vec::new();
        let mut repeated = 0;
        for (series, found) in used {
            matched.push((series.key, series.shown()));
            repeated += found.repeated;
            let is_unknown = is_unknown(series);
            for ([first, second], value) in found.rows {
                match series.owner {
                    Owner::Model => {
                        let target = second.or_else(|| targets.get(&first).and_then(Option::clone));
                        let numbers = &mut models.entry([first, target]).or_default().numbers;
                        if !is_unknown {
                            *numbers.entry(series.key).or_default() += value;
                        }
                    }
                    Owner::Pool => {
                        pools.entry(first).or_default().numbers.insert(series.key, value);
                    }
                    Owner::Rejected => {
                        let pool = pools.entry(first).or_default();
                        if !is_unknown {
                            pool.numbers.insert(series.key, value);
                        }
                    }
                    Owner::Endpoint => {
                        let numbers = &mut endpoints.entry([first, second]).or_default().numbers;
                        if !is_unknown {
                            numbers.insert(series.key, value);
                        }
                    }
                    Owner::Pod => {
                        if let Some(pod) = second {
                            let pool = pools.entry(first).or_default();
                            pool.per_pod_queue.push((PodName::new(pod), value));
                        }
                    }
                }
            }
        }
        let models = models.into_iter().map(|([model, target], row)| EndpointPickerModel {
            model: model.map(ModelId::new),
            target: target.map(ModelId::new),
            ..row
        });
        // What is said of no pool by name is about the only one.
        if pools.len() == 2
            && let Some(unnamed) = pools.remove(&None)
            && let Some(mut pool) = pools.first_entry()
        {
            pool.get_mut().numbers.extend(unnamed.numbers);
            pool.get_mut().per_pod_queue.extend(unnamed.per_pod_queue);
        }
        let pools = pools.into_iter().map(|(name, pool)| EndpointPickerPool { name, ..pool });
        let endpoints = endpoints.into_iter().filter_map(|([name, producer], endpoint)| {
            Some(EndpointPickerEndpoint { name: name?, producer, ..endpoint })
        });
        EndpointPickerMetrics {
            models: models.collect(),
            pools: pools.collect(),
            unknown,
            endpoints: endpoints.collect(),
            matched,
            repeated,
            beyond_limit,
        }
    }
}

impl Owner {
    /// Puts two samples of one row together.
    fn fold(self, one: f64, other: f64) -> f64 {
        match self {
            Self::Model | Self::Rejected | Self::Endpoint => one + other,
            Self::Pool | Self::Pod => one.max(other),
        }
    }
}

/// For each model its only target, where there is one: what is said of the model without naming its target
/// (the first generation counts running requests so) is about that one. Where there are several, it stays
/// the model's as a whole.
fn only_targets<'a>(
    rows: impl Iterator<Item = &'a Row>,
) -> BTreeMap<Option<Arc<str>>, Option<Arc<str>>> {
    let mut targets = BTreeMap::new();
    for [model, target] in rows.filter(|[_, target]| target.is_some()) {
        let only = targets.entry(model.clone()).or_insert_with(|| target.clone());
        if only != target {
            *only = None;
        }
    }
    targets
}

/// The same for the same labels in any order.
fn hash(hasher: &RandomState, labels: &Labels<'_>) -> u64 {
    labels.iter().fold(0, |sum, label| sum.wrapping_add(hasher.hash_one(label)))
}
