//! One flight: the question to the server, with its probe, and what becomes of the answers.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Empty, Found, InstantQuery, OWN, Shared, blame, lock};
use crate::answer::{self, Says};
use crate::memory::{Flight, Good, Outcome};
use crate::probe::{self, Heard};
use crate::query::Query;
use crate::refusal::{Reason, Refusal};
use crate::selector::Selector;
use crate::upstream::{Passed, Request, Unanswered};
use crate::verdict::{Judged, Questions, Terms};

/// What makes Thanos and VictoriaMetrics refuse to answer with a part, and VictoriaMetrics show the newest samples. Other
/// servers ignore it.
const COMPLETE: [(&str, &str); 3] =
    [("partial_response", "false"), ("deny_partial_response", "1"), ("nocache", "1")];
/// Selectors and anchors of which it is remembered whether they were heard.
const HEARD_MAX: usize = 10_000;
/// Selectors of which it is remembered who is to blame, and models of which it is known whether they are new.
const BLAME_MAX: usize = 1_000;
/// The path of instant queries.
const QUERY: &str = "api/v1/query";

impl Shared {
    pub(super) fn start(
        self: &Arc<Self>,
        key: String,
        query: Query,
        question: InstantQuery,
    ) -> Flight {
        let (ended, flight) = watch::channel(None);
        let shared = Arc::clone(self);
        let flying = Flying::new(Arc::clone(self));
        tokio::spawn(async move {
            let _flying = flying;
            let outcome = shared.fly(&query, &question).await;
            lock(&shared.memory).landed(&key, &outcome, shared.clock.now());
            ended.send_replace(Some(outcome));
        });
        flight
    }

    /// Asks the server, and judges what it says.
    async fn fly(self: &Arc<Self>, query: &Query, question: &InstantQuery) -> Outcome {
        let asked_at = self.clock.now();
        let request = request_of(question);
        if question.empty == Empty::Pass || query.selectors.is_empty() {
            return match self.instant(request, Lane::Guarded).await {
                Ok((body, _)) => Outcome::Good(Arc::new(Good { body, asked_at })),
                Err(outcome) => outcome,
            };
        }
        let questions = Questions::of(query, &self.anchors);
        let max_age = question.max_age.unwrap_or(self.settings.max_age);
        let terms = Terms { max_age, empty: question.empty };
        // Query and probe are two moments: nothing is believed only when both are asked again and say the same.
        let mut is_second_look = false;
        loop {
            let (answered, heard) = tokio::join!(
                self.instant(request.clone(), Lane::Guarded),
                self.hear(&questions.texts, question, is_second_look)
            );
            let (body, says) = match answered {
                Ok(answered) => answered,
                Err(outcome) => return outcome,
            };
            let heard = match heard {
                Ok(heard) => heard,
                Err(error) => return Outcome::Failed(error.into()),
            };
            if let Some(refusal) = self.misspelt(query, &heard, question).await {
                return Outcome::Refused(Arc::new(refusal));
            }
            let judged = match questions.judge(&query.need, &heard, terms) {
                Ok(judged) => judged,
                Err(refusal) => {
                    return Outcome::Refused(Arc::new(self.blamed(refusal, query, question)));
                }
            };
            if says == Says::Nothing && !std::mem::replace(&mut is_second_look, true) {
                continue;
            }
            return match given(query, &judged, &body, says, self.wall()) {
                Ok(body) => Outcome::Good(Arc::new(Good { body, asked_at })),
                Err(refusal) => Outcome::Refused(Arc::new(refusal)),
            };
        }
    }

    /// Asks an instant query. What cannot be an answer is the end of the flight.
    pub(super) async fn instant(
        &self,
        request: Request,
        lane: Lane,
    ) -> Result<(Bytes, Says), Outcome> {
        let passed = match self.ask(request, lane).await {
            Ok(passed) => passed,
            Err(error) if error.too_large => {
                return Err(Outcome::Refused(Arc::new(Refusal::new(
                    Reason::TooLarge,
                    error.message,
                ))));
            }
            Err(error) => return Err(Outcome::Failed(error.message.into())),
        };
        match passed.status {
            200 => match answer::says(&passed.body) {
                Ok(says) => Ok((passed.body, says)),
                Err(error) => {
                    Err(Outcome::Failed(format!("the server's answer is unusable: {error}").into()))
                }
            },
            400 | 422 if answer::is_document(&passed.body) => {
                Err(Outcome::Invalid(Arc::new(passed)))
            }
            status => {
                Err(Outcome::Failed(format!("the server answered with status {status}").into()))
            }
        }
    }

