//! [`Backend`] for a PromQL server.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use collector_core::{
    Answer, Ask, Backend, BackendError, Clock, ErrorKind, KnownModel, LiveSource, ModelId,
    ModelRef, Operation, Permits, Probe, Supports, Unlimited, Urgency,
};
use collector_transport::ConfigError;
use tokio::time::Instant;

use crate::answer::{Expect, shortened};
use crate::assemble::Assembly;
use crate::client::{Budget, Client, Query};
use crate::config::{PrometheusConfig, selector};
use crate::failure::Failure;
use crate::finish::{Common, Finished, finish};
use crate::labels::Level;
use crate::learn::{Learner, Learnt};
use crate::look::{Given, Group, Job, Look};
use crate::memory::Memory;
use crate::plan::QueryKind;
use crate::promql::{Filter, Matcher};
use crate::shape::{Served, Shape};
use crate::shard::{Asked, Census, Shard, Sharder};
use crate::{probe, selfmetrics};

/// Missing models that are looked for in the last hour, in one look.
const LAST_SEEN_MAX: usize = 10;

/// Asks a PromQL server about model servers.
///
/// A look costs the same number of requests for one model and for hundreds: of each engine that is
/// there, 11 at most, and each minute three more; the first adds a few to find out what there is.
/// Between looks it keeps how the server is to be asked, and the capacities and prefix-cache hit rates of
/// living pods, which are asked each minute.
pub struct PrometheusBackend {
    config: PrometheusConfig,
    clock: Arc<dyn Clock>,
    client: Client,
    learner: Learner,
    sharder: Sharder,
    memory: Memory,
    /// What selects the series of models that labels cannot tell.
    given: Vec<(ModelId, Filter)>,
    /// Why the last answers were incomplete, to log it when it changes.
    incomplete: Mutex<Option<String>>,
    unnamed_logged: AtomicBool,
}

impl std::fmt::Debug for PrometheusBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrometheusBackend").field("url", &self.client.url()).finish_non_exhaustive()
    }
}

impl PrometheusBackend {
    /// A backend for the server of `config`. Reads tokens and certificates, and sends nothing.
    ///
    /// # Errors
    /// The first setting or file that cannot work, with its key and path.
    pub fn new(config: PrometheusConfig, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        if let Err(errors) = config.validate()
            && let Some(first) = errors.into_iter().next()
        {
            return Err(first);
        }
        let client = Client::new(&config)?;
        selfmetrics::register();
        let terms = config.terms()?;
        let given = config.models.iter().filter_map(|given| {
            let own = selector(&given.selector).ok()?;
            Some((ModelId::new(given.model.as_str()), terms.matchers.and(own.0)))
        });
        Ok(Self {
            given: given.collect(),
            config,
            clock,
            client,
            learner: Learner::new(terms),
            sharder: Sharder::new(),
            memory: Memory::default(),
            incomplete: Mutex::new(None),
            unnamed_logged: AtomicBool::new(false),
        })
    }

    fn error(&self, failure: Failure, operation: Operation) -> BackendError {
        failure.into_error(operation, self.client.url())
    }

    /// What a question outside a look may spend.
    fn own_budget<'a>(&'a self, permits: &'a dyn Permits) -> Budget<'a> {
        Budget {
            permits,
            deadline: Instant::now() + self.config.timeout * 3,
            waiting: true,
            clock: &*self.clock,
        }
    }

