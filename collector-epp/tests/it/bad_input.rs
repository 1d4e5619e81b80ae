// SPDX-License-Identifier: Apache-2.0
//! Pods that break the rules: each is an error or a counted skip of its own, its neighbour is unharmed.

use std::fmt::Write as _;
use std::time::Duration;

use collector_core::{Backend as _, ErrorKind, ListAsk, ProbeAsk, SystemClock};
use collector_epp::EppConfig;

use crate::fake_pod::{FakePod, Says, answer_with, status, vllm};
use crate::world::{answer, backend, config, failure, found, in_prod, look};

/// Scrapes a pod that says this beside one that is good, and gives the error of the former.
#[track_caller]
fn check(says: Says, kind: ErrorKind, parts: &'static [&'static str]) -> impl Future<Output = ()> {
    check_with(|config| config, says, kind, parts)
}

async fn check_with(
    set: impl FnOnce(EppConfig) -> EppConfig,
    says: Says,
    kind: ErrorKind,
    parts: &[&str],
) {
    let bad = FakePod::start(says).await;
    let good = FakePod::with_page(&vllm("good", 7.0, 0.5, 1.0)).await;
    let config = config(vec![bad.target("bad-0"), good.target("good-0")]);
    let backend = backend(set(EppConfig { scrape_interval: Duration::from_millis(400), ..config }));
    let error = failure(&backend, "of-the-bad").await;
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("http://{}/metrics", bad.address)), "{text}");
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert!(text.len() < 700 && !text.contains(['<', '\n', '\x1b']), "{text:?}");
    let sample = found(answer(&backend, "good").await);
    assert_eq!(sample.replicas[0].queue_length, Some(7));
    assert!(!sample.absent.is_none(), "the other pod may be of this model");
    assert_eq!(sample.absent.named(), ["bad-0".into()]);
}

