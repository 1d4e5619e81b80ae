// SPDX-License-Identifier: Apache-2.0
//! Status codes, credentials, redirects and methods.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use collector_core::{Advice, Backend, CheckStatus, ErrorKind, Probe, ProbeAsk, SystemClock};
use wiremock::ResponseTemplate;

use crate::fake::{Fake, error, ok, two_pods, vector_text};

/// A server that always answers like this fails the fetch with one request.
async fn check(answer: ResponseTemplate, kind: ErrorKind, parts: &[&str]) {
    let fake = Fake::start().await;
    fake.always(answer);
    let failure = fake.failure().await;
    let text = failure.to_string();
    assert_eq!(failure.kind(), kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert!(!text.contains('\u{1b}') && !text.contains("<html"), "{text:?}");
    assert_eq!(fake.asked().len(), 1, "{text}");
}

#[tokio::test]
async fn each_status_has_its_kind_and_is_sent_once() {
    check(error(400, "bad_data", "parse error"), ErrorKind::Rejected, &["bad_data: parse error"])
        .await;
    check(error(422, "422", "unable to parse"), ErrorKind::Rejected, &["unable to parse"]).await;
    check(ResponseTemplate::new(404), ErrorKind::NotFound, &["/api/v1/query", "prometheus.url"])
        .await;
    check(ResponseTemplate::new(401), ErrorKind::Unauthorized, &["no bearer token was sent"]).await;
    check(ResponseTemplate::new(403), ErrorKind::Forbidden, &["no bearer token", "tenant"]).await;
    check(ResponseTemplate::new(500), ErrorKind::ServerError, &["500"]).await;
    check(ResponseTemplate::new(503), ErrorKind::Overloaded, &["503"]).await;
    let page = ResponseTemplate::new(502).set_body_raw("<html>\u{1b}[31mbad gateway", "text/html");
    check(page, ErrorKind::ServerError, &["502", "an HTML page"]).await;
    let long = format!("\u{1b}[31m{}", "x".repeat(500));
    check(
        ResponseTemplate::new(400).set_body_string(long),
        ErrorKind::Rejected,
        &[&"x".repeat(190), "…"],
    )
    .await;
    let claims = ok(r#"{"status":"error","errorType":"internal","error":"broken"}"#);
    check(claims, ErrorKind::Rejected, &["internal: broken"]).await;
    for kind in ["matrix", "string"] {
        let answer = ok(&vector_text(&[]).replace("vector", kind));
        check(answer, ErrorKind::BadAnswer, &[kind]).await;
    }
}

#[tokio::test]
async fn a_scalar_everywhere_is_no_fleet() {
    let fake = Fake::start().await;
    let scalar = vector_text(&[]).replace("vector", "scalar").replace("[]", r#"[1,"1"]"#);
    fake.always(ok(&scalar));
    let failure = fake.failure().await;
    assert_eq!(failure.kind(), ErrorKind::BadAnswer, "{failure}");
}

#[tokio::test]
async fn retry_after_is_handed_on() {
    let fake = Fake::start().await;
    fake.always(ResponseTemplate::new(429).insert_header("retry-after", "7"));
    let failure = fake.failure().await;
    assert_eq!(failure.kind(), ErrorKind::RateLimited);
    assert_eq!(failure.advice(), Advice::Retry);
    assert_eq!(failure.retry_after(), Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_server_that_refuses_post_is_asked_with_get_from_then_on() {
    for status in [405, 501] {
        let fake = Fake::start().await;
        two_pods(&fake);
        fake.rule(move |asked| (asked.method == "POST").then(|| ResponseTemplate::new(status)));
        assert_eq!(fake.sample().await.replicas.len(), 2);
        let methods: Vec<String> = fake.asked().into_iter().map(|asked| asked.method).collect();
        assert_eq!(methods.iter().filter(|method| *method == "POST").count(), 1);
        assert_eq!(methods.len(), 1 + 5 + 1 + 13);
    }
}

#[tokio::test]
async fn a_path_prefix_a_tenant_and_a_token_are_sent() {
    let mut base = None;
    let fake = Fake::with(|config| {
        config.url = format!("{}/prom", config.url);
        base = Some(config.url.clone());
        config.tenant = Some("team-a".into());
        config.bearer_token = Some("hunter2".into());
    })
    .await;
    two_pods(&fake);
    fake.sample().await;
    for asked in fake.asked() {
        assert_eq!(asked.path, "/prom/api/v1/query");
        assert_eq!(asked.header("x-scope-orgid"), "team-a");
        assert_eq!(asked.header("authorization"), "Bearer hunter2");
        assert!(asked.nocache, "a server may hide its newest samples without it");
    }
    let echoes = [
        error(401, "unauthorized", "the token hunter2 is wrong"),
        ResponseTemplate::new(400).set_body_string("x".repeat(190) + "Authorization: hunter2"),
        ok(r#"{"status":"error","errorType":"x","error":"no hunter2 here"}"#),
    ];
    for echo in echoes {
        fake.always(echo);
        let failure = fake.failure().await;
        let text = format!("{failure} {failure:?}");
        assert!(!text.contains("hunter") && !text.contains("unter2"), "{text}");
        if failure.kind() == ErrorKind::Unauthorized {
            assert!(text.contains("prometheus.bearer_token"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_rotated_token_is_used_at_once_and_a_refused_one_once() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "old").unwrap();
    let path = file.path().to_owned();
    let fake = Fake::with(|config| config.token_path = Some(path.clone())).await;
    two_pods(&fake);
    fake.rule(|asked| {
        (asked.header("authorization") != "Bearer new").then(|| ResponseTemplate::new(401))
    });
    let text = fake.failure().await.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    assert_eq!(fake.asked().len(), 1, "the file holds no other token");
    fs::write(&path, "new\n").unwrap();
    assert_eq!(fake.sample().await.replicas.len(), 2);
}

#[tokio::test]
async fn a_token_that_changed_unseen_is_read_after_its_refusal() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "old").unwrap();
    let path = file.path().to_owned();
    let fake = Fake::with(|config| config.token_path = Some(path.clone())).await;
    two_pods(&fake);
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "new").unwrap();
    file.as_file().set_modified(modified).unwrap();
    fake.rule(|asked| {
        (asked.header("authorization") != "Bearer new").then(|| ResponseTemplate::new(401))
    });
    assert_eq!(fake.sample().await.replicas.len(), 2);
    let refused = fake.asked().iter().filter(|a| a.header("authorization") == "Bearer old").count();
    assert_eq!(refused, 1);
}

#[tokio::test]
async fn nothing_is_sent_to_another_origin() {
    let elsewhere = Fake::start().await;
    for status in [301, 302, 307, 308] {
        let fake = Fake::with(|config| config.bearer_token = Some("hunter2".into())).await;
        let target = format!("{}/api/v1/query?secret=1", elsewhere.server.uri());
        fake.always(ResponseTemplate::new(status).insert_header("location", target.as_str()));
        let failure = fake.failure().await;
        assert_eq!(failure.kind(), ErrorKind::Redirected);
        let text = failure.to_string();
        assert!(text.contains(&elsewhere.server.uri()) && !text.contains("secret"), "{text}");
    }
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn a_redirect_on_the_same_origin_keeps_method_and_body() {
    for status in [307, 308] {
        let fake = Fake::start().await;
        two_pods(&fake);
        fake.rule(move |asked| {
            (asked.path == "/api/v1/query")
                .then(|| ResponseTemplate::new(status).insert_header("location", "/moved/query"))
        });
        assert_eq!(fake.sample().await.replicas.len(), 2);
        let moved = fake.asked().into_iter().filter(|asked| asked.path == "/moved/query");
        assert_eq!(moved.clone().count(), 5 + 1 + 13);
        assert!(moved.into_iter().all(|asked| asked.method == "POST"));
    }
}

#[tokio::test]
async fn a_redirect_loop_ends() {
    let fake = Fake::start().await;
    fake.always(ResponseTemplate::new(308).insert_header("location", "/api/v1/query"));
    assert_eq!(fake.failure().await.kind(), ErrorKind::Redirected);
    assert_eq!(fake.asked().len(), 10);
    let fake = Fake::start().await;
    fake.always(ResponseTemplate::new(302).insert_header("location", "/login"));
    let text = fake.failure().await.to_string();
    assert!(text.contains("/login"), "{text}");
}

#[track_caller]
fn statuses(probe: &Probe) -> Vec<(&str, CheckStatus)> {
    for check in &probe.checks {
        let wants = matches!(check.status, CheckStatus::Warn | CheckStatus::Fail);
        assert!(!wants || check.remedy.is_some(), "{check:?}");
    }
    probe.checks.iter().map(|check| (check.id.as_str(), check.status)).collect()
}

#[tokio::test]
async fn a_probe_reports_how_far_it_got() {
    use CheckStatus::{Fail, Pass, Skip};
    // A matcher in each query, by which the script distinguishes them.
    let fake = Fake::with(|config| config.matchers = vec![r#"namespace="prod""#.into()]).await;
    two_pods(&fake);
    fake.rows("max(timestamp(", &[("", crate::fake::NOW - 2.0)]);
    fake.rows("> 1", &[]);
    fake.rows("max(count_over_time(", &[("", 4.0)]);
    let probe = fake.backend.probe(ProbeAsk::new(&SystemClock::new())).await.unwrap();
    let expected = [
        ("connection.dns", Pass),
        ("connection.tcp", Pass),
        ("connection.tls", Skip),
        ("connection.auth", Pass),
        ("connection.http", Pass),
        // The script uses another year than the unmoved clock.
        ("connection.clock", CheckStatus::Warn),
        ("metrics.names", Pass),
        ("metrics.labels", Pass),
        ("metrics.clusters", Pass),
        ("metrics.duplicates", Pass),
        ("metrics.scrape_interval", Pass),
        ("metrics.lateness", Pass),
        ("metrics.load", Pass),
    ];
    assert_eq!(statuses(&probe), expected);

    fake.rows("max(count_over_time(", &[("", 1.0)]);
    let probe = fake.backend.probe(ProbeAsk::new(&SystemClock::new())).await.unwrap();
    assert_eq!(statuses(&probe)[10], ("metrics.scrape_interval", Fail));

    fake.always(ResponseTemplate::new(403));
    let probe = fake.backend.probe(ProbeAsk::new(&SystemClock::new())).await.unwrap();
    assert_eq!(statuses(&probe)[3], ("connection.auth", Fail));
    assert!(statuses(&probe)[4..].iter().all(|(_, status)| *status == Skip));

    let empty = Fake::start().await;
    let probe = empty.backend.probe(ProbeAsk::new(&SystemClock::new())).await.unwrap();
    assert_eq!(statuses(&probe)[6], ("metrics.names", Fail));
}
