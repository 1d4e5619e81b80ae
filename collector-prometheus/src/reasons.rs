// SPDX-License-Identifier: Apache-2.0
//! Why a field is unknown although its query was answered.

use std::time::Duration;

use collector_core::window::PREFIX_CACHE_WINDOW;
use collector_core::{Field, FieldReasons, ReplicaMetrics, ReplicaState, duration};
use collector_engines::Quantity;

use crate::plan::QueryKind;
use crate::shape::Served;

/// Adds the reasons of unknown gauges and capacities of a replica, if they have none yet.
pub(crate) fn explain_unknown(row: &mut ReplicaMetrics, served: &Served, failed: &FieldReasons) {
    if row.state == ReplicaState::Sleeping {
        row.reasons.insert(Field::CacheConfig, "it sleeps");
    }
    let fields: [(Field, QueryKind, &[Quantity]); 4] = [
        (Field::RunningRequests, QueryKind::RunningRequests, &[Quantity::Running]),
        (Field::QueueLength, QueryKind::QueueLength, &[Quantity::Waiting]),
        (Field::KvCacheUsage, QueryKind::KvCache, &[Quantity::KvCacheUsage]),
        (
            Field::CacheConfig,
            QueryKind::CacheConfig,
            &[Quantity::KvCapacityTokens, Quantity::NumGpuBlocks],
        ),
    ];
    for (field, kind, quantities) in fields {
        if row.is_known(field) || failed.contains(field) {
            continue;
        }
        let reason = if quantities.iter().any(|it| served.plan.has(*it)) {
            format!("no usable {}", first_series(kind, served))
        } else {
            no_series(served, quantities)
        };
        row.reasons.insert(field, reason);
    }
}

/// Returns why fields of the load that need these rates are unknown.
pub(crate) fn load(
    rates: &[(QueryKind, Option<f64>)],
    served: &Served,
    failed: &FieldReasons,
) -> FieldReasons {
    let mut reasons = FieldReasons::NONE;
    for &field in Field::OF_LOAD {
        if failed.contains(field) {
            continue;
        }
        let own = rates.iter().filter(|(kind, _)| kind.fields().contains(&field));
        let window = served.plan.window.0;
        let reason = own.into_iter().find_map(|(kind, value)| rate(*value, *kind, window, served));
        if let Some(reason) = reason {
            reasons.insert(field, reason);
        }
    }
    reasons
}

/// Returns why the hit rate of the prefix cache is unknown, given its hits and lookups.
pub(crate) fn hit_rate(
    [hits, lookups]: [Option<f64>; 2],
    servers: usize,
    served: &Served,
) -> String {
    let kind = QueryKind::PrefixCache;
    if served.plan.has(Quantity::PrefixCacheHitRate) {
        if servers > 1 {
            return "several servers, each with a rate of its own".to_owned();
        }
        let gauge = served.engine.alternatives(Quantity::PrefixCacheHitRate).first();
        return format!("no usable {}", gauge.map(ToString::to_string).unwrap_or_default());
    }
    let window = served.plan.window.0.max(PREFIX_CACHE_WINDOW);
    let unknown = [hits, lookups].into_iter().find_map(|it| rate(it, kind, window, served));
    unknown.unwrap_or_else(|| {
        let window = duration::format(window);
        format!("no prefix-cache lookups in the last {window}, although requests are running")
    })
}

/// Returns why a field is unknown if the server holds none or only some of its series.
fn no_series(served: &Served, quantities: &[Quantity]) -> String {
    let lacking = quantities.iter().filter(|quantity| !served.plan.has(**quantity));
    let expected = lacking.flat_map(|it| served.engine.alternatives(*it)).next();
    match expected {
        Some(expected) => format!("the server holds no {expected}"),
        None => format!("{} does not report it", served.engine.name),
    }
}

/// Returns why one rate over a window is unknown; `None` if it is known.
fn rate(rate: Option<f64>, kind: QueryKind, window: Duration, served: &Served) -> Option<String> {
    if rate.is_some_and(|rate| !rate.is_nan()) {
        return None;
    }
    if served.plan.leaves(kind).is_empty() {
        return Some(no_series(served, &kind.quantities().concat()));
    }
    let series = first_series(kind, served);
    Some(match rate {
        None => format!("no two samples of {series} in the last {}", duration::format(window)),
        Some(_) => format!("no usable {series}"),
    })
}

/// Returns the name of the first series of a query.
fn first_series(kind: QueryKind, served: &Served) -> &str {
    let plan = &served.plan;
    let of_kind = plan.leaves(kind).iter();
    // If capacities are gauges, there is no info series.
    let leaves = of_kind.chain(plan.leaves(QueryKind::Capacity));
    leaves.copied().find_map(|leaf| plan.series_of(leaf)).map_or("series", |series| &series.name)
}
