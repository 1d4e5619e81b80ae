// SPDX-License-Identifier: Apache-2.0
//! The queries of one fetch, made from the description of an engine and from what the server holds.
//!
//! A fetch takes the same number of queries for ten variants and for a thousand: each query returns one
//! quantity of all pods or models. For vLLM, with `F` the filter of a group of models, `W` the window, and
//! the labels that the server has:
//!
//! | field | query |
//! |---|---|
//! | liveness and true sample age | `max by (namespace,model_name,pod,engine,instance) (timestamp(vllm:num_requests_running{F}))` |
//! | KV-cache usage, peak | `max by (namespace,model_name,pod,engine) (max_over_time(vllm:kv_cache_usage_perc{F}[W]))` |
//! | queue length, peak | `max by (…) (max_over_time(vllm:num_requests_waiting{F}[W]))` |
//! | running requests and sleep state, latest | `max by (…) (vllm:num_requests_running{F})` |
//! | arrivals, tokens, latencies | `sum by (namespace,model_name) (rate(vllm:request_prompt_tokens_count{F}[W]))`, and so on |
//! | prefix cache, each minute | `sum by (namespace,model_name,pod) (rate(vllm:prefix_cache_hits_total{F}[5m]))` |
//! | capacity, for new pods and each minute | `count by (namespace,pod,engine,…)(vllm:cache_config_info{F})` |
//!
//! Several series of one quantity, the terms of an expression or the names of two releases, share one query;
//! the label `what` distinguishes them. Expressions are evaluated by the reader, rank by rank, as on a
//! metrics page. Liveness is queried first: its rows are the pods that exist, because a dead pod leaves
//! `timestamp()` within a scrape or two and stays in everything that covers a window. Sums and counts are
//! divided by the reader, because servers disagree about 0/0.

mod compile;
mod kinds;
mod text;

use std::collections::BTreeMap;

use collector_engines::{Expression, Quantity, Series};

use crate::labels::Level;
use crate::promql::Window;

pub use self::compile::queried_quantities;
pub(crate) use self::compile::{Held, liveness, signs_of_life};
pub(crate) use self::kinds::QueryKind;
pub(crate) use self::text::{WHAT, numbered, select};

/// The function over the samples of a series.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Function {
    Latest,
    Peak,
    Rate,
    /// A rate over the window of the prefix cache.
    SlowRate,
}

/// One series of an engine, and what is queried of it.
#[derive(Clone, PartialEq, Debug)]
struct Leaf {
    series: Series,
    function: Function,
    /// Set if its histogram is stored as a native one.
    native: Option<Native>,
}

/// A part of a native histogram.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Native {
    /// `histogram_sum` or `histogram_count`.
    call: &'static str,
    base: Box<str>,
}

/// A quantity, and whether it is read over the longer window of the prefix cache.
type WindowedQuantity = (Quantity, bool);

/// The index of a leaf in its plan.
pub(crate) type LeafId = u8;

/// One way to compute a quantity, with its index among all of the engine's alternatives.
type Alternative = (usize, Expression<LeafId>);

/// A query, without filter and labels.
#[derive(Clone, PartialEq, Debug)]
struct PlannedQuery {
    kind: QueryKind,
    leaves: Vec<LeafId>,
    /// Whether rows must be per pod, so that the sum over a fleet of two releases is right.
    per_pod: bool,
}

/// Writes the queries for one engine on one server.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Plan {
    leaves: Vec<Leaf>,
    asks: Vec<PlannedQuery>,
    /// The alternatives for each quantity, in order of preference.
    quantities: BTreeMap<WindowedQuantity, Vec<Alternative>>,
    /// The series whose timestamp shows the live pods.
    pub(crate) liveness: Series,
    /// The info series and its labels with numbers.
    info: Option<Info>,
    pub(crate) window: Window,
}

/// An info series, and the labels in which it has numbers.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Info {
    pub(crate) series: Series,
    /// The labels, each with its leaf.
    pub(crate) numbers: Vec<(LeafId, Box<str>)>,
}

impl Plan {
    fn ask(&self, kind: QueryKind) -> Option<&PlannedQuery> {
        self.asks.iter().find(|ask| ask.kind == kind)
    }

    /// Returns whether the server holds the series of a query.
    pub(crate) fn asks(&self, kind: QueryKind) -> bool {
        self.ask(kind).is_some()
    }

    /// Returns the level of a query's rows, which is at least `wanted`.
    pub(crate) fn level(&self, kind: QueryKind, wanted: Level) -> Level {
        let per_pod = self.ask(kind).is_some_and(|ask| ask.per_pod);
        match (kind.level(), wanted) {
            (Level::Model, Level::Model) if !per_pod => Level::Model,
            (Level::Model, _) => Level::Pod,
            (level, _) => level,
        }
    }

