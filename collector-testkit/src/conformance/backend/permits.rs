// SPDX-License-Identifier: Apache-2.0
//! Permits that see what a backend does with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use collector_core::{BackendError, BackendName, ErrorKind, Operation, Permit, Permits};
use tokio::sync::{Notify, Semaphore};

/// Grants so many permits at once, or so many in all, and counts them.
pub(super) struct Permitting {
    at_once: Arc<Semaphore>,
    in_all: usize,
    taken: AtomicUsize,
    held: Arc<AtomicUsize>,
    exhausted: Notify,
}

impl Permitting {
    pub(super) fn at_once(permits: usize) -> Self {
        Self {
            at_once: Arc::new(Semaphore::new(permits)),
            in_all: usize::MAX,
            taken: AtomicUsize::new(0),
            held: Arc::default(),
            exhausted: Notify::new(),
        }
    }

    pub(super) fn unlimited() -> Self {
        Self::at_once(Semaphore::MAX_PERMITS)
    }

    pub(super) fn in_all(permits: usize) -> Self {
        Self { in_all: permits, ..Self::unlimited() }
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
impl Permits for Permitting {
    async fn acquire(&self) -> Result<Permit, BackendError> {
        if self.taken.fetch_add(1, Ordering::SeqCst) >= self.in_all {
            self.exhausted.notify_one();
            std::future::pending::<()>().await;
        }
        let slot = Arc::clone(&self.at_once).acquire_owned().await;
        self.held.fetch_add(1, Ordering::SeqCst);
        Ok(Permit::new((Held(Arc::clone(&self.held)), slot)))
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
