//! The promises of [`Backend`].

use std::collections::HashSet;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use collector_core::{
    Answer, Ask, Backend, BackendError, CheckStatus, ErrorKind, LoadRates, ModelRef, ModelSample,
    PodName, ReplicaMetrics, Unlimited,
};

use super::fleet::{Fleet, FleetModel};
use super::permits::{CountingPermits, OneAtATime, Refusing};
use super::{live, print};

/// Checks every promise of [`Backend`] on `backend`, which looks at `fleet`.
///
/// The fleet must stand still meanwhile: no pod comes or goes. Cases that
/// [`supports`](Backend::supports) or the fleet rule out are printed as skipped.
///
/// # Panics
/// When a promise is broken.
pub async fn backend(backend: &dyn Backend, fleet: &dyn Fleet) {
    let suite = Suite { backend, fleet, models: fleet.models() };
    assert!(
        suite.models.iter().any(|model| !model.pods.is_empty()),
        "the suite needs a model with pods in its fleet"
    );
    let supports = backend.supports();

    suite.runs("the_name_is_short_lower_case_and_constant");
    suite.the_name_is_short_lower_case_and_constant();
    suite.runs("each_model_asked_is_answered_once");
    suite.each_model_asked_is_answered_once().await;
    suite.runs("an_empty_ask_has_an_empty_answer");
    suite.an_empty_ask_has_an_empty_answer().await;
    suite.runs("a_batch_says_what_single_asks_say");
    suite.a_batch_says_what_single_asks_say().await;
    suite.runs("time_never_goes_back");
    suite.time_never_goes_back().await;
    suite.runs("odd_names_are_missing_and_harm_nobody");
    suite.odd_names_are_missing_and_harm_nobody().await;
    suite.runs("looks_at_once_do_not_mix");
    suite.looks_at_once_do_not_mix().await;
    suite.runs("without_time_nothing_is_called_missing");
    suite.without_time_nothing_is_called_missing().await;
    suite.runs("a_dropped_look_leaves_nothing_half_done");
    suite.a_dropped_look_leaves_nothing_half_done().await;
    suite.runs("one_permit_at_a_time_is_enough");
    suite.one_permit_at_a_time_is_enough().await;
    suite.runs("a_probe_of_a_healthy_server_passes");
    suite.a_probe_of_a_healthy_server_passes().await;

    if let Some(live) = backend.live() {
        suite.runs("looks_while_the_live_half_runs_say_the_same");
        let looks = async {
            suite.each_model_asked_is_answered_once().await;
            suite.a_batch_says_what_single_asks_say().await;
            suite.odd_names_are_missing_and_harm_nobody().await;
            suite.looks_at_once_do_not_mix().await;
            suite.a_probe_of_a_healthy_server_passes().await;
        };
        live::beside(live, &suite.known(), looks).await;
        suite.runs("what_is_tracked_is_pushed_and_what_is_missing_too");
        suite.what_is_tracked_is_pushed_and_what_is_missing_too().await;
        suite.runs("a_live_half_that_was_dropped_can_be_started_again");
        suite.what_is_tracked_is_pushed_and_what_is_missing_too().await;
    } else {
        let reason = "it only answers when it is asked";
        suite.skips("looks_while_the_live_half_runs_say_the_same", reason);
        suite.skips("what_is_tracked_is_pushed_and_what_is_missing_too", reason);
        suite.skips("a_live_half_that_was_dropped_can_be_started_again", reason);
    }
    if backend.live().is_none() {
        suite.runs("no_request_is_sent_without_a_permit");
        suite.no_request_is_sent_without_a_permit().await;
        suite.runs("a_batch_costs_little_more_than_one_model");
        suite.a_batch_costs_little_more_than_one_model().await;
    } else {
        let reason = "what it learnt by itself it may tell without a request";
        suite.skips("no_request_is_sent_without_a_permit", reason);
        suite.skips("a_batch_costs_little_more_than_one_model", reason);
    }
    if supports.list_models {
        suite.runs("the_list_is_what_exists");
        suite.the_list_is_what_exists().await;
    } else {
        suite.skips("the_list_is_what_exists", "supports().list_models is false");
        suite.runs("a_list_that_is_not_supported_is_an_error");
        suite.a_list_that_is_not_supported_is_an_error().await;
    }
    if supports.load {
        suite.runs("the_load_of_a_model_is_one_row");
        suite.the_load_of_a_model_is_one_row().await;
    } else {
        suite.skips("the_load_of_a_model_is_one_row", "supports().load is false");
    }
    if supports.load_per_pod {
        suite.runs("load_per_pod_is_a_row_for_each_pod");
        suite.load_per_pod_is_a_row_for_each_pod().await;
    } else {
        let reason = "supports().load_per_pod is false";
        suite.skips("load_per_pod_is_a_row_for_each_pod", reason);
    }
    if let Some(server) = fleet.breakable() {
        suite.runs("a_broken_server_is_an_error_and_never_missing");
        server.break_down().await;
        suite.a_broken_server_is_an_error_and_never_missing().await;
        server.restore().await;
        suite.runs("a_restored_server_is_believed_again");
        suite.each_model_asked_is_answered_once().await;
    } else {
        let reason = "the fleet cannot be broken";
        suite.skips("a_broken_server_is_an_error_and_never_missing", reason);
        suite.skips("a_restored_server_is_believed_again", reason);
    }
}

