// SPDX-License-Identifier: Apache-2.0
//! The state that all handlers share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::StatusCode;
use collector_config::{LeftOut, Loaded};
use collector_core::{Clock, CollectorState, ModelRef};
use collector_engine::CachingCollector;
use tokio::sync::{Semaphore, watch};

use super::access::Access;
use super::events::Events;
use super::page::Changes;
use super::read::ReadPlaces;
use super::recorder::Recorder;
use super::reloads::Reloads;
use super::respond::Refusal;
use crate::output::ErrorDocument;

/// The state that all handlers share.
pub(crate) struct App {
    pub(crate) collector: Arc<CachingCollector>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) recorder: Recorder,
    pub(crate) events: Arc<Events>,
    pub(crate) access: Arc<Access>,
    pub(crate) lifecycle: watch::Receiver<Lifecycle>,
    /// The server is ready: at first if there are no background cycles to wait for.
    pub(crate) ready: AtomicBool,
    /// The configuration of the collector.
    pub(crate) loaded: Loaded,
    pub(crate) reloads: Arc<Reloads>,
    /// For who reads the files of credentials for `/metrics`.
    pub(crate) files: Arc<Semaphore>,
    /// What bounds the requests for many readings.
    pub(crate) reads: Arc<ReadPlaces>,
    /// What open pages show.
    pub(crate) page: Changes,
    /// The PromQL API, where it is switched on.
    #[cfg(feature = "promql")]
    pub(crate) promql: Option<Arc<super::Promql>>,
}

/// The stages of a server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Lifecycle {
    /// Requests are taken.
    Serving,
    /// Requests are taken, and clients are asked to go elsewhere: not ready, and no connection is kept.
    Draining,
    /// No connection is taken any more; requests under way go on.
    Stopping,
    /// Requests under way end with an error now, because the process is about to exit.
    Leaving,
}

/// Who sent a request.
#[derive(Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

impl App {
    /// Whether the backends were asked for their models, and the first cycle has ended. Once ready it stays so: while a backend is
    /// down, last known good values are served, and an unready pod could not report the reason.
    pub(super) fn is_ready(&self, state: &CollectorState) -> bool {
        let is_listing = state.discovery.is_some_and(|discovery| discovery.pending);
        let has_tried = !is_listing && (state.cycles > 0 || state.tracked == 0);
        let ready = self.ready.load(Ordering::Relaxed) || has_tried;
        if ready {
            self.ready.store(true, Ordering::Relaxed);
        }
        ready
    }

    /// Refuses a model whose namespace the configuration lets no backend read.
    pub(super) fn reads_namespace_of(&self, model: &ModelRef) -> Result<(), Refusal> {
        match self.loaded.left_out(model.namespace.as_str()) {
            None => Ok(()),
            Some(LeftOut { message, remedy }) => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                ErrorDocument::new("MetricsMissing", message).with_hint(remedy),
            )),
        }
    }

    /// Whether the server was told to stop, though it may still answer.
    pub(super) fn is_stopping(&self) -> bool {
        *self.lifecycle.borrow() > Lifecycle::Serving
    }

    /// Resolves when requests under way have to end.
    pub(super) async fn leaving(&self) {
        Lifecycle::Leaving.reached(self.lifecycle.clone()).await;
    }
}

impl Lifecycle {
    /// Resolves when this stage is reached.
    pub(crate) async fn reached(self, mut lifecycle: watch::Receiver<Self>) {
        // A sender that is gone belongs to a server that is gone, so that is the end too.
        let _ = lifecycle.wait_for(|current| *current >= self).await;
    }
}
