// SPDX-License-Identifier: Apache-2.0
//! A guard in front of one PromQL server: what callers get for a query, and how long they wait.
//!
//! `local` answers queries over held series. `evaluate` sends other queries to the server, once for all concurrent
//! callers of the same query, and `whole` reads a metric once for many queries.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, UNIX_EPOCH};

use collector_core::{Clock, Tick, duration};
use metrics::{Unit, counter, describe_counter};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::anchor::Anchors;
use crate::answer::{self, Content};
use crate::local::{HeldSeries, NotLocal};
use crate::memory::{Answer, Facts, InFlight, Memory, Outcome, Scoped};
use crate::probe::Matched;
use crate::query::Query;
use crate::refusal::{Reason, Refusal};
use crate::upstream::{Passed, Request, Unanswered, Upstream};

mod evaluate;
mod hint;
mod local;
mod partial;
mod passed;
mod types;
pub(crate) mod whole;

use evaluate::Purpose;
pub use types::{Empty, Found, InstantQuery, Models, Partial, Reply, Settings};

/// Requests to the API, by outcome.
const REQUESTS: &str = "collector_promql_requests_total";
/// How long a failure is returned again without a request: KEDA repeats each failed query at once.
const FAILURE_TTL: Duration = Duration::from_secs(1);
/// The largest difference between the time of a query and ours that counts as now: clients send whole seconds, and
/// clocks differ.
const NOW: Duration = Duration::from_secs(30);
/// The longest time ago that may come from a wrong clock. A time in the future always does.
const WRONG_CLOCK: Duration = Duration::from_secs(600);
/// Concurrent requests to the server, by purpose. Others wait for a permit within their own time.
const GUARDED_MAX: usize = 64;
const PASSED_MAX: usize = 16;
const BACKGROUND_MAX: usize = 2;
/// Different queries in flight.
const IN_FLIGHT_MAX: usize = 1024;
/// Selectors whose last match is remembered.
const MATCHED_MAX: usize = 10_000;
/// Selectors with a hint, and models whose history is known.
const HINTS_MAX: usize = 1_000;
/// How long hints and histories are valid.
const HINT_TTL: Duration = Duration::from_secs(600);
/// Parameters that the guard reads or sets itself.
const OWN: [&str; 5] = ["query", "time", "timeout", "empty", "max_age"];

/// A guard over held series and one server. Clones share everything.
#[derive(Clone)]
pub struct Guard(Arc<Shared>);

struct Shared {
    upstream: Option<Arc<dyn Upstream>>,
    held: Option<Arc<dyn HeldSeries>>,
    models: Arc<dyn Models>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    anchors: Anchors,
    memory: Mutex<Memory>,
    /// Answers of `memory` by the text of the query as clients write it, so that it is not parsed again while its answer is
    /// current. `memory` alone keeps them.
    current: Mutex<Facts<Weak<Answer>>>,
    /// What selectors and anchors last matched, and when that was read, for queries that share them.
    matched: Mutex<Facts<(Matched, Tick)>>,
    /// For selectors without series, which matcher is the cause; `None` while that is not known.
    hints: Mutex<Facts<Option<String>>>,
    /// Whether the server had a model in the last week.
    histories: Mutex<Facts<bool>>,
    /// The metrics that many queries select from.
    whole: Mutex<whole::Metrics>,
    /// When selectors of several models last matched each of them.
    last_matched: Mutex<Facts<partial::LastMatched>>,
    hasher: RandomState,
    /// Passed requests that identical ones can join.
    passed: Mutex<HashMap<String, passed::InFlight>>,
    permits: Permits,
    in_flight: AtomicUsize,
    started_at: Tick,
    has_responded: AtomicBool,
}

/// Permits for requests to the server. Each purpose has its own, so that dashboards cannot delay autoscalers.
struct Permits {
    guarded: Semaphore,
    passed: Semaphore,
    background: Semaphore,
}

