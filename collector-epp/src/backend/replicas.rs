// SPDX-License-Identifier: Apache-2.0
//! Makes replicas of metrics pages: mostly one each, but several ports of a pod or several pods may be one replica.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use collector_core::{
    Field, FieldReasons, LoadRates, LoadRow, LoraAdapters, PodName, ReplicaMetrics, ReplicaState,
};

use super::pod::{Good, Pod};
use crate::engines::Exposition;
use crate::rates::{self, IN_TURNS, Part, PodModel};

/// A metrics page of a server of the model, and the index of the model on it.
pub(super) struct Served {
    pub(super) pod: Arc<Pod>,
    pub(super) good: Arc<Good>,
    pub(super) index: usize,
}

impl Served {
    fn model(&self) -> &PodModel {
        &self.good.models[self.index]
    }
}

/// The replicas of a model.
#[derive(Default)]
pub(super) struct Joined {
    pub(super) replicas: Vec<Replica>,
    pub(super) warnings: Vec<Arc<str>>,
}

/// A replica with its load.
pub(super) struct Replica {
    pub(super) row: ReplicaMetrics,
    pub(super) rates: LoadRates,
    /// Why rates are unknown.
    pub(super) reasons: FieldReasons,
}

impl Replica {
    pub(super) fn load(&self) -> (PodName, LoadRow) {
        let mut load = LoadRow::from(self.rates);
        load.reasons.clone_from(&self.reasons);
        (self.row.pod_name.clone(), load)
    }
}

/// Joins pages that belong to one replica.
pub(super) fn join(served: &[Served]) -> Joined {
    let mut joined = Joined::default();
    let mut several: BTreeMap<&PodName, Vec<&Served>> = BTreeMap::new();
    for page in served {
        if page.good.in_turns {
            let url = page.pod.target.shown();
            joined.warnings.push(format!("{url}: {IN_TURNS}").into());
        }
        let PodModel { replica, rates, reasons, .. } = page.model();
        if page.pod.target.is_one_of_several() {
            several.entry(&replica.pod_name).or_default().push(page);
        } else {
            let (rates, reasons) = (*rates, reasons.clone());
            joined.replicas.push(Replica { row: replica.clone(), rates, reasons });
        }
    }
    for pages in several.into_values() {
        let replica = replica(&pages, &mut joined.warnings);
        joined.replicas.push(replica);
    }
    joined
}

/// Makes a replica of all of its pages.
fn replica(pages: &[&Served], warnings: &mut Vec<Arc<str>>) -> Replica {
    let parts = parts(pages, warnings);
    let rows = || pages.iter().map(|page| &page.model().replica);
    let oldest = rows().min_by_key(|row| row.sampled_at);
    let first = oldest.or_else(|| rows().next());
    let mut replica = ReplicaMetrics::new(
        first.map_or_else(|| PodName::from(""), |row| row.pod_name.clone()),
        first.map_or(collector_core::Tick::MIN, |row| row.sampled_at),
    );
    replica.engine = rows().find_map(|row| row.engine.clone());
    let mut roles: Vec<_> = rows().filter_map(|row| row.role.clone()).collect();
    roles.dedup();
    replica.role = roles.pop().filter(|_| roles.is_empty());
    replica.lora_adapters = adapters(rows());
    let name_of = |field: Field| pages.iter().find_map(|page| name_on(&page.good, field));
    rates::fill(&mut replica, &parts, &name_of);
    if rows().all(|row| row.state == ReplicaState::Sleeping) {
        replica.state = ReplicaState::Sleeping;
    }
    for mark in rows().flat_map(|row| &row.marks) {
        let known = replica.marks.iter_mut().find(|known| known.field == mark.field);
        match known {
            Some(known) => known.sampled_at = known.sampled_at.min(mark.sampled_at),
            None if mark.sampled_at < replica.sampled_at => replica.marks.push(mark.clone()),
            None => {}
        }
    }
    for (field, reason) in rows().flat_map(|row| row.reasons.iter()) {
        if !replica.has(field) {
            replica.reasons.insert(field, Arc::clone(reason));
        }
    }
    let reasons = pages.iter().flat_map(|page| page.model().reasons.iter());
    let reasons = reasons.map(|(field, reason)| (field, Arc::clone(reason))).collect();
    Replica { row: replica, rates: rates::rates(&parts), reasons }
}

/// Returns the LoRA adapters of all servers. How many fit into a batch is unknown if servers differ in it.
fn adapters<'a>(rows: impl Iterator<Item = &'a ReplicaMetrics>) -> Option<Box<LoraAdapters>> {
    let mut servers = rows.filter_map(|row| row.lora_adapters.as_deref());
    let mut joined = servers.next()?.clone();
    for server in servers {
        joined.running.extend_from_slice(&server.running);
        joined.waiting.extend_from_slice(&server.waiting);
        joined.max = joined.max.filter(|max| server.max == Some(*max));
    }
    for names in [&mut joined.running, &mut joined.waiting] {
        names.sort_unstable();
        names.dedup();
    }
    Some(Box::new(joined))
}

/// Returns the engines of all pages; of equal ranks the first is used.
fn parts(pages: &[&Served], warnings: &mut Vec<Arc<str>>) -> Vec<Part> {
    let mut seen: HashMap<Option<String>, &Served> = HashMap::new();
    let mut told: HashSet<(*const Pod, *const Pod)> = HashSet::new();
    let mut all = Vec::new();
    for page in pages {
        let own = &page.model().parts;
        let ranked = own.iter().filter(|part| part.rank.is_some()).count();
        let mut adds = false;
        let mut kept = Vec::new();
        for part in own {
            let is_engine = ranked == 0 || part.rank.is_some();
            if !is_engine {
                kept.push(part.clone());
                continue;
            }
            let rank = rank(page, part, ranked);
            if let Some(other) = seen.get(&rank) {
                if told.insert((Arc::as_ptr(&other.pod), Arc::as_ptr(&page.pod))) {
                    warnings.push(twice(other, page, rank.as_deref()));
                }
                continue;
            }
            adds = true;
            kept.push(Part { rank: rank.as_deref().map(Arc::from), ..part.clone() });
            seen.insert(rank, page);
        }
        // A copy of a server repeats the numbers given per server.
        if adds {
            all.extend(kept);
        }
    }
    all
}

/// Returns the rank of an engine within its replica, made of the ranks of its target and its page.
fn rank(page: &Served, part: &Part, ranked: usize) -> Option<String> {
    match (&page.pod.target.rank, &part.rank) {
        (Some(target), Some(own)) if ranked > 1 => Some(format!("{target}/{own}")),
        (Some(target), _) => Some(target.to_string()),
        (None, own) => own.as_deref().map(str::to_owned),
    }
}

fn twice(one: &Served, other: &Served, rank: Option<&str>) -> Arc<str> {
    let quote = collector_transport::quote;
    let name = quote(one.model().replica.pod_name.as_str());
    let what = match rank {
        Some(rank) => format!("engine {}", quote(rank)),
        None => "a server without a rank".to_owned(),
    };
    let (one, other) = (one.pod.target.shown(), other.pod.target.shown());
    format!(
        "{one} and {other} both show {what} of the replica {name}: it counts once; give the targets \
         different ranks if they are different servers"
    )
    .into()
}

/// Returns the series that a field is read from on a page.
fn name_on(good: &Good, field: Field) -> Option<String> {
    let Exposition::Server(page) = &good.page else { return None };
    rates::name_of(page, field)
}
