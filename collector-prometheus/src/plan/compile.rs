// SPDX-License-Identifier: Apache-2.0
//! Makes a plan from an engine and from what the server holds of it.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use collector_engines::{Engine, Expression, Quantity, Series};

use super::{Function, Info, Leaf, LeafId, Native, Plan, PlannedQuery, QueryKind};
use crate::labels::Level;
use crate::promql::Window;

/// The series that a server holds.
#[derive(Clone, Copy)]
pub(crate) struct Held<'a> {
    /// Sample names.
    pub(crate) names: &'a HashSet<Box<str>>,
    /// Names of native histograms.
    pub(crate) native: &'a HashSet<Box<str>>,
}

impl Held<'_> {
    fn has(self, series: &Series) -> bool {
        self.names.contains(&series.name) || self.native_of(series).is_some()
    }

    fn native_of(self, series: &Series) -> Option<Native> {
        if self.names.contains(&series.name) {
            return None;
        }
        let parts = [("_sum", "histogram_sum"), ("_count", "histogram_count")];
        parts.into_iter().find_map(|(suffix, call)| {
            let base = series.name.strip_suffix(suffix)?;
            self.native.contains(base).then(|| Native { call, base: base.into() })
        })
    }
}

impl Plan {
    /// Makes the plan for what a server holds of an engine; `None` if no series shows live pods.
    pub(crate) fn new(engine: &Engine, held: Held<'_>, window: Duration) -> Option<Self> {
        let liveness = liveness(engine, |series| held.names.contains(&series.name))?;
        let mut plan = Self {
            leaves: Vec::new(),
            asks: Vec::new(),
            quantities: BTreeMap::new(),
            liveness,
            info: None,
            window: Window(window),
        };
        for kind in QueryKind::ALL {
            plan.add(*kind, engine, held);
        }
        Some(plan)
    }

    fn add(&mut self, kind: QueryKind, engine: &Engine, held: Held<'_>) {
        let mut leaves: Vec<LeafId> = Vec::new();
        let mut per_pod = false;
        let mut places = Vec::new();
        for candidates in kind.quantities() {
            let complete = |(place, quantity): (usize, &Quantity)| {
                let all = engine.alternatives(*quantity).iter().enumerate();
                let complete: Vec<(usize, &Expression)> = all
                    .filter(|(_, it)| it.is_constant() || it.is_complete(|series| held.has(series)))
                    .collect();
                (!complete.is_empty()).then_some((place, *quantity, complete))
            };
            let found = candidates.iter().enumerate().find_map(complete);
            let Some((place, quantity, alternatives)) = found else { continue };
            places.push(place);
            let function = function_of(kind, quantity);
            per_pod |= alternatives.len() > 1 && kind.level() == Level::Model;
            let mut leaf = |series: &Series| {
                let id = self.leaf(series, function, held);
                let is_info = series.number_in.is_some();
                if held.has(series)
                    && is_info == (kind == QueryKind::CacheConfig)
                    && !leaves.contains(&id)
                {
                    leaves.push(id);
                }
                id
            };
            let compiled = alternatives.into_iter().map(|(place, it)| (place, it.map(&mut leaf)));
            let compiled = compiled.collect();
            if kind != QueryKind::Counters {
                let is_slow = kind == QueryKind::PrefixCache;
                self.quantities.insert((quantity, is_slow), compiled);
            }
        }
        if kind == QueryKind::CacheConfig {
            self.info = self.info_of(&leaves);
        }
        // Hits are a fraction of their own lookups: one half is useless without the other.
        let is_complete = kind != QueryKind::PrefixCache || matches!(places[..], [a, b] if a == b);
        if is_complete && !leaves.is_empty() {
            self.asks.push(PlannedQuery { kind, leaves, per_pod });
        }
    }

    fn leaf(&mut self, series: &Series, function: Function, held: Held<'_>) -> LeafId {
        let leaf = Leaf { series: series.clone(), function, native: held.native_of(series) };
        let place = self.leaves.iter().position(|known| *known == leaf).unwrap_or_else(|| {
            self.leaves.push(leaf);
            self.leaves.len() - 1
        });
        // Engines have some sixty series at most.
        LeafId::try_from(place).unwrap_or(LeafId::MAX)
    }

    /// Returns the info series of these leaves: the first, if there are several names.
    fn info_of(&self, leaves: &[LeafId]) -> Option<Info> {
        let first = &self.leaves[usize::from(*leaves.first()?)].series;
        let number = |id: &LeafId| {
            let series = &self.leaves[usize::from(*id)].series;
            let same = series.name == first.name && series.matchers == first.matchers;
            Some((*id, series.number_in.clone().filter(|_| same)?))
        };
        let numbers = leaves.iter().filter_map(number).collect();
        Some(Info { series: Series { number_in: None, ..first.clone() }, numbers })
    }
}

/// Returns the series whose timestamp shows the live pods: the first one present.
pub(crate) fn liveness(engine: &Engine, is_there: impl Fn(&Series) -> bool) -> Option<Series> {
    signs_of_life(engine).into_iter().find(|series| is_there(series)).cloned()
}

/// Returns the series that show that a server lives, in order of preference: its gauges and its finished
/// requests, or any counter if an engine is described without these.
pub(crate) fn signs_of_life(engine: &Engine) -> Vec<&Series> {
    let of = |quantities: &[Quantity]| {
        let alternatives = quantities.iter().flat_map(|quantity| engine.alternatives(*quantity));
        let series = alternatives.flat_map(Expression::required);
        series.filter(|series| series.number_in.is_none()).collect::<Vec<_>>()
    };
    let usual = of(&[
        Quantity::Running,
        Quantity::Waiting,
        Quantity::KvCacheUsage,
        Quantity::RequestSuccessTotal,
    ]);
    if usual.is_empty() { of(Quantity::ALL) } else { usual }
}

/// Returns the quantities of an engine that fetches query at a server with these series, by their names.
pub fn queried_quantities(engine: &Engine, is_held: impl Fn(&str) -> bool) -> Vec<Quantity> {
    let names = engine.sample_names().filter(|name| is_held(name)).map(Box::from).collect();
    let held = Held { names: &names, native: &HashSet::new() };
    let Some(plan) = Plan::new(engine, held, Duration::ZERO) else { return Vec::new() };
    let of_labels = plan.info.iter().flat_map(|info| info.numbers.iter().map(|(leaf, _)| *leaf));
    let asks = plan.asks.iter().filter(|ask| ask.kind != QueryKind::CacheConfig);
    let leaves = asks.flat_map(|ask| ask.leaves.iter().copied()).chain(of_labels);
    let asked: Vec<&Series> = leaves.filter_map(|leaf| plan.series_of(leaf)).collect();
    let is_asked = |expression: &Expression| {
        expression.required().into_iter().all(|series| asked.contains(&series))
    };
    let of_engine = engine.metrics().filter(|(_, alternatives)| alternatives.iter().any(is_asked));
    of_engine.map(|(quantity, _)| quantity).collect()
}

fn function_of(kind: QueryKind, quantity: Quantity) -> Function {
    match kind {
        QueryKind::KvCache | QueryKind::QueueLength => Function::Peak,
        QueryKind::PrefixCache => Function::SlowRate,
        QueryKind::Counters => Function::Latest,
        _ if quantity.is_counter() => Function::Rate,
        _ => Function::Latest,
    }
}
