// SPDX-License-Identifier: Apache-2.0
//! Whole metrics, each read once for all queries that select from it.
//!
//! Autoscalers send a query for each model: hundreds that select from the same few metrics. Once enough queries do, the
//! guard asks for all series of these metrics in one request, at one instant, and computes the queries as the server
//! would. Everything else stays: anchors are probed, the verdict decides, and an empty result is confirmed by the server.
//!
//! The times of the samples take the server as long as the samples. They are asked for only now and then: the newest
//! sample of a series that is still there is not older than it was, plus the time since. A query that needs it younger
//! than that is the server's to evaluate.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use collector_core::Tick;
use futures_util::future::join_all;
use promql_parser::util::escape_string;
use tokio::sync::watch;
use tokio::time::timeout;

use super::evaluate::{Purpose, request};
use super::local::written;
use super::{InstantQuery, Shared, lock};
use crate::answer::{self, Content};
use crate::local::{
    Held, HeldSample, HeldSeries, KnownLabels, Labels, NAME, NotLocal, Selection, Wanted, evaluate,
    metrics_of,
};
use crate::probe::{Matched, age_of};
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
/// How long a metric is not read after a failure, and how long its number of series is remembered.
const PAUSE: Duration = Duration::from_secs(300);
/// Which part of the time for an answer a query waits for a whole metric.
const WAIT_PART: u32 = 4;
/// Which part of the greatest age that queries accept may pass until the times of samples are asked for again.
const TIMED_EVERY: u32 = 4;

/// The metrics that many queries select from.
#[derive(Default)]
pub(super) struct Metrics {
    /// When each query that selects from a metric was last evaluated.
    demand: HashMap<String, HashMap<u64, Tick>>,
    /// Metrics that are not read, and since when.
    paused: HashMap<String, Tick>,
    /// When metrics could last not be read together: each is read alone for a while, so that the cause is found.
    apart_since: Option<Tick>,
    /// How many series a metric had when it was last read.
    sizes: HashMap<String, (usize, Tick)>,
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
    /// When the server was last asked for the times of the samples.
    timed_at: Tick,
    /// No sample is older than it says.
    series: HashMap<String, Vec<HeldSample>>,
}

/// All series of some metrics at one instant, without the times of their samples.
pub(crate) struct Untimed {
    at: f64,
    series: HashMap<String, Vec<(Labels, f64)>>,
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
        let metrics = evaluated_metrics(query).ok()?;
        let instant = self.instant_of(&metrics, self.hasher.hash_one(&query.text)).await?;
        let series = Aged { since: instant.asked_at.age(self.clock.now()), instant };
        let selection = Selection::of(&query.expression, &series).ok()?;
        let max_age = question.max_age.unwrap_or(self.settings.max_age);
        if selection.oldest().is_some_and(|age| age > max_age) {
            return None;
        }
        let value = evaluate(&query.expression, &selection).ok()?;
        let (body, content) = written(&value, series.instant.at).ok()?;
        if body.len() > self.settings.max_answer_bytes {
            return None;
        }
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
                    let in_flight = self.read(shared.wanted(metrics, now), metrics.clone(), now);
                    shared.in_flight = Some(in_flight.clone());
                    in_flight
                }
            }
        };
        // Who waits longer asks the server, and has the rest of the time for that.
        let within = self.settings.answer_within / WAIT_PART;
        let read = timeout(within, in_flight.wait_for(Option::is_some)).await.ok()?;
        read.ok()?.clone().flatten().filter(|instant| instant.has(metrics))
    }

    /// Starts to read metrics in a task, so that cancelling a caller is safe.
    fn read(
        self: &Arc<Self>,
        metrics: Vec<String>,
        needed: BTreeSet<String>,
        now: Tick,
    ) -> InFlight {
        let (sender, in_flight) = watch::channel(None);
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let read = shared.read_at(&metrics, now).await.map(Arc::new);
            let ended_at = shared.clock.now();
            // Queries that the server answers in time must not wait for this.
            let read = read.filter(|_| now.age(ended_at) < shared.settings.answer_within);
            lock(&shared.whole).store(&metrics, &needed, read.clone(), ended_at);
            sender.send_replace(Some(read));
        });
        in_flight
    }

    /// Reads metrics, and the times of their samples if these are needed.
    async fn read_at(&self, metrics: &[String], now: Tick) -> Option<Instant> {
        let body = self.whole_answer(&values_of(metrics), None).await?;
        let read = Untimed::read(&body, metrics).ok()?;
        let last = lock(&self.whole).last.clone();
        let last = last.filter(|last| last.timed_at.age(now) < self.settings.max_age / TIMED_EVERY);
        let read = match last {
            Some(last) => match read.timed_by(&last, now) {
                Ok(instant) => return Some(instant),
                Err(untimed) => untimed,
            },
            None => read,
        };
        let at = Some(read.at);
        let times = metrics.iter().map(async |metric| {
            let body = self.whole_answer(&times_of(metric), at).await?;
            Some((metric.clone(), body))
        });
        let times: Option<HashMap<_, _>> = join_all(times).await.into_iter().collect();
        read.timed(&times?, now).ok()
    }

    async fn whole_answer(&self, query: &str, at: Option<f64>) -> Option<Bytes> {
        let mut request = request(&self.allowing_partial(InstantQuery::default()), query);
        request.parameters.extend(at.map(|at| ("time".to_owned(), format!("{at:.3}"))));
        let (body, _) = self.instant(request, Purpose::Guarded).await.ok()?;
        Some(body).filter(|body| !answer::has_warnings(body))
    }
}