struct Suite<'a> {
    backend: &'a dyn Backend,
    fleet: &'a dyn Fleet,
    models: Vec<FleetModel>,
}

impl Suite<'_> {
    fn runs(&self, case: &str) {
        print(self.backend.name(), case, "runs");
    }

    fn skips(&self, case: &str, reason: &str) {
        print(self.backend.name(), case, &format!("skipped, because {reason}"));
    }

    /// The models of the fleet.
    fn known(&self) -> Vec<ModelRef> {
        self.models.iter().map(|known| known.model.clone()).collect()
    }

    /// The pods of a model, in order; `None` when it does not exist.
    fn pods(&self, model: &ModelRef) -> Option<Vec<PodName>> {
        let known = self.models.iter().find(|known| known.model == *model)?;
        let mut pods = known.pods.clone();
        pods.sort_unstable();
        Some(pods)
    }

    /// A model with pods.
    fn populated(&self) -> &FleetModel {
        self.models
            .iter()
            .find(|model| !model.pods.is_empty())
            .expect("checked at the start of the suite")
    }

    /// A model that nobody has.
    fn absent(&self) -> ModelRef {
        ModelRef::new("conformance/no-such-model", self.populated().model.namespace.clone())
    }

    /// Looks, and checks the shape of the answer.
    async fn look(&self, models: &[ModelRef], per_pod: &[ModelRef]) -> Vec<(ModelRef, Answer)> {
        let per_pod: HashSet<ModelRef> = per_pod.iter().cloned().collect();
        let answers = self
            .backend
            .fetch(Ask::new(models, &per_pod))
            .await
            .unwrap_or_else(|error| panic!("a look at a healthy server failed: {error}"));
        let asked: HashSet<&ModelRef> = models.iter().collect();
        let mut answered = HashSet::new();
        for (model, _) in &answers {
            assert!(asked.contains(model), "{model} was answered, not asked");
            assert!(answered.insert(model), "{model} was answered twice");
        }
        for model in asked {
            assert!(answered.contains(model), "{model} was not answered");
        }
        answers
    }

    async fn look_at_one(&self, model: &ModelRef) -> Answer {
        let mut answers = self.look(std::slice::from_ref(model), &[]).await;
        answers.remove(0).1
    }

    /// Looks at one existing model, its load told per pod where `per_pod`.
    async fn sample(&self, model: &ModelRef, per_pod: bool) -> ModelSample {
        let models = std::slice::from_ref(model);
        let per_pod = if per_pod { models } else { &[] };
        match self.look(models, per_pod).await.remove(0).1 {
            Answer::Found(sample) => sample,
            other => panic!("{model} exists, and the answer is {other:?}"),
        }
    }

    /// The answer says the truth about a model, whether it exists or not.
    fn check_answer(&self, model: &ModelRef, answer: &Answer) {
        let now = self.fleet.clock().now();
        match (answer, self.pods(model)) {
            (Answer::Found(sample), Some(pods)) => {
                assert!(sample.as_of <= now, "{model} was looked at in the future");
                assert!(sample.complete, "{model}: a healthy look is complete");
                assert!(sample.failed.is_empty(), "{model}: {:?}", sample.failed);
                let mut found: Vec<PodName> =
                    sample.replicas.iter().map(|replica| replica.pod_name.clone()).collect();
                found.sort_unstable();
                assert_eq!(found, pods, "the live pods of {model}");
                for replica in &sample.replicas {
                    assert!(
                        replica.sampled_at <= now,
                        "{model}: {} was sampled in the future",
                        replica.pod_name
                    );
                    check_values(replica);
                }
                for row in &sample.load {
                    check_rates(model, row.rates);
                }
            }
            (Answer::Missing { as_of, .. }, None) => {
                assert!(*as_of <= now, "{model} was looked at in the future");
            }
            (Answer::Failed(error), _) => panic!("{model} failed on a healthy server: {error}"),
            (Answer::Missing { .. }, Some(_)) => panic!("{model} exists and is called missing"),
            (Answer::Found(sample), None) => {
                panic!("{model} does not exist, and this was found: {sample:?}")
            }
        }
    }

    fn the_name_is_short_lower_case_and_constant(&self) {
        let name = self.backend.name();
        assert!(!name.is_empty() && name.len() <= 32, "the name {name:?}");
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
            "the name {name:?} becomes a label and a key: use a-z, 0-9 and -"
        );
        assert_eq!(name, self.backend.name());
    }

    async fn what_is_tracked_is_pushed_and_what_is_missing_too(&self) {
        let Some(live) = self.backend.live() else { return };
        let mut models = self.known();
        models.push(self.absent());
        let pushed = live::pushed(live, &models).await;
        for model in &models {
            self.check_answer(model, &pushed[model]);
        }
    }

    async fn each_model_asked_is_answered_once(&self) {
        let mut models = self.known();
        models.push(self.absent());
        models.extend(self.known());
        for (model, answer) in self.look(&models, &[]).await {
            self.check_answer(&model, &answer);
        }
    }

    async fn an_empty_ask_has_an_empty_answer(&self) {
        assert!(self.look(&[], &[]).await.is_empty());
    }

    async fn a_batch_says_what_single_asks_say(&self) {
        for model in self.known().iter().chain([&self.absent()]) {
            self.check_answer(model, &self.look_at_one(model).await);
        }
    }

    async fn time_never_goes_back(&self) {
        let model = &self.populated().model;
        let first = self.sample(model, false).await;
        let second = self.sample(model, false).await;
        assert!(first.as_of <= second.as_of, "as_of orders answers");
    }

    async fn odd_names_are_missing_and_harm_nobody(&self) {
        let known = &self.populated().model;
        let mut models = odd_names_near(known);
        for model in &models {
            self.check_answer(model, &self.look_at_one(model).await);
        }
        models.push(known.clone());
        for (model, answer) in self.look(&models, &[]).await {
            self.check_answer(&model, &answer);
        }
    }

    async fn looks_at_once_do_not_mix(&self) {
        let (known, absent) = (self.known(), [self.absent()]);
        let (one, two, three) = tokio::join!(
            self.look(&known, &[]),
            self.look(&absent, &[]),
            self.look(&known[..1], &[]),
        );
        for (model, answer) in one.iter().chain(&two).chain(&three) {
            self.check_answer(model, answer);
        }
    }

    async fn without_time_nothing_is_called_missing(&self) {
        let (models, none) = (self.known(), HashSet::new());
        let mut ask = Ask::new(&models, &none);
        ask.time_left = Duration::ZERO;
        // An error says the truth, and so does whatever was found in no time.
        for (model, answer) in self.backend.fetch(ask).await.unwrap_or_default() {
            if let Answer::Found(_) | Answer::Missing { .. } = answer {
                self.check_answer(&model, &answer);
            }
        }
    }

    async fn a_dropped_look_leaves_nothing_half_done(&self) {
        let (models, none) = (self.known(), HashSet::new());
        // Dropped at its first wait, and at the wait for each of its first permits.
        let in_flight = self.backend.fetch(Ask::new(&models, &none));
        poll_once(in_flight).await;
        for granted in 0..4 {
            let permits = CountingPermits::granting(granted);
            let mut ask = Ask::new(&models, &none);
            ask.permits = &permits;
            tokio::select! {
                _ = self.backend.fetch(ask) => {}
                () = permits.exhausted() => {}
            }
            assert_eq!(permits.held(), 0, "permits are given back when a look is dropped");
        }
        self.each_model_asked_is_answered_once().await;
    }

    /// The engine grants a few at a time to all looks together: whoever waits for a permit while it holds one
    /// may wait for itself.
    async fn one_permit_at_a_time_is_enough(&self) {
        let (models, none, permits) = (self.known(), HashSet::new(), OneAtATime::new());
        let mut ask = Ask::new(&models, &none);
        ask.permits = &permits;
        let limit = ask.time_left * 2;
        let Ok(answers) = tokio::time::timeout(limit, self.backend.fetch(ask)).await else {
            panic!(
                "a look at {} models has not ended after {limit:?} with one permit at a time: does it wait \
                 for a permit while it holds another, or keep those of requests that have ended?",
                models.len()
            );
        };
        let answers = answers.unwrap_or_else(|error| panic!("with one permit at a time: {error}"));
        for (model, answer) in answers {
            assert!(
                !matches!(answer, Answer::Failed(_)),
                "with one permit at a time {model} was not answered: {answer:?}"
            );
        }
    }

    async fn a_probe_of_a_healthy_server_passes(&self) {
        let probe = self.backend.probe().await;
        let probe = probe.unwrap_or_else(|error| panic!("the probe could not begin: {error}"));
        assert!(!probe.checks.is_empty(), "the probe checked nothing");
        let mut ids = HashSet::new();
        for check in &probe.checks {
            assert!(
                check.id.contains('.') && ids.insert(&check.id),
                "{:?} is not a group.name of its own",
                check.id
            );
            assert_ne!(check.status, CheckStatus::Fail, "{check:?}");
        }
    }

    async fn no_request_is_sent_without_a_permit(&self) {
        let (models, none) = (self.known(), HashSet::new());
        let mut ask = Ask::new(&models, &none);
        ask.permits = &Refusing;
        match self.backend.fetch(ask).await {
            Err(error) => assert_eq!(error.kind(), ErrorKind::CircuitOpen, "{error}"),
            Ok(answers) => {
                assert_eq!(answers.len(), models.len());
                for (model, answer) in answers {
                    assert!(
                        matches!(answer, Answer::Failed(_)),
                        "{model} was answered without a request: {answer:?}"
                    );
                }
            }
        }
        let permits = CountingPermits::granting(usize::MAX);
        let mut ask = Ask::new(&models, &none);
        ask.permits = &permits;
        let answers = self.backend.fetch(ask).await;
        assert!(answers.is_ok(), "{answers:?}");
        assert!(permits.taken() > 0, "no permit taken");
        assert_eq!(permits.held(), 0, "permits kept");
        if self.backend.supports().list_models {
            let list = self.backend.list_models(&Refusing).await;
            let kind = list.as_ref().map_err(BackendError::kind);
            assert_eq!(kind, Err(ErrorKind::CircuitOpen), "listed without a permit: {list:?}");
        }
    }

    async fn a_batch_costs_little_more_than_one_model(&self) {
        let one = [self.populated().model.clone()];
        let mut many = self.known();
        many.extend((0..50).map(|number| {
            let namespace = one[0].namespace.clone();
            ModelRef::new(format!("conformance/absent-{number}"), namespace)
        }));
        let (for_one, for_many) = (self.requests(&one).await, self.requests(&many).await);
        assert!(
            for_many <= 2 * for_one,
            "{for_one} requests for one model, {for_many} for {}",
            many.len()
        );
    }

    async fn requests(&self, models: &[ModelRef]) -> usize {
        let (permits, none) = (CountingPermits::granting(usize::MAX), HashSet::new());
        let mut ask = Ask::new(models, &none);
        ask.permits = &permits;
        let answers = self.backend.fetch(ask).await;
        assert!(answers.is_ok(), "{answers:?}");
        permits.taken()
    }

    async fn the_list_is_what_exists(&self) {
        let list = self.backend.list_models(&Unlimited).await;
        let mut list = list.unwrap_or_else(|error| panic!("the list failed: {error}"));
        list.sort_unstable();
        let listed: Vec<&ModelRef> = list.iter().map(|known| &known.model).collect();
        let mut exists = self.known();
        exists.sort_unstable();
        assert_eq!(listed, exists.iter().collect::<Vec<_>>());
        for known in &list {
            let pods = self.pods(&known.model).map(|pods| pods.len());
            if let Some(replicas) = known.replicas {
                assert_eq!(usize::try_from(replicas).ok(), pods, "{}", known.model);
            }
        }
    }

    async fn a_list_that_is_not_supported_is_an_error(&self) {
        let list = self.backend.list_models(&Unlimited).await;
        let kind = list.as_ref().map_err(BackendError::kind);
        assert_eq!(kind, Err(ErrorKind::Unsupported), "{list:?}");
    }

    async fn the_load_of_a_model_is_one_row(&self) {
        let model = &self.populated().model;
        let sample = self.sample(model, false).await;
        let pods: Vec<_> = sample.load.iter().map(|row| &row.pod).collect();
        assert_eq!(pods, [&None], "rows of load of {model}");
    }

    async fn load_per_pod_is_a_row_for_each_pod(&self) {
        let FleetModel { model, pods } = self.populated();
        let sample = self.sample(model, true).await;
        let mut rows: Vec<&PodName> = sample
            .load
            .iter()
            .map(|row| row.pod.as_ref().expect("a row of load has its pod"))
            .collect();
        rows.sort_unstable();
        let mut pods: Vec<&PodName> = pods.iter().collect();
        pods.sort_unstable();
        assert_eq!(rows, pods, "rows of load of {model}");
        for row in &sample.load {
            check_rates(model, row.rates);
        }
    }

    async fn a_broken_server_is_an_error_and_never_missing(&self) {
        let mut models = self.known();
        models.push(self.absent());
        let none = HashSet::new();
        match self.backend.fetch(Ask::new(&models, &none)).await {
            Err(error) => self.check_error(&error),
            Ok(answers) => {
                assert_eq!(answers.len(), models.len(), "{answers:?}");
                for (model, answer) in answers {
                    match answer {
                        Answer::Failed(error) => self.check_error(&error),
                        other => panic!("a broken server says of {model}: {other:?}"),
                    }
                }
            }
        }
        if self.backend.supports().list_models {
            match self.backend.list_models(&Unlimited).await {
                Err(error) => self.check_error(&error),
                Ok(list) => panic!("a broken server lists {list:?}"),
            }
        }
        match self.backend.probe().await {
            Err(error) => self.check_error(&error),
            Ok(probe) => assert!(
                probe
                    .checks
                    .iter()
                    .any(|check| check.status == CheckStatus::Fail && check.remedy.is_some()),
                "the probe of a broken server says what is wrong and what to do: {probe:?}"
            ),
        }
    }

    fn check_error(&self, error: &BackendError) {
        assert_eq!(error.backend().as_str(), self.backend.name(), "{error}");
    }
}

