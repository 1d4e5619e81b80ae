// SPDX-License-Identifier: Apache-2.0
//! Implements `check`: whether the server can be reached, and whether it holds what is needed. It sends the
//! same requests as a fetch, and judges how far they get.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use collector_core::text::counted;
use collector_core::{Check, CheckStatus, ErrorKind, Probe};
use collector_transport::quote;

use crate::answer::Row;
use crate::client::{Client, Query, RequestBudget};
use crate::discovery::ask_clock_once;
use crate::failure::{Failure, Stage};
use crate::labels::Level;
use crate::plan::{QueryKind, select};
use crate::promql::{EvalTime, Matcher};
use crate::server_clock::ServerClock;
use crate::shape::{self, DiscoverySettings, Served, Shape};

/// Clock difference in seconds that is reported.
const SKEW_MAX: f64 = 5.0;

/// The checks of the connection, in the order in which a request passes them.
const CONNECTION: [&str; 5] =
    ["connection.dns", "connection.tcp", "connection.tls", "connection.auth", "connection.http"];

/// The checks that need an answer.
const METRICS: [&str; 7] = [
    "metrics.names",
    "metrics.labels",
    "metrics.clusters",
    "metrics.duplicates",
    "metrics.scrape_interval",
    "metrics.lateness",
    "metrics.load",
];

/// The rates of the load, with the words for each.
const LOAD: [(QueryKind, &str); 7] = [
    (QueryKind::RequestCount, "arrivals"),
    (QueryKind::InputTokens, "prompt tokens"),
    (QueryKind::OutputTokens, "generated tokens"),
    (QueryKind::TtftSum, "times to first token"),
    (QueryKind::TtftCount, "times to first token"),
    (QueryKind::ItlSum, "inter-token latencies"),
    (QueryKind::ItlCount, "inter-token latencies"),
];

/// Runs all checks.
pub(crate) async fn run(
    client: &Client,
    terms: &DiscoverySettings,
    budget: RequestBudget<'_>,
) -> Probe {
    let mut checks = Vec::new();
    let clock = match ask_clock_once(client, budget).await {
        Ok(clock) => clock,
        Err(failure) => {
            connection(client, Some(&failure), &mut checks);
            skip(&mut checks, ["connection.clock"]);
            skip(&mut checks, METRICS);
            return Probe::new(checks);
        }
    };
    connection(client, None, &mut checks);
    checks.push(skew(&clock, budget));
    match shape::ask(client, budget, terms, None).await {
        Ok(shape) if shape.has_engines() => {
            let asker = Asker { client, budget, terms };
            checks.push(names(&shape));
            checks.push(or_failed("metrics.labels", asker.labels(&shape).await));
            checks.push(or_failed("metrics.clusters", asker.clusters(&shape).await));
            checks.push(or_failed("metrics.duplicates", asker.duplicates(&shape).await));
            // Windows end at the newest sample.
            let newest = asker.newest(&shape, &clock).await;
            let interval = asker.scrape_interval(&shape, &newest).await;
            checks.push(or_failed("metrics.scrape_interval", interval));
            checks.push(lateness(&shape, &newest));
            checks.push(or_failed("metrics.load", asker.load(&shape, &newest).await));
        }
        Ok(shape) => {
            checks.push(no_names(&shape, terms));
            skip(&mut checks, METRICS.into_iter().skip(1));
        }
        Err(failure) => {
            checks.push(failed(METRICS[0], failure));
            skip(&mut checks, METRICS.into_iter().skip(1));
        }
    }
    Probe::new(checks)
}

