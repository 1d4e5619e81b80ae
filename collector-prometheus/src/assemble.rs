//! From rows to what a look says about each model.
//!
//! The rows of the query for liveness come first and decide who exists. A pod in another query and not
//! among them is dead and left out; one that lives and has no row there is unknown in that field.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use collector_core::sanitize::{self, Rejected};
use collector_core::{ErrorKind, Field, FieldReasons, Namespace, PodName, Tick, TraceRow};
use foldhash::fast::RandomState;

use crate::failure::Failure;
use crate::memory::{ModelMemory, RankConfig};
use crate::plan::{LeafId, QueryKind, QueryKinds};
use crate::rows::{InfoRow, Living, Rows, Sample};
use crate::selfmetrics;
use crate::server_clock::Moment;
use crate::servers::{Server, Servers};
use crate::shape::Shape;
use crate::shard::Asked;
use crate::trace::{self, TracedQuery};

/// Scrape intervals by which samples may be late: beyond the look-back of a server, they are gone.
const LATE_MAX: u32 = 20;
/// The earliest time that a sample may be of, in 2001: what is below is no time of day.
const EARLIEST: f64 = 1e9;
/// Values of one cluster label that are told.
const CLUSTERS_MAX: usize = 8;
/// A replica that is older than so many scrapes while its siblings are not has left.
const SCRAPES_UNTIL_LEFT: u32 = 4;

/// Sums by leaf, of an engine each. NaN: there was a value, and it cannot be true; a sum without it
/// would be too small.
pub(crate) type Sums = Vec<(u8, LeafId, f64)>;

/// What is known of one model.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is seen by itself, in any order")]
pub(crate) struct Model {
    pub(crate) servers: Servers,
    /// Rates of the model as a whole.
    pub(crate) rates: Sums,
    /// Rates by replica and key, dead ones too.
    pub(crate) replica_rates: HashMap<(PodName, Box<str>), Sums, RandomState>,
    /// Several servers, or copies, stand under one rank, be some of them dead by now.
    pub(crate) several_of_a_rank: bool,
    /// Some query had a row of it.
    pub(crate) seen: bool,
    /// Servers, or copies, that have left without a stale marker: their replicas and keys.
    pub(crate) left: HashMap<PodName, BTreeSet<Box<str>>, RandomState>,
    /// It has series without a pod.
    pub(crate) unnamed: bool,
    /// Rows may be absent from some answer.
    pub(crate) incomplete: bool,
    /// The server's warning by which they may.
    pub(crate) warning: Option<Arc<str>>,
    /// How many queries for liveness were answered.
    pub(crate) liveness: u32,
    /// The queries about it that were answered.
    pub(crate) answered: QueryKinds,
    pub(crate) failed: FieldReasons,
    /// Why a query about it failed; the first.
    pub(crate) failure: Option<Failure>,
    /// The values of each cluster label.
    pub(crate) clusters: Vec<(Box<str>, BTreeSet<Box<str>>)>,
    /// What the query for presence found: alive by which series, and lately there.
    pub(crate) alive_by: Option<Box<str>>,
    pub(crate) lately: bool,
    /// When it was last seen, where it is missing.
    pub(crate) last_seen: Option<Tick>,
    /// Ranks of living replicas that have counters and no gauges, and whether they have never worked.
    pub(crate) silent_ranks: HashMap<PodName, Vec<(Box<str>, bool)>, RandomState>,
    /// Capacities by replica.
    pub(crate) config: HashMap<PodName, Vec<RankConfig>, RandomState>,
    /// How its values came about, where the look is traced.
    pub(crate) trace: Vec<TraceRow>,
    /// The query for its cache sizes, likewise.
    pub(crate) traced_config: Option<TracedQuery>,
}

/// One answer, or its failure, for some models of a look.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) kind: QueryKind,
    /// The engine that was asked about: its position among those that the server holds.
    pub(crate) engine: u8,
    /// Positions in [`Asked`].
    pub(crate) models: Arc<[usize]>,
    pub(crate) result: Result<Arrived, Failure>,
}