    async fn look(&self, ask: Ask<'_>, asked: &Asked) -> Result<Vec<(ModelRef, Answer)>, Failure> {
        let budget = Budget {
            permits: ask.permits,
            // A little less than there is, so that what was learnt by then is still told.
            deadline: Instant::now() + ask.time_left.mul_f64(0.97),
            waiting: ask.urgency == Urgency::Waiting,
            clock: &*self.clock,
        };
        let first = asked.one_model().filter(|_| budget.waiting && self.given.is_empty());
        let mut learnt = self.learner.learn(&self.client, budget, first).await?;
        let mut relearnt = false;
        loop {
            let looked = self.look_once(ask, asked, &learnt, budget).await?;
            let again = match looked {
                Looked::Finished(finished) => {
                    let Finished { answers, kept } = *finished;
                    self.memory.keep(kept, self.clock.now());
                    return Ok(answers);
                }
                Looked::ClockJumped => {
                    // Who lives was asked for a time that is not now. Once more; a Date that still differs
                    // is wrong itself.
                    self.learner.suspect_clock();
                    true
                }
                Looked::Doubled => {
                    self.learner.forget_shape().await;
                    !relearnt
                }
            };
            debug_assert!(again, "a look that never ends");
            relearnt = true;
            let jumped = learnt.date_trusted;
            learnt = self.learner.learn(&self.client, budget, None).await?;
            learnt.date_trusted &= jumped;
            learnt.last_try = true;
        }
    }

    async fn look_once(
        &self,
        ask: Ask<'_>,
        asked: &Asked,
        learnt: &Learnt,
        budget: Budget<'_>,
    ) -> Result<Looked, Failure> {
        let as_of = self.clock.now();
        let shape: &Shape = &learnt.shape;
        let groups = self.groups(asked, shape, budget.waiting);
        let moment = learnt.clock.moment(as_of);
        let mut assembly = Assembly::new(asked, shape, moment);
        let each = &self.learner.terms().matchers;
        let look = Look::new(&self.client, budget, asked, (shape, each), moment, &groups)
            .traced(ask.trace);
        look.liveness(&learnt.clock, &mut assembly).await?;
        if learnt.date_trusted && look.clock_contradicted() {
            if !learnt.last_try {
                return Ok(Looked::ClockJumped);
            }
            self.learner.distrust_date().await;
        }
        let jobs = self.capacity(&groups, asked, shape, &assembly);
        look.ask(jobs, &mut assembly).await;
        let is_known = shape.served.iter().all(|served| served.doubled || !served.is_there);
        if assembly.doubled && !is_known && !learnt.last_try {
            return Ok(Looked::Doubled);
        }
        let copies_untold = assembly.doubled && !shape.probed;
        let jobs = self.wanted(&look, &groups, ask.load_per_pod, &assembly);
        look.ask(jobs, &mut assembly).await;
        let mut vanished: HashSet<usize> = (0..asked.models().len())
            .filter(|position| assembly.has_just_vanished(*position))
            .collect();
        let mut jobs = second_look(&groups, asked, &vanished);
        jobs.extend(self.counters(&groups, shape, asked, &assembly));
        look.ask(jobs, &mut assembly).await;
        assembly.settle();
        // A scrape may have been stored in between: what lives after all has not been asked for yet.
        vanished.retain(|position| assembly.has_live_pods(*position));
        if !vanished.is_empty() {
            let mut jobs = self.capacity(&groups, asked, shape, &assembly);
            jobs.extend(self.wanted(&look, &groups, ask.load_per_pod, &assembly));
            look.ask(jobs_about(&vanished, jobs, &groups, asked), &mut assembly).await;
        }
        if copies_untold {
            assembly.doubt_load();
        }
        if budget.waiting {
            look.ask(last_seen(&groups, asked, &assembly), &mut assembly).await;
        }

        if look.was_too_large() {
            self.sharder.too_large();
        } else {
            self.sharder.went_well();
        }
        if assembly.looks_misnamed() {
            self.learner.suspect_shape();
        }
        self.log_incomplete(look.incomplete());
        self.log_unnamed(assembly.has_unnamed_pods());
        let common = Common {
            as_of,
            evaluated_at: moment.tick,
            url: self.client.url(),
            shape,
            backend: crate::NAME.into(),
        };
        let per_pod = |model: &ModelRef| ask.load_per_pod.contains(model);
        let finished = finish(assembly, &common, per_pod, |model| self.memory.of(model));
        Ok(Looked::Finished(Box::new(finished)))
    }

