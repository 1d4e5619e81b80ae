//! Whole metrics, each read once for all queries that select from it.
//!
//! Autoscalers send a query for each model: hundreds that select from the same few metrics. Once enough queries do, the
//! guard asks for all series of these metrics in one request, at one instant, and computes the queries as the server
//! would. Everything else stays: anchors are probed, the verdict decides, and an empty result is confirmed by the server.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use collector_core::Tick;
use promql_parser::util::escape_string;
use tokio::sync::watch;

use super::evaluate::{Purpose, request};
use super::local::written;
use super::{InstantQuery, Shared, lock};
use crate::answer::{self, Content};
use crate::local::{
    Held, HeldSample, HeldSeries, KnownLabels, Labels, NAME, NotLocal, Selection, Wanted,
    check_text, evaluate, metrics_of,
};
use crate::probe::Matched;
use crate::query::Query;

/// Different queries that a metric is read as a whole for.
const QUERIES_MIN: usize = 10;
/// Series that are read for each query: a Prometheus takes about as long for a query, its probe and two requests.
const SERIES_PER_QUERY: usize = 50;
/// How long a query counts. An HPA repeats its own each 15 s.
const DEMAND: Duration = Duration::from_secs(60);
/// Metrics that are read, and queries of each that are counted.
const METRICS_MAX: usize = 16;
const QUERIES_MAX: usize = 2_000;
/// Metrics whose queries are counted.
const COUNTED_MAX: usize = 256;
/// How long a metric is not read after a failure, or because it has too many series.
const PAUSE: Duration = Duration::from_secs(300);
/// Tells the samples of the answer apart: the index of the metric, and `v` for values or `t` for their times.
const PART: &str = "collector_part";
/// The part that has the time of the evaluation.
const EVALUATED_AT: &str = "at";

/// The metrics that many queries select from.
#[derive(Default)]
pub(super) struct Metrics {
    /// When each query that selects from a metric was last evaluated.
    demand: HashMap<String, HashMap<u64, Tick>>,
    /// Metrics that are not read, and since when.
    paused: HashMap<String, Tick>,
    last: Option<Arc<Instant>>,
    in_flight: Option<InFlight>,
}

/// A request in flight: its callers wait for the answer. `Some(None)`: there is none.
type InFlight = watch::Receiver<Option<Option<Arc<Instant>>>>;

/// All series of some metrics at one instant.
#[derive(Debug)]
pub(crate) struct Instant {
    /// When the server was asked.
    asked_at: Tick,
    /// The time of the evaluation, by the server's clock.
    at: f64,
    series: HashMap<String, Vec<HeldSample>>,
}

/// The result of a query, computed from whole metrics.
pub(super) struct Computed {
    pub(super) body: Bytes,
    pub(super) content: Content,
    /// What its selectors match.
    pub(super) matched: HashMap<String, Matched>,
    pub(super) asked_at: Tick,
}

impl Shared {
    /// Computes a query from whole metrics. `None` if the server must evaluate it.
    pub(super) async fn computed(
        self: &Arc<Self>,
        query: &Query,
        question: &InstantQuery,
    ) -> Option<Computed> {
        // Parameters and headers of a client may change what the server selects.
        let plain = self.allowing_partial(InstantQuery::default());
        if self.scope(question) != self.scope(&plain) {
            return None;
        }
        let metrics = evaluated_metrics(query, question).ok()?;
        let instant = self.instant_of(&metrics, self.hasher.hash_one(&query.text)).await?;
        let series = Aged { since: instant.asked_at.age(self.clock.now()), instant };
        let selection = Selection::of(&query.expression, &series).ok()?;
        let value = evaluate(&query.expression, &selection).ok()?;
        let (body, content) = written(&value, series.instant.at).ok()?;
        let matched = query.selectors.iter().map(|selector| {
            let matched = selection.matched(selector.text(), self.selects_models(selector))?;
            Some((selector.text().to_owned(), matched))
        });
        let matched = matched.collect::<Option<_>>()?;
        Some(Computed { body, content, matched, asked_at: series.instant.asked_at })
    }

