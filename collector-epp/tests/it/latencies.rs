// SPDX-License-Identifier: Apache-2.0
//! The latencies of pods over the window.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use collector_core::{
    Backend as _, Clock as _, Latencies, LatencyHistogram, ManualClock, ProbeAsk, SystemClock,
};
use collector_epp::discover::TargetSpec;
use collector_epp::{EppBackend, EppConfig};
use collector_testkit::PrometheusServer;

use crate::fake_pod::{FakePod, Says, status, vllm};
use crate::world::{answer, config, found};

/// A backend whose clock a test moves.
struct World {
    clock: Arc<ManualClock>,
    backend: EppBackend,
}

impl World {
    fn new(targets: Vec<TargetSpec>) -> Self {
        let clock = Arc::new(ManualClock::new());
        // The first fetch of a pod scrapes it twice, this far apart.
        let scrape_interval = Duration::from_millis(50);
        let config = EppConfig { scrape_interval, ..config(targets) };
        let backend = EppBackend::new(config, Arc::clone(&clock) as _).unwrap();
        Self { clock, backend }
    }

    /// Returns the latencies of each pod of the model `m` after this time.
    async fn after(&self, seconds: u64) -> Vec<Option<Arc<Latencies>>> {
        self.clock.advance(Duration::from_secs(seconds));
        let replicas = found(answer(&self.backend, "m").await).replicas;
        replicas.into_iter().map(|replica| replica.latencies).collect()
    }

    /// Returns the observations of the times to first token of the only pod after this time.
    async fn ttft_after(&self, seconds: u64) -> Option<Vec<u64>> {
        let mut pods = self.after(seconds).await;
        assert_eq!(pods.len(), 1);
        let latencies = pods.remove(0)?;
        ttft(&latencies)
    }
}

fn ttft(latencies: &Latencies) -> Option<Vec<u64>> {
    Some(latencies.ttft.as_ref()?.counts().to_vec())
}

const BOUNDS: &str = "0.1 0.5 +Inf";

/// The lines of a histogram of a rank, with the observations of each bucket alone.
fn histogram(name: &str, rank: &str, bounds: &str, counts: &[u64]) -> String {
    let labels = format!("engine=\"{rank}\",model_name=\"m\"");
    let (mut lines, mut up_to) = (String::new(), 0);
    for (bound, count) in bounds.split(' ').zip(counts) {
        up_to += count;
        writeln!(lines, "vllm:{name}_seconds_bucket{{{labels},le=\"{bound}\"}} {up_to}").unwrap();
    }
    writeln!(lines, "vllm:{name}_seconds_count{{{labels}}} {up_to}").unwrap();
    writeln!(lines, "vllm:{name}_seconds_sum{{{labels}}} {up_to}").unwrap();
    lines
}

fn of_rank(rank: &str, counts: [u64; 3]) -> String {
    histogram("time_to_first_token", rank, BOUNDS, &counts)
}

/// The page of a server with one rank.
fn page(counts: [u64; 3]) -> String {
    vllm("m", 0.0, 0.0, 0.0) + &of_rank("0", counts)
}

