//! What a look comes to, model by model: found, missing, or not to be told, and why.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Answer, BackendName, ErrorKind, Field, LoadRates, LoadRow, Mark, ModelRef, ModelSample,
    Operation, PodName, ReplicaMetrics, Tick, mean_over_window, sanitize,
};
use collector_engines::Quantity;

use crate::assemble::{Assembly, Model, Sums};
use crate::failure::Failure;
use crate::labels::shown_names;
use crate::memory::{Known, ModelMemory, PodMemory, RankConfig};
use crate::plan::{LeafId, Plan, QueryKind};
use crate::resolve::{self, Replica, Unit};
use crate::selfmetrics;
use crate::servers::Server;
use crate::shape::{Served, Shape};
use crate::trace;

/// The kinds that are rates, in the order of [`LoadRates`].
const RATES: [QueryKind; 7] = [
    QueryKind::RequestCount,
    QueryKind::InputTokens,
    QueryKind::OutputTokens,
    QueryKind::TtftSum,
    QueryKind::TtftCount,
    QueryKind::ItlSum,
    QueryKind::ItlCount,
];

/// Rates of which a server that has one has the other too, by their positions in [`RATES`]: requests and
/// their tokens, and the two halves of each histogram.
const PARTNERS: [(usize, usize); 4] = [(0, 1), (0, 2), (3, 4), (5, 6)];

/// A rate as far as it is known. NaN: there was a value, and it cannot be true.
type Rates = [Option<f64>; RATES.len()];

/// What a look comes to.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) answers: Vec<(ModelRef, Answer)>,
    /// What is worth keeping for the next look.
    pub(crate) kept: Vec<(ModelRef, ModelMemory)>,
}

/// What all models of a look have in common.
pub(crate) struct Common<'a> {
    pub(crate) as_of: Tick,
    pub(crate) evaluated_at: Tick,
    /// The server, for messages.
    pub(crate) url: &'a str,
    pub(crate) shape: &'a Shape,
    pub(crate) backend: BackendName,
}

/// What the look comes to.
///
/// `per_pod` tells whose load was asked per pod, `memory` what is kept from before.
pub(crate) fn finish(
    assembly: Assembly<'_>,
    common: &Common<'_>,
    per_pod: impl Fn(&ModelRef) -> bool,
    memory: impl Fn(&ModelRef) -> Option<Arc<ModelMemory>>,
) -> Finished {
    let mut kept = Vec::new();
    let mut answers = Vec::new();
    let engines = u32::try_from(common.shape.served.len()).unwrap_or(u32::MAX);
    for (reference, mut model) in assembly.asked.models().iter().zip(assembly.models) {
        // Where one engine's answer lacks, so may its pods.
        model.incomplete |= model.liveness < engines;
        // What has no name is somebody: a replica that cannot be shown, or one that is shown already.
        model.incomplete |= model.unnamed || common.shape.incomplete;
        let before = memory(reference);
        let answer = if let Some(ambiguous) = model.ambiguous() {
            Answer::Failed(ambiguous.into_error(Operation::Fetch, common.url))
        } else if model.servers.as_slice().is_empty() {
            without_pods(&mut model, common, before.as_deref())
        } else {
            let (sample, memory) = found(model, common, per_pod(reference), before.as_deref());
            kept.push((reference.clone(), memory));
            Answer::Found(sample)
        };
        answers.push((reference.clone(), answer));
    }
    Finished { answers, kept }
}

