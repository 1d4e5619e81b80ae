// SPDX-License-Identifier: Apache-2.0
//! Rows of an endpoint picker's series, and the numbers that they make.

use std::collections::BTreeMap;
use std::sync::Arc;

use collector_core::{ModelId, PodName};

use super::series::{Owner, Series};
use super::{
    EndpointPickerEndpoint, EndpointPickerMetrics, EndpointPickerModel, EndpointPickerPool,
};

/// The values of the labels that name a row. An empty label is absent, as in PromQL.
pub type Row = [Option<Arc<str>>; 2];

/// The values of one endpoint picker's series, each by the index of its series in [`Series::all`].
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Rows(BTreeMap<usize, BTreeMap<Row, f64>>);

impl Rows {
    /// Adds a value. Several of one row are put together as their owner demands.
    pub fn add(&mut self, index: usize, owner: Owner, row: Row, value: f64) {
        let known = self.0.entry(index).or_default().entry(row);
        known.and_modify(|known| *known = owner.fold(*known, value)).or_insert(value);
    }

    /// Returns how many rows of a series there are, and whether this one is among them.
    pub fn count(&self, index: usize, row: &Row) -> (usize, bool) {
        let rows = self.0.get(&index);
        rows.map_or((0, false), |rows| (rows.len(), rows.contains_key(row)))
    }

    /// Returns the indices of the series that are used: of each number the most preferred one that has rows.
    pub fn used(&self, all: &[Series]) -> Vec<usize> {
        let mut used: Vec<usize> = self.0.keys().copied().collect();
        used.dedup_by_key(|index| all[*index].key);
        used
    }

    /// Returns the numbers. `is_unknown` returns whether samples of a series may be missing: a sum of them is unknown.
    pub fn metrics(
        mut self,
        all: &[Series],
        is_unknown: impl Fn(&Series) -> bool,
    ) -> EndpointPickerMetrics {
        let unknown = all.iter().filter(|series| is_unknown(series));
        let unknown = unknown.map(|series| series.key).collect();
        let used = self.used(all).into_iter();
        let used: Vec<(&Series, BTreeMap<Row, f64>)> =
            used.filter_map(|index| Some((&all[index], self.0.remove(&index)?))).collect();
        let models = used.iter().filter(|(series, _)| matches!(series.owner, Owner::Model));
        let targets = only_targets(models.flat_map(|(_, rows)| rows.keys()));
        let mut models: BTreeMap<Row, EndpointPickerModel> = BTreeMap::new();
        let mut pools: BTreeMap<Option<Arc<str>>, EndpointPickerPool> = BTreeMap::new();
        let mut endpoints: BTreeMap<Row, EndpointPickerEndpoint> = BTreeMap::new();
        let mut matched = Vec::new();
        for (series, rows) in used {
            matched.push((series.key, series.shown()));
            let is_unknown = is_unknown(series);
            for ([first, second], value) in rows {
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
            repeated: 0,
            beyond_limit: 0,
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
