//! One data-parallel engine over its window: from the numbers of its row to what they mean.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{Field, LoadRates, ModelId, Tick, sanitize, window};

use super::counters::Counters;
use super::parts::{Part, Told};
use super::peak::Peak;
use super::times::{self, PageTime};
use crate::engines::{Counters as Counts, EngineRow, Quantity, ServerPage};
use crate::selfmetrics::judged;

/// The gauges that a server shows as soon as an engine of it has worked.
const WORK_GAUGES: [Quantity; 3] = [Quantity::Waiting, Quantity::Running, Quantity::KvCacheUsage];

/// One data-parallel engine; or, without a rank, what a page gives per server.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) model: ModelId,
    pub(super) replica: Option<Arc<str>>,
    pub(super) rank: Option<Arc<str>>,
    pub(super) seen_at: Tick,
    waiting: Peak,
    kv_cache_usage: Peak,
    load: Counters<7>,
    prefix: Counters<2>,
    /// What `load` and `prefix` were taken from: of several counters that stand for each other, which.
    from: [Option<usize>; 4],
    /// The counters of `load` and `prefix`, each as the sum of the increases of its series.
    totals: [f64; 9],
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
            kv_cache_usage: Peak::default(),
            load: Counters::default(),
            prefix: Counters::default(),
            from: [None; 4],
            totals: [0.0; 9],
        }
    }

    /// Forgets what it has counted.
    pub(super) fn forget_counters(&mut self) {
        self.load = Counters::default();
        self.prefix = Counters::default();
    }

    /// Takes its row of a page, and tells what the window says.
    pub(super) fn part(
        &mut self,
        row: &EngineRow,
        page: &ServerPage,
        window: Duration,
        time: PageTime,
    ) -> Part {
        let gauges_at = times::of(row, time, |quantity| !quantity.is_counter());
        let counters_at = times::of(row, time, Quantity::is_counter);
        self.count(row, counters_at, window);
        let zero = |quantity| is_idle(row).then_some(0.0).filter(|_| can_be_zero(page, quantity));
        let waiting = row.waiting.or_else(|| zero(Quantity::Waiting));
        let running = row.running.or_else(|| zero(Quantity::Running));
        let usage = row.kv_cache_usage.or_else(|| zero(Quantity::KvCacheUsage));

        if let Some(waiting) = waiting
            && judged(Field::QueueLength, sanitize::count(waiting)).is_some()
        {
            self.waiting.record(gauges_at, waiting, window);
        }
        let peak = self.waiting.get(gauges_at, window);
        let peak = peak.and_then(|peak| sanitize::count(peak).ok());
        if let Some(usage) = usage
            && let Some(usage) = judged(Field::KvCacheUsage, sanitize::ratio(usage))
        {
            self.kv_cache_usage.record(gauges_at, usage, window);
        }
        let fullest = self.kv_cache_usage.get(gauges_at, window);
        let running_judged =
            running.and_then(|running| judged(Field::RunningRequests, sanitize::count(running)));
        let reasons = page.reasons.iter().chain(&row.reasons).filter_map(|(quantity, reason)| {
            let field = times::field_of(*quantity)?;
            Some((field, Arc::clone(reason)))
        });
        Part {
            rank: row.rank.clone(),
            waiting: Told::of(waiting.is_some(), peak),
            running: Told::of(running.is_some(), running_judged),
            kv_cache_usage: Told::of(usage.is_some(), fullest),
            capacity_tokens: configured(row.kv_capacity_tokens),
            blocks: configured(row.num_gpu_blocks),
            block_size: configured(row.block_size),
            sleeps: row.sleeping.map(|sleeping| sleeping > 0.0),
            prefix: self.prefix.rates(),
            hit_rate: row.prefix_cache_hit_rate,
            rates: self.rates(),
            reasons: reasons.collect(),
        }
    }

    /// Takes the counters of a page.
    fn count(&mut self, row: &EngineRow, at: Tick, window: Duration) {
        let counters = &row.counters;
        let from = chosen(counters);
        if from != self.from {
            self.forget_counters();
            self.from = from;
        }
        let on_page = of_load_and_prefix(counters, from);
        let increases =
            row.increases.as_deref().map(|increases| of_load_and_prefix(increases, from));
        let mut values = [None; 9];
        for place in 0..values.len() {
            let Some(value) = good(FIELDS[place], on_page[place]) else { continue };
            values[place] = Some(match &increases {
                Some(increases) => {
                    let total = &mut self.totals[place];
                    *total += increases[place].unwrap_or(0.0);
                    *total
                }
                None => value,
            });
        }
        let [load @ .., hits, queries] = values;
        self.load.record(at, load, window);
        let prefix_window = window.max(window::PREFIX_CACHE_WINDOW);
        self.prefix.record(at, [hits, queries], prefix_window);
    }

    fn rates(&self) -> LoadRates {
        self.load.rates().into()
    }
}