/// What is said of a model of which no pod lives by the query for liveness. That it has none is said only
/// where nothing says otherwise, and that it is missing only by a server that answered in full.
fn without_pods(model: &mut Model, common: &Common<'_>, before: Option<&ModelMemory>) -> Answer {
    let failed =
        |failure: Failure| Answer::Failed(failure.into_error(Operation::Fetch, common.url));
    let lacks = common.shape.served.iter().find_map(|it| it.lacks().map(|what| (it, what)));
    if model.unnamed {
        let example = common.shape.served.iter().find_map(|served| served.example.as_deref());
        return failed(
            Failure::new(
                ErrorKind::BadAnswer,
                match example {
                    Some(example) => {
                        format!("no series of the model has a label that names a pod: {example}")
                    }
                    None => "no series of the model has a label that names a pod".to_owned(),
                },
            )
            .with_remedy(
                "set a label pod in the relabelling of the scrape job, or name the label in \
                 prometheus.labels.pod",
            ),
        );
    }
    // Each engine was asked: the answer of one says nothing about the pods of another.
    let known = model.liveness > 0
        && model.answered.contains(QueryKind::Presence)
        && model.failure.is_none();
    if let Some((served, what)) = lacks.filter(|_| !model.lately && model.alive_by.is_none()) {
        let example = served.example.as_deref().unwrap_or_default();
        return failed(
            Failure::new(
                ErrorKind::BadAnswer,
                format!(
                    "no series of {} has a label that names the {what}, so this model may be among \
                     them: {example}",
                    served.engine.name
                ),
            )
            .with_remedy(format!(
                "set it in the relabelling of the scrape job, or name the label in \
                 prometheus.labels.{what}"
            )),
        );
    }
    if !known || model.incomplete {
        if let Some(failure) = model.failure.take() {
            return failed(failure);
        }
        return failed(
            Failure::new(
                ErrorKind::ServerError,
                "its answer was incomplete and held no pod of this model, which may have some",
            )
            .with_remedy("are all stores of the server up?"),
        );
    }
    if let Some(series) = &model.alive_by {
        let liveness = common.shape.served.first().map_or("", |it| &*it.plan.liveness.name);
        return failed(
            Failure::new(
                ErrorKind::BadAnswer,
                format!("it has series {series} now and none of {liveness}, which says who lives"),
            )
            .with_remedy(format!("does a relabelling of the scrape job drop {liveness}?")),
        );
    }
    if !common.shape.probed {
        return failed(
            Failure::new(
                ErrorKind::BadAnswer,
                "it did not say which engines it holds, and of the one that was asked for it has no pod \
                 of this model",
            )
            .with_remedy("it is asked again within a minute"),
        );
    }
    if let Some(before) = before
        && before.live > 0
        && !(model.lately || model.seen)
        && before.looked_at.age(common.as_of) < window(common)
    {
        return failed(Failure::new(
            ErrorKind::BadAnswer,
            "it had pods of this model within the window, and now says that there were none in the \
             window",
        ));
    }
    if model.lately || model.seen {
        // A query that failed, that of the second look for one, may have held its pods.
        if let Some(failure) = model.failure.take() {
            return failed(failure);
        }
        return Answer::Found(ModelSample::new(common.as_of, Vec::new()));
    }
    let remembered = before.map(|before| before.looked_at);
    Answer::Missing { as_of: common.as_of, last_seen: model.last_seen.max(remembered) }
}

/// The shortest window of those that the queries look back over.
fn window(common: &Common<'_>) -> Duration {
    let windows = common.shape.served.iter().map(|served| served.plan.window.0);
    windows.min().unwrap_or_default()
}

