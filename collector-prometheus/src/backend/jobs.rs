//! Which queries a look has: for which groups of models, and what of each.

use std::collections::HashSet;
use std::sync::Arc;

use collector_core::{Ask, ModelRef};

use super::PrometheusBackend;
use crate::assemble::Assembly;
use crate::labels::Level;
use crate::look::{Given, Group, Job, Look};
use crate::plan::QueryKind;
use crate::promql::Matcher;
use crate::shape::Shape;
use crate::shard::{Asked, Census, Shard};

/// Missing models that are looked for in the last hour, in one look.
const LAST_SEEN_MAX: usize = 10;

impl PrometheusBackend {
    /// The groups of models that are asked for together, engine by engine.
    pub(super) fn groups(&self, asked: &Asked, shape: &Shape, waiting: bool) -> Vec<Group> {
        let pods_of = |model: &ModelRef| self.memory.pods_of(model);
        let census = Census {
            asked: asked.models().iter().filter_map(pods_of).map(u64::from).sum(),
            on_server: shape.pods,
        };
        let is_given = |model: &ModelRef| self.given.iter().any(|(id, _)| *id == model.model);
        let (given, named): (Vec<ModelRef>, Vec<ModelRef>) =
            asked.models().iter().cloned().partition(is_given);
        let shards = self.sharder.shards(named, shape.selectors(), census, waiting, pods_of);
        let mut groups = Vec::new();
        for engine in 0..u8::try_from(shape.served.len()).unwrap_or(u8::MAX) {
            let of_shard = |shard: &Shard| Group { engine, shard: shard.clone(), given: None };
            groups.extend(shards.iter().map(of_shard));
            let labels = &shape.served[usize::from(engine)].labels;
            for model in &given {
                let own = self.given.iter().filter(|(id, _)| *id == model.model);
                for (_, filter) in own {
                    let namespace = match labels.namespace.as_slice() {
                        [label] => Some(Matcher::is(label.to_string(), model.namespace.as_str())),
                        _ => None,
                    };
                    let place = asked.position(model.namespace.as_str(), model.model.as_str());
                    groups.extend(place.map(|place| Group {
                        engine,
                        shard: Shard::of_one(model.clone()),
                        given: Some(Given { model: place, selector: filter.and(namespace) }),
                    }));
                }
            }
        }
        groups
    }

