// SPDX-License-Identifier: Apache-2.0
//! A batch: sends its fetches to the backend, tries again where that can help, publishes what came back.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use collector_core::{
    Advice, Answer, Answers, Ask, BackendError, ErrorKind, FieldReasons, ModelRecord, ModelRef,
    Outcome, Tick, Urgency,
};
use futures_util::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Fetch, Source};
use crate::engine::{Engine, TaskScope};
use crate::fetch::breaker::Admission;
use crate::fetch::budget::Priority;
use crate::fetch::listing::nearest;
use crate::fetch::retry;
use crate::publish::Fetched;
use crate::state::Joined;

/// Fetches that are sent together. Dropped, whatever became of its task, they are no longer in flight: a caller who
/// joined one that nobody runs would wait in vain.
pub(crate) struct Batch<'a> {
    engine: &'a Engine,
    index: usize,
    started: Instant,
    /// When the present try began.
    began: Tick,
    /// How long all tries may take while nobody waits.
    unawaited_limit: Duration,
    pending: Vec<Arc<Fetch>>,
}

impl<'a> Batch<'a> {
    /// Sends fetches: an invalidation from here on supersedes them.
    fn dispatch(engine: &'a Engine, index: usize, fetches: Vec<Arc<Fetch>>) -> Self {
        for fetch in &fetches {
            engine.models.with(&fetch.model, |cell| cell.dispatch(index, fetch));
        }
        let source = &engine.sources[index];
        let mut batch = Self {
            engine,
            index,
            started: Instant::now(),
            began: engine.clock.now(),
            unawaited_limit: source.call_limit,
            pending: fetches,
        };
        // A directory runs here: should it panic, the batch is dropped, and its fetches are no longer in flight.
        batch.unawaited_limit = engine.unawaited_limit(source, &batch.pending);
        batch
    }

    fn source(&self) -> &'a Source {
        &self.engine.sources[self.index]
    }

    fn failed(&self, error: Arc<BackendError>) -> Fetched {
        Fetched::Failed { began: self.began, error }
    }

    /// What is left of the time that all tries may take together. A caller who joined late has a whole call before
    /// them.
    fn time_left(&self) -> Duration {
        let awaited_since = self.pending.iter().filter_map(|fetch| fetch.awaited_since.get()).max();
        let deadline = match awaited_since {
            Some(since) => *since + self.source().call_limit,
            None => self.started + self.unawaited_limit,
        };
        deadline.saturating_duration_since(Instant::now())
    }

    fn urgency(&self) -> Urgency {
        urgency(&self.pending)
    }

    /// Waits before the next try. A caller who joins a background refresh in its long pause ends it, unless the
    /// server itself named the pause. False: the batch was given up, or has failed.
    async fn pause(
        &mut self,
        stopping: &CancellationToken,
        tried: u32,
        error: &Arc<BackendError>,
    ) -> bool {
        let urgency = self.urgency();
        let pause = retry::pause(tried, urgency, error);
        let mut next = Instant::now() + pause;
        loop {
            // Made before the urgency is read: a caller that begins to wait after that wakes it.
            let hurried = self.source().hurried();
            let was_hurried = urgency == Urgency::Background && self.urgency() == Urgency::Waiting;
            if was_hurried && error.retry_after().is_none() {
                next = Instant::now();
            }
            if next >= Instant::now() + self.time_left() {
                self.end_failed(error);
                return false;
            }
            if next <= Instant::now() {
                return true;
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => return true,
                () = hurried => {}
                () = given_up(stopping, &self.pending) => return false,
            }
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for fetch in std::mem::take(&mut self.pending) {
            self.engine.models.with(&fetch.model, |cell| cell.finish(self.index, &fetch));
        }
    }
}

/// A batch that is still open. A task that is dropped while it waits for others gives up all of them, and the next
/// read opens another.
struct Window(Option<(Arc<Engine>, usize)>);

impl Drop for Window {
    fn drop(&mut self) {
        if let Some((engine, index)) = self.0.take() {
            let fetches = engine.sources[index].next_batch.take();
            drop(Batch::dispatch(&engine, index, fetches));
        }
    }
}