fn found(
    mut model: Model,
    common: &Common<'_>,
    per_pod: bool,
    before: Option<&ModelMemory>,
) -> (ModelSample, ModelMemory) {
    let two_roles = model.has_two_roles();
    let servers = std::mem::take(model.servers.as_mut_vec());
    let mut memory = ModelMemory {
        live: 0,
        pods: Vec::new(),
        hit_rates_at: before.and_then(|before| before.hit_rates_at),
        cache_config_at: before.and_then(|before| before.cache_config_at),
        looked_at: common.as_of,
    };
    let hit_rates_failed = model.failed.contains(Field::PrefixCacheHitRate);
    let hit_rates_new = model.answered.contains(QueryKind::PrefixCache) && !hit_rates_failed;
    if hit_rates_new {
        memory.hit_rates_at = Some(common.evaluated_at);
    }
    let config_failed = model.failed.contains(Field::CacheConfig);
    let config_asked = model.answered.contains(QueryKind::CacheConfig)
        || model.answered.contains(QueryKind::Capacity);
    let config_new = config_asked && !config_failed;
    if config_new {
        memory.cache_config_at = Some(common.evaluated_at);
    }
    let mut replicas: Vec<ReplicaMetrics> = Vec::new();
    let mut groups: Vec<&[Server]> = servers.chunk_by(|a, b| a.replica == b.replica).collect();
    groups.sort_by(|a, b| a[0].replica.cmp(&b[0].replica));
    let names: Vec<&PodName> = groups.iter().map(|group| &group[0].replica).collect();
    let shown = shown_names(&names);
    let alive = names.iter().map(|name| (*name).clone()).collect();
    let mut load = Load { pods: Vec::new(), alive, two_roles };
    let mut known = Known::of(before);
    for group in groups {
        let name = &group[0].replica;
        let shown = shown.get(name).unwrap_or(name);
        let served = &common.shape.served[usize::from(group[0].engine)];
        let kept = known.next(name);
        let config: Arc<[RankConfig]> = if config_new {
            configs(&model, name, group, &served.plan).into()
        } else {
            kept.map(|kept| Arc::clone(&kept.config)).unwrap_or_default()
        };
        let counted = counted(group, &served.plan, &model);
        let rate_of = |key: &str| {
            let sums = model.replica_rates.get(&(name.clone(), Box::from(key)))?;
            rate(sums, group[0].engine, &served.plan, QueryKind::RequestCount)
        };
        let replica = Replica {
            name: shown,
            servers: group,
            config: &config,
            counted: &counted,
            plan: &served.plan,
            rate_of: &rate_of,
        };
        let units = resolve::units(&replica);
        let mut row = resolve::row(&replica, &units, served.engine.name.as_str());
        name_absent(&mut row, served, &model);
        let sums = chosen_sums(&model, name, &units);
        let idle = row.running_requests == Some(0);
        let hit_rate = if hit_rates_new {
            hit_rate(&sums, group, &served.plan, idle)
        } else {
            kept.and_then(|kept| kept.hit_rate)
        };
        set_hit_rate(&mut row, hit_rate, hit_rates_failed, hit_rates_new, &memory, common);
        if config_failed {
            row.kv_capacity_tokens = None;
            row.num_gpu_blocks = None;
            row.block_size = None;
            row.kv_tokens_in_use = None;
        }
        load.add(shown, &sums, group[0].engine, served, row.role.as_ref());
        if per_pod && let Some((_, rates)) = load.pods.last() {
            let means = load_rates(rates).load(idle);
            row.avg_input_tokens = means.avg_input_tokens;
            row.avg_output_tokens = means.avg_output_tokens;
        }
        // A pod whose capacity was never asked for is not remembered, so that it will be.
        if config_new || kept.is_some() {
            memory.pods.push((name.clone(), PodMemory { hit_rate, config }));
        }
        replicas.push(row);
    }
    memory.live = u32::try_from(replicas.len()).unwrap_or(u32::MAX);
    let mut sample = ModelSample::new(common.as_of, replicas);
    sample.load = load.rows(&model, common.shape, per_pod);
    sample.failed = model.failed;
    sample.complete = !model.incomplete;
    sample.warning = model.warning;
    sample.window = common.shape.served.first().map(|served| served.plan.window.0);
    sample.trace = model.trace;
    if !sample.trace.is_empty() {
        trace::complete(&mut sample, model.traced_config.as_ref());
    }
    (sample, memory)
}

/// The capacities of a replica's ranks: those of info series, completed by those of gauges.
fn configs(model: &Model, name: &PodName, group: &[Server], plan: &Plan) -> Vec<RankConfig> {
    let mut all = model.config.get(name).cloned().unwrap_or_default();
    for server in group {
        let of = |quantity| {
            let value = plan.value(QueryKind::Capacity, quantity, &|leaf| server.value(leaf))?;
            sanitize::count(value).ok()
        };
        let capacity_tokens = of(Quantity::KvCapacityTokens);
        let (num_gpu_blocks, block_size) = (of(Quantity::NumGpuBlocks), of(Quantity::BlockSize));
        if [capacity_tokens, num_gpu_blocks, block_size].iter().all(Option::is_none) {
            continue;
        }
        let same = |it: &&mut RankConfig| {
            it.rank == server.rank && (it.key == server.key || it.key.is_empty())
        };
        if let Some(known) = all.iter_mut().find(same) {
            known.capacity_tokens = known.capacity_tokens.or(capacity_tokens);
            known.num_gpu_blocks = known.num_gpu_blocks.or(num_gpu_blocks);
            known.block_size = known.block_size.or(block_size);
        } else {
            let (rank, key) = (server.rank.clone(), server.key.clone());
            all.push(RankConfig { rank, key, capacity_tokens, num_gpu_blocks, block_size });
        }
    }
    all
}

