// SPDX-License-Identifier: Apache-2.0
//! The requests that a refresh of a thousand variants takes at a real Prometheus, by its own count: for one
//! engine, and for three that share the fleet.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use collector_core::{Answer, Ask, Backend, ModelRef, SystemClock, Urgency};
use collector_engines::{Engines, Expression, MatchOperator, Quantity, Series};
use collector_prometheus::{PrometheusBackend, PrometheusConfig};
use collector_testkit::PrometheusServer;

const VARIANTS: usize = 1000;
/// Namespaces that the variants are spread over.
const NAMESPACES: usize = 40;
/// Seconds between scrapes, and since the first. They go on for as long as the test may take.
const INTERVAL: u64 = 60;
const OLDEST: u64 = 300;
const SCRAPES: u64 = 10;

/// Most requests of a fetch for one engine, and for three. Measured: 34 and 98 for the first fetch, which
/// discovers what the server holds, and 33 and 99 for the next; the benchmarks allow 56 per engine.
const OF_ONE: u64 = 38;
const OF_THREE: u64 = 108;

/// The model of a variant; each has its own.
fn model(variant: usize) -> ModelRef {
    ModelRef::new(format!("org/model-{variant}"), format!("inference-{}", variant % NAMESPACES))
}

/// Pods of a variant: 4 to 8, six thousand in all.
fn pods(variant: usize) -> usize {
    4 + variant % 5
}

/// The series of a new release of an engine, as far as any are read: name, labels, and growth per scrape.
/// Series without growth are 1.
fn series(engine: &str) -> BTreeMap<(Box<str>, String), u64> {
    let engines = Engines::builtin();
    let engine = engines.iter().find(|known| known.name.as_str() == engine).unwrap();
    let rank = engine.rank_labels.first().map(|label| format!(",{label}=\"0\""));
    let mut all = BTreeMap::new();
    for (quantity, alternatives) in engine.metrics() {
        let newest = alternatives.iter().take(1).flat_map(Expression::series);
        for Series { name, matchers, .. } in newest.filter(|_| quantity != Quantity::Sleeping) {
            let told = matchers.iter().filter(|it| it.operator == MatchOperator::Is);
            let told = told.filter(|it| !it.value.is_empty()).map(|it| format!(",{it}"));
            // The numbers of an info series are in one series.
            let all_of_name = engine.metrics().flat_map(|(_, it)| it).flat_map(Expression::series);
            let numbers = all_of_name
                .filter(|it| it.name == *name)
                .filter_map(|it| it.number_in.as_ref().map(|label| format!(",{label}=\"16\"")));
            let labels = rank.iter().cloned().chain(told).chain(numbers).collect();
            let slope = u64::from(quantity.is_counter());
            all.insert((name.clone(), labels), slope);
        }
    }
    all
}

/// The stored scrapes of a fleet whose variants run these engines in turn.
fn history(engines: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "a real server lives in real time")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut page = String::new();
    for (place, engine) in engines.iter().enumerate() {
        for ((name, labels), slope) in series(engine) {
            for variant in (place..VARIANTS).step_by(engines.len()) {
                let of = model(variant);
                for pod in 0..pods(variant) {
                    for scrape in 0..SCRAPES {
                        let _ = writeln!(
                            page,
                            "{name}{{namespace=\"{}\",model_name=\"{}\",pod=\"v{variant}-{pod}\",\
                             instance=\"v{variant}-{pod}\"{labels}}} {} {}",
                            of.namespace.as_str(),
                            of.model.as_str(),
                            1 + slope * scrape,
                            now - OLDEST + INTERVAL * scrape
                        );
                    }
                }
            }
        }
    }
    page.push_str("# EOF\n");
    page
}

/// Requests of the first fetch of such a fleet and of the next; `None` if no Prometheus is installed and none
/// is required.
async fn requests(engines: &[&str]) -> Option<[u64; 2]> {
    let server = PrometheusServer::start_with_history_or_skip(&history(engines)).await?;
    let config = PrometheusConfig {
        url: server.url(),
        allow_http: true,
        timeout: Duration::from_secs(60),
        ..PrometheusConfig::default()
    };
    let backend = PrometheusBackend::new(config, Arc::new(SystemClock::new())).unwrap();
    let models: Vec<ModelRef> = (0..VARIANTS).map(model).collect();
    let per_pod = HashSet::new();
    let mut spent = [0; 2];
    let mut before = 0;
    for spent in &mut spent {
        let clock = SystemClock::new();
        let mut ask = Ask::new(&models, &clock).with_load_per_pod(&per_pod);
        ask.urgency = Urgency::Background;
        ask.time_left = Duration::from_secs(120);
        let answers = backend.fetch(ask).await.unwrap();
        for (reference, answer) in answers {
            let variant = models.iter().position(|model| *model == reference).unwrap();
            let Answer::Found(sample) = answer else { panic!("{reference:?}: {answer:?}") };
            assert!(
                sample.failed.is_empty() && sample.absent.is_none(),
                "{reference:?}: {sample:?}"
            );
            assert_eq!(sample.replicas.len(), pods(variant), "{reference:?}");
            let engine = engines[variant % engines.len()];
            for row in sample.replicas {
                assert_eq!(row.engine.as_ref().map(AsRef::as_ref), Some(engine));
                assert!(row.queue_length.is_some() && row.kv_cache_usage.is_some());
                assert!(row.total_kv_capacity_tokens().is_some(), "{row:?}");
            }
        }
        let requests = server.requests_total("/api/v1/query").await.unwrap();
        *spent = requests - before;
        before = requests;
    }
    Some(spent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_engines_cost_at_most_three_times_the_requests_of_one() {
    let Some(one) = requests(&["vllm"]).await else { return };
    let Some(three) = requests(&["vllm", "sglang", "trtllm-serve"]).await else { return };
    for (one, three) in one.into_iter().zip(three) {
        assert!(one <= OF_ONE, "{one} requests for one engine");
        assert!(three <= OF_THREE, "{three} requests for three engines");
        assert!(three <= 3 * one, "{three} requests for three engines, {one} for one");
    }
}