/// Reports how far the first request got.
fn connection(client: &Client, failure: Option<&Failure>, checks: &mut Vec<Check>) {
    let broken = failure.map(|failure| match failure.kind {
        ErrorKind::Dns => 0,
        ErrorKind::Connect => 1,
        ErrorKind::Timeout if failure.stage == Stage::Connecting => 1,
        ErrorKind::Tls => 2,
        ErrorKind::Unauthorized | ErrorKind::Forbidden => 3,
        _ => 4,
    });
    let url = client.url();
    let passed = [
        "the host has an address".to_owned(),
        format!("{url} accepts connections"),
        "the certificate is valid".to_owned(),
        client.credential(),
        "it answers queries".to_owned(),
    ];
    for (i, (id, detail)) in CONNECTION.into_iter().zip(passed).enumerate() {
        checks.push(match (failure, broken) {
            (Some(failure), Some(broken)) if i == broken => failed(id, failure.clone()),
            (_, Some(broken)) if i > broken => skipped(id),
            _ if id == "connection.tls" && !client.is_encrypted() => {
                Check::new(id, CheckStatus::Skip, "the connection is not encrypted (http://)")
            }
            _ => Check::new(id, CheckStatus::Pass, detail),
        });
    }
}

fn skew(clock: &ServerClock, budget: RequestBudget<'_>) -> Check {
    let id = "connection.clock";
    let ahead = clock.ahead_of(budget.clock.wall(), budget.clock.now());
    if ahead.abs() <= SKEW_MAX {
        let detail = format!("the server's clock is {:.1} s from ours", ahead.abs());
        return Check::new(id, CheckStatus::Pass, detail);
    }
    let direction = if ahead > 0.0 { "ahead of" } else { "behind" };
    let detail = format!("the server's clock is {:.0} s {direction} ours", ahead.abs());
    Check::new(id, CheckStatus::Warn, detail).with_remedy(
        "ages are still right, because they are counted on the server's clock; synchronise both with NTP",
    )
}

/// Iterates over the engines present.
fn there(shape: &Shape) -> impl Iterator<Item = &Served> {
    shape.served.iter().map(AsRef::as_ref).filter(|served| served.is_there)
}

fn names(shape: &Shape) -> Check {
    let engine = |served: &Served| {
        let native = match served.native.as_slice() {
            [] => "",
            _ => ", with native histograms",
        };
        format!("{} ({}{native})", served.engine.name, served.plan.liveness.name)
    };
    let mut detail = there(shape).map(engine).collect::<Vec<_>>().join(", ");
    if let Some(router) = shape.router {
        detail = format!("{detail}; the series of {router} are left out");
    }
    Check::new("metrics.names", CheckStatus::Pass, format!("found metrics of {detail}"))
}

fn no_names(shape: &Shape, terms: &DiscoverySettings) -> Check {
    let known: Vec<String> = terms.engines.names().iter().map(ToString::to_string).collect();
    let detail = match shape.router {
        Some(router) => format!("the server holds series of {router} and of no model server"),
        None => "the server holds no series of a known engine".to_owned(),
    };
    Check::new("metrics.names", CheckStatus::Fail, detail).with_remedy(format!(
        "does it scrape the model servers? check its targets, the ServiceMonitor or PodMonitor, and \
         prometheus.tenant; an engine besides {} is described in [[engines]]",
        known.join(", ")
    ))
}

fn labels(shape: &Shape) -> Check {
    let id = "metrics.labels";
    let mut found = Vec::new();
    for served in there(shape) {
        if let Some(what) = served.lacks() {
            let example = served.example.as_deref().unwrap_or_default();
            let detail = format!(
                "no series of {} has a label that names the {what}: {example}",
                served.engine.name
            );
            return Check::new(id, CheckStatus::Fail, detail).with_remedy(format!(
                "set it in the relabelling of the scrape job (a PodMonitor does), or name the label in \
                 prometheus.labels.{what}"
            ));
        }
        let labels = &served.labels;
        let pods =
            served.pods.map_or_else(|| "pods".to_owned(), |pods| counted(pods, "pod", "pods"));
        found.push(format!(
            "{pods} of {}, by the labels {}, {} and {}",
            served.engine.name,
            labels.namespace.join(" or "),
            labels.pod.join(" or "),
            labels.model.join(" or ")
        ));
    }
    let exported = there(shape)
        .flat_map(|served| served.labels.namespace.iter().chain(&served.labels.pod))
        .any(|label| label.starts_with("exported_"));
    let check = Check::new(id, CheckStatus::Pass, found.join("; "));
    if exported {
        check.with_remedy(
            "the pods' own labels stand under exported_…, which are read; honorLabels: true in the \
             monitor keeps their names",
        )
    } else {
        check
    }
}