/// The ranks whose counters are known, each with whether all of them are 0.
fn counted(group: &[Server], plan: &Plan, model: &Model) -> Vec<(Box<str>, bool)> {
    let leaves = plan.leaves(QueryKind::Counters);
    let mut all: Vec<(Box<str>, bool)> = Vec::new();
    for server in group {
        let values: Vec<f64> = leaves.iter().filter_map(|leaf| server.value(*leaf)).collect();
        if !values.is_empty() {
            all.push((server.rank.clone(), values.iter().all(|value| *value == 0.0)));
        }
    }
    let silent = model.silent_ranks.get(&group[0].replica).map(Vec::as_slice).unwrap_or_default();
    all.extend(silent.iter().cloned());
    all
}

/// Says of a field that no series of this engine can fill why it is unknown.
fn name_absent(row: &mut ReplicaMetrics, served: &Served, model: &Model) {
    let kinds = [
        (QueryKind::RunningRequests, Quantity::Running, Field::RunningRequests),
        (QueryKind::QueueLength, Quantity::Waiting, Field::QueueLength),
        (QueryKind::KvCache, Quantity::KvCacheUsage, Field::KvCacheUsage),
    ];
    for (_, quantity, field) in kinds {
        let expected = served.engine.alternatives(quantity).first();
        if let Some(expected) = expected
            && !served.plan.has(quantity)
            && !model.failed.contains(field)
        {
            row.reasons.insert(field, format!("the server holds no {expected}"));
        }
    }
}

fn set_hit_rate(
    row: &mut ReplicaMetrics,
    hit_rate: Option<f64>,
    failed: bool,
    new: bool,
    memory: &ModelMemory,
    common: &Common<'_>,
) {
    if failed {
        return;
    }
    row.prefix_cache_hit_rate = hit_rate;
    if let (Some(_), Some(at)) = (hit_rate, memory.hit_rates_at)
        && !new
        && at < row.sampled_at
    {
        row.marks.push(Mark {
            field: Field::PrefixCacheHitRate,
            backend: common.backend.clone(),
            sampled_at: at,
        });
    }
}

/// The share of what was looked up in the prefix cache that was found there.
fn hit_rate(sums: &Sums, group: &[Server], plan: &Plan, idle: bool) -> Option<f64> {
    let engine = group[0].engine;
    let value = |leaf| sum_of(sums, engine, leaf);
    let of = |quantity| plan.value(QueryKind::PrefixCache, quantity, &value);
    let pair = match (of(Quantity::PrefixHits), of(Quantity::PrefixQueries)) {
        (Some(hits), Some(queries)) => (Some(hits), Some(queries)),
        _ => (of(Quantity::CachedTokensTotal), of(Quantity::PromptTokensTotal)),
    };
    let rate = mean_over_window(pair.0, pair.1, idle).or_else(|| {
        // A gauge of several ranks has no sum.
        let gauge = |server: &Server| {
            let value = |leaf| server.value(leaf);
            plan.value(QueryKind::RunningRequests, Quantity::PrefixCacheHitRate, &value)
        };
        let [only] = group else { return None };
        gauge(only)
    })?;
    selfmetrics::accepted(QueryKind::PrefixCache, sanitize::ratio(rate))
}

/// The sums of those servers of a replica that count, each once.
fn chosen_sums(model: &Model, name: &PodName, units: &[Unit<'_>]) -> Sums {
    let plain = model.replica_rates.get(&(name.clone(), Box::default()));
    if let Some(plain) = plain {
        return plain.clone();
    }
    // Where ranks are seen in different copies, one copy has all of them.
    let is_copy = |unit: &&Unit<'_>| {
        let of_other = |other: &Unit<'_>| other.copies.contains(&&*unit.server.key);
        units.iter().any(|other| other.server.key != unit.server.key && of_other(other))
    };
    let originals = units.iter().filter(|unit| !is_copy(unit));
    let mut keys: Vec<&str> = originals.map(|unit| &*unit.server.key).collect();
    if keys.is_empty() {
        keys.extend(units.first().map(|unit| &*unit.server.key));
    }
    keys.sort_unstable();
    keys.dedup();
    let rates_of = |key: &str| model.replica_rates.get(&(name.clone(), Box::from(key)));
    let all: Vec<&Sums> = keys.into_iter().filter_map(rates_of).collect();
    let mut sums = Sums::new();
    for of_key in &all {
        for (engine, leaf, value) in *of_key {
            match sums.iter_mut().find(|(of, id, _)| (of, id) == (engine, leaf)) {
                Some((_, _, sum)) => *sum += value,
                None => sums.push((*engine, *leaf, *value)),
            }
        }
    }
    // A sum without the row of one of them would be too small.
    for (engine, leaf, value) in &mut sums {
        if !all.iter().all(|of_key| sum_of(of_key, *engine, *leaf).is_some()) {
            *value = f64::NAN;
        }
    }
    sums
}

