// SPDX-License-Identifier: Apache-2.0
//! Sources that push: runs them, passes them the tracked models, and stores what they push exactly as the
//! answer to a fetch.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use collector_core::{Answer, Answers, LiveContext, LiveSource, ModelRef, Outcome, UpdateSink};
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::fetch::Source;
use crate::publish::Fetched;

/// How long a source that panicked, or ended by itself, stays down: doubled while it does so again at
/// once. Its values age meanwhile, and a read past their ttl asks the backend.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_RESTART_PAUSE: Duration = Duration::from_secs(60);

/// How long changes of the tracked set are collected before they are passed on: models are found in bursts.
const CHANGES_PAUSE: Duration = Duration::from_millis(50);

/// Runs the live half of a source until the worker is stopped.
pub(crate) async fn run(engine: Arc<Engine>, index: usize, stop: CancellationToken) {
    let source = &engine.sources[index];
    let Some(live) = source.backend.live() else { return };
    tracing::info!(backend = %source.name, "Started live collection");
    tokio::select! {
        () = stop.cancelled() => {}
        () = supervise(&engine, index, live) => {}
    }
}

async fn supervise(engine: &Arc<Engine>, index: usize, live: &dyn LiveSource) {
    let source = &engine.sources[index];
    let mut pause = RESTART_PAUSE;
    loop {
        let began = Instant::now();
        let how = match AssertUnwindSafe(live_once(engine, index, live)).catch_unwind().await {
            Ok(()) => "ended by itself",
            Err(_panic) => {
                source.panicked();
                "panicked"
            }
        };
        tracing::error!(backend = %source.name, "Live collection {how}; it is started again");
        if began.elapsed() > LONGEST_RESTART_PAUSE {
            pause = RESTART_PAUSE;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_RESTART_PAUSE);
    }
}

/// Runs the live half, and passes it the tracked models, until it ends. All of it is outside code.
async fn live_once(engine: &Arc<Engine>, index: usize, live: &dyn LiveSource) {
    // Before the set is passed on: a change in between is then passed on as well.
    let changes = engine.models.changes();
    live.tracked(tracked(engine));
    let sink = Arc::new(Sink { engine: Arc::clone(engine), index });
    tokio::select! {
        () = live.run(LiveContext::new(sink, Arc::clone(&engine.clock))) => {}
        () = announce_changes(engine, live, changes) => {}
    }
}

async fn announce_changes(
    engine: &Engine,
    live: &dyn LiveSource,
    mut changes: watch::Receiver<u64>,
) {
    while changes.changed().await.is_ok() {
        tokio::time::sleep(CHANGES_PAUSE).await;
        changes.mark_unchanged();
        live.tracked(tracked(engine));
    }
}

fn tracked(engine: &Engine) -> Arc<HashSet<ModelRef>> {
    Arc::new(engine.models.tracked().into_iter().collect())
}

/// Stores what one source pushes.
struct Sink {
    engine: Arc<Engine>,
    index: usize,
}

impl Sink {
    fn source(&self) -> &Source {
        &self.engine.sources[self.index]
    }

    fn store(&self, model: &ModelRef, fetched: Fetched) {
        let engine = &self.engine;
        engine.models.with(model, |cell| {
            if cell.tracked.is_some() && cell.may_store(fetched.as_of()) {
                self.source().pushes.fetch_add(1, Ordering::Relaxed);
                engine.publish(cell, self.source(), model, fetched, false, true);
            }
        });
    }
}

impl UpdateSink for Sink {
    fn push(&self, answers: Answers) {
        let now = self.engine.clock.now();
        for (model, answer) in answers {
            let fetched = match answer {
                Answer::Found(sample) => Fetched::Found(sample),
                Answer::Missing { as_of, .. } => Fetched::Missing { as_of, nearest: None },
                Answer::Failed(error) => Fetched::Failed { began: now, error: Arc::new(error) },
                _ => continue,
            };
            if fetched.outcome() != Outcome::Failed {
                let change = self.source().breaker.note_push(now);
                self.source().log_circuit(change.as_ref(), None);
            }
            // Outside code runs here, a cache and a directory: its panic over one model must not take
            // the others with it.
            let store = AssertUnwindSafe(|| self.store(&model, fetched));
            if std::panic::catch_unwind(store).is_err() {
                self.engine.panicked();
                tracing::error!(%model, "Publishing what was pushed panicked");
            }
        }
    }

    fn cycle_ended(&self) {
        self.source().cycles.fetch_add(1, Ordering::Relaxed);
    }
}
