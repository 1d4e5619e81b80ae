// SPDX-License-Identifier: Apache-2.0
//! F, and names of G: many callers, and hostile ones.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::daemon::Daemon;
use super::fleet::{Fleet, MODEL, NAMESPACE};
use super::server::{Reply, Server};
use super::verdict::check;
use crate::process::collector_of;

/// What the list of models at the start and a first look ask at most: 14 queries for vLLM, names, labels, how often is
/// scraped, whether there are endpoint pickers, the models, and for each of the two the clock twice.
const PLAN: usize = 14 + 9;

/// Slow enough for all callers to come before the first is answered.
fn slow() -> Server {
    let fleet = Fleet::default();
    Server::start(move |request| {
        thread::sleep(Duration::from_millis(30));
        fleet.reply(request)
    })
}

fn daemon(server: &Server) -> Daemon {
    let mut command = collector_of(&server.url());
    command.env("COLLECTOR_PROMETHEUS__TIMEOUT", "5s");
    Daemon::start(&mut command)
}

#[test]
fn two_hundred_callers_of_a_cold_key_cost_one_plan() {
    let server = slow();
    let daemon = daemon(&server);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..200).map(|_| scope.spawn(|| daemon.replicas())).collect();
        for caller in callers {
            let answer = caller.join().unwrap();
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.json()["replicas"].as_array().unwrap().len(), 2);
        }
    });
    let asked = server.asked();
    assert!(asked.len() <= PLAN, "{}: {asked:#?}", asked.len());
}

#[test]
fn callers_that_hang_up_neither_repeat_the_plan_nor_harm_the_next() {
    let server = slow();
    let daemon = daemon(&server);
    let path = format!("/api/v1/replicas?model={MODEL}&namespace={NAMESPACE}");
    for _ in 0..100 {
        let mut stream = TcpStream::connect(daemon.address).unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
            .unwrap();
    }
    assert_eq!(daemon.replicas().status, 200);
    let asked = server.asked().len();
    assert!(asked <= PLAN, "{asked}");
}

#[test]
fn unknown_models_join_in_batches_and_are_remembered() {
    let fleet = Fleet::default();
    let server = Server::start(move |request| fleet.reply(request));
    let daemon = daemon(&server);
    let ask_all = || {
        let numbers: Vec<usize> = (0..500).collect();
        thread::scope(|scope| {
            for part in numbers.chunks(25) {
                let daemon = &daemon;
                scope.spawn(move || {
                    for n in part {
                        let path = format!("/api/v1/replicas?model=none-{n}&namespace={NAMESPACE}");
                        assert_eq!(daemon.get(&path).status, 404);
                    }
                });
            }
        });
        server.asked().len()
    };
    let first = ask_all();
    assert!(first < 500, "{first}");
    assert_eq!(ask_all(), 0);
}

#[test]
fn a_dead_backend_is_left_in_peace_by_its_breaker() {
    let server = Server::start(|_| Reply::Reset(Vec::new()));
    let daemon = Daemon::start_fast(&mut collector_of(&server.url()));
    for _ in 0..200 {
        let (status, document) = daemon.reading();
        assert_eq!(status, 503);
        assert_eq!(document["error"]["reason"], "PrometheusError");
        thread::sleep(Duration::from_millis(25));
    }
    assert!(server.connections() <= 30, "{}", server.connections());
    assert!(daemon.metric("collector_backend_breaker_state{backend=\"prometheus\"}") > 0.0);
}

#[test]
fn cached_reads_are_answered_while_the_backend_hangs() {
    let fleet = Fleet::default();
    let server = Server::start(move |request| fleet.reply(request));
    let mut command = collector_of(&server.url());
    // Longer than the whole test, so that a read that waited for the backend would be seen.
    command.env("COLLECTOR_PROMETHEUS__TIMEOUT", "25s").env("COLLECTOR_CACHE__TTL", "100ms");
    let daemon = Daemon::start(&mut command);
    assert_eq!(daemon.reading().1["source"], "backend");
    server.change(|_| Reply::Stall(Vec::new()));
    server.asked();
    daemon.eventually("a refresh hangs", |daemon| {
        assert_eq!(daemon.replicas().status, 200);
        !server.asked().is_empty()
    });
    for _ in 0..200 {
        let (status, document) = daemon.reading();
        assert_eq!((status, &document["source"]), (200, &"last-known-good".into()), "{document}");
    }
}

#[test]
fn names_are_taken_literally_or_refused() {
    let fleet = Fleet::default();
    let server = Server::start(move |request| {
        assert!(request.query.len() <= 12_000);
        fleet.reply(request)
    });
    let mut command = collector_of(&server.url());
    command.env("RUST_LOG", "debug");
    let daemon = Daemon::start(&mut command);
    let very_long = "x".repeat(10_000);
    for (name, status) in [
        (".*", 404),
        ("org/mode.", 404),
        ("%22%7D%20or%20vector(1)%20%23", 404),
        ("org/model%5C", 404),
        ("%7B__name__=~%22.%2B%22%7D", 404),
        ("org%2Fmodel", 200),
        ("%E6%A8%A1%E5%9E%8B", 404),
        ("a%00b", 400),
        ("a%0d%0aX-Evil:%201", 400),
        ("a%1b%5b31m", 400),
        ("%ff%fe", 400),
        ("", 400),
    ] {
        let answer = daemon.get(&format!("/api/v1/replicas?model={name}&namespace={NAMESPACE}"));
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
        assert!(answer.head.contains("application/json") && !answer.head.contains("x-evil"));
        let _ = answer.json();
    }
    let answer = daemon.get(&format!("/api/v1/replicas?model={very_long}&namespace={NAMESPACE}"));
    assert!([400, 404].contains(&answer.status), "{}", answer.status);
    let (_, lines) = daemon.stop("-TERM");
    check("", &lines);
    assert!(lines.lines().all(|line| line.len() < 2_000), "{lines}");
}
