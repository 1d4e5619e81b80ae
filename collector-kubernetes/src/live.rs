// SPDX-License-Identifier: Apache-2.0
//! The live source: runs the watches, and pushes models whose supply changed. As long as all watches are heard, it
//! pushes all tracked models again and again, which confirms them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use collector_core::{Answers, ModelRef, Operation, UpdateSink};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::backend::answer;
use crate::cluster::Shared;
use crate::watches::Unheard;

/// Changes within this time are pushed together.
const TOGETHER: Duration = Duration::from_millis(50);
/// How often all tracked models are pushed.
const CONFIRM: Duration = Duration::from_secs(5);
/// How often old things are forgotten and objects are counted.
const TIDY: Duration = Duration::from_secs(5);
/// How long the first lists may take before the tracked models are reported as failed.
const FIRST_LISTS: Duration = Duration::from_secs(10);
/// The pause before the credentials are read again where no client could be made.
const NO_CLIENT: Duration = Duration::from_secs(5);

/// Runs until it is dropped, which ends every task.
pub(crate) async fn run(shared: &Arc<Shared>, sink: Arc<dyn UpdateSink>) {
    let _live = Live::begin(shared);
    tokio::join!(keep_watching(shared), keep_pushing(shared, &*sink), keep_tidy(shared));
}

/// Marks the live source as running, until it is dropped.
struct Live<'a>(&'a Shared);

impl<'a> Live<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.is_live.store(true, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.is_live.store(false, Ordering::Relaxed);
    }
}

/// Runs the watches with one client after the other.
async fn keep_watching(shared: &Arc<Shared>) {
    let mut given = shared.connection.given();
    let mut tasks = JoinSet::new();
    loop {
        given.mark_unchanged();
        let failed = match shared.connection.client().await {
            Ok(_) => {
                shared.begin();
                false
            }
            Err(failure) => {
                let why = Unheard { kind: failure.kind, why: failure.why };
                shared.store.no_client(why);
                true
            }
        };
        tokio::select! {
            () = watch_all(shared, &mut tasks), if !failed => {}
            () = sleep(NO_CLIENT), if failed => {}
            _ = given.changed() => tracing::info!("A client was given: all objects are listed"),
        }
        // One that is just storing what the former client has told does so before the next watches begin.
        tasks.shutdown().await;
    }
}

/// Runs all watches, each in a task. A panic in one ends all.
async fn watch_all(shared: &Shared, tasks: &mut JoinSet<()>) {
    for id in shared.watches() {
        tasks.spawn(shared.watch(id).run());
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

async fn keep_pushing(shared: &Shared, sink: &dyn UpdateSink) {
    let store = &shared.store;
    let mut news = store.news();
    let mut tracked = shared.tracked();
    let first = Instant::now() + FIRST_LISTS;
    while !store.is_tried() && Instant::now() < first {
        tokio::select! {
            _ = news.changed() => {}
            () = sleep_until(first) => {}
        }
    }
    let mut confirm_at = Instant::now();
    let mut was_heard = false;
    loop {
        let changed = store.take_changed();
        let is_heard = store.as_of().is_ok();
        let is_due = Instant::now() >= confirm_at;
        let is_tracked_anew = tracked.has_changed().unwrap_or(false);
        let models = Arc::clone(&tracked.borrow_and_update());
        if is_due || is_tracked_anew || is_heard != was_heard {
            push(shared, sink, models.iter());
        } else {
            push(shared, sink, changed.intersection(&models));
        }
        was_heard = is_heard;
        if is_due {
            confirm_at = Instant::now() + CONFIRM;
            sink.cycle_ended();
        }
        tokio::select! {
            _ = news.changed() => sleep(TOGETHER).await,
            _ = tracked.changed() => tracked.mark_changed(),
            () = sleep_until(confirm_at) => {}
        }
        news.mark_unchanged();
    }
}

fn push<'a>(shared: &Shared, sink: &dyn UpdateSink, models: impl Iterator<Item = &'a ModelRef>) {
    let answers: Answers = models
        .map(|model| (model.clone(), answer(&shared.store, model, Operation::Fetch)))
        .collect();
    if !answers.is_empty() {
        sink.push(answers);
    }
}

async fn keep_tidy(shared: &Shared) {
    loop {
        shared.store.tidy();
        sleep(TIDY).await;
    }
}
