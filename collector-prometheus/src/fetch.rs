// SPDX-License-Identifier: Apache-2.0
//! One fetch from the server: liveness first, then the queries about live pods.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use collector_core::{ErrorKind, PodName};
use futures_util::StreamExt;
use futures_util::stream;

use crate::answer::Row;
use crate::assemble::{Assembly, QueryAnswer, QueryResult};
use crate::client::{Answered, Client, Query, RequestBudget};
use crate::discovery::ServerInfo;
use crate::failure::{Failure, Split};
use crate::labels::Level;
use crate::plan::{Plan, QueryKind};
use crate::promql::Filter;
use crate::rows::{RowContext, Rows};
use crate::server_clock::{Moment, ServerClock};
use crate::shape::{Served, Shape};
use crate::shard::{QUERY_BYTES_MAX, Requested, Shard};
use crate::trace::TracedQuery;

/// Splits within one fetch. Without a bound, a limit that no group fits into would cost a query per model;
/// the groups of the next fetch are smaller in any case.
const SPLITS_MAX: u32 = 16;
/// Live pods of one fetch at most, some 60 MB: five thousand variants of ten pods each.
const PODS_MAX: usize = 50_000;

/// What all queries of a fetch have in common.
pub(crate) struct Fetch<'a> {
    client: &'a Client,
    budget: RequestBudget<'a>,
    asked: &'a Requested,
    shape: &'a Shape,
    /// Part of every selector.
    each: &'a Filter,
    clock: &'a ServerClock,
    moment: Moment,
    in_flight: usize,
    /// Whether to record how values come about; set by the caller.
    pub(crate) trace: bool,
    /// Why the server gets no further queries, if it does not.
    dead: OnceLock<Failure>,
    timed_out: AtomicBool,
    /// Number of live pods found so far.
    pods: AtomicUsize,
    splits: AtomicU32,
    too_large: AtomicBool,
    contradicted: AtomicBool,
    incomplete: OnceLock<String>,
    /// The evaluation time of the liveness queries, by engine, as their rows report it.
    evaluated: Mutex<Vec<f64>>,
    /// Each group, in the pieces that the server has required so far: what was too large for one query is too
    /// large for the next.
    pieces: Mutex<Vec<Vec<Arc<Part>>>>,
}

/// Models of one engine that share queries.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Index of the engine in [`Shape::served`].
    pub(crate) engine: u8,
    pub(crate) shard: Shard,
    /// Indices of its models in [`Requested`].
    pub(crate) models: Arc<[usize]>,
    /// Selects the series of its only model, whose labels do not matter.
    pub(crate) selector: Option<Filter>,
}

/// A group or a part of one, with what its queries have in common.
#[derive(Debug)]
struct Part {
    group: Group,
    filter: Filter,
    /// Rows of its longest answer so far, at least one per model.
    rows: AtomicUsize,
}

impl Part {
    fn new(group: Group, fetch: &Fetch<'_>) -> Arc<Self> {
        let Served { engine, labels, .. } = &*fetch.shape.served[usize::from(group.engine)];
        // No selector can be built for a value that is in no label, or spelled differently there.
        let is_named = engine.model.is_none() && !engine.ignore_case;
        let filter = match &group.selector {
            Some(selector) => selector.clone(),
            None if is_named => group.shard.filter(labels, fetch.each),
            None => group.shard.filter_without_models(labels, fetch.each),
        };
        let rows = AtomicUsize::new(group.models.len());
        Arc::new(Self { group, filter, rows })
    }
}

/// One query for one group.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) kind: QueryKind,
    pub(crate) group: usize,
    pub(crate) level: Level,
    /// Rows are grouped by server and copy.
    pub(crate) apart: bool,
    /// How much earlier than the rest of the fetch it is evaluated.
    pub(crate) earlier: Duration,
    /// Restricts the models whose rows count; `None` for all.
    pub(crate) only: Option<Arc<HashSet<usize>>>,
    /// For the query whose series carry no model: the pods, each with the index of its model.
    pub(crate) pods: Vec<(usize, PodName)>,
}

