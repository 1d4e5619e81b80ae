//! Permits that see what a backend does with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use collector_core::{BackendError, BackendName, ErrorKind, Operation, Permit, Permits};
use tokio::sync::Semaphore;

/// Grants so many permits, and then lets everybody wait.
pub(super) struct CountingPermits {
    granting: usize,
    taken: AtomicUsize,
    held: Arc<AtomicUsize>,
    exhausted: tokio::sync::Notify,
}

impl CountingPermits {
    pub(super) fn granting(granting: usize) -> Self {
        Self {
            granting,
            taken: AtomicUsize::new(0),
            held: Arc::default(),
            exhausted: tokio::sync::Notify::new(),
        }
    }

    /// How many were asked for.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// How many were given and not given back.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// Waits until somebody waits for a permit in vain.
    pub(super) async fn exhausted(&self) {
        self.exhausted.notified().await;
    }
}

struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Permits for CountingPermits {
    async fn acquire(&self) -> Result<Permit, BackendError> {
        if self.taken.fetch_add(1, Ordering::SeqCst) >= self.granting {
            self.exhausted.notify_one();
            std::future::pending::<()>().await;
        }
        self.held.fetch_add(1, Ordering::SeqCst);
        Ok(Permit::new(Held(Arc::clone(&self.held))))
    }
}

/// Grants one permit at a time.
pub(super) struct OneAtATime(Arc<Semaphore>);

impl OneAtATime {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

#[async_trait]
impl Permits for OneAtATime {
    async fn acquire(&self) -> Result<Permit, BackendError> {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        Ok(Permit::new(permit.expect("nobody closes it")))
    }
}

/// What the engine's permits say while the circuit is open.
pub(super) struct Refusing;

#[async_trait]
impl Permits for Refusing {
    async fn acquire(&self) -> Result<Permit, BackendError> {
        Err(BackendError::new(
            ErrorKind::CircuitOpen,
            BackendName::from("conformance"),
            Operation::Fetch,
            "the server under test",
        ))
    }
}
