// SPDX-License-Identifier: Apache-2.0
//! One data-parallel engine over its window.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{Field, ModelId, Tick, sanitize, window};

use super::counters::Counters;
use super::fields::field_of;
use super::latency::LatencyWindow;
use super::parts::{Part, Reported};
use super::peak::Peak;
use super::times::{self, ScrapeTime};
use crate::engines::{EngineRow, Numbers, Quantity, ServerExposition};
use crate::selfmetrics::judged;

/// The gauges that a server exports after the first request of an engine.
const WORK_GAUGES: [Quantity; 3] = [Quantity::Waiting, Quantity::Running, Quantity::KvCacheUsage];

/// The counters that requests increase.
const WORK_COUNTERS: [Quantity; 10] = [
    Quantity::RequestSuccessTotal,
    Quantity::RequestsTotal,
    Quantity::PromptTokensSum,
    Quantity::PromptTokensCount,
    Quantity::PromptTokensTotal,
    Quantity::GenerationTokensSum,
    Quantity::GenerationTokensCount,
    Quantity::GenerationTokensTotal,
    Quantity::TtftCount,
    Quantity::ItlCount,
];

/// One data-parallel engine; without a rank, the numbers given per server.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) model: ModelId,
    pub(super) replica: Option<Arc<str>>,
    pub(super) rank: Option<Arc<str>>,
    pub(super) seen_at: Tick,
    waiting: Peak,
    waiting_for_capacity: Peak,
    kv_cache_usage: Peak,
    load: Counters<7>,
    prefix: Counters<2>,
    /// By [`Quantity::LATENCY_COUNTS`].
    latencies: [LatencyWindow; 2],
    /// Which alternative of each of the [`COUNTERS`] `load` and `prefix` were taken from.
    from: [Option<usize>; COUNTERS.len()],
    /// The [`COUNTERS`], each as the sum of the increases of its series.
    totals: [f64; COUNTERS.len()],
    /// The timestamp of the counters on the last page, if it had any.
    stamp: Option<i64>,
}

impl Engine {
    pub(super) fn new(
        model: ModelId,
        replica: Option<Arc<str>>,
        rank: Option<Arc<str>>,
        seen_at: Tick,
    ) -> Self {
        Self {
            model,
            replica,
            rank,
            seen_at,
            waiting: Peak::default(),
            waiting_for_capacity: Peak::default(),
            kv_cache_usage: Peak::default(),
            load: Counters::default(),
            prefix: Counters::default(),
            latencies: Default::default(),
            from: [None; COUNTERS.len()],
            totals: [0.0; COUNTERS.len()],
            stamp: None,
        }
    }

    /// Forgets the counters.
    pub(super) fn forget_counters(&mut self) {
        self.load = Counters::default();
        self.prefix = Counters::default();
        self.latencies = Default::default();
    }