/// Names that mean something to a query language, a path or a pattern, near one that exists.
fn odd_names_near(known: &ModelRef) -> Vec<ModelRef> {
    let id = known.model.as_str();
    let ids = [
        String::new(),
        " ".to_owned(),
        r#"""#.to_owned(),
        r"\".to_owned(),
        "{".to_owned(),
        "}".to_owned(),
        "`".to_owned(),
        "'".to_owned(),
        "$1".to_owned(),
        "%".to_owned(),
        "..".to_owned(),
        "*".to_owned(),
        ".*".to_owned(),
        ".+".to_owned(),
        "a|b".to_owned(),
        "a:b/c".to_owned(),
        "a\nb".to_owned(),
        "a\0b".to_owned(),
        "модель-模型-🦙".to_owned(),
        "x".repeat(1000),
        r#"x"} or {__name__=~".+"#.to_owned(),
        format!("{id}\"}} or vector(1) #"),
        format!("{id}|x"),
        format!("{id}.*"),
        format!("{id}\\"),
        format!("{id} "),
        format!("{id}-conformance"),
        format!("x{id}"),
        format!("{id}:{}", known.namespace),
    ];
    let mut models: Vec<ModelRef> =
        ids.into_iter().map(|id| ModelRef::new(id, known.namespace.clone())).collect();
    for namespace in ["", ".*", r#"x"} or {__name__=~".+"#, "conformance-nowhere"] {
        models.push(ModelRef::new(known.model.clone(), namespace));
    }
    models
}

