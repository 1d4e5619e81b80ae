// SPDX-License-Identifier: Apache-2.0
//! The promises of [`Backend`].

mod broken;
mod healthy;
mod judge;
mod live;
mod names;
mod permits;
mod spending;
mod watch;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Answer, Answers, Ask, Backend, BackendError, Clock, ModelRef, ModelSample, Operation,
};

use super::fleet::{Fleet, FleetModel};
use super::print;
use judge::Asked;
use watch::Watched;

/// How a case has ended: with what was expected and what came instead, where a promise is broken.
type Verdict<T = ()> = Result<T, String>;

/// Ends a case unless a condition holds.
macro_rules! demand {
    ($holds:expr, $($expected:tt)+) => {
        if !$holds {
            return Err(format!($($expected)+));
        }
    };
}
use demand;

/// Checks every promise of [`Backend`] on `backend`, which asks `fleet`.
///
/// The fleet must stand still meanwhile: no pod comes or goes. Cases that
/// [`supports`](Backend::supports) or the fleet rule out are printed as skipped. Each call has a time limit, so
/// that a backend which hangs fails its case.
///
/// # Panics
/// When a promise is broken; the message names the case, the model and what was expected.
pub async fn backend(backend: &dyn Backend, fleet: &dyn Fleet) {
    let suite = Suite { backend, fleet, clock: fleet.clock(), models: fleet.models() };
    assert!(
        suite.models.iter().any(|model| !model.pods.is_empty()),
        "the suite needs a model with pods in its fleet"
    );
    // The first fetch is the dearest: it may have to find out what the server is.
    let first_cost = suite.runs("the_first_fetch_answers", suite.cost(&suite.known())).await;
    suite.runs("a_fetch_does_not_block_the_thread", suite.no_blocking()).await;
    suite.healthy_cases().await;
    suite.spending_cases().await;
    suite.live_cases().await;
    suite.broken_cases(first_cost).await;
}

struct Suite<'a> {
    backend: &'a dyn Backend,
    fleet: &'a dyn Fleet,
    clock: Arc<dyn Clock>,
    models: Vec<FleetModel>,
}

impl Suite<'_> {
    async fn runs<T>(&self, case: &str, verdict: impl Future<Output = Verdict<T>>) -> T {
        let name = self.backend.name();
        print(name, case, "runs");
        match verdict.await {
            Ok(output) => output,
            Err(wrong) => panic!("conformance of the {name}: {case}: {wrong}"),
        }
    }

    fn skips_all(&self, cases: &[&str], reason: &str) {
        for case in cases {
            self.skips(case, reason);
        }
    }

    fn skips(&self, case: &str, reason: &str) {
        print(self.backend.name(), case, &format!("skipped, because {reason}"));
    }

    /// The models of the fleet.
    fn known(&self) -> Vec<ModelRef> {
        self.models.iter().map(|known| known.model.clone()).collect()
    }

    /// The models of the fleet, and one that does not exist.
    fn known_and_absent(&self) -> Vec<ModelRef> {
        let mut models = self.known();
        models.push(self.absent());
        models
    }

    /// A model with pods.
    fn populated(&self) -> &FleetModel {
        let populated = self.models.iter().find(|model| !model.pods.is_empty());
        populated.expect("checked at the start of the suite")
    }

    /// A model that nobody has.
    fn absent(&self) -> ModelRef {
        ModelRef::new("conformance/no-such-model", self.populated().model.namespace.clone())
    }

    /// Waits for a call, no longer than twice the time that it was given.
    async fn call<T>(
        &self,
        operation: Operation,
        time_left: Duration,
        call: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Verdict<Result<T, BackendError>> {
        let limit = time_left * 2 + Duration::from_secs(1);
        match tokio::time::timeout(limit, Watched::new(call)).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(wrong)) => Err(format!("expected {operation} to end, it {wrong}")),
            Err(_) => Err(format!(
                "expected {operation} to end within the {time_left:?} that were left, it has not after {limit:?}"
            )),
        }
    }

    /// An ask at the fleet's clock.
    fn ask<'a>(&'a self, models: &'a [ModelRef]) -> Ask<'a> {
        Ask::new(models, &*self.clock)
    }

    /// Fetches from a healthy server: every model that was asked for is answered, and no other.
    async fn fetch(&self, ask: Ask<'_>) -> Verdict<Answers> {
        let answers = self.call(Operation::Fetch, ask.time_left, self.backend.fetch(ask)).await?;
        let answers = answers.map_err(|error| {
            format!("expected a healthy server to be fetched from, got the error: {error}")
        })?;
        Self::judge_models(ask.models, &answers)?;
        Ok(answers)
    }

    /// Every model that was asked for is answered, and no other.
    fn judge_models(models: &[ModelRef], answers: &Answers) -> Verdict {
        let asked: HashSet<&ModelRef> = models.iter().collect();
        for (model, _) in answers.iter() {
            demand!(
                asked.contains(model),
                "{model}: expected no answer, because nobody asked for it"
            );
        }
        for model in asked {
            demand!(answers.get(model).is_some(), "{model}: expected an answer, got none");
        }
        Ok(())
    }

    /// Fetches, and judges each answer.
    async fn fetch_truth(&self, ask: Ask<'_>) -> Verdict {
        let at = self.clock.now();
        for (model, answer) in self.fetch(ask).await? {
            let per_pod = ask.wants_load_per_pod(&model);
            self.judge(&model, &answer, Asked { at: Some(at), per_pod, broken: None })?;
        }
        Ok(())
    }

    /// Fetches one existing model.
    async fn sample(&self, model: &ModelRef) -> Verdict<ModelSample> {
        let mut answers = self.fetch(self.ask(std::slice::from_ref(model))).await?;
        match answers.remove(model) {
            Some(Answer::Found(sample)) => Ok(sample),
            other => Err(format!("{model}: expected Found, because it exists; got {other:?}")),
        }
    }

    /// Fetches everything there is, and something that is not.
    async fn all_is_well(&self) -> Verdict {
        self.fetch_truth(self.ask(&self.known_and_absent())).await
    }
}
