// SPDX-License-Identifier: Apache-2.0
//! What mistakes on the side of servers and pods are answered with.

use std::fmt::Write as _;
use std::fs;

use collector_testkit::PrometheusServer;
use tempfile::TempDir;

use crate::fake_prometheus::{MODEL, NAMESPACE};
use crate::faults::certificates::{Authority, Pair, of_common_name};
use crate::faults::fleet::{Fleet, wall};
use crate::faults::server::{Reply, Server};
use crate::process::{Ended, Served, collector, collector_of, run};

const PAGE: &str = "vllm:num_requests_waiting{model_name=\"m\"} 3\n\
                    vllm:num_requests_running{model_name=\"m\"} 1\n\
                    vllm:kv_cache_usage_perc{model_name=\"m\"} 0.5\n";

fn page(content_type: &str, body: &str) -> Reply {
    Reply::status(200, body).header("Content-Type", content_type)
}

/// A pod that answers each request for its page alike.
fn pod(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |_| reply())
}

fn metrics(server: &Server) -> String {
    format!("{}/metrics", server.url())
}

/// Runs it with these targets and more keys of their section.
fn with_pods(urls: &[&str], keys: &str, args: &[&str]) -> Ended {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("c.toml");
    let targets = urls.iter().enumerate().map(|(number, url)| {
        format!("{{ url = \"{url}\", namespace = \"n\", pod = \"m-{number}\" }}")
    });
    let targets = targets.collect::<Vec<_>>().join(", ");
    fs::write(&path, format!("backend = \"scrape\"\n[scrape]\ntargets = [{targets}]\n{keys}\n"))
        .unwrap();
    run(collector().arg("--config").arg(&path), args)
}

const GET: [&str; 4] = ["get", "replicas", "m", "-n"];

/// The page of one pod, read by `get` and by `scrape`: both know it, or both say this about it.
#[track_caller]
fn both_say(url: &str, exits: [i32; 2], parts: &[&str]) -> [String; 2] {
    let get = with_pods(&[url], "", &[&GET[..], &["n"]].concat());
    let scrape = run(&mut collector(), &["scrape", url]);
    assert_eq!([get.exit, scrape.exit], exits, "{}{}", get.stderr, scrape.stderr);
    for ended in [&get, &scrape] {
        for part in parts {
            let times = (ended.stderr.clone() + &ended.stdout).matches(part).count();
            assert_eq!(times, 1, "{part:?} stands {times} times in {}", ended.stderr);
        }
    }
    [get.stderr, scrape.stderr]
}

#[test]
fn a_page_without_a_scheme_is_answered_with_its_url() {
    let ended = run(&mut collector(), &["scrape", "127.0.0.1:8000/metrics"]);
    assert_eq!((ended.exit, ended.stdout.as_str()), (2, ""));
    let hint = "did you mean http://127.0.0.1:8000/metrics?";
    assert!(ended.stderr.contains(hint), "{}", ended.stderr);
}

#[test]
fn a_url_that_ends_in_a_path_of_the_api_or_of_the_page_works() {
    let fleet = Fleet::default();
    let server = Server::start(move |request| fleet.reply(request));
    for end in ["/api/v1", "/api/v1/", "/api/v1/query", "/graph"] {
        let url = server.url() + end;
        let ended = run(
            &mut collector_of(&url),
            &["get", "replicas", MODEL, "-n", NAMESPACE, "-o", "name"],
        );
        assert_eq!((ended.exit, ended.stdout.as_str()), (0, "m-0\nm-1\n"), "{}", ended.stderr);
    }
    let paths = server.asked().into_iter().map(|request| request.path);
    assert!(
        paths.into_iter().all(|path| path.starts_with("/api/v1/query")),
        "{:?}",
        server.asked().len()
    );
}

