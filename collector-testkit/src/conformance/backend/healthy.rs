// SPDX-License-Identifier: Apache-2.0
//! What a backend says of a healthy server.

use std::collections::HashSet;

use collector_core::{
    BackendError, ErrorKind, KnownModel, ListAsk, ModelRef, Operation, ProbeAsk, Urgency,
};
use std::time::Duration;

use super::names::odd_names_near;
use super::permits::Permitting;
use super::{Suite, Verdict, demand};

impl Suite<'_> {
    pub(super) async fn healthy_cases(&self) {
        let supports = self.backend.supports();
        self.runs("the_name_is_short_lower_case_and_constant", async { self.name() }).await;
        self.runs("limits_and_abilities_are_constant_and_can_be", async { self.abilities() }).await;
        self.runs("each_model_asked_is_answered_once", self.each_once()).await;
        self.runs("an_empty_ask_has_an_empty_answer", self.empty_ask()).await;
        self.runs("a_batch_says_what_single_asks_say", self.singly()).await;
        self.runs("a_background_fetch_says_the_same", self.background()).await;
        self.runs("time_never_goes_back", self.time()).await;
        self.runs("odd_names_are_missing_and_harm_nobody", self.odd_names()).await;
        self.runs("fetches_at_once_do_not_mix", self.at_once()).await;
        self.runs("without_time_nothing_is_called_missing", self.without_time()).await;
        self.runs("a_probe_of_a_healthy_server_passes", self.healthy_probe()).await;
        if supports.list_models {
            self.runs("the_list_is_what_exists", self.list()).await;
        } else {
            self.skips("the_list_is_what_exists", "supports().list_models is false");
            self.runs("a_list_that_is_not_supported_is_an_error", self.no_list()).await;
        }
        if supports.load_per_pod {
            self.runs("load_per_pod_is_a_row_for_each_pod", self.load_per_pod()).await;
        } else {
            let reason = "supports().load_per_pod is false";
            self.skips("load_per_pod_is_a_row_for_each_pod", reason);
        }
    }

    fn name(&self) -> Verdict {
        let name = self.backend.name();
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        demand!(
            (1..=32).contains(&name.len()) && name.bytes().all(fits),
            "expected at most 32 of a-z, 0-9 and -, because the name becomes a label and a key; got {name:?}"
        );
        let again = self.backend.name();
        demand!(name == again, "expected the same name each time, got {name:?} and {again:?}");
        Ok(())
    }

    fn abilities(&self) -> Verdict {
        let (supports, limits) = (self.backend.supports(), self.backend.limits());
        demand!(supports == self.backend.supports(), "expected the same supports() each time");
        demand!(limits == self.backend.limits(), "expected the same limits() each time");
        demand!(
            supports.load || !supports.load_per_pod,
            "expected load where there is load_per_pod, got {supports:?}"
        );
        demand!(
            !limits.timeout.is_zero() && limits.timeout <= Duration::from_secs(600),
            "expected a time-out of one request between 0 and 10 minutes, got {:?}",
            limits.timeout
        );
        Ok(())
    }

    async fn each_once(&self) -> Verdict {
        let mut models = self.known_and_absent();
        models.extend(self.known());
        self.fetch_truth(self.ask(&models)).await
    }

    async fn empty_ask(&self) -> Verdict {
        self.fetch_truth(self.ask(&[])).await
    }

    async fn singly(&self) -> Verdict {
        for model in self.known_and_absent() {
            self.fetch_truth(self.ask(&[model])).await?;
        }
        Ok(())
    }

    async fn background(&self) -> Verdict {
        let models = self.known_and_absent();
        let mut ask = self.ask(&models);
        ask.urgency = Urgency::Background;
        self.fetch_truth(ask).await
    }

    async fn time(&self) -> Verdict {
        let model = &self.populated().model;
        let (first, second) = (self.sample(model).await?, self.sample(model).await?);
        demand!(
            first.as_of <= second.as_of,
            "{model}: expected as_of of a later fetch to be no earlier than {:?}, got {:?}",
            first.as_of,
            second.as_of
        );
        Ok(())
    }

    async fn odd_names(&self) -> Verdict {
        let known = &self.populated().model;
        let mut models = odd_names_near(known);
        models.retain(|model| self.described(model).is_none());
        for model in &models {
            self.fetch_truth(self.ask(std::slice::from_ref(model))).await?;
        }
        models.push(known.clone());
        self.fetch_truth(self.ask(&models)).await
    }

    async fn at_once(&self) -> Verdict {
        let (known, absent) = (self.known(), [self.absent()]);
        // More than the engine has permits for.
        let permits = Permitting::at_once(8);
        let many = (0..12).map(|number| {
            let models: &[ModelRef] = if number % 3 == 0 { &absent } else { &known };
            let mut ask = self.ask(models);
            ask.permits = &permits;
            self.fetch_truth(ask)
        });
        let many: Vec<_> = many.map(Box::pin).collect();
        super::watch::join_all(many).await.into_iter().collect()
    }

    async fn without_time(&self) -> Verdict {
        let models = self.known();
        let mut ask = self.ask(&models);
        ask.time_left = Duration::ZERO;
        let answers = self.call(Operation::Fetch, ask.time_left, self.backend.fetch(ask)).await?;
        // An error says the truth, and so does whatever was found in no time.
        for (model, answer) in answers.unwrap_or_default() {
            demand!(
                !matches!(answer, collector_core::Answer::Missing { .. }),
                "{model}: expected an error where there is no time to ask, got Missing"
            );
        }
        Ok(())
    }

    pub(super) async fn healthy_probe(&self) -> Verdict {
        let ask = ProbeAsk::new(&*self.clock);
        let probe = self.call(Operation::Probe, ask.time_left, self.backend.probe(ask)).await?;
        let probe = probe.map_err(|error| format!("expected checks, got the error: {error}"))?;
        self.judge_probe(&probe, true)
    }

    async fn list(&self) -> Verdict {
        let list = self.list_with(ListAsk::new(&*self.clock)).await?;
        let mut list = list.map_err(|error| format!("expected a list, got the error: {error}"))?;
        list.sort_unstable();
        let listed: Vec<&ModelRef> = list.iter().map(|known| &known.model).collect();
        let mut exists = self.known();
        exists.sort_unstable();
        demand!(
            listed.iter().copied().eq(&exists),
            "expected a list of what exists, each once, {exists:?}; got {listed:?}"
        );
        for known in &list {
            let pods = self.described(&known.model).map_or(0, |known| known.pods.len());
            demand!(
                known.replicas.is_none_or(|replicas| usize::try_from(replicas) == Ok(pods)),
                "{}: expected {pods} replicas in the list, or None; got {:?}",
                known.model,
                known.replicas
            );
        }
        Ok(())
    }

    pub(super) async fn list_with(
        &self,
        ask: ListAsk<'_>,
    ) -> Verdict<Result<Vec<KnownModel>, BackendError>> {
        self.call(Operation::ListModels, ask.time_left, self.backend.list_models(ask)).await
    }

    async fn no_list(&self) -> Verdict {
        let list = self.list_with(ListAsk::new(&*self.clock)).await?;
        let kind = list.as_ref().map_err(BackendError::kind);
        demand!(
            kind == Err(ErrorKind::Unsupported),
            "expected an error of the kind Unsupported, as supports() says; got {list:?}"
        );
        Ok(())
    }

    async fn load_per_pod(&self) -> Verdict {
        let models = self.known_and_absent();
        let all: HashSet<ModelRef> = models.iter().cloned().collect();
        self.fetch_truth(self.ask(&models).with_load_per_pod(&all)).await?;
        // Of some, and not of the others.
        let model = &self.populated().model;
        let one = HashSet::from([model.clone()]);
        self.fetch_truth(self.ask(&models).with_load_per_pod(&one)).await?;
        let ask = self.ask(std::slice::from_ref(model)).with_load_per_pod(&one);
        let sample = self.fetch(ask).await?.remove(model);
        let Some(collector_core::Answer::Found(sample)) = sample else {
            return Err(format!("{model}: expected Found, because it exists; got {sample:?}"));
        };
        demand!(
            sample.load.pods().len() == sample.replicas.len(),
            "{model}: expected a row of load for each of {} pods, got {}",
            sample.replicas.len(),
            sample.load.pods().len()
        );
        Ok(())
    }
}
