// SPDX-License-Identifier: Apache-2.0
//! Which queries a fetch runs, and for which groups of models.

use std::collections::HashSet;
use std::sync::Arc;

use collector_core::{Ask, ModelRef};

use super::PrometheusBackend;
use crate::assemble::Assembly;
use crate::fetch::{Fetch, Group, Job};
use crate::labels::Level;
use crate::plan::QueryKind;
use crate::promql::Matcher;
use crate::shape::Shape;
use crate::shard::{FleetSize, Requested, Shard};

/// Missing models whose last hour is queried in one fetch.
const LAST_SEEN_MAX: usize = 10;

impl PrometheusBackend {
    /// Groups the models that share queries, by engine.
    pub(super) fn groups(&self, asked: &Requested, shape: &Shape, waiting: bool) -> Vec<Group> {
        let pods_of = |model: &ModelRef| self.memory.pods_of(model);
        let fleet_size = FleetSize {
            asked: asked.models().iter().filter_map(pods_of).map(u64::from).sum(),
            on_server: shape.pods,
        };
        let is_selected =
            |model: &ModelRef| self.selectors.iter().any(|(id, _)| *id == model.model);
        let (selected, named): (Vec<ModelRef>, Vec<ModelRef>) =
            asked.models().iter().cloned().partition(is_selected);
        let shards = self.sharder.shards(named, shape.selectors(), fleet_size, waiting, pods_of);
        let mut groups = Vec::new();
        for engine in 0..u8::try_from(shape.served.len()).unwrap_or(u8::MAX) {
            let of_shard = |shard: &Shard| Group {
                engine,
                shard: shard.clone(),
                models: asked.positions(&shard.models).into(),
                selector: None,
            };
            groups.extend(shards.iter().map(of_shard));
            let labels = &shape.served[usize::from(engine)].labels;
            for model in &selected {
                let own = self.selectors.iter().filter(|(id, _)| *id == model.model);
                for (_, filter) in own {
                    let namespace = match labels.namespace.as_slice() {
                        [label] => Some(Matcher::is(label.to_string(), model.namespace.as_str())),
                        _ => None,
                    };
                    let selector = Some(filter.and(namespace));
                    groups.push(Group { selector, ..of_shard(&Shard::of_one(model.clone())) });
                }
            }
        }
        groups
    }