#[test]
fn a_refusal_says_which_token_was_sent_and_sets_off_the_words_of_the_server() {
    let server = Server::start(|_| Reply::status(403, "nope"));
    let get = |token: Option<&str>| {
        let mut command = collector_of(&server.url());
        if let Some(token) = token {
            command.env("PROMETHEUS_BEARER_TOKEN", token);
        }
        run(&mut command, &["get", "replicas", "m", "-n", "n"])
    };
    for (token, says) in [
        (None, "forbidden (403): no bearer token was sent; the server said: \"nope\""),
        (
            Some("hunter2"),
            "forbidden (403): the bearer token of prometheus.bearer_token was sent; the server said: \"nope\"",
        ),
    ] {
        let ended = get(token);
        assert_eq!(ended.exit, 5);
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
}

#[test]
fn a_failed_target_is_reported_once() {
    // Port 9 of loopback is closed everywhere.
    let down = "http://127.0.0.1:9/metrics";
    for (args, exit) in [
        (&[&GET[..], &["n"]].concat()[..], 5),
        (&["get", "replicas", "-A"], 5),
        (&["get", "models"], 5),
        (&["check"], 1),
    ] {
        let ended = with_pods(&[down], "", args);
        let text = ended.stdout + &ended.stderr;
        assert_eq!(ended.exit, exit, "{text}");
        assert_eq!(text.matches("cannot connect").count(), 1, "{args:?}: {text}");
        assert!(!text.contains("circuit"), "{args:?}: {text}");
    }
    // Where the others are read, a line of the log says what is absent.
    let good = pod(|| page("text/plain; version=0.0.4", PAGE));
    let ended = with_pods(&[&metrics(&good), down], "", &[&GET[..], &["n"]].concat());
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("partial: some replicas may be absent"), "{}", ended.stdout);
    assert_eq!(ended.stderr.matches("cannot connect").count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("WARN Target cannot be scraped"), "{}", ended.stderr);
    // Another target than the one of the error is reported too.
    let other = "http://127.0.0.2:9/metrics";
    let ended = with_pods(&[down, other], "", &[&GET[..], &["n"]].concat());
    for url in [down, other] {
        assert_eq!(ended.stderr.matches(url).count(), 1, "{url}: {}", ended.stderr);
    }
    // With a level of the user, lines are printed at once.
    let args = [&GET[..], &["n", "--log-level", "warn"]].concat();
    let ended = with_pods(&[down], "", &args);
    assert!(ended.stderr.contains("WARN Target cannot be scraped"), "{}", ended.stderr);
}

#[test]
fn words_of_a_pod_that_refuses_are_set_off() {
    for (status, words) in
        [(501, "Start it with --metrics"), (503, "Loading model"), (400, "no such mode")]
    {
        let pod = pod(move || Reply::status(status, words));
        let said = format!("{status}; the server said: \"{words}\"");
        let texts = both_say(&metrics(&pod), [5, 5], &[&said]);
        assert!(texts.iter().all(|text| !text.contains("overloaded")), "{texts:?}");
    }
}

#[test]
fn a_page_under_another_content_type_is_read_by_both() {
    let pod = pod(|| page("text/html", PAGE));
    both_say(&metrics(&pod), [0, 0], &[]);
}

