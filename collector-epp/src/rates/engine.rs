//! One data-parallel engine over its window: from the numbers of its row to what they mean.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{Field, LoadRates, ModelId, Tick, sanitize, window};

use super::counters::Counters;
use super::parts::{Part, Told};
use super::peak::Peak;
use super::times::{self, PageTime};
use crate::engines::{EngineRow, Numbers, Quantity, ServerPage};
use crate::selfmetrics::judged;

/// The gauges that a server shows as soon as an engine of it has worked.
const WORK_GAUGES: [Quantity; 3] = [Quantity::Waiting, Quantity::Running, Quantity::KvCacheUsage];

/// What a server counts when an engine of it works.
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
    from: [Option<usize>; COUNTERS.len()],
    /// The counters of `load` and `prefix`, each as the sum of the increases of its series.
    totals: [f64; COUNTERS.len()],
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
            from: [None; COUNTERS.len()],
            totals: [0.0; COUNTERS.len()],
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
        let waiting = row.numbers[Quantity::Waiting].or_else(|| zero(Quantity::Waiting));
        let running = row.numbers[Quantity::Running].or_else(|| zero(Quantity::Running));
        let usage = row.numbers[Quantity::KvCacheUsage].or_else(|| zero(Quantity::KvCacheUsage));

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
            capacity_tokens: configured(row, Quantity::KvCapacityTokens),
            blocks: configured(row, Quantity::NumGpuBlocks),
            block_size: configured(row, Quantity::BlockSize),
            sleeps: row.numbers[Quantity::Sleeping].map(|sleeping| sleeping > 0.0),
            prefix: self.prefix.rates(),
            hit_rate: row.numbers[Quantity::PrefixCacheHitRate],
            rates: self.rates(),
            reasons: reasons.collect(),
        }
    }

    /// Takes the counters of a page.
    fn count(&mut self, row: &EngineRow, at: Tick, window: Duration) {
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
            self.capacity_tokens = configured(server, Quantity::KvCapacityTokens);
        }
        if self.blocks == Told::Absent && self.block_size == Told::Absent {
            self.blocks = configured(server, Quantity::NumGpuBlocks);
            self.block_size = configured(server, Quantity::BlockSize);
        }
    }

    /// Leaves out what was given to each engine.
    pub(super) fn drop_configuration(&mut self) {
        self.capacity_tokens = Told::Absent;
        self.blocks = Told::Absent;
        self.block_size = Told::Absent;
    }
}

/// The counters of the load and then of the prefix cache, each with its field: quantities that stand for each
/// other, the preferred one first. The count that a sum belongs to comes before what is counted otherwise.
pub(super) const COUNTERS: [(Field, &[Quantity]); 9] = [
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

/// Which of the [`COUNTERS`] are used of those on the page, by their position.
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

fn configured(row: &EngineRow, quantity: Quantity) -> Told<u64> {
    let value = row.numbers[quantity];
    let judged = value.and_then(|value| judged(Field::CacheConfig, sanitize::count(value)));
    Told::of(value.is_some(), judged)
}

/// Whether an engine has not worked yet: its gauges appear with its first request, and what it has
/// counted is 0.
fn is_idle(row: &EngineRow) -> bool {
    let numbers = &row.numbers;
    let has_gauge = WORK_GAUGES.iter().any(|quantity| numbers[*quantity].is_some());
    let mut counted = WORK_COUNTERS.iter().filter_map(|quantity| numbers[*quantity]).peekable();
    !has_gauge && counted.peek().is_some() && counted.all(|count| count == 0.0)
}

/// Whether a gauge that an idle engine does not show is 0: its kind of server has it, and nothing says
/// why it is unknown.
fn can_be_zero(page: &ServerPage, quantity: Quantity) -> bool {
    WORK_GAUGES.contains(&quantity)
        && page.reports.contains(&quantity)
        && !page.reasons.iter().any(|(of, _)| *of == quantity)
}
