// SPDX-License-Identifier: Apache-2.0
//! The promises of [`LiveSource`], as a part of the suite of its backend.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use collector_core::{
    Answer, Answers, LiveContext, LiveSource, ModelRef, Operation, Tick, UpdateSink,
};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::judge::Asked;
use super::watch::Watched;
use super::{Suite, Verdict, demand};
use crate::conformance::fleet::Breakage;

/// More than any source needs to ask everything once.
const PATIENCE: Duration = Duration::from_secs(60);

/// After which a source that was dropped is seen to go on.
const AFTERMATH: Duration = Duration::from_secs(3);

/// Remembers what was pushed last of each model, and what was wrong with the order.
#[derive(Default)]
struct Recorder {
    state: Mutex<Recorded>,
    news: Notify,
}

#[derive(Default)]
struct Recorded {
    tracked: HashSet<ModelRef>,
    last: HashMap<ModelRef, Answer>,
    pushes: usize,
    cycles: usize,
    wrong: Option<String>,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UpdateSink for Recorder {
    fn push(&self, answers: Answers) {
        let mut state = self.lock();
        state.pushes += 1;
        for (model, answer) in answers {
            if !state.tracked.contains(&model) {
                state.wrong =
                    Some(format!("{model}: expected no push, because it was never tracked"));
            }
            state.last.insert(model, answer);
        }
        drop(state);
        self.news.notify_one();
    }

    fn cycle_ended(&self) {
        let mut state = self.lock();
        state.cycles += 1;
        let unpushed = state.tracked.iter().find(|model| !state.last.contains_key(*model)).cloned();
        if let Some(model) = unpushed
            && state.cycles == 1
        {
            state.wrong =
                Some(format!("{model}: expected a push before the first cycle ended, got none"));
        }
        drop(state);
        self.news.notify_one();
    }
}

/// A live half that runs during its cases.
struct Running<'a> {
    live: &'a dyn LiveSource,
    recorder: Arc<Recorder>,
}

impl Running<'_> {
    fn track(&self, models: &[ModelRef]) {
        let models: HashSet<ModelRef> = models.iter().cloned().collect();
        self.recorder.lock().tracked.extend(models.iter().cloned());
        self.live.tracked(Arc::new(models));
    }

    /// Waits until something holds of what was pushed.
    async fn wait(&self, what: &str, holds: impl Fn(&Recorded) -> bool) -> Verdict {
        let wait = async {
            loop {
                {
                    let state = self.recorder.lock();
                    if let Some(wrong) = &state.wrong {
                        return Err(wrong.clone());
                    }
                    if holds(&state) {
                        return Ok(());
                    }
                }
                self.recorder.news.notified().await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| {
            let state = self.recorder.lock();
            Err(format!(
                "expected {what} within {PATIENCE:?}; {} cycles have ended, and these were pushed: {:?}",
                state.cycles, state.last
            ))
        })
    }
}

fn is_final(answer: Option<&Answer>) -> bool {
    match answer {
        Some(Answer::Found(sample)) => sample.absent.is_none(),
        Some(Answer::Missing { .. }) => true,
        _ => false,
    }
}

fn as_of(answer: Option<&Answer>) -> Option<Tick> {
    match answer {
        Some(Answer::Found(sample)) => Some(sample.as_of),
        Some(Answer::Missing { as_of, .. }) => Some(*as_of),
        _ => None,
    }
}

