// SPDX-License-Identifier: Apache-2.0
//! What a backend answers when its server is broken, completely or in part.

use std::time::Duration;

use collector_core::{
    Answer, BackendError, ErrorKind, Field, ListAsk, ModelRef, Operation, ProbeAsk,
};
use tokio::time::sleep;

use super::judge::Asked;
use super::names::odd_names_near;
use super::permits::Permitting;
use super::spending::Cost;
use super::watch::Watched;
use super::{Suite, Verdict, demand};
use crate::conformance::fleet::{BreakableServer, Breakage};

/// The time that a call of a server is given that does not answer.
const STALL_TIME: Duration = Duration::from_secs(2);

impl Suite<'_> {
    pub(super) async fn broken_cases(&self, first_cost: Cost) {
        let Some(server) = self.fleet.breakable() else {
            self.skips(
                "a_broken_server_is_an_error_and_never_missing",
                "the fleet cannot be broken",
            );
            return;
        };
        for how in [Breakage::Down, Breakage::Unauthorized, Breakage::RateLimited] {
            let case = format!("a_server_that_is_broken_by_{how:?}_is_an_error_and_never_missing");
            self.breaks(server, &how, &case, self.completely(&how, first_cost)).await;
        }
        let case = "a_server_that_does_not_answer_is_an_error_in_time";
        self.breaks(server, &Breakage::Stall, case, self.stalled()).await;
        for &field in Field::ALL {
            let how = Breakage::Field(field);
            let case = format!("{}_alone_cannot_be_asked_for", field.as_str());
            self.breaks(server, &how, &case, self.without_field(field)).await;
        }
        let known = self.populated();
        for pod in &known.pods {
            let how = Breakage::Pod(known.model.clone(), pod.row.pod_name.clone());
            let case = format!("the_pod_{}_out_of_reach_is_not_gone", pod.row.pod_name);
            self.breaks(server, &how, &case, self.without_pod(&how)).await;
        }
    }

    /// Runs a case on a server that is broken, and sees that it is believed again afterwards.
    async fn breaks(
        &self,
        server: &dyn BreakableServer,
        how: &Breakage,
        case: &str,
        verdict: impl Future<Output = Verdict>,
    ) {
        if !server.break_down(how).await {
            self.skips(case, "the fleet cannot be broken in this way");
            return;
        }
        self.runs(case, verdict).await;
        server.restore().await;
        self.runs(&format!("{case}, and restored it is believed again"), self.all_is_well()).await;
    }

    async fn completely(&self, how: &Breakage, first_cost: Cost) -> Verdict {
        let mut models = self.known_and_absent();
        models.extend(odd_names_near(&self.populated().model));
        let (permits, before) = (Permitting::unlimited(), self.fleet.requests());
        let mut ask = self.ask(&models);
        ask.permits = &permits;
        self.fails(
            &models,
            self.call(Operation::Fetch, ask.time_left, self.backend.fetch(ask)).await?,
            how,
        )?;
        let cost = self.cost_since(&permits, before);
        demand!(
            cost.permits <= first_cost.permits.max(1)
                && cost.requests.unwrap_or(0) <= first_cost.requests.unwrap_or(u64::MAX).max(1),
            "expected a fetch that fails to be tried no more than once, because the engine tries again; it \
             cost {cost:?}, where the first fetch that answered cost {first_cost:?}"
        );
        if self.backend.supports().list_models {
            match self.list_with(ListAsk::new(&*self.clock)).await? {
                Err(error) => self.judge_error(&error, Operation::ListModels, Some(how))?,
                Ok(list) => {
                    return Err(format!(
                        "expected an error and no list of a broken server, got {list:?}"
                    ));
                }
            }
        }
        self.failing_probe(ProbeAsk::new(&*self.clock)).await
    }

    /// No model is said to be there, empty or missing.
    fn fails(
        &self,
        models: &[ModelRef],
        answers: Result<collector_core::Answers, BackendError>,
        how: &Breakage,
    ) -> Verdict {
        let answers = match answers {
            Err(error) => return self.judge_error(&error, Operation::Fetch, Some(how)),
            Ok(answers) => answers,
        };
        Self::judge_models(models, &answers)?;
        for (model, answer) in answers.iter() {
            let Answer::Failed(error) = answer else {
                return Err(format!(
                    "{model}: expected Failed of a server that is broken by {how:?}, got {answer:?}"
                ));
            };
            let verdict = self.judge_error(error, Operation::Fetch, Some(how));
            verdict.map_err(|wrong| format!("{model}: {wrong}"))?;
        }
        Ok(())
    }

    async fn failing_probe(&self, ask: ProbeAsk<'_>) -> Verdict {
        match self.call(Operation::Probe, ask.time_left, self.backend.probe(ask)).await? {
            Ok(probe) => self.judge_probe(&probe, false),
            Err(error) => Err(format!(
                "expected the probe to say in its checks what is wrong with the server, got the error: {error}"
            )),
        }
    }

    async fn stalled(&self) -> Verdict {
        let models = self.known_and_absent();
        let permits = Permitting::unlimited();
        let mut ask = self.ask(&models);
        ask.time_left = STALL_TIME;
        ask.permits = &permits;
        let mut fetch = Box::pin(Watched::new(self.backend.fetch(ask)));
        let is_live = self.backend.live().is_some();
        tokio::select! {
            ended = &mut fetch => {
                demand!(is_live, "expected the fetch to wait for its answer, it ended with {ended:?}");
                return self.fails(&models, ended?, &Breakage::Stall);
            }
            () = sleep(STALL_TIME / 4) => {}
        }
        let (taken, held) = (permits.taken(), permits.held());
        demand!(
            taken == 0 || held > 0,
            "expected a permit to be held until its answer was read; {taken} were taken, none is held while \
             the server does not answer"
        );
        let Ok(ended) = tokio::time::timeout(STALL_TIME, fetch).await else {
            return Err(format!(
                "expected the fetch to end within the {STALL_TIME:?} that were left, it goes on"
            ));
        };
        self.fails(&models, ended?, &Breakage::Stall)?;
        let held = permits.held();
        demand!(held == 0, "expected every permit to be given back, {held} are kept");
        if self.backend.supports().list_models {
            let mut ask = ListAsk::new(&*self.clock);
            ask.time_left = STALL_TIME;
            match self.list_with(ask).await? {
                Err(error) => {
                    self.judge_error(&error, Operation::ListModels, Some(&Breakage::Stall))?;
                }
                Ok(list) => return Err(format!("expected an error and no list, got {list:?}")),
            }
        }
        let mut ask = ProbeAsk::new(&*self.clock);
        ask.time_left = STALL_TIME;
        self.failing_probe(ask).await
    }

    /// A field that failed is named with its reason and unknown; all else is as it was.
    async fn without_field(&self, field: Field) -> Verdict {
        let (models, at) = (self.known(), self.clock.now());
        let how = Breakage::Field(field);
        let ask = self.ask(&models);
        let answers =
            match self.call(Operation::Fetch, ask.time_left, self.backend.fetch(ask)).await? {
                Err(error) => return self.judge_error(&error, Operation::Fetch, Some(&how)),
                Ok(answers) => answers,
            };
        Self::judge_models(&models, &answers)?;
        for known in self.models.iter().filter(|known| !known.pods.is_empty()) {
            let model = &known.model;
            match answers.get(model) {
                Some(Answer::Failed(error)) => {
                    self.judge_error(error, Operation::Fetch, Some(&how))?;
                }
                Some(Answer::Found(sample)) => {
                    demand!(
                        sample.failed.get(field).is_some_and(|reason| !reason.is_empty()),
                        "{model}: expected {} among the failed fields, with a reason; got {:?}",
                        field.as_str(),
                        sample.failed
                    );
                    let asked = Asked { at: Some(at), per_pod: false, broken: Some(field) };
                    self.judge_sample(known, sample, asked)?;
                }
                other => {
                    return Err(format!("{model}: expected Found or Failed, got {other:?}"));
                }
            }
        }
        Ok(())
    }

    /// A pod that is out of reach makes no smaller fleet.
    async fn without_pod(&self, how: &Breakage) -> Verdict {
        let Breakage::Pod(model, pod) = how else { return Ok(()) };
        let (models, at) = (self.known_and_absent(), self.clock.now());
        let ask = self.ask(&models);
        let answers =
            match self.call(Operation::Fetch, ask.time_left, self.backend.fetch(ask)).await? {
                Err(error) => return self.judge_error(&error, Operation::Fetch, Some(how)),
                Ok(answers) => answers,
            };
        Self::judge_models(&models, &answers)?;
        match answers.get(model) {
            Some(Answer::Failed(error)) => self.judge_error(error, Operation::Fetch, Some(how))?,
            Some(Answer::Found(sample)) => {
                let there = sample.replicas.iter().any(|row| row.pod_name == *pod);
                let named = sample.absent.named();
                demand!(
                    there || !sample.absent.is_none() && (named.is_empty() || named.contains(pod)),
                    "{model}: expected the pod {pod} to be absent, because it is out of reach; got {:?} and a \
                     sample without it",
                    sample.absent
                );
                if let (Some(known), false) = (self.described(model), sample.absent.is_none()) {
                    let asked = Asked { at: Some(at), per_pod: false, broken: None };
                    self.judge_sample(known, sample, asked)?;
                }
            }
            other => return Err(format!("{model}: expected Found or Failed, got {other:?}")),
        }
        self.count_without_pod(model).await
    }

    /// A list never says that a model has fewer replicas than it has.
    async fn count_without_pod(&self, model: &ModelRef) -> Verdict {
        if !self.backend.supports().list_models {
            return Ok(());
        }
        let all = self.described(model).map_or(0, |known| known.pods.len());
        match self.list_with(ListAsk::new(&*self.clock)).await? {
            Err(error) => {
                let kind = error.kind();
                demand!(kind != ErrorKind::Unsupported, "expected a list, got the error: {error}");
                self.judge_error(&error, Operation::ListModels, None)
            }
            Ok(list) => {
                let replicas = list.iter().find(|known| known.model == *model);
                let replicas = replicas.and_then(|known| known.replicas);
                demand!(
                    replicas.is_none_or(|replicas| usize::try_from(replicas) == Ok(all)),
                    "{model}: expected {all} replicas in the list, or None because some are out of reach; got \
                     {replicas:?}"
                );
                Ok(())
            }
        }
    }
}
