//! [`Backend`] for a PromQL server.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{
    Answer, Ask, Backend, BackendError, Clock, ErrorKind, KnownModel, LiveSource, ModelRef,
    Operation, Permits, PodName, Probe, Supports, Unlimited, Urgency,
};
use collector_transport::ConfigError;
use tokio::time::Instant;

use crate::answer::{Expect, shortened};
use crate::assemble::{Assembly, Finished};
use crate::client::{Budget, Client, Query};
use crate::config::PrometheusConfig;
use crate::failure::Failure;
use crate::learn::{Learner, Learnt};
use crate::look::Look;
use crate::memory::Memory;
use crate::plan::{Grouping, QueryKind};
use crate::promql::{Filter, Matcher};
use crate::shard::{Asked, Census, Shard, Sharder};
use crate::{probe, selfmetrics};

/// Asks a PromQL server about vLLM fleets.
///
/// A look costs the same number of requests for one model and for hundreds: 11, and each minute
/// three more; the first adds two probes. Between looks it keeps how the server is to be asked, and
/// the cache sizes and prefix-cache hit rates of living pods, which are asked each minute.
pub struct PrometheusBackend {
    config: PrometheusConfig,
    clock: Arc<dyn Clock>,
    client: Client,
    learner: Learner,
    sharder: Sharder,
    memory: Memory,
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
        Ok(Self {
            config,
            clock,
            client,
            learner: Learner::default(),
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
        let as_of = self.clock.now();
        let budget = Budget {
            permits: ask.permits,
            // A little less than there is, so that what was learnt by then is still told.
            deadline: Instant::now() + ask.time_left.mul_f64(0.97),
            waiting: ask.urgency == Urgency::Waiting,
            clock: &*self.clock,
        };
        let first = asked.one_model().filter(|_| budget.waiting);
        let mut learnt = self.learner.learn(&self.client, budget, first.as_ref()).await?;
        let shards = self.shards(asked, &learnt, budget.waiting);
        let mut moment = learnt.clock.moment(self.clock.now());
        let mut assembly = Assembly::new(asked, moment);
        let plan = learnt.shape.plan(self.config.effective_window());
        let mut look =
            Look::new(&self.client, budget, asked, plan, moment, shards.clone()).traced(ask.trace);
        look.liveness(&learnt.clock, &mut assembly).await?;
        if learnt.date_trusted && look.clock_contradicted() {
            // The server's clock has jumped since it was read: who lives was asked for a time that
            // is not now. Once more; a Date that still differs is wrong itself.
            self.learner.suspect_clock();
            learnt = self.learner.learn(&self.client, budget, None).await?;
            moment = learnt.clock.moment(self.clock.now());
            assembly = Assembly::new(asked, moment);
            look = Look::new(&self.client, budget, asked, plan, moment, shards.clone())
                .traced(ask.trace);
            look.liveness(&learnt.clock, &mut assembly).await?;
            if look.clock_contradicted() {
                self.learner.distrust_date().await;
            }
        }
        if look.cache_config(self.cache_config_due(&shards, asked, &assembly), &mut assembly).await
        {
            look.saw_duplicates();
            self.learner.saw_duplicates().await;
        }
        let wanted = self.wanted(&shards, ask.load_per_pod, &learnt, asked, &assembly);
        look.fields(wanted, &mut assembly).await;

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
        let Finished { answers, kept } = assembly.finish(
            as_of,
            |model| ask.load_per_pod.contains(model),
            |model| self.memory.of(model),
            self.client.url(),
        );
        self.memory.keep(kept, self.clock.now());
        Ok(answers)
    }

    fn shards(&self, asked: &Asked, learnt: &Learnt, waiting: bool) -> Vec<Shard> {
        let pods_of = |model: &ModelRef| self.memory.pods_of(model);
        let census = Census {
            asked: asked.models().iter().filter_map(pods_of).map(u64::from).sum(),
            on_server: learnt.shape.pods,
        };
        self.sharder.shards(asked.models().to_vec(), learnt.shape.names, census, waiting, pods_of)
    }

    /// The shards whose cache sizes are to be asked for, and their pods.
    fn cache_config_due(
        &self,
        shards: &[Shard],
        asked: &Asked,
        assembly: &Assembly<'_>,
    ) -> Vec<(usize, Vec<(usize, PodName)>)> {
        let now = self.clock.now();
        let due = |model: &ModelRef| {
            asked.position(model.namespace.as_str(), model.model.as_str()).is_some_and(|position| {
                assembly.has_live_pods(position)
                    && self.memory.of(model).is_none_or(|memory| {
                        memory.cache_config_due(now, assembly.live_pods(position))
                    })
            })
        };
        shards
            .iter()
            .enumerate()
            .filter(|(_, shard)| shard.models.iter().any(due))
            .map(|(number, shard)| {
                let pods = asked
                    .positions(&shard.models)
                    .into_iter()
                    .flat_map(|position| {
                        assembly.live_pods(position).map(move |pod| (position, pod.clone()))
                    })
                    .collect();
                (number, pods)
            })
            .collect()
    }

    /// What is asked besides liveness and cache sizes.
    fn wanted(
        &self,
        shards: &[Shard],
        per_pod: &HashSet<ModelRef>,
        learnt: &Learnt,
        asked: &Asked,
        assembly: &Assembly<'_>,
    ) -> Vec<(QueryKind, usize, Grouping)> {
        let now = self.clock.now();
        let mut wanted = Vec::new();
        for (number, shard) in shards.iter().enumerate() {
            let positions = asked.positions(&shard.models);
            if !positions.iter().any(|p| assembly.has_live_pods(*p)) {
                // Nothing lives here; what remains to know is whether something lately did, and
                // every vLLM has a queue.
                wanted.push((QueryKind::QueueLength, number, Grouping::Model));
                continue;
            }
            let grouping = if shard.models.iter().any(|model| per_pod.contains(model)) {
                Grouping::Pod
            } else {
                Grouping::Model
            };
            let each = QueryKind::EACH_LOOK.into_iter();
            wanted.extend(each.map(|kind| (kind, number, grouping)));
            let hit_rates_due = |model: &ModelRef| {
                self.memory.of(model).is_none_or(|memory| memory.hit_rates_due(now))
            };
            if learnt.shape.names.prefix_cache && shard.models.iter().any(hit_rates_due) {
                for kind in [QueryKind::PrefixHits, QueryKind::PrefixQueries] {
                    wanted.push((kind, number, Grouping::Pod));
                }
            }
        }
        wanted
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
                "Some vLLM series have neither a label pod nor pod_name and were left out; check the \
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
        let filter = match self.config.namespaces.as_slice() {
            [] => Filter::default(),
            namespaces => {
                Filter(vec![Matcher::any_of("namespace", namespaces.iter().map(String::as_str))])
            }
        };
        let text =
            learnt.shape.plan(Duration::ZERO).query(QueryKind::Models, &filter, Grouping::Model);
        let query = Query {
            kind: QueryKind::Models,
            text: &text,
            time: Some(learnt.clock.moment(self.clock.now()).time),
        };
        let mut models = Vec::new();
        let mut unlabelled = false;
        let answered = self
            .client
            .query(query, Expect::Vector, budget, &mut |row| {
                if let (Some(namespace), Some(model)) =
                    (&row.labels.namespace, &row.labels.model_name)
                {
                    let replicas = collector_core::sanitize::count(row.value).ok();
                    models.push(KnownModel {
                        model: ModelRef::new(&*shortened(model), &*shortened(namespace)),
                        replicas: replicas.and_then(|count| u32::try_from(count).ok()),
                    });
                } else {
                    unlabelled = true;
                }
            })
            .await
            .map_err(to_error)?;
        // That there is no model is said only when it is known.
        if models.is_empty() && unlabelled {
            return Err(to_error(
                Failure::new(
                    ErrorKind::BadAnswer,
                    "there are vLLM series, and none of them has both labels namespace and \
                     model_name",
                )
                .with_remedy("check the relabelling of the scrape job"),
            ));
        }
        if models.is_empty() && answered.incomplete.is_some() {
            return Err(to_error(
                Failure::new(
                    ErrorKind::ServerError,
                    "its answer was incomplete and held no model, though there may be some",
                )
                .with_remedy("are all stores of the server up?"),
            ));
        }
        self.log_incomplete(answered.incomplete);
        models.sort_unstable();
        // A row that came twice is one model.
        models.dedup_by(|a, b| a.model == b.model);
        Ok(models)
    }

    async fn probe(&self) -> Result<Probe, BackendError> {
        Ok(probe::run(&self.client, &self.config, self.own_budget(&Unlimited)).await)
    }

    fn live(&self) -> Option<&dyn LiveSource> {
        None
    }
}
