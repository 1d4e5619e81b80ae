// SPDX-License-Identifier: Apache-2.0
//! The text of queries.

use collector_core::window::PREFIX_CACHE_WINDOW;
use collector_engines::Series;

use super::{Function, Leaf, LeafId, Native, Plan, QueryKind};
use crate::labels::{Labels, Level};
use crate::promql::{Filter, Matcher, Window};

/// How far back a missing model is searched.
const LAST_SEEN: &str = "[1h:1m]";
/// The label that distinguishes the parts of one query.
pub(crate) const WHAT: &str = "what";

impl Plan {
    /// Returns the text of a query.
    pub(crate) fn query(
        &self,
        kind: QueryKind,
        labels: &Labels,
        filter: &Filter,
        level: Level,
        apart: bool,
    ) -> String {
        let by = labels.by(level, apart).join(",");
        match kind {
            // Age is lost when `timestamp()` wraps an aggregation: then it is the evaluation time.
            QueryKind::Liveness => format!(
                "max by ({}) (timestamp({}))",
                labels.by_liveness().join(","),
                select(&self.liveness, filter)
            ),
            QueryKind::Models => {
                let models = labels.by(Level::Model, false).join(",");
                let pods = labels.by(Level::Pod, false).join(",");
                let series = select(&self.liveness, filter);
                match level {
                    Level::Model => format!("count by ({models}) (count by ({pods}) ({series}))"),
                    Level::Pod | Level::Rank => format!("count by ({pods}) ({series})"),
                }
            }
            QueryKind::LastSeen => format!(
                "max by ({}) (max_over_time(timestamp({}){LAST_SEEN}))",
                labels.by(Level::Model, false).join(","),
                select(&self.liveness, filter)
            ),
            QueryKind::Copies => format!(
                "count by ({}) ({}) > 1",
                labels.by(Level::Rank, true).join(","),
                select(&self.liveness, filter)
            ),
            QueryKind::Presence => self.presence(labels, filter),
            _ => {
                let leaves = self.leaves(kind);
                let aggregate = |leaf: &LeafId| {
                    let leaf = &self.leaves[usize::from(*leaf)];
                    let inner = self.inner(leaf, filter);
                    let fold = match leaf.function {
                        Function::Rate | Function::SlowRate => "sum",
                        Function::Latest if kind == QueryKind::Counters => "sum",
                        Function::Latest | Function::Peak => "max",
                    };
                    format!("{fold} by ({by}) ({inner})")
                };
                match leaves {
                    [only] => aggregate(only),
                    several => {
                        let named = |leaf: &LeafId| numbered(&aggregate(leaf), usize::from(*leaf));
                        several.iter().map(named).collect::<Vec<_>>().join(" or ")
                    }
                }
            }
        }
    }

    /// One row for each replica with an instant series (0, 1), and for each model that had one within the
    /// window (2, 3).
    fn presence(&self, labels: &Labels, filter: &Filter) -> String {
        let replicas = labels.by(Level::Pod, false).join(",");
        let models = labels.by(Level::Model, false).join(",");
        let others: Vec<&Series> = self.other_signs().take(2).collect();
        let alive = others.iter().enumerate().map(|(i, series)| {
            numbered(&format!("max by ({replicas}) (timestamp({}))", select(series, filter)), i)
        });
        let first = std::iter::once(&self.liveness).chain(others.iter().copied().take(1));
        let lately = first.enumerate().map(|(i, series)| {
            let window = self.window;
            let series = select(series, filter);
            numbered(&format!("max by ({models}) (max_over_time({series}{window}))"), 2 + i)
        });
        alive.chain(lately).collect::<Vec<_>>().join(" or ")
    }

    /// Returns the text of [`QueryKind::CacheConfig`]: `filter` names no model, which the series may lack;
    /// `pods`, if any, narrows it.
    pub(crate) fn cache_config(
        &self,
        labels: &Labels,
        filter: &Filter,
        apart: bool,
        pods: &[&str],
    ) -> Option<String> {
        let info = self.info.as_ref()?;
        // If several labels may name pods, each of them is queried.
        let narrowed: Vec<Filter> =
            if pods.is_empty() || labels.pod.is_empty() || labels.replica.is_some() {
                vec![filter.clone()]
            } else {
                let of = |label: &str| {
                    filter.and([Matcher::any_of(label.to_owned(), pods.iter().copied())])
                };
                labels.pod.iter().map(|label| of(label)).collect()
            };
        let without_model = Labels { model: Vec::new(), ..labels.clone() };
        let mut by = without_model.by(Level::Rank, apart);
        by.extend(info.numbers.iter().map(|(_, label)| &**label));
        let by = by.join(",");
        // The value of a series is always 1; counting also shows series that are stored twice.
        let count = |filter: &Filter| format!("count by ({by}) ({})", select(&info.series, filter));
        Some(narrowed.iter().map(count).collect::<Vec<_>>().join(" or "))
    }

    fn inner(&self, leaf: &Leaf, filter: &Filter) -> String {
        let series = &leaf.series;
        let window = match leaf.function {
            Function::Latest => return select(series, filter),
            Function::Peak => {
                return format!("max_over_time({}{})", select(series, filter), self.window);
            }
            Function::Rate => self.window,
            Function::SlowRate => Window(self.window.0.max(PREFIX_CACHE_WINDOW)),
        };
        match &leaf.native {
            None => format!("rate({}{window})", select(series, filter)),
            Some(Native { call, base }) => {
                let base = Series { name: base.clone(), ..series.clone() };
                format!("{call}(rate({}{window}))", select(&base, filter))
            }
        }
    }
}

/// Returns a selector.
pub(crate) fn select(series: &Series, filter: &Filter) -> String {
    let filter = filter.and(series.matchers.iter().map(Matcher::from_engine));
    format!("{}{filter}", series.name)
}

/// Returns a query whose rows have this number as the label `what`.
pub(crate) fn numbered(query: &str, number: usize) -> String {
    format!("label_replace({query},\"{WHAT}\",\"{number}\",\"namespace\",\".*\")")
}