fn check_values(replica: &ReplicaMetrics) {
    let pod = &replica.pod_name;
    for ratio in [replica.kv_cache_usage, replica.prefix_cache_hit_rate] {
        assert!(
            ratio.is_none_or(|ratio| (0.0..=1.0).contains(&ratio)),
            "{pod}: the ratio {ratio:?}"
        );
    }
    for mean in [replica.avg_input_tokens, replica.avg_output_tokens] {
        assert!(
            mean.is_none_or(|mean| mean.is_finite() && mean >= 0.0),
            "{pod}: the mean {mean:?}"
        );
    }
    assert_eq!(replica.variant_name, None, "{pod}: the engine's to set");
    assert_eq!(replica.accelerator_name, None, "{pod}: the engine's to set");
    assert_eq!(replica.cost, None, "{pod}: the engine's to set");
}

fn check_rates(model: &ModelRef, rates: LoadRates) {
    for rate in [
        rates.requests,
        rates.prompt_tokens,
        rates.generation_tokens,
        rates.ttft_seconds,
        rates.ttft_count,
        rates.itl_seconds,
        rates.itl_count,
    ] {
        assert!(
            rate.is_none_or(|rate| rate.is_finite() && rate >= 0.0),
            "{model}: the rate {rate:?}"
        );
    }
}

/// Runs a future up to its first wait, and drops it.
async fn poll_once(future: impl Future) {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let _ = future.as_mut().poll(context);
        std::task::Poll::Ready(())
    })
    .await;
}