impl Part {
    /// Takes the configuration that a page gives per server, where the engine has none of its own.
    pub(super) fn take_configuration(&mut self, server: &EngineRow) {
        if self.capacity_tokens == Told::Absent {
            self.capacity_tokens = configured(server.kv_capacity_tokens);
        }
        if self.blocks == Told::Absent && self.block_size == Told::Absent {
            self.blocks = configured(server.num_gpu_blocks);
            self.block_size = configured(server.block_size);
        }
    }

    /// Leaves out what was given to each engine.
    pub(super) fn drop_configuration(&mut self) {
        self.capacity_tokens = Told::Absent;
        self.blocks = Told::Absent;
        self.block_size = Told::Absent;
    }
}

/// The fields of the counters of load and prefix cache.
const FIELDS: [Field; 9] = [
    Field::ArrivalRate,
    Field::AvgInputTokens,
    Field::AvgOutputTokens,
    Field::TtftAverage,
    Field::TtftAverage,
    Field::ItlAverage,
    Field::ItlAverage,
    Field::PrefixCacheHitRate,
    Field::PrefixCacheHitRate,
];

/// Counters that stand for each other, the preferred one first: requests, prompt tokens, generated
/// tokens. The count that a sum belongs to comes before what is counted otherwise.
fn alternatives(counters: &Counts) -> [[Option<f64>; 3]; 3] {
    [
        [counters.prompt_tokens_count, counters.requests_total, counters.request_success_total],
        [counters.prompt_tokens_sum, counters.prompt_tokens_total, None],
        [counters.generation_tokens_sum, counters.generation_tokens_total, None],
    ]
}

/// Which of these are on the page, and whether the prefix cache has counters of its own.
fn chosen(counters: &Counts) -> [Option<usize>; 4] {
    let [requests, prompt, generation] = alternatives(counters);
    let first = |list: [Option<f64>; 3]| list.iter().position(Option::is_some);
    let own = counters.prefix_hits.is_some() && counters.prefix_queries.is_some();
    [first(requests), first(prompt), first(generation), Some(usize::from(own))]
}

fn of_load_and_prefix(counters: &Counts, from: [Option<usize>; 4]) -> [Option<f64>; 9] {
    let [requests, prompt, generation] = alternatives(counters);
    let at = |list: [Option<f64>; 3], place: Option<usize>| place.and_then(|place| list[place]);
    let (hits, queries) = match from[3] {
        Some(1) => (counters.prefix_hits, counters.prefix_queries),
        _ => (counters.cached_tokens_total, counters.prompt_tokens_total),
    };
    [
        at(requests, from[0]),
        at(prompt, from[1]),
        at(generation, from[2]),
        counters.ttft_sum,
        counters.ttft_count,
        counters.itl_sum,
        counters.itl_count,
        hits,
        queries,
    ]
}

/// A counter's value, if it can be one.
fn good(field: Field, value: Option<f64>) -> Option<f64> {
    judged(field, sanitize::rate(value?))
}

fn configured(value: Option<f64>) -> Told<u64> {
    let judged = value.and_then(|value| judged(Field::CacheConfig, sanitize::count(value)));
    Told::of(value.is_some(), judged)
}

/// Whether an engine has not worked yet: its gauges appear with its first request, and what it has
/// counted is 0.
fn is_idle(row: &EngineRow) -> bool {
    if row.waiting.is_some() || row.running.is_some() || row.kv_cache_usage.is_some() {
        return false;
    }
    let counters = &row.counters;
    let work = [
        counters.request_success_total,
        counters.requests_total,
        counters.prompt_tokens_sum,
        counters.prompt_tokens_count,
        counters.prompt_tokens_total,
        counters.generation_tokens_sum,
        counters.generation_tokens_count,
        counters.generation_tokens_total,
        counters.ttft_count,
        counters.itl_count,
    ];
    let mut counted = work.into_iter().flatten().peekable();
    counted.peek().is_some() && counted.all(|count| count == 0.0)
}

/// Whether a gauge that an idle engine does not show is 0: its kind of server has it, and nothing says
/// why it is unknown.
fn can_be_zero(page: &ServerPage, quantity: Quantity) -> bool {
    WORK_GAUGES.contains(&quantity)
        && page.reports.contains(&quantity)
        && !page.reasons.iter().any(|(of, _)| *of == quantity)
}