    /// Records its row of a page, and returns its state over the window.
    pub(super) fn part(
        &mut self,
        row: &EngineRow,
        page: &ServerExposition,
        window: Duration,
        time: ScrapeTime,
    ) -> Part {
        let gauge_at = |gauge| time.of(times::oldest(row, |quantity| quantity == gauge));
        let stamp = times::oldest(row, Quantity::is_counter);
        let counters_at = time.of(stamp);
        // By two clocks, one and the same sample may seem to be two that are close together.
        let is_new = stamp.is_none() || stamp != self.stamp;
        self.stamp = stamp;
        self.count(row, counters_at, is_new, window);
        if page.has_buckets && is_new {
            for (latencies, count) in self.latencies.iter_mut().zip(Quantity::LATENCY_COUNTS) {
                let buckets = row.buckets.iter().find(|(of, _)| *of == count);
                latencies.record(counters_at, buckets.map(|(_, buckets)| buckets), window);
            }
        }
        let zero =
            |quantity| is_idle(row).then_some(0.0).filter(|_| can_be_zero(page, row, quantity));
        let waiting = row.numbers[Quantity::Waiting].or_else(|| zero(Quantity::Waiting));
        let running = row.numbers[Quantity::Running].or_else(|| zero(Quantity::Running));
        let usage = row.numbers[Quantity::KvCacheUsage].or_else(|| zero(Quantity::KvCacheUsage));

        if let Some(waiting) = waiting
            && judged(Field::QueueLength, sanitize::count(waiting)).is_some()
        {
            self.waiting.record(gauge_at(Quantity::Waiting), waiting, window);
        }
        let peak = self.waiting.get(gauge_at(Quantity::Waiting), window);
        let peak = peak.and_then(|peak| sanitize::count(peak).ok());
        let for_capacity = row.numbers[Quantity::WaitingForCapacity];
        if let Some(waiting) = for_capacity
            && judged(Field::QueueLength, sanitize::count(waiting)).is_some()
        {
            let at = gauge_at(Quantity::WaitingForCapacity);
            self.waiting_for_capacity.record(at, waiting, window);
        }
        let peak_for_capacity =
            self.waiting_for_capacity.get(gauge_at(Quantity::WaitingForCapacity), window);
        let peak_for_capacity = peak_for_capacity.and_then(|peak| sanitize::count(peak).ok());
        if let Some(usage) = usage
            && let Some(usage) = judged(Field::KvCacheUsage, sanitize::ratio(usage))
        {
            self.kv_cache_usage.record(gauge_at(Quantity::KvCacheUsage), usage, window);
        }
        let fullest = self.kv_cache_usage.get(gauge_at(Quantity::KvCacheUsage), window);
        let running_judged =
            running.and_then(|running| judged(Field::RunningRequests, sanitize::count(running)));
        let reasons = page.reasons.iter().chain(&row.reasons).filter_map(|(quantity, reason)| {
            let field = field_of(*quantity)?;
            Some((field, Arc::clone(reason)))
        });
        Part {
            rank: row.rank.clone(),
            waiting: Reported::of(waiting.is_some(), peak),
            waiting_for_capacity: Reported::of(for_capacity.is_some(), peak_for_capacity),
            running: Reported::of(running.is_some(), running_judged),
            kv_cache_usage: Reported::of(usage.is_some(), fullest),
            capacity_tokens: configured(row, Quantity::KvCapacityTokens),
            blocks: configured(row, Quantity::NumGpuBlocks),
            block_size: configured(row, Quantity::BlockSize),
            sleeps: row.numbers[Quantity::Sleeping].map(|sleeping| sleeping > 0.0),
            prefix: self.prefix.rates(),
            hit_rate: row.numbers[Quantity::PrefixCacheHitRate],
            rates: self.load.rates().into(),
            latencies: std::array::from_fn(|index| {
                let is_counted = row.numbers[Quantity::LATENCY_COUNTS[index]].is_some();
                Reported::of(is_counted, self.latencies[index].histogram())
            }),
            latencies_at: self.latencies.iter().filter_map(LatencyWindow::newest_at).min(),
            reasons: reasons.collect(),
        }
    }

    /// Records the counters of a page, unless the page before had the same sample of them.
    fn count(&mut self, row: &EngineRow, at: Tick, is_new: bool, window: Duration) {
        let from = chosen(&row.numbers);
        if from != self.from {
            self.forget_counters();
            self.from = from;
        }
        let mut values = [None; COUNTERS.len()];
        for (index, (field, quantities)) in COUNTERS.iter().enumerate() {
            let Some(quantity) = from[index].map(|at| quantities[at]) else { continue };
            let value = row.numbers[quantity];
            let Some(value) = value.and_then(|value| judged(*field, sanitize::rate(value))) else {
                continue;
            };
            values[index] = Some(match &row.increases {
                Some(increases) => {
                    let total = &mut self.totals[index];
                    *total += increases[quantity].unwrap_or(0.0);
                    *total
                }
                None => value,
            });
        }
        if !is_new {
            return;
        }
        let [load @ .., hits, queries] = values;
        self.load.record(at, load, window);
        let prefix_window = window.max(window::PREFIX_CACHE_WINDOW);
        self.prefix.record(at, [hits, queries], prefix_window);
    }
}

