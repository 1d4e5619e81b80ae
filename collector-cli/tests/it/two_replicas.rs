// SPDX-License-Identifier: Apache-2.0
//! Two identical replicas over one Prometheus, and a reader that meets either of them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::faults::daemon::Daemon;
use crate::faults::fleet::{Fleet, MODEL, NAMESPACE, Quantity, wall};
use crate::faults::server::{Reply, Server};
use crate::keda;
use crate::process::{Served, collector_of};

/// A Prometheus that scrapes on every second. The running requests of a sample tell its second, so that a reader knows how
/// old it truly is.
fn prometheus_of_seconds() -> Server {
    Server::start(|request| {
        let second = request.time.floor();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 1000")]
        let running = (second % 1000.0) as u64;
        Fleet { age: request.time - second, running, ..Fleet::default() }.reply(request)
    })
}

fn steady_prometheus() -> Server {
    let fleet = Fleet::default();
    Server::start(move |request| fleet.reply(request))
}

fn path() -> String {
    format!("/api/v1/replicas?model={MODEL}&namespace={NAMESPACE}")
}

/// How far the time of a sample may be off: a refresh may meet a scrape between its queries, which is a second, and a request
/// of `start_fast` takes at most half of one.
const SLACK: f64 = 1.5;

/// Holds a reading to what is true, and returns its status and the second of its sample.
#[track_caller]
fn check_age(daemon: &Daemon) -> (String, f64) {
    let before = wall();
    let (status, reading) = daemon.reading();
    let after = wall();
    if status != 200 {
        assert_eq!(reading["error"]["reason"], "MetricsStale", "{reading}");
        return ("unavailable".to_owned(), 0.0);
    }
    let told = reading["ageSeconds"].as_f64().unwrap();
    let second = reading["replicas"][0]["runningRequests"].as_f64().unwrap();
    // Samples tell the last three digits of their second; one may have come since `before`.
    let truly = |now: f64| (now - second + 500.0).rem_euclid(1000.0) - 500.0;
    assert!(told + SLACK >= truly(before), "older than told: {before} {reading}");
    assert!(told <= truly(after) + SLACK, "younger than told: {after} {reading}");
    (reading["status"].as_str().unwrap().to_owned(), second)
}

