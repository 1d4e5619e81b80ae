// SPDX-License-Identifier: Apache-2.0
//! One refresh of a fleet from a real Prometheus: the pattern that asks variant by variant beside the plan
//! that asks once for all.

pub(crate) mod feed;
mod pattern;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use collector_core::{Answer, Ask, Backend as _, ModelRef, SystemClock, Urgency};
use collector_prometheus::{PrometheusBackend, PrometheusConfig};
use collector_testkit::{PrometheusError, PrometheusServer};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, sleep};

use self::feed::Feed;
use crate::report::{Figure, Report};

const SUITE: &str = "refresh";
const PLAN: &str = "collector, batched plan";
const FIRST: &str = "collector, first look";
const PATTERN: &str = "per-variant pattern";

/// For the server to have seen every pod.
const PATIENCE: Duration = Duration::from_secs(120);
/// Looks of the plan, which are too short for the server's clock to measure one.
const LOOKS: u32 = 5;

/// Fleets, and how their case is called.
const FLEETS: [(usize, &str); 3] =
    [(10, "10 variants"), (100, "100 variants"), (1000, "1000 variants")];

/// Measures the fleets; the small ones in a full run alone.
pub(crate) async fn measure(quick: bool, report: &mut Report) -> Result<()> {
    let fleets = if quick { &FLEETS[2..] } else { &FLEETS[..] };
    // In a full run the whole window of the rates is filled with samples of the usual interval.
    let (interval, filled) = if quick { (3, 7) } else { (15, 76) };
    let mut servers = Vec::new();
    for (variants, case) in fleets {
        let feed = Feed::start(*variants).await?;
        let server = match PrometheusServer::start_with(&feed.configuration(interval)).await {
            Err(PrometheusError::NotInstalled) => {
                report.note(SUITE, "not measured: there is no `prometheus` program");
                return Ok(());
            }
            other => other?,
        };
        servers.push((*variants, *case, feed, server));
    }
    sleep(Duration::from_secs(filled)).await;
    for (variants, case, feed, server) in servers {
        let fleet = Fleet { models: feed::models(variants), pods: feed::pods_of(variants), server };
        fleet.is_whole().await?;
        let outcome = fleet.measure(interval, quick).await?;
        tell(report, case, &outcome);
        if variants == 1000 {
            goals(report, &outcome);
        }
        drop(feed);
    }
    Ok(())
}

struct Fleet {
    models: Vec<ModelRef>,
    pods: usize,
    server: PrometheusServer,
}

/// What something cost, or the counters before and after it.
#[derive(Clone, Copy, Default)]
struct Spent {
    requests: f64,
    wall: f64,
    server_cpu: f64,
    server_bytes: f64,
    wire_bytes: f64,
    client_cpu: f64,
}

impl Spent {
    fn with(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            requests: f(self.requests, other.requests),
            wall: f(self.wall, other.wall),
            server_cpu: f(self.server_cpu, other.server_cpu),
            server_bytes: f(self.server_bytes, other.server_bytes),
            wire_bytes: f(self.wire_bytes, other.wire_bytes),
            client_cpu: f(self.client_cpu, other.client_cpu),
        }
    }

    fn times(self, factor: f64) -> Self {
        self.with(self, |own, _| own * factor)
    }
}

/// What is spent without any refresh: reading the server's counters, and scraping.
struct Idle {
    reading: Spent,
    a_second: Spent,
}

struct Outcome {
    pattern: Spent,
    first: Spent,
    plan: Spent,
}

