// SPDX-License-Identifier: Apache-2.0
//! Models that are tracked because a backend lists them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use collector_core::{
    Answers, Ask, Backend, BackendError, BackendName, CollectError, DiscoveryState, ErrorKind,
    KnownModel, Limits, ListAsk, MetricsCollector as _, ModelRef, Operation, Probe, ProbeAsk,
    Supports, Urgency, VariantDirectory,
};
use collector_engine::{Builder, CachingCollector, Discovery, StaticDirectory};
use collector_testkit::{FakeBackend, TokioClock};

use crate::logs::Logs;
use crate::setup::{Setup, config, llama, pass, secs, setup_of, setup_with, variant, variants};

fn discovering(builder: Builder) -> Builder {
    builder.discover(Discovery::default())
}

fn qwen() -> ModelRef {
    ModelRef::new("qwen", "dev")
}

fn tracked(collector: &CachingCollector) -> Vec<ModelRef> {
    collector.tracked().into_iter().map(|tracked| tracked.model).collect()
}

fn discovery(collector: &CachingCollector) -> DiscoveryState {
    collector.state().discovery.unwrap()
}

/// With its worker running for a second, over a backend that has `llama` and `qwen`.
async fn started(change: impl FnOnce(Builder) -> Builder) -> Setup {
    let setup = setup_with(change);
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.serve_pods(&qwen(), &["qwen-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    setup
}

/// A fake whose lists alone can fail or hang, and which has a directory of variants.
struct Lists {
    fake: FakeBackend,
    fail: Arc<AtomicBool>,
    hang: bool,
}

#[async_trait]
impl Backend for Lists {
    fn name(&self) -> &str {
        self.fake.name()
    }

    fn supports(&self) -> Supports {
        self.fake.supports()
    }

    fn limits(&self) -> Limits {
        self.fake.limits()
    }

    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
        self.fake.fetch(ask).await
    }

    async fn list_models(&self, ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        if self.hang {
            std::future::pending::<()>().await;
        }
        if self.fail.load(Ordering::Relaxed) {
            let name = BackendName::from(self.name());
            return Err(BackendError::new(
                ErrorKind::Forbidden,
                name,
                Operation::ListModels,
                "a list",
            ));
        }
        self.fake.list_models(ask).await
    }

    async fn probe(&self, ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        self.fake.probe(ask).await
    }

    fn variants(&self) -> Option<Arc<dyn VariantDirectory>> {
        Some(Arc::new(StaticDirectory::new(Vec::new()).unwrap()))
    }
}

#[tokio::test(start_paused = true)]
async fn listed_models_have_readings_at_once_and_new_ones_within_a_minute() {
    let setup = started(discovering).await;
    let readings = setup.collector.tracked();
    assert_eq!(tracked(&setup.collector), [qwen(), llama()]);
    assert!(readings.iter().all(|tracked| tracked.replicas.is_ok()), "{readings:?}");
    let new = ModelRef::new("new", "prod");
    setup.backend.serve_pods(&new, &["new-0"]);
    pass(secs(61)).await;
    let readings = setup.collector.tracked();
    let found = readings.iter().find(|tracked| tracked.model == new).unwrap();
    assert!(found.replicas.is_ok(), "{found:?}");
    let state = discovery(&setup.collector);
    assert_eq!((state.known, state.excluded, state.left_out), (Some(3), 0, 0));
    assert!(state.tracks && !state.pending);
    let listing = setup.collector.state().backends[0].listing.clone();
    assert_eq!((listing.models, listing.error.is_none()), (Some(3), true));
    assert!(listing.age < Some(secs(5)), "{listing:?}");
}

#[tokio::test(start_paused = true)]
async fn without_discovery_nothing_is_listed() {
    let setup = started(|builder| builder).await;
    pass(secs(1000)).await;
    assert_eq!((setup.backend.list_calls(), setup.collector.state().tracked), (0, 0));
    assert!(setup.collector.state().discovery.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_model_is_tracked_while_it_is_listed_and_for_five_minutes_after() {
    let setup = started(discovering).await;
    pass(secs(3600)).await;
    assert_eq!(tracked(&setup.collector), [qwen(), llama()], "nobody has read them");
    setup.backend.remove(&llama());
    pass(secs(299)).await;
    assert_eq!(tracked(&setup.collector), [qwen(), llama()]);
    // A list and a sweep later than five minutes.
    pass(secs(121)).await;
    assert_eq!(tracked(&setup.collector), [qwen()]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_read_stays_although_it_is_no_longer_listed() {
    let setup = started(discovering).await;
    setup.backend.remove(&llama());
    for _ in 0..10 {
        pass(secs(240)).await;
        // At first what it was, then that it is missing.
        let _ = setup.collector.collect_replica_metrics(&llama()).await;
    }
    assert!(tracked(&setup.collector).contains(&llama()));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_down_untracks_nothing_and_its_models_are_unavailable_with_their_age() {
    let setup = started(discovering).await;
    setup.backend.fail(ErrorKind::Connect);
    pass(secs(3600)).await;
    assert_eq!(tracked(&setup.collector), [qwen(), llama()]);
    for tracked in setup.collector.tracked() {
        match tracked.replicas {
            Err(CollectError::Unavailable { age, .. }) => assert!(age > secs(3500), "{age:?}"),
            other => panic!("{other:?}"),
        }
    }
    let state = setup.collector.state();
    assert_eq!(state.discovery.unwrap().known, Some(2), "unknown is not 0");
    assert!(state.backends[0].listing.error.is_some());
    assert!(state.backends[0].listing.age > Some(secs(3500)));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_down_at_the_start_has_an_unknown_number_of_models_and_is_asked_again() {
    let (logs, _guard) = Logs::capture();
    let setup = setup_with(discovering);
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.fail(ErrorKind::Unauthorized);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(100)).await;
    assert_eq!(discovery(&setup.collector).known, None);
    let lists = setup.backend.list_calls();
    // After 0, 10, 30 and 70 s.
    assert_eq!(lists, 4);
    let failed = logs.with("Cannot list the models of the backend: until it answers");
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].contains("backend=fake error="), "{failed:?}");
    setup.backend.restore();
    pass(secs(61)).await;
    assert_eq!(tracked(&setup.collector), [llama()]);
    assert_eq!(logs.with("Listed the models of the backend").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_answers_and_knows_no_model_is_0_and_warned_of_once() {
    let (logs, _guard) = Logs::capture();
    let setup = setup_with(discovering);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(100)).await;
    assert_eq!(discovery(&setup.collector).known, Some(0));
    let warned = logs.with("The backend answers and knows no model");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("does anything scrape the model servers"), "{warned:?}");
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    pass(secs(61)).await;
    assert_eq!(tracked(&setup.collector), [llama()]);
}

#[tokio::test(start_paused = true)]
async fn a_backend_with_a_directory_that_knows_no_model_is_asked_about_its_objects() {
    let (logs, _guard) = Logs::capture();
    let fake = FakeBackend::new(Arc::new(TokioClock::new())).named("kubernetes");
    let lists = Lists { fake, fail: Arc::default(), hang: false };
    let setup = setup_with(|builder| discovering(builder).also(Arc::new(lists)));
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    let warned = logs.with("The backend answers and knows no model");
    let warned = warned.iter().find(|line| line.contains("backend=kubernetes")).unwrap();
    assert!(warned.contains("does an object that it lists describe one?"), "{warned}");
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_models_are_left_out_counted_and_tracked_once_there_is_room() {
    let (logs, _guard) = Logs::capture();
    let setup = started(|builder| discovering(builder).max_tracked(1)).await;
    pass(secs(600)).await;
    assert_eq!(tracked(&setup.collector), [qwen()]);
    let state = discovery(&setup.collector);
    assert_eq!((state.known, state.left_out), (Some(2), 1));
    let warned = logs.with("More models are listed than may be tracked");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("leftOut=1 limit=1"), "{warned:?}");
    setup.backend.remove(&qwen());
    pass(secs(600)).await;
    assert_eq!(tracked(&setup.collector), [llama()]);
    assert_eq!(discovery(&setup.collector).left_out, 0);
    assert_eq!(logs.with("All listed models are tracked again").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_models_of_the_configured_namespaces_are_tracked() {
    let namespaces =
        |name: &str| Discovery { namespaces: [name.into()].into(), ..Discovery::default() };
    let setup = started(|builder| builder.discover(namespaces("prod"))).await;
    assert_eq!(tracked(&setup.collector), [llama()]);
    let state = discovery(&setup.collector);
    assert_eq!((state.known, state.excluded), (Some(2), 1));

    let (logs, _guard) = Logs::capture();
    let setup = started(|builder| builder.discover(namespaces("prd"))).await;
    pass(secs(600)).await;
    assert_eq!(setup.collector.state().tracked, 0);
    let warned = logs.with("No listed model is in a namespace of tracking.namespaces");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("prd") && warned[0].contains("prod"), "{warned:?}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_cannot_list_is_told_apart_from_one_that_fails_and_is_asked_once() {
    let (logs, _guard) = Logs::capture();
    let setup = setup_of(|fake| fake.supporting(Supports::REPLICAS_ONLY), discovering);
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(600)).await;
    let state = setup.collector.state();
    assert_eq!(setup.backend.list_calls(), 1);
    assert_eq!((state.tracked, state.discovery.unwrap().known), (0, None));
    let error = state.backends[0].listing.error.as_ref().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(logs.with("The backend cannot list its models").len(), 1);
    assert_eq!(logs.with("Cannot list").len(), 0);
    setup.read(&llama()).await;
    assert_eq!(setup.collector.state().tracked, 1);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_hangs_delays_no_other_backend_and_no_configured_model() {
    let fail = Arc::default();
    let setup = setup_with(|builder| {
        let fake =
            FakeBackend::new(Arc::new(collector_testkit::TokioClock::new())).named("hanging");
        let hanging = Lists { fake, fail, hang: true };
        let builder = variants(vec![variant("fast", &llama(), "*")])(discovering(builder));
        builder.also(Arc::new(hanging))
    });
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.serve_pods(&qwen(), &["qwen-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(2)).await;
    let readings = setup.collector.tracked();
    assert_eq!(tracked(&setup.collector), [qwen(), llama()]);
    assert!(readings.iter().all(|tracked| tracked.replicas.is_ok()), "{readings:?}");
    let state = setup.collector.state();
    assert!(state.discovery.unwrap().pending && state.cycles == 0, "{state:?}");
    // Three times its time-out, and a second.
    pass(secs(16)).await;
    let state = setup.collector.state();
    assert!(!state.discovery.unwrap().pending && state.cycles > 0, "{state:?}");
    let error = state.backends[1].listing.error.as_ref().unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_model_is_kept_while_any_backend_has_it_in_its_last_list() {
    let clock = Arc::new(collector_testkit::TokioClock::new());
    let fake = FakeBackend::new(clock).named("other");
    let fail: Arc<AtomicBool> = Arc::default();
    let other = Lists { fake: fake.clone(), fail: Arc::clone(&fail), hang: false };
    fake.serve_pods(&ModelRef::new("theirs", "prod"), &["theirs-0"]);
    let setup = started(|builder| discovering(builder).also(Arc::new(other))).await;
    assert_eq!(setup.collector.state().tracked, 3);
    assert_eq!(discovery(&setup.collector).known, Some(3));
    fail.store(true, Ordering::Relaxed);
    fake.remove(&ModelRef::new("theirs", "prod"));
    pass(secs(3600)).await;
    assert_eq!(setup.collector.state().tracked, 3, "its list fails: it may still have the model");
    fail.store(false, Ordering::Relaxed);
    pass(secs(600)).await;
    assert_eq!(tracked(&setup.collector), [qwen(), llama()]);
}

#[tokio::test(start_paused = true)]
async fn a_configured_model_stays_tracked_although_no_backend_lists_it() {
    let setup = started(|builder| {
        let absent = ModelRef::new("absent", "prod");
        variants(vec![variant("fast", &absent, "*")])(discovering(builder))
    })
    .await;
    pass(secs(3600)).await;
    assert_eq!(setup.collector.state().tracked, 3);
    assert_eq!(discovery(&setup.collector).known, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_backend_can_be_listed_once_for_the_log_with_nothing_tracked() {
    let (logs, _guard) = Logs::capture();
    let listed = Discovery { track: false, ..Discovery::default() };
    let setup = started(|builder| builder.discover(listed.clone())).await;
    pass(secs(3600)).await;
    let state = discovery(&setup.collector);
    assert_eq!((setup.backend.list_calls(), setup.collector.state().tracked), (1, 0));
    assert_eq!((state.tracks, state.pending, state.known), (false, false, Some(2)));
    let logged = logs.with("Listed the models of the backend");
    assert!(logged.len() == 1 && logged[0].contains("models=2 namespaces=2"), "{logged:?}");

    // Nothing refreshes what would be tracked: the same.
    let never = config(|config| config.fetch_interval = secs(0));
    let setup = started(|builder| discovering(never(builder))).await;
    assert_eq!((discovery(&setup.collector).known, setup.collector.state().tracked), (Some(2), 0));
    let uncached = config(|config| config.enabled = false);
    let setup = started(|builder| discovering(uncached(builder))).await;
    assert_eq!((discovery(&setup.collector).known, setup.collector.state().tracked), (Some(2), 0));
}

/// With this many models for an hour that nobody reads.
async fn check_load(count: usize) {
    let setup = setup_with(discovering);
    for n in 0..count {
        setup
            .backend
            .serve_pods(&ModelRef::new(format!("m-{n}"), format!("ns-{}", n % 50)), &["p"]);
    }
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    assert_eq!(setup.collector.state().tracked, count);
    let minutes = if count > 1000 { 2 } else { 60 };
    pass(secs(60 * minutes as u64)).await;
    assert_eq!(setup.backend.list_calls(), minutes + 1, "one a minute");
    let asks = setup.backend.asks();
    assert!(asks.iter().all(|ask| ask.urgency == Urgency::Background && ask.models.len() == count));
    let state = setup.collector.state();
    assert_eq!(state.backends[0].requests, (asks.len() + minutes + 1) as u64);
    // As for models that are read: each 25.5 to 28.5 s.
    assert!(asks.len() <= minutes * 60 / 25 + 1, "{}", asks.len());
    assert_eq!((state.cache.entries, state.cache.evictions), (count, 0));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_models_cost_one_list_a_minute_beyond_their_refresh() {
    check_load(1000).await;
}

#[tokio::test(start_paused = true)]
async fn as_many_models_as_may_be_tracked_are_found_in_one_batch() {
    check_load(10_000).await;
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_after_a_stop_and_another_start() {
    let setup = started(discovering).await;
    setup.collector.stop_background_worker().await;
    let lists = setup.backend.list_calls();
    pass(secs(600)).await;
    assert_eq!(setup.backend.list_calls(), lists);
    setup.collector.start_background_worker().await.unwrap();
    setup.backend.serve_pods(&ModelRef::new("new", "prod"), &["new-0"]);
    pass(secs(1)).await;
    assert_eq!(setup.collector.state().tracked, 3);
}
