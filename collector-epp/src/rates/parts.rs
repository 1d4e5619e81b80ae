// SPDX-License-Identifier: Apache-2.0
//! Joins the data-parallel engines, or servers, of one replica.

use std::sync::Arc;

use collector_core::{
    Field, Latencies, LatencyHistogram, LoadRates, ReplicaMetrics, ReplicaState, Tick,
    mean_over_window, sanitize,
};

use crate::selfmetrics;

/// The state over the window of one data-parallel engine, or of one server of a replica.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct Part {
    /// The rank of the engine; `None` for numbers given per server.
    pub(crate) rank: Option<Arc<str>>,
    pub(crate) waiting: Reported<u64>,
    pub(crate) waiting_for_capacity: Reported<u64>,
    pub(crate) running: Reported<u64>,
    pub(crate) kv_cache_usage: Reported<f64>,
    /// Tokens the KV cache holds, as the server reports them.
    pub(crate) capacity_tokens: Reported<u64>,
    pub(crate) blocks: Reported<u64>,
    pub(crate) block_size: Reported<u64>,
    /// `None` if the server does not report it.
    pub(crate) sleeps: Option<bool>,
    /// Rates of hits and look-ups of the prefix cache.
    pub(crate) prefix: [Option<f64>; 2],
    /// The hit rate of the prefix cache, if the server computes it.
    pub(crate) hit_rate: Option<f64>,
    pub(crate) rates: LoadRates,
    /// Histograms by [`LATENCY_COUNTS`](crate::engines::Quantity::LATENCY_COUNTS); absent if the number of observations
    /// is not on the page.
    pub(crate) latencies: [Reported<LatencyHistogram>; 2],
    /// When the older of the windows of the latencies ended.
    pub(crate) latencies_at: Option<Tick>,
    /// Why fields are unknown though the engine reports them.
    pub(crate) reasons: Vec<(Field, Arc<str>)>,
}

/// One number as a page reports it.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub(crate) enum Reported<T> {
    /// The number is not on the page.
    #[default]
    Absent,
    /// The number cannot be true.
    Unusable,
    /// A value.
    Value(T),
}

impl<T> Reported<T> {
    /// Returns the number after it was judged.
    pub(crate) fn of(on_page: bool, judged: Option<T>) -> Self {
        match (on_page, judged) {
            (false, _) => Self::Absent,
            (true, None) => Self::Unusable,
            (true, Some(value)) => Self::Value(value),
        }
    }

    pub(crate) fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Unusable => None,
        }
    }
}

/// The names of the series that fields were read from, for reasons.
pub(crate) type NameOf<'a> = &'a dyn Fn(Field) -> Option<String>;

impl Part {
    fn sleeps(&self) -> bool {
        self.sleeps == Some(true)
    }

    /// Returns the tokens that the KV cache holds. A sleeping server has released it.
    fn capacity(&self) -> Reported<u64> {
        if self.sleeps() {
            return Reported::Value(0);
        }
        match (self.capacity_tokens, self.blocks, self.block_size) {
            (Reported::Value(tokens), ..) => Reported::Value(tokens),
            (_, Reported::Value(blocks), Reported::Value(size)) => {
                blocks.checked_mul(size).map_or(Reported::Unusable, Reported::Value)
            }
            (Reported::Absent, Reported::Absent, Reported::Absent) => Reported::Absent,
            _ => Reported::Unusable,
        }
    }
}

/// Joins the parts of a replica. An unknown part makes a number unknown, because the sum of the others would be
/// wrong.
pub(crate) fn fill(replica: &mut ReplicaMetrics, parts: &[Part], name_of: NameOf<'_>) {
    let whole = Whole { parts, name_of };
    replica.servers = u32::try_from(whole.ranks()).unwrap_or(u32::MAX).max(1);
    replica.queue_length =
        whole.of(replica, Field::QueueLength, |part| part.waiting, u64::saturating_add);
    if replica.queue_length.is_some() {
        replica.waiting_for_capacity = whole.waiting_for_capacity();
    }
    replica.running_requests =
        whole.of(replica, Field::RunningRequests, |part| part.running, u64::saturating_add);
    replica.kv_cache_usage =
        whole.of(replica, Field::KvCacheUsage, |part| part.kv_cache_usage, f64::max);
    whole.fill_capacity(replica);
    if let Some(all_sleep) = parts.iter().filter_map(|part| part.sleeps).reduce(|a, b| a && b)
        && all_sleep
    {
        replica.state = ReplicaState::Sleeping;
    }
    replica.latencies = latencies(parts);
    replica.prefix_cache_hit_rate = whole.hit_rate(replica.running_requests == Some(0));
    for (field, reason) in parts.iter().flat_map(|part| &part.reasons) {
        if !replica.is_known(*field) {
            replica.reasons.insert(*field, Arc::clone(reason));
        }
    }
}

