//! What the pages of one pod have said, as far back as the windows reach.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Field, LoadRates, LoraAdapters, ModelId, PodName, ReplicaMetrics, Role, Tick, sanitize, window,
};

use super::counters::Counters;
use super::peak::Peak;
use crate::engines::{self, EngineRow, Matched, ServerPage};
use crate::selfmetrics;

/// Engines that are remembered; beyond it those that the last page did not have are forgotten. A page
/// that has more of them is refused before.
const ENGINES_MAX: usize = 512;

/// The samples of one pod in the window, by model and data-parallel engine.
#[derive(Debug)]
pub(crate) struct History {
    window: Duration,
    engines: Vec<Engine>,
    /// What the last page was read from: under another name a counter is another counter.
    matched: Vec<Matched>,
}

/// One data-parallel engine; or, without a rank, what a page gives per server.
#[derive(Debug)]
struct Engine {
    model: ModelId,
    rank: Option<Arc<str>>,
    seen_at: Tick,
    waiting: Peak,
    kv_cache_usage: Peak,
    load: Counters<7>,
    /// What `load` was taken from: of several counters that stand for each other, which.
    load_from: [Option<usize>; 3],
    prefix: Counters<2>,
}

/// One pod as a replica of one model.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct PodModel {
    pub(crate) model: ModelId,
    pub(crate) replica: ReplicaMetrics,
    pub(crate) rates: LoadRates,
}

/// Whose page it is, as far as the page does not say.
#[derive(Clone, Copy)]
pub(crate) struct Whose<'a> {
    pub(crate) pod: &'a PodName,
    pub(crate) role: Option<&'a Role>,
}

impl History {
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, engines: Vec::new(), matched: Vec::new() }
    }

    /// Whether a page is so near before `at` that rates span the two.
    pub(crate) fn reaches(&self, at: Tick) -> bool {
        self.engines.iter().any(|engine| engine.seen_at.age(at) <= self.window)
    }

    /// Takes a page that was sampled at `at`, and tells what the pod is by it: one replica for each
    /// model that it serves, none when no series names a model.
    pub(crate) fn record(
        &mut self,
        page: &ServerPage,
        whose: Whose<'_>,
        at: Tick,
    ) -> Vec<PodModel> {
        if reads_otherwise(&self.matched, &page.matched) {
            for engine in &mut self.engines {
                engine.load = Counters::default();
                engine.prefix = Counters::default();
            }
        }
        self.matched.clone_from(&page.matched);
        let keep = self.window.max(window::PREFIX_CACHE_WINDOW);
        self.engines.retain(|engine| engine.seen_at.age(at) <= keep);

        let only_model = only_model(page);
        let mut models: Vec<(PodModel, Sums)> = Vec::new();
        for row in &page.rows {
            // What names no model is of the only one that there is.
            let Some(model) = row.model.as_ref().or(only_model.as_ref()) else { continue };
            let place = models.iter().position(|(pod, _)| pod.model == *model);
            let place = place.unwrap_or_else(|| {
                models.push((Self::pod_model(model, page, whose, at), Sums::default()));
                models.len() - 1
            });
            let (pod, sums) = &mut models[place];
            let window = self.window;
            let engine = engine_of(&mut self.engines, model, row.rank.as_ref(), at);
            sums.add(row, engine, window, at);
            pod.rates = pod.rates.plus(engine.rates());
            sums.add_prefix(engine.prefix.rates());
        }
        if self.engines.len() > ENGINES_MAX {
            self.engines.retain(|engine| engine.seen_at == at);
        }
        for (pod, sums) in &mut models {
            sums.fill(&mut pod.replica);
        }
        models.into_iter().map(|(pod, _)| pod).collect()
    }

    fn pod_model(model: &ModelId, page: &ServerPage, whose: Whose<'_>, at: Tick) -> PodModel {
        let mut replica = ReplicaMetrics::new(whose.pod.clone(), at);
        replica.engine = Some(page.engine.clone());
        replica.role = whose.role.cloned();
        replica.lora_adapters = page.lora.as_ref().map(|lora| Box::new(adapters(lora)));
        PodModel { model: model.clone(), replica, rates: LoadRates::default() }
    }
}