    /// The queries for capacities, for groups where they are due.
    pub(super) fn capacity(&self, groups: &[Group], assembly: &Assembly<'_>) -> Vec<Job> {
        let Assembly { asked, shape, .. } = assembly;
        let now = self.clock.now();
        let due = |position: &usize, engine: u8| {
            assembly.models[*position].has_engine(engine)
                && self.memory.of(&asked.models()[*position]).is_none_or(|memory| {
                    memory.cache_config_due(now, assembly.models[*position].live_pods().into_iter())
                })
        };
        let mut jobs = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let plan = &shape.served[usize::from(group.engine)].plan;
            let positions = &*group.models;
            if !positions.iter().any(|it| due(it, group.engine)) {
                continue;
            }
            let apart = are_apart(positions, assembly);
            if plan.asks(QueryKind::Capacity) {
                jobs.push(Job { apart, ..Job::new(QueryKind::Capacity, number) });
            }
            if plan.info().is_some() {
                let pods = positions.iter().copied().flat_map(|position| {
                    let pods = assembly.models[position].live_pods().into_iter();
                    pods.map(move |pod| (position, pod.clone()))
                });
                let pods = pods.collect();
                jobs.push(Job { apart, pods, ..Job::new(QueryKind::CacheConfig, number) });
            } else {
                jobs.push(Job::new(QueryKind::Copies, number));
            }
        }
        jobs
    }

    /// The queries besides liveness and capacities.
    pub(super) fn wanted(
        &self,
        fetch: &Fetch<'_>,
        groups: &[Group],
        ask: &Ask<'_>,
        assembly: &Assembly<'_>,
    ) -> Vec<Job> {
        let shape = assembly.shape;
        let now = self.clock.now();
        let mut jobs = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let served = &shape.served[usize::from(group.engine)];
            let plan = &served.plan;
            let positions = &*group.models;
            // A model without a live pod may have series after all, or had some within the window.
            if positions.iter().any(|it| assembly.models[*it].has_no_pods()) {
                jobs.push(Job::new(QueryKind::Presence, number));
            }
            if !positions.iter().any(|it| assembly.models[*it].has_engine(group.engine)) {
                continue;
            }
            let apart = are_apart(positions, assembly);
            let of_pods = apart
                || served.labels.are_mixed()
                || group.shard.models.iter().any(|model| ask.wants_load_per_pod(model))
                || positions.iter().any(|it| assembly.models[*it].has_two_roles());
            let wanted_level = if of_pods { Level::Pod } else { Level::Model };
            let job = |kind: QueryKind| Job {
                apart,
                level: plan.level(kind, wanted_level),
                ..Job::new(kind, number)
            };
            let hit_rates_due =
                group.shard.models.iter().any(|model| {
                    self.memory.of(model).is_none_or(|memory| memory.hit_rates_due(now))
                });
            // Gauges first: they matter most if time runs out.
            let kinds = QueryKind::GAUGES
                .into_iter()
                .chain(QueryKind::RATES)
                .chain(hit_rates_due.then_some(QueryKind::PrefixCache))
                .filter(|kind| plan.asks(*kind));
            // Windows end at the newest sample: now, except for models whose samples are late.
            let evaluated = fetch.evaluated(group.engine);
            let classes = assembly.late_classes(positions, served.scrape_interval(), evaluated);
            let is_one_class = classes.len() <= 1 && classes.keys().all(|late| *late == 0);
            for kind in kinds {
                if is_one_class || !kind.is_over_window() {
                    jobs.push(job(kind));
                    continue;
                }
                for (late, models) in &classes {
                    jobs.push(Job {
                        earlier: served.scrape_interval() * *late,
                        only: Some(Arc::clone(models)),
                        ..job(kind)
                    });
                }
            }
        }
        jobs
    }

    /// The queries for counters, for models whose gauges do not show all ranks and copies.
    pub(super) fn counters(&self, groups: &[Group], assembly: &Assembly<'_>) -> Vec<Job> {
        let Assembly { asked, shape, .. } = assembly;
        let needs_counters = |position: &usize, engine: u8| {
            let kept = self.memory.of(&asked.models()[*position]);
            assembly.models[*position].has_engine(engine)
                && assembly.needs_counters(*position, kept.as_deref())
        };
        let of_group = |(number, group): (usize, &Group)| {
            let positions = &*group.models;
            let plan = &shape.served[usize::from(group.engine)].plan;
            let wanted = plan.asks(QueryKind::Counters)
                && positions.iter().any(|it| needs_counters(it, group.engine));
            let apart = are_apart(positions, assembly);
            wanted.then(|| Job { apart, ..Job::new(QueryKind::Counters, number) })
        };
        groups.iter().enumerate().filter_map(of_group).collect()
    }
}

/// Returns whether rows of these models must be grouped by server and copy.
fn are_apart(positions: &[usize], assembly: &Assembly<'_>) -> bool {
    positions.iter().any(|position| assembly.models[*position].several_of_a_rank)
}

/// A second liveness query for models without a live pod that had series or have others now.
pub(super) fn second_liveness(vanished: &HashSet<usize>, groups: &[Group]) -> Vec<Job> {
    let all = (0..groups.len()).map(|number| Job::new(QueryKind::Liveness, number)).collect();
    jobs_about(vanished, all, groups)
}

/// Restricts jobs to these models.
pub(super) fn jobs_about(models: &HashSet<usize>, jobs: Vec<Job>, groups: &[Group]) -> Vec<Job> {
    let narrowed = |job: Job| {
        let mut of_group: HashSet<usize> = groups[job.group].models.iter().copied().collect();
        of_group.retain(|position| {
            models.contains(position) && job.only.as_ref().is_none_or(|it| it.contains(position))
        });
        (!of_group.is_empty()).then(|| Job { only: Some(Arc::new(of_group)), ..job })
    };
    jobs.into_iter().filter_map(narrowed).collect()
}

/// The queries for when missing models were last seen.
pub(super) fn last_seen(groups: &[Group], assembly: &Assembly<'_>) -> Vec<Job> {
    let of_group = |(number, group): (usize, &Group)| {
        let wanted = group.models.len() <= LAST_SEEN_MAX
            && group.models.iter().any(|position| assembly.models[*position].is_missing());
        wanted.then(|| Job::new(QueryKind::LastSeen, number))
    };
    groups.iter().enumerate().filter_map(of_group).collect()
}