/// Waits for others that want something of a source at the same time, and fetches.
pub(super) fn dispatch_after_window(engine: &Arc<Engine>, index: usize) {
    let TaskScope { tasks, stopping } = engine.task_scope().clone();
    let mut window = Window(Some((Arc::clone(engine), index)));
    tasks.spawn(async move {
        if let Some((engine, _)) = &window.0
            && !engine.batch_window.is_zero()
        {
            tokio::time::sleep(engine.batch_window).await;
        }
        if let Some((engine, index)) = window.0.take() {
            let fetches = engine.sources[index].next_batch.take();
            engine.run(Batch::dispatch(&engine, index, fetches), &stopping).await;
        }
    });
}

impl Engine {
    /// Fetches those of these models that are not in flight, at once and without a caller who waits.
    pub(crate) async fn fetch_in_background(
        &self,
        index: usize,
        models: Vec<ModelRef>,
        stopping: &CancellationToken,
    ) {
        let join = |model| match self
            .models
            .with(&model, |cell| cell.join(index, || Fetch::new(&model)))
        {
            Joined::New(fetch) => Some(fetch),
            Joined::InFlight(_) => None,
        };
        let fetches: Vec<_> = models.into_iter().filter_map(join).collect();
        if !fetches.is_empty() {
            self.run(Batch::dispatch(self, index, fetches), stopping).await;
        }
    }

    /// Runs a batch until every fetch has ended or was given up.
    async fn run(&self, mut batch: Batch<'_>, stopping: &CancellationToken) {
        for tried in 1..=retry::TRIES {
            batch.began = self.clock.now();
            let admission = match batch.source().breaker.admit(batch.began) {
                Ok(admission) => admission,
                // Another try would be refused as well.
                Err(error) => return batch.end_failed(&error),
            };
            let fetched = tokio::select! {
                fetched = self.ask_backend(&batch, admission) => fetched,
                () = given_up(stopping, &batch.pending) => return,
            };
            let last = tried == retry::TRIES;
            let Some(error) = self.end_answered(&mut batch, fetched, last).await else { return };
            if !batch.pause(stopping, tried, &error).await {
                return;
            }
        }
    }

    /// The limit of a background refresh: its interval, because the next refresh takes over then. Of
    /// several the longest, or one model with a short interval would cut short the fetch of a whole fleet.
    fn unawaited_limit(&self, source: &Source, fetches: &[Arc<Fetch>]) -> Duration {
        let intervals = fetches.iter().map(|fetch| self.pace(&fetch.model).interval);
        intervals.max().filter(|longest| !longest.is_zero()).unwrap_or(source.call_limit)
    }

    /// Asks the backend for what is pending.
    async fn ask_backend(
        &self,
        batch: &Batch<'_>,
        admission: Admission<'_>,
    ) -> Result<Answers, Arc<BackendError>> {
        let source = batch.source();
        let (urgency, time_left) = (batch.urgency(), batch.time_left());
        let models: Vec<ModelRef> = batch.pending.iter().map(|fetch| fetch.model.clone()).collect();
        let load_per_pod = self.wants_load_per_pod(source, &models, urgency);
        let mut ask = Ask::new(&models, &*self.clock).with_load_per_pod(&load_per_pod);
        ask.time_left = time_left;
        // Asked again for each request: a caller who begins to wait meanwhile hurries the rest of the fetch.
        let priority = || match batch.urgency() {
            Urgency::Waiting => Priority::Waiting,
            Urgency::Background => Priority::Background,
        };
        let permits = source.permits(&priority);
        ask.permits = &permits;
        ask.urgency = urgency;
        let fetch = AssertUnwindSafe(source.backend.fetch(ask)).catch_unwind();
        let result = match tokio::time::timeout(time_left, fetch).await {
            Ok(Ok(result)) => result,
            Ok(Err(_panic)) => {
                source.panicked();
                Err(source
                    .error(ErrorKind::Panicked, subject(&models))
                    .with_remedy("this is a defect of the backend: report it"))
            }
            Err(_elapsed) => Err(source
                .error(ErrorKind::Timeout, subject(&models))
                .with_detail(format!("no answer within {}", in_seconds(time_left)))
                .with_remedy("is the server overloaded? If it needs longer, raise its timeout")),
        };
        match result {
            Ok(answers) => {
                let change = admission.answered(self.clock.now());
                source.log_circuit(change.as_ref(), None);
                Ok(answers)
            }
            // It waited for permits, not for the server: the breaker does not count it.
            Err(error)
                if error.kind() == ErrorKind::Timeout && permits.waited() > time_left / 2 =>
            {
                Err(Arc::new(out_of_budget(source, &models, time_left)))
            }
            Err(error) => {
                let error = Arc::new(error);
                let change = admission.failed(&error, self.clock.now());
                source.log_circuit(change.as_ref(), Some(&error));
                if error.kind() == ErrorKind::CircuitOpen {
                    // Why the circuit is open says more than that it is.
                    return Err(source.breaker.last_error().unwrap_or(error));
                }
                Err(error)
            }
        }
    }