fn adapters(lora: &engines::LoraAdapters) -> LoraAdapters {
    let sorted = |names: &[Box<str>]| {
        let mut names = names.to_vec();
        names.sort_unstable();
        names
    };
    LoraAdapters { running: sorted(&lora.running), waiting: sorted(&lora.waiting), max: lora.max }
}

/// Whether some quantity stands under another name than before.
fn reads_otherwise(before: &[Matched], now: &[Matched]) -> bool {
    let moved =
        |was: &Matched| now.iter().any(|is| is.quantity == was.quantity && is.spec != was.spec);
    before.iter().any(moved)
}

/// The model of a page that names exactly one.
fn only_model(page: &ServerPage) -> Option<ModelId> {
    let mut models = page.rows.iter().filter_map(|row| row.model.as_ref());
    let first = models.next()?;
    models.all(|model| model == first).then(|| first.clone())
}

fn engine_of<'a>(
    engines: &'a mut Vec<Engine>,
    model: &ModelId,
    rank: Option<&Arc<str>>,
    at: Tick,
) -> &'a mut Engine {
    let place = engines
        .iter()
        .position(|engine| engine.model == *model && engine.rank.as_ref() == rank)
        .unwrap_or_else(|| {
            engines.push(Engine {
                model: model.clone(),
                rank: rank.cloned(),
                seen_at: at,
                waiting: Peak::default(),
                kv_cache_usage: Peak::default(),
                load: Counters::default(),
                load_from: [None; 3],
                prefix: Counters::default(),
            });
            engines.len() - 1
        });
    let engine = &mut engines[place];
    engine.seen_at = at;
    engine
}

impl Engine {
    /// Takes the counters of a page.
    fn count(&mut self, row: &EngineRow, at: Tick, window: Duration) {
        let counters = &row.counters;
        let first_of = |alternatives: &[Option<f64>]| {
            let place = alternatives.iter().position(Option::is_some);
            (place, place.and_then(|place| alternatives[place]))
        };
        // Of what stands for each other, the count that its sum belongs to comes first.
        let (requests_from, requests) = first_of(&[
            counters.prompt_tokens_count,
            counters.requests_total,
            counters.request_success_total,
        ]);
        let (prompt_from, prompt) =
            first_of(&[counters.prompt_tokens_sum, counters.prompt_tokens_total]);
        let (generation_from, generation) =
            first_of(&[counters.generation_tokens_sum, counters.generation_tokens_total]);
        let from = [requests_from, prompt_from, generation_from];
        if from != self.load_from {
            self.load = Counters::default();
            self.load_from = from;
        }
        let load = [
            good(Field::ArrivalRate, requests),
            good(Field::AvgInputTokens, prompt),
            good(Field::AvgOutputTokens, generation),
            good(Field::TtftAverage, counters.ttft_sum),
            good(Field::TtftAverage, counters.ttft_count),
            good(Field::ItlAverage, counters.itl_sum),
            good(Field::ItlAverage, counters.itl_count),
        ];
        self.load.record(at, load, window);
        let prefix = match (counters.prefix_hits, counters.prefix_queries) {
            (Some(hits), Some(queries)) => [Some(hits), Some(queries)],
            _ => [counters.cached_tokens_total, counters.prompt_tokens_total],
        };
        let prefix = prefix.map(|count| good(Field::PrefixCacheHitRate, count));
        self.prefix.record(at, prefix, window.max(window::PREFIX_CACHE_WINDOW));
    }

    fn rates(&self) -> LoadRates {
        let [
            requests,
            prompt_tokens,
            generation_tokens,
            ttft_seconds,
            ttft_count,
            itl_seconds,
            itl_count,
        ] = self.load.rates();
        LoadRates {
            requests,
            prompt_tokens,
            generation_tokens,
            ttft_seconds,
            ttft_count,
            itl_seconds,
            itl_count,
        }
    }
}

/// A counter's value, if it can be one.
fn good(field: Field, value: Option<f64>) -> Option<f64> {
    selfmetrics::judged(field, sanitize::rate(value?))
}

