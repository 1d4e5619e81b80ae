//! The backend suite on the fake backend, whole and with one flaw at a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{
    Answer, Ask, Backend, BackendError, Check, CheckStatus, Clock, ErrorKind, KnownModel, Limits,
    LiveSource, ManualClock, ModelRef, ModelSample, Permits, PodName, Probe, Supports, Unlimited,
};
use collector_testkit::FakeBackend;
use collector_testkit::conformance::{self, BreakableServer, Fleet, FleetModel};

struct FakeFleet {
    clock: Arc<ManualClock>,
    backend: FakeBackend,
}

fn idle() -> ModelRef {
    ModelRef::new("org/idle", "prod")
}

fn busy() -> ModelRef {
    ModelRef::new("org/busy", "prod")
}

impl FakeFleet {
    fn new(supports: Supports) -> Self {
        let clock = Arc::new(ManualClock::new());
        clock.advance(Duration::from_secs(3600));
        let backend = FakeBackend::new(Arc::<ManualClock>::clone(&clock)).supporting(supports);
        backend.serve_pods(&busy(), &["busy-0", "busy-1"]);
        backend.serve_pods(&idle(), &[]);
        Self { clock, backend }
    }
}

#[async_trait]
impl Fleet for FakeFleet {
    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn models(&self) -> Vec<FleetModel> {
        let model = |model: ModelRef, pods: &[&str]| FleetModel {
            model,
            pods: pods.iter().map(|pod| PodName::from(*pod)).collect(),
        };
        vec![model(busy(), &["busy-1", "busy-0"]), model(idle(), &[])]
    }

    fn breakable(&self) -> Option<&dyn BreakableServer> {
        Some(self)
    }
}

#[async_trait]
impl BreakableServer for FakeFleet {
    async fn break_down(&self) {
        self.backend.fail(ErrorKind::Connect);
    }

    async fn restore(&self) {
        self.backend.restore();
    }
}

#[tokio::test]
async fn the_fake_backend_conforms() {
    let fleet = FakeFleet::new(Supports::ALL);
    conformance::backend(&fleet.backend.clone().requests_per_fetch(3), &fleet).await;
}

