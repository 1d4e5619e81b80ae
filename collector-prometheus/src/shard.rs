// SPDX-License-Identifier: Apache-2.0
//! Decides which models share a query, and how a query that is too large is split.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};

use collector_core::{ModelId, ModelRef, Namespace};
use foldhash::fast::RandomState;

use crate::labels::Labels;
use crate::promql::{Filter, Matcher};

/// Most bytes of a query. VictoriaMetrics refuses 16 KiB.
pub(crate) const QUERY_BYTES_MAX: usize = 12_000;
/// Bytes of one selector of a query besides its filter.
const TEMPLATE_BYTES: usize = 400;
/// Bytes of a filter besides names: labels, operators and quotes.
const LABEL_BYTES: usize = 80;
/// Most bytes of one model's names in discovery queries about it alone.
const ONE_MODEL_BYTES_MAX: usize = 300;
/// Up to this number a filter on models costs the server less than the other models of the namespace.
const MODELS_IN_FILTER_MAX: usize = 10;

/// A group of models that share a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shard {
    /// Sorted by namespace, then model.
    pub(crate) models: Vec<ModelRef>,
    width: Width,
}

/// What the filter of a shard matches. Rows of other models are dropped by the reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Width {
    /// Everything on the server.
    Server,
    /// Everything in the models' namespaces.
    Namespaces,
    /// Only these models.
    Models,
}

impl Shard {
    fn new(models: Vec<ModelRef>, width: Width) -> Self {
        debug_assert!(models.is_sorted(), "a shard that splits and names namespaces wrongly");
        Self { models, width }
    }

    /// Makes a shard of one model.
    pub(crate) fn of_one(model: ModelRef) -> Self {
        Self::new(vec![model], Width::Models)
    }

    /// Returns the filter of the shard's queries for series with these labels, added to `each`. If several
    /// labels may hold a name, no selector can match it, and the reader drops other rows.
    pub(crate) fn filter(&self, labels: &Labels, each: &Filter) -> Filter {
        let filter = self.filter_without_models(labels, each);
        match (self.width, labels.model.as_slice()) {
            (Width::Models, [label]) => {
                let models = distinct(self.models.iter().map(|m| m.model.as_str()));
                filter.and([Matcher::any_of(label.to_string(), models)])
            }
            _ => filter,
        }
    }

    /// Returns the filter for series that carry no model.
    pub(crate) fn filter_without_models(&self, labels: &Labels, each: &Filter) -> Filter {
        match (self.width, labels.namespace.as_slice()) {
            (Width::Namespaces | Width::Models, [label]) => {
                each.and([Matcher::any_of(label.to_string(), self.namespaces())])
            }
            _ => each.clone(),
        }
    }

    /// Returns whether the filter names models, so that series without a model are better queried by pod.
    pub(crate) fn names_models(&self) -> bool {
        self.width == Width::Models
    }

    fn namespaces(&self) -> Vec<&str> {
        let mut namespaces: Vec<&str> = self.models.iter().map(|m| m.namespace.as_str()).collect();
        namespaces.dedup();
        namespaces
    }

    /// Splits into halves by namespace, or by model within one namespace, or narrows the filter of a single
    /// model. Empty if there is nothing to split.
    pub(crate) fn split(&self) -> Vec<Self> {
        let namespaces = self.namespaces();
        let (at, width) = match (self.models.len(), namespaces.len(), self.width) {
            (0 | 1, _, Width::Models) => return Vec::new(),
            (0 | 1, ..) => return vec![Self::new(self.models.clone(), Width::Models)],
            (all, 1, _) => (all / 2, Width::Models),
            (_, several, width) => {
                let boundary = namespaces[several / 2];
                let at = self.models.partition_point(|model| model.namespace.as_str() < boundary);
                let width = match width {
                    Width::Server => Width::Namespaces,
                    width => width,
                };
                (at, width)
            }
        };
        let (left, right) = self.models.split_at(at);
        vec![Self::new(left.to_vec(), width), Self::new(right.to_vec(), width)]
    }

    /// Returns the bytes of its filter, with the longest labels.
    fn bytes(&self) -> usize {
        let names =
            |names: &[&str]| names.iter().map(|name| Matcher::bytes_of(name)).sum::<usize>();
        let models = || distinct(self.models.iter().map(|m| m.model.as_str()));
        LABEL_BYTES
            + match self.width {
                Width::Server => 0,
                Width::Namespaces => names(&self.namespaces()),
                Width::Models => names(&self.namespaces()) + names(&models()),
            }
    }

