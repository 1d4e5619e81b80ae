// SPDX-License-Identifier: Apache-2.0
//! The recent metrics pages of one pod, as far back as the windows reach.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Field, FieldReasons, LoadRates, LoraAdapters, ModelId, PodName, ReplicaMetrics, Role, Tick,
    window,
};

use super::engine::Engine;
use super::latency;
use super::parts::{self, Part};
use super::times::{ScrapeTime, Times};
use super::why::{self, IN_TURNS};
use crate::engines::{self, EngineRow, Matched, Quantity, ServerExposition};

/// Engines that are remembered; beyond it those that the last page did not have are forgotten. Pages with more engines
/// are refused before.
const ENGINES_MAX: usize = 512;
/// Seconds by which a pod's clock may differ from ours if its process seems to have just started.
const CLOCKS_DIFFER_MAX: f64 = 60.0;

/// The samples of one pod in the window, by model and data-parallel engine.
#[derive(Debug)]
pub(crate) struct History {
    window: Duration,
    engines: Vec<Engine>,
    /// The series of the last page: under another name a counter is another counter.
    matched: Arc<[Matched]>,
    /// Start of the process behind the last page, and time of that page, both in seconds since 1970.
    process: Option<(f64, f64)>,
    /// When several processes last answered in turns.
    turned_at: Option<Tick>,
    /// When the last page with buckets was asked for.
    buckets_at: Option<Tick>,
}

/// One pod as a replica of one model.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct PodModel {
    pub(crate) model: ModelId,
    /// Whether the id of the model is compared without case.
    pub(crate) ignore_case: bool,
    pub(crate) replica: ReplicaMetrics,
    pub(crate) rates: LoadRates,
    /// Why rates are unknown, by the fields that are made of them.
    pub(crate) reasons: FieldReasons,
    /// Its parts, if the replica is itself a part of another one.
    pub(crate) parts: Vec<Part>,
}

/// The identity of a pod, as far as its page does not give it.
#[derive(Clone, Copy)]
pub(crate) struct PodIdentity<'a> {
    /// The name of the row, if the page has one replica.
    pub(crate) name: &'a PodName,
    pub(crate) role: Option<&'a Role>,
    /// Other targets may be servers of the same replica.
    pub(crate) keeps_parts: bool,
}

impl History {
    pub(crate) fn new(window: Duration) -> Self {
        let matched = [].into();
        Self {
            window,
            engines: Vec::new(),
            matched,
            process: None,
            turned_at: None,
            buckets_at: None,
        }
    }

    /// Whether a page is within the window before `at`, so that rates span the two.
    pub(crate) fn reaches(&self, at: Tick) -> bool {
        self.engines.iter().any(|engine| engine.seen_at.age(at) <= self.window)
    }

    /// Whether the buckets of histograms are to be read of the next page. They are most of its lines, and a window
    /// takes a few pages that have them.
    pub(crate) fn is_due_for_buckets(&self, now: Tick) -> bool {
        self.buckets_at.is_none_or(|at| at.age(now) >= latency::part_of(self.window))
    }

    /// Whether several processes have answered in turns within the window, so that counters do not continue from one
    /// page to the next.
    pub(crate) fn is_in_turns(&self, at: Tick) -> bool {
        self.turned_at.is_some_and(|turned| turned.age(at) <= self.window)
    }

    /// Records a page, and returns one replica for each model that the pod serves; none if no series names a model.
    pub(crate) fn record(
        &mut self,
        page: &ServerExposition,
        identity: PodIdentity<'_>,
        time: ScrapeTime,
    ) -> Vec<PodModel> {
        let at = time.asked_at;
        self.note_process(page.process_start, time);
        let in_turns = self.is_in_turns(at);
        if in_turns || reads_otherwise(&self.matched, &page.matched) {
            for engine in &mut self.engines {
                engine.forget_counters();
            }
        }
        self.matched = Arc::clone(&page.matched);
        if page.has_buckets {
            self.buckets_at = Some(at);
        }
        let keep = self.window.max(window::PREFIX_CACHE_WINDOW);
        self.engines.retain(|engine| engine.seen_at.age(at) <= keep);

        let groups = groups(page);
        let mut models = Vec::with_capacity(groups.len());
        for group in &groups {
            models.push(self.replica(page, group, identity, time, in_turns));
        }
        if self.engines.len() > ENGINES_MAX {
            self.engines.retain(|engine| engine.seen_at == at);
        }
        models
    }

    /// Records which process answered. A process that was started before its predecessor, or long before the
    /// predecessor's page, answers in turns with it and was not restarted.
    fn note_process(&mut self, started: Option<f64>, time: ScrapeTime) {
        let Some(started) = started.filter(|started| started.is_finite()) else { return };
        if let Some((before, seen)) = self.process
            && before.to_bits() != started.to_bits()
            && (started < before || started < seen - CLOCKS_DIFFER_MAX)
        {
            self.turned_at = Some(time.asked_at);
        }
        self.process = Some((started, time.seconds()));
    }

