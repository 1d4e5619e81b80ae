//! One look at the server: liveness first, then what living pods are asked.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use collector_core::{ErrorKind, PodName};
use futures_util::StreamExt;
use futures_util::stream;

use crate::answer::Expect;
use crate::assemble::{Arrived, Assembly, Piece};
use crate::client::{Answered, Budget, Client, Query};
use crate::failure::{Failure, Split};
use crate::plan::{Grouping, Plan, QueryKind};
use crate::promql::Filter;
use crate::rows::Rows;
use crate::server_clock::{Moment, ServerClock};
use crate::shard::{Asked, QUERY_BYTES_MAX, Shard};
use crate::trace::TracedQuery;

/// Splits within one look. A limit that no group gets under would else cost a query per model; the
/// groups of the next look are smaller in any case.
const SPLITS_MAX: u32 = 16;
/// Live pods of one look at most, some 60 MB of them: five thousand variants of ten pods each.
const PODS_MAX: usize = 50_000;

/// What all queries of a look have in common.
pub(crate) struct Look<'a> {
    client: &'a Client,
    budget: Budget<'a>,
    asked: &'a Asked,
    plan: Plan,
    moment: Moment,
    in_flight: usize,
    /// How values come about is told.
    trace: bool,
    /// The server is not to be asked any more, and why.
    dead: OnceLock<Failure>,
    timed_out: AtomicBool,
    /// Live pods so far.
    pods: AtomicUsize,
    splits: AtomicU32,
    too_large: AtomicBool,
    contradicted: AtomicBool,
    incomplete: Mutex<Option<String>>,
    /// Each shard, in the pieces that the server has made necessary so far: what was too large for
    /// one query is too large for the next.
    pieces: Mutex<Vec<Vec<Arc<Part>>>>,
}

/// A shard, and what all queries for it have in common.
#[derive(Debug)]
struct Part {
    shard: Shard,
    filter: Filter,
    /// Positions of its models.
    models: Arc<[usize]>,
    /// Rows of the longest answer for it so far; a row for each model at least.
    rows: AtomicUsize,
}

impl Part {
    fn new(shard: Shard, asked: &Asked) -> Arc<Self> {
        let (filter, models) = (shard.filter(), asked.positions(&shard.models).into());
        let rows = AtomicUsize::new(shard.models.len());
        Arc::new(Self { shard, filter, models, rows })
    }
}

/// One query for one shard, which is told by its number.
struct Job {
    kind: QueryKind,
    shard: usize,
    grouping: Grouping,
    /// For the query whose series carry no model: the pods, each with the position of its model.
    pods: Vec<(usize, PodName)>,
}

impl<'a> Look<'a> {
    pub(crate) fn new(
        client: &'a Client,
        budget: Budget<'a>,
        asked: &'a Asked,
        plan: Plan,
        moment: Moment,
        shards: Vec<Shard>,
    ) -> Self {
        Self {
            client,
            budget,
            asked,
            plan,
            moment,
            // Two were as fast as more on the servers measured, and leave them room; a caller who
            // waits for one small model gets four.
            in_flight: if budget.waiting { 4 } else { 2 },
            trace: false,
            dead: OnceLock::new(),
            timed_out: AtomicBool::new(false),
            pods: AtomicUsize::new(0),
            splits: AtomicU32::new(0),
            too_large: AtomicBool::new(false),
            contradicted: AtomicBool::new(false),
            incomplete: Mutex::new(None),
            pieces: Mutex::new(
                shards.into_iter().map(|shard| vec![Part::new(shard, asked)]).collect(),
            ),
        }
    }

    /// The same look, which also tells how values come about.
    pub(crate) fn traced(mut self, trace: bool) -> Self {
        self.trace = trace;
        self
    }

    /// Learnt in the middle of a look, from the cache sizes.
    pub(crate) fn saw_duplicates(&mut self) {
        self.plan.duplicates = true;
    }