fn sum_of(sums: &Sums, engine: u8, leaf: LeafId) -> Option<f64> {
    let found = sums.iter().find(|(of, id, _)| (*of, *id) == (engine, leaf));
    found.map(|(_, _, value)| *value)
}

fn rate(sums: &Sums, engine: u8, plan: &Plan, kind: QueryKind) -> Option<f64> {
    plan.rate(kind, &|leaf| sum_of(sums, engine, leaf))
}

fn rates(sums: &Sums, engine: u8, plan: &Plan) -> Rates {
    RATES.map(|kind| rate(sums, engine, plan, kind))
}

/// The sum of two; what cannot be true spoils it.
fn plus(one: Rates, other: Rates) -> Rates {
    std::array::from_fn(|i| match (one[i], other[i]) {
        (Some(a), Some(b)) => Some(a + b),
        (one, None) | (None, one) => one,
    })
}

fn load_rates(rates: &Rates) -> LoadRates {
    rates.map(|rate| rate.filter(|rate| !rate.is_nan())).into()
}

/// The load of a model, pod by pod as far as it was asked so.
struct Load {
    pods: Vec<(PodName, Rates)>,
    /// The replicas of these, as rows name them.
    alive: HashSet<PodName>,
    /// Some pods are on the prefill side of requests, others on the decode side.
    two_roles: bool,
}

impl Load {
    fn add(
        &mut self,
        name: &PodName,
        sums: &Sums,
        engine: u8,
        served: &Served,
        role: Option<&collector_core::Role>,
    ) {
        let mut own = rates(sums, engine, &served.plan);
        // What has one half of a mean has the other: a row is absent, and a sum without it would be
        // too small.
        for (one, other) in PARTNERS {
            match (own[one], own[other]) {
                (Some(rate), None) if rate > 0.0 => own[other] = Some(f64::NAN),
                (None, Some(rate)) if rate > 0.0 => own[one] = Some(f64::NAN),
                _ => {}
            }
        }
        // Both sides see each request: arrivals, generated tokens and their latency are the decode
        // side's, prompts and first tokens the prefill side's.
        let others: &[usize] = match role.map(AsRef::as_ref) {
            _ if !self.two_roles => &[],
            Some("prefill") => &[0, 2, 5, 6],
            Some("decode") => &[1, 3, 4],
            _ => &[],
        };
        for i in others {
            own[*i] = own[*i].map(|_| 0.0);
        }
        self.pods.push((name.clone(), own));
    }

    fn rows(self, model: &Model, shape: &Shape, per_pod: bool) -> Vec<LoadRow> {
        if per_pod {
            let row = |(pod, rates): (PodName, Rates)| LoadRow {
                pod: Some(pod),
                rates: load_rates(&rates),
            };
            return self.pods.into_iter().map(row).collect();
        }
        // Rows of pods, where they were needed, and of the pods that died within the window, as the
        // server would have summed.
        let dead = model.replica_rates.iter().filter(|((pod, _), _)| !self.alive.contains(pod));
        let dead = dead.filter(|_| !self.two_roles);
        let of_sums = |sums: &Sums| {
            let engines = shape.served.iter().enumerate();
            engines
                .map(|(at, served)| rates(sums, u8::try_from(at).unwrap_or(u8::MAX), &served.plan))
                .fold(Rates::default(), plus)
        };
        let sum = dead
            .map(|(_, sums)| of_sums(sums))
            .chain(self.pods.iter().map(|(_, rates)| *rates))
            .fold(of_sums(&model.rates), plus);
        vec![LoadRow { pod: None, rates: load_rates(&sum) }]
    }
}