    /// Returns the series of metrics, which a query selects from, as of at most [`Settings::ttl`](super::Settings::ttl)
    /// ago. `None` if too few queries do, or if the server does not return them.
    async fn instant_of(
        self: &Arc<Self>,
        metrics: &BTreeSet<String>,
        query: u64,
    ) -> Option<Arc<Instant>> {
        let mut in_flight = {
            let now = self.clock.now();
            let mut shared = lock(&self.whole);
            if !shared.are_in_demand(metrics, query, now) {
                return None;
            }
            if let Some(last) = &shared.last
                && last.asked_at.age(now) < self.settings.ttl
                && last.has(metrics)
            {
                return Some(Arc::clone(last));
            }
            match &shared.in_flight {
                // A sender that was dropped without an answer belongs to a task that panicked.
                Some(in_flight) if in_flight.has_changed().is_ok() => in_flight.clone(),
                _ => {
                    let in_flight = self.read(shared.wanted(metrics, now), now);
                    shared.in_flight = Some(in_flight.clone());
                    in_flight
                }
            }
        };
        let read = in_flight.wait_for(Option::is_some).await.ok()?.clone().flatten();
        read.filter(|instant| instant.has(metrics))
    }

    /// Starts to read metrics in a task, so that cancelling a caller is safe.
    fn read(self: &Arc<Self>, metrics: Vec<String>, now: Tick) -> InFlight {
        let (sender, in_flight) = watch::channel(None);
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let plain = shared.allowing_partial(InstantQuery::default());
            let request = request(&plain, &query_of(&metrics));
            let answered = shared.instant(request, Purpose::Guarded).await.ok();
            let read = answered.and_then(|(body, _)| Instant::read(&body, &metrics, now).ok());
            let read = read.map(Arc::new);
            lock(&shared.whole).store(&metrics, read.clone(), shared.clock.now());
            sender.send_replace(Some(read));
        });
        in_flight
    }
}

/// Returns the metrics that a query selects from, if it can be evaluated here.
fn evaluated_metrics(query: &Query, question: &InstantQuery) -> Result<BTreeSet<String>, NotLocal> {
    check_text(&question.query)?;
    let metrics = metrics_of(&query.expression)?;
    if metrics.is_empty() {
        return Err(NotLocal::new("it selects no series"));
    }
    evaluate(&query.expression, &Selection::of(&query.expression, &NoSeries)?)?;
    Ok(metrics.into_iter().map(str::to_owned).collect())
}

impl Metrics {
    /// Counts a query, and returns whether all metrics that it selects from are read as a whole.
    fn are_in_demand(&mut self, metrics: &BTreeSet<String>, query: u64, now: Tick) -> bool {
        let mut all = true;
        for metric in metrics {
            if !self.demand.contains_key(metric) && self.demand.len() >= COUNTED_MAX {
                self.forget(now);
                if self.demand.len() >= COUNTED_MAX {
                    return false;
                }
            }
            let queries = self.demand.entry(metric.clone()).or_default();
            if queries.len() < QUERIES_MAX {
                queries.insert(query, now);
            }
            if queries.len() == QUERIES_MIN {
                queries.retain(|_, at| at.age(now) < DEMAND);
            }
            all &= queries.len() >= QUERIES_MIN && !self.paused.contains_key(metric);
        }
        all
    }

    /// Returns the metrics to read: these, and others that are in demand.
    fn wanted(&mut self, metrics: &BTreeSet<String>, now: Tick) -> Vec<String> {
        self.forget(now);
        let others = self.demand.iter().filter(|(metric, queries)| {
            queries.len() >= QUERIES_MIN && !self.paused.contains_key(*metric)
        });
        let mut others: Vec<(usize, &String)> = others
            .filter(|(metric, _)| !metrics.contains(*metric))
            .map(|(metric, queries)| (queries.len(), metric))
            .collect();
        others.sort_unstable_by(|one, other| other.cmp(one));
        let others = others.into_iter().map(|(_, metric)| metric);
        metrics.iter().chain(others).take(METRICS_MAX.max(metrics.len())).cloned().collect()
    }

    /// Forgets queries that are no longer sent, and pauses that are over.
    fn forget(&mut self, now: Tick) {
        self.demand.retain(|_, queries| {
            queries.retain(|_, at| at.age(now) < DEMAND);
            !queries.is_empty()
        });
        self.paused.retain(|_, since| since.age(now) < PAUSE);
    }