#[tokio::test(start_paused = true)]
async fn latencies_are_those_of_the_window() {
    let itl = |count| histogram("inter_token_latency", "0", "0.01 +Inf", &[count, 0]);
    let pod = FakePod::with_page(&(page([100, 20, 3]) + &itl(500))).await;
    let world = World::new(vec![pod.target("m-0")]);
    assert_eq!(world.ttft_after(0).await, None, "one page has no window");
    pod.say(Says::Page(page([104, 21, 3]) + &itl(900)));
    let latencies = world.after(30).await.remove(0).unwrap();
    assert_eq!(latencies.sampled_at, world.clock.now());
    assert_eq!(ttft(&latencies), Some(vec![4, 1, 0]));
    assert_eq!(latencies.itl.as_ref().unwrap().counts(), [400, 0]);
    assert_eq!(latencies.ttft.as_ref().unwrap().quantile(0.8), Some(0.1));
    // The first page is outside of the window now, and nothing came since.
    pod.say(Says::Page(page([104, 21, 3]) + &itl(900)));
    assert_eq!(world.ttft_after(40).await, Some(vec![0, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn buckets_are_read_every_sixth_of_the_window() {
    let pod = FakePod::with_page(&page([0, 0, 0])).await;
    let world = World::new(vec![pod.target("m-0")]);
    world.after(0).await;
    pod.say(Says::Page(page([5, 0, 0])));
    assert_eq!(world.ttft_after(9).await, None, "they are not due");
    assert_eq!(world.ttft_after(1).await, Some(vec![5, 0, 0]));
    let read_at = world.clock.now();
    pod.say(Says::Page(page([9, 0, 0])));
    let latencies = world.after(9).await.remove(0).unwrap();
    // Between two of them latencies are as old as they say.
    assert_eq!((ttft(&latencies), latencies.sampled_at), (Some(vec![5, 0, 0]), read_at));
    assert_eq!(world.ttft_after(1).await, Some(vec![9, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_restart_counts_what_came_after_it() {
    let pod = FakePod::with_page(&page([100, 20, 3])).await;
    let world = World::new(vec![pod.target("m-0")]);
    world.after(0).await;
    pod.say(Says::Page(page([2, 30, 3])));
    assert_eq!(world.ttft_after(30).await, Some(vec![2, 30, 3]));
}

#[tokio::test(start_paused = true)]
async fn other_bounds_begin_the_window_again() {
    let pod = FakePod::with_page(&page([100, 20, 3])).await;
    let world = World::new(vec![pod.target("m-0")]);
    let other = |counts| {
        let histogram = histogram("time_to_first_token", "0", "0.2 0.5 +Inf", counts);
        Says::Page(vllm("m", 0.0, 0.0, 0.0) + &histogram)
    };
    world.after(0).await;
    pod.say(other(&[110, 20, 3]));
    assert_eq!(world.ttft_after(20).await, None);
    pod.say(other(&[110, 20, 4]));
    assert_eq!(world.ttft_after(20).await, Some(vec![0, 0, 1]));
}

#[tokio::test(start_paused = true)]
async fn ranks_are_summed_and_one_that_is_unknown_makes_all_unknown() {
    let ranks = |counts: [[u64; 3]; 2]| {
        let [one, other] = counts;
        vllm("m", 0.0, 0.0, 0.0) + &of_rank("0", one) + &of_rank("1", other)
    };
    let pod = FakePod::with_page(&ranks([[10, 0, 0], [0, 500, 0]])).await;
    let world = World::new(vec![pod.target("m-0")]);
    world.after(0).await;
    pod.say(Says::Page(ranks([[11, 0, 0], [0, 502, 7]])));
    assert_eq!(world.ttft_after(20).await, Some(vec![1, 2, 7]));
    // The slow rank's histogram cannot be read: without it the pod would look fast.
    let spoiled = ranks([[12, 0, 0], [0, 502, 8]])
        .replace("\"1\",model_name=\"m\",le=\"0.5\"} 502", "\"1\",model_name=\"m\",le=\"0.5\"} x");
    pod.say(Says::Page(spoiled));
    assert_eq!(world.ttft_after(20).await, None);
    let without_bound = ranks([[12, 0, 0], [0, 502, 8]])
        .replace("engine=\"1\",model_name=\"m\",le=\"0.5\"", "engine=\"1\",model_name=\"m\"");
    pod.say(Says::Page(without_bound));
    assert_eq!(world.ttft_after(20).await, None);
    // Two good pages later they are known again.
    pod.say(Says::Page(ranks([[12, 0, 0], [0, 502, 9]])));
    assert_eq!(world.ttft_after(20).await, None);
    pod.say(Says::Page(ranks([[12, 0, 0], [0, 502, 10]])));
    assert_eq!(world.ttft_after(20).await, Some(vec![0, 0, 1]));
}

#[tokio::test(start_paused = true)]
async fn a_new_pod_has_latencies_from_its_second_page_on() {
    let old = FakePod::with_page(&page([1, 0, 0])).await;
    let new = FakePod::start(Says::Raw(status("503 x", "", ""))).await;
    let world = World::new(vec![old.target("m-0"), new.target("m-1")]);
    world.after(0).await;
    new.say(Says::Page(page([700, 0, 0])));
    let told = |latencies: &[Option<Arc<Latencies>>]| -> Vec<_> {
        latencies.iter().map(|latencies| latencies.as_deref().and_then(ttft)).collect()
    };
    // What it counted before is of no known time.
    assert_eq!(told(&world.after(20).await), [Some(vec![0, 0, 0]), None]);
    new.say(Says::Page(page([703, 0, 0])));
    assert_eq!(told(&world.after(20).await), [Some(vec![0, 0, 0]), Some(vec![3, 0, 0])]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fails_has_no_latencies_and_none_for_longer_than_the_window() {
    let pod = FakePod::with_page(&page([100, 0, 0])).await;
    let other = FakePod::with_page(&page([1, 0, 0])).await;
    let world = World::new(vec![pod.target("m-0"), other.target("m-1")]);
    world.after(0).await;
    pod.say(Says::Raw(status("500 x", "", "")));
    other.say(Says::Page(page([3, 0, 0])));
    let told = world.after(20).await;
    assert_eq!(told.len(), 1, "the pod that fails is absent, not idle");
    assert_eq!(ttft(told[0].as_ref().unwrap()), Some(vec![2, 0, 0]));
    // It answers again within the window, and after it.
    pod.say(Says::Page(page([104, 0, 0])));
    assert_eq!(ttft(world.after(20).await[0].as_ref().unwrap()), Some(vec![4, 0, 0]));
    pod.say(Says::Raw(status("500 x", "", "")));
    world.after(60).await;
    pod.say(Says::Page(page([900, 0, 0])));
    assert_eq!(world.after(20).await[0], None);
    pod.say(Says::Page(page([901, 0, 0])));
    assert_eq!(ttft(world.after(20).await[0].as_ref().unwrap()), Some(vec![1, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn servers_of_one_replica_are_summed() {
    let pods =
        [FakePod::with_page(&page([10, 0, 0])).await, FakePod::with_page(&page([0, 0, 10])).await];
    let targets = pods.iter().enumerate().map(|(rank, pod)| TargetSpec {
        replica: Some("m-0".into()),
        rank: Some(rank.to_string()),
        ..pod.target(&format!("m-0-{rank}"))
    });
    let world = World::new(targets.collect());
    world.after(0).await;
    pods[0].say(Says::Page(page([12, 0, 0])));
    pods[1].say(Says::Page(page([0, 0, 13])));
    assert_eq!(world.ttft_after(20).await, Some(vec![2, 0, 3]));
}

#[tokio::test(start_paused = true)]
async fn malformed_buckets_leave_the_other_numbers_as_they_are() {
    let malformed = |counts: [u64; 3]| {
        let requests = vllm("m", 3.0, 0.5, 10.0);
        requests + &of_rank("0", counts).replace("_bucket{", "_bucket{{").repeat(20)
    };
    let pod = FakePod::with_page(&malformed([1, 0, 0])).await;
    let world = World::new(vec![pod.target("m-0")]);
    world.after(0).await;
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(7));
        let sample = found(answer(&world.backend, "m").await);
        assert_eq!(sample.replicas[0].latencies, None);
        // Also of the pages whose buckets are read.
        let rates = sample.load.pods()[0].1.rates;
        assert_eq!((rates.requests, rates.ttft_count), (Some(0.0), Some(0.0)));
        let probe = world.backend.probe(ProbeAsk::new(&*world.clock)).await.unwrap();
        let check = probe.checks.into_iter().find(|check| check.id == "metrics.malformed");
        assert!(check.unwrap().detail.starts_with("60 lines"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_without_histograms_has_no_latencies() {
    let counts = "vllm:time_to_first_token_seconds_count{engine=\"0\",model_name=\"m\"} 9\n\
                  vllm:time_to_first_token_seconds_sum{engine=\"0\",model_name=\"m\"} 9\n";
    for page in [vllm("m", 0.0, 0.0, 0.0), vllm("m", 0.0, 0.0, 0.0) + counts] {
        let pod = FakePod::with_page(&page).await;
        let world = World::new(vec![pod.target("m-0")]);
        world.after(0).await;
        assert_eq!(world.after(20).await, [None]);
    }
}

/// Numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// The bounds of vLLM's times to first token.
const VLLM: &str = "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0 40.0 80.0 160.0 \
                    640.0 2560.0 +Inf";
const PODS: usize = 30;

/// The two pages of a pod, 30 s apart, as observations of each bucket.
fn pages(numbers: &mut Numbers) -> [Vec<u64>; 2] {
    let buckets = VLLM.split(' ').count();
    let before: Vec<u64> = (0..buckets).map(|_| numbers.below(1000)).collect();
    // Mostly few buckets have any.
    let some = |numbers: &mut Numbers| if numbers.below(3) == 0 { numbers.below(50) } else { 0 };
    let after = before.iter().map(|count| count + some(numbers)).collect();
    [before, after]
}

/// The answer of a Prometheus to an instant query, by the label `pod`.
async fn query(server: &PrometheusServer, query: &str, time: u64) -> Vec<(String, f64)> {
    let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let answer = server.get(&format!("/api/v1/query?query={query}&time={time}")).await.unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let rows = answer["data"]["result"].as_array().unwrap().iter();
    rows.map(|row| {
        let pod = row["metric"]["pod"].as_str().unwrap_or_default().to_owned();
        (pod, row["value"][1].as_str().unwrap().parse().unwrap())
    })
    .collect()
}

#[tokio::test]
async fn quantiles_are_those_of_a_prometheus() {
    let now = SystemClock::new().wall().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let times = [now - 90, now - 60];
    let mut numbers = Numbers(1);
    // Scrapes have deadlines that a busy machine would miss.
    tokio::time::pause();
    let mut scraped: Vec<(String, LatencyHistogram)> = Vec::new();
    let mut history = String::new();
    for index in 0..PODS {
        let name = format!("m-{index}");
        let pages = pages(&mut numbers);
        let texts = pages.each_ref().map(|counts| {
            vllm("m", 0.0, 0.0, 0.0) + &histogram("time_to_first_token", "0", VLLM, counts)
        });
        for (text, time) in texts.iter().zip(times) {
            for line in text.lines().filter(|line| line.contains("_bucket")) {
                let line = line.replace('{', &format!("{{pod=\"{name}\","));
                writeln!(history, "{line} {time}").unwrap();
            }
        }
        let pod = FakePod::with_page(&texts[0]).await;
        let world = World::new(vec![pod.target(&name)]);
        world.after(0).await;
        pod.say(Says::Page(texts[1].clone()));
        let latencies = world.after(30).await.remove(0).unwrap();
        scraped.push((name, latencies.ttft.clone().unwrap()));
    }
    tokio::time::resume();
    let page = format!("{history}# EOF\n");
    let Some(server) = PrometheusServer::start_with_history_or_skip(&page).await else { return };
    let near = |one: f64, other: f64| (one - other).abs() <= 1e-12 * one.abs();
    let series = "vllm:time_to_first_token_seconds_bucket";
    let increase = format!("({series} - {series} offset 30s)");
    for q in [0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0] {
        let answer =
            query(&server, &format!("histogram_quantile({q}, {increase})"), times[1]).await;
        assert_eq!(answer.len(), PODS);
        for (pod, expected) in answer {
            let (_, histogram) = scraped.iter().find(|(name, _)| *name == pod).unwrap();
            let actual = histogram.quantile(q);
            // It answers NaN where nothing was observed.
            let is_equal = actual.map_or(expected.is_nan(), |actual| near(actual, expected));
            assert!(is_equal, "q {q} of {pod}: {actual:?}, Prometheus: {expected}");
        }
        let all = format!("histogram_quantile({q}, sum by (le) {increase})");
        let expected = query(&server, &all, times[1]).await[0].1;
        let merged = LatencyHistogram::merged(scraped.iter().map(|(_, histogram)| histogram));
        let actual = merged.unwrap().quantile(q).unwrap();
        assert!(near(actual, expected), "q {q} of all: {actual}, Prometheus: {expected}");
    }
}
