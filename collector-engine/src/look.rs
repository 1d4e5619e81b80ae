//! A batch of flights in the air: looks at the backend, tries again where that can help, and lands
//! what came back.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use collector_core::{
    Advice, Answer, Answers, Ask, BackendError, ErrorKind, FieldReasons, KeyRef, ModelRef, Outcome,
    Tick, Urgency, Value,
};
use futures_util::FutureExt as _;
use tokio::time::Instant;

use crate::breaker::Admission;
use crate::budget::Priority;
use crate::engine::Engine;
use crate::flight::{Batch, Flight};
use crate::gate::Ticket;
use crate::known::nearest;
use crate::publish::{Looked, Published};
use crate::retry;
use crate::source::Source;

/// Whatever becomes of the batch's task, its flights leave the list: a reader who joined one that
/// nobody flies would wait in vain.
struct Aloft<'a> {
    source: &'a Source,
    ticket: Ticket,
    started: Instant,
    /// When the present try began.
    began: Tick,
    /// How long all tries may take while nobody waits.
    unawaited_limit: Duration,
    pending: Vec<Arc<Flight>>,
}

impl Aloft<'_> {
    fn failed(&self, error: Arc<BackendError>) -> Looked {
        Looked::Failed { began: self.began, error }
    }

    /// What is left of the time that all tries of a look may take together. A caller who joined late
    /// has a whole call before them.
    fn time_left(&self) -> Duration {
        let awaited_since = self.pending.iter().filter_map(|flight| flight.awaited_since()).max();
        let deadline = match awaited_since {
            Some(since) => since + self.source.call_limit,
            None => self.started + self.unawaited_limit,
        };
        deadline.saturating_duration_since(Instant::now())
    }
}

impl Drop for Aloft<'_> {
    fn drop(&mut self) {
        for flight in &self.pending {
            self.source.flights.take_off_list(flight);
        }
    }
}

/// The same before the departure: a task that is dropped while it lets others board takes all of them
/// off the list, and the next read opens a boarding of its own.
struct Boarding(Option<(Arc<Engine>, usize)>);

impl Drop for Boarding {
    fn drop(&mut self) {
        if let Some((engine, place)) = self.0.take() {
            let flights = &engine.sources[place].flights;
            for flight in flights.depart(&engine.gate).flights {
                flights.take_off_list(&flight);
            }
        }
    }
}

impl Engine {
    /// Lets those who want something of a source at the same time board, and flies.
    pub(crate) fn open_boarding(self: &Arc<Self>, place: usize) {
        let mut boarding = Boarding(Some((Arc::clone(self), place)));
        let tasks = self.shift().tasks.clone();
        tasks.spawn(async move {
            if let Some((engine, _)) = &boarding.0
                && !engine.boarding.is_zero()
            {
                tokio::time::sleep(engine.boarding).await;
            }
            if let Some((engine, place)) = boarding.0.take() {
                let source = &engine.sources[place];
                engine.fly(source, source.flights.depart(&engine.gate)).await;
            }
        });
    }

    /// Flies a batch until every flight has landed or been given up.
    pub(crate) async fn fly(&self, source: &Source, batch: Batch) {
        let stopping = self.shift().stopping.clone();
        let Batch { flights, ticket, hurry } = batch;
        let began = self.clock.now();
        let unawaited_limit = self.unawaited_limit(source, &flights);
        let started = Instant::now();
        let mut aloft = Aloft { source, ticket, started, began, unawaited_limit, pending: flights };
        for tried in 1..=retry::TRIES {
            aloft.began = self.clock.now();
            let urgency = urgency(&aloft.pending);
            let admission = match source.breaker.admit(aloft.began) {
                Ok(admission) => admission,
                // Another try would be refused as well.
                Err(error) => return self.land_failed(&mut aloft, &error),
            };
            let time_left = aloft.time_left();
            let looked = tokio::select! {
                looked = self.look(source, admission, &aloft.pending, urgency, time_left) => looked,
                () = given_up(&stopping, &aloft.pending) => return,
            };
            let last = tried == retry::TRIES;
            let time_left = aloft.time_left();
            let Some(error) = self.land_all(&mut aloft, looked, last, time_left).await else {
                return;
            };
            // Somebody may have begun to wait while the look was taken.
            let urgency = self::urgency(&aloft.pending);
            let pause = retry::pause(tried, urgency, &error);
            if pause >= aloft.time_left() {
                return self.land_failed(&mut aloft, &error);
            }
            let next = Instant::now() + pause;
            // A caller who joins a refresh in its long pause wakes it, unless the server itself named
            // the pause: then the caller waits for its end, or learns at once that it is too far.
            tokio::select! {
                () = tokio::time::sleep_until(next) => continue,
                () = hurry.notified(), if urgency == Urgency::Background => {}
                () = given_up(&stopping, &aloft.pending) => return,
            }
            if error.retry_after().is_none() {
                continue;
            }
            if next >= Instant::now() + aloft.time_left() {
                return self.land_failed(&mut aloft, &error);
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = given_up(&stopping, &aloft.pending) => return,
            }
        }
    }