impl Part {
    /// Sets the configuration that a page gives per server, unless the engine has its own.
    pub(super) fn take_configuration(&mut self, server: &EngineRow) {
        if self.capacity_tokens == Reported::Absent {
            self.capacity_tokens = configured(server, Quantity::KvCapacityTokens);
        }
        if self.blocks == Reported::Absent && self.block_size == Reported::Absent {
            self.blocks = configured(server, Quantity::NumGpuBlocks);
            self.block_size = configured(server, Quantity::BlockSize);
        }
    }

    /// Removes the configuration, which was given to each engine.
    pub(super) fn drop_configuration(&mut self) {
        self.capacity_tokens = Reported::Absent;
        self.blocks = Reported::Absent;
        self.block_size = Reported::Absent;
    }
}

/// The counters of the load and then of the prefix cache, each with its field and its alternatives in order of
/// preference. The count that belongs to a sum comes before other counts.
const COUNTERS: [(Field, &[Quantity]); 9] = [
    (
        Field::ArrivalRate,
        &[Quantity::PromptTokensCount, Quantity::RequestsTotal, Quantity::RequestSuccessTotal],
    ),
    (Field::AvgInputTokens, &[Quantity::PromptTokensSum, Quantity::PromptTokensTotal]),
    (Field::AvgOutputTokens, &[Quantity::GenerationTokensSum, Quantity::GenerationTokensTotal]),
    (Field::TtftAverage, &[Quantity::TtftSum]),
    (Field::TtftAverage, &[Quantity::TtftCount]),
    (Field::ItlAverage, &[Quantity::ItlSum]),
    (Field::ItlAverage, &[Quantity::ItlCount]),
    (Field::PrefixCacheHitRate, &[Quantity::PrefixHits, Quantity::CachedTokensTotal]),
    (Field::PrefixCacheHitRate, &[Quantity::PrefixQueries, Quantity::PromptTokensTotal]),
];

/// Returns the position of the alternative that is used for each of the [`COUNTERS`].
fn chosen(numbers: &Numbers) -> [Option<usize>; COUNTERS.len()] {
    let mut from = COUNTERS.map(|(_, quantities)| match quantities {
        [_] => Some(0),
        several => several.iter().position(|quantity| numbers[*quantity].is_some()),
    });
    // Hits and look-ups are used as a pair.
    let own = [Quantity::PrefixHits, Quantity::PrefixQueries];
    let has_own = own.iter().all(|quantity| numbers[*quantity].is_some());
    from[7..].fill(Some(usize::from(!has_own)));
    from
}

fn configured(row: &EngineRow, quantity: Quantity) -> Reported<u64> {
    let value = row.numbers[quantity];
    let judged = value.and_then(|value| judged(Field::CacheConfig, sanitize::count(value)));
    Reported::of(value.is_some(), judged)
}

/// Whether an engine has had no request yet: its gauges appear with the first one, and its counters are 0.
fn is_idle(row: &EngineRow) -> bool {
    let numbers = &row.numbers;
    let has_gauge = WORK_GAUGES.iter().any(|quantity| numbers[*quantity].is_some());
    let mut counted = WORK_COUNTERS.iter().filter_map(|quantity| numbers[*quantity]).peekable();
    !has_gauge && counted.peek().is_some() && counted.all(|count| count == 0.0)
}

/// Whether a gauge that an idle engine does not export is 0: its kind of server has the gauge, and there is no reason
/// why it is unknown.
fn can_be_zero(page: &ServerExposition, row: &EngineRow, quantity: Quantity) -> bool {
    let mut reasons = page.reasons.iter().chain(&row.reasons);
    WORK_GAUGES.contains(&quantity)
        && page.reports.contains(&quantity)
        && !reasons.any(|(of, _)| *of == quantity)
}
