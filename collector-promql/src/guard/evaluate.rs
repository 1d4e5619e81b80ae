// SPDX-License-Identifier: Apache-2.0
//! Evaluating one query: the request to the server, its probe, and the decision what clients get.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use collector_core::Tick;
use promql_parser::util::escape_string;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Empty, Found, InstantQuery, OWN, Shared, hint, lock};
use crate::answer::{self, Content};
use crate::memory::{Answer, InFlight, Outcome};
use crate::probe::{self, Matched, Probe};
use crate::query::Query;
use crate::refusal::{Reason, Refusal};
use crate::selector::Selector;
use crate::upstream::{Passed, Request, Unanswered};
use crate::verdict::{Probed, Terms, Verdict};

/// Parameters that make Thanos and VictoriaMetrics refuse partial answers, and VictoriaMetrics return the newest
/// samples. Other servers ignore them.
pub(super) const COMPLETE: [(&str, &str); 3] =
    [("partial_response", "false"), ("deny_partial_response", "1"), ("nocache", "1")];
/// Models of a selector that other queries with it use too.
const MODELS_KEPT: usize = 64;
/// The path of instant queries.
const QUERY: &str = "api/v1/query";

/// What a request to the server is for. Each purpose has permits of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A guarded query.
    Guarded,
    /// A request that is passed on.
    Passed,
    /// A hint, for which nobody waits.
    Background,
}

impl Shared {
    /// Starts to evaluate a query in a task, so that cancelling a caller is safe.
    pub(super) fn dispatch(
        self: &Arc<Self>,
        key: String,
        query: Query,
        question: InstantQuery,
    ) -> InFlight {
        let (sender, in_flight) = watch::channel(None);
        let counted = Counted::new(self);
        tokio::spawn(async move {
            let shared = &counted.0;
            let outcome =
                shared.evaluate(&query, &question).await.unwrap_or_else(|outcome| outcome);
            lock(&shared.memory).store(&key, &outcome, shared.clock.now());
            sender.send_replace(Some(outcome));
        });
        in_flight
    }

    /// Evaluates a query. `Err` is an outcome too: the first step without an answer decides it.
    async fn evaluate(
        self: &Arc<Self>,
        query: &Query,
        question: &InstantQuery,
    ) -> Result<Outcome, Outcome> {
        let asked_at = self.clock.now();
        let answered = |body, computed_from: Option<Tick>| {
            let asked_at = computed_from.unwrap_or(asked_at);
            let fresh_from = computed_from.unwrap_or_else(|| self.clock.now());
            Outcome::Answered(Arc::new(Answer { body, asked_at, fresh_from }))
        };
        let request = request(question, &question.query);
        if question.empty == Empty::Pass || query.selectors.is_empty() {
            let (body, _) = self.instant(request, Purpose::Guarded).await?;
            return Ok(answered(body, None));
        }
        let probed = Probed::of(query, &self.anchors, |selector| self.selects_models(selector));
        let max_age = question.max_age.unwrap_or(self.settings.max_age);
        let terms = Terms { max_age, empty: question.empty };
        // The query and its probe are not evaluated at the same instant, so an empty answer is accepted only if both
        // say the same twice. A default, or the NaN of `scalar`, hides that the answer is empty.
        let hides_empty = query.need.has_default() || query.forms.hides_arithmetic;
        let mut is_repeated = false;
        loop {
            let computed = if is_repeated { None } else { self.computed(query, question).await };
            let computed_from = computed.as_ref().map(|computed| computed.asked_at);
            let (body, content, mut matched) = if let Some(computed) = computed {
                let mut others = probed.texts.clone();
                others.retain(|probe| !computed.matched.contains_key(&probe.text));
                let mut matched = self.probe(&others, question, false).await?;
                matched.extend(computed.matched);
                (computed.body, computed.content, matched)
            } else {
                let (instant, matched) = tokio::join!(
                    self.complete(request.clone()),
                    self.probe(&probed.texts, question, is_repeated || hides_empty)
                );
                let (body, content) = instant?;
                (body, content, matched?)
            };
            self.find_known_empty(query, &mut matched).await;
            if let Some(refusal) = self.unknown_model(query, &matched, question).await {
                return Ok(Outcome::Refused(Arc::new(refusal)));
            }
            let verdict = match probed.judge(&query.need, &matched, terms) {
                Ok(verdict) => verdict,
                Err(refusal) => {
                    let refusal = self.with_hint(refusal, query, question);
                    return Ok(Outcome::Refused(Arc::new(refusal)));
                }
            };
            if content == Content::NoSamples && !std::mem::replace(&mut is_repeated, true) {
                continue;
            }
            let warnings = match self.missing_models(query, &matched, question, max_age).await {
                Ok(warnings) => warnings,
                Err(refusal) => return Ok(Outcome::Refused(Arc::new(refusal))),
            };
            let is_empty = content == Content::NoSamples;
            let has_all = verdict.has_data && !verdict.is_known_empty;
            if is_empty && has_all && self.lacks_data(query, question).await? {
                return Ok(Outcome::Refused(Arc::new(without_result())));
            }
            let given = given(query, &verdict, &body, content, self.wall());
            return Ok(match given.and_then(|body| with_warnings(body, &warnings)) {
                Ok(body) => answered(body, computed_from),
                Err(refusal) => Outcome::Refused(Arc::new(refusal)),
            });
        }
    }

