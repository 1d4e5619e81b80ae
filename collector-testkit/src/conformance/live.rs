//! The promises of [`LiveSource`], as a part of the suite of its backend.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use collector_core::{Answer, LiveSource, ModelRef, UpdateSink};
use tokio::sync::Notify;

/// More than any source needs to look around once.
const PATIENCE: Duration = Duration::from_secs(60);

/// Remembers what was pushed last of each model.
#[derive(Default)]
struct Recorder {
    last: Mutex<HashMap<ModelRef, Answer>>,
    cycles: AtomicUsize,
    news: Notify,
}

impl UpdateSink for Recorder {
    fn push(&self, answers: Vec<(ModelRef, Answer)>) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).extend(answers);
        self.news.notify_one();
    }

    fn cycle_ended(&self) {
        self.cycles.fetch_add(1, Ordering::SeqCst);
        self.news.notify_one();
    }
}

/// Runs the source beside `cases`.
///
/// # Panics
/// When the source ends by itself.
pub(super) async fn beside(
    live: &dyn LiveSource,
    models: &[ModelRef],
    cases: impl Future<Output = ()>,
) {
    live.tracked(Arc::new(models.iter().cloned().collect::<HashSet<_>>()));
    tokio::select! {
        () = live.run(Arc::new(Recorder::default())) => ended_by_itself(),
        () = cases => {}
    }
}

fn ended_by_itself() {
    panic!("the live half ended by itself; it works until it is dropped");
}

/// Runs the source until a cycle has ended and something final was pushed of each of `models`, and
/// returns what.
///
/// # Panics
/// When that does not happen, or the source ends by itself.
pub(super) async fn pushed(
    live: &dyn LiveSource,
    models: &[ModelRef],
) -> HashMap<ModelRef, Answer> {
    let recorder = Arc::new(Recorder::default());
    live.tracked(Arc::new(models.iter().cloned().collect::<HashSet<_>>()));
    let run = async {
        live.run(Arc::clone(&recorder) as Arc<dyn UpdateSink>).await;
        ended_by_itself();
    };
    let complete = async {
        loop {
            recorder.news.notified().await;
            let last = recorder.last.lock().unwrap_or_else(PoisonError::into_inner);
            let is_final = |model: &ModelRef| match last.get(model) {
                Some(Answer::Found(sample)) => sample.complete,
                Some(Answer::Missing { .. }) => true,
                Some(Answer::Failed(_)) | None => false,
            };
            if recorder.cycles.load(Ordering::SeqCst) > 0 && models.iter().all(is_final) {
                return;
            }
        }
    };
    tokio::select! {
        () = run => {}
        () = complete => {}
        () = tokio::time::sleep(PATIENCE) => {
            let last = recorder.last.lock().unwrap_or_else(PoisonError::into_inner);
            let cycles = recorder.cycles.load(Ordering::SeqCst);
            panic!("after {PATIENCE:?}, {cycles} cycles have ended, and these were pushed: {last:?}")
        }
    }
    let mut last = recorder.last.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *last)
}