    fn replica(
        &mut self,
        page: &ServerExposition,
        group: &Group<'_>,
        identity: PodIdentity<'_>,
        time: ScrapeTime,
        in_turns: bool,
    ) -> PodModel {
        let at = time.asked_at;
        let name = group
            .replica
            .map_or_else(|| identity.name.clone(), |name| PodName::new(Arc::clone(name)));
        let mut replica = ReplicaMetrics::new(name, at);
        replica.engine = Some(page.engine.clone());
        let role = group.rows.iter().find_map(|row| row.role.as_ref());
        replica.role = identity.role.or(role).cloned();
        replica.lora_adapters = page.lora.as_ref().map(|lora| Box::new(adapters(lora)));
        let mut times = Times::default();
        let server = group.rows.iter().find(|row| row.rank.is_none());
        let mut parts = Vec::new();
        let has_ranks = group.rows.iter().any(|row| row.rank.is_some());
        for row in &group.rows {
            let engine = engine_of(&mut self.engines, group, row.rank.as_ref(), at);
            let mut part = engine.part(row, page, self.window, time);
            if in_turns {
                part.rates = LoadRates::default();
                part.prefix = [None; 2];
            }
            match (&row.rank, server) {
                // A configuration given per server is that of each of its engines.
                (Some(_), Some(server)) => part.take_configuration(server),
                (None, _) if has_ranks => part.drop_configuration(),
                _ => {}
            }
            times.add(row, time);
            parts.push(part);
        }
        parts::fill(&mut replica, &parts, &|field| name_of(page, field));
        times.set(&mut replica);
        if in_turns {
            replica.reasons.insert(Field::PrefixCacheHitRate, IN_TURNS);
        }
        why::explain_unknown(&mut replica, page, &parts);
        let rates = parts::rates(&parts);
        PodModel {
            model: group.model.clone(),
            ignore_case: page.ignore_case,
            reasons: why::load(&rates, page, in_turns),
            rates,
            replica,
            parts: if identity.keeps_parts { parts } else { Vec::new() },
        }
    }
}

/// The rows of one replica of one model.
struct Group<'a> {
    model: ModelId,
    replica: Option<&'a Arc<str>>,
    rows: Vec<&'a EngineRow>,
}

/// The replicas of a page, each with its rows.
fn groups(page: &ServerExposition) -> Vec<Group<'_>> {
    let only_model = only_model(page);
    let mut groups: Vec<Group<'_>> = Vec::new();
    for row in &page.rows {
        // Rows without a model belong to the only model.
        let Some(model) = row.model.as_ref().or(only_model.as_ref()) else { continue };
        let replica = row.replica.as_ref();
        let known =
            groups.iter_mut().find(|group| group.model == *model && group.replica == replica);
        match known {
            Some(group) => group.rows.push(row),
            None => groups.push(Group { model: model.clone(), replica, rows: vec![row] }),
        }
    }
    groups
}

fn adapters(lora: &engines::LoraAdapters) -> LoraAdapters {
    let sorted = |names: &[Box<str>]| {
        let mut names = names.to_vec();
        names.sort_unstable();
        names
    };
    LoraAdapters { running: sorted(&lora.running), waiting: sorted(&lora.waiting), max: lora.max }
}

/// Whether a quantity is read from another series than before.
fn reads_otherwise(before: &Arc<[Matched]>, now: &Arc<[Matched]>) -> bool {
    if Arc::ptr_eq(before, now) {
        return false;
    }
    let moved =
        |was: &Matched| now.iter().any(|is| is.quantity == was.quantity && is.spec != was.spec);
    before.iter().any(moved)
}

/// Returns the series that a field of a replica is read from, if it is one.
pub(crate) fn name_of(page: &ServerExposition, field: Field) -> Option<String> {
    let quantity = match field {
        Field::QueueLength => Quantity::Waiting,
        Field::RunningRequests => Quantity::Running,
        Field::KvCacheUsage => Quantity::KvCacheUsage,
        Field::CacheConfig => Quantity::NumGpuBlocks,
        _ => return None,
    };
    let matched = page.matched.iter().find(|matched| matched.quantity == quantity)?;
    Some(matched.spec.to_string())
}

/// Returns the model of a page that names exactly one.
fn only_model(page: &ServerExposition) -> Option<ModelId> {
    let mut models = page.rows.iter().filter_map(|row| row.model.as_ref());
    let first = models.next()?;
    models.all(|model| model == first).then(|| first.clone())
}

fn engine_of<'a>(
    engines: &'a mut Vec<Engine>,
    group: &Group<'_>,
    rank: Option<&Arc<str>>,
    at: Tick,
) -> &'a mut Engine {
    let is_it = |engine: &Engine| {
        engine.model == group.model
            && engine.rank.as_ref() == rank
            && engine.replica.as_ref() == group.replica
    };
    let place = engines.iter().position(is_it).unwrap_or_else(|| {
        let replica = group.replica.cloned();
        if engines.is_empty() {
            // Most pods have one engine, and a vector begins with room for four.
            engines.reserve_exact(1);
        }
        engines.push(Engine::new(group.model.clone(), replica, rank.cloned(), at));
        engines.len() - 1
    });
    let engine = &mut engines[place];
    engine.seen_at = at;
    engine
}

#[cfg(test)]
mod tests;