impl Job {
    /// A query evaluated now, about every model of its group.
    pub(crate) fn new(kind: QueryKind, group: usize) -> Self {
        Self {
            kind,
            group,
            level: kind.level(),
            apart: false,
            earlier: Duration::ZERO,
            only: None,
            pods: Vec::new(),
        }
    }
}

impl<'a> Fetch<'a> {
    pub(crate) fn new(
        client: &'a Client,
        budget: RequestBudget<'a>,
        asked: &'a Requested,
        info: &'a ServerInfo,
        each: &'a Filter,
        moment: Moment,
        groups: &[Group],
    ) -> Self {
        let ServerInfo { clock, shape, .. } = info;
        let fetch = Self {
            client,
            budget,
            asked,
            shape,
            each,
            clock,
            moment,
            // More than two were no faster on the servers measured. A caller who waits for one small model
            // gets four.
            in_flight: if budget.waiting { 4 } else { 2 },
            trace: false,
            dead: OnceLock::new(),
            timed_out: AtomicBool::new(false),
            pods: AtomicUsize::new(0),
            splits: AtomicU32::new(0),
            too_large: AtomicBool::new(false),
            contradicted: AtomicBool::new(false),
            incomplete: OnceLock::new(),
            evaluated: Mutex::new(vec![f64::NEG_INFINITY; shape.served.len()]),
            pieces: Mutex::default(),
        };
        let pieces = groups.iter().map(|group| vec![Part::new(group.clone(), &fetch)]).collect();
        *fetch.pieces() = pieces;
        fetch
    }

    /// Returns whether a query or an answer was too large for the server or for us.
    pub(crate) fn was_too_large(&self) -> bool {
        self.too_large.load(Ordering::Relaxed)
    }

    /// Returns whether a `Date` header contradicted the server clock of this fetch.
    pub(crate) fn clock_contradicted(&self) -> bool {
        self.contradicted.load(Ordering::Relaxed)
    }

    /// Returns the first reason why rows may be absent.
    pub(crate) fn incomplete(self) -> Option<String> {
        self.incomplete.into_inner()
    }

