//! From rows to what a look says about each model.
//!
//! The rows of the liveness query come first and decide who exists. A pod in another query and not
//! among them is dead and left out; one that lives and has no row there is unknown in that field.

use std::collections::HashMap;
use std::sync::Arc;

use collector_core::sanitize::{self, Rejected};
use collector_core::{
    Answer, BackendName, EngineName, ErrorKind, Field, FieldReasons, LoadRates, LoadRow, Mark,
    ModelRef, ModelSample, Operation, PodName, ReplicaMetrics, Tick, TraceRow, mean_over_window,
};
use foldhash::fast::RandomState;

use crate::failure::Failure;
use crate::memory::{CacheConfig, Known, ModelMemory, PodMemory};
use crate::plan::{QueryKind, QueryKinds};
use crate::pods::{Pod, Pods};
use crate::rows::{EngineConfig, Rows, Sample};
use crate::selfmetrics;
use crate::server_clock::Moment;
use crate::shard::Asked;
use crate::trace::{self, TracedQuery};

/// The kinds that are rates, in the order in which their values are kept.
const RATES: [QueryKind; 7] = [
    QueryKind::RequestCount,
    QueryKind::InputTokens,
    QueryKind::OutputTokens,
    QueryKind::TtftSum,
    QueryKind::TtftCount,
    QueryKind::ItlSum,
    QueryKind::ItlCount,
];

/// A rate as far as it is known.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
enum Rate {
    #[default]
    Absent,
    Known(f64),
    /// There was a value, and it cannot be true. A sum without it would be too small.
    Spoiled,
}

impl Rate {
    fn known(self) -> Option<f64> {
        match self {
            Self::Known(value) => Some(value),
            Self::Absent | Self::Spoiled => None,
        }
    }

    fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Spoiled, _) | (_, Self::Spoiled) => Self::Spoiled,
            (Self::Known(a), Self::Known(b)) => Self::Known(a + b),
            (Self::Absent, one) | (one, Self::Absent) => one,
        }
    }
}

type Rates = [Rate; RATES.len()];

fn load_rates(rates: &Rates) -> LoadRates {
    let [requests, prompt, generation, ttft, ttft_count, itl, itl_count] = rates.map(Rate::known);
    LoadRates {
        requests,
        prompt_tokens: prompt,
        generation_tokens: generation,
        ttft_seconds: ttft,
        ttft_count,
        itl_seconds: itl,
        itl_count,
    }
}

/// What is known of one model.
#[derive(Debug, Default)]
struct Model {
    alive: Pods,
    /// Rates of the model as a whole.
    rates: Rates,
    /// Rates by pod, dead ones too.
    rates_by_pod: HashMap<PodName, Rates, RandomState>,
    /// Some query had a row of it.
    seen: bool,
    /// It has series without a pod.
    unnamed: bool,
    /// Rows may be absent from some answer.
    incomplete: bool,
    /// The queries about it that were answered.
    answered: QueryKinds,
    failed: FieldReasons,
    /// Why a query about it failed; the first.
    failure: Option<Failure>,
    /// How its values came about, where the look is traced.
    trace: Vec<TraceRow>,
    /// The query for its cache sizes, likewise.
    traced_config: Option<TracedQuery>,
}

/// One answer, or its failure, for some models of a look.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) kind: QueryKind,
    /// Positions in [`Asked`].
    pub(crate) models: Arc<[usize]>,
    pub(crate) result: Result<Arrived, Failure>,
}

/// The rows of an answer, and what goes with them.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) rows: Rows,
    pub(crate) complete: bool,
    pub(crate) at: Tick,
    /// What was asked, where the look is traced.
    pub(crate) query: Option<TracedQuery>,
}

/// What a look comes to.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) answers: Vec<(ModelRef, Answer)>,
    /// What is worth keeping for the next look.
    pub(crate) kept: Vec<(ModelRef, ModelMemory)>,
}

/// What all models of a look have in common.
#[derive(Debug)]
struct Common {
    as_of: Tick,
    evaluated_at: Tick,
    engine: EngineName,
    backend: BackendName,
}

