// SPDX-License-Identifier: Apache-2.0
//! The other half of [`FakeBackend`]: it pushes what a test scripts.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use collector_core::{LiveContext, LiveSource, ModelRef, UpdateSink};
use tokio::sync::Notify;

use crate::fake_backend::{FakeBackend, lock};

/// What runs, and whom it pushes to.
#[derive(Default)]
pub(crate) struct Live {
    sink: Mutex<Option<Arc<dyn UpdateSink>>>,
    tracked: Mutex<Arc<HashSet<ModelRef>>>,
    runs: AtomicUsize,
    panic: Notify,
}

impl FakeBackend {
    /// Pushes what the script says now of every tracked model, as its live half would. Does nothing
    /// while that does not run.
    pub fn push_tracked(&self) {
        let as_of = self.now();
        let models = self.tracked_models();
        let answer = |model: &ModelRef| Some((model.clone(), self.answer(model, true, as_of)?));
        let answers = models.iter().filter_map(answer).collect();
        if let Some(sink) = self.sink() {
            sink.push(answers);
        }
    }

    /// Reports to the collector that a cycle has ended.
    pub fn end_cycle(&self) {
        if let Some(sink) = self.sink() {
            sink.cycle_ended();
        }
    }

    /// The tracked models that the collector last passed to it.
    pub fn tracked_models(&self) -> Arc<HashSet<ModelRef>> {
        Arc::clone(&lock(&self.live_half().tracked))
    }

    /// How often the live half was started.
    pub fn live_runs(&self) -> usize {
        self.live_half().runs.load(Ordering::SeqCst)
    }

    /// Whether the live half runs.
    pub fn is_live(&self) -> bool {
        self.sink().is_some()
    }

    /// Lets the live half that runs panic.
    pub fn panic_live(&self) {
        self.live_half().panic.notify_one();
    }

    fn sink(&self) -> Option<Arc<dyn UpdateSink>> {
        lock(&self.live_half().sink).clone()
    }
}

/// Nobody is pushed to when the live half no longer runs.
struct Running<'a>(&'a Live);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *lock(&self.0.sink) = None;
    }
}

#[async_trait]
impl LiveSource for FakeBackend {
    fn tracked(&self, models: Arc<HashSet<ModelRef>>) {
        *lock(&self.live_half().tracked) = models;
    }

    async fn run(&self, context: LiveContext) {
        let live = self.live_half();
        live.runs.fetch_add(1, Ordering::SeqCst);
        *lock(&live.sink) = Some(context.sink);
        let _running = Running(live);
        live.panic.notified().await;
        panic!("the live half was scripted to panic");
    }
}