    /// What these texts match now, from what was heard within the ttl or from the server.
    async fn hear(
        &self,
        texts: &[String],
        question: &InstantQuery,
        anew: bool,
    ) -> Result<HashMap<String, Heard>, String> {
        let now = self.clock.now();
        let mut heard: HashMap<String, Heard> = HashMap::new();
        let scope = self.scope_of(question);
        if !anew {
            let known = lock(&self.heard);
            for text in texts {
                let known = known.get(&(scope, text.clone()));
                if let Some((of, _)) = known.filter(|(_, at)| at.age(now) < self.settings.ttl) {
                    heard.insert(text.clone(), *of);
                }
            }
        }
        let unknown: Vec<String> =
            texts.iter().filter(|text| !heard.contains_key(*text)).cloned().collect();
        for (probe, places) in probe::probes(&unknown) {
            let mut request = request_of(question);
            request.parameters.retain(|(name, _)| name != "query");
            request.parameters.insert(0, ("query".to_owned(), probe));
            let (body, _) = match self.instant(request, Lane::Guarded).await {
                Ok(answered) => answered,
                Err(Outcome::Failed(error)) => return Err(error.to_string()),
                Err(_) => return Err("the server refuses to say what it has".to_owned()),
            };
            for (place, of) in probe::read(&body, places)? {
                heard.insert(unknown[place].clone(), of);
            }
        }
        let mut known = lock(&self.heard);
        if known.len() > HEARD_MAX {
            known.retain(|_, (_, at)| at.age(now) < self.settings.ttl);
            if known.len() > HEARD_MAX {
                known.clear();
            }
        }
        let new = unknown
            .iter()
            .filter_map(|text| Some(((scope, text.clone()), (*heard.get(text)?, now))));
        known.extend(new);
        Ok(heard)
    }

    /// A refusal for what is missing, with the matcher that is to blame once that is known.
    fn blamed(
        self: &Arc<Self>,
        mut refusal: Refusal,
        query: &Query,
        question: &InstantQuery,
    ) -> Refusal {
        let is_it = |selector: &&Selector| refusal.text.contains(selector.text());
        let selector =
            query.selectors.iter().find(is_it).filter(|_| refusal.reason == Reason::Missing);
        let Some(selector) = selector else { return refusal };
        let key = (self.scope_of(question), selector.text().to_owned());
        let now = self.clock.now();
        let mut blame = lock(&self.blame);
        blame.retain(|_, (_, at)| at.age(now) < blame::LASTS);
        if let Some((known, _)) = blame.get(&key) {
            if let Some(known) = known {
                refusal.text = format!("{}. {known}", refusal.text);
            }
            return refusal;
        }
        let Some(text) = blame::query(selector) else { return refusal };
        if blame.len() < BLAME_MAX {
            blame.insert(key.clone(), (None, now));
            let mut request = request_of(question);
            request.parameters.retain(|(name, _)| name != "query");
            request.parameters.insert(0, ("query".to_owned(), text));
            let (shared, selector) = (Arc::clone(self), selector.clone());
            tokio::spawn(async move {
                if let Ok((body, _)) = shared.instant(request, Lane::Aside).await {
                    let known = blame::read(&body, &selector);
                    lock(&shared.blame).insert(key, (known, shared.clock.now()));
                }
            });
        }
        refusal
    }

    /// The refusal of a query that names a model which nobody knows, and of which the server has no memory.
    async fn misspelt(
        &self,
        query: &Query,
        heard: &HashMap<String, Heard>,
        question: &InstantQuery,
    ) -> Option<Refusal> {
        if question.empty == Empty::Zero {
            return None;
        }
        let is_silent = |text: &str| heard.get(text).is_none_or(|heard| heard.series == 0);
        let silent = query.selectors.iter().filter(|selector| is_silent(selector.text()));
        let models: BTreeSet<&str> = silent.filter_map(|selector| selector.model()).collect();
        for model in models {
            if let Found::Unknown(nearest) = self.models.find(model).await
                && self.is_new(model, question).await
            {
                let near = nearest.first().map(|first| format!("; nearest: {first:?}"));
                let text = format!("there is no model {model:?}{}", near.unwrap_or_default());
                return Some(Refusal::new(Reason::UnknownModel, text));
            }
        }
        None
    }

