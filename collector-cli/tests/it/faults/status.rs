// SPDX-License-Identifier: Apache-2.0
//! B: status codes, and answers in other forms than a vector.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::daemon::Daemon;
use super::fleet::{Fleet, MODEL, Quantity, vector};
use super::server::{Reply, Server};
use super::verdict::{Call, SECRET, side_by_side};
use crate::process::collector_of;

fn always(reply: Reply) -> Server {
    Server::start(move |_| reply.clone())
}

fn error(status: u16, kind: &str, text: &str) -> Reply {
    let body = serde_json::json!({"status": "error", "errorType": kind, "error": text});
    Reply::status(status, body.to_string())
}

#[test]
fn a_refusal_is_sent_once_and_quoted_in_short() {
    let hostile = format!("parse \u{1b}[31merror\r\n\u{202e}{}", "x".repeat(500));
    for (reply, says) in [
        (error(400, "bad_data", "1:5: parse error"), "bad_data: 1:5: parse error"),
        (error(404, "not_found", "no such page"), "no such page"),
        (error(422, "execution", "cannot be executed"), "execution: cannot be executed"),
        (Reply::status(404, ""), "/api/v1/query"),
        (Reply::status(400, hostile.clone()), "xxx…"),
        (error(422, "execution", &hostile), "xxx…"),
    ] {
        let verdict = Call::to(&always(reply)).backend_fails(&[says]);
        assert_eq!(verdict.asked.len(), 1, "{}", verdict.stderr);
        assert!(!verdict.stderr.contains(&"x".repeat(200)), "{}", verdict.stderr);
        assert!(!verdict.stdout.contains("\\u001b"), "{}", verdict.stdout);
    }
}

#[test]
fn a_refused_credential_is_named_and_not_shown() {
    for (status, says) in [(401, "PROMETHEUS_BEARER_TOKEN"), (403, "prometheus.tenant")] {
        // Some gateways echo what they refuse.
        let server = always(error(status, "auth", &format!("Bearer {SECRET} is no good")));
        let verdict = Call::to(&server).backend_fails(&["prometheus.bearer_token was sent", says]);
        assert_eq!(verdict.asked.len(), 1);
        assert_eq!(verdict.asked[0].authorization, format!("Bearer {SECRET}"));
    }
}

#[test]
fn a_server_without_post_is_asked_with_get_from_then_on() {
    for status in [405, 501] {
        let fleet = Fleet::default();
        let server = Server::start(move |request| match request.method.as_str() {
            "POST" => Reply::status(status, ""),
            _ => fleet.reply(request),
        });
        let (document, verdict) = Call::to(&server).finds();
        assert_eq!(document["replicas"].as_array().unwrap().len(), 2);
        let posts = verdict.asked.iter().filter(|asked| asked.method == "POST").count();
        assert_eq!(posts, 1, "{:?}", verdict.asked);
    }
}

#[test]
fn a_server_that_names_a_pause_is_obeyed() {
    let (fleet, count) = (Fleet::default(), Arc::new(AtomicUsize::new(0)));
    let server = Server::start(move |request| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            Reply::status(429, "slow down").header("Retry-After", "1")
        } else {
            fleet.reply(request)
        }
    });
    let (_, verdict) = Call::to(&server).finds();
    let waited = verdict.asked[1].arrived - verdict.asked[0].arrived;
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
}

#[test]
fn a_pause_longer_than_the_call_may_take_ends_it_at_once() {
    let server = always(Reply::status(429, "").header("Retry-After", "3600"));
    let verdict = Call::to(&server).in_haste().backend_fails(&["429"]);
    assert_eq!(verdict.asked.len(), 1);
}

#[test]
fn a_server_in_trouble_is_asked_three_times() {
    let page = "<html><body>bad gateway<script>alert(1)</script></body></html>";
    for (reply, says) in [
        (Reply::status(500, "out of memory"), "500: out of memory"),
        (Reply::status(502, page), "502, with an HTML page"),
        (Reply::status(504, ""), "504"),
        (error(503, "timeout", "query timed out"), "503: timeout: query timed out"),
        (Reply::status(429, ""), "429"),
    ] {
        let verdict = Call::to(&always(reply)).backend_fails(&[says]);
        assert_eq!(verdict.asked.len(), 3, "{}", verdict.stderr);
        assert!(!verdict.stderr.contains("<script>"), "{}", verdict.stderr);
    }
}

#[test]
fn an_answer_without_metrics_is_an_error_and_no_empty_fleet() {
    let login = "<!doctype html>\n<html><script>steal()</script></html>";
    for (reply, says) in [
        (Reply::status(204, ""), "204"),
        (Reply::ok(""), "empty"),
        (Reply::ok(" \n"), "empty"),
        (Reply::ok(login), "not JSON"),
        (Reply::status(203, "{}"), "203"),
        (Reply::ok("OK"), "not JSON"),
        (Reply::ok("[]"), "not JSON"),
        (Reply::ok("null"), "not JSON"),
        (Reply::ok("{}"), "status"),
    ] {
        let verdict = Call::to(&always(reply)).backend_fails(&[says]);
        assert!(!verdict.stderr.contains("steal"), "{}", verdict.stderr);
    }
}