impl Suite<'_> {
    pub(super) async fn live_cases(&self) {
        let cases = [
            "fetches_while_the_live_half_runs_say_the_same",
            "what_is_tracked_is_pushed_and_what_is_missing_too",
            "a_live_half_that_was_dropped_can_be_started_again",
            "what_is_tracked_later_is_pushed_too",
            "a_live_half_that_was_dropped_pushes_no_more",
            "what_a_live_half_cannot_fetch_is_pushed_as_failed",
            "a_pod_out_of_the_live_halfs_reach_is_not_gone",
        ];
        let Some(live) = self.backend.live() else {
            self.skips_all(&cases, "it only answers when it is asked");
            return;
        };
        let running = self.track(live);
        let same = self.fetches_say_the_same();
        self.runs(cases[0], self.during(&running, same)).await;
        for case in &cases[1..3] {
            let running = self.track(live);
            self.runs(case, self.during(&running, self.pushed(&running))).await;
        }
        let running = self.track(live);
        self.runs(cases[3], self.during(&running, self.tracked_later(&running))).await;
        self.runs(cases[4], self.dropped_live(live)).await;
        let Some(server) = self.fleet.breakable() else {
            self.skips_all(&cases[5..], "the fleet cannot be broken");
            return;
        };
        let running = self.track(live);
        let failing = async {
            self.pushed(&running).await?;
            demand!(
                server.break_down(&Breakage::Down).await,
                "expected a fleet that can be broken"
            );
            let failed = self.failed(&running).await;
            server.restore().await;
            failed?;
            self.pushed_since(&running, self.clock.now()).await
        };
        self.runs(cases[5], self.during(&running, failing)).await;
        let known = self.populated();
        for pod in &known.pods {
            let how = Breakage::Pod(known.model.clone(), pod.row.pod_name.clone());
            if !server.break_down(&how).await {
                self.skips(cases[6], "the fleet cannot be broken in this way");
                return;
            }
            let running = self.track(live);
            self.runs(cases[6], self.during(&running, self.hidden(&running))).await;
            server.restore().await;
        }
    }

    /// What exists is tracked, and something that does not.
    fn track<'a>(&self, live: &'a dyn LiveSource) -> Running<'a> {
        let running = Running { live, recorder: Arc::default() };
        running.track(&self.known_and_absent());
        running
    }

    /// Runs a case while the live half runs.
    async fn during(&self, running: &Running<'_>, case: impl Future<Output = Verdict>) -> Verdict {
        let sink = Arc::<Recorder>::clone(&running.recorder);
        let context = LiveContext::new(sink, Arc::clone(&self.clock));
        tokio::select! {
            ended = Watched::new(running.live.run(context)) => match ended {
                Ok(()) => Err("expected the live half to work until it is dropped, it ended".to_owned()),
                Err(wrong) => Err(format!("expected the live half to work until it is dropped, it {wrong}")),
            },
            verdict = case => verdict,
        }
    }

    async fn fetches_say_the_same(&self) -> Verdict {
        self.all_is_well().await?;
        for model in self.known_and_absent() {
            self.fetch_truth(self.ask(&[model])).await?;
        }
        self.healthy_probe().await
    }

    async fn pushed(&self, running: &Running<'_>) -> Verdict {
        let models = self.known_and_absent();
        let what = "each tracked model to be pushed, Found or Missing, and a cycle to end";
        let all = |state: &Recorded| {
            state.cycles > 0 && models.iter().all(|model| is_final(state.last.get(model)))
        };
        running.wait(what, all).await?;
        self.judge_pushed(running)?;
        // A source that says something once and then no more would pass for one that works.
        self.pushed_since(running, self.clock.now()).await
    }

    /// Each model with pods is pushed as it was seen later than `since`.
    async fn pushed_since(&self, running: &Running<'_>, since: Tick) -> Verdict {
        let known: Vec<_> = self.models.iter().filter(|known| !known.pods.is_empty()).collect();
        let newer = |state: &Recorded| {
            known.iter().all(|known| {
                let last = state.last.get(&known.model);
                is_final(last) && as_of(last).is_some_and(|as_of| as_of > since)
            })
        };
        running.wait("each model with pods to be pushed again, as it is by now", newer).await?;
        self.judge_pushed(running)
    }

    fn judge_pushed(&self, running: &Running<'_>) -> Verdict {
        let state = running.recorder.lock();
        for (model, answer) in &state.last {
            self.judge(model, answer, Asked { at: None, per_pod: false, broken: None })?;
        }
        Ok(())
    }

    async fn tracked_later(&self, running: &Running<'_>) -> Verdict {
        let known = self.populated().model.clone();
        let later = ModelRef::new("conformance/tracked-later", known.namespace.clone());
        running.wait("a cycle to end", |state| state.cycles > 0).await?;
        running.track(&[known, later.clone()]);
        let what = format!("{later} to be pushed once it is tracked");
        running.wait(&what, |state| is_final(state.last.get(&later))).await?;
        self.judge_pushed(running)
    }

    async fn dropped_live(&self, live: &dyn LiveSource) -> Verdict {
        let running = self.track(live);
        let cycle = running.wait("a cycle to end", |state| state.cycles > 0);
        self.during(&running, cycle).await?;
        sleep(Duration::from_millis(100)).await;
        let before = running.recorder.lock().pushes;
        sleep(AFTERMATH).await;
        let more = running.recorder.lock().pushes - before;
        demand!(more == 0, "expected no push after the live half was dropped, got {more}");
        Ok(())
    }

    async fn failed(&self, running: &Running<'_>) -> Verdict {
        let models: Vec<_> = self.models.iter().filter(|known| !known.pods.is_empty()).collect();
        let failed = |state: &Recorded| {
            let failed = |model| matches!(state.last.get(model), Some(Answer::Failed(_)));
            models.iter().all(|known| failed(&known.model))
        };
        running.wait("each model of a broken server to be pushed as Failed", failed).await?;
        let state = running.recorder.lock();
        for known in models {
            if let Some(Answer::Failed(error)) = state.last.get(&known.model) {
                self.judge_error(error, Operation::Fetch, Some(&Breakage::Down))?;
            }
        }
        Ok(())
    }

    /// Never is a fleet pushed that is smaller and calls itself complete.
    async fn hidden(&self, running: &Running<'_>) -> Verdict {
        let model = &self.populated().model;
        let two = |state: &Recorded| state.cycles > 1 && state.last.contains_key(model);
        running.wait("the model to be pushed, and two cycles to end", two).await?;
        let state = running.recorder.lock();
        match state.last.get(model) {
            Some(Answer::Failed(_)) => Ok(()),
            Some(Answer::Found(sample)) if !sample.absent.is_none() => Ok(()),
            other => Err(format!(
                "{model}: expected Failed, or Found with absent pods, while a pod is out of reach; got {other:?}"
            )),
        }
    }
}