#[test]
fn a_reader_that_meets_either_replica_sees_true_ages_in_an_outage_too() {
    let prometheus = prometheus_of_seconds();
    let replicas = [(); 2].map(|()| Daemon::start_fast(&mut collector_of(&prometheus.url())));
    let mut samples = [Vec::new(), Vec::new()];
    while samples.iter().any(|samples| samples.len() < 4) {
        for (replica, samples) in replicas.iter().zip(&mut samples) {
            let (status, second) = check_age(replica);
            assert_eq!(status, "fresh");
            if samples.last() != Some(&second) {
                samples.push(second);
            }
        }
    }
    prometheus.change(|_| Reply::Reset(Vec::new()));
    let mut ended = [Vec::new(), Vec::new()];
    while ended.iter().any(|seen: &Vec<String>| seen.last().is_none_or(|it| it != "unavailable")) {
        for (replica, seen) in replicas.iter().zip(&mut ended) {
            let (status, _) = check_age(replica);
            if seen.last() != Some(&status) {
                seen.push(status);
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    for seen in ended {
        assert_eq!(seen, ["fresh", "stale", "unavailable"]);
    }
}

#[test]
fn what_one_replica_has_said_hides_nothing_from_a_reader_of_the_other() {
    let prometheus = steady_prometheus();
    let [one, other] = [(); 2].map(|()| Daemon::start(&mut collector_of(&prometheus.url())));
    let asked = |daemon: &Daemon, tag: &str| {
        let (path, host) = (path(), "Host: localhost\r\nConnection: close");
        daemon.send(
            format!("GET {path} HTTP/1.1\r\n{host}\r\nIf-None-Match: {tag}\r\n\r\n").as_bytes(),
        )
    };
    let (first, second) = (one.replicas(), other.replicas());
    assert_ne!(first.json()["generation"], second.json()["generation"]);
    // The heads of answers are read in small letters.
    let tag = &first.header("etag").unwrap().replace("w/", "W/");
    assert_eq!(asked(&one, tag).status, 304);
    let answer = asked(&other, tag);
    assert_eq!(answer.status, 200, "the other one has not seen this tag");
    assert_eq!(answer.header("etag"), second.header("etag"));

    // An event of one is unknown to the other, which starts again, although it had changes before that and since.
    let listen = |daemon: &Daemon, id: &str| {
        let mut stream = TcpStream::connect(daemon.address).unwrap();
        write!(stream, "GET /api/v1/events HTTP/1.0\r\nLast-Event-ID: {id}\r\n\r\n").unwrap();
        BufReader::new(stream).lines().map(Result::unwrap)
    };
    let id_of = |line: String| line.strip_prefix("id: ").map(str::to_owned);
    let mut of_other = listen(&other, "");
    of_other.find_map(id_of).unwrap();
    let id = listen(&one, "").find_map(id_of).unwrap();
    let drop = format!("DELETE /api/v1/cache?model={MODEL}&namespace={NAMESPACE} HTTP/1.0\r\n\r\n");
    assert_eq!(other.send(drop.as_bytes()).status, 200);
    assert_eq!(other.replicas().status, 200);
    of_other.find_map(id_of).unwrap();
    let begins = listen(&other, &id).find(|line| line.starts_with("event: "));
    assert_eq!(begins.unwrap(), "event: reset");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_doors_of_both_replicas_say_the_same() {
    let prometheus = steady_prometheus();
    let replicas = [(); 2].map(|()| serve(&prometheus));
    for replica in &replicas {
        let reading = replica.get(&path()).json();
        let running = &reading["replicas"][0]["runningRequests"];
        assert_eq!((&reading["status"], running), (&"fresh".into(), &7.into()));
        let channel = keda::connect(replica).await;
        // Two pods.
        for (signal, sum) in [("running", "14"), ("queue", "6")] {
            let value = keda::metric(&channel, &[("signal", signal)]).await.unwrap();
            assert_eq!(value.to_string(), sum);
        }
    }
}

/// A replica that drains until it is told again to stop, with a port for KEDA.
fn serve(prometheus: &Server) -> Served {
    let mut command = collector_of(&prometheus.url());
    command.env("COLLECTOR_KEDA__LISTEN", "127.0.0.1:0").env("COLLECTOR_SERVER__DRAIN", "1h");
    Served::start(&mut command)
}

#[test]
fn a_second_replica_costs_a_prometheus_as_much_as_the_first_and_readers_cost_nothing() {
    let prometheus = steady_prometheus();
    let start = || {
        let daemon = Daemon::start_fast(&mut collector_of(&prometheus.url()));
        assert_eq!(daemon.replicas().status, 200);
        daemon.eventually("a cycle", |daemon| daemon.cycles() >= 2.0);
        daemon
    };
    // Requests, and refreshes among them, of so many refreshes.
    let cost = |refreshes: usize| {
        let is_refresh =
            |request: &crate::faults::server::Request| request.about() == Quantity::Liveness;
        prometheus.asked();
        let (mut requests, mut seen) = (0, 0);
        while seen < refreshes {
            let asked = prometheus.asked();
            requests += asked.len();
            seen += asked.iter().filter(|request| is_refresh(request)).count();
            thread::sleep(Duration::from_millis(5));
        }
        requests.div_ceil(seen)
    };
    let one = start();
    let alone = cost(4);
    for _ in 0..200 {
        assert_eq!(one.replicas().status, 200);
    }
    assert!(cost(4) <= alone + 1, "readers cost a Prometheus something");
    let other = start();
    let cycles = (one.cycles(), other.cycles());
    // Both refresh, and a refresh costs what it did.
    let together = cost(8);
    assert!(one.cycles() > cycles.0 && other.cycles() > cycles.1);
    assert!(together.abs_diff(alone) <= 1, "{together} requests for a refresh instead of {alone}");
    assert!(alone <= 12, "{alone} requests for a refresh");
}

/// A replica as its clients see it.
#[derive(Clone)]
struct Endpoint {
    address: SocketAddr,
    keda: Channel,
}

/// The replicas that are ready: what a Service sends its clients to.
type Ready = Arc<Mutex<Vec<Endpoint>>>;

/// One of them after the other.
fn choose(ready: &Ready, turn: usize) -> Endpoint {
    let ready = ready.lock().unwrap();
    ready[turn % ready.len()].clone()
}

/// A client that keeps its connection as long as the server does, chooses among the ready replicas, and tries nothing twice.
struct Client {
    ready: Ready,
    kept: Option<(SocketAddr, BufReader<TcpStream>)>,
    reads: usize,
}

impl Client {
    fn read(&mut self) {
        let address = choose(&self.ready, self.reads).address;
        self.reads += 1;
        let kept = self.kept.take().filter(|(of, _)| *of == address).map(|(_, stream)| stream);
        let mut stream =
            kept.unwrap_or_else(|| BufReader::new(TcpStream::connect(address).unwrap()));
        let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", path());
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).unwrap() > 0, "the connection ended: {head:?}");
        }
        let head = head.to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.split_once("content-length: ").unwrap().1;
        let mut body = vec![0; length.split_once("\r\n").unwrap().0.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        let reading: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&reading["status"], &reading["partial"]), (&"fresh".into(), &false.into()));
        if !head.contains("connection: close") {
            self.kept = Some((address, stream));
        }
    }
}