/// The latencies of a replica. One part of which they are unknown makes them unknown: it may be the slow one.
fn latencies(parts: &[Part]) -> Option<Arc<Latencies>> {
    let [ttft, itl] = [0, 1].map(|index| {
        let all = parts.iter().filter_map(|part| match &part.latencies[index] {
            Reported::Absent => None,
            Reported::Unusable => Some(None),
            Reported::Value(histogram) => Some(Some(histogram)),
        });
        LatencyHistogram::merged(all.collect::<Option<Vec<_>>>()?)
    });
    let sampled_at = parts.iter().filter_map(|part| part.latencies_at).min()?;
    let is_any = ttft.is_some() || itl.is_some();
    is_any.then(|| Arc::new(Latencies::new(sampled_at, ttft, itl)))
}

/// The rates of a replica.
pub(crate) fn rates(parts: &[Part]) -> LoadRates {
    parts.iter().map(|part| part.rates).fold(LoadRates::default(), LoadRates::plus)
}

struct Whole<'a> {
    parts: &'a [Part],
    name_of: NameOf<'a>,
}

impl Whole<'_> {
    /// Returns the number of data-parallel engines.
    fn ranks(&self) -> usize {
        self.parts.iter().filter(|part| part.rank.is_some()).count()
    }

    /// Returns one number of all parts together, or records why it is unknown.
    fn of<T: Copy>(
        &self,
        replica: &mut ReplicaMetrics,
        field: Field,
        told: impl Fn(&Part) -> Reported<T>,
        together: impl Fn(T, T) -> T,
    ) -> Option<T> {
        // A number that no engine has is given per server.
        let is_absent = |part: &Part| matches!(told(part), Reported::Absent);
        let per_rank = self.parts.iter().any(|part| part.rank.is_some() && !is_absent(part));
        let mut value = None;
        for part in self.parts {
            let problem = match told(part) {
                Reported::Value(part) => {
                    value = Some(value.map_or(part, |value| together(value, part)));
                    continue;
                }
                Reported::Absent if part.rank.is_none() || !per_rank => continue,
                Reported::Absent => "has no",
                Reported::Unusable => "has no usable number in",
            };
            let name = (self.name_of)(field);
            let name = name.as_deref().unwrap_or(field.as_str());
            let owner = match &part.rank {
                Some(rank) => {
                    let rank = collector_transport::quote(rank);
                    format!("engine {rank} of {}", self.ranks())
                }
                None => "the server".to_owned(),
            };
            let own = part.reasons.iter().find(|(of, _)| *of == field);
            let reason = match own {
                Some((_, reason)) => Arc::clone(reason),
                None => format!("{owner} {problem} {name}").into(),
            };
            replica.reasons.insert(field, reason);
            return None;
        }
        value
    }

    /// Returns how many requests wait for capacity; `None` if an engine with a queue does not report it.
    fn waiting_for_capacity(&self) -> Option<u64> {
        let with_queue = self.parts.iter().filter(|part| part.waiting.value().is_some());
        let told = with_queue.map(|part| part.waiting_for_capacity.value());
        told.reduce(|sum, told| Some(sum?.saturating_add(told?)))?
    }

    fn fill_capacity(&self, replica: &mut ReplicaMetrics) {
        let serving = |part: &&Part| !part.sleeps();
        replica.num_gpu_blocks =
            self.of(replica, Field::CacheConfig, |part| part.blocks, u64::saturating_add);
        let mut sizes = self.parts.iter().filter_map(|part| part.block_size.value());
        let size = sizes.next();
        let differ = sizes.any(|other| Some(other) != size);
        replica.block_size = size.filter(|_| !differ);
        let reported =
            self.parts.iter().filter(serving).any(|part| part.capacity_tokens.value().is_some());
        let some_sleep = self.parts.iter().any(Part::sleeps);
        if reported || differ || some_sleep {
            let capacity =
                self.of(replica, Field::CacheConfig, Part::capacity, u64::saturating_add);
            if capacity.is_some() {
                // The capacity is known without the number of blocks.
                replica.reasons.remove(Field::CacheConfig);
            }
            replica.kv_capacity_tokens = capacity;
        }
        if replica.kv_cache_usage.is_none() {
            return;
        }
        let in_use = self.parts.iter().filter_map(|part| {
            let usage = part.kv_cache_usage.value()?;
            Some(part.capacity().value().map(|capacity| usage * capacity as f64))
        });
        let in_use: Option<f64> = in_use.sum();
        replica.kv_tokens_in_use = in_use.and_then(|tokens| sanitize::count(tokens).ok());
    }

    fn hit_rate(&self, idle: bool) -> Option<f64> {
        let mut sums: Option<(f64, f64)> = None;
        for part in self.parts {
            // Both halves of a ratio must come from the same engines.
            if let [Some(hits), Some(queries)] = part.prefix {
                let (all_hits, all_queries) = sums.unwrap_or_default();
                sums = Some((all_hits + hits, all_queries + queries));
            }
        }
        let (hits, queries) = sums.unzip();
        let rate = mean_over_window(hits, queries, idle).or_else(|| {
            // Hit rates of several servers cannot be joined without the numbers of look-ups.
            let mut told = self.parts.iter().filter_map(|part| part.hit_rate);
            told.next().filter(|_| told.next().is_none())
        });
        rate.and_then(|rate| selfmetrics::judged(Field::PrefixCacheHitRate, sanitize::ratio(rate)))
    }
}
