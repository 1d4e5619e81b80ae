// SPDX-License-Identifier: Apache-2.0
//! Copies, servers and ranks of one replica, and the row that they make.

use std::collections::HashSet;
use std::time::Duration;

use collector_engines::Engines;

use super::*;
use crate::plan::Held;

/// A plan for all series of vLLM except those of other releases.
fn plan() -> Plan {
    let engines = Engines::builtin();
    let vllm = engines.iter().next().unwrap();
    let others = ["gpu_", "external_", "time_per_output"];
    let names = vllm.sample_names().filter(|name| !others.iter().any(|it| name.contains(it)));
    let names = names.map(Box::from).collect();
    let held = Held { names: &names, native: &HashSet::new() };
    Plan::new(vllm, held, Duration::from_secs(60)).unwrap()
}

fn tick(seconds: f64) -> Tick {
    Tick::from_nanos(1 << 62) + Duration::from_secs_f64(seconds)
}

/// A server of a rank with queue 3, running 7 and usage 0.5.
fn server(rank: &str, key: &str, stamp: f64) -> Server {
    let plan = plan();
    let gauges = [
        (QueryKind::QueueLength, 3.0),
        (QueryKind::RunningRequests, 7.0),
        (QueryKind::KvCache, 0.5),
    ];
    Server {
        engine: 0,
        replica: "m-0".into(),
        rank: rank.into(),
        key: key.into(),
        role: None,
        sampled_at: tick(stamp),
        stamp,
        values: gauges.into_iter().map(|(kind, value)| (plan.only_leaf(kind), value)).collect(),
    }
}

/// The same server with this number of counted requests.
fn counting(key: &str, stamp: f64, requests: f64) -> Server {
    let mut server = server("", key, stamp);
    server.values.push((plan().leaves(QueryKind::Counters)[0], requests));
    server
}

fn without(mut server: Server, kind: QueryKind) -> Server {
    let leaf = plan().only_leaf(kind);
    server.values.retain(|(known, _)| *known != leaf);
    server
}

fn config(rank: &str, blocks: u64) -> RankConfig {
    RankConfig {
        rank: rank.into(),
        num_gpu_blocks: Some(blocks),
        block_size: Some(16),
        ..RankConfig::default()
    }
}

/// What is known about a replica besides its servers.
#[derive(Default)]
struct Known {
    config: Vec<RankConfig>,
    counted: Vec<(Box<str>, bool)>,
    /// Requests per second of each server.
    rate: Option<f64>,
}

