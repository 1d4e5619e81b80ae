// SPDX-License-Identifier: Apache-2.0
//! Groups the rows of a fetch by model.
//!
//! The rows of the liveness query come first and decide which pods exist. A pod that is only in another query
//! is dead and left out; a live pod without a row there is unknown in that field.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use collector_core::sanitize::{self, Rejected};
use collector_core::{Field, Namespace, PodName, Tick};
use foldhash::fast::RandomState;

use crate::failure::Failure;
use crate::memory::{ModelMemory, RankConfig};
use crate::plan::{LeafId, QueryKind};
use crate::rows::{InfoRow, LiveRow, Rows, Sample};
use crate::selfmetrics;
use crate::server_clock::Moment;
use crate::servers::Server;
use crate::shape::Shape;
use crate::shard::Requested;
use crate::trace::{self, TracedQuery};

mod model;

pub(crate) use model::{Model, Sums};

/// Scrape intervals by which samples may be late. Beyond the look-back of a server they are gone.
const LATE_MAX: u32 = 20;
/// Earliest plausible sample time, in 2001: smaller values are not times.
const EARLIEST: f64 = 1e9;
/// Most values of one cluster label that are reported.
const CLUSTERS_MAX: usize = 8;
/// A replica that is older than this many scrapes, while its siblings are not, has terminated.
const SCRAPES_UNTIL_LEFT: u32 = 4;

/// The result of one query for some of the models.
#[derive(Debug)]
pub(crate) struct QueryResult {
    pub(crate) kind: QueryKind,
    /// Index of the engine in [`Shape::served`].
    pub(crate) engine: u8,
    /// Indices into [`Requested`].
    pub(crate) models: Arc<[usize]>,
    pub(crate) result: Result<QueryAnswer, Failure>,
}

/// The rows of an answer, and their circumstances.
#[derive(Debug)]
pub(crate) struct QueryAnswer {
    pub(crate) rows: Rows,
    /// Why rows may be absent.
    pub(crate) warning: Option<Arc<str>>,
    pub(crate) at: Tick,
    /// The query, if the fetch is traced.
    pub(crate) query: Option<TracedQuery>,
}