    /// The queries for capacities, for the groups where they are due.
    pub(super) fn capacity(&self, groups: &[Group], assembly: &Assembly<'_>) -> Vec<Job> {
        let Assembly { asked, shape, .. } = assembly;
        let now = self.clock.now();
        let due = |position: &usize, engine: u8| {
            assembly.lives_of(*position, engine)
                && self.memory.of(&asked.models()[*position]).is_none_or(|memory| {
                    memory.cache_config_due(now, assembly.live_pods(*position).into_iter())
                })
        };
        let mut jobs = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let plan = &shape.served[usize::from(group.engine)].plan;
            let positions = asked.positions(&group.shard.models);
            if !positions.iter().any(|it| due(it, group.engine)) {
                continue;
            }
            let apart = are_apart(&positions, assembly);
            if plan.asks(QueryKind::Capacity) {
                jobs.push(Job { apart, ..Job::new(QueryKind::Capacity, number) });
            }
            if plan.info().is_some() {
                let pods = positions.into_iter().flat_map(|position| {
                    let pods = assembly.live_pods(position).into_iter();
                    pods.map(move |pod| (position, pod.clone()))
                });
                let pods = pods.collect();
                jobs.push(Job { apart, pods, ..Job::new(QueryKind::CacheConfig, number) });
            }
        }
        jobs
    }

    /// What is asked besides liveness and capacities.
    pub(super) fn wanted(
        &self,
        look: &Look<'_>,
        groups: &[Group],
        ask: &Ask<'_>,
        assembly: &Assembly<'_>,
    ) -> Vec<Job> {
        let Assembly { asked, shape, .. } = assembly;
        let now = self.clock.now();
        let mut jobs = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let served = &shape.served[usize::from(group.engine)];
            let plan = &served.plan;
            let positions = asked.positions(&group.shard.models);
            // Whether something of a model that nothing lives of is there after all, or lately was.
            if positions.iter().any(|it| assembly.is_silent(*it)) {
                jobs.push(Job::new(QueryKind::Presence, number));
            }
            if !positions.iter().any(|it| assembly.lives_of(*it, group.engine)) {
                continue;
            }
            let apart = are_apart(&positions, assembly);
            let of_pods = apart
                || served.labels.are_mixed()
                || group.shard.models.iter().any(|model| ask.wants_load_per_pod(model))
                || positions.iter().any(|it| assembly.has_two_roles(*it));
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
            let kinds = QueryKind::EACH_LOOK
                .into_iter()
                .chain(hit_rates_due.then_some(QueryKind::PrefixCache))
                .filter(|kind| plan.asks(*kind));
            // What is over a window ends where the samples do: now, but for models whose samples arrive
            // late.
            let evaluated = look.evaluated(group.engine);
            let classes = assembly.late_classes(&positions, served.scrape_interval(), evaluated);
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

    /// Counters, of models whose gauges have left open what ranks and copies there are.
    pub(super) fn counters(&self, groups: &[Group], assembly: &Assembly<'_>) -> Vec<Job> {
        let Assembly { asked, shape, .. } = assembly;
        let needs_counters = |position: &usize, engine: u8| {
            let kept = self.memory.of(&asked.models()[*position]);
            assembly.lives_of(*position, engine)
                && assembly.needs_counters(*position, kept.as_deref())
        };
        let of_group = |(number, group): (usize, &Group)| {
            let positions = asked.positions(&group.shard.models);
            let plan = &shape.served[usize::from(group.engine)].plan;
            let wanted = plan.asks(QueryKind::Counters)
                && positions.iter().any(|it| needs_counters(it, group.engine));
            let apart = are_apart(&positions, assembly);
            wanted.then(|| Job { apart, ..Job::new(QueryKind::Counters, number) })
        };
        groups.iter().enumerate().filter_map(of_group).collect()
    }
}

/// Whether rows about these models must be told apart by server and copy.
fn are_apart(positions: &[usize], assembly: &Assembly<'_>) -> bool {
    positions.iter().any(|position| assembly.has_several_of_a_rank(*position))
}

/// A second look at who lives, of the models that have none by the first, though there was or is
/// something of them.
pub(super) fn second_look(vanished: &HashSet<usize>, groups: &[Group], asked: &Asked) -> Vec<Job> {
    let all = (0..groups.len()).map(|number| Job::new(QueryKind::Liveness, number)).collect();
    jobs_about(vanished, all, groups, asked)
}

/// The jobs as far as they are about these models.
pub(super) fn jobs_about(
    models: &HashSet<usize>,
    jobs: Vec<Job>,
    groups: &[Group],
    asked: &Asked,
) -> Vec<Job> {
    let narrowed = |job: Job| {
        let mut of_group: HashSet<usize> =
            asked.positions(&groups[job.group].shard.models).into_iter().collect();
        of_group.retain(|position| {
            models.contains(position) && job.only.as_ref().is_none_or(|it| it.contains(position))
        });
        (!of_group.is_empty()).then(|| Job { only: Some(Arc::new(of_group)), ..job })
    };
    jobs.into_iter().filter_map(narrowed).collect()
}

/// When models were last there that are missing now.
pub(super) fn last_seen(groups: &[Group], assembly: &Assembly<'_>) -> Vec<Job> {
    let of_group = |(number, group): (usize, &Group)| {
        let positions = assembly.asked.positions(&group.shard.models);
        let wanted = positions.len() <= LAST_SEEN_MAX
            && positions.iter().any(|position| assembly.is_missing(*position));
        wanted.then(|| Job::new(QueryKind::LastSeen, number))
    };
    groups.iter().enumerate().filter_map(of_group).collect()
}