    /// Some query or answer was too large for the server or for us.
    pub(crate) fn was_too_large(&self) -> bool {
        self.too_large.load(Ordering::Relaxed)
    }

    /// The server's clock was not where the look took it to be.
    pub(crate) fn clock_contradicted(&self) -> bool {
        self.contradicted.load(Ordering::Relaxed)
    }

    /// The first reason why rows may be absent.
    pub(crate) fn incomplete(self) -> Option<String> {
        self.incomplete.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who lives. The first shard goes alone: a server that does not answer it is not asked more.
    pub(crate) async fn liveness(
        &self,
        clock: &ServerClock,
        assembly: &mut Assembly<'_>,
    ) -> Result<(), Failure> {
        let mut jobs: Vec<Job> = (0..self.pieces().len())
            .map(|shard| Job {
                kind: QueryKind::Liveness,
                shard,
                grouping: Grouping::Model,
                pods: Vec::new(),
            })
            .collect();
        let others = jobs.split_off(jobs.len().min(1));
        self.run(jobs, Some(clock), assembly).await;
        if let Some(failure) = self.dead.get() {
            return Err(failure.clone());
        }
        self.run(others, Some(clock), assembly).await;
        assembly.settle();
        match assembly.failed_altogether() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// Cache sizes, for the shards where they are due. True when they show duplicates.
    pub(crate) async fn cache_config(
        &self,
        shards: Vec<(usize, Vec<(usize, PodName)>)>,
        assembly: &mut Assembly<'_>,
    ) -> bool {
        let jobs = shards
            .into_iter()
            .map(|(shard, pods)| Job {
                kind: QueryKind::CacheConfig,
                shard,
                grouping: Grouping::Pod,
                pods,
            })
            .collect();
        self.run(jobs, None, assembly).await
    }

    /// The other queries, each for the shards it is wanted for.
    pub(crate) async fn fields(
        &self,
        wanted: Vec<(QueryKind, usize, Grouping)>,
        assembly: &mut Assembly<'_>,
    ) {
        let jobs = wanted
            .into_iter()
            .map(|(kind, shard, grouping)| Job { kind, shard, grouping, pods: Vec::new() })
            .collect();
        self.run(jobs, None, assembly).await;
    }

    /// Runs jobs, a few at a time, and takes in their answers as they come.
    async fn run(
        &self,
        jobs: Vec<Job>,
        clock: Option<&ServerClock>,
        assembly: &mut Assembly<'_>,
    ) -> bool {
        let mut duplicates = false;
        let mut answers =
            stream::iter(jobs).map(|job| self.job(job, clock)).buffer_unordered(self.in_flight);
        while let Some(pieces) = answers.next().await {
            for piece in pieces {
                duplicates |= assembly.add(piece);
            }
        }
        duplicates
    }

    /// One query, in as many pieces as the server makes necessary.
    async fn job(&self, job: Job, clock: Option<&ServerClock>) -> Vec<Piece> {
        let mut answers = Vec::new();
        // A time-out is split once: a server out of breath is not helped by more queries.
        let mut left: Vec<(Arc<Part>, bool)> =
            self.pieces()[job.shard].iter().map(|part| (Arc::clone(part), true)).collect();
        while let Some((part, may_time_out)) = left.pop() {
            let result = self.query(&job, &part, clock).await;
            if let Err(failure) = &result {
                let split = match failure.split {
                    Split::No => false,
                    Split::Once => may_time_out,
                    Split::UntilItFits => true,
                };
                if failure.split != Split::No {
                    self.too_large.store(true, Ordering::Relaxed);
                }
                let smaller = part.shard.split();
                if split
                    && !smaller.is_empty()
                    && self.splits.fetch_add(1, Ordering::Relaxed) < SPLITS_MAX
                {
                    let may_time_out = may_time_out && failure.split != Split::Once;
                    let parts: Vec<Arc<Part>> =
                        smaller.into_iter().map(|shard| Part::new(shard, self.asked)).collect();
                    self.replace(job.shard, &part, &parts);
                    left.extend(parts.into_iter().map(|part| (part, may_time_out)));
                    continue;
                }
                self.note_failure(failure);
            }
            answers.push(Piece { kind: job.kind, models: Arc::clone(&part.models), result });
        }
        answers
    }

    /// From now on, `smaller` are asked for in place of `part`.
    fn replace(&self, number: usize, part: &Arc<Part>, smaller: &[Arc<Part>]) {
        let pieces = &mut self.pieces()[number];
        // Another query may have done so meanwhile.
        if let Some(at) = pieces.iter().position(|piece| Arc::ptr_eq(piece, part)) {
            pieces.splice(at..=at, smaller.iter().cloned());
        }
    }

    fn pieces(&self) -> MutexGuard<'_, Vec<Vec<Arc<Part>>>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What one failure says about the queries that have not been sent yet.
    fn note_failure(&self, failure: &Failure) {
        let second_timeout =
            failure.kind == ErrorKind::Timeout && self.timed_out.swap(true, Ordering::Relaxed);
        if failure.is_of_the_server() || second_timeout {
            // Only the first is kept; the others say the same.
            let _ = self.dead.set(failure.clone());
        }
    }

    async fn query(
        &self,
        job: &Job,
        part: &Part,
        clock: Option<&ServerClock>,
    ) -> Result<Arrived, Failure> {
        if let Some(failure) = self.dead.get() {
            return Err(failure.clone());
        }
        let text = self.text(job, part);
        let query = Query { kind: job.kind, text: &text, time: Some(self.moment.time) };
        let mut rows = Rows::of(job.kind, part.rows.load(Ordering::Relaxed));
        let answered = self
            .client
            .query(query, Expect::Vector, self.budget, &mut |row| {
                rows.push(row, self.asked);
            })
            .await?;
        part.rows.fetch_max(rows.len(), Ordering::Relaxed);
        if job.kind == QueryKind::Liveness
            && self.pods.fetch_add(rows.len(), Ordering::Relaxed) + rows.len() > PODS_MAX
        {
            return Err(Failure::new(
                ErrorKind::TooLarge,
                format!("more than {PODS_MAX} pods live in what is looked at together"),
            )
            .with_remedy(
                "share the namespaces out to several collectors, by prometheus.namespaces",
            ));
        }
        let query = self.trace.then(|| TracedQuery {
            text: text.into(),
            series: self.plan.series(job.kind),
            sent_at: answered.sent_at,
            arrived_at: answered.arrived_at,
        });
        Ok(Arrived { query, ..self.arrived(rows, answered, clock) })
    }

    fn arrived(&self, rows: Rows, answered: Answered, clock: Option<&ServerClock>) -> Arrived {
        if answered.large {
            self.too_large.store(true, Ordering::Relaxed);
        }
        if let (Some(clock), Some(date)) = (clock, answered.date)
            && clock.contradicts(date, answered.arrived_at)
        {
            self.contradicted.store(true, Ordering::Relaxed);
        }
        let complete = answered.incomplete.is_none();
        if let Some(reason) = answered.incomplete {
            self.incomplete.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        }
        Arrived { rows, complete, at: answered.arrived_at, query: None }
    }

    fn text(&self, job: &Job, part: &Part) -> String {
        if job.kind != QueryKind::CacheConfig {
            return self.plan.query(job.kind, &part.filter, job.grouping);
        }
        let filter = part.shard.filter_without_models();
        if part.shard.names_models() {
            // Without models in the filter, a single model would be answered with its whole
            // namespace; its pods stand for it as far as they fit.
            let models: HashSet<usize> = part.models.iter().copied().collect();
            let pods = job.pods.iter().filter(|(model, _)| models.contains(model));
            let pods: Vec<&str> = pods.map(|(_, pod)| pod.as_str()).collect();
            let text = self.plan.cache_config(&filter, &pods);
            if text.len() <= QUERY_BYTES_MAX {
                return text;
            }
        }
        self.plan.cache_config(&filter, &[])
    }
}