    /// Returns the number of query kinds besides liveness.
    pub(crate) fn len(&self) -> usize {
        self.asks.len()
    }

    /// Returns the greatest number of selectors in one query.
    pub(crate) fn selectors(&self) -> usize {
        // The presence query has four.
        self.asks.iter().map(|ask| ask.leaves.len()).max().unwrap_or(1).max(4)
    }

    /// Returns the info series that reports capacities.
    pub(crate) fn info(&self) -> Option<&Info> {
        self.info.as_ref()
    }

    /// Returns the leaf of a row without the label `what`.
    pub(crate) fn only_leaf(&self, kind: QueryKind) -> LeafId {
        self.leaves(kind).first().copied().unwrap_or(0)
    }

    /// Returns the leaves of a query.
    pub(crate) fn leaves(&self, kind: QueryKind) -> &[LeafId] {
        self.ask(kind).map(|ask| ask.leaves.as_slice()).unwrap_or_default()
    }

    /// Computes a quantity of a row, given the values of its leaves. Partner quantities use the same
    /// alternative.
    pub(crate) fn value(
        &self,
        kind: QueryKind,
        quantity: Quantity,
        value: &dyn Fn(LeafId) -> Option<f64>,
    ) -> Option<f64> {
        let is_slow = kind == QueryKind::PrefixCache;
        let alternatives = |quantity| {
            self.quantities.get(&(quantity, is_slow)).map(Vec::as_slice).unwrap_or_default()
        };
        // Each is looked up once: this runs for every pod and quantity of a fetch.
        let own = alternatives(quantity);
        let partner = quantity.partner().map(alternatives).unwrap_or_default();
        let of = |wanted: Quantity, place: usize| {
            let alternatives = if wanted == quantity { own } else { partner };
            let (_, expression) = alternatives.iter().find(|(known, _)| *known == place)?;
            expression.evaluate(&mut |leaf| value(*leaf))
        };
        let place = quantity.chosen_among(|quantity, place| of(quantity, place).is_some())?;
        of(quantity, place)
    }

    /// Computes the value of a query: of the first quantity that the server holds.
    pub(crate) fn rate(
        &self,
        kind: QueryKind,
        value: &dyn Fn(LeafId) -> Option<f64>,
    ) -> Option<f64> {
        let candidates = kind.quantities().first()?;
        candidates.iter().find_map(|quantity| self.value(kind, *quantity, value))
    }

    /// Returns whether the engine reports a quantity on this server.
    pub(crate) fn has(&self, quantity: Quantity) -> bool {
        [false, true].iter().any(|is_slow| self.quantities.contains_key(&(quantity, *is_slow)))
    }

    /// Returns whether a gauge, which no long window is read of, reads such a leaf.
    pub(crate) fn reads(&self, gauge: Quantity, mut is: impl FnMut(LeafId) -> bool) -> bool {
        let alternatives = self.quantities.get(&(gauge, false)).into_iter().flatten();
        alternatives.into_iter().any(|(_, it)| it.reads_any(|leaf| is(*leaf)))
    }

    /// Returns the series of a query, for messages and `explain`; `None` for several names.
    pub(crate) fn series(&self, kind: QueryKind) -> Option<&str> {
        if kind == QueryKind::Liveness {
            return Some(&self.liveness.name);
        }
        let leaves = self.leaves(kind);
        let of_queue = |leaf: &&LeafId| self.reads(Quantity::Waiting, |read| read == **leaf);
        let mut of_queue = leaves.iter().filter(of_queue);
        match leaves {
            [only] => Some(&self.leaves[usize::from(*only)].series.name),
            // The reasons for which requests wait are read beside the queue.
            _ if kind == QueryKind::QueueLength => {
                let first = of_queue.next()?;
                of_queue.next().is_none().then(|| &*self.leaves[usize::from(*first)].series.name)
            }
            _ if kind == QueryKind::CacheConfig => self.info.as_ref().map(|it| &*it.series.name),
            _ => None,
        }
    }

    /// Returns the series of one leaf.
    pub(crate) fn series_of(&self, leaf: LeafId) -> Option<&Series> {
        self.leaves.get(usize::from(leaf)).map(|leaf| &leaf.series)
    }

    /// Iterates over further series that every live server has: the gauges of its queue and its cache, and
    /// counters for engines with fewer gauges.
    pub(crate) fn other_signs(&self) -> impl Iterator<Item = &Series> {
        let kinds = [
            QueryKind::QueueLength,
            QueryKind::KvCache,
            QueryKind::RunningRequests,
            QueryKind::RequestCount,
            QueryKind::OutputTokens,
        ];
        let first = kinds.into_iter().filter_map(|kind| self.leaves(kind).first());
        let series = first.map(|leaf| &self.leaves[usize::from(*leaf)].series);
        series.filter(|series| **series != self.liveness)
    }
}

#[cfg(test)]
mod tests;
