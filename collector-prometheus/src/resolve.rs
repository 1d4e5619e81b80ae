// SPDX-License-Identifier: Apache-2.0
//! Makes one row of the live servers of a replica: decides which of them are copies, and combines the ranks.

use collector_core::{Field, FieldReasons, PodName, ReplicaMetrics, ReplicaState, Tick, sanitize};
use collector_engines::Quantity;

use crate::memory::RankConfig;
use crate::plan::{Plan, QueryKind};
use crate::selfmetrics;
use crate::servers::Server;

/// Factor by which a counter may exceed its usual rate between the scrapes of two copies.
const BURST: f64 = 4.0;
/// Requests by which the counters of two copies may always differ.
const SLACK: f64 = 5.0;

/// Counters above this cannot be exact, and were never counted one by one.
const COUNT_MAX: f64 = 9e15;

/// One replica, as the queries describe it.
pub(crate) struct Replica<'a> {
    pub(crate) name: &'a PodName,
    /// Its servers, sorted by rank and key.
    pub(crate) servers: &'a [Server],
    /// The capacities of its ranks.
    pub(crate) config: &'a [RankConfig],
    /// Ranks with counters, and whether all of these are 0: one entry for each server.
    pub(crate) counted: &'a [(Box<str>, bool)],
    pub(crate) plan: &'a Plan,
    /// Returns the requests per second of the server with this key, to judge copies. NaN: it is not known.
    pub(crate) rate_of: &'a dyn Fn(&str) -> Option<f64>,
}

/// One server of a rank: the newest of its copies.
#[derive(Clone)]
pub(crate) struct Unit<'a> {
    pub(crate) server: &'a Server,
    /// The keys of its other copies.
    pub(crate) copies: Vec<&'a str>,
}

/// Returns the servers of a replica without copies.
pub(crate) fn units<'a>(replica: &Replica<'a>) -> Vec<Unit<'a>> {
    let mut units: Vec<Unit<'a>> = Vec::new();
    for rank in replica.servers.chunk_by(|a, b| a.rank == b.rank) {
        if let [only] = rank {
            units.push(Unit { server: only, copies: Vec::new() });
            continue;
        }
        let mut newest_first: Vec<&Server> = rank.iter().collect();
        newest_first.sort_by(|a, b| b.stamp.total_cmp(&a.stamp).then_with(|| a.key.cmp(&b.key)));
        let first = units.len();
        for server in newest_first {
            let known = units[first..].iter_mut();
            match known.into_iter().find(|unit| are_copies(replica, unit.server, server)) {
                Some(unit) => unit.copies.push(&server.key),
                None => units.push(Unit { server, copies: Vec::new() }),
            }
        }
    }
    units
}

/// Returns whether two series of one rank are copies of one server. The same instance is a copy. Otherwise
/// counters decide: those of one server differ by at most what it can count between two scrapes. In doubt
/// they are copies, because doubling a fleet is worse than missing a second port.
fn are_copies(replica: &Replica<'_>, one: &Server, other: &Server) -> bool {
    let instance = |server: &'_ Server| {
        server.key.split(crate::labels::KEY_SEPARATOR).next().unwrap_or_default().to_owned()
    };
    if instance(one) == instance(other) {
        return true;
    }
    // The first counter counts requests; others count tokens, thousands per request.
    let requests = replica.plan.leaves(QueryKind::Counters).first();
    let count = |server: &Server| {
        let value = server.value(*requests?)?;
        (value < COUNT_MAX).then_some(value)
    };
    let counted = count(one).zip(count(other));
    let apart = (one.stamp - other.stamp).abs();
    let known = |rate: &f64| !rate.is_nan();
    let rates = [one, other].map(|server| (replica.rate_of)(&server.key).filter(known));
    let rate = match rates {
        [None, None] => return true,
        [one, other] => one.unwrap_or(0.0).max(other.unwrap_or(0.0)),
    };
    counted.is_none_or(|(a, b)| (a - b).abs() <= BURST * rate * (apart + 1.0) + SLACK)
}

/// A gauge over all ranks.
struct Combined {
    values: Vec<f64>,
    /// Why it is unknown: the first rank without it.
    lacks: Option<String>,
}

