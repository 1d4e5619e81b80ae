//! What `check` wants to know: whether the server can be reached, and whether it holds what is
//! needed. The same requests as in a look, told apart by how far they come.

use collector_core::text::counted;
use collector_core::{Check, CheckStatus, ErrorKind, Probe};

use crate::answer::{Expect, Row};
use crate::client::{Budget, Client, Query};
use crate::failure::{Failure, Stage};
use crate::labels::Level;
use crate::learn::ask_clock_once;
use crate::plan::{QueryKind, select};
use crate::promql::{EvalTime, Matcher};
use crate::server_clock::ServerClock;
use crate::shape::{self, Served, Shape, Terms};

/// Seconds by which the clocks may differ before it is worth a look.
const SKEW_MAX: f64 = 5.0;

/// The checks of the way to the server, in the order in which a request passes them.
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

/// What the load is made of, with the words for each.
const LOAD: [(QueryKind, &str); 7] = [
    (QueryKind::RequestCount, "arrivals"),
    (QueryKind::InputTokens, "prompt tokens"),
    (QueryKind::OutputTokens, "generated tokens"),
    (QueryKind::TtftSum, "times to first token"),
    (QueryKind::TtftCount, "times to first token"),
    (QueryKind::ItlSum, "inter-token latencies"),
    (QueryKind::ItlCount, "inter-token latencies"),
];

/// Asks, and tells.
pub(crate) async fn run(client: &Client, terms: &Terms, budget: Budget<'_>) -> Probe {
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
            checks.extend([names(&shape), labels(&shape)]);
            checks.push(asker.clusters(&shape).await);
            checks.push(asker.duplicates(&shape).await);
            // What is over a window ends where the samples do.
            let newest = asker.newest(&shape, &clock).await;
            checks.push(asker.scrape_interval(&shape, &newest).await);
            checks.push(lateness(&shape, &newest));
            checks.push(asker.load(&shape, &newest).await);
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

/// How far the first request came.
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
        "the certificate is good".to_owned(),
        client.credential(),
        "it answers queries".to_owned(),
    ];
    for (i, (id, detail)) in CONNECTION.into_iter().zip(passed).enumerate() {
        checks.push(match (failure, broken) {
            (_, None) if i == 2 && !client.is_encrypted() => unencrypted(id),
            (_, Some(broken)) if i == 2 && i < broken && !client.is_encrypted() => unencrypted(id),
            (Some(failure), Some(broken)) if i == broken => failed(id, failure.clone()),
            (_, Some(broken)) if i > broken => skipped(id),
            _ => Check::new(id, CheckStatus::Pass, detail),
        });
    }
}

fn unencrypted(id: &str) -> Check {
    Check::new(id, CheckStatus::Skip, "the connection is not encrypted (http://)")
}

fn skew(clock: &ServerClock, budget: Budget<'_>) -> Check {
    let id = "connection.clock";
    let ahead = clock.ahead_of(budget.clock.wall(), budget.clock.now());
    if ahead.abs() <= SKEW_MAX {
        return Check::new(
            id,
            CheckStatus::Pass,
            format!("the server's clock is {:.1} s from ours", ahead.abs()),
        );
    }
    let direction = if ahead > 0.0 { "ahead of" } else { "behind" };
    Check::new(
        id,
        CheckStatus::Warn,
        format!("the server's clock is {:.0} s {direction} ours", ahead.abs()),
    )
    .with_remedy(
        "ages are right in spite of it, as they are counted on the server's clock; set both by NTP",
    )
}

/// The engines that are there.
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
    Check::new("metrics.names", CheckStatus::Pass, format!("metrics exist of {detail}"))
}

fn no_names(shape: &Shape, terms: &Terms) -> Check {
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
    }
    let mut told = Vec::new();
    for served in there(shape) {
        let labels = &served.labels;
        let pods =
            served.pods.map_or_else(|| "pods".to_owned(), |pods| counted(pods, "pod", "pods"));
        told.push(format!(
            "{pods} of {}, by the labels {}, {} and {}",
            served.engine.name,
            labels.namespace.join(" or "),
            labels.pod.join(" or "),
            labels.model.join(" or ")
        ));
    }
    let exported = there(shape).any(|served| {
        let all = served.labels.namespace.iter().chain(&served.labels.pod);
        all.into_iter().any(|label| label.starts_with("exported_"))
    });
    let check = Check::new(id, CheckStatus::Pass, told.join("; "));
    if exported {
        check.with_remedy(
            "the pods' own labels stand under exported_…, which are read; honorLabels: true in the \
             monitor keeps their names",
        )
    } else {
        check
    }
}

/// Asks about what is there.
struct Asker<'a> {
    client: &'a Client,
    budget: Budget<'a>,
    terms: &'a Terms,
}