impl Guard {
    /// Creates a guard. Queries that need nothing but series of `held` are answered from these; others are sent to
    /// `upstream`, and refused if there is none. `models` distinguishes misspelt models from models without series.
    pub fn new(
        upstream: Option<Arc<dyn Upstream>>,
        held: Option<Arc<dyn HeldSeries>>,
        models: Arc<dyn Models>,
        clock: Arc<dyn Clock>,
        anchors: Anchors,
        settings: Settings,
    ) -> Self {
        describe_counter!(REQUESTS, Unit::Count, "Requests to the PromQL API, by outcome");
        counter!(REQUESTS, "door" => "query", "outcome" => "ok", "reason" => "").increment(0);
        let memory = Memory::new(settings.max_entries, settings.max_bytes);
        Self(Arc::new(Shared {
            upstream,
            held,
            models,
            started_at: clock.now(),
            clock,
            anchors,
            memory: Mutex::new(memory),
            current: Mutex::new(Facts::new(settings.ttl, settings.max_entries)),
            matched: Mutex::new(Facts::new(settings.ttl, MATCHED_MAX)),
            hints: Mutex::new(Facts::new(HINT_TTL, HINTS_MAX)),
            histories: Mutex::new(Facts::new(HINT_TTL, HINTS_MAX)),
            whole: Mutex::default(),
            last_matched: Mutex::new(Facts::new(
                settings.vanished_after * 2,
                partial::SELECTORS_MAX,
            )),
            settings,
            hasher: RandomState::new(),
            passed: Mutex::default(),
            permits: Permits {
                guarded: Semaphore::new(GUARDED_MAX),
                passed: Semaphore::new(PASSED_MAX),
                background: Semaphore::new(BACKGROUND_MAX),
            },
            in_flight: AtomicUsize::new(0),
            has_responded: AtomicBool::new(false),
        }))
    }

