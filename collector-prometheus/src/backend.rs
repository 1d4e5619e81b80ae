// SPDX-License-Identifier: Apache-2.0
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

use self::jobs::{jobs_about, last_seen, second_liveness};
use crate::assemble::Assembly;
use crate::client::{Client, PassedAnswer, PassedRequest, RequestBudget};
use crate::config::{PrometheusConfig, selector};
use crate::discovery::{Discovery, ServerInfo};
use crate::endpoint_picker::EndpointPickers;
use crate::failure::Failure;
use crate::fetch::Fetch;
use crate::finish::{FetchContext, Finished, finish};
use crate::memory::Memory;
use crate::promql::Filter;
use crate::shape::Shape;
use crate::shard::{Requested, Sharder};
use crate::{probe, selfmetrics};

/// Reads the metrics of model servers from a PromQL server.
///
/// A fetch takes the same number of requests for one model and for hundreds: at most 11 per engine present,
/// one for all endpoint pickers, three more each minute, and a few at first to discover what there is. Between fetches it remembers what it
/// discovered, and the capacities and prefix-cache hit rates of live pods, which are queried each minute.
pub struct PrometheusBackend {
    config: PrometheusConfig,
    clock: Arc<dyn Clock>,
    client: Client,
    discovery: Discovery,
    sharder: Sharder,
    memory: Memory,
    endpoint_pickers: EndpointPickers,
    /// Selectors of configured models, whose labels do not name them.
    selectors: Vec<(ModelId, Filter)>,
    /// Whether any series was stored more than once.
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
    /// Creates a backend for the server of `config`. Reads tokens and certificates, and sends nothing.
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
        let selectors = config.models.iter().filter_map(|entry| {
            let own = selector(&entry.selector).ok()?;
            Some((ModelId::new(entry.model.as_str()), terms.matchers.and(own.0)))
        });
        Ok(Self {
            selectors: selectors.collect(),
            config,
            clock,
            client,
            discovery: Discovery::new(terms),
            sharder: Sharder::new(),
            memory: Memory::default(),
            endpoint_pickers: EndpointPickers::default(),
            copies_seen: AtomicBool::new(false),
            incomplete_logged: AtomicBool::new(false),
            unnamed_logged: AtomicBool::new(false),
        })
    }

    /// Passes a request of a client to the server, with this backend's credentials, and returns the answer unchanged.
    /// At most `prometheus.max_response_bytes` are read, all within `within`.
    ///
    /// Cancel safe: it stores nothing.
    ///
    /// # Errors
    /// When the server does not answer, rejects the backend's credentials, or sends too large an answer.
    pub async fn pass(
        &self,
        request: PassedRequest<'_>,
        within: Duration,
    ) -> Result<PassedAnswer, BackendError> {
        let deadline = Instant::now() + within;
        let passed = self.client.pass(request, &*self.clock, deadline).await;
        passed.map_err(|failure| self.error(failure, Operation::Fetch))
    }

    fn error(&self, failure: Failure, operation: Operation) -> BackendError {
        failure.into_error(operation, self.client.url())
    }

    /// Returns the budget of a request outside a fetch.
    fn own_budget<'a>(
        &'a self,
        permits: &'a dyn Permits,
        time_left: Duration,
    ) -> RequestBudget<'a> {
        RequestBudget {
            permits,
            deadline: Instant::now() + time_left.min(self.config.timeout * 3),
            waiting: true,
            clock: &*self.clock,
        }
    }

    async fn fetch_all(
        &self,
        ask: Ask<'_>,
        asked: &Requested,
    ) -> Result<Vec<(ModelRef, Answer)>, Failure> {
        let budget = RequestBudget {
            permits: ask.permits,
            // Slightly less than the caller has, so that a partial result can still be returned.
            deadline: Instant::now() + ask.time_left.mul_f64(0.97),
            waiting: ask.urgency == Urgency::Waiting,
            clock: &*self.clock,
        };
        let first = asked.one_model().filter(|_| budget.waiting && self.selectors.is_empty());
        let mut info = self.discovery.discover(&self.client, budget, first).await?;
        let (terms, moment) = (self.discovery.terms(), info.clock.moment(self.clock.now()));
        let pickers = self.endpoint_pickers.ask(&self.client, budget, terms, moment);
        let replicas = async {
            loop {
                match self.try_fetch(ask, asked, &info, budget).await? {
                    Attempt::Finished((answers, kept)) => {
                        self.memory.keep(kept, self.clock.now());
                        return Ok(answers);
                    }
                    // Liveness was queried for the wrong time. Try again; a `Date` that still differs is itself
                    // wrong.
                    Attempt::ClockJumped => self.discovery.suspect_clock(),
                    Attempt::Doubled => self.discovery.forget_shape().await,
                }
                let date_trusted = info.date_trusted;
                info = self.discovery.discover(&self.client, budget, None).await?;
                info.date_trusted &= date_trusted;
                info.last_try = true;
            }
        };
        let pickers = async { Ok::<_, Failure>(pickers.await) };
        let (mut answers, pickers): (Vec<(ModelRef, Answer)>, _) =
            tokio::try_join!(replicas, pickers)?;
        pickers.add_to(&mut answers);
        Ok(answers)
    }

    async fn try_fetch(
        &self,
        ask: Ask<'_>,
        asked: &Requested,
        info: &ServerInfo,
        budget: RequestBudget<'_>,
    ) -> Result<Attempt, Failure> {
        let as_of = self.clock.now();
        let shape: &Shape = &info.shape;
        let groups = self.groups(asked, shape, budget.waiting);
        let moment = info.clock.moment(as_of);
        let mut assembly = Assembly::new(asked, shape, moment);
        let each = &self.discovery.terms().matchers;
        let mut fetch = Fetch::new(&self.client, budget, asked, info, each, moment, &groups);
        fetch.trace = ask.trace;
        fetch.liveness(&mut assembly).await?;
        if info.date_trusted && fetch.clock_contradicted() {
            if !info.last_try {
                return Ok(Attempt::ClockJumped);
            }
            self.discovery.distrust_date().await;
        }
        let jobs = self.capacity(&groups, &assembly);
        fetch.ask(jobs, &mut assembly).await;
        // The labels that are known to distinguish copies do not distinguish these.
        if assembly.doubled && shape.probed && !info.last_try {
            return Ok(Attempt::Doubled);
        }
        // Not every fetch runs a query that shows copies.
        let copies_seen = self.copies_seen.fetch_or(assembly.doubled, Ordering::Relaxed);
        let copies_unknown = (assembly.doubled || copies_seen) && !shape.probed;
        let jobs = self.wanted(&fetch, &groups, &ask, &assembly);
        fetch.ask(jobs, &mut assembly).await;
        let mut vanished: HashSet<usize> = (0..asked.models().len())
            .filter(|position| assembly.models[*position].has_just_vanished())
            .collect();
        let mut jobs = second_liveness(&vanished, &groups);
        jobs.extend(self.counters(&groups, &assembly));
        fetch.ask(jobs, &mut assembly).await;
        assembly.settle();
        // A scrape may have been stored in between: pods that live after all have not been queried yet.
        vanished.retain(|position| !assembly.models[*position].has_no_pods());
        if !vanished.is_empty() {
            let mut jobs = self.capacity(&groups, &assembly);
            jobs.extend(self.wanted(&fetch, &groups, &ask, &assembly));
            fetch.ask(jobs_about(&vanished, jobs, &groups), &mut assembly).await;
        }
        if copies_unknown {
            assembly.doubt_load();
        }
        if budget.waiting {
            fetch.ask(last_seen(&groups, &assembly), &mut assembly).await;
        }

        if fetch.was_too_large() {
            self.sharder.too_large();
        } else {
            self.sharder.went_well();
        }
        if assembly.lacks_gauges() {
            self.discovery.suspect_shape();
        }
        self.log_incomplete(fetch.incomplete());
        self.log_unnamed(assembly.has_unnamed_pods());
        let common = FetchContext {
            as_of,
            evaluated_at: moment.tick,
            url: self.client.url(),
            shape,
            backend: crate::NAME.into(),
        };
        let per_pod = |model: &ModelRef| ask.wants_load_per_pod(model);
        let finished = finish(assembly, &common, per_pod, |model| self.memory.of(model));
        Ok(Attempt::Finished(finished))
    }

    fn log_incomplete(&self, reason: Option<String>) {
        let url = self.client.url();
        let was_logged = self.incomplete_logged.swap(reason.is_some(), Ordering::Relaxed);
        match reason {
            Some(warning) if !was_logged => {
                tracing::warn!(warning, url, "Prometheus query returned warnings");
            }
            None if was_logged => {
                tracing::info!(url, "Prometheus queries return no warnings again");
            }
            _ => {}
        }
    }

    fn log_unnamed(&self, unnamed: bool) {
        let was_logged = self.unnamed_logged.swap(unnamed, Ordering::Relaxed);
        if unnamed && !was_logged {
            tracing::warn!(
                "Some series of model servers have no label that names a pod and were skipped; check the \
                 relabelling of the scrape job"
            );
        }
    }

    /// Returns whether `prometheus.namespaces` includes a model.
    fn lets_through(&self, model: &ModelRef) -> bool {
        let namespaces = &self.config.namespaces;
        namespaces.is_empty() || namespaces.iter().any(|n| n == model.namespace.as_str())
    }

    /// Separates the models that `prometheus.namespaces` excludes.
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

/// The result of one attempt; a second attempt always finishes or fails.
enum Attempt {
    Finished(Finished),
    /// The server's clock differs from the one that was assumed.
    ClockJumped,
    /// Series are stored more than once, and the labels that distinguish the copies are not known.
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
        let asked = Requested::new(&models);
        let fetched = self
            .fetch_all(ask, &asked)
            .await
            .map_err(|failure| self.error(failure, Operation::Fetch))?;
        answers.extend(fetched);
        Ok(answers)
    }

    async fn list_models(&self, ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        self.models(self.own_budget(ask.permits, ask.time_left))
            .await
            .map_err(|failure| self.error(failure, Operation::ListModels))
    }

    async fn probe(&self, ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        let budget = self.own_budget(ask.permits, ask.time_left);
        Ok(probe::run(&self.client, self.discovery.terms(), budget).await)
    }
}
