// SPDX-License-Identifier: Apache-2.0
//! Fetches: at most one for each model and source at a time, and models that are wanted within a few milliseconds in
//! one batch.
//!
//! A fetch runs in a detached task, so that cancelling a caller is safe. It stores its result before it is
//! deregistered, and callers read the cache again under the lock of the model's cell, so that no model is fetched
//! twice.

mod batch;
pub(crate) mod breaker;
mod budget;
mod listing;
pub(crate) mod next_batch;
mod retry;
mod source;

use std::sync::{Arc, OnceLock};

use collector_core::{ModelRecord, ModelRef};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::engine::Engine;

pub(crate) use listing::{LastListing, Listing};
pub(crate) use source::Source;

/// A fetch of one model from one source. Its result is the record of the model, stored or not.
pub(crate) struct Fetch {
    pub(crate) model: ModelRef,
    /// When it was first waited for.
    awaited_since: OnceLock<Instant>,
    result: watch::Sender<Option<Arc<ModelRecord>>>,
}

impl Fetch {
    pub(crate) fn new(model: &ModelRef) -> Self {
        let result = watch::Sender::new(None);
        Self { model: model.clone(), awaited_since: OnceLock::new(), result }
    }

    /// Begins to wait. The receiver is closed without a result when the fetch was given up.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Arc<ModelRecord>>> {
        self.awaited_since.get_or_init(Instant::now);
        self.result.subscribe()
    }

    /// Whether a caller waits, or has waited, for it.
    fn is_awaited(&self) -> bool {
        self.awaited_since.get().is_some()
    }

    /// Whether a caller waits for it now.
    fn has_waiters(&self) -> bool {
        self.result.receiver_count() > 0
    }
}

/// New fetches from one source. When it is dropped they are added to the next batch, whatever happens: no caller waits
/// in vain.
pub(crate) struct NewFetches<'a> {
    engine: &'a Arc<Engine>,
    source: usize,
    fetches: Vec<Arc<Fetch>>,
}

impl<'a> NewFetches<'a> {
    /// Of the source at an index.
    pub(crate) fn new(engine: &'a Arc<Engine>, source: usize) -> Self {
        Self { engine, source, fetches: Vec::new() }
    }

    pub(crate) fn push(&mut self, fetch: Arc<Fetch>) {
        self.fetches.push(fetch);
    }
}

impl Drop for NewFetches<'_> {
    fn drop(&mut self) {
        let opens_window = self.engine.sources[self.source].next_batch.add(&mut self.fetches);
        if opens_window {
            batch::dispatch_after_window(self.engine, self.source);
        }
    }
}