    /// The groups of models that are asked for together, engine by engine.
    fn groups(&self, asked: &Asked, shape: &Shape, waiting: bool) -> Vec<Group> {
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
    fn capacity(
        &self,
        groups: &[Group],
        asked: &Asked,
        shape: &Shape,
        assembly: &Assembly<'_>,
    ) -> Vec<Job> {
        let now = self.clock.now();
        let due = |model: &ModelRef| {
            asked.position(model.namespace.as_str(), model.model.as_str()).is_some_and(|position| {
                assembly.has_live_pods(position)
                    && self.memory.of(model).is_none_or(|memory| {
                        memory.cache_config_due(now, assembly.live_pods(position).into_iter())
                    })
            })
        };
        let mut jobs = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let plan = &shape.served[usize::from(group.engine)].plan;
            if !group.shard.models.iter().any(due) {
                continue;
            }
            let positions = asked.positions(&group.shard.models);
            let apart = positions.iter().any(|it| assembly.has_several_of_a_rank(*it));
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
    fn wanted(
        &self,
        look: &Look<'_>,
        groups: &[Group],
        per_pod: &HashSet<ModelRef>,
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
            let lives = |it: &usize| assembly.lives_of(*it, group.engine);
            if !positions.iter().any(lives) {
                continue;
            }
            let apart = positions.iter().any(|it| assembly.has_several_of_a_rank(*it));
            let of_pods = apart
                || served.labels.are_mixed()
                || group.shard.models.iter().any(|model| per_pod.contains(model))
                || positions.iter().any(|it| assembly.has_two_roles(*it));
            let wanted_level = if of_pods { Level::Pod } else { Level::Model };
            let job = |kind: QueryKind| Job {
                apart,
                level: plan.level(kind, wanted_level),
                ..Job::new(kind, number)
            };
            let mut kinds: Vec<QueryKind> =
                QueryKind::EACH_LOOK.into_iter().filter(|kind| plan.asks(*kind)).collect();
            let hit_rates_due = |model: &ModelRef| {
                self.memory.of(model).is_none_or(|memory| memory.hit_rates_due(now))
            };
            if plan.asks(QueryKind::PrefixCache) && group.shard.models.iter().any(hit_rates_due) {
                kinds.push(QueryKind::PrefixCache);
            }
            // What is over a window ends where the samples do: now, but for models whose samples arrive
            // late.
            let evaluated = look.evaluated(group.engine);
            let classes = assembly.late_classes(&positions, served.scrape_interval(), evaluated);
            for kind in kinds {
                if classes.len() <= 1 && classes.keys().all(|late| *late == 0)
                    || !kind.is_over_window()
                {
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
    fn counters(
        &self,
        groups: &[Group],
        shape: &Shape,
        asked: &Asked,
        assembly: &Assembly<'_>,
    ) -> Vec<Job> {
        let needs_counters = |position: &usize| {
            let kept = self.memory.of(&asked.models()[*position]);
            assembly.needs_counters(*position, kept.as_deref())
        };
        let of_group = |(number, group): (usize, &Group)| {
            let positions = asked.positions(&group.shard.models);
            let plan = &shape.served[usize::from(group.engine)].plan;
            let wanted = plan.asks(QueryKind::Counters) && positions.iter().any(needs_counters);
            let apart = positions.iter().any(|it| assembly.has_several_of_a_rank(*it));
            wanted.then(|| Job { apart, ..Job::new(QueryKind::Counters, number) })
        };
        groups.iter().enumerate().filter_map(of_group).collect()
    }

    fn log_incomplete(&self, reason: Option<String>) {
        let mut last = self.incomplete.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*last, &reason) {
            (None, Some(warning)) => {
                tracing::warn!(
                    warning,
                    url = self.client.url(),
                    "Prometheus query returned warnings"
                );
            }
            (Some(_), None) => {
                tracing::info!(
                    url = self.client.url(),
                    "Prometheus queries return no warnings any more"
                );
            }
            _ => {}
        }
        *last = reason;
    }

    fn log_unnamed(&self, unnamed: bool) {
        if unnamed && !self.unnamed_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "Some series of model servers have no label that names a pod and were left out; check the \
                 relabelling of the scrape job"
            );
        } else if !unnamed {
            self.unnamed_logged.store(false, Ordering::Relaxed);
        }
    }

    /// Splits off the models that `prometheus.namespaces` does not let through.
    fn refuse_outside(&self, models: &[ModelRef]) -> (Vec<ModelRef>, Vec<(ModelRef, Answer)>) {
        let allowed = |model: &ModelRef| {
            let namespaces = &self.config.namespaces;
            namespaces.is_empty() || namespaces.iter().any(|n| n == model.namespace.as_str())
        };
        let (inside, outside): (Vec<_>, Vec<_>) = models.iter().cloned().partition(allowed);
        let outside: HashSet<ModelRef> = outside.into_iter().collect();
        let refused = outside
            .into_iter()
            .map(|model| {
                let failure = Failure::new(
                    ErrorKind::Configuration,
                    format!(
                        "the namespace {:?} is not among prometheus.namespaces",
                        collector_transport::quote(model.namespace.as_str())
                    ),
                )
                .with_remedy("add it there, or leave the key out to read all");
                let error = self.error(failure, Operation::Fetch);
                (model, Answer::Failed(error))
            })
            .collect();
        (inside, refused)
    }
}

/// How one try at a look ended.
enum Looked {
    Finished(Box<Finished>),
    /// The server's clock is not where it was taken to be.
    ClockJumped,
    /// Series are stored more than once, which was not known.
    Doubled,
}

/// What a list of models lacks.
struct Listed {
    unlabelled: bool,
    incomplete: Option<String>,
}

impl PrometheusBackend {
    /// Adds the models of one engine.
    async fn list(
        &self,
        served: &Served,
        learnt: &Learnt,
        budget: Budget<'_>,
        models: &mut Vec<KnownModel>,
    ) -> Result<Listed, Failure> {
        let each = &self.learner.terms().matchers;
        let labels = &served.labels;
        let filter = match (self.config.namespaces.as_slice(), labels.namespace.as_slice()) {
            ([], _) => each.clone(),
            (namespaces, [label]) => each
                .and([Matcher::any_of(label.to_string(), namespaces.iter().map(String::as_str))]),
            _ => each.clone(),
        };
        // Where a model may have several rows, its pods are counted here.
        let level = if labels.are_mixed() { Level::Pod } else { Level::Model };
        let text = served.plan.query(QueryKind::Models, labels, &filter, level, false);
        let mut pods: HashMap<ModelRef, HashSet<String>> = HashMap::new();
        let query = Query {
            kind: QueryKind::Models,
            text: &text,
            time: Some(learnt.clock.moment(self.clock.now()).time),
        };
        let mut unlabelled = false;
        let answered = self
            .client
            .query(query, Expect::Vector, budget, &mut |row| {
                let namespace = row.labels.first_of(&labels.namespace);
                let given = served.engine.model.as_ref().map(AsRef::as_ref);
                let model = given.or_else(|| row.labels.first_of(&labels.model));
                let model = model.filter(|model| served.engine.names_model(model));
                if let (Some(namespace), Some(model)) = (namespace, model) {
                    let model = ModelRef::new(&*shortened(model), &*shortened(namespace));
                    if level == Level::Pod {
                        let pods = pods.entry(model).or_default();
                        pods.extend(labels.replica_of(&row.labels).map(Cow::into_owned));
                        return;
                    }
                    let replicas = collector_core::sanitize::count(row.value).ok();
                    let replicas = replicas.and_then(|count| u32::try_from(count).ok());
                    models.push(KnownModel { model, replicas });
                } else {
                    unlabelled = true;
                }
            })
            .await?;
        models.extend(
            pods.into_iter().map(|(model, pods)| KnownModel {
                model,
                replicas: u32::try_from(pods.len()).ok(),
            }),
        );
        let allowed = |model: &KnownModel| {
            let namespaces = &self.config.namespaces;
            namespaces.is_empty() || namespaces.iter().any(|n| n == model.model.namespace.as_str())
        };
        models.retain(allowed);
        Ok(Listed { unlabelled, incomplete: answered.incomplete })
    }
}

/// A second look at who lives, of the models that have none by the first, though there was or is
/// something of them.
fn second_look(groups: &[Group], asked: &Asked, vanished: &HashSet<usize>) -> Vec<Job> {
    let all = (0..groups.len()).map(|number| Job::new(QueryKind::Liveness, number)).collect();
    jobs_about(vanished, all, groups, asked)
}

/// The jobs as far as they are about these models.
fn jobs_about(
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
fn last_seen(groups: &[Group], asked: &Asked, assembly: &Assembly<'_>) -> Vec<Job> {
    let missing = |position: &usize| assembly.is_missing(*position);
    let of_group = |(number, group): (usize, &Group)| {
        let positions = asked.positions(&group.shard.models);
        let few = positions.len() <= LAST_SEEN_MAX;
        (few && positions.iter().any(missing)).then(|| Job::new(QueryKind::LastSeen, number))
    };
    groups.iter().enumerate().filter_map(of_group).collect()
}

#[async_trait]
impl Backend for PrometheusBackend {
    fn name(&self) -> &'static str {
        crate::NAME
    }

    fn supports(&self) -> Supports {
        Supports::ALL
    }

    async fn fetch(&self, ask: Ask<'_>) -> Result<Vec<(ModelRef, Answer)>, BackendError> {
        let (models, mut answers) = self.refuse_outside(ask.models);
        if models.is_empty() {
            return Ok(answers);
        }
        let asked = Asked::new(&models);
        let looked = self
            .look(ask, &asked)
            .await
            .map_err(|failure| self.error(failure, Operation::Fetch))?;
        answers.extend(looked);
        Ok(answers)
    }

    async fn list_models(&self, permits: &dyn Permits) -> Result<Vec<KnownModel>, BackendError> {
        let budget = self.own_budget(permits);
        let to_error = |failure| self.error(failure, Operation::ListModels);
        let learnt = self.learner.learn(&self.client, budget, None).await.map_err(to_error)?;
        let mut models = Vec::new();
        let mut unlabelled = None;
        let mut incomplete = None;
        for served in &learnt.shape.served {
            let listed = self.list(served, &learnt, budget, &mut models).await.map_err(to_error)?;
            if listed.unlabelled || served.lacks().is_some() {
                unlabelled.get_or_insert_with(|| {
                    let example = served.example.clone();
                    example.unwrap_or_else(|| served.plan.liveness.name.to_string())
                });
            }
            incomplete = incomplete.or(listed.incomplete);
        }
        // That there is no model is said only when it is known.
        if models.is_empty()
            && let Some(example) = unlabelled
        {
            return Err(to_error(
                Failure::new(
                    ErrorKind::BadAnswer,
                    format!(
                        "there are series of model servers, and none of them names both its namespace \
                         and its model: {example}"
                    ),
                )
                .with_remedy(
                    "check the relabelling of the scrape job, or name the labels in prometheus.labels",
                ),
            ));
        }
        if models.is_empty() && incomplete.is_some() {
            return Err(to_error(
                Failure::new(
                    ErrorKind::ServerError,
                    "its answer was incomplete and held no model, though there may be some",
                )
                .with_remedy("are all stores of the server up?"),
            ));
        }
        self.log_incomplete(incomplete);
        models.sort_unstable();
        // A model that came twice is one, of one engine or of two.
        models.dedup_by(|a, b| {
            let same = a.model == b.model;
            if same {
                b.replicas = b.replicas.max(a.replicas);
            }
            same
        });
        Ok(models)
    }

    async fn probe(&self) -> Result<Probe, BackendError> {
        let terms = self.learner.terms();
        Ok(probe::run(&self.client, &self.config, terms, self.own_budget(&Unlimited)).await)
    }

    fn live(&self) -> Option<&dyn LiveSource> {
        None
    }
}