fn with<T>(servers: &[Server], known: &Known, then: impl FnOnce(&Replica<'_>) -> T) -> T {
    let (name, plan) = (PodName::from("m-0"), plan());
    let rate_of = |_: &str| known.rate;
    then(&Replica {
        name: &name,
        servers,
        config: &known.config,
        counted: &known.counted,
        plan: &plan,
        rate_of: &rate_of,
    })
}

/// The keys of the servers that count, each with the number of its copies.
fn counted(servers: &[Server], rate: Option<f64>) -> Vec<(String, usize)> {
    with(servers, &Known { rate, ..Known::default() }, |replica| {
        units(replica).iter().map(|it| (it.server.key.to_string(), it.copies.len())).collect()
    })
}

fn row_of(servers: &[Server], known: &Known) -> ReplicaMetrics {
    with(servers, known, |replica| row(replica, &units(replica), "vllm"))
}

#[test]
fn series_of_one_instance_are_copies_and_the_newest_counts() {
    let (older, newer) = ("h:1\u{1f}p-0", "h:1\u{1f}p-1");
    let servers = [counting(older, 0.0, 10.0), counting(newer, 7.0, 9_000.0)];
    assert_eq!(counted(&servers, None), [(newer.to_owned(), 1)]);
}

#[test]
fn counters_distinguish_servers_from_copies() {
    let two = |apart: f64, requests: f64| {
        [counting("h:1", 0.0, 1000.0), counting("h:2", apart, 1000.0 + requests)]
    };
    let servers = |apart, requests, rate| counted(&two(apart, requests), rate).len();
    assert_eq!(servers(0.0, 0.0, None), 1);
    assert_eq!(servers(7.0, 4.0, None), 1, "a few requests are nothing");
    assert_eq!(servers(7.0, 14.0, Some(2.0)), 1, "2 a second for 7 s");
    assert_eq!(servers(7.0, 60.0, Some(2.0)), 1, "a burst");
    assert_eq!(servers(7.0, 700.0, Some(2.0)), 2);
    assert_eq!(servers(0.0, 20.0, Some(0.0)), 2, "sampled at once, a copy would say the same");
    assert_eq!(servers(0.0, 20.0, None), 1, "how fast they count is not known: in doubt a copy");
    assert_eq!(servers(0.0, 20.0, Some(f64::NAN)), 1, "a rate that cannot be true is not known");
}

#[test]
fn in_doubt_series_are_copies_and_ranks_never_are() {
    let doubt = [server("", "h:1", 0.0), server("", "h:2", 1.0)];
    assert_eq!(counted(&doubt, None), [("h:2".to_owned(), 1)], "nothing has counted");
    let ranks = [server("0", "h:1", 0.0), server("1", "h:1", 0.0)];
    assert_eq!(counted(&ranks, None).len(), 2);
}

#[test]
fn servers_add_up_and_the_fullest_is_the_usage() {
    let mut fuller = server("1", "h:1", 5.0);
    fuller.values = vec![
        (plan().only_leaf(QueryKind::QueueLength), 4.0),
        (plan().only_leaf(QueryKind::RunningRequests), 9.0),
        (plan().only_leaf(QueryKind::KvCache), 0.75),
    ];
    let known = Known { config: vec![config("0", 1000), config("1", 2000)], ..Known::default() };
    let row = row_of(&[server("0", "h:1", 2.0), fuller], &known);
    assert_eq!((row.queue_length, row.running_requests), (Some(7), Some(16)));
    assert_eq!(row.kv_cache_usage, Some(0.75));
    assert_eq!(row.total_kv_capacity_tokens(), Some(48_000));
    // Each rank with its own usage and size.
    assert_eq!(row.tokens_in_use(), Some(8_000 + 24_000));
    assert_eq!(row.num_gpu_blocks, Some(3000));
    assert_eq!(row.servers, 2);
    assert_eq!(row.sampled_at, tick(2.0), "one rank that is not scraped makes it as old");
    assert!(row.reasons.is_empty());
}

#[test]
fn a_capacity_per_server_holds_for_each_rank_and_an_absent_one_makes_the_sum_unknown() {
    let servers = [server("0", "h:1", 0.0), server("1", "h:1", 0.0)];
    let of = |config| Known { config, ..Known::default() };
    let once = row_of(&servers, &of(vec![config("", 1000)]));
    assert_eq!(once.total_kv_capacity_tokens(), Some(32_000));
    let half = row_of(&servers, &of(vec![config("0", 1000)]));
    assert_eq!((half.total_kv_capacity_tokens(), half.tokens_in_use()), (None, None));
    assert_eq!(half.kv_cache_usage, Some(0.5));
    let mut other = config("1", 1000);
    other.block_size = Some(32);
    let mixed = row_of(&servers, &of(vec![config("0", 1000), other]));
    assert_eq!(mixed.block_size, None, "no size is that of both");
    assert_eq!(mixed.total_kv_capacity_tokens(), Some(16_000 + 32_000));
}

#[test]
fn a_server_without_a_gauge_is_not_idle_because_another_of_its_rank_is() {
    let servers =
        [without(counting("h:1", 0.0, 9_000.0), QueryKind::QueueLength), counting("h:2", 0.0, 0.0)];
    let counted = vec![("".into(), false), ("".into(), true)];
    let known = Known { counted, rate: Some(0.0), ..Known::default() };
    let row = row_of(&servers, &known);
    assert_eq!((row.servers, row.queue_length), (2, None));
}

#[test]
fn a_rank_without_gauges_is_idle_or_named() {
    let servers = [server("0", "h:1", 0.0)];
    let known = |idle| Known {
        config: vec![config("0", 1000), config("1", 1000)],
        counted: vec![("0".into(), false), ("1".into(), idle)],
        rate: None,
    };
    let row = row_of(&servers, &known(true));
    assert_eq!((row.queue_length, row.kv_cache_usage), (Some(3), Some(0.5)));
    assert_eq!(row.total_kv_capacity_tokens(), Some(32_000), "it has room all the same");
    assert_eq!(row.tokens_in_use(), Some(8_000));

    let row = row_of(&servers, &known(false));
    assert_eq!((row.queue_length, row.running_requests, row.kv_cache_usage), (None, None, None));
    let reason = row.reasons.get(Field::QueueLength).unwrap();
    assert_eq!(&**reason, "rank 1 of 2 has no usable vllm:num_requests_waiting");
    assert_eq!(row.servers, 2);
}

#[test]
fn a_living_rank_that_lacks_one_gauge_makes_that_field_unknown_and_no_other() {
    let servers = [server("0", "h:1", 0.0), without(server("1", "h:1", 0.0), QueryKind::KvCache)];
    let row = row_of(&servers, &Known::default());
    assert_eq!((row.queue_length, row.kv_cache_usage), (Some(6), None));
    let reason = row.reasons.get(Field::KvCacheUsage).unwrap();
    assert_eq!(&**reason, "rank 1 of 2 has no usable vllm:kv_cache_usage_perc");
    assert!(!row.reasons.contains(Field::QueueLength));

    let alone = row_of(&[without(server("", "h:1", 0.0), QueryKind::KvCache)], &Known::default());
    let reason = alone.reasons.get(Field::KvCacheUsage).unwrap();
    assert_eq!(&**reason, "no usable vllm:kv_cache_usage_perc");
}

#[test]
fn why_requests_wait_is_known_if_every_rank_reports_it_and_changes_nothing_of_the_queue() {
    let telling = |rank: &str, for_capacity: f64| {
        let mut server = server(rank, "h:1", 0.0);
        server.values.push((plan().leaves(QueryKind::QueueLength)[1], for_capacity));
        server
    };
    let of = |servers: &[Server]| {
        let row = row_of(servers, &Known::default());
        assert!(row.reasons.is_empty(), "{:?}", row.reasons);
        (row.queue_length, row.waiting_for_capacity)
    };
    assert_eq!(of(&[telling("0", 1.0), telling("1", 2.0)]), (Some(6), Some(3)));
    assert_eq!(of(&[telling("0", 1.0), server("1", "h:1", 0.0)]), (Some(6), None));
    assert_eq!(of(&[telling("0", f64::NAN)]), (Some(3), None));
    assert_eq!(plan().series(QueryKind::QueueLength), Some("vllm:num_requests_waiting"));
}

#[test]
fn a_gauge_that_cannot_be_true_is_no_zero() {
    let mut broken = server("", "h:1", 0.0);
    broken.values[0].1 = f64::NAN;
    let row = row_of(&[broken], &Known::default());
    assert_eq!((row.queue_length, row.running_requests), (None, Some(7)));
    assert!(row.reasons.contains(Field::QueueLength));
}

#[test]
fn a_replica_sleeps_where_all_of_its_servers_do() {
    let plan = plan();
    let sleeping = |rank: &str, state: f64| {
        let mut server = server(rank, "h:1", 0.0);
        let leaf = *plan.leaves(QueryKind::RunningRequests).last().unwrap();
        assert_eq!(&*plan.series_of(leaf).unwrap().name, "vllm:engine_sleep_state");
        server.values.push((leaf, state));
        server
    };
    let state = |servers: &[Server]| {
        let known = Known { config: vec![config("", 1000)], ..Known::default() };
        let row = row_of(servers, &known);
        (row.state, row.total_kv_capacity_tokens())
    };
    let asleep = (ReplicaState::Sleeping, None);
    assert_eq!(state(&[sleeping("0", 1.0), sleeping("1", 1.0)]), asleep);
    let awake = (ReplicaState::Serving, Some(32_000));
    assert_eq!(state(&[sleeping("0", 1.0), sleeping("1", 0.0)]), awake);
    assert_eq!(state(&[server("0", "h:1", 0.0), server("1", "h:1", 0.0)]), awake);
}

#[test]
fn a_role_is_prefill_or_decode() {
    let role = |name: &str| {
        let server = Server { role: Some(name.into()), ..server("", "h:1", 0.0) };
        row_of(&[server], &Known::default()).role.map(|role| role.to_string())
    };
    assert_eq!(role("prefill").as_deref(), Some("prefill"));
    assert_eq!(role("decode").as_deref(), Some("decode"));
    assert_eq!(role("unified"), None);
}