/// The look as far as it has come.
#[derive(Debug)]
pub(crate) struct Assembly<'a> {
    asked: &'a Asked,
    moment: Moment,
    models: Vec<Model>,
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(asked: &'a Asked, moment: Moment) -> Self {
        Self { asked, moment, models: asked.models().iter().map(|_| Model::default()).collect() }
    }

    /// Takes in one answer. True when it shows that series are stored more than once.
    pub(crate) fn add(&mut self, piece: Piece) -> bool {
        let Piece { kind, models, result } = piece;
        match result {
            Err(failure) => {
                let reason: Arc<str> = failure.reason().into();
                for position in &*models {
                    let model = &mut self.models[*position];
                    for field in kind.fields() {
                        model.failed.insert(*field, Arc::clone(&reason));
                    }
                    model.failure.get_or_insert_with(|| failure.clone());
                }
                false
            }
            Ok(Arrived { rows, complete, at, query }) => {
                if let Some(query) = query {
                    self.trace(kind, &models, &rows, &query);
                }
                for position in &*models {
                    let model = &mut self.models[*position];
                    model.incomplete |= !complete;
                    model.answered.insert(kind);
                }
                match rows {
                    Rows::Samples(samples) => {
                        for sample in samples.iter() {
                            self.add_sample(kind, &sample, at);
                        }
                        false
                    }
                    Rows::Engines(engines) => self.add_engines(&engines),
                }
            }
        }
    }

    fn trace(&mut self, kind: QueryKind, models: &[usize], rows: &Rows, query: &TracedQuery) {
        for (model, row) in trace::rows(kind, models, rows, query) {
            self.models[model].trace.push(row);
        }
        if kind == QueryKind::CacheConfig {
            for model in models {
                self.models[*model].traced_config = Some(query.clone());
            }
        }
    }

    fn add_sample(&mut self, kind: QueryKind, sample: &Sample<'_>, arrived_at: Tick) {
        let Sample { model: position, pod, time, value } = *sample;
        let model = &mut self.models[position];
        model.seen = true;
        if let Some(slot) = RATES.iter().position(|rate| *rate == kind) {
            let rate = match accepted(kind, sanitize::rate(value)) {
                Some(value) => Rate::Known(value),
                None => Rate::Spoiled,
            };
            let rates = match pod {
                Some(pod) => model.rates_by_pod.entry(pod.into()).or_default(),
                None => &mut model.rates,
            };
            let known = &mut rates[slot];
            // The same row twice is a double, and doubles are taken once.
            *known = match (*known, rate) {
                (Rate::Known(a), Rate::Known(b)) => Rate::Known(a.max(b)),
                (Rate::Absent, one) => one,
                _ => Rate::Spoiled,
            };
            return;
        }
        let Some(pod) = pod else {
            if kind == QueryKind::Liveness {
                model.unnamed = true;
                selfmetrics::no_pod_label(self.asked.models()[position].namespace.as_str());
            }
            return;
        };
        if kind == QueryKind::Liveness {
            if let Some(sampled_at) = self.moment.sampled_at(value, time, arrived_at) {
                model.alive.add(pod.into(), sampled_at);
            } else {
                // It lives, and nothing is known about when: not to be shown, not to be lost.
                model.incomplete = true;
                selfmetrics::value_refused(kind, Rejected::NotFinite);
            }
            return;
        }
        let Some(pod) = model.alive.get_mut(pod) else {
            return;
        };
        match kind {
            QueryKind::KvCache => {
                raise(&mut pod.kv_cache_usage, accepted(kind, sanitize::ratio(value)));
            }
            QueryKind::QueueLength => {
                raise(&mut pod.queue_length, accepted(kind, sanitize::count(value)));
            }
            QueryKind::RunningRequests => {
                raise(&mut pod.running_requests, accepted(kind, sanitize::count(value)));
            }
            QueryKind::PrefixHits => raise(&mut pod.hits, accepted(kind, sanitize::rate(value))),
            QueryKind::PrefixQueries => {
                raise(&mut pod.queries, accepted(kind, sanitize::rate(value)));
            }
            _ => {}
        }
    }

    fn add_engines(&mut self, engines: &[EngineConfig]) -> bool {
        // The series carries no model: pods are found by their namespace.
        let mut by_pod: HashMap<(&str, &str), Vec<&EngineConfig>> = HashMap::new();
        let mut duplicates = false;
        for engine in engines {
            duplicates |= engine.copies > 1.0;
            by_pod
                .entry((engine.namespace.as_str(), engine.pod.as_str()))
                .or_default()
                .push(engine);
        }
        for (reference, model) in self.asked.models().iter().zip(&mut self.models) {
            for pod in model.alive.as_mut_slice() {
                let key = (reference.namespace.as_str(), pod.name.as_str());
                for engine in by_pod.get(&key).into_iter().flatten() {
                    pod.engines
                        .entry(engine.engine.clone())
                        .and_modify(|known| {
                            // One engine with two sizes is in the middle of a restart.
                            if *known != Some(engine.config) {
                                *known = None;
                            }
                        })
                        .or_insert(Some(engine.config));
                }
            }
        }
        duplicates
    }

    /// All that live are known.
    pub(crate) fn settle(&mut self) {
        self.models.iter_mut().for_each(|model| model.alive.settle());
    }

    /// Whether the model has live pods.
    pub(crate) fn has_live_pods(&self, position: usize) -> bool {
        !self.models[position].alive.as_slice().is_empty()
    }

    /// The live pods of a model, in order.
    pub(crate) fn live_pods(&self, position: usize) -> impl Iterator<Item = &PodName> {
        self.models[position].alive.as_slice().iter().map(|pod| &pod.name)
    }

    /// The failure that all models share because nothing is known of any of them.
    pub(crate) fn failed_altogether(&self) -> Option<&Failure> {
        if self.models.iter().any(Model::is_known) {
            return None;
        }
        self.models.iter().find_map(|model| model.failure.as_ref())
    }

    /// Some live pod has no KV-cache usage although the server was asked for it.
    pub(crate) fn looks_misnamed(&self) -> bool {
        self.models.iter().any(|model| {
            !model.failed.contains(Field::KvCacheUsage)
                && model.alive.as_slice().iter().any(|pod| pod.kv_cache_usage.is_none())
        })
    }

    /// Whether any model has series that name no pod.
    pub(crate) fn has_unnamed_pods(&self) -> bool {
        self.models.iter().any(|model| model.unnamed)
    }

    /// What the look comes to.
    ///
    /// `per_pod` tells whose load was asked per pod, `memory` what is kept from before, `url` the
    /// server for messages.
    pub(crate) fn finish(
        self,
        as_of: Tick,
        per_pod: impl Fn(&ModelRef) -> bool,
        memory: impl Fn(&ModelRef) -> Option<Arc<ModelMemory>>,
        url: &str,
    ) -> Finished {
        let common = Common {
            as_of,
            evaluated_at: self.moment.tick,
            engine: "vllm".into(),
            backend: crate::NAME.into(),
        };
        let mut kept = Vec::new();
        let mut answers = Vec::new();
        for (reference, model) in self.asked.models().iter().zip(self.models) {
            let answer = if !model.is_known() || model.is_empty_in_doubt() {
                model.without_pods(as_of, url)
            } else {
                let before = memory(reference);
                let (sample, memory) = model.found(&common, per_pod(reference), before.as_deref());
                kept.push((reference.clone(), memory));
                Answer::Found(sample)
            };
            answers.push((reference.clone(), answer));
        }
        Finished { answers, kept }
    }
}

