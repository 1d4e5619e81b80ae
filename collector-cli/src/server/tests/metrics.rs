// SPDX-License-Identifier: Apache-2.0
//! `/metrics` in every state of a reading.

use collector_testkit::promtool_or_skip;

use super::*;

/// Whether there is a sample of this family, or of these labels in it.
fn has(page: &str, series: &str) -> bool {
    page.lines()
        .any(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with([' ', '{', ','])))
}

/// The value of a series, as it is written.
#[track_caller]
fn value<'p>(page: &'p str, series: &str) -> &'p str {
    let sample = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    sample.unwrap_or_else(|| panic!("no {series} in {page}"))
}

const REPLICAS: &str = "{model_name=\"org/m\",namespace=\"prod\",variant_name=\"\"}";
const ALLOCATION: &str = "{model_name=\"org/m\",namespace=\"prod\",variant_name=\"m-h100\"}";

fn up(page: &str) -> [&str; 2] {
    [REPLICAS, ALLOCATION].map(|labels| value(page, &format!("collector_reading_up{labels}")))
}

fn age(page: &str) -> [&str; 2] {
    [REPLICAS, ALLOCATION]
        .map(|labels| value(page, &format!("collector_reading_age_seconds{labels}")))
}

impl Fixture {
    /// The page, which Prometheus' own check has no complaint about.
    async fn page(&self, state: &str) -> String {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status, StatusCode::OK, "{state}");
        if let Some(Err(complaints)) = promtool_or_skip(["check", "metrics"], &answer.text) {
            panic!("{state}: {complaints}");
        }
        answer.text
    }
}

#[tokio::test(start_paused = true)]
async fn a_reading_stays_up_while_it_is_stale_and_is_0_without_values_once_it_cannot_be_used() {
    let fixture = Fixture::new();
    let empty = fixture.page("before the first read").await;
    // Its variant makes the model tracked.
    assert_eq!(up(&empty), ["0", "0"]);
    assert!(!has(&empty, "collector_reading_age_seconds"), "{empty}");
    assert!(!has(&empty, "collector_replica_queue_length"), "{empty}");

    fixture.collector.collect_replica_metrics(&model()).await.unwrap();
    let fresh = fixture.page("fresh").await;
    assert_eq!((up(&fresh), age(&fresh)), (["1", "1"], ["0", "0"]));
    assert!(has(&fresh, "collector_replica_age_seconds"), "{fresh}");
    assert!(has(&fresh, "collector_allocation_replicas"), "{fresh}");

    fixture.backend.fail(ErrorKind::Connect);
    tokio::time::advance(Duration::from_secs(90)).await;
    assert!(fixture.collector.collect_replica_metrics(&model()).await.is_ok());
    let stale = fixture.page("stale").await;
    assert_eq!((up(&stale), age(&stale)), (["1", "1"], ["90", "90"]));
    assert!(has(&stale, "collector_replica_age_seconds"), "{stale}");

    tokio::time::advance(Duration::from_secs(300)).await;
    assert!(fixture.collector.collect_replica_metrics(&model()).await.is_err());
    let unavailable = fixture.page("unavailable").await;
    assert_eq!(up(&unavailable), ["0", "0"]);
    let ages = age(&unavailable).map(|age| age.parse::<f64>().unwrap());
    assert!(ages.iter().all(|age| *age >= 390.0), "{unavailable}");
    for gone in ["collector_replica_", "collector_allocation_", "collector_discovered_pods"] {
        let sample = unavailable.lines().find(|line| line.starts_with(gone));
        assert_eq!(sample, None, "a value that is not known has no series");
    }
    let status =
        "collector_readings{variant_name=\"m-h100\",namespace=\"prod\",status=\"unavailable\"}";
    assert_eq!(value(&unavailable, status), "1");

    fixture.backend.restore();
    tokio::time::advance(Duration::from_secs(60)).await;
    fixture.collector.collect_replica_metrics(&model()).await.unwrap();
    assert_eq!(up(&fixture.page("fresh again").await), ["1", "1"]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_was_never_read_is_0_and_has_no_age() {
    let fixture = Fixture::new();
    fixture.backend.fail(ErrorKind::Connect);
    assert!(fixture.collector.collect_replica_metrics(&model()).await.is_err());
    let down = fixture.page("the backend is down").await;
    assert_eq!(up(&down), ["0", "0"]);
    assert!(!has(&down, "collector_reading_age_seconds"), "{down}");
    assert_eq!(value(&down, "collector_backend_breaker_state{backend=\"prometheus\"}"), "2");

    fixture.backend.restore();
    fixture.backend.remove(&model());
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(fixture.collector.collect_replica_metrics(&model()).await.is_err());
    let missing = fixture.page("missing").await;
    assert_eq!(up(&missing), ["0", "0"]);
    assert!(!has(&missing, "collector_reading_age_seconds"), "{missing}");
}

#[tokio::test(start_paused = true)]
async fn series_of_replicas_and_upstream_names_can_be_switched_off() {
    let all = Fixture::new();
    let env = [
        ("COLLECTOR_METRICS__PER_REPLICA", "false"),
        ("COLLECTOR_METRICS__UPSTREAM_NAMES", "false"),
    ];
    let few = Fixture::configured(open_access(), 10, &env);
    for fixture in [&all, &few] {
        fixture.collector.collect_replica_metrics(&model()).await.unwrap();
    }
    let (all, few) = (all.page("all").await, few.page("few").await);
    for (part, stays) in
        [("collector_replica_", false), ("wva_", false), ("collector_allocation_", true)]
    {
        assert!(all.contains(part), "{part}");
        assert_eq!(few.contains(part), stays, "{part}");
    }
    let pods = |name: &str| value(&all, &format!("{name}{{namespace=\"prod\"}}"));
    assert_eq!(
        (pods("collector_discovered_pods"), pods("wva_metrics_pods_discovered")),
        ("2", "2")
    );
    assert_eq!(value(&few, "collector_discovered_pods{namespace=\"prod\"}"), "2");
}

#[tokio::test(start_paused = true)]
async fn hostile_names_break_no_line_of_the_page() {
    let fixture = Fixture::new();
    let hostile = ModelRef::new("a\"} 1\nup 2\\{é\u{1b}[2J", "prod");
    fixture.backend.serve_pods(&hostile, &["p\"} 1"]);
    fixture.collector.collect_replica_metrics(&hostile).await.unwrap();
    let page = fixture.page("hostile names").await;
    assert!(!has(&page, "up"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn files_that_hang_cost_their_series_and_not_the_page() {
    let fixture = Fixture::new();
    let expiry = "# TYPE collector_certificate_expiry_timestamp_seconds gauge";
    assert!(fixture.page("files are read").await.contains(expiry));
    let _hanging = fixture.app.files.acquire().await.unwrap();
    let page = fixture.page("files hang").await;
    assert!(!page.contains(expiry) && has(&page, "collector_reading_up"), "{page}");
}