    /// The models whose load must be split by pod: those that variants share, and those of
    /// which a variant claims some pods and not others. A caller who waits asks about few models, so
    /// that it costs next to nothing to always know.
    fn wants_load_per_pod(
        &self,
        source: &Source,
        models: &[ModelRef],
        urgency: Urgency,
    ) -> HashSet<ModelRef> {
        let supports = source.backend.supports();
        if !supports.load_per_pod {
            return HashSet::new();
        }
        let shared = |model: &&ModelRef| {
            urgency == Urgency::Waiting
                || match self.directory.variants_of(model).len() {
                    0 => false,
                    1 => self.has_unclaimed_pods(model),
                    _ => true,
                }
        };
        models.iter().filter(shared).cloned().collect()
    }

    fn has_unclaimed_pods(&self, model: &ModelRef) -> bool {
        let record = self.cache.get(model);
        let value = record.as_ref().and_then(|record| record.value.as_ref());
        value.is_some_and(|value| {
            value.replicas.replicas.iter().any(|row| row.variant_name.is_none())
        })
    }

    /// Publishes what can be published. Keeps in `pending` what another try may bring, and returns the error that
    /// stands in the way.
    async fn end_answered(
        &self,
        batch: &mut Batch<'_>,
        fetched: Result<Answers, Arc<BackendError>>,
        last: bool,
    ) -> Option<Arc<BackendError>> {
        let retry = |error: &BackendError| !last && error.advice() == Advice::Retry;
        let mut answers = match fetched {
            Ok(answers) => answers,
            Err(error) if retry(&error) => return Some(error),
            Err(error) => {
                batch.end_failed(&error);
                return None;
            }
        };
        let mut missing = Vec::new();
        let mut again = Vec::new();
        let mut obstacle: Option<Arc<BackendError>> = None;
        // All stay pending until the end: ending a fetch a second time does nothing.
        for fetch in batch.pending.iter().cloned() {
            match answers.remove(&fetch.model) {
                Some(Answer::Found(sample)) => batch.end(&fetch, Fetched::Found(sample)),
                Some(Answer::Missing { as_of, last_seen }) => {
                    missing.push((fetch, as_of, last_seen));
                }
                Some(Answer::Failed(error)) => {
                    let error = Arc::new(error);
                    if retry(&error) {
                        again.push(fetch);
                        let longer = obstacle
                            .as_ref()
                            .is_none_or(|known| known.retry_after() < error.retry_after());
                        if longer {
                            obstacle = Some(error);
                        }
                    } else {
                        batch.end(&fetch, batch.failed(error));
                    }
                }
                _ => {
                    let error = batch
                        .source()
                        .error(ErrorKind::BadAnswer, fetch.model.to_string())
                        .with_detail("the backend left the model out of its answer")
                        .with_remedy("this is a defect of the backend: report it");
                    batch.end(&fetch, batch.failed(Arc::new(error)));
                }
            }
        }
        self.end_missing(batch, missing).await;
        batch.pending = again;
        obstacle
    }

    /// Publishes what has no series. What exists instead is asked once, and only for callers who wait.
    async fn end_missing(&self, batch: &Batch<'_>, missing: Vec<(Arc<Fetch>, Tick, Option<Tick>)>) {
        let source = batch.source();
        let lists = source.backend.supports().list_models;
        let known = if lists && missing.iter().any(|(fetch, ..)| fetch.is_awaited()) {
            let limit = batch.time_left().min(source.call_limit / 3);
            let max_age = self.config.missing_ttl;
            let listing = source.known.models(source, &*self.clock, max_age, limit / 2).await;
            listing
                .inspect_err(|error| tracing::debug!(%error, "Cannot list models to suggest"))
                .ok()
        } else {
            None
        };
        for (fetch, as_of, last_seen) in missing {
            let known = known.as_ref().filter(|_| fetch.is_awaited());
            let last_seen = last_seen.map(|at| at.age(as_of));
            let nearest = nearest(&fetch.model, known.map(AsRef::as_ref), last_seen);
            batch.end(&fetch, Fetched::Missing { as_of, nearest });
        }
    }

