//! One backend with what the engine keeps beside it: its flights, its breaker, its budget of requests,
//! its state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{
    Backend, BackendError, BackendName, BackendState, Clock, ErrorKind, Operation, Permit, Permits,
    Tick,
};
use tokio::sync::Semaphore;

use crate::breaker::Breaker;
use crate::flight::Flights;
use crate::known::Known;

/// Requests in flight to one backend, over all looks. A look of the Prometheus backend keeps 2 to 4
/// in flight; this bounds how many looks can do so at once.
const REQUESTS_IN_FLIGHT: usize = 8;

pub(crate) struct Source {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) name: BackendName,
    /// What it gives one request.
    pub(crate) timeout: Duration,
    /// How long one call waits for this backend in all: 3 x its time-out + 1 s.
    pub(crate) call_limit: Duration,
    /// How long it is waited for when a less preferred source has the model already: its time-out for
    /// one request and 1 s. A look of a backend that scrapes takes two pages, an interval apart.
    pub(crate) patience: Duration,
    pub(crate) flights: Flights,
    pub(crate) known: Known,
    pub(crate) breaker: Breaker,
    /// The last background refresh failed, and the log says so already.
    pub(crate) refresh_failing: AtomicBool,
    pub(crate) cycles: AtomicU64,
    /// Cycles that were left out because the one before them overran.
    pub(crate) skipped_cycles: AtomicU64,
    pub(crate) pushes: AtomicU64,
    /// Panics of the backend that were caught.
    pub(crate) panics: AtomicU64,
    clock: Arc<dyn Clock>,
    in_flight: Arc<Semaphore>,
    requests: AtomicU64,
}

impl Source {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        timeout: Duration,
        longest_pause: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let name = BackendName::from(backend.name());
        Self {
            backend,
            name,
            timeout,
            call_limit: timeout * 3 + Duration::from_secs(1),
            patience: timeout + Duration::from_secs(1),
            flights: Flights::default(),
            known: Known::default(),
            breaker: Breaker::new(longest_pause),
            refresh_failing: AtomicBool::new(false),
            cycles: AtomicU64::new(0),
            skipped_cycles: AtomicU64::new(0),
            pushes: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            clock,
            in_flight: Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT)),
            requests: AtomicU64::new(0),
        }
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
            requests: self.requests.load(Ordering::Relaxed),
            cycles: self.cycles.load(Ordering::Relaxed),
            skipped_cycles: self.skipped_cycles.load(Ordering::Relaxed),
            pushes: self.pushes.load(Ordering::Relaxed),
            panics: self.panics.load(Ordering::Relaxed),
        }
    }

    /// The backend has panicked, and was caught.
    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the backend learns by itself, so that nobody has to ask it in the background.
    pub(crate) fn pushes(&self) -> bool {
        self.backend.live().is_some()
    }
}

#[async_trait]
impl Permits for Source {
    async fn acquire(&self) -> Result<Permit, BackendError> {
        let permit = Arc::clone(&self.in_flight).acquire_owned().await;
        // The semaphore is never closed; were it, refusing is the safe answer.
        let permit = permit.map_err(|_| self.error(ErrorKind::Stopped, "the request budget"))?;
        if let Some(last) = self.breaker.refusal(self.clock.now()) {
            return Err(self
                .error(ErrorKind::CircuitOpen, "the server")
                .with_detail(last.to_string()));
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        Ok(Permit::new(permit))
    }
}