    /// Returns whether the result is empty for another reason than its filters. `Err`: that is not known.
    async fn lacks_data(&self, query: &Query, question: &InstantQuery) -> Result<bool, Outcome> {
        let Some(unfiltered) = query.unfiltered() else { return Ok(false) };
        match self.complete(request(question, &unfiltered.to_string())).await {
            Ok((_, content)) => Ok(content == Content::NoSamples),
            Err(failed @ Outcome::Failed(_)) => Err(failed),
            // Without the names of metrics, series may have the same labels.
            Err(_) => Ok(false),
        }
    }

    /// Sends an instant query. An answer that no client could use is an error.
    pub(super) async fn instant(
        &self,
        request: Request,
        purpose: Purpose,
    ) -> Result<(Bytes, Content), Outcome> {
        let failed = |text: String| Outcome::Failed(text.into());
        let passed = self.send(request, purpose).await.map_err(|error| {
            if error.too_large {
                Outcome::Refused(Arc::new(Refusal::new(Reason::TooLarge, error.message)))
            } else {
                failed(error.message)
            }
        })?;
        match passed.status {
            200 => match answer::content(&passed.body) {
                Ok(content) => Ok((passed.body, content)),
                Err(error) => Err(failed(format!("unexpected answer of the server: {error}"))),
            },
            400 | 422 if answer::is_document(&passed.body) => {
                Err(Outcome::Invalid(Arc::new(passed)))
            }
            status => Err(failed(format!("the server answered with status {status}"))),
        }
    }

    /// Sends an instant query of which a partial answer is an error, unless the request allows one: a sum without a part
    /// is too small, and what a probe does not find may exist.
    async fn complete(&self, request: Request) -> Result<(Bytes, Content), Outcome> {
        let allows = |(name, value): &(String, String)| {
            matches!(
                (&**name, &**value),
                ("partial_response", "true" | "1") | ("deny_partial_response", "false" | "0")
            )
        };
        let is_allowed = request.parameters.iter().any(allows);
        let (body, content) = self.instant(request, Purpose::Guarded).await?;
        match answer::incomplete(&body).filter(|_| !is_allowed) {
            Some(why) => {
                Err(Outcome::Failed(format!("the server's answer is partial: {why}").into()))
            }
            None => Ok((body, content)),
        }
    }