    /// Remembers which models the queries of another guard have matched, if it had the same server: one that has vanished
    /// is missed after a reload too. Call it before the guard is used.
    #[must_use]
    pub fn after(mut self, former: &Self) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.0) {
            // The keys are hashes.
            shared.hasher = former.0.hasher.clone();
            lock(&shared.last_matched).take_over(&lock(&former.0.last_matched));
        }
        self
    }

    /// Answers an instant query within [`Settings::answer_within`], whatever the server does.
    ///
    /// Cancel safe: the request to the server continues, and its answer is stored.
    pub async fn query(&self, question: InstantQuery) -> Reply {
        let reply = self.0.answer(question).await;
        let outcome = match (reply.status, reply.age) {
            (200, _) if reply.is_local => "local",
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

    /// Passes a request to the server and returns its answer unchanged. Identical requests within a second share one.
    ///
    /// Cancel safe: the request to the server continues.
    ///
    /// # Errors
    /// When the server does not respond.
    pub async fn pass(&self, request: Request) -> Result<Passed, Unanswered> {
        let passed = self.0.passed(request).await;
        let outcome = if passed.is_ok() { "passed" } else { "failed" };
        counter!(REQUESTS, "door" => "raw", "outcome" => outcome, "reason" => "").increment(1);
        passed
    }
}

impl Shared {
    async fn answer(self: &Arc<Self>, question: InstantQuery) -> Reply {
        let is_now = question.time.is_none_or(|time| self.is_within(NOW, time));
        let asked = self.asked(&question);
        if is_now && let Some(reply) = self.current(&asked) {
            return reply;
        }
        let query = match Query::parse(&question.query, &self.settings.limits) {
            Ok(query) => query,
            Err(error) => {
                let text = format!("invalid parameter \"query\": {error}");
                return Reply::refused(&Refusal::new(Reason::BadQuery, text));
            }
        };
        if query.of_past || !is_now {
            if self.upstream.is_none() {
                return Self::without_server("it is about the past");
            }
            return self.past(question, &query).await;
        }
        match self.local(&query, &question).await {
            Ok(reply) => return reply,
            Err(NotLocal(why)) if self.upstream.is_none() => return Self::without_server(&why),
            Err(_) => {}
        }
        let question = self.allowing_partial(question);
        let key = self.key(&query, &question);
        let in_flight = {
            let now = self.clock.now();
            let mut memory = lock(&self.memory);
            let entry = memory.entry(&key, now);
            if let Some((outcome, stored_at)) = &entry.last
                && stored_at.age(now) < self.ttl_of(outcome)
            {
                let (outcome, answer, stored_at) =
                    (outcome.clone(), entry.answer.clone(), *stored_at);
                drop(memory);
                if let Outcome::Answered(answer) = &outcome {
                    lock(&self.current).insert(asked, Arc::downgrade(answer), stored_at);
                }
                return self.reply(&outcome, answer.as_ref(), now);
            }
            match &entry.in_flight {
                // A sender that was dropped without an outcome belongs to a task that panicked.
                Some(in_flight) if in_flight.has_changed().is_ok() => in_flight.clone(),
                _ if self.in_flight.load(Ordering::Relaxed) >= IN_FLIGHT_MAX => {
                    let answer = entry.answer.clone();
                    drop(memory);
                    let error = format!("{IN_FLIGHT_MAX} other queries are waiting for the server");
                    return self.last_answer(&error, answer.as_ref(), now);
                }
                _ => {
                    let in_flight = self.dispatch(key.clone(), query, question);
                    entry.in_flight = Some(in_flight.clone());
                    in_flight
                }
            }
        };
        let outcome = self.outcome(in_flight).await;
        let now = self.clock.now();
        let answer = lock(&self.memory).entry(&key, now).answer.clone();
        self.reply(&outcome, answer.as_ref(), now)
    }

    /// Returns a current answer to the same question.
    fn current(&self, asked: &Scoped) -> Option<Reply> {
        let now = self.clock.now();
        let answer = lock(&self.current).get(asked, now)?.upgrade()?;
        Some(Self::given(&answer, now))
    }

    /// Allows partial answers of Thanos and VictoriaMetrics if these are only warned of.
    fn allowing_partial(&self, mut question: InstantQuery) -> InstantQuery {
        if self.settings.partial == Partial::Warn {
            for (name, value) in [("partial_response", "true"), ("deny_partial_response", "0")] {
                if !question.parameters.iter().any(|(known, _)| known == name) {
                    question.parameters.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        question
    }

    /// Returns how long an outcome is returned again without a request.
    fn ttl_of(&self, outcome: &Outcome) -> Duration {
        match outcome {
            Outcome::Failed(_) => self.settings.ttl.min(FAILURE_TTL),
            _ => self.settings.ttl,
        }
    }

    /// Waits for an outcome as long as a caller may wait.
    async fn outcome(&self, mut in_flight: InFlight) -> Outcome {
        let within = self.settings.answer_within;
        let ended = timeout(within, in_flight.wait_for(Option::is_some)).await;
        let outcome = match ended {
            Ok(Ok(outcome)) => outcome.clone(),
            Ok(Err(_)) => Some(Outcome::Failed("the request ended without an answer".into())),
            Err(_) => None,
        };
        outcome.unwrap_or_else(|| late(within))
    }

    /// Answers a query about the past: it is passed on, and neither judged nor stored.
    ///
    /// An empty answer is an error for a client that asks about now, as KEDA does in each query: it would read 0. So is a
    /// default, which stands for an empty answer, if only the client's clock makes it a query about the past.
    async fn past(&self, question: InstantQuery, query: &Query) -> Reply {
        // Nobody asks about the future on purpose.
        let earliest = self.wall() - WRONG_CLOCK.as_secs_f64();
        let may_mean_now = question.time.is_some_and(|time| time >= earliest);
        let refused = |what: &str| {
            let why = if query.of_past {
                "the query is about the past (offset or @)"
            } else {
                "the query has a time of its own some minutes from now: check the client's clock"
            };
            let text = format!("{what}, and cannot be judged because {why}");
            Reply::refused(&Refusal::new(Reason::Missing, text))
        };
        if may_mean_now
            && !query.of_past
            && query.need.has_default()
            && question.empty != Empty::Pass
        {
            return refused("the answer may be the query's own default");
        }
        let mut request = evaluate::request(&question, &question.query);
        if let Some(time) = question.parameters.iter().find(|(name, _)| name == "time") {
            request.parameters.push(time.clone());
        }
        let within = self.settings.answer_within;
        let answered = timeout(within, self.instant(request, Purpose::Passed)).await;
        match answered.unwrap_or_else(|_| Err(late(within))) {
            Ok((_, Content::NoSamples)) if may_mean_now => refused("the answer is empty"),
            Ok((body, _)) => Reply::given(body, None),
            Err(outcome) => self.reply(&outcome, None, self.clock.now()),
        }
    }

    /// Converts an outcome to a reply.
    fn reply(&self, outcome: &Outcome, last: Option<&Arc<Answer>>, now: Tick) -> Reply {
        match outcome {
            Outcome::Answered(answer) => Self::given(answer, now),
            Outcome::Invalid(passed) => Reply {
                status: passed.status,
                body: passed.body.clone(),
                age: None,
                is_local: false,
                reason: None,
                retry_after: None,
            },
            Outcome::Refused(refusal) => Reply::refused(refusal),
            Outcome::Failed(error) => self.last_answer(error, last, now),
        }
    }

    /// Returns an answer within its ttl.
    fn given(answer: &Answer, now: Tick) -> Reply {
        let age = answer.asked_at.age(now);
        Reply::given(answer.body.clone(), (age >= Duration::from_secs(1)).then_some(age))
    }

    /// Returns the last answer while the server does not respond, unless it is too old.
    fn last_answer(&self, error: &str, last: Option<&Arc<Answer>>, now: Tick) -> Reply {
        let limit = self.settings.max_stale;
        if let Some(answer) = last {
            let age = answer.asked_at.age(now);
            let warning =
                format!("from memory: {} old, because {error}", duration::format_seconds(age));
            if age < limit
                && let Ok(body) = answer::with_warnings(&answer.body, &[warning])
            {
                return Reply::given(body.into(), Some(age));
            }
        }
        let refusal = if !self.has_responded.load(Ordering::Relaxed) {
            let since = duration::format_seconds(self.started_at.age(now));
            let text = format!("no backend has answered since the start {since} ago: {error}");
            Refusal::new(Reason::Starting, text)
        } else if let Some(answer) = last {
            let (age, limit) =
                (duration::format_seconds(answer.asked_at.age(now)), duration::format(limit));
            let last = format!("the last answer to this query is {age} old");
            let text = format!("{error}, and {last}; the limit is {limit} (promql.max_stale)");
            Refusal::new(Reason::Backend, text)
        } else {
            Refusal::new(Reason::Backend, format!("{error}, and no earlier answer is stored"))
        };
        Reply::refused(&refusal)
    }

    /// Returns whether a time is at most so far from now.
    fn is_within(&self, difference: Duration, time: f64) -> bool {
        (time - self.wall()).abs() <= difference.as_secs_f64()
    }

    /// Returns the key of all questions that have the same answer.
    fn key(&self, query: &Query, question: &InstantQuery) -> String {
        let scope = self.scope(question);
        format!("{}\n{:?}\n{:?}\n{scope}", query.text, question.empty, question.max_age)
    }

    /// Returns the key of a question as it was asked.
    fn asked(&self, question: &InstantQuery) -> Scoped {
        let terms = (self.scope(question), question.empty, question.max_age);
        (self.hasher.hash_one(terms), question.query.clone())
    }

    /// Returns a fact's key.
    fn scoped(&self, text: &str, question: &InstantQuery) -> Scoped {
        (self.scope(question), text.to_owned())
    }

    /// Returns a hash of everything but the query that the server's answer depends on: other parameters, and headers
    /// of the client. It is a hash because clients may send long ones.
    fn scope(&self, question: &InstantQuery) -> u64 {
        let others = question.parameters.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
        self.hasher.hash_one((others.collect::<Vec<_>>(), &question.headers))
    }

    fn wall(&self) -> f64 {
        self.clock.wall().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    }
}

fn late(within: Duration) -> Outcome {
    let within = duration::format(within);
    Outcome::Failed(format!("the server did not answer within {within}").into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
