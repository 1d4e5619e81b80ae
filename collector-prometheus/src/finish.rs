// SPDX-License-Identifier: Apache-2.0
//! Makes the answer for each model: found, missing or failed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Absent, Answer, BackendName, ErrorKind, Field, Mark, ModelRef, ModelSample, Operation, PodName,
    ReplicaMetrics, Tick, mean_over_window, sanitize,
};
use collector_engines::Quantity;

use crate::assemble::{Assembly, Model, Sums};
use crate::failure::Failure;
use crate::labels::shown_names;
use crate::load::{Load, rate, sum_of};
use crate::memory::{ModelMemory, PodMemory, RankConfig};
use crate::plan::{LeafId, Plan, QueryKind};
use crate::resolve::{self, Replica, Unit};
use crate::selfmetrics;
use crate::servers::Server;
use crate::shape::Shape;
use crate::{reasons, trace};

/// The answers of a fetch, and what is remembered for the next one.
pub(crate) type Finished = (Vec<(ModelRef, Answer)>, Vec<(ModelRef, ModelMemory)>);

/// What all models of a fetch have in common.
pub(crate) struct FetchContext<'a> {
    pub(crate) as_of: Tick,
    pub(crate) evaluated_at: Tick,
    /// The server, for messages.
    pub(crate) url: &'a str,
    pub(crate) shape: &'a Shape,
    pub(crate) backend: BackendName,
}