    /// The limit of a background refresh: its interval, because the next refresh takes over then. Of
    /// several the longest, or one model in a hurry would cut short the look at a whole fleet.
    fn unawaited_limit(&self, source: &Source, flights: &[Arc<Flight>]) -> Duration {
        let intervals = flights.iter().map(|flight| self.pace(&flight.model).interval);
        intervals.max().filter(|longest| !longest.is_zero()).unwrap_or(source.call_limit)
    }

    /// One look at the backend.
    async fn look(
        &self,
        source: &Source,
        admission: Admission<'_>,
        flights: &[Arc<Flight>],
        urgency: Urgency,
        time_left: Duration,
    ) -> Result<Answers, Arc<BackendError>> {
        let models: Vec<ModelRef> = flights.iter().map(|flight| flight.model.clone()).collect();
        let load_per_pod = self.wants_load_per_pod(source, &models, urgency);
        let mut ask = Ask::new(&models, &*self.clock).with_load_per_pod(&load_per_pod);
        ask.time_left = time_left;
        // Asked anew for each request: whoever begins to wait meanwhile hurries the rest of the look.
        let priority = || match self::urgency(flights) {
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
                admission.answered(self.clock.now());
                Ok(answers)
            }
            // Not the server let it wait, but others who ask it: the breaker hears nothing of it.
            Err(error)
                if error.kind() == ErrorKind::Timeout && permits.waited() > time_left / 2 =>
            {
                Err(Arc::new(out_of_budget(source, &models, time_left)))
            }
            Err(error) => {
                let error = Arc::new(error);
                admission.failed(&error, self.clock.now());
                if error.kind() == ErrorKind::CircuitOpen {
                    // Why the circuit is open says more than that it is.
                    return Err(source.breaker.last_error().unwrap_or(error));
                }
                Err(error)
            }
        }
    }

    /// The models whose load must be told apart by pod: those that variants share, and those of
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
        self.cache.peek(KeyRef::replicas(model)).is_some_and(|peeked| match &peeked.stored.value {
            Value::Replicas(replicas) => {
                replicas.replicas.iter().any(|row| row.variant_name.is_none())
            }
            Value::None | Value::Allocation(_) => false,
        })
    }

    /// Lands what can be landed. Leaves in `pending` what another try may bring, and returns the error
    /// that stands in the way.
    async fn land_all(
        &self,
        aloft: &mut Aloft<'_>,
        looked: Result<Answers, Arc<BackendError>>,
        last: bool,
        time_left: Duration,
    ) -> Option<Arc<BackendError>> {
        let retry = |error: &BackendError| !last && error.advice() == Advice::Retry;
        let mut answers = match looked {
            Ok(answers) => answers,
            Err(error) if retry(&error) => return Some(error),
            Err(error) => {
                self.land_failed(aloft, &error);
                return None;
            }
        };
        let mut missing = Vec::new();
        let mut again = Vec::new();
        let mut obstacle: Option<Arc<BackendError>> = None;
        // All stay aloft until the end: taking a landed flight off the list again does nothing.
        for flight in aloft.pending.iter().cloned() {
            match answers.remove(&flight.model) {
                Some(Answer::Found(sample)) => {
                    self.land(aloft, &flight, Looked::Found(sample));
                }
                Some(Answer::Missing { as_of, last_seen }) => {
                    missing.push((flight, as_of, last_seen));
                }
                Some(Answer::Failed(error)) => {
                    let error = Arc::new(error);
                    if retry(&error) {
                        again.push(flight);
                        let longer = obstacle
                            .as_ref()
                            .is_none_or(|known| known.retry_after() < error.retry_after());
                        if longer {
                            obstacle = Some(error);
                        }
                    } else {
                        self.land(aloft, &flight, aloft.failed(error));
                    }
                }
                _ => {
                    let error = aloft
                        .source
                        .error(ErrorKind::BadAnswer, flight.model.to_string())
                        .with_detail("the backend left the model out of its answer")
                        .with_remedy("this is a defect of the backend: report it");
                    self.land(aloft, &flight, aloft.failed(Arc::new(error)));
                }
            }
        }
        self.land_missing(aloft, missing, time_left).await;
        aloft.pending = again;
        obstacle
    }

    /// Lands what has no series. What exists instead is asked once, and only for those who wait.
    async fn land_missing(
        &self,
        aloft: &Aloft<'_>,
        missing: Vec<(Arc<Flight>, Tick, Option<Tick>)>,
        time_left: Duration,
    ) {
        let source = aloft.source;
        let lists = source.backend.supports().list_models;
        let known = if lists && missing.iter().any(|(flight, ..)| flight.is_awaited()) {
            let (max_age, limit) = (self.config.missing_ttl, time_left.min(source.call_limit / 3));
            let listing = source.known.models(source, &*self.clock, max_age, limit / 2).await;
            listing
                .inspect_err(|error| tracing::debug!(%error, "Cannot list models to suggest"))
                .ok()
        } else {
            None
        };
        for (flight, as_of, last_seen) in missing {
            let known = known.as_ref().filter(|_| flight.is_awaited());
            let last_seen = last_seen.map(|at| at.age(as_of));
            let nearest = nearest(&flight.model, known.map(AsRef::as_ref), last_seen);
            self.land(aloft, &flight, Looked::Missing { as_of, nearest });
        }
    }

    fn land_failed(&self, aloft: &mut Aloft<'_>, error: &Arc<BackendError>) {
        if aloft.pending.iter().any(|flight| !flight.is_awaited())
            && !aloft.source.refresh_failing.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(models = aloft.pending.len(), %error, "Background fetch failed");
        }
        for flight in std::mem::take(&mut aloft.pending) {
            self.land(aloft, &flight, aloft.failed(Arc::clone(error)));
        }
    }

    /// Publishes, stores, and hands over to the waiters.
    fn land(&self, aloft: &Aloft<'_>, flight: &Arc<Flight>, looked: Looked) {
        let source = aloft.source;
        match &looked {
            Looked::Found(sample) => source.note_fields(&flight.model, &sample.failed),
            Looked::Missing { .. } => source.note_fields(&flight.model, &FieldReasons::NONE),
            Looked::Failed { .. } => {}
        }
        // Outside code runs here, a cache and a directory: its panic over one model must not take
        // the others of the batch with it.
        let land = AssertUnwindSafe(|| {
            let outcome = looked.outcome();
            let landed = self.gate.store(&aloft.ticket, &flight.model, |may_store| {
                self.publish(source, &flight.model, looked, flight.is_awaited(), may_store)
            });
            if !flight.is_awaited() {
                self.note_refresh(source, &flight.model, &landed.replicas.value, outcome);
            }
            landed
        });
        if let Ok(entries) = std::panic::catch_unwind(land) {
            source.flights.land(flight, entries.into());
        } else {
            self.panicked();
            tracing::error!(model = %flight.model, "Publishing what was fetched panicked");
            source.flights.take_off_list(flight);
        }
    }

    /// Publishes what a source has said, and stores it unless it may not or nobody wants it any more.
    /// Called under the gate's lock.
    pub(crate) fn publish(
        &self,
        source: &Source,
        model: &ModelRef,
        looked: Looked,
        awaited: bool,
        may_store: bool,
    ) -> Published {
        let now = self.clock.now();
        let outcome = looked.outcome();
        let before = may_store.then(|| self.cache.peek(KeyRef::replicas(model))).flatten();
        // Collecting tracks, before the entries are made: they say whether they are tracked.
        if may_store && awaited && outcome == Outcome::Found && self.cache.retains() {
            self.tracker.track(model, now, self.max_tracked);
        }
        let tracked = self.tracker.get(model);
        let states = before.as_ref().map(|peeked| peeked.stored.cold.sources.as_slice());
        let entries = self.publisher(model, tracked.as_ref(), now).publish(
            &source.name,
            looked,
            states.unwrap_or_default(),
        );
        let wanted = may_store
            && match outcome {
                // What is neither read nor tracked was stopped meanwhile.
                Outcome::Found => tracked.is_some(),
                Outcome::Missing => tracked.is_some() || before.is_some() || awaited,
                // That a model nobody has ever seen could not be looked at is nothing to keep, unless
                // another source may still have it.
                Outcome::Failed => {
                    tracked.is_some() || before.is_some() || (awaited && self.sources.len() > 1)
                }
            };
        if wanted {
            self.put(model, &entries, now);
            self.learn(source, model, outcome, &entries.replicas, now);
        }
        if entries.unclaimed > 0 && outcome == Outcome::Found {
            let namespace = model.namespace.to_string();
            metrics::counter!(
                "wva_pod_mapping_miss_total", "namespace" => namespace, "reason" => "no_variant"
            )
            .increment(entries.unclaimed as u64);
        }
        entries
    }

    fn note_refresh(&self, source: &Source, model: &ModelRef, value: &Value, outcome: Outcome) {
        if outcome == Outcome::Failed {
            return;
        }
        self.counters.background_refreshes.fetch_add(1, Ordering::Relaxed);
        if source.refresh_failing.swap(false, Ordering::Relaxed) {
            tracing::info!(backend = %source.name, "Background fetch works again");
        }
        if let Value::Replicas(replicas) = value {
            tracing::debug!(
                modelID = ?model.model, namespace = ?model.namespace,
                age = ?replicas.oldest.age(self.clock.now()), "Background fetch succeeded"
            );
        }
    }
}

fn urgency(flights: &[Arc<Flight>]) -> Urgency {
    if flights.iter().any(|flight| flight.is_awaited()) {
        Urgency::Waiting
    } else {
        Urgency::Background
    }
}

/// Resolves when the collector is stopping and nobody waits for these flights.
async fn given_up(stopping: &tokio_util::sync::CancellationToken, flights: &[Arc<Flight>]) {
    stopping.cancelled().await;
    if flights.iter().any(|flight| flight.has_waiters()) {
        // Whoever waits is answered; the look has its own limit.
        std::future::pending::<()>().await;
    }
}

/// A look that was let wait for its permits until no time was left.
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