impl Combined {
    fn sum(&self) -> Option<f64> {
        self.is_known().then(|| self.values.iter().sum())
    }

    fn greatest(&self) -> Option<f64> {
        self.is_known().then(|| self.values.iter().copied().fold(0.0, f64::max))
    }

    fn is_known(&self) -> bool {
        self.lacks.is_none() && !self.values.is_empty()
    }
}

/// Makes the row of a replica.
pub(crate) fn row(replica: &Replica<'_>, units: &[Unit<'_>], engine: &str) -> ReplicaMetrics {
    let newest = units.iter().map(|unit| unit.server.sampled_at).max().unwrap_or(Tick::MIN);
    // A rank that is no longer scraped makes the row as old as itself.
    let oldest = units.iter().map(|unit| unit.server.sampled_at).min().unwrap_or(newest);
    let mut row = ReplicaMetrics::new(replica.name.clone(), oldest);
    row.engine = Some(engine.into());
    let role = units.iter().find_map(|unit| unit.server.role.as_deref());
    row.role = role.filter(|role| matches!(*role, "prefill" | "decode")).map(Into::into);
    let ranks = Ranks::new(replica, units);
    row.servers = u32::try_from(units.len() + ranks.silent.len()).unwrap_or(u32::MAX).max(1);
    if ranks.is_asleep() {
        row.state = ReplicaState::Sleeping;
    }
    let mut reasons = FieldReasons::NONE;
    let gauge = |kind, quantity, field, reasons: &mut FieldReasons| {
        let together = ranks.gauge(kind, quantity);
        if let Some(lacks) = &together.lacks {
            reasons.insert(field, lacks.as_str());
        }
        together
    };
    let waiting =
        gauge(QueryKind::QueueLength, Quantity::Waiting, Field::QueueLength, &mut reasons);
    row.queue_length = waiting.sum().and_then(|sum| judged(QueryKind::QueueLength, sum));
    if row.queue_length.is_some() {
        let for_capacity = ranks.gauge(QueryKind::QueueLength, Quantity::WaitingForCapacity);
        let sum = for_capacity.sum();
        row.waiting_for_capacity = sum.and_then(|sum| judged(QueryKind::QueueLength, sum));
    }
    let running =
        gauge(QueryKind::RunningRequests, Quantity::Running, Field::RunningRequests, &mut reasons);
    row.running_requests = running.sum().and_then(|sum| judged(QueryKind::RunningRequests, sum));
    let usage =
        gauge(QueryKind::KvCache, Quantity::KvCacheUsage, Field::KvCacheUsage, &mut reasons);
    row.kv_cache_usage = usage
        .greatest()
        .and_then(|usage| selfmetrics::accepted(QueryKind::KvCache, sanitize::ratio(usage)));
    ranks.fill_capacity(&mut row, usage.is_known().then_some(&usage.values));
    row.reasons = reasons;
    row
}

fn judged(kind: QueryKind, value: f64) -> Option<u64> {
    selfmetrics::accepted(kind, sanitize::count(value))
}

/// The ranks of a replica: live ones, and those with a capacity or counters only.
struct Ranks<'a, 'b> {
    replica: &'b Replica<'a>,
    units: &'b [Unit<'a>],
    /// Ranks without gauges.
    silent: Vec<&'b str>,
}