impl Model {
    /// Whether it was told who lives.
    fn is_known(&self) -> bool {
        self.answered.contains(QueryKind::Liveness)
    }

    /// No pod was found, and that is not the same as a fleet without pods: either there are no
    /// series at all, or there may be pods that the answer does not tell of.
    fn is_empty_in_doubt(&self) -> bool {
        self.alive.as_slice().is_empty() && (!self.seen || self.unnamed || self.incomplete)
    }

    /// Missing is said only by a server that answered in full; else it is not known.
    fn without_pods(self, as_of: Tick, url: &str) -> Answer {
        if self.unnamed {
            return Answer::Failed(
                Failure::new(
                    ErrorKind::BadAnswer,
                    "the model has series, and none of them has a label pod or pod_name",
                )
                .with_remedy("check the relabelling of the scrape job")
                .into_error(Operation::Fetch, url),
            );
        }
        if self.is_known() && self.answered.contains(QueryKind::QueueLength) && !self.incomplete {
            return Answer::Missing { as_of };
        }
        if let Some(failure) = self.failure {
            return Answer::Failed(failure.into_error(Operation::Fetch, url));
        }
        Answer::Failed(
            Failure::new(
                ErrorKind::ServerError,
                "its answer was incomplete and held no pod of this model, which may have some",
            )
            .with_remedy("are all stores of the server up?")
            .into_error(Operation::Fetch, url),
        )
    }

