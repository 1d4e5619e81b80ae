// SPDX-License-Identifier: Apache-2.0
//! E: partial answers, time, outages.

use serde_json::{Value, json};

use super::daemon::Daemon;
use super::fleet::{Fleet, MODEL, NAMESPACE, Quantity, number, vector, wall};
use super::server::{Reply, Request, Server};
use super::verdict::{Call, side_by_side};
use crate::process::collector_of;

fn healthy() -> impl Fn(&Request) -> Reply + Send + Sync {
    let fleet = Fleet::default();
    move |request| fleet.reply(request)
}

/// The answer to who lives says that it may not be whole.
fn partial(pods: &[&str], mark: &'static str) -> impl Fn(&Request) -> Reply + Send + Sync {
    let fleet = Fleet::of_pods(pods);
    move |request| {
        let Reply::Answer { body, .. } = fleet.reply(request) else { unreachable!() };
        if request.about() == Quantity::Time {
            return Reply::ok(body);
        }
        let text = String::from_utf8(body).unwrap();
        Reply::ok(text.replacen('{', &format!("{{{mark},"), 1))
    }
}

const MARKS: [&str; 2] = [r#""warnings":["a store is down"]"#, r#""isPartial":true"#];

fn pods(document: &Value) -> Vec<&str> {
    let replicas = document["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
    replicas.iter().map(|replica| replica["podName"].as_str().unwrap()).collect()
}

#[test]
fn pods_that_a_partial_answer_lacks_stay_as_last_known() {
    for mark in MARKS {
        let server = Server::start(healthy());
        let daemon = Daemon::start_fast(&mut collector_of(&server.url()));
        assert_eq!(pods(&daemon.reading().1), ["m-0", "m-1"]);
        server.change(partial(&["m-0"], mark));
        daemon.eventually("it is partial", |daemon| daemon.reading().1["partial"] == true);
        let (status, document) = daemon.reading();
        assert_eq!(status, 200);
        assert_eq!(pods(&document), ["m-0", "m-1"], "{document}");
        let age = |n: usize| document["replicas"][n]["ageSeconds"].as_f64().unwrap();
        assert!(age(1) > age(0), "it keeps its own age: {document}");
        assert!(document["ageSeconds"].as_f64().unwrap() >= age(1), "{document}");
    }
}

#[test]
fn a_partial_answer_is_marked_and_an_empty_one_is_unknown() {
    for mark in MARKS {
        let server = Server::start(partial(&["m-0"], mark));
        let (document, verdict) = Call::to(&server).finds();
        assert_eq!(document["partial"], true, "{document}");
        assert!(verdict.stderr.contains("returned warnings"), "{}", verdict.stderr);
        // Nothing at all, from a server that lacks a part of what it has: not missing, not empty.
        let server = Server::start(partial(&[], mark));
        Call::to(&server).backend_fails(&["incomplete"]);
        Call::to(&server).args(&["get", "models"]).backend_fails(&["incomplete"]);
        // Rows of the window, and nobody alive in the part that is there.
        let lingering = partial(&["m-0"], mark);
        let nobody = partial(&[], mark);
        let server = Server::start(move |request| match request.about() {
            Quantity::Liveness => nobody(request),
            _ => lingering(request),
        });
        Call::to(&server).backend_fails(&["incomplete"]);
    }
}

#[test]
fn a_partial_answer_never_empties_a_fleet() {
    let server = Server::start(healthy());
    let daemon = Daemon::start_fast(&mut collector_of(&server.url()));
    assert_eq!(pods(&daemon.reading().1).len(), 2);
    server.change(partial(&[], MARKS[0]));
    daemon.eventually("it is not to be used any more", |daemon| {
        let (status, document) = daemon.reading();
        assert!(status != 200 || pods(&document).len() == 2, "{document}");
        assert_ne!(status, 404, "not missing: {document}");
        status == 503
    });
}

#[test]
fn one_failed_query_leaves_its_field_unknown_and_no_other() {
    for (quantity, field) in [
        (Quantity::KvCache, "kvCacheUsage"),
        (Quantity::Queue, "queueLength"),
        (Quantity::Running, "runningRequests"),
        (Quantity::CacheConfig, "numGpuBlocks"),
        (Quantity::Rate, "avgInputTokens"),
    ] {
        let fleet = Fleet::default();
        let server = Server::start(move |request| {
            if request.about() == quantity {
                Reply::status(500, "out of memory")
            } else {
                fleet.reply(request)
            }
        });
        let (document, _) = Call::to(&server).finds();
        let fields =
            ["kvCacheUsage", "queueLength", "runningRequests", "numGpuBlocks", "avgInputTokens"];
        for other in fields {
            let value = &document["replicas"][0][other];
            assert_eq!(value.is_null(), other == field, "{other} without {field}: {document}");
        }
    }
}

#[test]
fn a_field_whose_query_fails_keeps_its_former_value_and_its_age() {
    let server = Server::start(healthy());
    let daemon = Daemon::start_fast(&mut collector_of(&server.url()));
    assert_eq!(daemon.reading().1["replicas"][0]["kvCacheUsage"], 0.42);
    let fleet = Fleet::default();
    server.change(move |request| match request.about() {
        Quantity::KvCache => Reply::status(500, ""),
        Quantity::Queue => Reply::ok(vector(&fleet.each(request, "5"))),
        _ => fleet.reply(request),
    });
    daemon.eventually("the next look", |daemon| {
        daemon.reading().1["replicas"][0]["queueLength"] == 5
    });
    let (_, document) = daemon.reading();
    let replica = &document["replicas"][0];
    assert_eq!(replica["kvCacheUsage"], 0.42, "{document}");
    let age = replica["marks"]["kvCacheUsage"]["ageSeconds"].as_f64().unwrap();
    assert!(age > replica["ageSeconds"].as_f64().unwrap(), "{document}");
    daemon.eventually("too old to be kept", |daemon| {
        daemon.reading().1["replicas"][0]["kvCacheUsage"].is_null()
    });
    assert_eq!(daemon.reading().1["replicas"][0]["queueLength"], 5);
}

#[test]
fn a_sample_is_fresh_or_stale_or_unavailable_by_its_own_time() {
    let fleet = Fleet::of_age(45.0);
    let server = Server::start(move |request| fleet.reply(request));
    let with = |fresh: &str, stale: &str, unavailable: &str| {
        Call::to(&server)
            .env("PROMETHEUS_METRICS_CACHE_FRESH_THRESHOLD", fresh)
            .env("PROMETHEUS_METRICS_CACHE_STALE_THRESHOLD", stale)
            .env("PROMETHEUS_METRICS_CACHE_UNAVAILABLE_THRESHOLD", unavailable)
            .env("COLLECTOR_CACHE__TTL", "9s")
            .env("COLLECTOR_CACHE__FETCH_INTERVAL", "9s")
    };
    let verdict = with("10s", "20s", "30s").fails(4, "MetricsStale", &[MODEL, "30s"]);
    assert!(!verdict.stdout.contains("0.42"), "{}", verdict.stdout);
    let (document, _) = with("20s", "30s", "5m").finds();
    assert_eq!(document["status"], "stale", "{document}");
    let age = document["ageSeconds"].as_f64().unwrap();
    assert!((45.0..48.0).contains(&age), "{document}");
}

#[test]
fn a_sample_from_the_future_is_of_now() {
    let fleet = Fleet::of_age(-30.0);
    let server = Server::start(move |request| fleet.reply(request));
    let (document, _) = Call::to(&server).finds();
    assert_eq!(document["status"], "fresh");
    let age = document["ageSeconds"].as_f64().unwrap();
    assert!((0.0..2.0).contains(&age), "{document}");
}

#[test]
fn a_server_whose_clock_is_an_hour_ahead_makes_nothing_look_younger() {
    for ahead in [3600.0, -3600.0] {
        let fleet = Fleet::of_age(45.0);
        let server = Server::start(move |request| match request.about() {
            Quantity::Time if !request.has_time => Reply::ok(number(wall() + ahead)),
            _ => fleet.reply(request),
        });
        let (document, verdict) =
            Call::to(&server).env("PROMETHEUS_METRICS_CACHE_FRESH_THRESHOLD", "40s").finds();
        assert_eq!(document["status"], "stale", "{document}");
        let age = document["ageSeconds"].as_f64().unwrap();
        assert!((44.5..48.0).contains(&age), "{document}");
        assert!(verdict.stderr.contains("clock"), "{}", verdict.stderr);
        // Asked with a time of ours, it tells whether it evaluates earlier than it is asked to.
        let is_of_a_look = |asked: &&Request| asked.has_time && asked.query != "vector(time())";
        let mut of_the_look = verdict.asked.iter().filter(is_of_a_look).peekable();
        assert!(of_the_look.peek().is_some());
        assert!(of_the_look.all(|asked| (asked.time - wall() - ahead).abs() < 60.0));
    }
}

#[test]
fn a_pod_that_vanishes_is_gone_in_two_cycles() {
    let server = Server::start(healthy());
    let daemon = Daemon::start_fast(&mut collector_of(&server.url()));
    assert_eq!(pods(&daemon.reading().1).len(), 2);
    // It stays in what looks over a window, as long as that is, and in nothing that is of now.
    let (one, two) = (Fleet::of_pods(&["m-1"]), Fleet::default());
    server.change(move |request| match request.about() {
        Quantity::Liveness | Quantity::Running | Quantity::CacheConfig => one.reply(request),
        _ => two.reply(request),
    });
    let before = daemon.cycles();
    daemon.eventually("it is gone", |daemon| pods(&daemon.reading().1) == ["m-1"]);
    assert!(daemon.cycles() - before <= 3.0, "{}", daemon.cycles() - before);
    assert_eq!(daemon.reading().1["partial"], false);
}

#[test]
fn a_model_that_vanishes_is_last_known_good_and_missing_in_the_end() {
    let server = Server::start(healthy());
    let mut command = collector_of(&server.url());
    command
        .env("COLLECTOR_PROMETHEUS__SCRAPE_INTERVAL", "1s")
        .env("COLLECTOR_PROMETHEUS__WINDOW", "4s");
    let daemon = Daemon::start_fast(&mut command);
    assert_eq!(pods(&daemon.reading().1).len(), 2);
    // Nothing of the window either: until that has passed, the server contradicts itself.
    let nothing = Fleet::of_pods(&[]);
    server.change(move |request| nothing.reply(request));
    let before = daemon.cycles();
    daemon.eventually("it is noticed", |daemon| daemon.cycles() - before >= 2.0);
    let mut is_stale = false;
    daemon.eventually("missing", |daemon| {
        let (status, document) = daemon.reading();
        if status == 200 {
            is_stale |= document["status"] == "stale";
            assert!(!is_stale || document["status"] == "stale", "fresh again: {document}");
            assert_eq!(document["source"], "last-known-good", "{document}");
            assert_eq!(pods(&document).len(), 2, "not a smaller fleet: {document}");
        }
        status == 404
    });
    assert!(is_stale);
    assert_eq!(daemon.reading().1["error"]["reason"], "MetricsMissing");
}

#[test]
fn last_good_values_are_served_during_an_outage_until_too_old() {
    let outages: [fn(&Request) -> Reply; 4] = [
        |_| Reply::Reset(Vec::new()),
        |_| Reply::status(503, ""),
        |_| Reply::Stall(Vec::new()),
        |_| Reply::ok("<html>please log in</html>"),
    ];
    side_by_side(&outages, |outage| {
        let server = Server::start(healthy());
        let daemon = Daemon::start_fast(&mut collector_of(&server.url()));
        assert_eq!(daemon.reading().1["status"], "fresh");
        server.change(*outage);
        let (mut seen, mut last_age) = (Vec::new(), 0.0);
        daemon.eventually("too old", |daemon| {
            let (code, document) = daemon.reading();
            let state = if code == 200 {
                let age = document["ageSeconds"].as_f64().unwrap();
                // A refresh that was under way may still bring news.
                assert!(age >= last_age || age < 5.0, "{document}");
                last_age = age;
                assert_eq!(pods(&document).len(), 2, "{document}");
                document["status"].clone()
            } else {
                assert_eq!(code, 503, "{document}");
                document["error"]["reason"].clone()
            };
            if seen.last() != Some(&state) {
                seen.push(state);
            }
            code == 503
        });
        assert_eq!(seen, ["fresh", "stale", "MetricsStale"]);
        assert!((8.0..9.0).contains(&last_age), "served until 9 s: {last_age}");
        let ready = daemon.get("/readyz");
        assert_eq!(ready.status, 200, "{}", ready.body);
        assert_ne!(ready.json()["backends"][0]["state"], "up", "{}", ready.body);
        assert_eq!(daemon.get("/healthz").status, 200);

        server.change(healthy());
        daemon.eventually("back again", |daemon| {
            let (code, document) = daemon.reading();
            code == 200 && document["status"] == "fresh"
        });
        let log = daemon.log();
        let told = log.matches("Background fetch failed").count();
        assert_eq!(told, 1, "a state is logged once: {log}");
    });
}

#[test]
fn an_unknown_model_during_an_outage_is_no_missing_one() {
    let server = Server::start(|_| Reply::Reset(Vec::new()));
    let daemon = Daemon::start_fast(&mut collector_of(&server.url()));
    for _ in 0..3 {
        let (status, document) = daemon.reading();
        assert_eq!(status, 503);
        assert_eq!(document["error"]["reason"], "PrometheusError", "{document}");
    }
    let models = daemon.get("/api/v1/models");
    assert_eq!(models.status, 503, "not an empty list: {}", models.body);
    let listed = Call::to(&server).args(&["get", "models"]).backend_fails(&[]);
    assert!(!listed.stdout.contains("items"), "{}", listed.stdout);
    let variants = variants();
    let allocation = ["get", "allocation", "-m", MODEL, "-n", NAMESPACE, "--variant", "v"];
    Call::to(&server)
        .args(&allocation)
        .env("COLLECTOR_CONFIG", variants.path().to_str().unwrap())
        .backend_fails(&[]);
}

#[test]
fn an_unread_configured_model_is_an_error_in_the_list() {
    let server = Server::start(|_| Reply::Reset(Vec::new()));
    let variants = variants();
    let mut command = collector_of(&server.url());
    let daemon = Daemon::start_fast(command.arg("--config").arg(variants.path()));
    daemon.eventually("it was tried", |daemon| daemon.get("/readyz").status == 200);
    let items = daemon.get("/api/v1/replicas").json()["items"].clone();
    assert_eq!(items[0]["error"]["reason"], "PrometheusError", "{items}");
    assert!(items[0].get("replicas").is_none(), "{items}");
    let page = daemon.get("/metrics").body;
    for family in ["collector_replica_", "collector_allocation_", "wva_metrics_pods_discovered{"] {
        let samples = page.lines().filter(|line| line.starts_with(family));
        assert_eq!(samples.collect::<Vec<_>>(), [""; 0], "{page}");
    }
    assert!(!page.contains("status=\"fresh\"} 1"), "{page}");
}

#[test]
fn what_has_no_rows_is_no_zero_in_any_form() {
    let fleet = Fleet::default();
    let server = Server::start(move |request| match request.about() {
        Quantity::Time | Quantity::Shape | Quantity::Liveness => fleet.reply(request),
        _ => Reply::ok(vector(&[])),
    });
    let variants = variants();
    let path = variants.path().to_str().unwrap();
    let call = |args: &[&str]| Call::to(&server).args(args).env("COLLECTOR_CONFIG", path);
    let (document, _) = Call::to(&server).finds();
    let replica = document["replicas"][0].as_object().unwrap();
    let known = ["podName", "engine", "state", "reasons", "cost", "ageSeconds"];
    for (field, value) in replica.iter().filter(|(field, _)| !known.contains(&field.as_str())) {
        assert!(value.is_null(), "{field}: {document}");
    }
    let allocation = ["get", "allocation", "-m", MODEL, "-n", NAMESPACE, "--variant", "v"];
    let (document, _) = call(&allocation).finds();
    assert_eq!(document["numReplicas"], 2);
    for field in ["maxBatch", "itlAverageMs", "ttftAverageMs"] {
        assert!(document[field].is_null(), "{field}: {document}");
    }
    for (field, value) in document["load"].as_object().unwrap() {
        assert!(value.is_null(), "{field}: {document}");
    }
    let replicas = ["get", "replicas", "-m", MODEL, "-n", NAMESPACE];
    for args in [replicas.to_vec(), allocation.to_vec()] {
        let args = [args, vec!["-o", "prometheus"]].concat();
        let page = call(&args).prints();
        let zeros = page.lines().filter(|line| !line.starts_with('#') && line.ends_with(" 0"));
        assert_eq!(zeros.collect::<Vec<_>>(), [""; 0], "{page}");
    }
}

/// A configuration with one variant of the model.
pub(super) fn variants() -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let variant =
        format!("[[variants]]\nname = \"v\"\nnamespace = {NAMESPACE:?}\nmodel = {MODEL:?}\n");
    std::fs::write(file.path(), variant).unwrap();
    file
}

#[test]
fn check_fails_on_a_server_that_answers_nonsense() {
    let login: fn(&Request) -> Reply = |_| Reply::ok("<html>");
    let silent: fn(&Request) -> Reply = |_| Reply::Stall(Vec::new());
    let empty: fn(&Request) -> Reply = |request| Fleet::of_pods(&[]).reply(request);
    for script in [login, silent, empty] {
        let server = Server::start(script);
        let args = ["check", "-m", MODEL, "-n", NAMESPACE];
        let document = Call::to(&server).args(&args).in_haste().ends_with(1);
        let checks = document["checks"].as_array().unwrap();
        assert!(checks.iter().any(|check| check["status"] == "fail"), "{document}");
        let about_model = checks.iter().filter(|c| c["id"].as_str().unwrap().starts_with("model."));
        assert!(about_model.clone().count() > 0);
        assert!(about_model.into_iter().all(|check| check["status"] != "pass"), "{document}");
        for check in checks.iter().filter(|check| check["status"] == "fail") {
            assert!(check["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{check}");
        }
    }
    let server = Server::start(healthy());
    let document = Call::to(&server).args(&["check", "-m", MODEL, "-n", NAMESPACE]).finds().0;
    assert!(
        document["checks"].as_array().unwrap().iter().all(|check| check["status"] != json!("fail"))
    );
}
