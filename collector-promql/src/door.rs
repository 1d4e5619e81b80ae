//! One door to a PromQL server: instant queries that are judged, for many callers at once.
//!
//! `flight` asks the server, once for all who ask the same; here is what callers get of it, and when.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use collector_core::{Clock, Tick, duration};
use metrics::{Unit, counter, describe_counter};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::anchor::Anchors;
use crate::answer::{self, Says};
use crate::limits::Limits;
use crate::memory::{Flight, Good, Memory, Outcome};
use crate::probe::Heard;
use crate::query::Query;
use crate::refusal::{RETRY_AFTER, Reason, Refusal};
use crate::upstream::{Passed, Request, Unanswered, Upstream};

/// Requests, by how they ended.
const REQUESTS: &str = "collector_promql_requests_total";
/// How long a failure is believed: a client that asks twice in a row asks the server once.
const FAILURE_LASTS: Duration = Duration::from_secs(1);
/// How far from now the time of a query may be and still mean now: clients send whole seconds, and their clocks differ.
const NOW: Duration = Duration::from_secs(30);
/// How far it may be and still come from a clock that is wrong.
const NEARLY_NOW: Duration = Duration::from_secs(600);
/// Requests at a time for judged queries, for what is passed, and for what nobody waits for; others wait for a place
/// within their own time.
const GUARDED_MAX: usize = 64;
const RAW_MAX: usize = 16;
const ASIDE_MAX: usize = 2;
/// Flights at a time: different queries that wait for the server.
const FLIGHTS_MAX: usize = 1024;
/// Parameters that are the door's, or that are told anew.
const OWN: [&str; 5] = ["query", "time", "timeout", "empty", "max_age"];

/// What a door does, and when.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// How long an answer is given again without asking. Default 5 s.
    pub ttl: Duration,
    /// How long a caller waits. Default 1 s: an autoscaler takes a slow error for no error.
    pub answer_within: Duration,
    /// The greatest age of the newest sample that a selector matches. Default 2 min.
    pub max_age: Duration,
    /// The greatest age of an answer that is given while the server does not answer. Default 2 min.
    pub max_stale: Duration,
    /// What one request to the server may take. Default 10 s.
    pub timeout: Duration,
    /// What a query may cost to parse.
    pub limits: Limits,
    /// Queries that are remembered. Default 10 000.
    pub max_entries: usize,
    /// Bytes of what is remembered. Default 64 MiB.
    pub max_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(5),
            answer_within: Duration::from_secs(1),
            max_age: Duration::from_secs(120),
            max_stale: Duration::from_secs(120),
            timeout: Duration::from_secs(10),
            limits: Limits::default(),
            max_entries: 10_000,
            max_bytes: 64 << 20,
        }
    }
}

/// What an answer without a sample means to who asks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Empty {
    /// An error, unless it is known to be a 0.
    #[default]
    Error,
    /// A 0, because who asks says so.
    Zero,
    /// Whatever the server answers is passed.
    Pass,
}

/// An instant query of a client.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct InstantQuery {
    /// The query.
    pub query: String,
    /// The time that it asks about, in Unix seconds; `None`: now.
    pub time: Option<f64>,
    /// What an answer without a sample means.
    pub empty: Empty,
    /// The greatest age of samples, if not that of the settings.
    pub max_age: Option<Duration>,
    /// All parameters as they came; those that the server needs are passed on.
    pub parameters: Vec<(String, String)>,
    /// Headers of the client that are passed on.
    pub headers: Vec<(String, String)>,
}

/// What the door answers.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Reply {
    /// 200, 400, 422 or 503.
    pub status: u16,
    /// A JSON document.
    pub body: Bytes,
    /// The age of an answer from memory.
    pub age: Option<Duration>,
    /// Why there is no answer.
    pub reason: Option<Reason>,
    /// When to ask again.
    pub retry_after: Option<Duration>,
}

/// Who knows which models there are.
#[async_trait]
pub trait Models: Send + Sync + 'static {
    /// Whether anybody knows a model of this id.
    async fn find(&self, model: &str) -> Found;
}

/// Whether a model is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// It is.
    Known,
    /// Nobody knows it; these are the nearest names.
    Unknown(Vec<String>),
    /// Nobody can tell now.
    CannotTell,
}

/// A door to one server. A clone is the same door.
#[derive(Clone)]
pub struct Door(Arc<Shared>);

/// A text, for those whose other parameters and headers are the same.
type Scoped = (u64, String);

struct Shared {
    upstream: Arc<dyn Upstream>,
    models: Arc<dyn Models>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    anchors: Anchors,
    memory: Mutex<Memory>,
    /// What was heard of selectors and anchors, for queries that share them.
    heard: Mutex<HashMap<Scoped, (Heard, Tick)>>,
    /// Which matcher is to blame that a selector finds nothing, and since when that is known or asked.
    blame: Mutex<HashMap<Scoped, (Option<String>, Tick)>>,
    /// Which models the server has never had.
    seen: Mutex<HashMap<Scoped, (bool, Tick)>>,
    hasher: RandomState,
    /// What is passed, for those who ask for the same at the same time.
    passing: Mutex<HashMap<String, raw::Passing>>,
    guarded: Semaphore,
    raw: Semaphore,
    aside: Semaphore,
    /// Flights that have not ended.
    flying: AtomicUsize,
    started: Tick,
    has_answered: AtomicBool,
}