/// The rows of an answer, and what goes with them.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) rows: Rows,
    /// Why rows may be absent.
    pub(crate) warning: Option<Arc<str>>,
    pub(crate) at: Tick,
    /// What was asked, where the look is traced.
    pub(crate) query: Option<TracedQuery>,
}

/// The look as far as it has come.
#[derive(Debug)]
pub(crate) struct Assembly<'a> {
    pub(crate) asked: &'a Asked,
    pub(crate) shape: &'a Shape,
    pub(crate) moment: Moment,
    pub(crate) models: Vec<Model>,
    /// Series were seen to be stored more than once.
    pub(crate) doubled: bool,
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(asked: &'a Asked, shape: &'a Shape, moment: Moment) -> Self {
        let models = asked.models().iter().map(|_| Model::default()).collect();
        Self { asked, shape, moment, models, doubled: false }
    }

    /// Takes in one answer.
    pub(crate) fn add(&mut self, piece: Piece) {
        let Piece { kind, engine, models, result } = piece;
        match result {
            Err(failure) => {
                let reason: Arc<str> = failure.reason().into();
                for position in &*models {
                    let model = &mut self.models[*position];
                    for field in kind.fields() {
                        model.failed.insert(*field, Arc::clone(&reason));
                    }
                    // When a missing model was last seen is not needed to say that it is missing.
                    if kind != QueryKind::LastSeen {
                        model.failure.get_or_insert_with(|| failure.clone());
                    }
                }
            }
            Ok(Arrived { rows, warning, at, query }) => {
                if let Some(query) = query {
                    self.trace(kind, engine, &models, &rows, &query);
                }
                for position in &*models {
                    let model = &mut self.models[*position];
                    if let Some(warning) = &warning {
                        model.incomplete = true;
                        model.warning.get_or_insert_with(|| Arc::clone(warning));
                    }
                    model.liveness += u32::from(kind == QueryKind::Liveness);
                    model.answered.insert(kind);
                }
                match rows {
                    Rows::Living(living) => {
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

    fn add_living(&mut self, engine: u8, row: Living, arrived_at: Tick) {
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
            // It lives, and nothing is known about when: not to be shown, not to be lost.
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
        match kind {
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
        if kind.level() != crate::labels::Level::Rank {
            let accepted = selfmetrics::accepted(kind, sanitize::rate(value)).unwrap_or(f64::NAN);
            let sums = if replica.is_empty() {
                &mut model.rates
            } else {
                model.replica_rates.entry((replica.into(), key.into())).or_default()
            };
            match sums.iter_mut().find(|(of, id, _)| (*of, *id) == (engine, leaf)) {
                Some((_, _, known)) => *known = same_or_nan(*known, accepted),
                None => sums.push((engine, leaf, accepted)),
            }
            return;
        }
        let value = selfmetrics::accepted(kind, sanitize::rate(value)).unwrap_or(f64::NAN);
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
        // It is sampled now, and is not among those that live: some answer lacks rows.
        let is_instant =
            matches!(kind, QueryKind::RunningRequests | QueryKind::Counters | QueryKind::Capacity);
        if !is_living && !replica.is_empty() && !model.has_left(replica, key) {
            let servers = model.servers.as_slice();
            let lives = servers.iter().any(|server| server.replica.as_str() == replica);
            model.incomplete |= is_instant && !lives;
            if kind != QueryKind::Counters && lives && !rank.is_empty() {
                // The sums of its replica are unknown without it.
                let ranks = model.silent_ranks.entry(replica.into()).or_default();
                if !ranks.iter().any(|(known, _)| **known == *rank) {
                    ranks.push((rank.into(), false));
                }
            }
        }
        if kind == QueryKind::Counters && !is_living && !rank.is_empty() {
            let ranks = model.silent_ranks.entry(replica.into()).or_default();
            match ranks.iter_mut().find(|(known, _)| **known == *rank) {
                Some((_, idle)) => *idle &= value == 0.0,
                None => ranks.push((rank.into(), value == 0.0)),
            }
        }
    }

    /// Takes in capacities. The series carry no model: pods are found by their namespace.
    fn add_info(&mut self, engine: u8, rows: Vec<InfoRow>) {
        let mut by_pod: HashMap<(Namespace, PodName), Vec<InfoRow>> = HashMap::new();
        for row in rows {
            self.doubled |= row.copies > 1.0;
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
                    let of = |quantity| {
                        let value = |leaf| {
                            row.numbers.iter().find(|(id, _)| *id == leaf).map(|(_, it)| *it)
                        };
                        let value = plan.value(QueryKind::CacheConfig, quantity, &value)?;
                        sanitize::count(value).ok()
                    };
                    let config = RankConfig {
                        rank: row.rank.clone(),
                        key: row.key.clone(),
                        capacity_tokens: of(collector_engines::Quantity::KvCapacityTokens),
                        num_gpu_blocks: of(collector_engines::Quantity::NumGpuBlocks),
                        block_size: of(collector_engines::Quantity::BlockSize),
                    };
                    let same =
                        |it: &&mut RankConfig| (&it.rank, &it.key) == (&config.rank, &config.key);
                    match known.iter_mut().find(same) {
                        // One rank with two sizes is in the middle of a restart.
                        Some(other) if *other != config => {
                            *other = RankConfig {
                                rank: config.rank,
                                key: config.key,
                                ..RankConfig::default()
                            };
                        }
                        Some(_) => {}
                        None => known.push(config),
                    }
                }
            }
        }
    }

    /// All that live are known: puts them in order, and lets go of those that have left without a word.
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
            if siblings_are_fresh {
                let left = &mut model.left;
                servers.retain(|server| {
                    let stays =
                        newest - server.stamp <= f64::from(SCRAPES_UNTIL_LEFT) * interval(server);
                    if !stays {
                        left.entry(server.replica.clone()).or_default().insert(server.key.clone());
                    }
                    stays
                });
            }
            // Of engines that read the same pod, the first is the pod's.
            let mut owner: HashMap<PodName, u8, RandomState> = HashMap::default();
            if servers.iter().any(|server| server.engine > 0) {
                for server in servers.iter() {
                    owner.entry(server.replica.clone()).or_insert(server.engine);
                }
                let left = &mut model.left;
                servers.retain(|server| {
                    let stays = owner.get(&server.replica) == Some(&server.engine);
                    if !stays {
                        left.entry(server.replica.clone()).or_default().insert(server.key.clone());
                    }
                    stays
                });
            }
        }
    }

    /// Rates may be those of several copies, which nothing tells apart: they are unknown.
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

    /// Whether the model has live pods.
    pub(crate) fn has_live_pods(&self, position: usize) -> bool {
        !self.models[position].servers.as_slice().is_empty()
    }

    /// The live pods of a model, in order of their names.
    pub(crate) fn live_pods(&self, position: usize) -> Vec<&PodName> {
        let servers = self.models[position].servers.as_slice().iter();
        let mut pods: Vec<&PodName> = servers.map(|server| &server.replica).collect();
        pods.sort_unstable();
        pods.dedup();
        pods
    }

    /// The failure that all models share because nothing is known of any of them.
    pub(crate) fn failed_altogether(&self) -> Option<&Failure> {
        if self.models.iter().any(|model| model.liveness > 0) {
            return None;
        }
        self.models.iter().find_map(|model| model.failure.as_ref())
    }

    /// Some live pod has no KV-cache usage although the server was asked for it.
    pub(crate) fn looks_misnamed(&self) -> bool {
        self.models.iter().any(|model| {
            !model.failed.contains(Field::KvCacheUsage)
                && model.servers.as_slice().iter().any(|server| {
                    let plan = &self.shape.served[usize::from(server.engine)].plan;
                    let leaves = plan.leaves(QueryKind::KvCache);
                    !leaves.is_empty() && leaves.iter().all(|leaf| server.value(*leaf).is_none())
                })
        })
    }

    /// Whether any model has series that name no pod.
    pub(crate) fn has_unnamed_pods(&self) -> bool {
        self.models.iter().any(|model| model.unnamed)
    }

    /// Whether pods of the model live that are read as this engine.
    pub(crate) fn lives_of(&self, position: usize, engine: u8) -> bool {
        self.models[position].servers.as_slice().iter().any(|server| server.engine == engine)
    }

    /// Whether several servers, or copies, stand under one rank of one pod of the model.
    pub(crate) fn has_several_of_a_rank(&self, position: usize) -> bool {
        self.models[position].several_of_a_rank
    }

    /// Whether a model lately had series, or has others now, and has no living pod by the first look.
    pub(crate) fn has_just_vanished(&self, position: usize) -> bool {
        let model = &self.models[position];
        self.is_silent(position) && (model.lately || model.alive_by.is_some())
    }

    /// Whether nothing of a model is there, or lately was.
    pub(crate) fn is_missing(&self, position: usize) -> bool {
        let model = &self.models[position];
        self.is_silent(position)
            && model.answered.contains(QueryKind::Presence)
            && !(model.lately || model.seen || model.unnamed)
    }

    /// The models by how many scrape intervals their newest sample is late; less than one is none. Those of
    /// which no pod lives go with the least late ones, so that rows of them are seen. `evaluated` is when the
    /// query for liveness was evaluated, as its rows say.
    pub(crate) fn late_classes(
        &self,
        positions: &[usize],
        interval: Duration,
        evaluated: Option<f64>,
    ) -> BTreeMap<u32, Arc<HashSet<usize>>> {
        // A server that evaluates earlier than it is asked to does so for windows too.
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
            // A little late is what any scrape may be.
            let late = ((asked - newest - 1.0) / interval.as_secs_f64()).max(0.0).floor();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is bounded on the line itself"
            )]
            let late = late.min(f64::from(LATE_MAX)) as u32;
            classes.entry(late).or_default().insert(*position);
        }
        if let Some(mut first) = classes.first_entry() {
            first.get_mut().extend(silent);
        }
        classes.into_iter().map(|(late, models)| (late, Arc::new(models))).collect()
    }

    /// Whether some replica of the model has ranks that only its counters can tell of, or series of one
    /// rank that may be copies. Known once the gauges have arrived.
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
            let of_look = model.config.get(&group[0].replica).map(Vec::as_slice);
            let kept = || {
                let pods = &kept?.pods;
                let at = pods.binary_search_by(|(pod, _)| pod.cmp(&group[0].replica)).ok()?;
                Some(&*pods[at].1.config)
            };
            let config = of_look.or_else(kept).unwrap_or_default();
            let silent = config.iter().any(|it| !it.rank.is_empty() && !lives(&it.rank));
            lacks_gauge || (silent && !group[0].rank.is_empty())
        })
    }

    /// Whether some pods of the model are on the prefill side of requests, and others on the decode side.
    pub(crate) fn has_two_roles(&self, position: usize) -> bool {
        self.models[position].has_two_roles()
    }

    /// Whether no pod of a model lives by the query for liveness: what else there is must be asked for.
    pub(crate) fn is_silent(&self, position: usize) -> bool {
        self.models[position].liveness > 0 && !self.has_live_pods(position)
    }
}