/// Whether a replica is ready, as the kubelet asks.
fn is_ready(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut answer = String::new();
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.split(' ').nth(1) == Some("200")
}

#[track_caller]
fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("not in 20 s");
}

/// New replicas start, become ready, and old ones stop, one after the other, while clients read.
#[test]
fn a_rolling_update_fails_no_read_of_either_door() {
    let prometheus = steady_prometheus();
    let runtime = Runtime::new().unwrap();
    let ready = Ready::default();
    let (ended, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let answers = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let start = || {
        let replica = serve(&prometheus);
        wait_until(|| is_ready(replica.address));
        let keda = runtime.block_on(keda::connect(&replica));
        ready.lock().unwrap().push(Endpoint { address: replica.address, keda });
        replica
    };
    // Each client has then chosen its replica again.
    let read_on = || {
        for count in answers.iter().chain([&calls]) {
            let before = count.load(Ordering::Relaxed);
            wait_until(|| count.load(Ordering::Relaxed) > before + 20);
        }
    };
    let old = [start(), start()];
    // They run until the clients have ended.
    let mut new = Vec::new();
    thread::scope(|scope| {
        for answers in &answers {
            scope.spawn(|| {
                let mut client = Client { ready: Arc::clone(&ready), kept: None, reads: 0 };
                while !ended.load(Ordering::Relaxed) {
                    client.read();
                    answers.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let endpoint = choose(&ready, calls.fetch_add(1, Ordering::Relaxed));
                let running = [("signal", "running")];
                let value = runtime.block_on(keda::metric(&endpoint.keda, &running));
                assert_eq!(value.unwrap().to_string(), "14");
                thread::sleep(Duration::from_millis(1));
            }
        });
        for leaving in old {
            new.push(start());
            read_on();
            // Kubernetes tells the process at once, and clients of the Service later.
            leaving.signal("-TERM");
            wait_until(|| !is_ready(leaving.address));
            read_on();
            ready.lock().unwrap().retain(|endpoint| endpoint.address != leaving.address);
            read_on();
            // Nobody knows it any more.
            let (exit, log) = leaving.stop("-TERM");
            assert_eq!(exit, Some(0), "{log}");
            assert!(!log.contains("are cut"), "{log}");
            read_on();
        }
        ended.store(true, Ordering::Relaxed);
    });
}
