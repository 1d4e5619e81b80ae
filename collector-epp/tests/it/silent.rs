// SPDX-License-Identifier: Apache-2.0
//! Targets of which a discovery says that they start or terminate: that they do not answer is no failure.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use collector_core::{
    Answer, Backend as _, CheckStatus, ErrorKind, ListAsk, LiveContext, LiveSource as _, ModelRef,
    Namespace, ProbeAsk,
};
use collector_epp::discover::{Discovery, DiscoveryError, Target, TargetSpec};
use collector_epp::{EppBackend, EppConfig};
use collector_testkit::TokioClock;

use crate::fake_pod::{FakePod, Says, vllm};
use crate::world::{Pushed, answer, failure, found, look};

/// A discovery that says what a test lets it say; nothing: it fails.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Option<Vec<Target>>>>);

impl Told {
    fn tell(&self, targets: &[(TargetSpec, bool)]) {
        let target = |(spec, may_be_silent): &(TargetSpec, bool)| Target {
            may_be_silent: *may_be_silent,
            ..spec.target().unwrap()
        };
        *self.0.lock().unwrap() = Some(targets.iter().map(target).collect());
    }

    fn fail(&self) {
        *self.0.lock().unwrap() = None;
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
        let told = self.0.lock().unwrap().clone();
        told.ok_or_else(|| DiscoveryError::new(ErrorKind::Dns, "told: broken"))
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

/// A discovery that has never returned its targets: a name server that does not answer, for example.
struct Unanswered;

#[async_trait]
impl Discovery for Unanswered {
    fn source(&self) -> &'static str {
        "unanswered"
    }

    async fn targets(&self) -> Result<Vec<Target>, DiscoveryError> {
        std::future::pending().await
    }

    async fn changed(&self) {}
}

#[tokio::test(start_paused = true)]
async fn nothing_is_missing_before_the_targets_are_known() {
    let clock = Arc::new(TokioClock::new());
    let others: Vec<Box<dyn Discovery>> = vec![Box::new(Unanswered)];
    let backend = EppBackend::with_discovery(EppConfig::default(), others, clock.clone()).unwrap();
    let pushed = Pushed::new(clock.clone());
    let context = LiveContext::new(Arc::new(pushed), clock.clone());
    let ask = async {
        // The live source runs before the first fetch.
        tokio::task::yield_now().await;
        assert_eq!(failure(&backend, "m").await.kind(), ErrorKind::Timeout);
        let listed = backend.list_models(ListAsk::new(&*clock)).await;
        assert_eq!(listed.unwrap_err().kind(), ErrorKind::Timeout);
    };
    tokio::select! {
        () = backend.run(context) => panic!("the live source has ended"),
        () = ask => {}
    }
}

#[tokio::test(start_paused = true)]
async fn the_number_of_replicas_is_unknown_while_targets_are() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let told = Told::default();
    told.tell(&[(pod.target("a"), false)]);
    let clock = Arc::new(TokioClock::new());
    let others: Vec<Box<dyn Discovery>> = vec![Box::new(told), Box::new(Told::default())];
    let backend = EppBackend::with_discovery(EppConfig::default(), others, clock.clone()).unwrap();
    let listed = backend.list_models(ListAsk::new(&*clock)).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].replicas, None, "the other source may have more of them");
}

/// A discovery that does not know of the namespace `prod`.
struct Elsewhere;

#[async_trait]
impl Discovery for Elsewhere {
    fn source(&self) -> &'static str {
        "elsewhere"
    }

    async fn targets(&self) -> Result<Vec<Target>, DiscoveryError> {
        Ok(Vec::new())
    }

    fn unknown_in(&self, namespace: &Namespace) -> Option<DiscoveryError> {
        let unknown = || DiscoveryError::new(ErrorKind::Configuration, "elsewhere: not watched");
        (namespace.as_str() == "prod").then(unknown)
    }

    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_model_is_missing_in_a_namespace_of_which_a_source_knows_nothing() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let told = Told::default();
    told.tell(&[(pod.target("a"), false)]);
    let others: Vec<Box<dyn Discovery>> = vec![Box::new(told), Box::new(Elsewhere)];
    let clock = Arc::new(TokioClock::new());
    let backend = EppBackend::with_discovery(EppConfig::default(), others, clock).unwrap();
    assert_eq!(pods(answer(&backend, "m").await), ["a"]);
    let error = failure(&backend, "other").await;
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("elsewhere: not watched"), "{error}");
    let elsewhere = ModelRef::new("other", "dev");
    let answers = look(&backend, std::slice::from_ref(&elsewhere)).await.unwrap();
    assert!(matches!(answers.get(&elsewhere), Some(Answer::Missing { .. })));
}

/// A discovery of the pods that are ready, which are none.
struct Ready;

#[async_trait]
impl Discovery for Ready {
    fn source(&self) -> &'static str {
        "ready"
    }

    fn lists_pods(&self) -> bool {
        false
    }

    async fn targets(&self) -> Result<Vec<Target>, DiscoveryError> {
        Ok(Vec::new())
    }

    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_of_ready_pods_is_no_proof_that_there_are_no_others() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let told = Told::default();
    let others: Vec<Box<dyn Discovery>> = vec![Box::new(told.clone()), Box::new(Ready)];
    let clock = Arc::new(TokioClock::new());
    let backend = EppBackend::with_discovery(EppConfig::default(), others, clock).unwrap();
    told.tell(&[(pod.target("a"), false)]);
    assert_eq!(pods(answer(&backend, "m").await), ["a"]);
    told.tell(&[]);
    let gone = found(answer(&backend, "m").await);
    assert!(gone.replicas.is_empty() && !gone.lists_pods, "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn targets_from_before_are_no_proof_that_there_are_no_others() {
    let pod = FakePod::with_page(&vllm("m", 1.0, 0.5, 1.0)).await;
    let told = Told::default();
    told.tell(&[(pod.target("a"), false)]);
    let backend = told.backend();
    let is_missing = |answer| matches!(answer, Answer::Missing { .. });
    assert!(is_missing(answer(&backend, "other").await));
    told.fail();
    assert_eq!(failure(&backend, "other").await.kind(), ErrorKind::Dns);
    let known = found(answer(&backend, "m").await);
    assert_eq!(known.replicas.len(), 1);
    assert_eq!(*known.warnings[0], *"new pods may be absent: told: broken");
    told.tell(&[]);
    let gone = found(answer(&backend, "m").await);
    assert!(gone.replicas.is_empty() && gone.lists_pods, "{gone:?}");
    told.fail();
    assert_eq!(failure(&backend, "m").await.kind(), ErrorKind::Dns);
    let clock = TokioClock::new();
    let listed = backend.list_models(ListAsk::new(&clock)).await;
    assert_eq!(listed.unwrap_err().kind(), ErrorKind::Dns);
}

#[tokio::test(start_paused = true)]
async fn requests_that_a_picker_holds_are_known_whatever_the_targets_are() {
    let labels = "model_name=\"m\",target_model_name=\"m\"";
    let page = format!("llm_d_epp_flow_control_queue_size{{{labels}}} 3\n");
    let picker = FakePod::with_page(&page).await;
    let told = Told::default();
    let target = TargetSpec { engine: Some("epp".into()), ..picker.target("epp-0") };
    told.tell(&[(target, false)]);
    let backend = told.backend();
    found(answer(&backend, "m").await);
    told.fail();
    let sample = found(answer(&backend, "m").await);
    assert_eq!((sample.endpoint_picker.queued_requests(), sample.lists_pods), (Some(3), false));
}