/// Makes the result of a fetch.
///
/// `per_pod` returns whether a model's load was queried per pod, `memory` what was remembered.
pub(crate) fn finish(
    assembly: Assembly<'_>,
    common: &FetchContext<'_>,
    per_pod: impl Fn(&ModelRef) -> bool,
    memory: impl Fn(&ModelRef) -> Option<Arc<ModelMemory>>,
) -> Finished {
    let mut kept = Vec::new();
    let mut answers = Vec::new();
    for (reference, mut model) in assembly.asked.models().iter().zip(assembly.models) {
        // Pods without a name exist: they may be shown already, or cannot be shown.
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
    (answers, kept)
}

/// The answer for a model without a live pod. `Found` without pods takes queries that do not contradict each
/// other; `Missing` takes a complete answer.
fn without_pods(
    model: &mut Model,
    common: &FetchContext<'_>,
    before: Option<&ModelMemory>,
) -> Answer {
    let fail = |failure: Failure| Answer::Failed(failure.into_error(Operation::Fetch, common.url));
    let bad_answer =
        |detail: &str, remedy: String| fail(Failure::bad_answer(detail).with_remedy(remedy));
    let served = &common.shape.served;
    if model.unnamed {
        let example = served.iter().find_map(|served| served.example.as_deref());
        let example = example.map(|example| format!(": {example}")).unwrap_or_default();
        return bad_answer(
            &format!("no series of the model has a label that names a pod{example}"),
            "set a label pod in the relabelling of the scrape job, or name the label in \
             prometheus.labels.pod"
                .to_owned(),
        );
    }
    let lacks = served.iter().find_map(|it| it.lacks().map(|what| (it, what)));
    if let Some((served, what)) = lacks.filter(|_| !model.lately && model.alive_by.is_none()) {
        let (engine, example) =
            (&served.engine.name, served.example.as_deref().unwrap_or_default());
        return bad_answer(
            &format!(
                "no series of {engine} has a label that names the {what}, so this model may be among \
                 them: {example}"
            ),
            format!(
                "set it in the relabelling of the scrape job, or name the label in \
                 prometheus.labels.{what}"
            ),
        );
    }
    // Each engine was asked: the answer for one says nothing about the pods of another.
    let is_known = model.was_answered(QueryKind::Liveness)
        && model.was_answered(QueryKind::Presence)
        && model.failure.is_none();
    if !is_known || model.incomplete {
        let incomplete = || {
            let detail =
                "the answer was incomplete and has no pod of this model, which may have some";
            Failure::new(ErrorKind::ServerError, detail)
                .with_remedy("are all stores of the server up?")
        };
        return fail(model.failure.take().unwrap_or_else(incomplete));
    }
    if let Some(series) = &model.alive_by {
        let liveness = served.first().map_or("", |it| &*it.plan.liveness.name);
        return bad_answer(
            &format!(
                "it has series {series} now and none of {liveness}, which shows the live pods"
            ),
            format!("does a relabelling of the scrape job drop {liveness}?"),
        );
    }
    if !common.shape.probed {
        return bad_answer(
            "the server did not say which engines it holds, and has no pod of this model for the engine \
             that was asked for",
            "it is asked again within a minute".to_owned(),
        );
    }
    let had_pods =
        before.is_some_and(|it| it.live > 0 && it.fetched_at.age(common.as_of) < window(common));
    if model.lately || model.seen {
        return Answer::Found(ModelSample::new(common.as_of, Vec::new()));
    }
    if had_pods {
        let detail =
            "the model had pods within the window, and the server now says that it had none";
        return fail(Failure::bad_answer(detail));
    }
    let remembered = before.map(|before| before.fetched_at);
    Answer::Missing { as_of: common.as_of, last_seen: model.last_seen.max(remembered) }
}

/// Returns the shortest window that the queries cover.
fn window(common: &FetchContext<'_>) -> Duration {
    let windows = common.shape.served.iter().map(|served| served.plan.window.0);
    windows.min().unwrap_or_default()
}

fn found(
    mut model: Model,
    common: &FetchContext<'_>,
    per_pod: bool,
    before: Option<&ModelMemory>,
) -> (ModelSample, ModelMemory) {
    let two_roles = model.has_two_roles();
    let servers = std::mem::take(model.servers.as_mut_vec());
    let hit_rates_failed = model.failed.contains(Field::PrefixCacheHitRate);
    let hit_rates_new = model.was_answered(QueryKind::PrefixCache) && !hit_rates_failed;
    let config_failed = model.failed.contains(Field::CacheConfig);
    // An engine without capacities has none to be asked for again.
    let of_config = [QueryKind::CacheConfig, QueryKind::Capacity, QueryKind::Copies];
    let config_new = !config_failed && of_config.iter().any(|kind| model.was_answered(*kind));
    let at = |is_new: bool, known: Option<Tick>| is_new.then_some(common.evaluated_at).or(known);
    let mut memory = ModelMemory {
        live: 0,
        pods: Vec::new(),
        hit_rates_at: at(hit_rates_new, before.and_then(|it| it.hit_rates_at)),
        cache_config_at: at(config_new, before.and_then(|it| it.cache_config_at)),
        fetched_at: common.as_of,
    };
    let mut replicas: Vec<ReplicaMetrics> = Vec::new();
    let mut groups: Vec<&[Server]> = servers.chunk_by(|a, b| a.replica == b.replica).collect();
    groups.sort_by(|a, b| a[0].replica.cmp(&b[0].replica));
    let names: Vec<&PodName> = groups.iter().map(|group| &group[0].replica).collect();
    let shown = shown_names(&names);
    let alive: HashSet<PodName> = names.iter().map(|name| (*name).clone()).collect();
    let mut load = Load::default();
    for group in groups {
        let name = &group[0].replica;
        let shown = shown.get(name).unwrap_or(name);
        let served = &common.shape.served[usize::from(group[0].engine)];
        let kept = before.and_then(|before| before.pod(name));
        let config: Arc<[RankConfig]> = if config_new {
            configs(&model, name, group, &served.plan).into()
        } else {
            kept.map(|kept| Arc::clone(&kept.config)).unwrap_or_default()
        };
        let counted = counted(group, &served.plan, &model);
        let rate_of = |key: &str| {
            let (_, sums) = model.rates_of(name, key)?;
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
        let sums = chosen_sums(&model, name, &units);
        let idle = row.running_requests == Some(0);
        // A hit rate that the server itself computes arrives with the gauges.
        let is_of_now = hit_rates_new || !served.plan.asks(QueryKind::PrefixCache);
        let hit_rate = if is_of_now {
            let rate = hit_rate(&sums, group, &served.plan, idle);
            rate.map(|rate| (rate, row.sampled_at))
        } else {
            kept.and_then(|kept| kept.hit_rate)
        };
        let field = Field::PrefixCacheHitRate;
        if let Some((rate, sampled_at)) = hit_rate.filter(|_| !hit_rates_failed) {
            row.prefix_cache_hit_rate = Some(rate);
            if sampled_at < row.sampled_at {
                row.marks.push(Mark { field, backend: common.backend.clone(), sampled_at });
            }
        } else if !hit_rates_failed && is_of_now {
            let lookups = lookups(&sums, group, &served.plan);
            row.reasons.insert(field, reasons::hit_rate(lookups, group.len(), served));
        } else if !hit_rates_failed {
            row.reasons.insert(field, "unknown when it was last queried");
        }
        if config_failed {
            row.kv_capacity_tokens = None;
            row.num_gpu_blocks = None;
            row.block_size = None;
            row.kv_tokens_in_use = None;
        }
        reasons::explain_unknown(&mut row, served, &model.failed);
        let was_counted = kept.is_some_and(|kept| kept.is_counted);
        let is_counted = load.add(shown, &sums, (group[0].engine, served), was_counted);
        // A pod without a queried capacity is not remembered, so that it will be queried.
        if config_new || kept.is_some() {
            memory.pods.push((name.clone(), PodMemory { hit_rate, config, is_counted }));
        }
        replicas.push(row);
    }
    memory.live = u32::try_from(replicas.len()).unwrap_or(u32::MAX);
    let mut sample = ModelSample::new(common.as_of, replicas);
    // Prefill and decode both count a request, so the load must be per pod to choose one side.
    sample.load = load.rows(&model, common.shape, &alive, per_pod || two_roles);
    sample.failed = model.failed;
    if model.incomplete {
        sample.absent = Absent::Unknown(model.warning);
    }
    sample.window = common.shape.served.first().map(|served| served.plan.window.0);
    sample.trace = model.trace;
    if !sample.trace.is_empty() {
        trace::complete(&mut sample, model.traced_config.as_ref());
    }
    (sample, memory)
}

/// Returns the capacities of a replica's ranks: those of info series, completed by gauges.
fn configs(model: &Model, name: &PodName, group: &[Server], plan: &Plan) -> Vec<RankConfig> {
    let mut all = model.config.get(name).cloned().unwrap_or_default();
    for server in group {
        let config = RankConfig::new(&server.rank, &server.key, |quantity| {
            plan.value(QueryKind::Capacity, quantity, &|leaf| server.value(leaf))
        });
        let RankConfig { capacity_tokens, num_gpu_blocks, block_size, .. } = config;
        if [capacity_tokens, num_gpu_blocks, block_size].iter().all(Option::is_none) {
            continue;
        }
        let same = |it: &&mut RankConfig| {
            it.rank == server.rank && (it.key == server.key || it.key.is_empty())
        };
        match all.iter_mut().find(same) {
            Some(known) => {
                known.capacity_tokens = known.capacity_tokens.or(capacity_tokens);
                known.num_gpu_blocks = known.num_gpu_blocks.or(num_gpu_blocks);
                known.block_size = known.block_size.or(block_size);
            }
            None => all.push(config),
        }
    }
    all
}

/// Returns the ranks with known counters, each with whether all of them are 0.
fn counted(group: &[Server], plan: &Plan, model: &Model) -> Vec<(Box<str>, bool)> {
    let leaves = plan.leaves(QueryKind::Counters);
    let mut all: Vec<(Box<str>, bool)> = Vec::new();
    for server in group {
        let values: Vec<f64> = leaves.iter().filter_map(|leaf| server.value(*leaf)).collect();
        if !values.is_empty() {
            all.push((server.rank.clone(), values.iter().all(|value| *value == 0.0)));
        }
    }
    let silent =
        model.ranks_without_gauges.get(&group[0].replica).map(Vec::as_slice).unwrap_or_default();
    all.extend(silent.iter().cloned());
    all
}

/// Returns the fraction of prefix-cache lookups that hit.
fn hit_rate(sums: &Sums, group: &[Server], plan: &Plan, idle: bool) -> Option<f64> {
    let [hits, lookups] = lookups(sums, group, plan);
    let rate = mean_over_window(hits, lookups, idle).or_else(|| {
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

/// Returns the rates of hits and lookups of the prefix cache.
fn lookups(sums: &Sums, group: &[Server], plan: &Plan) -> [Option<f64>; 2] {
    let value = |leaf| sum_of(sums, group[0].engine, leaf);
    let of = |quantity| plan.value(QueryKind::PrefixCache, quantity, &value);
    match [of(Quantity::PrefixHits), of(Quantity::PrefixQueries)] {
        [Some(hits), Some(lookups)] => [Some(hits), Some(lookups)],
        _ => [of(Quantity::CachedTokensTotal), of(Quantity::PromptTokensTotal)],
    }
}

/// Returns the sums of a replica over its servers, without copies.
fn chosen_sums(model: &Model, name: &PodName, units: &[Unit<'_>]) -> Sums {
    let mut all = model.replica_rates.get(name).into_iter().flatten();
    if let Some((_, plain)) = all.find(|(key, _)| key.is_empty()) {
        return plain.clone();
    }
    // If ranks are seen in different copies, one copy has all of them.
    let is_copy = |unit: &&Unit<'_>| {
        let own = rates_key(model, name, &unit.server.key);
        let of_other =
            |other: &Unit<'_>| other.copies.iter().any(|copy| rates_key(model, name, copy) == own);
        units
            .iter()
            .any(|other| rates_key(model, name, &other.server.key) != own && of_other(other))
    };
    let mut originals: Vec<&Unit<'_>> = units.iter().filter(|unit| !is_copy(unit)).collect();
    if originals.is_empty() {
        originals.extend(units.first());
    }
    originals.sort_unstable_by_key(|unit| rates_key(model, name, &unit.server.key));
    originals.dedup_by_key(|unit| rates_key(model, name, &unit.server.key));
    let all: Vec<Sums> =
        originals.into_iter().map(|unit| sums_of_unit(model, name, unit)).collect();
    let mut sums = Sums::new();
    for of_unit in &all {
        for (engine, leaf, value) in of_unit {
            match sums.iter_mut().find(|(of, id, _)| (of, id) == (engine, leaf)) {
                Some((_, _, sum)) => *sum += value,
                None => sums.push((*engine, *leaf, *value)),
            }
        }
    }
    // A sum without the row of one of them would be too small.
    for (engine, leaf, value) in &mut sums {
        if !all.iter().all(|of_unit| sum_of(of_unit, *engine, *leaf).is_some()) {
            *value = f64::NAN;
        }
    }
    sums
}

/// Returns the key of the rates of a server or copy; its own if there are none.
fn rates_key<'k>(model: &'k Model, name: &PodName, key: &'k str) -> &'k str {
    model.rates_of(name, key).map_or(key, |(key, _)| key)
}

/// Returns the sums of one server: its own, or those of a copy if its own lack a row. Copies are scraped at
/// different times, so the sums of one copy are never mixed with another's.
fn sums_of_unit(model: &Model, name: &PodName, unit: &Unit<'_>) -> Sums {
    let keys = std::iter::once(&*unit.server.key).chain(unit.copies.iter().copied());
    let all: Vec<&Sums> = keys.filter_map(|key| Some(&model.rates_of(name, key)?.1)).collect();
    let lacks =
        |sums: &Sums, (engine, leaf, _): &(u8, LeafId, f64)| sum_of(sums, *engine, *leaf).is_none();
    let is_complete = |sums: &&&Sums| !all.iter().copied().flatten().any(|sum| lacks(sums, sum));
    if let Some(whole) = all.iter().find(is_complete) {
        return Sums::clone(whole);
    }
    let mut sums = all.first().map_or_else(Sums::new, |own| Sums::clone(own));
    for sum in all.iter().copied().flatten() {
        if lacks(&sums, sum) {
            sums.push((sum.0, sum.1, f64::NAN));
        }
    }
    sums
}
