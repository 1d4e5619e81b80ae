// SPDX-License-Identifier: Apache-2.0
//! One backend with what the engine keeps for it: the next batch, its breaker, its budget of requests, its state.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{
    Backend, BackendError, BackendName, BackendState, Clock, ErrorKind, FieldReasons, Limits,
    ModelRef, Operation, Permit, Permits, Tick, duration,
};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::Fetch;
use super::next_batch::NextBatch;
use crate::fetch::breaker::{Breaker, Change};
use crate::fetch::budget::{Budget, Priority};
use crate::fetch::listing::Known;

/// How long a model counts whose fields failed, and that is not fetched again.
const FAILED_FIELDS_KEPT: Duration = Duration::from_secs(600);

pub(crate) struct Source {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) name: BackendName,
    /// What it gives one request.
    pub(crate) timeout: Duration,
    /// How long one call waits for this backend in all: 3 x its time-out + 1 s.
    pub(crate) call_limit: Duration,
    /// How long it is waited for when a less preferred source has the model already: its time-out for
    /// one request and 1 s. A fetch of a backend that scrapes takes two pages, an interval apart.
    pub(crate) patience: Duration,
    /// The fetches that are sent with the next batch.
    pub(crate) next_batch: NextBatch<Fetch>,
    /// Notified when a caller begins to wait for a fetch in flight.
    hurried: Notify,
    pub(crate) known: Known,
    pub(crate) breaker: Breaker,
    /// How many background fetches have failed since the last that did not: the log names the first of them.
    pub(crate) refresh_failures: AtomicU64,
    failed_fields: Mutex<Option<FailedFields>>,
    pub(crate) cycles: AtomicU64,
    /// Cycles that were left out because the one before them overran.
    pub(crate) skipped_cycles: AtomicU64,
    pub(crate) pushes: AtomicU64,
    /// Panics of the backend that were caught.
    pub(crate) panics: AtomicU64,
    clock: Arc<dyn Clock>,
    budget: Budget,
    requests: AtomicU64,
}

/// What could not be asked for of one model.
struct FailedFields {
    model: ModelRef,
    error: Arc<BackendError>,
    at: Tick,
}

impl FailedFields {
    /// A model that is no longer fetched is not reported for ever.
    fn is_news(&self, now: Tick) -> bool {
        self.at.age(now) < FAILED_FIELDS_KEPT
    }
}