    /// Splits until each filter fits into a query.
    fn fitting(self, budget: usize) -> Vec<Self> {
        if self.bytes() <= budget {
            return vec![self];
        }
        let pieces = self.split();
        if pieces.is_empty() {
            // A single model always fits: long names are cut.
            return vec![self];
        }
        pieces.into_iter().flat_map(|piece| piece.fitting(budget)).collect()
    }
}

/// Returns each text once, in order.
fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = HashSet::new();
    texts.filter(|text| seen.insert(*text)).collect()
}

/// What is known about the size of a fleet before a fetch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FleetSize {
    /// Pods of the requested models, at their last fetch.
    pub(crate) asked: u64,
    /// Pods that the server holds; `None` if unknown.
    pub(crate) on_server: Option<u64>,
}

/// Decides how many pods share a query, and adapts to what the server refuses.
#[derive(Debug)]
pub(crate) struct Sharder {
    /// Most pods of one group.
    limit: AtomicU32,
    /// Fetches without trouble since the limit was last changed.
    calm: AtomicU32,
}

/// Initial limit of pods per group: an answer of some 250 KB. A fleet of 300 variants is one group.
const PODS_MAX: u32 = 2_500;
/// Fetches without trouble before a group may grow again.
const CALM_FETCHES: u32 = 10;

impl Sharder {
    pub(crate) const fn new() -> Self {
        Self { limit: AtomicU32::new(PODS_MAX), calm: AtomicU32::new(0) }
    }

    /// Returns the shards for a fetch of `models`, which are distinct.
    ///
    /// `pods_of` returns how many pods a model had at its last fetch.
    pub(crate) fn shards(
        &self,
        mut models: Vec<ModelRef>,
        selectors: usize,
        fleet_size: FleetSize,
        waiting: bool,
        pods_of: impl Fn(&ModelRef) -> Option<u32>,
    ) -> Vec<Shard> {
        if models.is_empty() {
            return Vec::new();
        }
        models.sort_unstable();
        let budget = (QUERY_BYTES_MAX / selectors.max(1)).saturating_sub(TEMPLATE_BYTES);
        let few = models.len() <= MODELS_IN_FILTER_MAX;
        if few || waiting {
            let bytes: usize =
                models.iter().map(|model| Matcher::bytes_of(model.model.as_str())).sum();
            if few || bytes < budget / 2 {
                return Shard::new(models, Width::Models).fitting(budget);
            }
        }
        // A model that was never fetched counts as a usual one.
        let pods_of = |model: &ModelRef| u64::from(pods_of(model).unwrap_or(4).max(1));
        let limit = u64::from(self.limit.load(Ordering::Relaxed));
        let most_of_the_server =
            fleet_size.on_server.is_some_and(|total| fleet_size.asked * 10 > total * 7);
        if most_of_the_server && fleet_size.on_server.is_some_and(|total| total <= limit) {
            return vec![Shard::new(models, Width::Server)];
        }
        let mut shards = Vec::new();
        let mut group: Vec<ModelRef> = Vec::new();
        let mut pods = 0;
        for namespace in models.chunk_by(|a, b| a.namespace == b.namespace) {
            let more: u64 = namespace.iter().map(pods_of).sum();
            if !group.is_empty() && pods + more > limit {
                shards.push(Shard::new(std::mem::take(&mut group), Width::Namespaces));
                pods = 0;
            }
            group.extend_from_slice(namespace);
            pods += more;
        }
        if !group.is_empty() {
            shards.push(Shard::new(group, Width::Namespaces));
        }
        shards.into_iter().flat_map(|shard| shard.fitting(budget)).collect()
    }

    /// Halves the groups: a query or its answer was too large.
    pub(crate) fn too_large(&self) {
        self.calm.store(0, Ordering::Relaxed);
        let limit = self.limit.load(Ordering::Relaxed);
        self.limit.store((limit / 2).max(1), Ordering::Relaxed);
    }