/// Returns the metrics that a query selects from, if it can be evaluated here.
fn evaluated_metrics(query: &Query) -> Result<BTreeSet<String>, NotLocal> {
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
            all &= self.is_in_demand(metric);
        }
        all
    }

    /// Returns whether enough queries select from a metric for its number of series.
    fn is_in_demand(&self, metric: &str) -> bool {
        let queries = self.demand.get(metric).map_or(0, HashMap::len);
        let series = self.sizes.get(metric).map_or(0, |(series, _)| *series);
        queries >= QUERIES_MIN
            && series <= queries * SERIES_PER_QUERY
            && !self.paused.contains_key(metric)
    }

    /// Returns the metrics to read: these, and others that are in demand.
    fn wanted(&mut self, metrics: &BTreeSet<String>, now: Tick) -> Vec<String> {
        self.forget(now);
        let are_apart = self.apart_since.is_some_and(|since| since.age(now) < PAUSE);
        let others =
            self.demand.iter().filter(|(metric, _)| !are_apart && self.is_in_demand(metric));
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
        self.sizes.retain(|_, (_, read_at)| read_at.age(now) < PAUSE);
    }

    /// Stores what was read. After a failure, metrics are read apart; those that were needed are paused if that is all that
    /// was read.
    fn store(
        &mut self,
        metrics: &[String],
        needed: &BTreeSet<String>,
        read: Option<Arc<Instant>>,
        now: Tick,
    ) {
        let Some(read) = read else {
            if metrics.len() > needed.len() {
                self.apart_since = Some(now);
            } else {
                self.paused.extend(needed.iter().map(|metric| (metric.clone(), now)));
            }
            return;
        };
        for (metric, series) in &read.series {
            self.sizes.insert(metric.clone(), (series.len(), now));
        }
        self.last = Some(read);
    }
}

/// Returns the query for all series of metrics.
pub(crate) fn values_of(metrics: &[String]) -> String {
    let names: Vec<String> = metrics.iter().map(|metric| regex::escape(metric)).collect();
    format!(r#"{{{NAME}=~"{}"}}"#, escape_string(&names.join("|")))
}

/// Returns the query for the times of the samples of a metric.
pub(crate) fn times_of(metric: &str) -> String {
    format!(r#"timestamp({{{NAME}="{}"}})"#, escape_string(metric))
}

impl Untimed {
    /// Reads the answer to [`values_of`] these metrics.
    pub(crate) fn read(body: &[u8], metrics: &[String]) -> Result<Self, String> {
        let (at, samples) = answer::samples_at(body)?;
        let mut series: HashMap<String, Vec<(Labels, f64)>> =
            metrics.iter().map(|metric| (metric.clone(), Vec::new())).collect();
        for (mut labels, value) in samples {
            let of_metric = labels.remove(NAME).and_then(|name| series.get_mut(&name));
            of_metric.ok_or("the answer has another metric")?.push((Labels::new(labels), value));
        }
        Ok(Self { at, series })
    }

    /// Adds the ages that the samples have at most, by the last instant; `Err` if that one lacks a series.
    pub(crate) fn timed_by(self, last: &Instant, asked_at: Tick) -> Result<Instant, Self> {
        let since = last.asked_at.age(asked_at);
        let ages = last.series.iter().map(|(metric, samples)| {
            let ages = samples.iter().map(|sample| (&sample.labels, sample.age + since));
            (metric.as_str(), ages.collect())
        });
        let ages: HashMap<&str, HashMap<&Labels, Duration>> = ages.collect();
        let age_of = |metric: &str, labels: &Labels| ages.get(metric)?.get(labels).copied();
        self.aged(age_of, asked_at, last.timed_at)
    }

    /// Adds the ages of the samples, given the answers to [`times_of`] each metric at the same instant.
    pub(crate) fn timed(
        self,
        times: &HashMap<String, Bytes>,
        asked_at: Tick,
    ) -> Result<Instant, String> {
        let mut ages: HashMap<&str, HashMap<Labels, Duration>> = HashMap::new();
        for (metric, body) in times {
            let of_metric = ages.entry(metric).or_default();
            for (labels, time) in answer::samples(body)? {
                let age = age_of(self.at - time).ok_or("a time is not a number")?;
                of_metric.insert(Labels::new(labels), age);
            }
        }
        let age_of = |metric: &str, labels: &Labels| ages.get(metric)?.get(labels).copied();
        self.aged(age_of, asked_at, asked_at).map_err(|_| "a sample has no time".to_owned())
    }

    /// Adds the ages of the samples; `Err` if one is unknown.
    fn aged(
        self,
        age_of: impl Fn(&str, &Labels) -> Option<Duration>,
        asked_at: Tick,
        timed_at: Tick,
    ) -> Result<Instant, Self> {
        let mut series = HashMap::new();
        for (metric, samples) in &self.series {
            let aged = samples.iter().map(|(labels, value)| {
                let age = age_of(metric, labels)?;
                Some(HeldSample { labels: labels.clone(), value: *value, age })
            });
            let Some(aged) = aged.collect::<Option<Vec<_>>>() else { return Err(self) };
            series.insert(metric.clone(), aged);
        }
        Ok(Instant { asked_at, at: self.at, timed_at, series })
    }
}

impl Instant {
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