    /// Finds the live pods. The first group is sent alone: if the server does not answer it, nothing else is
    /// sent.
    pub(crate) async fn liveness(&self, assembly: &mut Assembly<'_>) -> Result<(), Failure> {
        let groups = self.pieces().len();
        let mut jobs: Vec<Job> =
            (0..groups).map(|group| Job::new(QueryKind::Liveness, group)).collect();
        let others = jobs.split_off(jobs.len().min(1));
        self.ask(jobs, assembly).await;
        if let Some(failure) = self.dead.get() {
            return Err(failure.clone());
        }
        self.ask(others, assembly).await;
        assembly.settle();
        match assembly.failed_altogether() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Runs jobs, a few at a time, and adds their answers as they arrive.
    pub(crate) async fn ask(&self, jobs: Vec<Job>, assembly: &mut Assembly<'_>) {
        let mut answers =
            stream::iter(jobs).map(|job| self.job(job)).buffer_unordered(self.in_flight);
        while let Some(pieces) = answers.next().await {
            for piece in pieces {
                assembly.add(piece);
            }
        }
    }

    /// Runs one query, in as many pieces as the server requires.
    async fn job(&self, job: Job) -> Vec<QueryResult> {
        let mut answers = Vec::new();
        // A time-out is split once: more queries do not help an overloaded server.
        let mut left: Vec<(Arc<Part>, bool)> =
            self.pieces()[job.group].iter().map(|part| (Arc::clone(part), true)).collect();
        while let Some((part, may_time_out)) = left.pop() {
            let result = self.query(&job, &part).await;
            if let Err(failure) = &result {
                let split = match failure.split {
                    Split::No => false,
                    Split::Once => may_time_out,
                    Split::UntilItFits => true,
                };
                if failure.split != Split::No {
                    self.too_large.store(true, Ordering::Relaxed);
                }
                if split && let Some(parts) = self.split(job.group, &part) {
                    let may_time_out = may_time_out && failure.split != Split::Once;
                    left.extend(parts.into_iter().map(|part| (part, may_time_out)));
                    continue;
                }
                self.note_failure(failure);
            }
            let models = match &job.only {
                None => Arc::clone(&part.group.models),
                Some(only) => {
                    part.group.models.iter().copied().filter(|it| only.contains(it)).collect()
                }
            };
            answers.push(QueryResult { kind: job.kind, engine: part.group.engine, models, result });
        }
        answers
    }

    /// Replaces `part` by smaller parts for the rest of the fetch. Returns `None` if it cannot be split, or
    /// the fetch was split often enough.
    fn split(&self, number: usize, part: &Arc<Part>) -> Option<Vec<Arc<Part>>> {
        let mut pieces = self.pieces();
        let pieces = &mut pieces[number];
        let Some(at) = pieces.iter().position(|piece| Arc::ptr_eq(piece, part)) else {
            // Another query of the group split it in the meantime.
            let is_of = |piece: &&Arc<Part>| {
                let all = &part.group.shard.models;
                piece.group.shard.models.iter().all(|it| all.binary_search(it).is_ok())
            };
            return Some(pieces.iter().filter(is_of).cloned().collect());
        };
        let smaller = match part.group.selector {
            Some(_) => Vec::new(),
            None => part.group.shard.split(),
        };
        if smaller.is_empty() || self.splits.fetch_add(1, Ordering::Relaxed) >= SPLITS_MAX {
            return None;
        }
        let smaller = smaller.into_iter().map(|shard| {
            let models = self.asked.positions(&shard.models).into();
            Part::new(Group { shard, models, ..part.group.clone() }, self)
        });
        let parts: Vec<Arc<Part>> = smaller.collect();
        pieces.splice(at..=at, parts.iter().cloned());
        Some(parts)
    }

    fn pieces(&self) -> MutexGuard<'_, Vec<Vec<Arc<Part>>>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides from a failure whether the remaining queries are sent.
    fn note_failure(&self, failure: &Failure) {
        let second_timeout =
            failure.kind == ErrorKind::Timeout && self.timed_out.swap(true, Ordering::Relaxed);
        if failure.is_of_the_server() || second_timeout {
            // The first failure is kept.
            let _ = self.dead.set(failure.clone());
        }
    }

    async fn query(&self, job: &Job, part: &Part) -> Result<QueryAnswer, Failure> {
        if let Some(failure) = self.dead.get() {
            return Err(failure.clone());
        }
        let served = self.served(part);
        let Some(text) = self.text(job, part) else {
            // The server holds no such series, which was known before.
            let rows = Rows::of(job.kind, 0);
            return Ok(QueryAnswer { rows, warning: None, at: self.moment.tick, query: None });
        };
        let time = self.moment.earlier(job.earlier).time;
        let query = Query { kind: job.kind, text: &text, time: Some(time) };
        let mut rows = Rows::of(job.kind, part.rows.load(Ordering::Relaxed));
        let reading = RowContext {
            kind: job.kind,
            served,
            asked: self.asked,
            only_model: part
                .group
                .selector
                .as_ref()
                .and_then(|_| part.group.models.first().copied()),
            only: job.only.as_deref(),
            apart: job.apart,
        };
        let mut evaluated = f64::INFINITY;
        let mut on_row = |row: &Row<'_>| {
            evaluated = evaluated.min(row.time);
            rows.push(row, reading);
        };
        let answered = self.client.query(query, self.budget, &mut on_row).await?;
        self.check_time(job, part, evaluated)?;
        part.rows.fetch_max(rows.len(), Ordering::Relaxed);
        if job.kind == QueryKind::Liveness
            && self.pods.fetch_add(rows.len(), Ordering::Relaxed) + rows.len() > PODS_MAX
        {
            return Err(Failure::new(
                ErrorKind::TooLarge,
                format!("more than {PODS_MAX} live pods in one fetch"),
            )
            .with_remedy(
                "divide the namespaces among several collectors with prometheus.namespaces",
            ));
        }
        let query = self.trace.then(|| TracedQuery {
            text: text.into(),
            series: served.plan.series(job.kind).map(Arc::from),
            sent_at: answered.sent_at,
            arrived_at: answered.arrived_at,
        });
        Ok(self.arrived(rows, answered, query))
    }

