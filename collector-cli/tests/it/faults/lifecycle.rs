// SPDX-License-Identifier: Apache-2.0
//! H: from the start of a process to its end.

use std::net::TcpListener;
use std::time::Duration;

use super::daemon::Daemon;
use super::fleet::Fleet;
use super::server::{Reply, Server};
use super::verdict::{check, run_within};
use crate::process::collector_of;

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = collector_of("http://127.0.0.1:9");
    command.args(["serve", "--listen", &address]);
    let ended = run_within(command, Duration::from_secs(10));
    check(&ended.stdout, &ended.stderr);
    assert_eq!(ended.exit, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(&address) && ended.stderr.contains("--listen"));
}

#[test]
fn a_signal_ends_it_though_a_refresh_hangs() {
    for signal in ["-TERM", "-INT"] {
        let fleet = Fleet::default();
        let server = Server::start(move |request| fleet.reply(request));
        let daemon = Daemon::start_fast(&mut collector_of(&server.url()));
        assert_eq!(daemon.replicas().status, 200);
        server.change(|_| Reply::Stall(Vec::new()));
        server.asked();
        daemon.eventually("a refresh hangs", |_| !server.asked().is_empty());
        let (exit, log) = daemon.stop_within(signal, Duration::from_secs(5));
        assert_eq!(exit, Some(0), "{log}");
        check("", &log);
    }
}

#[test]
fn after_a_kill_it_starts_again_on_the_same_port() {
    let fleet = Fleet::default();
    let server = Server::start(move |request| fleet.reply(request));
    let daemon = Daemon::start_fast(&mut collector_of(&server.url()));
    assert_eq!(daemon.replicas().status, 200);
    let address = daemon.address.to_string();
    daemon.stop("-KILL");
    let mut command = collector_of(&server.url());
    command.env("COLLECTOR_SERVER__LISTEN", &address);
    let daemon = Daemon::start_as_configured(&mut command);
    assert_eq!(daemon.address.to_string(), address);
    daemon.eventually("ready", |daemon| daemon.get("/readyz").status == 200);
    assert_eq!(daemon.replicas().status, 200);
}

#[test]
fn a_dead_backend_leaves_it_alive_and_ready() {
    let server = Server::start(|_| Reply::Reset(Vec::new()));
    let daemon = Daemon::start_fast(&mut collector_of(&server.url()));
    daemon.eventually("ready", |daemon| daemon.get("/readyz").status == 200);
    assert_eq!(daemon.replicas().status, 503);
    assert_eq!(daemon.get("/healthz").status, 200);
    assert_eq!(daemon.get("/readyz").status, 200);
}