    /// Returns what each of these selectors matches: from memory, unless `repeat` is set or samples have become too old
    /// since, or from the server.
    async fn probe(
        &self,
        selectors: &[Probe],
        question: &InstantQuery,
        repeat: bool,
    ) -> Result<HashMap<String, Matched>, Outcome> {
        let now = self.clock.now();
        let scope = self.scope(question);
        let max_age = question.max_age.unwrap_or(self.settings.max_age);
        let mut matched: HashMap<String, Matched> = HashMap::new();
        if !repeat {
            let known = lock(&self.matched);
            let known = selectors.iter().filter_map(|Probe { text, by_model, .. }| {
                let (matched, read_at) = known.get(&(scope, text.clone()), now)?;
                let is_enough = (!by_model || matched.models.is_some())
                    && matched.decides_after(read_at.age(now), max_age);
                is_enough.then(|| (text.clone(), matched.clone()))
            });
            matched.extend(known);
        }
        let unknown = selectors.iter().filter(|selector| !matched.contains_key(&selector.text));
        let unknown: Vec<Probe> = unknown.cloned().collect();
        for (text, indices) in probe::probes(&unknown) {
            let request = request(question, &text);
            let (body, _) = self.complete(request).await.map_err(|outcome| match outcome {
                Outcome::Failed(_) => outcome,
                _ => Outcome::Failed("the server rejected the probe of the selectors".into()),
            })?;
            let read = probe::read(&body, indices).map_err(|text| Outcome::Failed(text.into()))?;
            let mut known = lock(&self.matched);
            for (index, mut of_selector) in read {
                let Probe { text, by_model, .. } = &unknown[index];
                if *by_model {
                    of_selector.models.get_or_insert_default();
                }
                if of_selector.models.as_ref().is_none_or(|models| models.len() <= MODELS_KEPT) {
                    known.insert((scope, text.clone()), (of_selector.clone(), now), now);
                }
                matched.insert(text.clone(), of_selector);
            }
        }
        Ok(matched)
    }

    /// Adds the hint to a refusal for a missing selector, or requests the hint for the next one.
    fn with_hint(
        self: &Arc<Self>,
        mut refusal: Refusal,
        query: &Query,
        question: &InstantQuery,
    ) -> Refusal {
        let is_it = |selector: &&Selector| refusal.text.contains(selector.text());
        let missing = query.selectors.iter().find(is_it);
        let Some(selector) = missing.filter(|_| refusal.reason == Reason::Missing) else {
            return refusal;
        };
        let key = self.scoped(selector.text(), question);
        let now = self.clock.now();
        let mut hints = lock(&self.hints);
        if let Some(known) = hints.get(&key, now) {
            if let Some(hint) = known {
                refusal.text = format!("{}. {hint}", refusal.text);
            }
            return refusal;
        }
        if let Some(text) = hint::query(selector) {
            // Other refusals do not request it again meanwhile.
            hints.insert(key.clone(), None, now);
            let request = request(question, &text);
            let (shared, selector) = (Arc::clone(self), selector.clone());
            tokio::spawn(async move {
                if let Ok((body, _)) = shared.instant(request, Purpose::Background).await {
                    let hint = hint::read(&body, &selector);
                    lock(&shared.hints).insert(key, hint, shared.clock.now());
                }
            });
        }
        refusal
    }

    /// Returns a refusal if a selector without series names a model that no backend knows and that has no history.
    pub(super) async fn unknown_model(
        &self,
        query: &Query,
        matched: &HashMap<String, Matched>,
        question: &InstantQuery,
    ) -> Option<Refusal> {
        if question.empty == Empty::Zero {
            return None;
        }
        let has_no_series = |text: &str| matched.get(text).is_none_or(|it| it.series == 0);
        let missing = query.selectors.iter().filter(|selector| has_no_series(selector.text()));
        let models: BTreeSet<&str> = missing.filter_map(|selector| selector.model()).collect();
        for model in models {
            if let Found::Unknown(nearest) = self.models.find(model).await
                && !self.has_history(model, question).await
            {
                let nearest = nearest.first().map(|name| format!("; did you mean {name:?}?"));
                let text = format!("no metrics of model {model:?}{}", nearest.unwrap_or_default());
                return Some(Refusal::new(Reason::UnknownModel, text));
            }
        }
        None
    }

    /// Returns whether the server had series of a model within the last week: a model that is scaled to zero has
    /// none now, and is not misspelt. If the server does not respond, the answer is yes; without a server it is no.
    async fn has_history(&self, model: &str, question: &InstantQuery) -> bool {
        if self.upstream.is_none() {
            return false;
        }
        let key = self.scoped(model, question);
        let now = self.clock.now();
        if let Some(has_history) = lock(&self.histories).get(&key, now) {
            return *has_history;
        }
        let request = request(question, &history_of(model));
        let Ok((_, content)) = self.complete(request).await else { return true };
        let has_history = content == Content::Samples;
        lock(&self.histories).insert(key, has_history, now);
        has_history
    }