impl<'a, 'b> Ranks<'a, 'b> {
    fn new(replica: &'b Replica<'a>, units: &'b [Unit<'a>]) -> Self {
        let lives = |rank: &str| units.iter().any(|unit| *unit.server.rank == *rank);
        let named = units.iter().all(|unit| !unit.server.rank.is_empty());
        let counted = replica.counted.iter().map(|(rank, _)| &**rank);
        let mut silent: Vec<&str> =
            replica.config.iter().map(|it| &*it.rank).chain(counted).collect();
        silent.retain(|rank| named && !rank.is_empty() && !lives(rank));
        silent.sort_unstable();
        silent.dedup();
        Self { replica, units, silent }
    }

    fn is_asleep(&self) -> bool {
        let asleep = |unit: &Unit<'_>| {
            let value = |leaf| unit.server.value(leaf);
            let state =
                self.replica.plan.value(QueryKind::RunningRequests, Quantity::Sleeping, &value);
            state.is_some_and(|state| state > 0.0)
        };
        !self.units.is_empty() && self.units.iter().all(asleep)
    }

    /// Reads a gauge of every rank. It is 0 for an idle rank. A rank that lacks it, or has an impossible
    /// value, makes the sum unknown.
    fn gauge(&self, kind: QueryKind, quantity: Quantity) -> Combined {
        let plan = self.replica.plan;
        let mut together = Combined { values: Vec::new(), lacks: None };
        if !plan.has(quantity) {
            return together;
        }
        let all = self.units.len() + self.silent.len();
        for unit in self.units {
            let value = plan.value(kind, quantity, &|leaf| unit.server.value(leaf));
            match value.filter(|_| self.has_all(quantity, unit)) {
                Some(value) if value.is_finite() => together.values.push(value),
                _ if self.is_idle(&unit.server.rank) => together.values.push(0.0),
                _ => {
                    let reason = || self.reason(kind, &unit.server.rank, all);
                    together.lacks.get_or_insert_with(reason);
                }
            }
        }
        for rank in &self.silent {
            if self.is_idle(rank) {
                together.values.push(0.0);
            } else {
                together.lacks.get_or_insert_with(|| self.reason(kind, rank, all));
            }
        }
        together
    }

    /// Returns whether a server has every series of a gauge that another server of its replica has. They run
    /// the same release, so a sum without it would be too small.
    fn has_all(&self, gauge: Quantity, unit: &Unit<'_>) -> bool {
        let lacks = |leaf| {
            let has = |unit: &Unit<'_>| unit.server.value(leaf).is_some();
            !has(unit) && self.units.iter().any(has)
        };
        !self.replica.plan.reads(gauge, lacks)
    }

    /// Returns whether no server of a rank ever worked. Without counters this is not known.
    fn is_idle(&self, rank: &str) -> bool {
        let mut of_rank = self.replica.counted.iter().filter(|(it, _)| **it == *rank).peekable();
        of_rank.peek().is_some() && of_rank.all(|(_, idle)| *idle)
    }

    fn reason(&self, kind: QueryKind, rank: &str, all: usize) -> String {
        let leaf = self.replica.plan.leaves(kind).first();
        let series = leaf.and_then(|leaf| self.replica.plan.series_of(*leaf));
        let series = series.map_or("it", |series| &*series.name);
        if rank.is_empty() || all < 2 {
            format!("no usable {series}")
        } else {
            let rank = collector_transport::quote(rank);
            format!("rank {rank} of {all} has no usable {series}")
        }
    }

    fn config_of(&self, rank: &str, key: &str) -> Option<&RankConfig> {
        let find = |rank: &str, key: &str| {
            self.replica.config.iter().find(|it| *it.rank == *rank && *it.key == *key)
        };
        // A value that is reported once per server holds for each of its ranks.
        find(rank, key)
            .or_else(|| find(rank, ""))
            .or_else(|| find("", key))
            .or_else(|| find("", ""))
    }

    fn fill_capacity(&self, row: &mut ReplicaMetrics, usage: Option<&Vec<f64>>) {
        let live = self.units.iter().map(|unit| (&*unit.server.rank, &*unit.server.key));
        let silent = self.silent.iter().map(|rank| (*rank, ""));
        let configs: Vec<Option<&RankConfig>> =
            live.chain(silent).map(|(rank, key)| self.config_of(rank, key)).collect();
        let sum = |of: fn(&RankConfig) -> Option<u64>| {
            configs.iter().try_fold(0_u64, |sum, config| sum.checked_add(of((*config)?)?))
        };
        row.num_gpu_blocks = sum(|config| config.num_gpu_blocks);
        let mut sizes = configs.iter().map(|config| config.and_then(|config| config.block_size));
        let first = sizes.next().flatten();
        row.block_size = first.filter(|first| sizes.all(|size| size == Some(*first)));
        row.kv_capacity_tokens = sum(RankConfig::tokens);
        row.kv_tokens_in_use = usage.and_then(|usage| {
            let pairs = usage.iter().zip(&configs);
            let used = pairs.map(|(usage, config)| Some(usage * (*config)?.tokens()? as f64));
            sanitize::count(used.sum::<Option<f64>>()?).ok()
        });
    }
}

#[cfg(test)]
mod tests;
