// SPDX-License-Identifier: Apache-2.0
//! What the tests of the backend share.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use collector_core::{
    Answer, Answers, Ask, Backend, BackendError, Clock, LiveContext, ModelRef, ModelSample,
    SystemClock, UpdateSink,
};
use collector_epp::discover::TargetSpec;
use collector_epp::{EppBackend, EppConfig};
use collector_testkit::TokioClock;

pub(crate) fn in_prod(model: &str) -> ModelRef {
    ModelRef::new(model, "prod")
}

pub(crate) fn config(targets: Vec<TargetSpec>) -> EppConfig {
    EppConfig { targets, ..EppConfig::default() }
}

pub(crate) fn backend(config: EppConfig) -> EppBackend {
    EppBackend::new(config, Arc::new(TokioClock::new())).unwrap()
}

pub(crate) async fn look(
    backend: &EppBackend,
    models: &[ModelRef],
) -> Result<Answers, BackendError> {
    backend.fetch(Ask::new(models, &SystemClock::new())).await
}

/// Looks at one model.
pub(crate) async fn answer(backend: &EppBackend, model: &str) -> Answer {
    let mut answers = look(backend, &[in_prod(model)]).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers.remove(&in_prod(model)).unwrap()
}

#[track_caller]
pub(crate) fn found(answer: Answer) -> ModelSample {
    match answer {
        Answer::Found(sample) => sample,
        other => panic!("{other:?}"),
    }
}

/// The error of a look at one model, whether the look failed or the answer did.
pub(crate) async fn failure(backend: &EppBackend, model: &str) -> BackendError {
    match look(backend, &[in_prod(model)]).await {
        Err(error) => error,
        Ok(mut answers) => match answers.remove(&in_prod(model)).unwrap() {
            Answer::Failed(error) => error,
            other => panic!("{other:?}"),
        },
    }
}

type Push = Answers;

/// Keeps what is pushed.
#[derive(Clone)]
pub(crate) struct Pushed {
    clock: Arc<dyn Clock>,
    pushes: Arc<Mutex<Vec<Push>>>,
    cycles: tokio::sync::watch::Sender<u32>,
    news: Arc<tokio::sync::Notify>,
}

impl Pushed {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            pushes: Arc::default(),
            cycles: tokio::sync::watch::Sender::new(0),
            news: Arc::default(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.pushes.lock().unwrap().len()
    }

    /// Cycles that have ended.
    pub(crate) fn cycles(&self) -> u32 {
        *self.cycles.borrow()
    }

    /// Waits until the first cycle has ended.
    pub(crate) async fn first_cycle(&self) {
        self.cycles.subscribe().wait_for(|cycles| *cycles > 0).await.unwrap();
    }

    /// Waits for a push in which `wanted` says so of an answer about the model, and gives that.
    pub(crate) async fn wait_for<T>(
        &self,
        model: &str,
        mut wanted: impl FnMut(&Answer) -> Option<T>,
    ) -> T {
        let model = in_prod(model);
        loop {
            for push in self.pushes.lock().unwrap().drain(..) {
                if let Some(got) = push.get(&model).and_then(&mut wanted) {
                    return got;
                }
            }
            self.news.notified().await;
        }
    }
}

impl UpdateSink for Pushed {
    fn push(&self, answers: Answers) {
        for (model, answer) in answers.iter() {
            if let Answer::Found(sample) = answer {
                assert!(sample.as_of <= self.clock.now(), "{model} is of the future");
            }
        }
        self.pushes.lock().unwrap().push(answers);
        self.news.notify_one();
    }

    fn cycle_ended(&self) {
        self.cycles.send_modify(|cycles| *cycles += 1);
    }
}

/// A backend whose live half runs until this is dropped.
pub(crate) struct Live {
    pub(crate) backend: Arc<EppBackend>,
    pub(crate) pushed: Pushed,
    task: tokio::task::JoinHandle<()>,
}

impl Live {
    pub(crate) fn start(config: EppConfig) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        let backend = Arc::new(EppBackend::new(config, Arc::clone(&clock)).unwrap());
        let pushed = Pushed::new(Arc::clone(&clock));
        let (runs, sink) = (Arc::clone(&backend), Arc::new(pushed.clone()));
        let task = tokio::spawn(async move {
            use collector_core::LiveSource as _;
            runs.run(LiveContext::new(sink, clock)).await;
        });
        Self { backend, pushed, task }
    }

    pub(crate) fn track(&self, models: &[&str]) {
        use collector_core::LiveSource as _;
        let models: HashSet<ModelRef> = models.iter().map(|model| in_prod(model)).collect();
        self.backend.tracked(Arc::new(models));
    }

    /// Stops the live half.
    pub(crate) async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