impl Door {
    /// A door to a server. `models` tells misspelt models from silent ones.
    pub fn new(
        upstream: Arc<dyn Upstream>,
        models: Arc<dyn Models>,
        clock: Arc<dyn Clock>,
        anchors: Anchors,
        settings: Settings,
    ) -> Self {
        describe_counter!(REQUESTS, Unit::Count, "Requests to the PromQL API, by how they ended");
        counter!(REQUESTS, "door" => "query", "outcome" => "ok", "reason" => "").increment(0);
        let memory = Memory::new(settings.max_entries, settings.max_bytes);
        Self(Arc::new(Shared {
            upstream,
            models,
            started: clock.now(),
            clock,
            settings,
            anchors,
            memory: Mutex::new(memory),
            heard: Mutex::default(),
            blame: Mutex::default(),
            seen: Mutex::default(),
            hasher: RandomState::new(),
            passing: Mutex::default(),
            guarded: Semaphore::new(GUARDED_MAX),
            raw: Semaphore::new(RAW_MAX),
            aside: Semaphore::new(ASIDE_MAX),
            flying: AtomicUsize::new(0),
            has_answered: AtomicBool::new(false),
        }))
    }

    /// Answers an instant query within [`Settings::answer_within`], whatever the server does.
    ///
    /// Cancel safe: what was sent to the server goes on, and its answer is kept.
    pub async fn query(&self, question: InstantQuery) -> Reply {
        let reply = self.0.answer(question).await;
        let outcome = match (reply.status, reply.age) {
            (200, None) => "ok",
            (200, Some(_)) => "memory",
            _ if reply.reason.is_some() => "refused",
            _ => "failed",
        };
        let reason = reply.reason.map_or("", Reason::as_str);
        counter!(REQUESTS, "door" => "query", "outcome" => outcome, "reason" => reason)
            .increment(1);
        reply
    }

    /// Passes a request as it is, and its answer. Those who ask for the same within a second share one.
    ///
    /// Cancel safe: what was sent to the server goes on.
    ///
    /// # Errors
    /// When the server gives no answer.
    pub async fn pass(&self, request: Request) -> Result<Passed, Unanswered> {
        let passed = self.0.passed(request).await;
        let outcome = if passed.is_ok() { "passed" } else { "failed" };
        counter!(REQUESTS, "door" => "raw", "outcome" => outcome, "reason" => "").increment(1);
        passed
    }

    /// How many queries are remembered, and their bytes.
    pub fn remembered(&self) -> (usize, usize) {
        let memory = lock(&self.0.memory);
        (memory.len(), memory.bytes())
    }
}

impl Shared {
    async fn answer(self: &Arc<Self>, question: InstantQuery) -> Reply {
        let query = match Query::parse(&question.query, &self.settings.limits) {
            Ok(query) => query,
            Err(error) => {
                let text = format!("invalid parameter \"query\": {error}");
                return Reply::refused(&Refusal::new(Reason::BadQuery, text));
            }
        };
        if query.of_past || question.time.is_some_and(|time| !self.is_now(time)) {
            return self.history(question).await;
        }
        let key = self.key(&query, &question);
        let flight = {
            let now = self.clock.now();
            let mut memory = lock(&self.memory);
            let entry = memory.entry(&key, now);
            if let Some((outcome, at)) = &entry.last
                && at.age(now) < self.lasts(outcome)
            {
                let (outcome, good) = (outcome.clone(), entry.good.clone());
                drop(memory);
                return self.reply(&outcome, good.as_ref(), now);
            }
            match &entry.flight {
                // A flight whose end is gone without a word has panicked.
                Some(flight) if flight.has_changed().is_ok() => flight.clone(),
                _ if self.flying.load(Ordering::Relaxed) >= FLIGHTS_MAX => {
                    let text = format!("{FLIGHTS_MAX} other queries wait for the server");
                    return Reply::refused(&Refusal::new(Reason::Backend, text));
                }
                _ => {
                    let flight = self.start(key.clone(), query, question);
                    entry.flight = Some(flight.clone());
                    flight
                }
            }
        };
        let outcome = self.landing(flight).await;
        let now = self.clock.now();
        let good = lock(&self.memory).entry(&key, now).good.clone();
        self.reply(&outcome, good.as_ref(), now)
    }

    /// How long the end of a flight is believed.
    fn lasts(&self, outcome: &Outcome) -> Duration {
        match outcome {
            Outcome::Failed(_) => self.settings.ttl.min(FAILURE_LASTS),
            _ => self.settings.ttl,
        }
    }

    /// Waits for the end of a flight, for as long as a caller may wait.
    async fn landing(&self, mut flight: Flight) -> Outcome {
        let within = self.settings.answer_within;
        let landed = timeout(within, flight.wait_for(Option::is_some)).await;
        let outcome = match landed {
            Ok(Ok(outcome)) => outcome.clone(),
            Ok(Err(_)) => Some(Outcome::Failed("the request ended without an answer".into())),
            Err(_) => None,
        };
        outcome.unwrap_or_else(|| late(within))
    }