    /// Sends a request to the server once there is a permit for its purpose.
    pub(super) async fn send(
        &self,
        request: Request,
        purpose: Purpose,
    ) -> Result<Passed, Unanswered> {
        let Some(upstream) = &self.upstream else {
            return Err(Unanswered::new("no PromQL server is configured: set prometheus.url"));
        };
        let within = self.settings.timeout;
        let permits = match purpose {
            Purpose::Guarded => &self.permits.guarded,
            Purpose::Passed => &self.permits.passed,
            Purpose::Background => &self.permits.background,
        };
        let Ok(Ok(_permit)) = timeout(within, permits.acquire()).await else {
            return Err(Unanswered::new("too many requests are waiting for the server"));
        };
        let answered = upstream.ask(request, within).await;
        if answered.is_ok() {
            self.has_responded.store(true, Ordering::Relaxed);
        }
        answered
    }
}

/// Counts an evaluation as in flight until this is dropped, also by a panic.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns the request of a query, with the parameters and headers of a client's question.
pub(super) fn request(question: &InstantQuery, query: &str) -> Request {
    let mut parameters = vec![("query".to_owned(), query.to_owned())];
    let others = question.parameters.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
    parameters.extend(others.cloned());
    for (name, value) in COMPLETE {
        if !parameters.iter().any(|(known, _)| known == name) {
            parameters.push((name.to_owned(), value.to_owned()));
        }
    }
    Request { headers: question.headers.clone(), ..Request::new(QUERY, parameters) }
}

/// Returns a query for a model's series of the last week, of those that every engine and endpoint picker has.
fn history_of(model: &str) -> String {
    let model = escape_string(model);
    let names = ".*(num_requests_running|num_running_reqs|request_total)";
    let labels = ["model_name", "target_model_name"];
    let parts = labels.map(|label| {
        format!(r#"count(present_over_time({{__name__=~"{names}",{label}="{model}"}}[7d]))"#)
    });
    parts.join(" or ")
}

/// Returns an answer with these warnings, unchanged if there are none.
fn with_warnings(body: Bytes, warnings: &[String]) -> Result<Bytes, Refusal> {
    if warnings.is_empty() {
        return Ok(body);
    }
    let body = answer::with_warnings(&body, warnings);
    body.map(Bytes::from).map_err(|error| Refusal::new(Reason::Backend, error))
}

pub(super) fn without_result() -> Refusal {
    Refusal::new(
        Reason::Missing,
        "the query has no result although its selectors match series: a rate needs two samples in its range, and \
         arithmetic needs matching labels",
    )
}

/// Returns the body that clients get, or why they get none although the verdict allows an answer.
pub(super) fn given(
    query: &Query,
    verdict: &Verdict,
    body: &Bytes,
    content: Content,
    now: f64,
) -> Result<Bytes, Refusal> {
    let is_empty = content == Content::NoSamples;
    if !verdict.is_known_empty {
        if is_empty && verdict.has_data && !query.forms.is_filter {
            return Err(without_result());
        }
        return Ok(body.clone());
    }
    // The server's result of "7 plus nothing" is nothing, or the default that is written for it, and not 7.
    let is_lost = query.forms.hides_arithmetic || (is_empty && query.forms.has_arithmetic);
    if verdict.has_data && is_lost {
        return Err(Refusal::new(
            Reason::Partial,
            format!(
                "one part of the query has data and another is empty ({}), so their combination has no result: write \
                 (...) or vector(0) around each part that may be empty",
                verdict.warnings.join("; ")
            ),
        ));
    }
    match query.value_if_empty.filter(|_| is_empty) {
        Some(value) => Ok(answer::of_value(now, value, &verdict.warnings).into()),
        None => answer::with_warnings(body, &verdict.warnings)
            .map(Bytes::from)
            .map_err(|error| Refusal::new(Reason::Backend, error)),
    }
}