#[test]
fn a_page_in_a_form_that_is_not_text_says_which_it_is() {
    let protobuf = "application/vnd.google.protobuf; encoding=delimited";
    let pod_of_protobuf = pod(move || page(protobuf, "\u{12}\u{4}abcd"));
    let parts = ["Prometheus' protobuf form", "asked for text/plain;version=0.0.4"];
    both_say(&metrics(&pod_of_protobuf), [5, 1], &parts);
    let pod_of_json = pod(|| page("application/json", r#""up 1\n""#));
    let parts =
        ["it is one JSON string, not a page of metrics", "Content-Type \"application/json\""];
    both_say(&metrics(&pod_of_json), [5, 1], &parts);
}

#[test]
fn a_page_without_its_last_line_may_be_cut_and_the_connection_is_not_blamed() {
    let pod = pod(|| page("application/openmetrics-text; version=1.0.0", PAGE));
    let texts =
        both_say(&metrics(&pod), [5, 1], &["`# EOF` is missing, so that the page may be cut"]);
    assert!(texts.iter().all(|text| !text.contains("connection")), "{texts:?}");
}

#[test]
fn redirects_of_a_pod_are_followed_within_its_origin_alone() {
    let pod = Server::start(|request| match request.path.as_str() {
        "/metrics" => Reply::status(307, "").header("Location", "/other"),
        "/away" => Reply::status(307, "").header("Location", "http://127.0.0.2:9/metrics"),
        _ => page("text/plain; version=0.0.4", PAGE),
    });
    both_say(&metrics(&pod), [0, 0], &[]);
    let away = pod.url() + "/away";
    both_say(&away, [5, 5], &["307 to http://127.0.0.2:9/metrics, which was not followed"]);
}

#[test]
fn a_slow_page_names_the_keys_that_give_it_more_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/metrics", silent.local_addr().unwrap());
    let parts = ["raise scrape.scrape_interval (1s)", "unless scrape.timeout is set"];
    both_say(&url, [5, 5], &parts);
}

/// A pod behind TLS with this certificate.
fn behind_tls(pair: &Pair) -> (Server, String) {
    let server = Server::start_tls(pair.server(None), |_| page("text/plain", PAGE));
    let url = format!("https://{}/metrics", server.address);
    (server, url)
}

#[test]
fn a_certificate_that_signs_itself_is_read_if_it_is_the_authority_and_else_says_so() {
    let pair = Pair::self_signed("127.0.0.1");
    let (_server, url) = behind_tls(&pair);
    let authority = Authority::new();
    let args = [&GET[..], &["n"]].concat();
    let own = authority.write("own.pem", &pair.cert);
    let known = format!("ca_cert_path = \"{}\"", own.display());
    let read = with_pods(&[&url], &known, &args);
    assert_eq!(read.exit, 0, "{}", read.stderr);
    let other = format!("ca_cert_path = \"{}\"", authority.file());
    let refused = with_pods(&[&url], &other, &args);
    assert_eq!(refused.exit, 5, "{}", refused.stderr);
    for part in ["self-signed", "scrape.ca_cert_path", "scrape.tls_insecure_skip_verify"] {
        assert!(refused.stderr.contains(part), "{part:?} is not in {}", refused.stderr);
    }
    assert!(!refused.stderr.contains("OtherError"), "{}", refused.stderr);
}

#[test]
fn a_certificate_with_a_common_name_alone_says_that_no_name_in_it_counts() {
    let pair = of_common_name("127.0.0.1");
    let (_server, url) = behind_tls(&pair);
    let authority = Authority::new();
    let own = authority.write("own.pem", &pair.cert);
    let known = format!("ca_cert_path = \"{}\"", own.display());
    let ended = with_pods(&[&url], &known, &[&GET[..], &["n"]].concat());
    assert_eq!(ended.exit, 5, "{}", ended.stderr);
    assert!(ended.stderr.contains("subjectAltName"), "{}", ended.stderr);
}

/// A Prometheus that has scraped SGLang for two minutes.
async fn prometheus_of_sglang() -> Option<PrometheusServer> {
    let now = wall();
    let names = [("num_queue_reqs", 3.0), ("num_running_reqs", 2.0), ("token_usage", 0.5)];
    let mut page = String::new();
    for (name, value) in names {
        writeln!(page, "# TYPE sglang:{name} gauge").unwrap();
        for ago in (0..=120).rev().step_by(15) {
            let labels = r#"model_name="org/model",namespace="prod",pod="s-0""#;
            writeln!(page, "sglang:{name}{{{labels}}} {value} {}", now - f64::from(ago)).unwrap();
        }
    }
    PrometheusServer::start_with_history_or_skip(&(page + "# EOF\n")).await
}

#[tokio::test]
async fn a_model_of_another_engine_than_vllm_is_found() {
    let Some(server) = prometheus_of_sglang().await else { return };
    let read = |args: &[&str]| run(&mut collector_of(&server.url()), args);
    let found = read(&["get", "replicas", MODEL, "-n", NAMESPACE, "-o", "json"]);
    assert_eq!(found.exit, 0, "{}", found.stderr);
    let replica = &found.json()["replicas"][0];
    assert_eq!((&replica["engine"], &replica["queueLength"]), (&"sglang".into(), &3.into()));
    assert!(read(&["get", "models"]).stdout.contains(MODEL));
    let checked = read(&["check", MODEL, "-n", NAMESPACE]).stdout;
    assert!(checked.contains("available: MetricsFound"), "{checked}");
    assert!(!checked.contains("does it scrape"), "{checked}");
}

#[test]
fn a_misspelt_parameter_of_the_http_api_is_answered_with_those_there_are() {
    let served = Served::start(&mut collector_of("http://127.0.0.1:9"));
    for (path, says) in [
        (
            "/api/v1/replicas?modell=a",
            "unknown parameter \"modell\": the parameters are model, namespace",
        ),
        (
            "/api/v1/models?namespace=a",
            "unknown parameter \"namespace\": this path takes no parameters",
        ),
    ] {
        let answer = served.get(path);
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with(says), "{message}");
    }
}