/// Queries for the checks of metrics.
struct Asker<'a> {
    client: &'a Client,
    budget: RequestBudget<'a>,
    terms: &'a DiscoverySettings,
}

impl Asker<'_> {
    async fn rows(
        &self,
        text: &str,
        time: Option<EvalTime>,
        on_row: &mut (dyn FnMut(&Row<'_>) + Send),
    ) -> Result<(), Failure> {
        let query = Query { kind: QueryKind::Example, text, time };
        self.client.query(query, self.budget, on_row).await?;
        Ok(())
    }

    fn series(&self, served: &Served) -> String {
        select(&served.plan.liveness, &self.terms.matchers)
    }

    /// Checks whether the series have labels for namespace, pod and model, and whether those of the model name one.
    async fn labels(&self, shape: &Shape) -> Result<Check, Failure> {
        let check = labels(shape);
        // Selectors may name the models of such series.
        if check.status != CheckStatus::Pass || self.terms.has_model_selectors {
            return Ok(check);
        }
        let (mut with_model, mut without) = (HashSet::new(), BTreeMap::new());
        for served in there(shape) {
            let labels = &served.labels;
            let by = labels.by(Level::Pod, false).join(",");
            let text = format!("count by ({by}) ({})", self.series(served));
            self.rows(&text, None, &mut |row| {
                let Some(pod) = labels.replica_of(&row.labels) else { return };
                let namespace = row.labels.first_of(&labels.namespace).unwrap_or_default();
                let pod = (namespace.to_owned(), pod.into_owned());
                let name = row.labels.first_of(&labels.model).unwrap_or_default();
                if served.engine.model.is_some() || served.engine.names_model(name) {
                    with_model.insert(pod);
                } else if !name.is_empty() {
                    // A router's series have no such label.
                    without.entry(pod).or_insert_with(|| (served, name.to_owned()));
                }
            })
            .await?;
        }
        // A pod may have series of two engines: Triton's own, and those of TensorRT-LLM.
        without.retain(|pod, _| !with_model.contains(pod));
        let Some(((namespace, pod), (served, name))) = without.first_key_value() else {
            return Ok(check);
        };
        let detail = format!(
            "without a model, and so not read: {}, the first is {:?} in namespace {:?}; {:?} in the label {} of {} \
             is not a model id",
            counted(without.len(), "pod", "pods"),
            quote(pod),
            quote(namespace),
            quote(name),
            served.labels.model.join(" or "),
            served.engine.name
        );
        Ok(Check::new("metrics.labels", CheckStatus::Warn, detail).with_remedy(
            "name their model: in [[prometheus.models]], or by model in [[engines]] if all servers of the \
             engine have the same",
        ))
    }

    /// Checks whether any model has series in several clusters.
    async fn clusters(&self, shape: &Shape) -> Result<Check, Failure> {
        let id = "metrics.clusters";
        for served in there(shape) {
            let labels = &served.labels;
            for cluster in &labels.cluster {
                let models = labels.by(Level::Model, false).join(",");
                let series = self.series(served);
                let text =
                    format!("count by ({models}) (count by ({models},{cluster}) ({series})) > 1");
                let mut models = Vec::new();
                self.rows(&text, None, &mut |row| {
                    let model = row.labels.first_of(&labels.model).unwrap_or_default();
                    if !model.is_empty() {
                        models.push(quote(model));
                    }
                })
                .await?;
                if let Some(first) = models.first() {
                    let mut values = Vec::new();
                    let text = format!("count by ({cluster}) ({series})");
                    self.rows(&text, None, &mut |row| {
                        let value = row.labels.get(cluster).unwrap_or_default();
                        values.push(format!("{:?}", quote(value)));
                    })
                    .await?;
                    values.truncate(8);
                    let detail = format!(
                        "{first:?} has series of several clusters in one namespace: the label {cluster} \
                         has the values {}",
                        values.join(", ")
                    );
                    let remedy = format!("select one: prometheus.matchers = ['{cluster}=…']");
                    return Ok(Check::new(id, CheckStatus::Fail, detail).with_remedy(remedy));
                }
            }
        }
        Ok(Check::new(id, CheckStatus::Pass, "no model has series of several clusters"))
    }

    /// Checks whether series are stored more than once, and which labels distinguish them.
    async fn duplicates(&self, shape: &Shape) -> Result<Check, Failure> {
        let id = "metrics.duplicates";
        for served in there(shape).filter(|served| served.lacks().is_none()) {
            if served.doubled {
                let apart = served.labels.apart.join(", ");
                let detail = format!(
                    "some series of {} are stored more than once, distinguished by the labels: {apart}; \
                     each is counted once, as of the newest sample",
                    served.engine.name
                );
                return Ok(Check::new(id, CheckStatus::Warn, detail).with_remedy(
                    "is a pod selected by two monitors, or do two servers of a pair answer without \
                     deduplication?",
                ));
            }
            let ranks = served.labels.by(Level::Rank, false).join(",");
            let servers = served.labels.by(Level::Rank, true).join(",");
            let model = served.labels.model.first();
            let filter =
                self.terms.matchers.and(model.map(|label| Matcher::present(label.to_string())));
            let series = select(&served.plan.liveness, &filter);
            let text = format!("count(count by ({ranks}) (count by ({servers}) ({series})) > 1)");
            let mut several = 0.0_f64;
            self.rows(&text, None, &mut |row| several = row.value).await?;
            if several > 0.0 {
                let detail = format!(
                    "some pods of {} have several series of one rank, distinguished by the label instance: \
                     where their counters differ they are taken for servers of one pod and added up, \
                     else for copies",
                    served.engine.name
                );
                return Ok(Check::new(id, CheckStatus::Warn, detail).with_remedy(
                    "is a pod selected by two monitors, or does it run several servers, each on its own \
                     port?",
                ));
            }
        }
        Ok(Check::new(id, CheckStatus::Pass, "each pod is stored once"))
    }

    /// Checks whether the window holds enough scrapes for a rate.
    async fn scrape_interval(&self, shape: &Shape, newest: &[Newest]) -> Result<Check, Failure> {
        let id = "metrics.scrape_interval";
        let mut passed = String::new();
        for (served, newest) in there(shape).zip(newest) {
            let window = served.plan.window;
            let text = format!("max(count_over_time({}{window}))", self.series(served));
            let mut samples = 0.0_f64;
            let mut on_row = |row: &Row<'_>| samples = samples.max(row.value);
            self.rows(&text, newest.window_end(), &mut on_row).await?;
            let shown = collector_core::duration::format(window.0);
            let apart = match served.interval {
                Some(interval) if interval != self.terms.scrape_interval => format!(
                    ", which are {} apart according to the series",
                    collector_core::duration::format(in_millis(interval))
                ),
                _ => String::new(),
            };
            let detail =
                format!("the window of {shown} holds {} of a pod{apart}", scrapes(samples));
            let problem = match samples {
                ..2.0 => Some((CheckStatus::Fail, ", too few for any rate")),
                2.0..4.0 => Some((CheckStatus::Warn, "; a lost scrape leaves a gap")),
                _ => None,
            };
            if let Some((status, problem)) = problem {
                return Ok(Check::new(id, status, format!("{detail}{problem}")).with_remedy(
                    "if the pods have been up for longer than that, set prometheus.scrape_interval to \
                     their scrape interval, or prometheus.window to four times that",
                ));
            }
            passed = detail;
        }
        Ok(Check::new(id, CheckStatus::Pass, passed))
    }

    /// Returns the newest sample of each engine present.
    async fn newest(&self, shape: &Shape, clock: &ServerClock) -> Vec<Newest> {
        let mut all = Vec::new();
        for served in there(shape) {
            let text = format!("max(timestamp({}))", self.series(served));
            let asked = clock.moment(self.budget.clock.now()).time;
            let mut stamp = f64::NAN;
            let mut on_row = |row: &Row<'_>| stamp = row.value;
            let failure = self.rows(&text, Some(asked), &mut on_row).await.err();
            let interval = served.scrape_interval().as_secs_f64();
            all.push(Newest { late: asked.seconds() - stamp, asked, interval, failure });
        }
        all
    }

    /// Checks whether the load is measured.
    async fn load(&self, shape: &Shape, newest: &[Newest]) -> Result<Check, Failure> {
        let id = "metrics.load";
        let mut window = String::new();
        for (served, newest) in there(shape).zip(newest) {
            let plan = &served.plan;
            window = collector_core::duration::format(plan.window.0);
            let mut lacking: Vec<&str> = Vec::new();
            for (kind, words) in LOAD {
                let mut rows = 0;
                if plan.asks(kind) {
                    let level = plan.level(kind, Level::Model);
                    let text = plan.query(kind, &served.labels, &self.terms.matchers, level, false);
                    let mut on_row = |_: &Row<'_>| rows += 1;
                    self.rows(&text, newest.window_end(), &mut on_row).await?;
                }
                if rows == 0 && !lacking.contains(&words) {
                    lacking.push(words);
                }
            }
            if !lacking.is_empty() {
                let native = match served.native.as_slice() {
                    [] => String::new(),
                    [first, ..] => format!(
                        "; {first} and its like are stored as native histograms, which this server \
                         does not answer for"
                    ),
                };
                let detail = format!(
                    "not measured of {} in the window of {window}: {}{native}",
                    served.engine.name,
                    lacking.join(", ")
                );
                return Ok(Check::new(id, CheckStatus::Warn, detail).with_remedy(
                    "does the scrape job, or remote write, drop the series that end in _sum, _count and \
                     _total? is the window at least two scrapes?",
                ));
            }
        }
        Ok(Check::new(
            id,
            CheckStatus::Pass,
            format!("arrivals, tokens and latencies are measured, over {window}"),
        ))
    }
}

/// How old the newest sample of an engine is.
struct Newest {
    /// Seconds; NaN if unknown.
    late: f64,
    asked: EvalTime,
    /// Seconds between scrapes.
    interval: f64,
    failure: Option<Failure>,
}

impl Newest {
    fn is_late(&self) -> bool {
        self.late > self.interval + 1.0
    }

    /// Returns when windows end, if not now.
    fn window_end(&self) -> Option<EvalTime> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is positive, and a server's look-back is minutes"
        )]
        let millis = (self.late * 1000.0) as u64;
        self.is_late().then(|| EvalTime(self.asked.0.saturating_sub(millis)))
    }
}

