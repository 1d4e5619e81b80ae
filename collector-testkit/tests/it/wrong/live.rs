// SPDX-License-Identifier: Apache-2.0
//! The live half of the backend, right or with one fault.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{
    Answer, Answers, LiveContext, LiveSource, ModelRef, ModelSample, Operation, Unlimited,
};
use tokio::time::sleep;

use super::backend::MemoryBackend;
use super::faults::LiveFault;

const EACH: Duration = Duration::from_secs(1);

#[async_trait]
impl LiveSource for MemoryBackend {
    fn tracked(&self, models: Arc<HashSet<ModelRef>>) {
        let mut tracked = self.tracked.lock().unwrap();
        if self.live_fault() != Some(LiveFault::HearsTrackedOnce) || tracked.is_empty() {
            *tracked = models.iter().cloned().collect();
        }
    }

    async fn run(&self, context: LiveContext) {
        let fault = self.live_fault();
        let runs = self.runs.fetch_add(1, Ordering::SeqCst);
        match fault {
            Some(LiveFault::StartsOnce) if runs > 0 => std::future::pending().await,
            Some(LiveFault::GoesOnWhenDropped) => {
                let this = self.clone();
                tokio::spawn(async move { this.cycles(&context, None).await });
                std::future::pending::<()>().await;
            }
            Some(LiveFault::Panics) => {
                sleep(EACH * 2).await;
                panic!("a defect");
            }
            Some(LiveFault::EndsByItself) => {
                let _ = tokio::time::timeout(EACH / 2, self.cycles(&context, fault)).await;
            }
            _ => self.cycles(&context, fault).await,
        }
    }
}

impl MemoryBackend {
    async fn cycles(&self, context: &LiveContext, fault: Option<LiveFault>) {
        let mut former: Vec<(ModelRef, ModelSample)> = Vec::new();
        for cycle in 0.. {
            if fault == Some(LiveFault::EndsItsCycleEarly) {
                context.sink.cycle_ended();
                sleep(EACH / 10).await;
            }
            let mut tracked = self.tracked.lock().unwrap().clone();
            if fault == Some(LiveFault::PushesUntracked) {
                tracked.push(ModelRef::new("nobody/asked", "prod"));
            }
            let as_of = context.clock.now();
            let reply = self.reply(&Unlimited, EACH, Operation::Fetch).await;
            let mut answers: Answers = tracked
                .iter()
                .map(|model| {
                    let answer = match &reply {
                        Ok(reply) => self.answer(model, reply, as_of, true),
                        Err(_) if fault == Some(LiveFault::MissingOnErrors) => {
                            Answer::Missing { as_of, last_seen: None }
                        }
                        Err(error) => Answer::Failed(self.copied(error)),
                    };
                    (model.clone(), answer)
                })
                .collect();
            match fault {
                Some(LiveFault::SilentOnErrors) if reply.is_err() => answers = Answers::new(),
                Some(LiveFault::FormerValuesOnErrors) if reply.is_err() => {
                    answers = former
                        .iter()
                        .map(|(model, sample)| {
                            let mut sample = sample.clone();
                            sample.as_of = as_of;
                            (model.clone(), Answer::Found(sample))
                        })
                        .collect();
                }
                Some(LiveFault::PushesOnce) if cycle > 0 && reply.is_ok() => {
                    answers = Answers::new();
                }
                _ => {}
            }
            let mut kept = Answers::new();
            for (model, mut answer) in answers {
                match (&mut answer, fault) {
                    (Answer::Missing { .. }, Some(LiveFault::NeverPushesMissing)) => continue,
                    (Answer::Missing { as_of, .. }, Some(LiveFault::PushesEmptyForMissing)) => {
                        answer = Answer::Found(ModelSample::new(*as_of, Vec::new()));
                    }
                    (Answer::Found(sample), Some(LiveFault::HiddenPodIsGone)) => {
                        sample.absent = collector_core::Absent::None;
                    }
                    (Answer::Found(sample), Some(LiveFault::PushesTheFuture)) => {
                        sample.as_of = sample.as_of + EACH * 100;
                    }
                    (Answer::Found(sample), _) => former.push((model.clone(), sample.clone())),
                    _ => {}
                }
                kept.insert(model, answer);
            }
            context.sink.push(kept);
            if fault != Some(LiveFault::NeverEndsACycle) {
                context.sink.cycle_ended();
            }
            sleep(EACH).await;
        }
    }
}