    /// Returns the evaluation time of an engine's liveness query, as its rows report it.
    pub(crate) fn evaluated(&self, engine: u8) -> Option<f64> {
        let all = self.evaluated.lock().unwrap_or_else(PoisonError::into_inner);
        Some(all[usize::from(engine)]).filter(|time| time.is_finite())
    }

    /// Rejects rows that are older than those of the liveness query, from which ages are counted: a cache in
    /// between would make old values look new.
    fn check_time(&self, job: &Job, part: &Part, evaluated: f64) -> Result<(), Failure> {
        let mut all = self.evaluated.lock().unwrap_or_else(PoisonError::into_inner);
        let of_liveness = &mut all[usize::from(part.group.engine)];
        if job.kind == QueryKind::Liveness {
            if evaluated.is_finite() {
                *of_liveness = of_liveness.max(evaluated);
            }
            return Ok(());
        }
        let behind = *of_liveness - evaluated - job.earlier.as_secs_f64();
        let interval = self.served(part).scrape_interval().as_secs_f64();
        // A window that ends after the newest sample holds too few samples.
        let is_ahead = job.kind.is_over_window() && behind.is_finite() && behind < -interval;
        if behind <= interval && !is_ahead {
            return Ok(());
        }
        let side = if is_ahead { "after" } else { "before" };
        Err(Failure::bad_answer(format!(
            "its rows are {:.0} s {side} those of the liveness query",
            behind.abs()
        ))
        .with_remedy("is there a cache in front of it?"))
    }

    fn arrived(&self, rows: Rows, answered: Answered, query: Option<TracedQuery>) -> QueryAnswer {
        if answered.large {
            self.too_large.store(true, Ordering::Relaxed);
        }
        if let Some(date) = answered.date
            && self.clock.contradicts(date, answered.arrived_at)
        {
            self.contradicted.store(true, Ordering::Relaxed);
        }
        let warning: Option<Arc<str>> = answered.incomplete.as_deref().map(Arc::from);
        if let Some(reason) = answered.incomplete {
            let _ = self.incomplete.set(reason);
        }
        QueryAnswer { rows, warning, at: answered.arrived_at, query }
    }

    fn served(&self, part: &Part) -> &'a Served {
        &self.shape.served[usize::from(part.group.engine)]
    }

    fn text(&self, job: &Job, part: &Part) -> Option<String> {
        let served = self.served(part);
        let plan: &Plan = &served.plan;
        if job.kind != QueryKind::CacheConfig {
            return Some(plan.query(job.kind, &served.labels, &part.filter, job.level, job.apart));
        }
        let Group { shard, models, selector, .. } = &part.group;
        let filter = match selector {
            Some(selector) => selector.clone(),
            None => shard.filter_without_models(&served.labels, self.each),
        };
        let text = |pods: &[&str]| plan.cache_config(&served.labels, &filter, job.apart, pods);
        if shard.names_models() {
            // Without a model in the filter, a single model would get its whole namespace, so its pods are
            // named instead as far as they fit.
            let models: HashSet<usize> = models.iter().copied().collect();
            let pods = job.pods.iter().filter(|(model, _)| models.contains(model));
            let pods: Vec<&str> = pods.map(|(_, pod)| pod.as_str()).collect();
            let text = text(&pods)?;
            if text.len() <= QUERY_BYTES_MAX {
                return Some(text);
            }
        }
        text(&[])
    }
}