/// The state of a fetch, model by model.
#[derive(Debug)]
pub(crate) struct Assembly<'a> {
    pub(crate) asked: &'a Requested,
    pub(crate) shape: &'a Shape,
    pub(crate) moment: Moment,
    pub(crate) models: Vec<Model>,
    /// Whether any series is stored more than once.
    pub(crate) doubled: bool,
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(asked: &'a Requested, shape: &'a Shape, moment: Moment) -> Self {
        let models = asked.models().iter().map(|_| Model::default()).collect();
        Self { asked, shape, moment, models, doubled: false }
    }

    /// Adds the result of one query.
    pub(crate) fn add(&mut self, piece: QueryResult) {
        let QueryResult { kind, engine, models, result } = piece;
        match result {
            Err(failure) => {
                let reason: Arc<str> = failure.reason().into();
                for position in &*models {
                    let model = &mut self.models[*position];
                    for field in kind.fields() {
                        model.failed.insert(*field, Arc::clone(&reason));
                    }
                    // The pods of this engine are unknown.
                    model.incomplete |= kind == QueryKind::Liveness;
                    // A missing model is missing whenever it was last seen.
                    if kind != QueryKind::LastSeen {
                        model.failure.get_or_insert_with(|| failure.clone());
                    }
                }
            }
            Ok(QueryAnswer { rows, warning, at, query }) => {
                if let Some(query) = query {
                    self.trace(kind, engine, &models, &rows, &query);
                }
                for position in &*models {
                    let model = &mut self.models[*position];
                    if let Some(warning) = &warning {
                        model.incomplete = true;
                        model.warning.get_or_insert_with(|| Arc::clone(warning));
                    }
                    model.answered[kind as usize] = true;
                }
                match rows {
                    Rows::LiveRow(living) => {
                        for row in living {
                            self.add_living(engine, row, at);
                        }
                    }
                    Rows::Samples(samples) => {
                        samples.iter().for_each(|sample| self.add_sample(kind, engine, &sample));
                    }
                    Rows::Info(rows) => self.add_info(engine, rows),
                }
            }
        }
    }

    fn trace(
        &mut self,
        kind: QueryKind,
        engine: u8,
        models: &[usize],
        rows: &Rows,
        query: &TracedQuery,
    ) {
        let plan = &self.shape.served[usize::from(engine)].plan;
        for (model, row) in trace::rows(kind, models, rows, query, plan) {
            self.models[model].trace.push(row);
        }
        if kind == QueryKind::CacheConfig {
            for model in models {
                self.models[*model].traced_config = Some(query.clone());
            }
        }
    }

    fn add_living(&mut self, engine: u8, row: LiveRow, arrived_at: Tick) {
        let model = &mut self.models[row.model];
        model.seen = true;
        let labels = &self.shape.served[usize::from(engine)].labels.cluster;
        for (at, value) in row.clusters {
            let label = &labels[at];
            let known = model.clusters.iter().position(|(known, _)| known == label);
            let known = known.unwrap_or_else(|| {
                model.clusters.push((label.clone(), BTreeSet::new()));
                model.clusters.len() - 1
            });
            let values = &mut model.clusters[known].1;
            if values.len() < CLUSTERS_MAX {
                values.insert(value);
            }
        }
        let Some(replica) = row.replica else {
            model.unnamed = true;
            selfmetrics::no_pod_label(self.asked.models()[row.model].namespace.as_str());
            return;
        };
        let stamp = row.stamp >= EARLIEST;
        let sampled_at = self.moment.sampled_at(row.stamp, arrived_at).filter(|_| stamp);
        let Some(sampled_at) = sampled_at else {
            // The pod lives, but its time is unknown: it can neither be shown nor ignored.
            model.incomplete = true;
            selfmetrics::value_refused(QueryKind::Liveness, Rejected::NotFinite);
            return;
        };
        model.servers.add(Server {
            engine,
            replica,
            rank: row.rank,
            key: row.key,
            role: row.role,
            sampled_at,
            stamp: row.stamp,
            values: Vec::new(),
        });
    }

    fn add_sample(&mut self, kind: QueryKind, engine: u8, sample: &Sample<'_>) {
        let Sample { model: position, replica, rank, key, leaf, value } = *sample;
        let model = &mut self.models[position];
        let is_frontend = self.shape.served[usize::from(engine)].engine.is_frontend;
        if is_frontend && model.has_servers_behind {
            return;
        }
        match kind {
            QueryKind::Copies => {
                self.doubled |= value > 1.0;
                return;
            }
            QueryKind::Presence => {
                return add_presence(model, self.shape, engine, replica, leaf, value);
            }
            QueryKind::LastSeen => {
                let at = self.moment.sampled_at(value, self.moment.tick);
                model.last_seen = model.last_seen.max(at);
                return;
            }
            _ => model.seen = true,
        }
        let value = selfmetrics::accepted(kind, sanitize::rate(value)).unwrap_or(f64::NAN);
        if kind.level() != crate::labels::Level::Rank {
            let sums = if replica.is_empty() {
                &mut model.rates
            } else {
                let of_replica = model.replica_rates.entry(replica.into()).or_default();
                let known = of_replica.iter().position(|(known, _)| **known == *key);
                let at = known.unwrap_or_else(|| {
                    of_replica.push((key.into(), Sums::new()));
                    of_replica.len() - 1
                });
                &mut of_replica[at].1
            };
            match sums.iter_mut().find(|(of, id, _)| (*of, *id) == (engine, leaf)) {
                Some((_, _, known)) => *known = same_or_nan(*known, value),
                None => sums.push((engine, leaf, value)),
            }
            return;
        }
        let mut is_living = false;
        model.servers.of_row((engine, replica, rank, key), |server| {
            is_living = true;
            match server.values.iter_mut().find(|(known, _)| *known == leaf) {
                Some((_, known)) => *known = same_or_nan(*known, value),
                None => server.values.push((leaf, value)),
            }
        });
        if kind == QueryKind::RunningRequests && replica.is_empty() {
            model.unnamed = true;
        }
        // The row is sampled now and belongs to no live pod: some answer lacks rows.
        let is_instant =
            matches!(kind, QueryKind::RunningRequests | QueryKind::Counters | QueryKind::Capacity);
        if !is_living && !replica.is_empty() && !model.has_left(replica, key) {
            let servers = model.servers.as_slice();
            let lives = servers.iter().any(|server| server.replica.as_str() == replica);
            model.incomplete |= is_instant && !lives;
            if kind != QueryKind::Counters && lives && !rank.is_empty() {
                // The sums of its replica are unknown without it.
                model.rank_without_gauges(replica, rank, false);
            }
        }
        if kind == QueryKind::Counters && !is_living && !rank.is_empty() {
            *model.rank_without_gauges(replica, rank, true) &= value == 0.0;
        }
    }

    /// Adds capacities. Their series carry no model, so pods are found by their namespace.
    fn add_info(&mut self, engine: u8, rows: Vec<InfoRow>) {
        let mut by_pod: HashMap<(Namespace, PodName), Vec<InfoRow>> = HashMap::new();
        for row in rows {
            by_pod.entry((row.namespace.clone(), row.replica.clone())).or_default().push(row);
        }
        let plan = &self.shape.served[usize::from(engine)].plan;
        for (reference, model) in self.asked.models().iter().zip(&mut self.models) {
            let mut last: Option<&PodName> = None;
            for server in model.servers.as_slice() {
                if server.engine != engine || last.replace(&server.replica) == Some(&server.replica)
                {
                    continue;
                }
                let key = (reference.namespace.clone(), server.replica.clone());
                let rows = by_pod.get(&key).map(Vec::as_slice).unwrap_or_default();
                let known = model.config.entry(server.replica.clone()).or_default();
                for row in rows {
                    self.doubled |= row.copies > 1.0;
                    let value =
                        |leaf| row.numbers.iter().find(|(id, _)| *id == leaf).map(|(_, it)| *it);
                    let config = RankConfig::new(&row.rank, &row.key, |quantity| {
                        plan.value(QueryKind::CacheConfig, quantity, &value)
                    });
                    let same =
                        |it: &&mut RankConfig| (&it.rank, &it.key) == (&config.rank, &config.key);
                    match known.iter_mut().find(same) {
                        // A rank with two sizes is being restarted.
                        Some(other) if *other != config => {
                            let RankConfig { rank, key, .. } = config;
                            *other = RankConfig { rank, key, ..RankConfig::default() };
                        }
                        Some(_) => {}
                        None => known.push(config),
                    }
                }
            }
        }
    }

    /// Sorts the live servers once all are known, and drops those that terminated without a stale marker.
    pub(crate) fn settle(&mut self) {
        let intervals: Vec<f64> =
            self.shape.served.iter().map(|served| served.scrape_interval().as_secs_f64()).collect();
        let asked = self.moment.time.seconds();
        for model in &mut self.models {
            model.servers.settle();
            model.several_of_a_rank |= model.servers.has_several_of_a_rank();
            let servers = model.servers.as_mut_vec();
            let newest = servers.iter().map(|server| server.stamp).fold(f64::MIN, f64::max);
            let interval = |server: &Server| intervals[usize::from(server.engine)];
            let siblings_are_fresh = servers
                .iter()
                .any(|it| asked - it.stamp <= 2.0 * interval(it) && it.stamp >= newest);
            let mut gone: Vec<Server> = Vec::new();
            if siblings_are_fresh {
                gone.extend(servers.extract_if(.., |server| {
                    newest - server.stamp > f64::from(SCRAPES_UNTIL_LEFT) * interval(server)
                }));
            }
            // If several engines read the same pod, the first one owns it.
            if servers.iter().any(|server| server.engine > 0) {
                let mut owner: HashMap<PodName, u8, RandomState> = HashMap::default();
                for server in servers.iter() {
                    owner.entry(server.replica.clone()).or_insert(server.engine);
                }
                let is_other =
                    |server: &mut Server| owner.get(&server.replica) != Some(&server.engine);
                gone.extend(servers.extract_if(.., is_other));
            }
            let is_frontend =
                |server: &Server| self.shape.served[usize::from(server.engine)].engine.is_frontend;
            model.has_servers_behind = servers.iter().any(|server| !is_frontend(server));
            if model.has_servers_behind {
                servers.retain(|server| !is_frontend(server));
            }
            for server in gone {
                model.left.entry(server.replica).or_default().insert(server.key);
            }
        }
    }

    /// Makes the rates unknown: they may be those of several copies that cannot be distinguished.
    pub(crate) fn doubt_load(&mut self) {
        for model in &mut self.models {
            model.rates.clear();
            model.replica_rates.clear();
            for &field in Field::OF_LOAD {
                let reason = "series are stored more than once, and the labels that tell copies apart are \
                              not known yet";
                model.failed.insert(field, reason);
            }
        }
    }

    /// Returns the failure that all models share, if nothing is known about any of them.
    pub(crate) fn failed_altogether(&self) -> Option<&Failure> {
        if self.models.iter().any(|model| model.was_answered(QueryKind::Liveness)) {
            return None;
        }
        self.models.iter().find_map(|model| model.failure.as_ref())
    }

    /// Returns whether a live pod lacks KV-cache usage that the server was asked for.
    pub(crate) fn lacks_gauges(&self) -> bool {
        self.models.iter().any(|model| {
            !model.failed.contains(Field::KvCacheUsage)
                && model.servers.as_slice().iter().any(|server| {
                    let plan = &self.shape.served[usize::from(server.engine)].plan;
                    let leaves = plan.leaves(QueryKind::KvCache);
                    !leaves.is_empty() && leaves.iter().all(|leaf| server.value(*leaf).is_none())
                })
        })
    }

    /// Returns whether any model has series that name no pod.
    pub(crate) fn has_unnamed_pods(&self) -> bool {
        self.models.iter().any(|model| model.unnamed)
    }

    /// Groups the models by how many scrape intervals their newest sample is late. Models without a live pod
    /// join the least late group, so that rows of theirs are seen. `evaluated` is the evaluation time of the
    /// liveness query, as its rows report it.
    pub(crate) fn late_classes(
        &self,
        positions: &[usize],
        interval: Duration,
        evaluated: Option<f64>,
    ) -> BTreeMap<u32, Arc<HashSet<usize>>> {
        // A server that evaluates instant queries early does so for windows too.
        let asked = self.moment.time.seconds();
        let asked = evaluated.map_or(asked, |evaluated| asked.min(evaluated));
        let mut classes: BTreeMap<u32, HashSet<usize>> = BTreeMap::new();
        let mut silent = Vec::new();
        for position in positions {
            let servers = self.models[*position].servers.as_slice();
            let newest = servers.iter().map(|server| server.stamp).fold(f64::MIN, f64::max);
            if servers.is_empty() {
                silent.push(*position);
                continue;
            }
            // Any scrape may be a little late.
            let late = ((asked - newest - 1.0) / interval.as_secs_f64()).max(0.0).floor();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is bounded in the same expression"
            )]
            let late = late.min(f64::from(LATE_MAX)) as u32;
            classes.entry(late).or_default().insert(*position);
        }
        if let Some(mut first) = classes.first_entry() {
            first.get_mut().extend(silent);
        }
        classes.into_iter().map(|(late, models)| (late, Arc::new(models))).collect()
    }

    /// Returns whether only counters can show the ranks of some replica, or whether series of one rank are
    /// copies. Known once the gauges have arrived.
    pub(crate) fn needs_counters(&self, position: usize, kept: Option<&ModelMemory>) -> bool {
        let model = &self.models[position];
        let servers = model.servers.as_slice();
        if model.several_of_a_rank {
            return true;
        }
        servers.chunk_by(|a, b| a.replica == b.replica).any(|group| {
            let plan = &self.shape.served[usize::from(group[0].engine)].plan;
            let lacks_gauge = group.len() > 1
                && group
                    .iter()
                    .any(|it| it.value(plan.only_leaf(QueryKind::QueueLength)).is_none());
            let lives = |rank: &str| group.iter().any(|server| *server.rank == *rank);
            let of_fetch = model.config.get(&group[0].replica).map(Vec::as_slice);
            let kept = || Some(&*kept?.pod(&group[0].replica)?.config);
            let config = of_fetch.or_else(kept).unwrap_or_default();
            let silent = config.iter().any(|it| !it.rank.is_empty() && !lives(&it.rank));
            lacks_gauge || (silent && !group[0].rank.is_empty())
        })
    }
}

/// Merges two rows about the same thing: equal values count once, different ones contradict each other and
/// become NaN.
fn same_or_nan(known: f64, other: f64) -> f64 {
    let apart = (known - other).abs();
    if apart <= known.abs() * f64::from(f32::EPSILON) { known } else { f64::NAN }
}

fn add_presence(
    model: &mut Model,
    shape: &Shape,
    engine: u8,
    replica: &str,
    row: LeafId,
    value: f64,
) {
    // The query may also cover a model with live pods, all of which should be known by now.
    let servers = model.servers.as_slice();
    if row < 2 && !servers.is_empty() && !replica.is_empty() {
        let is_known = servers.iter().any(|server| server.replica.as_str() == replica)
            || model.has_left(replica, "");
        model.incomplete |= !is_known;
    }
    let plan = &shape.served[usize::from(engine)].plan;
    match row {
        0 | 1 if value.is_finite() => {
            let series = plan.other_signs().nth(usize::from(row));
            model.alive_by = series.map(|series| series.name.clone()).or(model.alive_by.take());
        }
        _ => model.lately = true,
    }
}

#[cfg(test)]
mod tests;