    /// Whether the server has nothing of a model in a week. One that is scaled to zero has no series now, and is not
    /// misspelt. An answer holds for ten minutes; who cannot tell says no.
    async fn is_new(&self, model: &str, question: &InstantQuery) -> bool {
        let key = (self.scope_of(question), model.to_owned());
        let now = self.clock.now();
        {
            let mut seen = lock(&self.seen);
            seen.retain(|_, (_, at)| at.age(now) < blame::LASTS);
            if let Some((is_new, _)) = seen.get(&key) {
                return *is_new;
            }
        }
        let mut request = request_of(question);
        request.parameters.retain(|(name, _)| name != "query");
        request.parameters.insert(0, ("query".to_owned(), past_of(model)));
        let Ok((_, says)) = self.instant(request, Lane::Guarded).await else { return false };
        let is_new = says == Says::Nothing;
        let mut seen = lock(&self.seen);
        if seen.len() < BLAME_MAX {
            seen.insert(key, (is_new, now));
        }
        is_new
    }

    /// Sends a request, when its lane has a place for it.
    pub(super) async fn ask(&self, request: Request, lane: Lane) -> Result<Passed, Unanswered> {
        let within = self.settings.timeout;
        let places = match lane {
            Lane::Guarded => &self.guarded,
            Lane::Raw => &self.raw,
            Lane::Aside => &self.aside,
        };
        let place = timeout(within, places.acquire()).await;
        let Ok(Ok(_place)) = place else {
            return Err(Unanswered::new("too many requests wait for the server"));
        };
        let answered = self.upstream.ask(request, within).await;
        if answered.is_ok() {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        answered
    }
}

/// Counts a flight until it ends, however it does.
struct Flying(Arc<Shared>);

impl Flying {
    fn new(shared: Arc<Shared>) -> Self {
        shared.flying.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.flying.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whom a request is for. Each has places of its own, so that dashboards do not keep autoscalers waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    /// A judged query.
    Guarded,
    /// What is passed.
    Raw,
    /// What nobody waits for.
    Aside,
}

/// What the server had of a model within a week: the series that engines and pickers always have of one.
fn past_of(model: &str) -> String {
    let model = promql_parser::util::escape_string(model);
    let names = ".*(num_requests_running|num_running_reqs|request_total)";
    let labels = ["model_name", "target_model_name"];
    let parts = labels.map(|label| {
        format!(r#"count(present_over_time({{__name__=~"{names}",{label}="{model}"}}[7d]))"#)
    });
    parts.join(" or ")
}

/// The answer that is given, of an answer that may be given.
fn given(
    query: &Query,
    judged: &Judged,
    body: &Bytes,
    says: Says,
    now: f64,
) -> Result<Bytes, Refusal> {
    if !judged.is_empty {
        if says == Says::Something || query.forms.is_filter || !judged.is_heard {
            return Ok(body.clone());
        }
        return Err(Refusal::new(
            Reason::Missing,
            "the query has no answer although its selectors match something: a rate needs two samples within its range, \
             and arithmetic needs labels that match",
        ));
    }
    // One side of a sum is 0, and the server's answer is nothing, or the default that stands for it: the other side is
    // lost.
    let is_lost =
        query.forms.hides_arithmetic || (says == Says::Nothing && query.forms.has_arithmetic);
    if judged.is_heard && is_lost {
        return Err(Refusal::new(
            Reason::Partial,
            format!(
                "one part of the query is heard and another is empty ({}), and arithmetic of the two has no answer: \
                 write (...) or vector(0) around each part that may be empty",
                judged.warnings.join("; ")
            ),
        ));
    }
    if says == Says::Something {
        return answer::with_warnings(body, &judged.warnings)
            .map(Bytes::from)
            .map_err(|error| Refusal::new(Reason::Backend, error));
    }
    match query.value_of_nothing {
        Some(value) => Ok(answer::of_value(now, value, &judged.warnings).into()),
        None => answer::with_warnings(body, &judged.warnings)
            .map(Bytes::from)
            .map_err(|error| Refusal::new(Reason::Backend, error)),
    }
}

/// The request that asks the server what a client asks.
pub(super) fn request_of(question: &InstantQuery) -> Request {
    let mut parameters = vec![("query".to_owned(), question.query.clone())];
    let others = question.parameters.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
    parameters.extend(others.cloned());
    for (name, value) in COMPLETE {
        if !parameters.iter().any(|(known, _)| known == name) {
            parameters.push((name.to_owned(), value.to_owned()));
        }
    }
    Request { headers: question.headers.clone(), ..Request::new(QUERY, parameters) }
}