    /// Counts a fetch without such trouble.
    pub(crate) fn went_well(&self) {
        if self.calm.fetch_add(1, Ordering::Relaxed) + 1 >= CALM_FETCHES {
            self.calm.store(0, Ordering::Relaxed);
            let limit = self.limit.load(Ordering::Relaxed);
            self.limit.store(limit.saturating_mul(2).min(PODS_MAX), Ordering::Relaxed);
        }
    }
}

/// The requested models, and an index from names to models.
#[derive(Debug)]
pub(crate) struct Requested {
    models: Vec<ModelRef>,
    index: HashMap<Namespace, HashMap<ModelId, u32, RandomState>, RandomState>,
}

impl Requested {
    /// Keeps each model once.
    pub(crate) fn new(models: &[ModelRef]) -> Self {
        let mut asked = Self { models: Vec::new(), index: HashMap::default() };
        for model in models {
            let next = u32::try_from(asked.models.len()).unwrap_or(u32::MAX);
            let known = asked.index.entry(model.namespace.clone()).or_default();
            if !known.contains_key(&model.model) {
                known.insert(model.model.clone(), next);
                asked.models.push(model.clone());
            }
        }
        asked
    }

    /// Returns the models.
    pub(crate) fn models(&self) -> &[ModelRef] {
        &self.models
    }

    /// Returns the only requested model, if there is one and its names are short enough for a query that
    /// repeats them many times.
    pub(crate) fn one_model(&self) -> Option<(&str, &str)> {
        let [model] = self.models.as_slice() else { return None };
        let names = (model.namespace.as_str(), model.model.as_str());
        (Matcher::bytes_of(names.0) + Matcher::bytes_of(names.1) <= ONE_MODEL_BYTES_MAX)
            .then_some(names)
    }

    /// Returns the index of a model in [`models`](Self::models).
    pub(crate) fn position(&self, namespace: &str, model: &str) -> Option<usize> {
        self.index.get(namespace)?.get(model).map(|position| *position as usize)
    }

    /// Returns the index of a model, ignoring the case of its id.
    pub(crate) fn position_without_case(&self, namespace: &str, model: &str) -> Option<usize> {
        let of_namespace = self.index.get(namespace)?.iter();
        let mut same = of_namespace.filter(|(id, _)| id.as_str().eq_ignore_ascii_case(model));
        same.next().map(|(_, position)| *position as usize)
    }

    /// Returns whether this model has this index.
    pub(crate) fn is_at(&self, position: usize, namespace: &str, model: &str) -> bool {
        let at = &self.models[position];
        at.model.as_str() == model && at.namespace.as_str() == namespace
    }

    /// Returns the indices of several models.
    pub(crate) fn positions(&self, models: &[ModelRef]) -> Vec<usize> {
        models
            .iter()
            .filter_map(|model| self.position(model.namespace.as_str(), model.model.as_str()))
            .collect()
    }

