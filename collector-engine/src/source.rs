//! One backend with what the engine keeps beside it: its breaker, its budget of requests, its state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{
    Backend, BackendError, BackendName, BackendState, Clock, ErrorKind, Operation, Permit, Permits,
    Tick,
};
use tokio::sync::Semaphore;

use crate::breaker::Breaker;

/// Requests in flight to one backend, over all looks. A look of the Prometheus backend keeps 2 to 4
/// in flight; this bounds how many looks can do so at once.
const REQUESTS_IN_FLIGHT: usize = 8;

pub(crate) struct Source {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) name: BackendName,
    pub(crate) breaker: Breaker,
    clock: Arc<dyn Clock>,
    in_flight: Arc<Semaphore>,
    requests: AtomicU64,
}

impl Source {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        longest_pause: Duration,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let name = BackendName::from(backend.name());
        Self {
            backend,
            name,
            breaker: Breaker::new(longest_pause),
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
        BackendState {
            name: self.name.clone(),
            breaker: self.breaker.state(),
            last_success: self.breaker.last_success().map(|tick| tick.age(now)),
            last_error: self.breaker.last_error(),
            requests: self.requests.load(Ordering::Relaxed),
        }
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