/// What the engines of one pod come to. A part that is unknown, or cannot be true, spoils the whole:
/// the rest of it would be a wrong number.
#[derive(Default, Debug)]
struct Sums {
    /// Data-parallel engines.
    ranks: u32,
    queue: Whole<u64>,
    running: Whole<u64>,
    kv_cache_usage: Whole<f64>,
    blocks: Whole<u64>,
    block_size: Option<u64>,
    hits: Option<f64>,
    queries: Option<f64>,
}

/// A gauge of all engines together.
#[derive(Default, Debug)]
struct Whole<T> {
    value: Option<T>,
    spoiled: bool,
    /// The data-parallel engines that it was on the page of.
    ranks: u32,
}

impl<T: Copy> Whole<T> {
    /// Adds what was on the page of an engine, as judged.
    fn add(&mut self, row: &EngineRow, part: Option<T>, together: impl Fn(T, T) -> T) {
        self.ranks += u32::from(row.rank.is_some());
        match part {
            Some(part) => {
                self.value = Some(self.value.map_or(part, |value| together(value, part)));
            }
            None => self.spoiled = true,
        }
    }

    /// The whole, unless a part is unknown: one of `ranks` engines did not have what others had.
    fn get(&self, ranks: u32) -> Option<T> {
        let lacks = self.ranks > 0 && self.ranks < ranks;
        self.value.filter(|_| !self.spoiled && !lacks)
    }
}

impl Sums {
    fn add(&mut self, row: &EngineRow, engine: &mut Engine, window: Duration, at: Tick) {
        use selfmetrics::judged;
        engine.count(row, at, window);
        self.ranks += u32::from(row.rank.is_some());
        if let Some(waiting) = row.waiting {
            if judged(Field::QueueLength, sanitize::count(waiting)).is_some() {
                engine.waiting.record(at, waiting, window);
            }
            let peak = engine.waiting.get(at, window).and_then(|peak| sanitize::count(peak).ok());
            self.queue.add(row, peak, u64::saturating_add);
        }
        if let Some(running) = row.running {
            let running = judged(Field::RunningRequests, sanitize::count(running));
            self.running.add(row, running, u64::saturating_add);
        }
        if let Some(usage) = row.kv_cache_usage {
            if let Some(usage) = judged(Field::KvCacheUsage, sanitize::ratio(usage)) {
                engine.kv_cache_usage.record(at, usage, window);
            }
            self.kv_cache_usage.add(row, engine.kv_cache_usage.get(at, window), f64::max);
        }
        if let Some(blocks) = row.num_gpu_blocks {
            let blocks = judged(Field::CacheConfig, sanitize::count(blocks));
            self.blocks.add(row, blocks, u64::saturating_add);
        }
        if let Some(size) = row.block_size {
            let size = judged(Field::CacheConfig, sanitize::count(size));
            self.block_size = self.block_size.or(size);
        }
    }

    fn add_prefix(&mut self, [hits, queries]: [Option<f64>; 2]) {
        // A ratio needs both of its halves from the same engines.
        let (Some(hits), Some(queries)) = (hits, queries) else { return };
        self.hits = Some(self.hits.unwrap_or(0.0) + hits);
        self.queries = Some(self.queries.unwrap_or(0.0) + queries);
    }

    fn fill(&self, replica: &mut ReplicaMetrics) {
        replica.queue_length = self.queue.get(self.ranks);
        replica.running_requests = self.running.get(self.ranks);
        replica.kv_cache_usage = self.kv_cache_usage.get(self.ranks);
        replica.num_gpu_blocks = self.blocks.get(self.ranks);
        replica.block_size = self.block_size;
        let idle = replica.running_requests == Some(0);
        let hit_rate = collector_core::mean_over_window(self.hits, self.queries, idle);
        replica.prefix_cache_hit_rate = hit_rate
            .and_then(|rate| selfmetrics::judged(Field::PrefixCacheHitRate, sanitize::ratio(rate)));
    }
}

#[cfg(test)]
mod tests;
