//! [`Backend`] for a PromQL server.

mod jobs;
mod list;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{
    Answer, Answers, Ask, Backend, BackendError, Clock, ErrorKind, KnownModel, Limits, ListAsk,
    ModelId, ModelRef, Operation, Permits, Probe, ProbeAsk, Supports, Urgency,
};
use collector_transport::ConfigError;
use tokio::time::Instant;

use self::jobs::{jobs_about, last_seen, second_look};
use crate::assemble::Assembly;
use crate::client::{Budget, Client};
use crate::config::{PrometheusConfig, selector};
use crate::failure::Failure;
use crate::finish::{Common, Finished, finish};
use crate::learn::{Learner, Learnt};
use crate::look::Look;
use crate::memory::Memory;
use crate::promql::Filter;
use crate::shape::Shape;
use crate::shard::{Asked, Sharder};
use crate::{probe, selfmetrics};

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
    /// Series were seen to be stored more than once.
    copies_seen: AtomicBool,
    incomplete_logged: AtomicBool,
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
            copies_seen: AtomicBool::new(false),
            incomplete_logged: AtomicBool::new(false),
            unnamed_logged: AtomicBool::new(false),
        })
    }

    fn error(&self, failure: Failure, operation: Operation) -> BackendError {
        failure.into_error(operation, self.client.url())
    }

    /// What a question outside a look may spend.
    fn budget<'a>(&'a self, permits: &'a dyn Permits, time_left: Duration) -> Budget<'a> {
        Budget {
            permits,
            deadline: Instant::now() + time_left.min(self.config.timeout * 3),
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
        loop {
            match self.look_once(ask, asked, &learnt, budget).await? {
                Looked::Finished(finished) => {
                    let Finished { answers, kept } = *finished;
                    self.memory.keep(kept, self.clock.now());
                    return Ok(answers);
                }
                // Who lives was asked for a time that is not now. Once more; a Date that still differs
                // is wrong itself.
                Looked::ClockJumped => self.learner.suspect_clock(),
                Looked::Doubled => self.learner.forget_shape().await,
            }
            let date_trusted = learnt.date_trusted;
            learnt = self.learner.learn(&self.client, budget, None).await?;
            learnt.date_trusted &= date_trusted;
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
        let look =
            Look::new(&self.client, budget, asked, learnt, each, moment, &groups).traced(ask.trace);
        look.liveness(&mut assembly).await?;
        if learnt.date_trusted && look.clock_contradicted() {
            if !learnt.last_try {
                return Ok(Looked::ClockJumped);
            }
            self.learner.distrust_date().await;
        }
        let jobs = self.capacity(&groups, &assembly);
        look.ask(jobs, &mut assembly).await;
        let is_known = shape.served.iter().all(|served| served.doubled || !served.is_there);
        if assembly.doubled && !is_known && !learnt.last_try {
            return Ok(Looked::Doubled);
        }
        // Not every look asks for what shows copies.
        let copies_seen = self.copies_seen.fetch_or(assembly.doubled, Ordering::Relaxed);
        let copies_untold = (assembly.doubled || copies_seen) && !shape.probed;
        let jobs = self.wanted(&look, &groups, &ask, &assembly);
        look.ask(jobs, &mut assembly).await;
        let mut vanished: HashSet<usize> = (0..asked.models().len())
            .filter(|position| assembly.has_just_vanished(*position))
            .collect();
        let mut jobs = second_look(&vanished, &groups, asked);
        jobs.extend(self.counters(&groups, &assembly));
        look.ask(jobs, &mut assembly).await;
        assembly.settle();
        // A scrape may have been stored in between: what lives after all has not been asked for yet.
        vanished.retain(|position| assembly.has_live_pods(*position));
        if !vanished.is_empty() {
            let mut jobs = self.capacity(&groups, &assembly);
            jobs.extend(self.wanted(&look, &groups, &ask, &assembly));
            look.ask(jobs_about(&vanished, jobs, &groups, asked), &mut assembly).await;
        }
        if copies_untold {
            assembly.doubt_load();
        }
        if budget.waiting {
            look.ask(last_seen(&groups, &assembly), &mut assembly).await;
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
        let per_pod = |model: &ModelRef| ask.wants_load_per_pod(model);
        let finished = finish(assembly, &common, per_pod, |model| self.memory.of(model));
        Ok(Looked::Finished(Box::new(finished)))
    }

    fn log_incomplete(&self, reason: Option<String>) {
        let logged = self.incomplete_logged.swap(reason.is_some(), Ordering::Relaxed);
        match reason {
            Some(warning) if !logged => {
                tracing::warn!(
                    warning,
                    url = self.client.url(),
                    "Prometheus query returned warnings"
                );
            }
            None if logged => {
                tracing::info!(
                    url = self.client.url(),
                    "Prometheus queries return no warnings any more"
                );
            }
            _ => {}
        }
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

    /// Whether `prometheus.namespaces` lets a model through.
    fn lets_through(&self, model: &ModelRef) -> bool {
        let namespaces = &self.config.namespaces;
        namespaces.is_empty() || namespaces.iter().any(|n| n == model.namespace.as_str())
    }

    /// Splits off the models that `prometheus.namespaces` does not let through.
    fn refuse_outside(&self, models: &[ModelRef]) -> (Vec<ModelRef>, Vec<(ModelRef, Answer)>) {
        let (inside, outside): (Vec<_>, Vec<_>) =
            models.iter().cloned().partition(|model| self.lets_through(model));
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

/// How one try at a look ended; the second is always finished, or has failed.
enum Looked {
    Finished(Box<Finished>),
    /// The server's clock is not where it was taken to be.
    ClockJumped,
    /// Series are stored more than once, which was not known.
    Doubled,
}

#[async_trait]
impl Backend for PrometheusBackend {
    fn name(&self) -> &'static str {
        crate::NAME
    }

    fn supports(&self) -> Supports {
        Supports::ALL
    }

    fn limits(&self) -> Limits {
        let PrometheusConfig { requests_per_second, request_burst, timeout, .. } = self.config;
        Limits::new(timeout).with_rate(requests_per_second, request_burst)
    }

    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
        let (models, refused) = self.refuse_outside(ask.models);
        let mut answers: Answers = refused.into_iter().collect();
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

    async fn list_models(&self, ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        self.models(self.budget(ask.permits, ask.time_left))
            .await
            .map_err(|failure| self.error(failure, Operation::ListModels))
    }

    async fn probe(&self, ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        let budget = self.budget(ask.permits, ask.time_left);
        Ok(probe::run(&self.client, self.learner.terms(), budget).await)
    }
}