/// Lets a fake push each second, and end its first cycle, as a live half does by itself; or only the
/// one.
async fn beside_pushes(backend: &FakeBackend, suite: impl Future<Output = ()>, cycles: bool) {
    let pushes = async {
        loop {
            backend.push_tracked();
            if cycles {
                backend.end_cycle();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = pushes => {}
        () = suite => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_pushes_conforms() {
    let fleet = FakeFleet::new(Supports::ALL);
    let backend = fleet.backend.clone().pushing();
    beside_pushes(&backend, conformance::backend(&backend, &fleet), true).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "0 cycles have ended")]
async fn a_live_half_whose_cycles_never_end_does_not_conform() {
    let fleet = FakeFleet::new(Supports::ALL);
    let backend = fleet.backend.clone().pushing();
    beside_pushes(&backend, conformance::backend(&backend, &fleet), false).await;
}

#[tokio::test]
async fn a_backend_of_replicas_alone_conforms() {
    let fleet = FakeFleet::new(Supports::REPLICAS_ONLY);
    conformance::backend(&fleet.backend, &fleet).await;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    CallsErrorsMissing,
    CallsErrorsEmpty,
    CallsMissingFoundWithoutPods,
    AnswersTwice,
    LeavesModelsOut,
    MatchesPrefixes,
    MatchesPatterns,
    LosesAPod,
    SamplesInTheFuture,
    InventsNotANumber,
    UsesPercent,
    SetsTheVariant,
    TakesNoPermits,
    TakesAPermitForEachModel,
    HoldsAPermitAndWaitsForAnother,
    IgnoresThePods,
    GivesPodsUnasked,
    HidesHalfOfTheList,
    ProbesBlindly,
    ShoutsItsName,
}

const FLAWS: [Flaw; 20] = [
    Flaw::CallsErrorsMissing,
    Flaw::CallsErrorsEmpty,
    Flaw::CallsMissingFoundWithoutPods,
    Flaw::AnswersTwice,
    Flaw::LeavesModelsOut,
    Flaw::MatchesPrefixes,
    Flaw::MatchesPatterns,
    Flaw::LosesAPod,
    Flaw::SamplesInTheFuture,
    Flaw::InventsNotANumber,
    Flaw::UsesPercent,
    Flaw::SetsTheVariant,
    Flaw::TakesNoPermits,
    Flaw::TakesAPermitForEachModel,
    Flaw::HoldsAPermitAndWaitsForAnother,
    Flaw::IgnoresThePods,
    Flaw::GivesPodsUnasked,
    Flaw::HidesHalfOfTheList,
    Flaw::ProbesBlindly,
    Flaw::ShoutsItsName,
];

struct Flawed {
    inner: FakeBackend,
    flaw: Flaw,
}

impl Flawed {
    fn spoil(&self, sample: &mut ModelSample) {
        match self.flaw {
            Flaw::LosesAPod => {
                sample.replicas.pop();
            }
            Flaw::SamplesInTheFuture => {
                for replica in &mut sample.replicas {
                    replica.sampled_at = replica.sampled_at + Duration::from_secs(1);
                }
            }
            Flaw::InventsNotANumber => {
                for replica in &mut sample.replicas {
                    replica.avg_input_tokens = Some(f64::NAN);
                }
            }
            Flaw::UsesPercent => {
                for replica in &mut sample.replicas {
                    replica.kv_cache_usage = Some(25.0);
                }
            }
            Flaw::SetsTheVariant => {
                for replica in &mut sample.replicas {
                    replica.variant_name = Some("v".into());
                }
            }
            _ => {}
        }
    }

    /// Another model than the one asked, by a rule that is too wide.
    fn mistaken(&self, asked: &ModelRef) -> Option<ModelRef> {
        let (id, busy) = (asked.model.as_str(), busy());
        let matches = match self.flaw {
            Flaw::MatchesPrefixes => id.starts_with(busy.model.as_str()),
            Flaw::MatchesPatterns => id == ".*",
            _ => false,
        };
        matches.then_some(busy)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Backend for Flawed {
    fn name(&self) -> &str {
        match self.flaw {
            Flaw::ShoutsItsName => "FAKE",
            _ => self.inner.name(),
        }
    }

    fn supports(&self) -> Supports {
        self.inner.supports()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn fetch(&self, mut ask: Ask<'_>) -> Result<Vec<(ModelRef, Answer)>, BackendError> {
        let _held = match self.flaw {
            Flaw::HoldsAPermitAndWaitsForAnother => Some(ask.permits.acquire().await?),
            _ => None,
        };
        let (everybody, nobody) = (ask.models.iter().cloned().collect(), HashSet::new());
        match self.flaw {
            Flaw::TakesNoPermits => ask.permits = &Unlimited,
            Flaw::TakesAPermitForEachModel => {
                for _ in ask.models {
                    let _permit = ask.permits.acquire().await?;
                }
            }
            Flaw::IgnoresThePods => ask.load_per_pod = &nobody,
            Flaw::GivesPodsUnasked => ask.load_per_pod = &everybody,
            _ => {}
        }
        let really: Vec<ModelRef> = ask
            .models
            .iter()
            .map(|model| self.mistaken(model).unwrap_or_else(|| model.clone()))
            .collect();
        let asked = ask.models;
        ask.models = &really;
        let missing = |model: &ModelRef| {
            let as_of = collector_core::Tick::MIN;
            (model.clone(), Answer::Missing { as_of, last_seen: None })
        };
        let mut answers = match (self.inner.fetch(ask).await, self.flaw) {
            (Err(_), Flaw::CallsErrorsMissing) => return Ok(asked.iter().map(missing).collect()),
            (Err(_), Flaw::CallsErrorsEmpty) => return Ok(Vec::new()),
            (answers, _) => answers?,
        };
        for (model, answer) in &mut answers {
            if let Some(wanted) =
                asked.iter().find(|asked| self.mistaken(asked).as_ref() == Some(&*model))
            {
                *model = wanted.clone();
            }
            match answer {
                Answer::Found(sample) => self.spoil(sample),
                Answer::Missing { as_of, .. }
                    if self.flaw == Flaw::CallsMissingFoundWithoutPods =>
                {
                    *answer = Answer::Found(ModelSample::new(*as_of, Vec::new()));
                }
                _ => {}
            }
        }
        match self.flaw {
            Flaw::AnswersTwice => {
                let twice = answers.first().map(|(model, _)| missing(model));
                answers.extend(twice);
            }
            Flaw::LeavesModelsOut => {
                answers.retain(|(_, answer)| !matches!(answer, Answer::Missing { .. }));
            }
            _ => {}
        }
        Ok(answers)
    }

    async fn list_models(&self, permits: &dyn Permits) -> Result<Vec<KnownModel>, BackendError> {
        let mut list = self.inner.list_models(permits).await?;
        if self.flaw == Flaw::HidesHalfOfTheList {
            list.truncate(list.len() / 2);
        }
        Ok(list)
    }

    async fn probe(&self) -> Result<Probe, BackendError> {
        if self.flaw == Flaw::ProbesBlindly {
            let fine = Check::new("connection.script", CheckStatus::Pass, "looks fine");
            return Ok(Probe { checks: vec![fine] });
        }
        self.inner.probe().await
    }

    fn live(&self) -> Option<&dyn LiveSource> {
        self.inner.live()
    }
}

#[tokio::test(start_paused = true)]
async fn each_flaw_is_caught() {
    for flaw in FLAWS {
        let suite = tokio::spawn(async move {
            let fleet = FakeFleet::new(Supports::ALL);
            let inner = fleet.backend.clone();
            conformance::backend(&Flawed { inner, flaw }, &fleet).await;
        });
        let Err(failure) = suite.await else {
            panic!("a backend with the flaw {flaw:?} passed");
        };
        assert!(failure.is_panic(), "{flaw:?}");
    }
}