    /// Returns the namespace of that name, if a model in it was requested.
    pub(crate) fn namespace(&self, namespace: &str) -> Option<Namespace> {
        let (namespace, _) = self.index.get_key_value(namespace)?;
        Some(namespace.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(namespaces: usize, models: usize) -> Vec<ModelRef> {
        (0..namespaces)
            .flat_map(|n| {
                (0..models).map(move |m| ModelRef::new(format!("m{m:03}"), format!("ns{n:03}")))
            })
            .collect()
    }

    fn labels() -> Labels {
        let one = |name: &str| vec![Box::from(name)];
        Labels { namespace: one("namespace"), model: one("model_name"), ..Labels::default() }
    }

    fn filter(shard: &Shard) -> String {
        shard.filter(&labels(), &Filter::default()).to_string()
    }

    fn fleet_size(asked: u64, on_server: u64) -> FleetSize {
        FleetSize { asked, on_server: Some(on_server) }
    }

    fn shards(sharder: &Sharder, models: Vec<ModelRef>, fleet_size: FleetSize) -> Vec<Shard> {
        sharder.shards(models, 1, fleet_size, false, |_| Some(4))
    }

    #[test]
    fn ten_and_three_hundred_variants_are_one_shard() {
        let sharder = Sharder::new();
        for models in [fleet(1, 10), fleet(30, 10), fleet(1, 300)] {
            let count = shards(&sharder, models, fleet_size(0, 1200)).len();
            assert_eq!(count, 1);
        }
    }

    #[test]
    fn no_model_is_no_query() {
        // As where each model has a selector of its own. A list of no names would match series without the label.
        assert!(shards(&Sharder::new(), Vec::new(), fleet_size(0, 10)).is_empty());
    }

    #[test]
    fn a_thousand_variants_are_a_few_shards_that_hold_each_model_once() {
        let models = fleet(50, 20);
        let shards = shards(&Sharder::new(), models.clone(), fleet_size(4000, 100_000));
        assert!((2..=4).contains(&shards.len()), "{}", shards.len());
        let mut all: Vec<ModelRef> = shards.iter().flat_map(|s| s.models.clone()).collect();
        all.sort_unstable();
        assert!(all == models, "each model once");
    }

    #[test]
    fn the_filter_is_dropped_when_most_of_the_server_is_asked_for() {
        let sharder = Sharder::new();
        let filter = |fleet_size| filter(&shards(&sharder, fleet(3, 10), fleet_size)[0]);
        assert_eq!(filter(fleet_size(120, 150)), "");
        assert_eq!(filter(fleet_size(120, 300)), r#"{namespace=~"ns000|ns001|ns002"}"#);
    }

    #[test]
    fn few_models_are_asked_for_by_name() {
        let shards = shards(&Sharder::new(), fleet(1, 2), fleet_size(8, 8));
        assert_eq!(filter(&shards[0]), r#"{namespace="ns000",model_name=~"m000|m001"}"#);
        let without = shards[0].filter_without_models(&labels(), &Filter::default());
        assert_eq!(without.to_string(), r#"{namespace="ns000"}"#);
    }

    #[test]
    fn common_matchers_come_first_and_mixed_labels_get_none() {
        let shard = Shard::of_one(ModelRef::new("m", "n"));
        let each = Filter(vec![Matcher::is("cluster", "eu")]);
        assert_eq!(
            shard.filter(&labels(), &each).to_string(),
            r#"{cluster="eu",namespace="n",model_name="m"}"#
        );
        let mut mixed = labels();
        mixed.namespace.push("exported_namespace".into());
        assert_eq!(shard.filter(&mixed, &each).to_string(), r#"{cluster="eu",model_name="m"}"#);
        mixed.model.push("model".into());
        assert_eq!(shard.filter(&mixed, &each).to_string(), r#"{cluster="eu"}"#);
    }

    #[test]
    fn no_filter_outgrows_a_query() {
        let long: Vec<ModelRef> = (0..9)
            .map(|i| ModelRef::new(format!("{i}{}", "\\".repeat(5000)), "x".repeat(5000)))
            .collect();
        let many: Vec<ModelRef> =
            (0..2000).map(|i| ModelRef::new("m", format!("{i:04}{}", "n".repeat(59)))).collect();
        for models in [long, many] {
            for selectors in [1, 2, 5] {
                let count = models.len();
                let shards = Sharder::new().shards(
                    models.clone(),
                    selectors,
                    fleet_size(1, 1),
                    true,
                    |_| None,
                );
                assert_eq!(shards.iter().map(|s| s.models.len()).sum::<usize>(), count);
                for shard in shards {
                    let bytes = (filter(&shard).len() + TEMPLATE_BYTES) * selectors;
                    // A single model always fits a query, except one that repeats it often.
                    let single = shard.models.len() == 1 && selectors > 1;
                    assert!(bytes <= QUERY_BYTES_MAX || single, "{bytes}");
                }
            }
        }
    }

    #[test]
    fn splitting_ends_at_one_model() {
        let mut shards = shards(&Sharder::new(), fleet(3, 5), fleet_size(1, 100));
        assert_eq!(shards.len(), 1);
        let mut singles = 0;
        while let Some(shard) = shards.pop() {
            let pieces = shard.split();
            if pieces.is_empty() {
                singles += shard.models.len();
            }
            shards.extend(pieces);
        }
        assert_eq!(singles, 15);
    }

    #[test]
    fn groups_shrink_at_once_and_grow_back_after_ten_calm_fetches() {
        let sharder = Sharder::new();
        let count = || shards(&sharder, fleet(50, 10), fleet_size(2000, 100_000)).len();
        assert_eq!(count(), 1);
        sharder.too_large();
        assert_eq!(count(), 2);
        (0..9).for_each(|_| sharder.went_well());
        assert_eq!(count(), 2);
        sharder.went_well();
        assert_eq!(count(), 1);
    }
}