    /// A query about the past: passed, neither judged nor remembered.
    async fn history(&self, question: InstantQuery) -> Reply {
        let mut request = flight::request_of(&question);
        if let Some(time) = question.parameters.iter().find(|(name, _)| name == "time") {
            request.parameters.push(time.clone());
        }
        let within = self.settings.answer_within;
        let answered = timeout(within, self.instant(request, Lane::Raw)).await;
        match answered.unwrap_or_else(|_| Err(late(within))) {
            Ok((_, Says::Nothing))
                if question.time.is_some_and(|time| self.is_nearly_now(time)) =>
            {
                let text = "the query asks about a moment ago, for which nothing is judged, and its answer is empty: is a \
                            clock wrong?";
                Reply::refused(&Refusal::new(Reason::Missing, text))
            }
            Ok((body, _)) => Reply::given(body, None),
            Err(outcome) => self.reply(&outcome, None, self.clock.now()),
        }
    }

    /// What a caller gets for the end of a flight.
    fn reply(&self, outcome: &Outcome, good: Option<&Arc<Good>>, now: Tick) -> Reply {
        match outcome {
            Outcome::Good(good) => {
                let age = good.asked_at.age(now);
                Reply::given(good.body.clone(), (age >= Duration::from_secs(1)).then_some(age))
            }
            Outcome::Invalid(passed) => Reply {
                status: passed.status,
                body: passed.body.clone(),
                age: None,
                reason: None,
                retry_after: None,
            },
            Outcome::Refused(refusal) => Reply::refused(refusal),
            Outcome::Failed(error) => self.remembered(error, good, now),
        }
    }

    /// The last good answer while the server gives none, for as long as it may be used.
    fn remembered(&self, error: &str, good: Option<&Arc<Good>>, now: Tick) -> Reply {
        let limit = self.settings.max_stale;
        let old = |age: Duration| duration::format(Duration::from_secs(age.as_secs()));
        if let Some(good) = good {
            let age = good.asked_at.age(now);
            let warning = format!("from memory: {} old, because {error}", old(age));
            if age < limit
                && let Ok(body) = answer::with_warnings(&good.body, &[warning])
            {
                return Reply::given(body.into(), Some(age));
            }
        }
        let refusal = if !self.has_answered.load(Ordering::Relaxed) {
            let since = old(self.started.age(now));
            let text = format!("no backend has answered since the start {since} ago: {error}");
            Refusal::new(Reason::Starting, text)
        } else if let Some(good) = good {
            let (age, limit) = (old(good.asked_at.age(now)), duration::format(limit));
            let last = format!("the last answer to this query is {age} old");
            let text = format!("{error}, and {last}; the limit is {limit} (promql.max_stale)");
            Refusal::new(Reason::Backend, text)
        } else {
            Refusal::new(Reason::Backend, format!("{error}, and no earlier answer is known"))
        };
        Reply::refused(&refusal)
    }

    fn is_now(&self, time: f64) -> bool {
        (time - self.wall()).abs() <= NOW.as_secs_f64()
    }

    /// Whether a time is so near that an autoscaler with a wrong clock may mean now.
    fn is_nearly_now(&self, time: f64) -> bool {
        (time - self.wall()).abs() <= NEARLY_NOW.as_secs_f64()
    }

    /// What two questions have in common that have one answer.
    fn key(&self, query: &Query, question: &InstantQuery) -> String {
        let scope = self.scope_of(question);
        format!("{}\n{:?}\n{:?}\n{scope}", query.text, question.empty, question.max_age)
    }

    /// What decides an answer besides the query, as a number: clients may send much of it.
    fn scope_of(&self, question: &InstantQuery) -> u64 {
        self.hasher.hash_one(scope(question))
    }

    fn wall(&self) -> f64 {
        self.clock.wall().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    }
}

fn late(within: Duration) -> Outcome {
    let within = duration::format(within);
    Outcome::Failed(format!("the server did not answer within {within}").into())
}

/// What else than the query decides what a server answers: other parameters, and headers of the client.
fn scope(question: &InstantQuery) -> String {
    let others: Vec<_> =
        question.parameters.iter().filter(|(name, _)| !OWN.contains(&name.as_str())).collect();
    if others.is_empty() && question.headers.is_empty() {
        return String::new();
    }
    format!("\n{others:?}\n{:?}", question.headers)
}

impl Reply {
    fn given(body: Bytes, age: Option<Duration>) -> Self {
        Self { status: 200, body, age, reason: None, retry_after: None }
    }

    fn refused(refusal: &Refusal) -> Self {
        let status = refusal.reason.status();
        Self {
            status,
            body: refusal.document().into(),
            age: None,
            reason: Some(refusal.reason),
            retry_after: (status == 503).then_some(RETRY_AFTER),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

mod blame;
mod flight;
mod raw;

use flight::Lane;

#[cfg(test)]
mod tests;