    /// Stores what was read, and pauses metrics that failed or have too many series for their queries.
    fn store(&mut self, metrics: &[String], read: Option<Arc<Instant>>, now: Tick) {
        for metric in metrics {
            let queries = self.demand.get(metric).map_or(0, HashMap::len);
            let is_cheap = read.as_ref().is_some_and(|read| {
                read.series.get(metric).map_or(0, Vec::len) <= queries * SERIES_PER_QUERY
            });
            if !is_cheap {
                self.paused.insert(metric.clone(), now);
            }
        }
        self.last = read;
    }
}

/// Returns the query for all series of metrics: their values, and the times of these.
pub(crate) fn query_of(metrics: &[String]) -> String {
    let mut query = format!(r#"label_replace(vector(time()), "{PART}", "{EVALUATED_AT}", "", "")"#);
    for (index, metric) in metrics.iter().enumerate() {
        let series = format!(r#"{{{NAME}="{}"}}"#, escape_string(metric));
        for (kind, of) in [('v', series.clone()), ('t', format!("timestamp({series})"))] {
            let _ = write!(query, r#" or label_replace({of}, "{PART}", "{index}{kind}", "", "")"#);
        }
    }
    query
}

impl Instant {
    /// Reads the answer to [`query_of`] these metrics.
    pub(crate) fn read(body: &[u8], metrics: &[String], asked_at: Tick) -> Result<Self, String> {
        let unexpected = || "the answer has unexpected labels".to_owned();
        if answer::has_warnings(body) {
            return Err("the server warns of its answer".to_owned());
        }
        let mut evaluated_at = None;
        let mut values = Vec::new();
        let mut times: HashMap<(usize, Labels), f64> = HashMap::new();
        for (mut labels, value) in answer::samples(body)? {
            let part = labels.remove(PART).ok_or_else(unexpected)?;
            if part == EVALUATED_AT {
                evaluated_at = Some(value);
                continue;
            }
            labels.remove(NAME);
            let labels = Labels::new(labels);
            let index = |kind| part.strip_suffix(kind).and_then(|index| index.parse().ok());
            if let Some(index) = index('v') {
                values.push(((index, labels), value));
            } else {
                times.insert((index('t').ok_or_else(unexpected)?, labels), value);
            }
        }
        let at = evaluated_at.ok_or("the answer has no time")?;
        let mut series: HashMap<String, Vec<HeldSample>> =
            metrics.iter().map(|metric| (metric.clone(), Vec::new())).collect();
        for (key, value) in values {
            let time = times.remove(&key).ok_or("a sample has no time")?;
            let age =
                Duration::try_from_secs_f64((at - time).max(0.0)).map_err(|_| unexpected())?;
            let (index, labels) = key;
            let of_metric = metrics.get(index).and_then(|metric| series.get_mut(metric));
            of_metric.ok_or_else(unexpected)?.push(HeldSample { labels, value, age });
        }
        Ok(Self { asked_at, at, series })
    }

    fn has(&self, metrics: &BTreeSet<String>) -> bool {
        metrics.iter().all(|metric| self.series.contains_key(metric))
    }
}

/// The series of an instant, some time later.
pub(crate) struct Aged {
    pub(crate) instant: Arc<Instant>,
    pub(crate) since: Duration,
}

impl HeldSeries for Aged {
    fn labels(&self, wanted: &Wanted<'_>) -> Option<KnownLabels> {
        self.instant.series.contains_key(wanted.metric).then_some(KnownLabels::All)
    }

    fn select(&self, wanted: &[Wanted<'_>]) -> Vec<Held> {
        let of = |wanted: &Wanted<'_>| {
            let all = self.instant.series.get(wanted.metric).into_iter().flatten();
            let selected = all.filter(|sample| wanted.accepts_all(&sample.labels));
            let aged =
                selected.map(|it| HeldSample { age: it.age + self.since, ..HeldSample::clone(it) });
            Held { samples: aged.collect(), ..Held::default() }
        };
        wanted.iter().map(of).collect()
    }
}

/// No series of any metric: whether a query can be evaluated does not depend on them.
struct NoSeries;

impl HeldSeries for NoSeries {
    fn labels(&self, _: &Wanted<'_>) -> Option<KnownLabels> {
        Some(KnownLabels::All)
    }

    fn select(&self, wanted: &[Wanted<'_>]) -> Vec<Held> {
        vec![Held::default(); wanted.len()]
    }
}