fn raw(text: &str) -> Says {
    Says::Raw(text.as_bytes().to_vec())
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_no_success_says_what_to_do() {
    let status = |line: &str| Says::Raw(status(line, "", ""));
    check(
        status("401 x"),
        ErrorKind::Unauthorized,
        &["no bearer token was sent", "epp.token_path"],
    )
    .await;
    check(status("403 x"), ErrorKind::Forbidden, &["no bearer token was sent"]).await;
    check(status("404 x"), ErrorKind::NotFound, &["/metrics", "path"]).await;
    check(status("429 x"), ErrorKind::RateLimited, &["429"]).await;
    check(status("500 x"), ErrorKind::ServerError, &["500"]).await;
    check(status("503 x"), ErrorKind::ServerError, &["503"]).await;
    check(status("418 x"), ErrorKind::Rejected, &["418"]).await;
    check(status("204 x"), ErrorKind::BadAnswer, &["204"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_redirect_to_another_origin_is_not_followed() {
    let elsewhere = "HTTP/1.1 302 x\r\nLocation: http://me:hunter2@other/m?t=hunter2\r\n\
                     Content-Length: 0\r\n\r\n";
    check(
        raw(elsewhere),
        ErrorKind::Redirected,
        &["302 to http://other/m, which was not followed"],
    )
    .await;
    let nowhere = "HTTP/1.1 307 x\r\nContent-Length: 0\r\n\r\n";
    check(raw(nowhere), ErrorKind::Redirected, &["307 without a Location"]).await;
    let here = "HTTP/1.1 307 x\r\nLocation: /metrics\r\nContent-Length: 0\r\n\r\n";
    check(raw(here), ErrorKind::Redirected, &["more than 5 redirects", "/metrics"]).await;
    let other_kind = "HTTP/1.1 305 x\r\nLocation: /metrics\r\nContent-Length: 0\r\n\r\n";
    check(raw(other_kind), ErrorKind::Redirected, &["305 to http://", "not followed"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_redirect_within_the_origin_is_followed_over_the_same_connection() {
    let page = answer_with("", &vllm("m", 7.0, 0.5, 1.0));
    for code in [301, 302, 303, 307, 308] {
        let location = "Location: /metrics/?full=1#top\r\n";
        let moved = status(&format!("{code} x"), location, "It is elsewhere");
        let paths = vec![("/metrics", moved), ("/metrics/?full=1", page.clone())];
        let pod = FakePod::start(Says::Paths(paths)).await;
        let config = EppConfig {
            bearer_token: Some("hunter2".into()),
            allow_token_over_http: true,
            ..config(vec![pod.target("m-0")])
        };
        let backend = backend(config);
        assert_eq!(found(answer(&backend, "m").await).replicas[0].queue_length, Some(7));
        // Two scrapes of two requests.
        let requests = pod.requests();
        assert_eq!((requests.len(), pod.connections()), (4, 1), "{code}");
        assert!(requests.iter().all(|request| request.contains("Bearer hunter2")), "{requests:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_words_are_quoted() {
    let says = |line: &str, body: &str| Says::Raw(status(line, "", body));
    check(
        says("501 x", "Start it with --metrics\n"),
        ErrorKind::ServerError,
        &["the server failed: 501; the server said: \"Start it with --metrics\""],
    )
    .await;
    check(
        says("503 x", r#"{"error":{"message":"Loading model","code":503}}"#),
        ErrorKind::ServerError,
        &["503; the server said: \"Loading model\""],
    )
    .await;
    check(
        says("503 x", "I am overloaded"),
        ErrorKind::Overloaded,
        &["overloaded: 503; the server said: \"I am overloaded\""],
    )
    .await;
    check(says("400 x", "which \x1b[2Jmodel?"), ErrorKind::Rejected, &["\\u{1b}[2Jmodel?\""]).await;
    check(says("401 x", "wrong key"), ErrorKind::Unauthorized, &["said: \"wrong key\""]).await;
    check(says("500 x", "<html>Oh</html>"), ErrorKind::ServerError, &["the server failed: 500"])
        .await;
    check(says("500 x", &"long ".repeat(5000)), ErrorKind::ServerError, &["long long", "…\""])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_explanation_is_not_waited_for() {
    let head = b"HTTP/1.1 501 x\r\nContent-Length: 500\r\n\r\nStart it".to_vec();
    let pod = FakePod::start(Says::Stalls(head)).await;
    let backend = backend(EppConfig {
        scrape_interval: Duration::from_millis(400),
        ..config(vec![pod.target("m-0")])
    });
    let error = failure(&backend, "m").await;
    assert_eq!(error.kind(), ErrorKind::ServerError);
    assert!(error.to_string().contains("501; the server said: \"Start it\""), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_page_is_read_whatever_its_content_type() {
    let page = vllm("m", 7.0, 0.5, 1.0);
    let within_markup = format!("<html><pre>\n{page}</pre></html>\n");
    for (kind, page) in [
        ("text/html; charset=utf-8", &page),
        ("text/html", &within_markup),
        ("application/json", &page),
        ("application/vnd.google.protobuf", &page),
        ("nonsense", &page),
        ("", &page),
    ] {
        let headers = format!("Content-Type: {kind}\r\n");
        let says = Says::Raw(answer_with(&headers, page));
        let pod = FakePod::start(says).await;
        let backend = backend(config(vec![pod.target("m-0")]));
        assert_eq!(found(answer(&backend, "m").await).replicas[0].queue_length, Some(7), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn pages_without_metrics_are_recognised() {
    let html = "<html><body><script>alert(1)</script></body></html>";
    check(
        Says::Raw(answer_with("Content-Type: text/html\r\n", html)),
        ErrorKind::BadAnswer,
        &["HTML page", "(Content-Type \"text/html\")"],
    )
    .await;
    check(Says::Page(html.into()), ErrorKind::BadAnswer, &["HTML page"]).await;
    check(Says::Page("[]".into()), ErrorKind::BadAnswer, &["JSON", "/prometheus/metrics"]).await;
    let statistics = Says::Page(r#"[{"iter": 3, "kvCacheStats": {"usedNumBlocks": 7}}]"#.into());
    check(statistics, ErrorKind::BadAnswer, &["JSON", "/prometheus/metrics"]).await;
    let in_a_string = r#""vllm:num_requests_waiting{model_name=\"m\"} 1\n""#;
    check(
        Says::Raw(answer_with("Content-Type: application/json\r\n", in_a_string)),
        ErrorKind::BadAnswer,
        &["one JSON string", "must send the page itself", "application/json"],
    )
    .await;
    let protobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily";
    check(
        Says::Raw(answer_with(
            &format!("Content-Type: {protobuf}\r\n"),
            "\x1f\n\x19vllm:num_requests_waiting\x18\x01",
        )),
        ErrorKind::BadAnswer,
        &["protobuf form", "text/plain;version=0.0.4"],
    )
    .await;
    check(
        Says::Raw(answer_with("Content-Type: text/html\r\n", "go_goroutines 7\n")),
        ErrorKind::BadAnswer,
        &["no series of a known engine (Content-Type \"text/html\")"],
    )
    .await;
    check(Says::Page(String::new()), ErrorKind::BadAnswer, &["it is empty", "still starting"])
        .await;
    check(
        Says::Page("go_goroutines 7\nup 1\n".into()),
        ErrorKind::BadAnswer,
        &["2 lines (21 bytes) has no series of a known engine", "collector scrape"],
    )
    .await;
    check(raw("SSH-2.0-OpenSSH_9.2\r\n\r\n"), ErrorKind::BadAnswer, &["not HTTP"]).await;
    check(raw(""), ErrorKind::Disconnected, &["connection"]).await;
    let mut garbage = b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n".to_vec();
    garbage.extend((0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8));
    check(Says::Raw(garbage), ErrorKind::BadAnswer, &["no series"]).await;
    check(
        Says::Page("vllm:num_requests_waiting 1\n".into()),
        ErrorKind::BadAnswer,
        &["no series of its vllm page names a model"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_encoding_that_was_not_asked_for_is_refused() {
    check(
        Says::Raw(answer_with("Content-Encoding: gzip\r\n", "\x1f\u{8b}lies")),
        ErrorKind::BadAnswer,
        &["encoding \"gzip\""],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_page_that_was_cut_short_is_no_smaller_page() {
    let page = vllm("of-the-bad", 123.0, 0.5, 10.0);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
    let announced = format!("{head}Content-Length: {}\r\n\r\n{page}", page.len() + 1);
    check(raw(&announced), ErrorKind::Disconnected, &["before the answer was complete"]).await;
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{page}\r\n", page.len());
    check(raw(&chunked), ErrorKind::Disconnected, &["before the answer was complete"]).await;
    let until_closed = format!("{head}Connection: close\r\n\r\n{}", page.trim_end());
    check(raw(&until_closed), ErrorKind::Disconnected, &["in the middle of a line"]).await;
    let openmetrics = page.replace("of-the-bad", "x");
    check(
        Says::Raw(answer_with("Content-Type: application/openmetrics-text\r\n", &openmetrics)),
        ErrorKind::BadAnswer,
        &["`# EOF` is missing, so that the page may be cut"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn sizes_are_bounded() {
    let smaller = |config| EppConfig { max_page_bytes: 100 << 10, ..config };
    let announced = "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n".as_bytes().to_vec();
    let line = b"unwanted_series_of_some_length 1\n".to_vec();
    let limit = &["larger than 102400 bytes", "epp.max_page_bytes"];
    check_with(smaller, Says::Raw(announced), ErrorKind::TooLarge, limit).await;
    // A page that never ends, in lines and without any.
    let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    check_with(smaller, Says::Endless(head.clone(), line), ErrorKind::TooLarge, limit).await;
    check_with(smaller, Says::Endless(head, vec![b'x'; 1 << 12]), ErrorKind::TooLarge, limit).await;
    // A head that never ends.
    let header = b"X-Header: of some length\r\n".to_vec();
    let head = b"HTTP/1.1 200 OK\r\n".to_vec();
    check(Says::Endless(head, header), ErrorKind::TooLarge, &["head of its answer is too large"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_line_without_end_is_passed_over_and_counted() {
    let long = format!("vllm:num_requests_running{{x=\"{}\"}} 1\n", "y".repeat(80 << 10));
    let other = "vllm:num_requests_waiting{engine=\"1\",model_name=\"m\"} 1.0\n";
    let page = long + &vllm("m", 6.0, 0.5, 1.0) + other;
    let pod = FakePod::with_page(&page).await;
    let backend = backend(config(vec![pod.target("m-0")]));
    let sample = found(answer(&backend, "m").await);
    // A sum that the lost line may be a part of is unknown: the running requests of the other engine.
    assert_eq!(sample.replicas[0].queue_length, Some(7));
    assert_eq!(sample.replicas[0].running_requests, None);
    assert!(sample.absent.is_none());
    let probe = backend.probe(ProbeAsk::new(&SystemClock::new())).await.unwrap();
    let malformed = probe.checks.iter().find(|check| check.id == "metrics.malformed").unwrap();
    assert!(malformed.detail.starts_with("1 lines"), "{malformed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_labels_cost_one_line() {
    let mut page = String::from("vllm:num_requests_running{");
    for number in 0..100_000 {
        let _ = write!(page, "l{number}=\"v\",");
    }
    page.push_str("} 1\n");
    let pod = FakePod::with_page(&(page + &vllm("m", 7.0, 0.5, 1.0))).await;
    let backend = backend(config(vec![pod.target("m-0")]));
    assert_eq!(found(answer(&backend, "m").await).replicas[0].queue_length, Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_page_of_many_models_is_bounded() {
    let mut page = String::new();
    for number in 0..100_000 {
        let _ = writeln!(page, "vllm:num_requests_waiting{{model_name=\"m{number}\"}} 1");
    }
    let pod = FakePod::with_page(&page).await;
    let good = FakePod::with_page(&vllm("good", 7.0, 0.5, 1.0)).await;
    let backend = backend(config(vec![pod.target("m-0"), good.target("good-0")]));
    assert_eq!(found(answer(&backend, "good").await).replicas[0].queue_length, Some(7));
    assert_eq!(backend.list_models(ListAsk::new(&SystemClock::new())).await.unwrap().len(), 1);
    let error = failure(&backend, "m7").await;
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("more than 256 models"), "{error}");
    pod.say(Says::Page(vllm(&"m".repeat(2000), 1.0, 0.5, 1.0)));
    let error = failure(&backend, "m7").await;
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("longer than 1024 bytes"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn values_that_cannot_be_true_are_absent_and_the_others_stay() {
    let page = vllm("m", -1.0, 1.7, f64::NAN);
    let pod = FakePod::with_page(&page).await;
    let backend = backend(config(vec![pod.target("m-0")]));
    let sample = found(answer(&backend, "m").await);
    let replica = &sample.replicas[0];
    assert_eq!((replica.queue_length, replica.kv_cache_usage), (None, None));
    assert_eq!(replica.running_requests, Some(2));
    assert_eq!(sample.load.pods()[0].1.rates.requests, None);
    pod.say(Says::Page(vllm("m", 4.0, f64::INFINITY, -5.0)));
    let replica = &found(answer(&backend, "m").await).replicas[0];
    assert_eq!((replica.queue_length, replica.kv_cache_usage), (Some(4), None));
}

#[tokio::test(start_paused = true)]
async fn silence_and_slowness_end_with_the_time_out() {
    let page = vllm("m", 1.0, 0.5, 10.0);
    let keys = &["no answer began within 360ms", "raise epp.scrape_interval (400ms)"];
    check(Says::Nothing, ErrorKind::Timeout, keys).await;
    let shorter = |config| EppConfig { timeout: Some(Duration::from_millis(100)), ..config };
    let keys = &["within 100ms", "raise epp.timeout (100ms)", "below epp.scrape_interval (400ms)"];
    check_with(shorter, Says::Nothing, ErrorKind::Timeout, keys).await;
    let dripped = Says::Drip(answer_with("", &page), Duration::from_millis(100));
    check(dripped, ErrorKind::Timeout, &["no answer began within 360ms"]).await;
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec();
    let pod = FakePod::start(Says::Drip(head, Duration::from_micros(1))).await;
    let backend = backend(EppConfig {
        scrape_interval: Duration::from_millis(400),
        ..config(vec![pod.target("m-0")])
    });
    let error = failure(&backend, "m").await;
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("the page was not complete within 360ms"), "{error}");
    assert!(error.to_string().contains("raise epp.scrape_interval (400ms)"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_pod_is_told_with_its_address() {
    let pod = FakePod::with_page("").await;
    let target = pod.target("m-0");
    let address = pod.address;
    drop(pod);
    let backend = backend(config(vec![target]));
    let error = look(&backend, &[in_prod("m")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(error.to_string().contains("the target's URL"), "{error}");
}
