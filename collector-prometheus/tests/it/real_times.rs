// SPDX-License-Identifier: Apache-2.0
//! Late, rare, absent and outdated samples, and values that a server does not store.

use std::time::{Duration, UNIX_EPOCH};

use collector_core::{Answer, CheckStatus, Clock, Field, SystemClock, Urgency};
use collector_testkit::{History, PrometheusServer, VictoriaMetricsServer};

use crate::gateway::{Parameters, gateway, parameter};
use crate::written::{
    LOAD, MODEL, Pod, Reader, Row, Scrapes, USUAL, changed, fleet, gauges_of, load, pod, pods,
    scene, served, two_pods, write,
};

/// A server for each of these scenes, by name.
async fn scenes(scenes: Vec<(&str, Vec<Row>, Scrapes)>) -> Option<PrometheusServer> {
    let mut history = History::new();
    for (name, rows, scrapes) in scenes {
        write(&mut history, &scene(name, rows), scrapes);
    }
    PrometheusServer::start_over_or_skip(&history).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_terminated_without_a_stale_marker_is_not_counted() {
    let left = changed(Pod::new("m-old", 9, 30, 0.9).rows(&[]), |row| row.newest = 150.0);
    let rows = [fleet(), left].concat();
    let Some(server) = served(&rows, USUAL).await else { return };
    let reader = Reader::new(&server.url());
    let sample = reader.sample(MODEL).await;
    assert_eq!(gauges_of(&sample), two_pods());
    assert!(reader.age(&sample.replicas) < 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_end_at_the_newest_sample_where_samples_arrive_late() {
    let late =
        |seconds: f64| Scrapes { earlier: 0.0, newest: seconds, oldest: 900.0 + seconds, ..USUAL };
    let lags = [("20", 20.0), ("30", 30.0), ("45", 45.0)];
    let all = lags.iter().map(|(name, lag)| (*name, fleet(), late(*lag))).collect();
    let Some(server) = scenes(all).await else { return };
    for (name, lag) in lags {
        let reader = Reader::of_scene(&server.url(), name);
        let sample = reader.sample(MODEL).await;
        assert_eq!(gauges_of(&sample), two_pods(), "{name} s");
        assert_eq!(load(&sample), LOAD, "{name} s");
        assert!(reader.age(&sample.replicas) as f64 >= lag, "{name} s");
        let check = reader.check("metrics.lateness").await;
        assert!(check.detail.contains("late"), "{check:?}");
        assert_eq!(check.status, CheckStatus::Warn, "{check:?}");
        assert_eq!(reader.check("metrics.load").await.status, CheckStatus::Pass, "{name} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrape_interval_is_discovered_from_the_series() {
    let every = |every: f64| Scrapes { every, earlier: every / 3.0, ..USUAL };
    let intervals = [("15", 15.0), ("30", 30.0), ("60", 60.0)];
    let all = intervals.iter().map(|(name, it)| (*name, fleet(), every(*it))).collect();
    let Some(server) = scenes(all).await else { return };
    for (name, seconds) in intervals {
        let reader = Reader::of_scene(&server.url(), name);
        let sample = reader.sample(MODEL).await;
        assert_eq!(gauges_of(&sample), two_pods(), "each {name} s");
        assert_eq!(load(&sample), LOAD, "each {name} s");
        let window = Duration::from_secs_f64(seconds * 4.0).max(Duration::from_secs(60));
        assert_eq!(sample.window, Some(window), "each {name} s");
        let check = reader.check("metrics.scrape_interval").await;
        assert_eq!(check.status, CheckStatus::Pass, "{check:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_is_open_at_its_left_end_holds_the_same_rates() {
    let every = |every: f64| Scrapes { every, ..USUAL };
    let all = vec![
        ("15", fleet(), every(15.0)),
        ("30", fleet(), every(30.0)),
        ("60", fleet(), every(60.0)),
    ];
    let Some(server) = scenes(all).await else { return };
    let open = gateway(&server.url(), |parameters| {
        let query = parameter(parameters, "query").unwrap();
        for seconds in [60, 120, 240] {
            *query =
                query.replace(&format!("[{seconds}s]"), &format!("[{}ms]", seconds * 1000 - 1));
        }
        None
    })
    .await;
    for name in ["15", "30", "60"] {
        let sample = Reader::of_scene(&open.uri(), name).sample(MODEL).await;
        assert_eq!(load(&sample), LOAD, "each {name} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn load_that_is_not_stored_is_unknown_and_check_says_what_lacks() {
    let gauges =
        ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"];
    let mut rows = fleet();
    rows.retain(|row| gauges.contains(&&*row.name));
    let Some(server) = served(&rows, USUAL).await else { return };
    let reader = Reader::new(&server.url());
    let sample = reader.sample(MODEL).await;
    assert_eq!(gauges_of(&sample), two_pods());
    assert_eq!(load(&sample), [None; 5]);
    let check = reader.check("metrics.load").await;
    assert_eq!(check.status, CheckStatus::Warn);
    for part in
        ["arrivals", "prompt tokens", "generated tokens", "times to first token", "inter-token"]
    {
        assert!(check.detail.contains(part), "{check:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_gauge_shows_the_live_pods_without_running_requests() {
    let mut rows = fleet();
    rows.retain(|row| row.name != "vllm:num_requests_running");
    let Some(server) = served(&rows, USUAL).await else { return };
    let sample = Reader::new(&server.url()).sample(MODEL).await;
    assert_eq!(sample.replicas.len(), 2);
    for replica in &sample.replicas {
        assert_eq!((replica.queue_length, replica.running_requests), (Some(6), None));
        let reason = replica.reasons.get(Field::RunningRequests).unwrap();
        assert!(reason.contains("vllm:num_requests_running"), "{reason}");
    }
    assert_eq!(load(&sample), LOAD);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_series_of_running_requests_lost_by_one_model_alone_is_never_no_replica() {
    let mut rows = fleet();
    rows.retain(|row| row.name != "vllm:num_requests_running");
    let other = Pod { model: "org/other", ..Pod::new("o-0", 0, 1, 0.1) };
    rows.extend(other.rows(&[]));
    let Some(server) = served(&rows, USUAL).await else { return };
    let reader = Reader::new(&server.url());
    for urgency in [Urgency::Waiting, Urgency::Background] {
        let Answer::Failed(error) = reader.fetch_all(MODEL, urgency).await.unwrap() else {
            panic!("{urgency:?}: answered")
        };
        assert!(error.to_string().contains("none of vllm:num_requests_running"), "{error}");
    }
}

const HISTOGRAMS: [&str; 4] = [
    "request_prompt_tokens",
    "request_generation_tokens",
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
];

#[tokio::test(flavor = "multi_thread")]
async fn native_histograms_are_asked_by_their_functions() {
    let rows = changed(fleet(), |row| {
        let own = row.name[5..].to_owned();
        if HISTOGRAMS.iter().any(|base| own.starts_with(&format!("{base}_"))) {
            row.name = format!("hidden:{own}");
        }
    });
    let Some(server) = served(&rows, USUAL).await else { return };
    let native = gateway(&server.url(), |parameters| {
        let query = parameter(parameters, "query").unwrap();
        for base in HISTOGRAMS {
            for part in ["sum", "count"] {
                *query = query.replace(
                    &format!("histogram_{part}(rate(vllm:{base}"),
                    &format!("(rate(hidden:{base}_{part}"),
                );
            }
            for end in ["{", ")", "["] {
                let hidden = format!("hidden:{base}_count{end}");
                *query = query.replace(&format!("vllm:{base}{end}"), &hidden);
            }
        }
        None
    })
    .await;
    let reader = Reader::new(&native.uri());
    let sample = reader.sample(MODEL).await;
    assert_eq!(gauges_of(&sample), two_pods());
    assert_eq!(load(&sample), LOAD);
    let names = reader.check("metrics.names").await;
    assert!(names.detail.contains("native histograms"), "{names:?}");
    assert_eq!(reader.check("metrics.load").await.status, CheckStatus::Pass);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_allows_exact_names_only_is_queried_by_them() {
    let labels = [("project_id", "p"), ("location", "us-west1"), ("cluster", "a")];
    let rows: Vec<Row> = pods(2).iter().flat_map(|pod| pod.rows(&labels)).collect();
    let old = changed(rows.clone(), |row| {
        row.name = row.name.replace("kv_cache_usage", "gpu_cache_usage");
        row.name = row.name.replace("inter_token_latency", "time_per_output_token");
    });
    let Some(server) = served(&[scene("new", rows), scene("old", old)].concat(), USUAL).await
    else {
        return;
    };
    let exact = gateway(&server.url(), |parameters| {
        let query = parameter(parameters, "query").unwrap();
        let pattern = query.contains("__name__");
        pattern.then(|| {
            crate::fake::error(400, "bad_data", "a metric name must be given exactly here")
        })
    })
    .await;
    for name in ["new", "old"] {
        let reader = Reader::of_scene(&exact.uri(), name);
        let sample = reader.sample(MODEL).await;
        assert_eq!(gauges_of(&sample), two_pods(), "{name}");
        assert_eq!(load(&sample), LOAD, "{name}");
        for id in ["metrics.names", "metrics.labels", "metrics.clusters", "metrics.load"] {
            let check = reader.check(id).await;
            assert_eq!(check.status, CheckStatus::Pass, "{name}: {check:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_was_scaled_to_zero_was_seen_and_a_misspelt_one_never() {
    let other = Pod { model: "org/other", ..Pod::new("other-0", 0, 1, 0.1) };
    let gone = changed(fleet(), |row| row.newest = 1200.0);
    let rows = [scene("others", [gone.clone(), other.rows(&[])].concat()), scene("alone", gone)];
    let back = Scrapes { oldest: 2400.0, ..USUAL };
    let Some(server) = served(&rows.concat(), back).await else { return };
    for name in ["others", "alone"] {
        let reader = Reader::of_scene(&server.url(), name);
        let seen = |answer| match answer {
            Answer::Missing { last_seen, .. } => last_seen,
            other => panic!("{name}: {other:?}"),
        };
        let last_seen = seen(reader.fetch_all(MODEL, Urgency::Waiting).await.unwrap());
        let age = last_seen.expect(name).age(reader.clock.now()).as_secs();
        assert!((1100..1500).contains(&age), "{name}: {age} s");
        assert_eq!(
            seen(reader.fetch_all("org/othr", Urgency::Waiting).await.unwrap()),
            None,
            "{name}"
        );
    }
}

/// Two pods whose load changed 20 s ago: queue from 6 to 60, running from 20 to 200, KV from 80 to 99 %.
fn step() -> (Vec<Row>, Scrapes) {
    let of = |pod: &Pod| {
        let after = Pod { waiting: 60, running: 200, usage: 0.99, ..pod.clone() };
        let until = changed(pod.rows(&[]), |row| row.newest = 20.0);
        let since = changed(after.rows(&[]), |row| row.oldest = 19.9);
        [until, since].concat()
    };
    let rows = pods(2).iter().flat_map(of).collect();
    (rows, Scrapes { every: 5.0, ..USUAL })
}

fn after_the_step() -> crate::written::Gauges {
    [pod("m-0", 60, 200, 99), pod("m-1", 60, 200, 99)].concat()
}

/// Evaluates this many seconds earlier than asked; if `hidden` is set, only for times within that distance
/// from now.
fn earlier(parameters: &mut Parameters, seconds: f64, only_near_now: bool) {
    let wall = SystemClock::new().wall().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let asked = parameter(parameters, "time").map(|time| time.parse::<f64>().unwrap());
    if only_near_now && (wall - asked.unwrap_or(wall)).abs() >= seconds {
        return;
    }
    parameters.retain(|(name, _)| name != "time");
    parameters.push(("time".to_owned(), format!("{:.3}", wall - seconds)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hides_its_newest_samples_shows_them_when_asked_without_a_cache() {
    let (rows, scrapes) = step();
    let Some(server) = served(&rows, scrapes).await else { return };
    let hides = gateway(&server.url(), |parameters| {
        if parameter(parameters, "nocache").is_none_or(|value| value != "1") {
            earlier(parameters, 30.0, true);
        }
        None
    })
    .await;
    let reader = Reader::new(&hides.uri());
    assert_eq!(gauges_of(&reader.sample(MODEL).await), after_the_step());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_always_evaluates_earlier_makes_nothing_younger() {
    // The hidden samples must lie within the hidden time, however long the test takes.
    let (rows, scrapes) = step();
    let Some(server) = served(&rows, scrapes).await else { return };
    let hides = gateway(&server.url(), |parameters| {
        earlier(parameters, 200.0, true);
        None
    })
    .await;
    let reader = Reader::new(&hides.uri());
    let sample = reader.sample(MODEL).await;
    assert_eq!(gauges_of(&sample), two_pods(), "what was true then");
    assert!(reader.age(&sample.replicas) >= 200);

    let cache = gateway(&server.url(), |parameters| {
        earlier(parameters, 600.0, false);
        None
    })
    .await;
    let reader = Reader::new(&cache.uri());
    let sample = reader.sample(MODEL).await;
    assert_eq!(gauges_of(&sample), two_pods());
    assert!(reader.age(&sample.replicas) >= 600, "ten minutes old are not fresh");
}

#[tokio::test(flavor = "multi_thread")]
async fn victoria_metrics_is_read_up_to_its_newest_sample() {
    let (rows, scrapes) = step();
    let mut history = History::new();
    write(&mut history, &rows, scrapes);
    let Some(server) = VictoriaMetricsServer::start_over_or_skip(&history).await else { return };
    let reader = Reader::new(&server.url());
    let sample = reader.sample(MODEL).await;
    assert_eq!(gauges_of(&sample), after_the_step());
    let [arrivals, input, output, ttft, itl] = load(&sample);
    // VictoriaMetrics takes rates from the last sample before the window.
    let near =
        |value: Option<u64>, expected: u64| value.unwrap().abs_diff(expected) * 20 <= expected;
    assert!(near(arrivals, 240), "{arrivals:?}");
    assert_eq!([input, output, ttft, itl], [LOAD[1], LOAD[2], LOAD[3], LOAD[4]]);
    assert_eq!(sample.replicas[0].total_kv_capacity_tokens(), Some(192_000));
    for id in ["metrics.names", "metrics.labels", "metrics.load"] {
        assert_eq!(reader.check(id).await.status, CheckStatus::Pass, "{id}");
    }
}
