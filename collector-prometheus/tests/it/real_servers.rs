// SPDX-License-Identifier: Apache-2.0
//! Several servers, ranks or copies under the name of one pod.

use std::collections::HashSet;

use collector_core::{Ask, Backend, Field, ListAsk, ModelRef, ReplicaState, SystemClock};

use crate::fake::found;
use crate::written::{
    LOAD, MODEL, Pod, Reader, Row, Scrapes, USUAL, changed, gauges_of, load, pod, scene, served,
    two_pods, write,
};

/// The servers of one pod, each on a port of its own: queue, running and usage in percent.
const SERVERS: [(u32, u32, f64); 4] = [(4, 10, 0.2), (6, 11, 0.3), (8, 12, 0.4), (2, 13, 0.5)];

fn ports(ranks_are_named: bool) -> Vec<Row> {
    let ranks = ["0", "1", "2", "3"];
    let server = |(i, (waiting, running, usage)): (usize, &(u32, u32, f64))| {
        let mut pod = Pod::new("moe-0", *waiting, *running, *usage);
        pod.start += 700.0 * i as f64;
        if ranks_are_named {
            pod.engine = ranks[i];
            return pod.rows(&[]);
        }
        let (instance, endpoint) = (format!("10.0.0.9:{}", 8000 + i), format!("rank-{i}"));
        pod.rows(&[("instance", &instance), ("endpoint", &endpoint)])
    };
    SERVERS.iter().enumerate().flat_map(server).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ports_of_one_pod_add_up_whether_or_not_their_ranks_are_named() {
    let rows = [scene("ports", ports(false)), scene("ranks", ports(true))].concat();
    let Some(server) = served(&rows, USUAL).await else { return };
    for name in ["ports", "ranks"] {
        let sample = Reader::of_scene(&server.url(), name).sample(MODEL).await;
        assert_eq!(gauges_of(&sample), pod("moe-0", 20, 46, 50), "{name}");
        assert_eq!(load(&sample)[0], Some(480), "{name}");
        let [replica] = sample.replicas.as_slice() else { unreachable!() };
        assert_eq!(replica.total_kv_capacity_tokens(), Some(768_000), "{name}");
        assert_eq!(replica.tokens_in_use(), Some(268_800), "{name}");
        assert_eq!(replica.servers, 4, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_scraped_twice_counts_once_whenever_that_is() {
    for apart in [0.0, 7.0] {
        let mut history = collector_testkit::History::new();
        let server = Pod::new("moe-0", 4, 10, 0.2);
        write(&mut history, &server.rows(&[("instance", "10.0.0.9:8000")]), USUAL);
        let other = server.rows(&[("instance", "10.0.0.9:8200"), ("endpoint", "sidecar")]);
        write(&mut history, &other, Scrapes { earlier: apart, ..USUAL });
        let server = collector_testkit::PrometheusServer::start_over_or_skip(&history).await;
        let Some(server) = server else { return };
        let reader = Reader::new(&server.url());
        let sample = reader.sample(MODEL).await;
        assert_eq!(gauges_of(&sample), pod("moe-0", 4, 10, 20), "{apart} s apart");
        assert_eq!(load(&sample)[0], Some(120), "{apart} s apart");
        let [replica] = sample.replicas.as_slice() else { unreachable!() };
        assert_eq!(replica.total_kv_capacity_tokens(), Some(192_000), "{apart} s apart");
        assert_eq!(replica.servers, 1, "{apart} s apart");
        let check = reader.check("metrics.duplicates").await;
        assert_eq!(check.status, collector_core::CheckStatus::Warn, "{check:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_of_a_pair_that_still_scrapes_counts() {
    let of = |pod: &Pod, replica| pod.rows(&[("prometheus_replica", replica)]);
    let before = Pod { requests: 2.0, ..Pod::new("m-0", 40, 60, 0.97) };
    let after = Pod { requests: 2.0, ..Pod::new("m-0", 0, 2, 0.05) };
    let ended = changed(of(&before, "p-0"), |row| row.newest = 100.0);
    let until = changed(of(&before, "p-1"), |row| row.newest = 100.0);
    let since = changed(of(&after, "p-1"), |row| row.oldest = 99.9);
    let Some(server) = served(&[ended, until, since].concat(), USUAL).await else { return };
    let sample = Reader::new(&server.url()).sample(MODEL).await;
    assert_eq!(gauges_of(&sample), pod("m-0", 0, 2, 5), "one of them ended 100 s ago");
    assert_eq!(load(&sample)[0], Some(120));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_scraped_by_both_servers_of_a_pair_counts_once() {
    let mut history = collector_testkit::History::new();
    for i in 0..2 {
        let server = Pod::new(&format!("m-{i}"), 6, 20, 0.8);
        write(&mut history, &server.rows(&[("prometheus_replica", "p-0")]), USUAL);
        let later = Scrapes { earlier: 7.0, ..USUAL };
        write(&mut history, &server.rows(&[("prometheus_replica", "p-1")]), later);
    }
    let server = collector_testkit::PrometheusServer::start_over_or_skip(&history).await;
    let Some(server) = server else { return };
    let reader = Reader::new(&server.url());
    let sample = reader.sample(MODEL).await;
    assert_eq!(gauges_of(&sample), [pod("m-0", 6, 20, 80), pod("m-1", 6, 20, 80)].concat());
    assert_eq!(load(&sample), LOAD);
    let check = reader.check("metrics.duplicates").await;
    assert!(check.detail.contains("prometheus_replica"), "{check:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_of_one_ray_node_are_two_rows() {
    let replica = |name: &str, waiting, start| {
        let pod = Pod { start, ..Pod::new("node-0", waiting, 20, 0.5) };
        changed(pod.rows(&[("ReplicaId", name), ("WorkerId", "w")]), |row| {
            row.name = format!("ray_{}", row.name.replace(':', "_"));
        })
    };
    let rows = [replica("llm#a", 3, 1000.0), replica("llm#b", 9, 5000.0)].concat();
    let Some(server) = served(&rows, USUAL).await else { return };
    let sample = Reader::new(&server.url()).sample(MODEL).await;
    assert_eq!(gauges_of(&sample), [pod("llm#a", 3, 20, 50), pod("llm#b", 9, 20, 50)].concat());
    assert_eq!(load(&sample), LOAD);
    for replica in &sample.replicas {
        assert_eq!(replica.total_kv_capacity_tokens(), Some(192_000));
    }
}

/// A server of two ranks, of which the second has no gauges; its counters grow by as many requests.
fn half_silent(start: f64, requests: f64) -> Vec<Row> {
    let rank = Pod { engine: "1", start, requests, ..Pod::new("m-0", 0, 0, 0.0) };
    let gauges = ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"];
    let mut silent = rank.rows(&[]);
    silent.retain(|row| !gauges.contains(&&row.name[5..]));
    [Pod::new("m-0", 6, 20, 0.5).rows(&[]), silent].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_without_gauges_is_idle_or_makes_the_pod_unknown() {
    let rows =
        [scene("idle", half_silent(0.0, 0.0)), scene("at work", half_silent(1000.0, 2.0))].concat();
    let Some(server) = served(&rows, USUAL).await else { return };
    let sample = Reader::of_scene(&server.url(), "idle").sample(MODEL).await;
    assert_eq!(gauges_of(&sample), pod("m-0", 6, 20, 50));
    let [replica] = sample.replicas.as_slice() else { unreachable!() };
    assert_eq!(replica.total_kv_capacity_tokens(), Some(384_000));
    assert_eq!(replica.tokens_in_use(), Some(96_000), "half of one rank");

    let sample = Reader::of_scene(&server.url(), "at work").sample(MODEL).await;
    let [replica] = sample.replicas.as_slice() else { panic!("{:?}", gauges_of(&sample)) };
    assert_eq!(gauges_of(&sample), [("m-0".to_owned(), None, None, None)]);
    for field in [Field::QueueLength, Field::RunningRequests, Field::KvCacheUsage] {
        let reason = replica.reasons.get(field).unwrap();
        assert!(reason.contains("rank 1 of 2"), "{field:?}: {reason}");
    }
    assert_eq!(load(&sample)[0], Some(240), "its work is counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sleeps_is_there_without_capacity() {
    let server = |name: &str, asleep: bool| {
        let pod = Pod::new(name, 0, 0, 0.0);
        let mut rows = pod.rows(&[]);
        for (state, is) in
            [("awake", !asleep), ("weights_offloaded", asleep), ("discard_all", false)]
        {
            let mut row = rows[0].clone();
            "vllm:engine_sleep_state".clone_into(&mut row.name);
            row.set("sleep_state", state);
            row.base = f64::from(u8::from(is));
            rows.push(row);
        }
        rows
    };
    let rows = [server("m-0", false), server("m-1", true)].concat();
    let Some(server) = served(&rows, USUAL).await else { return };
    let sample = Reader::new(&server.url()).sample(MODEL).await;
    let states: Vec<_> =
        sample.replicas.iter().map(|it| (it.state, it.total_kv_capacity_tokens())).collect();
    assert_eq!(states, [(ReplicaState::Serving, Some(192_000)), (ReplicaState::Sleeping, None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn prefill_and_decode_pods_each_report_their_side_of_a_request() {
    let prefill = Pod { itl: 0.5, ..Pod::new("p-0", 6, 20, 0.4) };
    let decode = Pod { ttft: 0.9, ..Pod::new("d-0", 1, 30, 0.9) };
    let rows = [
        prefill.sglang(&[("engine_type", "prefill")]),
        decode.sglang(&[("engine_type", "decode")]),
    ]
    .concat();
    let Some(server) = served(&rows, USUAL).await else { return };
    let sample = Reader::new(&server.url()).sample(MODEL).await;
    assert_eq!(gauges_of(&sample), [pod("d-0", 1, 30, 90), pod("p-0", 6, 20, 40)].concat());
    let roles: Vec<_> =
        sample.replicas.iter().map(|it| it.role.as_ref().unwrap().as_str()).collect();
    assert_eq!(roles, ["decode", "prefill"]);
    assert_eq!(load(&sample), [Some(120), Some(512), Some(128), Some(200), Some(20)]);
}

/// The series of an SGLang server whose gauges are those of each of these ranks; its counters are of no rank.
fn sglang_of_ranks(pod: &Pod, ranks: &[&[(&str, &str)]]) -> Vec<Row> {
    let is_gauge = |row: &Row| row.slope <= 0.0;
    let (gauges, mut rows): (Vec<Row>, Vec<Row>) = pod.sglang(&[]).into_iter().partition(is_gauge);
    for labels in ranks {
        let of_rank =
            |row: &mut Row| labels.iter().for_each(|(label, value)| row.set(label, value));
        rows.extend(changed(gauges.clone(), of_rank));
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn gauges_of_several_ranks_share_the_counters_of_their_server() {
    let server = Pod::new("m-0", 6, 20, 0.5);
    let pipeline: &[&[_]] = &[&[("pp_rank", "0")], &[("pp_rank", "1")]];
    let data: &[&[_]] = &[
        &[("dp_rank", "0"), ("tp_rank", "0")],
        &[("dp_rank", "0"), ("tp_rank", "1")],
        &[("dp_rank", "1"), ("tp_rank", "2")],
        &[("dp_rank", "1"), ("tp_rank", "3")],
    ];
    let of_pair = |replica| {
        let rows = sglang_of_ranks(&server, data);
        changed(rows, |row| row.set("prometheus_replica", replica))
    };
    let rows = [
        scene("pipeline", sglang_of_ranks(&server, pipeline)),
        scene("data", sglang_of_ranks(&server, data)),
        scene("pair", [of_pair("p-0"), of_pair("p-1")].concat()),
    ];
    let Some(prometheus) = served(&rows.concat(), USUAL).await else { return };
    for (name, ranks) in [("pipeline", 1), ("data", 2), ("pair", 2)] {
        let sample = Reader::of_scene(&prometheus.url(), name).sample(MODEL).await;
        assert_eq!(gauges_of(&sample), pod("m-0", 6 * ranks, 20 * ranks, 50), "{name}");
        let expected = [Some(120), Some(512), Some(128), Some(200), Some(20)];
        assert_eq!(load(&sample), expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_whose_copies_differ_in_different_labels_count_once() {
    let pair = ["p-0", "p-1"]
        .map(|replica| Pod::new("m-0", 6, 20, 0.8).rows(&[("prometheus_replica", replica)]));
    let jobs = ["a", "b"].map(|job| Pod::new("m-1", 6, 20, 0.8).rows(&[("job", job)]));
    let rows = [pair.concat(), jobs.concat()].concat();
    let Some(server) = served(&rows, USUAL).await else { return };
    let sample = Reader::new(&server.url()).sample(MODEL).await;
    assert_eq!(gauges_of(&sample), two_pods());
    assert_eq!(load(&sample), LOAD);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_by_priority_are_counted_once_each() {
    // Gauges have a series for each priority and one for all; counters have a series for each priority alone.
    let mut rows = Vec::new();
    for row in Pod::new("m-0", 6, 20, 0.5).sglang(&[]) {
        for (priority, part) in [("0", 0.25), ("7", 0.75)] {
            let mut of_priority = Row { slope: row.slope * part, ..row.clone() };
            of_priority.set("priority", priority);
            rows.push(of_priority);
        }
        rows.extend((row.slope <= 0.0).then_some(row));
    }
    let Some(server) = served(&rows, USUAL).await else { return };
    let sample = Reader::new(&server.url()).sample(MODEL).await;
    assert_eq!(gauges_of(&sample), pod("m-0", 6, 20, 50));
    assert_eq!(load(&sample), [Some(120), Some(512), Some(128), Some(200), Some(20)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frontend_counts_only_where_the_servers_behind_it_are_not_scraped() {
    let frontend = |name: &str, value: f64, slope: f64| {
        let labels = [
            ("model", "org/large"),
            ("namespace", "prod"),
            ("pod", "frontend-0"),
            ("instance", "10.0.0.2:8000"),
        ];
        Row { slope, ..Row::still(&format!("dynamo_frontend_{name}"), &labels, value) }
    };
    let alone = vec![
        frontend("inflight_requests", 26.0, 0.0),
        frontend("queued_requests", 6.0, 0.0),
        frontend("requests_total", 100.0, 2.0),
        frontend("input_sequence_tokens_sum", 100.0, 1024.0),
        frontend("input_sequence_tokens_count", 100.0, 2.0),
        frontend("output_sequence_tokens_sum", 100.0, 256.0),
        frontend("output_sequence_tokens_count", 100.0, 2.0),
        frontend("time_to_first_token_seconds_sum", 100.0, 0.4),
        frontend("time_to_first_token_seconds_count", 100.0, 2.0),
    ];
    let server = Pod { model: "Org/Large", ..Pod::new("m-0", 6, 20, 0.5) };
    // Another model is served by the frontend alone.
    let other = changed(alone.clone(), |row| row.set("model", "org/other"));
    let both = [alone.clone(), server.rows(&[]), other].concat();
    let rows = [scene("alone", alone), scene("both", both)].concat();
    let Some(prometheus) = served(&rows, USUAL).await else { return };
    let queue = |name: &str| (name.to_owned(), Some(6), Some(20), None);

    let reader = Reader::of_scene(&prometheus.url(), "alone");
    let sample = reader.sample("Org/Large").await;
    assert_eq!(gauges_of(&sample), [queue("frontend-0")]);
    assert_eq!(load(&sample)[0], Some(120));

    let reader = Reader::of_scene(&prometheus.url(), "both");
    let models = [ModelRef::new("Org/Large", "prod"), ModelRef::new("org/other", "prod")];
    for per_pod in [HashSet::new(), models.iter().cloned().collect()] {
        let ask = Ask::new(&models, &*reader.clock).with_load_per_pod(&per_pod);
        let mut answers = reader.backend.fetch(ask).await.unwrap();
        let [large, other] = models.each_ref().map(|model| found(answers.remove(model).unwrap()));
        assert_eq!(gauges_of(&large), pod("m-0", 6, 20, 50));
        assert_eq!(load(&large), [Some(120), Some(512), Some(128), Some(200), Some(20)]);
        assert!(large.absent.is_none(), "{:?}", large.absent);
        assert_eq!(gauges_of(&other), [queue("frontend-0")]);
        assert_eq!(load(&other)[0], Some(120));
    }
    let listed = reader.backend.list_models(ListAsk::new(&SystemClock::new())).await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|known| (known.model, known.replicas)).collect();
    assert_eq!(listed, models.map(|model| (model, Some(1))));
}