impl Source {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        limits: Limits,
        longest_pause: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let name = BackendName::from(backend.name());
        let timeout = limits.timeout;
        Self {
            backend,
            name,
            timeout,
            call_limit: timeout * 3 + Duration::from_secs(1),
            patience: timeout + Duration::from_secs(1),
            next_batch: NextBatch::default(),
            hurried: Notify::new(),
            known: Known::default(),
            breaker: Breaker::new(longest_pause),
            refresh_failures: AtomicU64::new(0),
            failed_fields: Mutex::default(),
            cycles: AtomicU64::new(0),
            skipped_cycles: AtomicU64::new(0),
            pushes: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            clock,
            budget: Budget::new(limits),
            requests: AtomicU64::new(0),
        }
    }

    /// Logs what has changed about the circuit; `error` is what opened it.
    pub(crate) fn log_circuit(&self, change: Option<&Change>, error: Option<&BackendError>) {
        let backend = &self.name;
        match change {
            None => {}
            Some(Change::FirstAnswer) => tracing::info!(%backend, "The backend answers"),
            Some(Change::Opened { failures, pause }) => {
                let error = error.map(ToString::to_string);
                tracing::warn!(
                    %backend, failures, error, retryIn = %duration::format(*pause),
                    "The circuit is open: the backend is asked less often until it answers"
                );
            }
            Some(Change::Closed { after }) => {
                let open_for = duration::format_seconds(*after);
                tracing::info!(%backend, openFor = %open_for, "The circuit is closed: the backend answers again");
            }
        }
    }

    /// What it counts, except what belongs to the fetches in flight.
    pub(crate) fn counts(&self) -> [&AtomicU64; 5] {
        [&self.cycles, &self.skipped_cycles, &self.pushes, &self.panics, &self.requests]
    }

    /// A caller has begun to wait for a fetch in flight.
    pub(crate) fn hurry(&self) {
        self.hurried.notify_waiters();
    }

    /// Resolves when a caller begins to wait, from this call on.
    pub(crate) fn hurried(&self) -> Notified<'_> {
        self.hurried.notified()
    }

    /// An error in fetching that the engine found, not the backend itself.
    pub(crate) fn error(&self, kind: ErrorKind, subject: impl Into<String>) -> BackendError {
        BackendError::new(kind, self.name.clone(), Operation::Fetch, subject)
    }

    /// The same in listing models.
    pub(crate) fn listing_error(&self, kind: ErrorKind) -> BackendError {
        let operation = Operation::ListModels;
        BackendError::new(kind, self.name.clone(), operation, "the backend")
    }

    pub(crate) fn state(&self, now: Tick) -> BackendState {
        let breaker = self.breaker.report(now);
        BackendState {
            name: self.name.clone(),
            breaker: breaker.state,
            recent_looks: breaker.recent_looks,
            recent_failures: breaker.recent_failures,
            open_for: breaker.open_for,
            retry_in: breaker.retry_in,
            last_success: breaker.last_success.map(|tick| tick.age(now)),
            last_error: breaker.last_error,
            failed_fields: (self.lock_failed_fields().as_ref())
                .filter(|failed| failed.is_news(now))
                .map(|failed| Arc::clone(&failed.error)),
            requests: self.requests.load(Ordering::Relaxed),
            budget: self.budget.state(),
            cycles: self.cycles.load(Ordering::Relaxed),
            skipped_cycles: self.skipped_cycles.load(Ordering::Relaxed),
            pushes: self.pushes.load(Ordering::Relaxed),
            panics: self.panics.load(Ordering::Relaxed),
            listing: self.known.state(now),
        }
    }

    /// Remembers which fields of a model could not be asked for; the log says so once, and once more
    /// when all fields of that model are answered.
    pub(crate) fn note_fields(&self, model: &ModelRef, failed: &FieldReasons) {
        let now = self.clock.now();
        let mut known = self.lock_failed_fields();
        let before = known.as_ref().filter(|before| before.is_news(now));
        if failed.is_empty() {
            if before.is_some_and(|before| before.model == *model) {
                *known = None;
                tracing::info!(backend = %self.name, %model, "All fields are answered again");
            }
            return;
        }
        if before.is_some_and(|before| before.model != *model) {
            return;
        }
        let each = failed.iter().map(|(field, reason)| format!("{}: {reason}", field.as_str()));
        let error = self
            .error(ErrorKind::BadAnswer, model.to_string())
            .with_detail(each.collect::<Vec<_>>().join("; "));
        if before.is_none() {
            tracing::warn!(%error, "Some fields cannot be asked for");
        }
        *known = Some(FailedFields { model: model.clone(), error: Arc::new(error), at: now });
    }

    fn lock_failed_fields(&self) -> MutexGuard<'_, Option<FailedFields>> {
        // It is replaced as a whole.
        self.failed_fields.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backend has panicked, and was caught.
    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// The permits that a fetch or a listing takes before each of its requests; `priority` is called each time.
    pub(crate) fn permits<'a>(
        &'a self,
        priority: &'a (dyn Fn() -> Priority + Sync),
    ) -> SourcePermits<'a> {
        SourcePermits { source: self, priority, waited: AtomicU64::new(0) }
    }

    /// Whether the backend pushes, so that the background does not fetch from it.
    pub(crate) fn pushes(&self) -> bool {
        self.backend.live().is_some()
    }
}

/// The permits of a source for one fetch or one listing.
pub(crate) struct SourcePermits<'a> {
    source: &'a Source,
    priority: &'a (dyn Fn() -> Priority + Sync),
    /// Nanoseconds that were waited for permits, all requests together.
    waited: AtomicU64,
}

/// Counts the time that a permit is waited for, also in vain.
struct Waiting<'a> {
    since: Instant,
    total: &'a AtomicU64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waited = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.total.fetch_add(waited, Ordering::Relaxed);
    }
}

impl SourcePermits<'_> {
    /// How long permits were waited for, all requests together.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }
}

#[async_trait]
impl Permits for SourcePermits<'_> {
    async fn acquire(&self) -> Result<Permit, BackendError> {
        let source = self.source;
        let waiting = Waiting { since: Instant::now(), total: &self.waited };
        let permit = source.budget.acquire((self.priority)()).await;
        drop(waiting);
        if let Some(last) = source.breaker.refusal(source.clock.now()) {
            return Err(source
                .error(ErrorKind::CircuitOpen, "the server")
                .with_detail(last.to_string()));
        }
        source.requests.fetch_add(1, Ordering::Relaxed);
        Ok(permit)
    }
}
