//! What `check` wants to know: whether the server can be reached, and whether it holds what is
//! needed. The same requests as in a look, told apart by how far they come.

use collector_core::text::counted;
use collector_core::{Check, CheckStatus, ErrorKind, Probe};

use crate::answer::Expect;
use crate::client::{Budget, Client, Query};
use crate::config::PrometheusConfig;
use crate::failure::{Failure, Stage};
use crate::learn::{Shape, ask_clock_once, ask_shape};
use crate::names::{Alias, PodLabel};
use crate::plan::{Grouping, QueryKind};
use crate::promql::Filter;
use crate::server_clock::ServerClock;

/// Seconds by which the clocks may differ before it is worth a look.
const SKEW_MAX: f64 = 5.0;

/// The checks of the way to the server, in the order in which a request passes them.
const CONNECTION: [&str; 5] =
    ["connection.dns", "connection.tcp", "connection.tls", "connection.auth", "connection.http"];

/// The checks that need an answer.
const METRICS: [&str; 4] =
    ["metrics.names", "metrics.labels", "metrics.duplicates", "metrics.scrape_interval"];

/// Asks, and tells.
pub(crate) async fn run(client: &Client, config: &PrometheusConfig, budget: Budget<'_>) -> Probe {
    let mut checks = Vec::new();
    let clock = match ask_clock_once(client, budget).await {
        Ok(clock) => clock,
        Err(failure) => {
            connection(client, Some(&failure), &mut checks);
            skip(&mut checks, ["connection.clock"]);
            skip(&mut checks, METRICS);
            return Probe { checks };
        }
    };
    connection(client, None, &mut checks);
    checks.push(skew(&clock, budget));
    match ask_shape(client, budget, &Filter::default()).await {
        Ok(shape) => {
            checks.extend([names(&shape), labels(&shape), duplicates(&shape)]);
            checks.push(scrape_interval(client, config, &shape, budget).await);
        }
        Err(failure) => {
            checks.push(failed(METRICS[0], failure));
            skip(&mut checks, METRICS.into_iter().skip(1));
        }
    }
    Probe { checks }
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

fn names(shape: &Shape) -> Check {
    let id = "metrics.names";
    if !shape.names.any {
        return Check::new(
            id,
            CheckStatus::Fail,
            "the server holds no vllm:num_requests_running at all",
        )
        .with_remedy(
            "does it scrape the model servers? check its targets, the ServiceMonitor or PodMonitor, \
             and prometheus.tenant",
        );
    }
    let generation = match shape.names.kv_cache {
        Alias::New => "vLLM metrics exist",
        Alias::Old => "vLLM metrics exist, under the names of old versions",
        Alias::Both => "vLLM metrics exist, under the names of old and new versions",
    };
    Check::new(id, CheckStatus::Pass, generation)
}

fn labels(shape: &Shape) -> Check {
    let id = "metrics.labels";
    let detail = match (shape.pods, shape.pod_label) {
        (None, _) if !shape.names.any => return skipped(id),
        (None, _) => {
            return Check::new(
                id,
                CheckStatus::Fail,
                "no vLLM series has a label pod or pod_name, so replicas cannot be told apart",
            )
            .with_remedy(
                "set the labels namespace and pod in the relabelling of the scrape job; a PodMonitor \
                 does",
            );
        }
        (Some(pods), PodLabel::Pod) => {
            format!("{}, by the label pod", counted(pods, "pod", "pods"))
        }
        (Some(pods), PodLabel::PodName) => {
            format!("{}, by the label pod_name", counted(pods, "pod", "pods"))
        }
        (Some(pods), PodLabel::Either) => {
            format!("{}, by the labels pod and pod_name", counted(pods, "pod", "pods"))
        }
    };
    Check::new(id, CheckStatus::Pass, detail)
}

fn duplicates(shape: &Shape) -> Check {
    let id = "metrics.duplicates";
    if !shape.names.any {
        skipped(id)
    } else if shape.duplicates {
        Check::new(
            id,
            CheckStatus::Warn,
            "some pods are stored more than once; each is counted once all the same",
        )
        .with_remedy(
            "is a pod selected by two monitors, or do two servers of a pair answer without \
             deduplication?",
        )
    } else {
        Check::new(id, CheckStatus::Pass, "each pod is stored once")
    }
}

/// Whether the window holds enough scrapes for a rate.
async fn scrape_interval(
    client: &Client,
    config: &PrometheusConfig,
    shape: &Shape,
    budget: Budget<'_>,
) -> Check {
    let id = "metrics.scrape_interval";
    if !shape.names.any {
        return skipped(id);
    }
    let window = config.effective_window();
    let text =
        shape.plan(window).query(QueryKind::ScrapeSamples, &Filter::default(), Grouping::Model);
    let query = Query { kind: QueryKind::ScrapeSamples, text: &text, time: None };
    let mut samples = 0.0_f64;
    let asked = client
        .query(query, Expect::Vector, budget, &mut |row| {
            samples = samples.max(row.value);
        })
        .await;
    if let Err(failure) = asked {
        return failed(id, failure);
    }
    let shown = collector_core::duration::format(window);
    let detail = format!("the window of {shown} holds {samples} scrapes of a pod");
    let remedy = "if the pods have been up for longer than that, set prometheus.scrape_interval to \
                  how often they are scraped, or prometheus.window to four times that";
    if samples < 2.0 {
        Check::new(id, CheckStatus::Fail, format!("{detail}, too few for any rate"))
            .with_remedy(remedy)
    } else if samples < 4.0 {
        Check::new(id, CheckStatus::Warn, format!("{detail}; a lost one leaves a gap"))
            .with_remedy(remedy)
    } else {
        Check::new(id, CheckStatus::Pass, detail)
    }
}

fn failed(id: &str, failure: Failure) -> Check {
    let detail = if failure.detail.is_empty() {
        failure.kind.to_string()
    } else {
        format!("{}: {}", failure.kind, failure.detail)
    };
    let check = Check::new(id, CheckStatus::Fail, detail);
    if failure.remedy.is_empty() { check } else { check.with_remedy(failure.remedy) }
}

fn skipped(id: &str) -> Check {
    Check::new(id, CheckStatus::Skip, "an earlier check failed")
}

fn skip<'a>(checks: &mut Vec<Check>, ids: impl IntoIterator<Item = &'a str>) {
    checks.extend(ids.into_iter().map(skipped));
}
