// SPDX-License-Identifier: Apache-2.0
//! Targets of which a discovery says that they start or terminate: that they do not answer is no failure.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use collector_core::{Answer, Backend as _, CheckStatus, ProbeAsk};
use collector_epp::discover::{Discovery, DiscoveryError, Target, TargetSpec};
use collector_epp::{EppBackend, EppConfig};
use collector_testkit::TokioClock;

use crate::fake_pod::{FakePod, Says, vllm};
use crate::world::{answer, failure, found};

/// A discovery that says what a test lets it say.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Target>>>);

impl Told {
    fn tell(&self, targets: &[(TargetSpec, bool)]) {
        let target = |(spec, may_be_silent): &(TargetSpec, bool)| Target {
            may_be_silent: *may_be_silent,
            ..spec.target().unwrap()
        };
        *self.0.lock().unwrap() = targets.iter().map(target).collect();
    }

    fn backend(&self) -> EppBackend {
        let (config, clock) = (EppConfig::default(), Arc::new(TokioClock::new()));
        EppBackend::with_discovery(config, vec![Box::new(self.clone())], clock).unwrap()
    }
}

#[async_trait]
impl Discovery for Told {
    fn source(&self) -> &'static str {
        "told"
    }

    async fn targets(&self) -> Result<Vec<Target>, DiscoveryError> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn changed(&self) {}
}

fn pods(answer: Answer) -> Vec<String> {
    let sample = found(answer);
    assert!(sample.absent.named().is_empty(), "{:?}", sample.absent);
    sample.replicas.iter().map(|row| row.pod_name.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_starts_disturbs_nothing_until_it_answers() {
    let serving = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let starting = FakePod::start(Says::PageThenGone(String::new())).await;
    let told = Told::default();
    told.tell(&[(serving.target("a"), false), (starting.target("b"), true)]);
    let backend = told.backend();
    let gauges = backend.gauges().unwrap();
    let shown = || gauges.pods(&|_| true).pods.len();
    assert_eq!(pods(answer(&backend, "m").await), ["a"]);
    assert_eq!(shown(), 1, "no series of the other are missed");
    let unknown = answer(&backend, "other").await;
    assert!(matches!(unknown, Answer::Missing { .. }), "{unknown:?}");
    let probe = backend.probe(ProbeAsk::new(&TokioClock::new())).await.unwrap();
    let failed: Vec<_> = probe.checks.iter().filter(|it| it.status == CheckStatus::Fail).collect();
    assert!(failed.is_empty(), "{failed:?}");
    starting.say(Says::Page(vllm("m", 1.0, 0.5, 1.0)));
    assert_eq!(pods(answer(&backend, "m").await), ["a", "b"]);
    assert_eq!(shown(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_terminates_counts_as_long_as_it_answers() {
    let pods_of = |answers| pods(answers);
    let (a, b) = (
        FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await,
        FakePod::with_page(&vllm("m", 2.0, 0.5, 1.0)).await,
    );
    let told = Told::default();
    told.tell(&[(a.target("a"), false), (b.target("b"), false)]);
    let backend = told.backend();
    assert_eq!(pods_of(answer(&backend, "m").await), ["a", "b"]);
    told.tell(&[(a.target("a"), false), (b.target("b"), true)]);
    assert_eq!(pods_of(answer(&backend, "m").await), ["a", "b"]);
    b.say(Says::PageThenGone(String::new()));
    assert_eq!(pods_of(answer(&backend, "m").await), ["a"]);
    // One that should answer is missed.
    told.tell(&[(a.target("a"), false), (b.target("b"), false)]);
    let sample = found(answer(&backend, "m").await);
    assert_eq!(sample.absent.named().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_model_is_missing_only_after_its_starting_pod_was_asked() {
    let starting = FakePod::start(Says::PageThenGone(String::new())).await;
    let told = Told::default();
    told.tell(&[(starting.target("a"), true)]);
    let backend = told.backend();
    assert!(matches!(answer(&backend, "m").await, Answer::Missing { .. }));
    told.tell(&[(starting.target("a"), false)]);
    failure(&backend, "m").await;
}