/// Checks whether samples arrive late.
fn lateness(shape: &Shape, newest: &[Newest]) -> Check {
    let id = "metrics.lateness";
    for (served, newest) in there(shape).zip(newest) {
        if let Some(failure) = &newest.failure {
            return failed(id, failure.clone());
        }
        if newest.is_late() {
            let detail = format!(
                "samples arrive {:.0} s late: the newest of {} is that old",
                newest.late, served.engine.name
            );
            return Check::new(id, CheckStatus::Warn, detail).with_remedy(
                "readings say so by their age, and rates end at the newest sample; does remote write \
                 lag, or has scraping ended?",
            );
        }
    }
    Check::new(id, CheckStatus::Pass, "samples arrive in time")
}

/// Formats a number of scrapes.
fn scrapes(samples: f64) -> String {
    let word = if (samples - 1.0).abs() < 0.5 { "scrape" } else { "scrapes" };
    format!("{samples} {word}")
}

/// To the millisecond: a measured interval has digits that mean nothing.
fn in_millis(interval: Duration) -> Duration {
    Duration::from_millis(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX))
}

fn or_failed(id: &str, check: Result<Check, Failure>) -> Check {
    check.unwrap_or_else(|failure| failed(id, failure))
}

fn failed(id: &str, failure: Failure) -> Check {
    let check = Check::new(id, CheckStatus::Fail, failure.reason());
    if failure.remedy.is_empty() {
        check.with_remedy("look into the log of the server, and of what stands before it")
    } else {
        check.with_remedy(failure.remedy)
    }
}

fn skipped(id: &str) -> Check {
    Check::new(id, CheckStatus::Skip, "an earlier check failed")
}

fn skip<'a>(checks: &mut Vec<Check>, ids: impl IntoIterator<Item = &'a str>) {
    checks.extend(ids.into_iter().map(skipped));
}