#[test]
fn a_claim_of_success_does_not_hide_an_error() {
    let server = always(error(200, "internal", "the store is gone"));
    let verdict = Call::to(&server).backend_fails(&["internal: the store is gone"]);
    assert_eq!(verdict.asked.len(), 1);
}

#[test]
fn nothing_is_sent_to_another_origin() {
    side_by_side(&[301, 302, 303, 307, 308], |status| {
        let elsewhere = always(Reply::ok("{}"));
        let target = format!("{}/api/v1/query?token=yours", elsewhere.url());
        let server = always(Reply::status(*status, "").header("Location", &target));
        let verdict = Call::to(&server).backend_fails(&[
            &elsewhere.address.to_string(),
            "another server",
            "not followed",
            "prometheus.url",
        ]);
        assert_eq!(verdict.asked.len(), 1);
        assert_eq!(elsewhere.connections(), 0);
    });
}

#[test]
fn a_redirect_loop_ends_after_ten_requests() {
    let server = always(Reply::status(308, "").header("Location", "/api/v1/query"));
    let verdict = Call::to(&server).backend_fails(&["redirects", "prometheus.url"]);
    assert!(verdict.asked.len() <= 10, "{}", verdict.asked.len());
}

#[test]
fn a_redirect_on_the_same_origin_keeps_method_and_body() {
    for status in [307, 308] {
        let fleet = Fleet::default();
        let server = Server::start(move |request| match request.path.as_str() {
            "/api/v1/query" => Reply::status(status, "").header("Location", "/moved/query"),
            _ => fleet.reply(request),
        });
        let (document, verdict) = Call::to(&server).finds();
        assert_eq!(document["replicas"].as_array().unwrap().len(), 2);
        assert!(
            verdict.asked.iter().all(|asked| asked.method == "POST" && !asked.query.is_empty())
        );
    }
    for status in [301, 302, 303] {
        let server = always(Reply::status(status, "").header("Location", "/login?next=query"));
        let verdict = Call::to(&server).backend_fails(&["/login", "not followed"]);
        assert_eq!(verdict.asked.len(), 1);
    }
}

#[test]
fn smaller_queries_solve_a_limit_on_samples() {
    let namespaces = ["prod", "staging"];
    let fleet = Fleet::default();
    let crowd = Fleet { pods: (0..1000).map(|n| format!("m-{n}")).collect(), ..Fleet::default() };
    let server = Server::start(move |request| {
        let mut one = request.clone();
        one.query = one.query.replace("staging", "prod");
        match request.about() {
            Quantity::Time | Quantity::Scrapes => return fleet.reply(&one),
            // Many others live here, so that queries name the namespaces they are about.
            Quantity::Shape => return crowd.reply(&one),
            _ => {}
        }
        let rows = fleet.rows(&one);
        let asked: Vec<&str> =
            namespaces.into_iter().filter(|name| request.query.contains(name)).collect();
        if asked.len() == 2 {
            let text = "query processing would load too many samples into memory";
            return error(422, "execution", text);
        }
        let rows = asked.iter().flat_map(|namespace| {
            rows.clone().into_iter().map(move |mut row| {
                row["metric"]["namespace"] = (*namespace).into();
                row
            })
        });
        Reply::ok(vector(&rows.collect::<Vec<_>>()))
    });
    let configured = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let variant = |namespace: &str| {
        format!(
            "[[variants]]\nname = {namespace:?}\nnamespace = {namespace:?}\nmodel = {MODEL:?}\n"
        )
    };
    std::fs::write(configured.path(), namespaces.map(variant).concat()).unwrap();
    let mut command = collector_of(&server.url());
    let daemon = Daemon::start_fast(command.arg("--config").arg(configured.path()));
    daemon.eventually("both are read", |daemon| {
        let list = daemon.get("/api/v1/replicas").json();
        list["items"].as_array().unwrap().iter().all(|item| item["status"] == "fresh")
    });
    let list = daemon.get("/api/v1/replicas").json();
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    for item in items {
        assert_eq!(item["replicas"].as_array().unwrap().len(), 2, "{item}");
        assert_eq!(item["partial"], false, "{item}");
        assert_eq!(item["replicas"][1]["kvCacheUsage"], 0.42, "{item}");
        assert_eq!(item["replicas"][1]["avgInputTokens"], 512.0, "{item}");
    }
    let refused = server
        .asked()
        .iter()
        .filter(|asked| namespaces.iter().all(|name| asked.query.contains(name)))
        .count();
    assert!(refused > 0, "it was necessary");
}