    fn found(
        self,
        common: &Common,
        per_pod: bool,
        before: Option<&ModelMemory>,
    ) -> (ModelSample, ModelMemory) {
        let load = self.load(per_pod);
        let alive = self.alive.into_vec();
        let mut memory = ModelMemory {
            live: u32::try_from(alive.len()).unwrap_or(u32::MAX),
            pods: Vec::with_capacity(alive.len()),
            hit_rates_at: before.and_then(|before| before.hit_rates_at),
            cache_config_at: before.and_then(|before| before.cache_config_at),
            looked_at: common.as_of,
        };
        let hit_rates_failed = self.failed.contains(Field::PrefixCacheHitRate);
        let hit_rates_new = self.answered.contains(QueryKind::PrefixHits) && !hit_rates_failed;
        if hit_rates_new {
            memory.hit_rates_at = Some(common.evaluated_at);
        }
        let cache_config_failed = self.failed.contains(Field::CacheConfig);
        let cache_config_new = self.answered.contains(QueryKind::CacheConfig);
        if cache_config_new {
            memory.cache_config_at = Some(common.evaluated_at);
        }
        let mut replicas = Vec::with_capacity(alive.len());
        let mut known = Known::of(before);
        for pod in alive {
            let known = known.next(&pod.name);
            let hit_rate =
                if hit_rates_new { pod.hit_rate() } else { known.and_then(|known| known.hit_rate) };
            let cache_config = if cache_config_new {
                Some(pod.cache_config())
            } else {
                known.map(|known| known.cache_config)
            };
            let mut replica = ReplicaMetrics::new(pod.name.clone(), pod.sampled_at);
            replica.engine = Some(common.engine.clone());
            replica.kv_cache_usage = pod.kv_cache_usage;
            replica.queue_length = pod.queue_length;
            replica.running_requests = pod.running_requests;
            // What failed is left to the engine, which has the former value and its age.
            if !hit_rates_failed {
                replica.prefix_cache_hit_rate = hit_rate;
                if let (Some(_), Some(at)) = (hit_rate, memory.hit_rates_at)
                    && !hit_rates_new
                    && at < replica.sampled_at
                {
                    replica.marks.push(Mark {
                        field: Field::PrefixCacheHitRate,
                        backend: common.backend.clone(),
                        sampled_at: at,
                    });
                }
            }
            if !cache_config_failed && let Some(config) = cache_config {
                replica.num_gpu_blocks = config.num_gpu_blocks;
                replica.block_size = config.block_size;
            }
            if per_pod && let Some(rates) = self.rates_by_pod.get(&pod.name) {
                let means = load_rates(rates).load(pod.running_requests == Some(0));
                replica.avg_input_tokens = means.avg_input_tokens;
                replica.avg_output_tokens = means.avg_output_tokens;
            }
            // A pod whose cache size was never asked for is not remembered, so that it will be.
            if let Some(cache_config) = cache_config {
                memory.pods.push((pod.name, PodMemory { hit_rate, cache_config }));
            }
            replicas.push(replica);
        }
        let mut sample = ModelSample::new(common.as_of, replicas);
        sample.load = load;
        sample.failed = self.failed;
        sample.complete = !self.incomplete;
        sample.trace = self.trace;
        if !sample.trace.is_empty() {
            trace::complete(&mut sample, self.traced_config.as_ref());
        }
        (sample, memory)
    }

    fn load(&self, per_pod: bool) -> Vec<LoadRow> {
        if per_pod {
            let row = |pod: &Pod| LoadRow {
                pod: Some(pod.name.clone()),
                rates: self.rates_by_pod.get(&pod.name).map(load_rates).unwrap_or_default(),
            };
            return self.alive.as_slice().iter().map(row).collect();
        }
        // Rows of pods, where other models of the shard wanted them: the sum is the model's, with
        // the pods that died within the window, as the server would have summed.
        let sum = self.rates_by_pod.values().fold(self.rates, |mut sum, rates| {
            for (sum, rate) in sum.iter_mut().zip(rates) {
                *sum = sum.plus(*rate);
            }
            sum
        });
        vec![LoadRow { pod: None, rates: load_rates(&sum) }]
    }
}

impl Pod {
    fn hit_rate(&self) -> Option<f64> {
        let idle = self.running_requests == Some(0);
        let rate = mean_over_window(self.hits, self.queries, idle)?;
        accepted(QueryKind::PrefixHits, sanitize::ratio(rate))
    }

    /// Summed over engines; unknown as soon as one of them is, for a part is not the capacity.
    fn cache_config(&self) -> CacheConfig {
        let mut engines = self.engines.values();
        let Some(first) = engines.next() else {
            return CacheConfig::default();
        };
        engines.fold(first.unwrap_or_default(), |sum, engine| {
            let engine = engine.unwrap_or_default();
            CacheConfig {
                num_gpu_blocks: sum
                    .num_gpu_blocks
                    .zip(engine.num_gpu_blocks)
                    .and_then(|(a, b)| a.checked_add(b)),
                block_size: sum.block_size.filter(|size| engine.block_size == Some(*size)),
            }
        })
    }
}

/// The value, or nothing and a count of why.
fn accepted<T>(kind: QueryKind, value: Result<T, Rejected>) -> Option<T> {
    value.inspect_err(|reason| selfmetrics::value_refused(kind, *reason)).ok()
}

/// Sets a value, or keeps the greater one of a row that came twice.
fn raise<T: PartialOrd>(known: &mut Option<T>, value: Option<T>) {
    if let Some(value) = value
        && known.as_ref().is_none_or(|known| *known < value)
    {
        *known = Some(value);
    }
}