impl Asker<'_> {
    async fn rows(
        &self,
        text: &str,
        time: Option<EvalTime>,
        on_row: &mut (dyn FnMut(&Row<'_>) + Send),
    ) -> Result<(), Failure> {
        let query = Query { kind: QueryKind::Example, text, time };
        self.client.query(query, Expect::Vector, self.budget, on_row).await?;
        Ok(())
    }

    fn series(&self, served: &Served) -> String {
        select(&served.plan.liveness, &self.terms.matchers)
    }

    /// Whether any model stands in several clusters.
    async fn clusters(&self, shape: &Shape) -> Check {
        let id = "metrics.clusters";
        for served in there(shape) {
            let labels = &served.labels;
            for cluster in &labels.cluster {
                let models = labels.by(Level::Model, false).join(",");
                let series = self.series(served);
                let text =
                    format!("count by ({models}) (count by ({models},{cluster}) ({series})) > 1");
                let mut models = Vec::new();
                let asked = self
                    .rows(&text, None, &mut |row| {
                        let model = row.labels.first_of(&labels.model).unwrap_or_default();
                        if !model.is_empty() {
                            models.push(collector_transport::quote(model));
                        }
                    })
                    .await;
                if let Err(failure) = asked {
                    return failed(id, failure);
                }
                if let Some(first) = models.first() {
                    let mut values = Vec::new();
                    let text = format!("count by ({cluster}) ({series})");
                    let asked = self
                        .rows(&text, None, &mut |row| {
                            let value = row.labels.get(cluster).unwrap_or_default();
                            values.push(format!("{:?}", collector_transport::quote(value)));
                        })
                        .await;
                    if let Err(failure) = asked {
                        return failed(id, failure);
                    }
                    values.truncate(8);
                    let detail = format!(
                        "{first:?} has series of several clusters in one namespace: the label {cluster} \
                         has the values {}",
                        values.join(", ")
                    );
                    return Check::new(id, CheckStatus::Fail, detail)
                        .with_remedy(format!("select one: prometheus.matchers = ['{cluster}=…']"));
                }
            }
        }
        Check::new(id, CheckStatus::Pass, "no model has series of several clusters")
    }

    /// Whether series are stored more than once, and by which label that can be told.
    async fn duplicates(&self, shape: &Shape) -> Check {
        let id = "metrics.duplicates";
        for served in there(shape).filter(|served| served.lacks().is_none()) {
            if served.doubled {
                let apart = served.labels.apart.join(", ");
                let detail = format!(
                    "some series of {} are stored more than once, told apart by the labels: {apart}; \
                     each is counted once, as of the newest sample",
                    served.engine.name
                );
                return Check::new(id, CheckStatus::Warn, detail).with_remedy(
                    "is a pod selected by two monitors, or do two servers of a pair answer without \
                     deduplication?",
                );
            }
            let ranks = served.labels.by(Level::Rank, false).join(",");
            let servers = served.labels.by(Level::Rank, true).join(",");
            let model = served.labels.model.first();
            let filter =
                self.terms.matchers.and(model.map(|label| Matcher::present(label.to_string())));
            let series = select(&served.plan.liveness, &filter);
            let text = format!("count(count by ({ranks}) (count by ({servers}) ({series})) > 1)");
            let mut several = 0.0_f64;
            if let Err(failure) = self.rows(&text, None, &mut |row| several = row.value).await {
                return failed(id, failure);
            }
            if several > 0.0 {
                let detail = format!(
                    "some pods of {} have several series of one rank, told apart by the label instance: \
                     where their counters differ they are taken for servers of one pod and added up, \
                     else for copies",
                    served.engine.name
                );
                return Check::new(id, CheckStatus::Warn, detail).with_remedy(
                    "is a pod selected by two monitors, or does it run several servers, each on its own \
                     port?",
                );
            }
        }
        Check::new(id, CheckStatus::Pass, "each pod is stored once")
    }

    /// Whether the window holds enough scrapes for a rate.
    async fn scrape_interval(&self, shape: &Shape, newest: &[Newest]) -> Check {
        let id = "metrics.scrape_interval";
        let mut told = String::new();
        for (served, newest) in there(shape).zip(newest) {
            let window = served.plan.window;
            let text = format!("max(count_over_time({}{window}))", self.series(served));
            let mut samples = 0.0_f64;
            let mut on_row = |row: &Row<'_>| samples = samples.max(row.value);
            if let Err(failure) = self.rows(&text, newest.window_end(), &mut on_row).await {
                return failed(id, failure);
            }
            let shown = collector_core::duration::format(window.0);
            let learnt = match served.interval {
                Some(interval) if interval != self.terms.scrape_interval => format!(
                    ", which are {} apart by the series themselves",
                    collector_core::duration::format(interval)
                ),
                _ => String::new(),
            };
            let detail =
                format!("the window of {shown} holds {} of a pod{learnt}", scrapes(samples));
            let problem = match samples {
                ..2.0 => Some((CheckStatus::Fail, ", too few for any rate")),
                2.0..4.0 => Some((CheckStatus::Warn, "; a lost one leaves a gap")),
                _ => None,
            };
            if let Some((status, problem)) = problem {
                return Check::new(id, status, format!("{detail}{problem}")).with_remedy(
                    "if the pods have been up for longer than that, set prometheus.scrape_interval to \
                     how often they are scraped, or prometheus.window to four times that",
                );
            }
            told = detail;
        }
        Check::new(id, CheckStatus::Pass, told)
    }

    /// The newest sample of each engine that is there.
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

    /// Whether the load is measured.
    async fn load(&self, shape: &Shape, newest: &[Newest]) -> Check {
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
                    let asked = self.rows(&text, newest.window_end(), &mut on_row).await;
                    if let Err(failure) = asked {
                        return failed(id, failure);
                    }
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
                return Check::new(id, CheckStatus::Warn, detail).with_remedy(
                    "does the scrape job, or remote write, drop the series that end in _sum, _count and \
                     _total? is the window at least two scrapes?",
                );
            }
        }
        Check::new(
            id,
            CheckStatus::Pass,
            format!("arrivals, tokens and latencies are measured, over {window}"),
        )
    }
}

/// How old the newest sample of an engine is.
struct Newest {
    /// In seconds; NaN when it was not told.
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

    /// When windows end, where that is not now.
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

/// Whether samples arrive late.
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

/// A number of scrapes, which an answer has as a float.
fn scrapes(samples: f64) -> String {
    let word = if (samples - 1.0).abs() < 0.5 { "scrape" } else { "scrapes" };
    format!("{samples} {word}")
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