/// The value of two rows that are about the same: the same row twice is a double, and counts once; two
/// values contradict each other, and neither is believed.
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
    // The query may also be about a model of which pods live: all of these should be known by now.
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

impl Model {
    /// Whether a server of this key has left; where no key is told, any of the replica.
    fn has_left(&self, replica: &str, key: &str) -> bool {
        self.left.get(replica).is_some_and(|keys| key.is_empty() || keys.contains(key))
    }

    pub(crate) fn has_two_roles(&self) -> bool {
        let has = |role| self.servers.as_slice().iter().any(|it| it.role.as_deref() == Some(role));
        has("prefill") && has("decode")
    }

    /// The failure of a model whose series live in several clusters that nothing selects.
    pub(crate) fn ambiguous(&self) -> Option<Failure> {
        let (label, values) = self.clusters.iter().find(|(_, values)| values.len() > 1)?;
        let shown: Vec<String> =
            values.iter().map(|value| format!("{:?}", collector_transport::quote(value))).collect();
        let first = values.first()?;
        let matcher =
            format!("prometheus.matchers = ['{label}=\"{}\"']", collector_transport::quote(first));
        Some(
            Failure::new(
                ErrorKind::Ambiguous,
                format!(
                    "its series have several values of the label {label}: {}",
                    shown.join(", ")
                ),
            )
            .with_remedy(format!("select one, with {matcher} for example")),
        )
    }
}

#[cfg(test)]
mod tests;