impl Fleet {
    /// Waits until every pod can be queried.
    async fn is_whole(&self) -> Result<()> {
        let began = Instant::now();
        let path = "/api/v1/query?query=count(rate(vllm:request_prompt_tokens_count%5B1m%5D))";
        loop {
            let answer: serde_json::Value = serde_json::from_str(&self.server.get(path).await?)?;
            let count = answer["data"]["result"][0]["value"][1].as_str();
            if count.is_some_and(|count| count.parse() == Ok(self.pods)) {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "Prometheus sees {count:?} of {} pods", self.pods);
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn measure(&self, interval: u64, quick: bool) -> Result<Outcome> {
        let reading = self.spent(async { Ok(()) }).await?;
        let intervals = if quick { 1 } else { 2 };
        let seconds = Duration::from_secs(interval * intervals);
        let waited = self
            .spent(async {
                sleep(seconds).await;
                Ok(())
            })
            .await?;
        let a_second = waited.with(reading, |all, part| (all - part) / seconds.as_secs_f64());
        let idle = Idle { reading, a_second };

        let pattern = self
            .spent(async {
                let rows = pattern::refresh(&self.server.url(), &self.models).await?;
                // A row for each of 5 fields of a model, and of 3 of a pod.
                let expected = self.models.len() * 5 + self.pods * 3;
                ensure!(rows == expected, "the pattern read {rows} rows and not {expected}");
                Ok(())
            })
            .await?;

        let config = PrometheusConfig {
            url: self.server.url(),
            allow_http: true,
            timeout: Duration::from_secs(30),
            scrape_interval: Duration::from_secs(interval),
            ..PrometheusConfig::default()
        };
        let backend = PrometheusBackend::new(config, Arc::new(SystemClock::new()))?;
        let first = self.spent(self.look(&backend)).await?;
        let plan = self
            .spent(async {
                for _ in 0..LOOKS {
                    self.look(&backend).await?;
                }
                Ok(())
            })
            .await?;
        Ok(Outcome {
            pattern: idle.taken_off(pattern),
            first: idle.taken_off(first),
            plan: idle.taken_off(plan).times(1.0 / f64::from(LOOKS)),
        })
    }

    /// One look at the whole fleet, as the engine's worker takes it.
    async fn look(&self, backend: &PrometheusBackend) -> Result<()> {
        let clock = SystemClock::new();
        let mut ask = Ask::new(&self.models, &clock);
        ask.urgency = Urgency::Background;
        ask.time_left = Duration::from_secs(60);
        let answers = backend.fetch(ask).await?;
        let pods: usize = answers
            .iter()
            .map(|(_, answer)| match answer {
                Answer::Found(sample) if sample.failed.is_empty() => sample.replicas.len(),
                _ => 0,
            })
            .sum();
        ensure!(pods == self.pods, "the plan read {pods} of {} pods", self.pods);
        Ok(())
    }

    /// What this work costs, with all that goes on beside it.
    async fn spent(&self, work: impl Future<Output = Result<()>>) -> Result<Spent> {
        let before = self.counters().await?;
        let began = Instant::now();
        work.await?;
        let wall = began.elapsed().as_secs_f64();
        let after = self.counters().await?;
        Ok(Spent { wall, ..after.with(before, |after, before| after - before) })
    }

    async fn counters(&self) -> Result<Spent> {
        let page = self.server.get("/metrics").await?;
        let api = "handler=\"/api/v1/";
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Ok(Spent {
            requests: sum(&page, "prometheus_http_requests_total{", api)?,
            wall: 0.0,
            server_cpu: sum(&page, "process_cpu_seconds_total ", "")?,
            server_bytes: sum(&page, "go_memstats_alloc_bytes_total ", "")?,
            wire_bytes: sum(&page, "prometheus_http_response_size_bytes_sum{", api)?,
            client_cpu: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        })
    }
}

impl Idle {
    /// What is left of `spent` without what would have been spent anyway.
    fn taken_off(&self, spent: Spent) -> Spent {
        let wall = spent.wall;
        let rest = spent.with(self.reading, |all, part| all - part);
        let rest = rest.with(self.a_second, |all, part| (all - part * wall).max(0.0));
        Spent { wall, ..rest }
    }
}

/// The sum over the series of a family that have this label.
fn sum(page: &str, family: &str, label: &str) -> Result<f64> {
    let lines = page.lines().filter(|line| line.starts_with(family) && line.contains(label));
    let mut sum = 0.0;
    for line in lines {
        let value = line.rsplit(' ').next().unwrap_or_default();
        sum += value.parse::<f64>().with_context(|| format!("not a number: {line}"))?;
    }
    Ok(sum)
}

fn tell(report: &mut Report, case: &'static str, outcome: &Outcome) {
    let systems = [(PATTERN, outcome.pattern), (FIRST, outcome.first), (PLAN, outcome.plan)];
    for (system, spent) in systems {
        let figure = |name, value, unit| Figure { name, value, unit };
        report.row(
            SUITE,
            case,
            system,
            &[
                figure("requests", spent.requests, ""),
                figure("wall", spent.wall, "s"),
                figure("server CPU", spent.server_cpu, "s"),
                figure("server allocated", spent.server_bytes / 1e6, "MB"),
                figure("wire", spent.wire_bytes / 1e6, "MB"),
                figure("client CPU", spent.client_cpu, "s"),
            ],
        );
    }
}

fn goals(report: &mut Report, outcome: &Outcome) {
    let Outcome { pattern, first, plan } = outcome;
    // The first look learns the server's names and asks for what is asked once a minute, too.
    report.goal("refresh.1000.requests", 56.0, first.requests.max(plan.requests));
    let less = |of: fn(&Spent) -> f64| of(pattern) / of(plan);
    report.goal_at_least("refresh.1000.server_cpu", 10.0, less(|spent| spent.server_cpu));
    report.goal_at_least("refresh.1000.server_bytes", 25.0, less(|spent| spent.server_bytes));
    report.goal_at_least("refresh.1000.wall", 8.0, less(|spent| spent.wall));
    report.goal("refresh.1000.wire_bytes", 400e3, plan.wire_bytes);
    report.goal_at_least("refresh.1000.client_cpu", 10.0, less(|spent| spent.client_cpu));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_a_family_that_have_a_label_are_summed() {
        let page = "# TYPE a_total counter\n\
                    a_total{handler=\"/api/v1/query\"} 3\n\
                    a_total{handler=\"/api/v1/labels\"} 2\n\
                    a_total{handler=\"/metrics\"} 9\n\
                    a_total_other 7\nb_total 1.5e+06\n";
        let is = |sum: Result<f64>, expected: f64| (sum.unwrap() - expected).abs() < f64::EPSILON;
        assert!(is(sum(page, "a_total{", "handler=\"/api/v1/"), 5.0));
        assert!(is(sum(page, "b_total ", ""), 1.5e6));
        assert!(sum("b_total x", "b_total ", "").is_err());
    }

    #[test]
    fn what_would_have_been_spent_anyway_is_taken_off() {
        let reading = Spent { server_cpu: 0.1, ..Spent::default() };
        let a_second = Spent { server_cpu: 0.2, ..Spent::default() };
        let spent = Spent { server_cpu: 2.1, wall: 5.0, requests: 8.0, ..Spent::default() };
        let left = Idle { reading, a_second }.taken_off(spent);
        assert!((left.server_cpu - 1.0).abs() < 1e-9, "{}", left.server_cpu);
        assert!((left.wall - 5.0).abs() < 1e-9 && (left.requests - 8.0).abs() < 1e-9);
    }
}