    fn note_refresh(&self, source: &Source, record: &ModelRecord, outcome: Outcome) {
        if outcome == Outcome::Failed {
            return;
        }
        self.counters.background_refreshes.fetch_add(1, Ordering::Relaxed);
        let failures = source.refresh_failures.swap(0, Ordering::Relaxed);
        if failures > 0 {
            tracing::info!(backend = %source.name, failures, "Background fetch works again");
        }
        if let Some(value) = &record.value {
            let model = &record.model;
            tracing::debug!(
                model = ?model.model, namespace = ?model.namespace,
                age = ?value.replicas.oldest.age(self.clock.now()), "Background fetch succeeded"
            );
        }
    }
}

impl Batch<'_> {
    fn end_failed(&mut self, error: &Arc<BackendError>) {
        if self.pending.iter().any(|fetch| !fetch.is_awaited())
            && self.source().refresh_failures.fetch_add(1, Ordering::Relaxed) == 0
        {
            let backend = &self.source().name;
            tracing::warn!(%backend, models = self.pending.len(), %error, "Background fetch failed");
        }
        for fetch in std::mem::take(&mut self.pending) {
            self.end(&fetch, self.failed(Arc::clone(error)));
        }
    }

    /// Publishes, stores and deregisters in one step, and hands the record to those who wait.
    fn end(&self, fetch: &Arc<Fetch>, fetched: Fetched) {
        let (engine, source) = (self.engine, self.source());
        match &fetched {
            Fetched::Found(sample) => source.note_fields(&fetch.model, &sample.failed),
            Fetched::Missing { .. } => source.note_fields(&fetch.model, &FieldReasons::NONE),
            Fetched::Failed { .. } => {}
        }
        // Code from outside runs here, a cache and a directory: its panic over one model must not take
        // the others of the batch with it.
        let publish = AssertUnwindSafe(|| {
            let outcome = fetched.outcome();
            let record = engine.models.with(&fetch.model, |cell| {
                let may_store = cell.finish(self.index, fetch);
                // Under the lock: nobody joins after it.
                let awaited = fetch.is_awaited();
                engine.publish(cell, source, &fetch.model, fetched, awaited, may_store)
            });
            if !fetch.is_awaited() {
                engine.note_refresh(source, &record, outcome);
            }
            record
        });
        if let Ok(record) = std::panic::catch_unwind(publish) {
            fetch.result.send_replace(Some(record));
        } else {
            engine.panicked();
            tracing::error!(model = %fetch.model, "Publishing what was fetched panicked");
        }
    }
}

fn urgency(fetches: &[Arc<Fetch>]) -> Urgency {
    if fetches.iter().any(|fetch| fetch.is_awaited()) {
        Urgency::Waiting
    } else {
        Urgency::Background
    }
}

/// Resolves when the collector is stopping and no caller waits for these fetches.
async fn given_up(stopping: &CancellationToken, fetches: &[Arc<Fetch>]) {
    stopping.cancelled().await;
    if fetches.iter().any(|fetch| fetch.has_waiters()) {
        // Callers who wait are answered; the fetch has its own limit.
        std::future::pending::<()>().await;
    }
}

/// A fetch that waited for its permits until no time was left.
fn out_of_budget(source: &Source, models: &[ModelRef], time_left: Duration) -> BackendError {
    let limit = in_seconds(time_left);
    source
        .error(ErrorKind::Timeout, subject(models))
        .with_detail(format!(
            "no request permit within {limit}: 8 requests were in flight, or requests_per_second was reached"
        ))
        .with_remedy("raise requests_per_second and request_burst if the server can take more")
}

/// A limit as people set it: the milliseconds that a batch was waited for are of no interest.
fn in_seconds(limit: Duration) -> String {
    format!("{}s", (limit + Duration::from_millis(500)).as_secs().max(1))
}

fn subject(models: &[ModelRef]) -> String {
    match models {
        [model] => model.to_string(),
        models => format!("{} models", models.len()),
    }
}
