// SPDX-License-Identifier: Apache-2.0
//! Credentials, headers and parameters for gateways, and the errors of their refusals.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use collector_core::{Absent, Backend, ErrorKind, ListAsk, SystemClock};
use collector_prometheus::PrometheusConfig;
use wiremock::ResponseTemplate;

use crate::fake::{Fake, error, ok, two_pods, vector_text};

/// A server with two pods behind a gateway that passes requests that `allows` accepts.
async fn gateway(
    set: impl FnOnce(&mut PrometheusConfig),
    allows: impl Fn(&crate::fake::Parameters) -> bool + Send + Sync + 'static,
    refusal: ResponseTemplate,
) -> Fake {
    let fake = Fake::with(set).await;
    two_pods(&fake);
    fake.rule(move |asked| (!allows(asked)).then(|| refusal.clone()));
    fake
}

/// The value that a gateway requires of a header; it may change.
#[derive(Clone)]
struct Wanted {
    header: &'static str,
    value: Arc<Mutex<String>>,
}

impl Wanted {
    fn new(header: &'static str, value: &str) -> Self {
        Self { header, value: Arc::new(Mutex::new(value.to_owned())) }
    }

    fn set(&self, value: &str) {
        value.clone_into(&mut self.value.lock().unwrap());
    }

    fn is_met(&self, asked: &crate::fake::Parameters) -> bool {
        asked.header(self.header) == *self.value.lock().unwrap()
    }
}

fn basic(user: &str, password: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {encoded}")
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert!(!text.contains("hunter2"), "{text:?} shows a secret");
}

#[tokio::test]
async fn basic_authentication_takes_its_password_from_a_key_or_a_file_that_rotates() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    fs::write(&path, "hunter2 \n").unwrap();
    let wanted = Wanted::new("authorization", &basic("123456", "hunter2"));
    let gate = |set: Box<dyn FnOnce(&mut PrometheusConfig)>| {
        let wanted = wanted.clone();
        gateway(set, move |asked| wanted.is_met(asked), ResponseTemplate::new(401))
    };
    let fake = gate(Box::new(|config| {
        config.username = Some("123456".into());
        config.password = Some("hunter2".into());
    }))
    .await;
    assert_eq!(fake.sample().await.replicas.len(), 2);

    let file = path.clone();
    let fake = gate(Box::new(|config| {
        config.username = Some("123456".into());
        config.password_path = Some(file);
    }))
    .await;
    wanted.set(&basic("123456", "hunter2 "));
    assert_eq!(fake.sample().await.replicas.len(), 2, "all but the end of the line counts");
    wanted.set(&basic("123456", "hunter2-b"));
    fs::write(&path, "hunter2-b\n").unwrap();
    assert_eq!(fake.sample().await.replicas.len(), 2, "the file is read again");

    let echo = format!("who is hunter2-b? {}", basic("123456", "hunter2-b"));
    fake.always(ResponseTemplate::new(401).set_body_string(echo));
    let text = fake.failure().await.to_string();
    contains(&text, &["\"123456\"", path.to_str().unwrap(), "prometheus.password_path"]);
    assert!(!text.contains(basic("123456", "hunter2-b").strip_prefix("Basic ").unwrap()), "{text}");
}

#[tokio::test]
async fn headers_come_from_keys_and_from_files_that_rotate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, "hunter2\n").unwrap();
    let set = |config: &mut PrometheusConfig| {
        config.headers.insert("X-Tenant".into(), "a".into());
        config.header_paths.insert("X-Api-Key".into(), path.clone());
    };
    let wanted = Wanted::new("x-api-key", "hunter2");
    let gate = wanted.clone();
    let fake = gateway(
        set,
        move |asked| asked.header("x-tenant") == "a" && gate.is_met(asked),
        ResponseTemplate::new(403).set_body_string("no key like hunter2"),
    )
    .await;
    assert_eq!(fake.sample().await.replicas.len(), 2);
    wanted.set("hunter2-b");
    let text = fake.failure().await.to_string();
    contains(
        &text,
        &["with the headers x-tenant, x-api-key", "the server said: \"no key like [header]\""],
    );
    fs::write(&path, "hunter2-b").unwrap();
    assert_eq!(fake.sample().await.replicas.len(), 2);
}

#[tokio::test]
async fn a_header_file_that_changed_unseen_is_read_after_a_refusal() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "aaa").unwrap();
    let path = file.path().to_owned();
    let fake = gateway(
        |config| _ = config.header_paths.insert("X-Api-Key".into(), path.clone()),
        |asked| asked.header("x-api-key") == "bbb",
        ResponseTemplate::new(401),
    )
    .await;
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "bbb").unwrap();
    file.as_file().set_modified(modified).unwrap();
    assert_eq!(fake.sample().await.replicas.len(), 2);
}

#[tokio::test]
async fn parameters_stand_in_the_url_of_each_request_once() {
    for status in [200, 405] {
        let set = |config: &mut PrometheusConfig| {
            config.parameters.insert("namespace".into(), "prod".into());
            config.parameters.insert("odd name".into(), "a&b=ü".into());
        };
        let fake = gateway(
            set,
            move |asked| status == 200 || asked.method == "GET",
            ResponseTemplate::new(status),
        )
        .await;
        assert_eq!(fake.sample().await.replicas.len(), 2);
        for asked in fake.asked() {
            let pairs: Vec<(&str, &str)> =
                asked.in_url.iter().map(|(name, value)| (&**name, &**value)).collect();
            assert_eq!(pairs, [("namespace", "prod"), ("odd name", "a&b=ü")], "{}", asked.method);
            assert!(!asked.query.is_empty());
        }
    }
}

#[tokio::test]
async fn parameters_and_headers_survive_a_redirect_and_no_error_shows_them() {
    let set = |config: &mut PrometheusConfig| {
        config.parameters.insert("key".into(), "hunter2".into());
        config.headers.insert("X-Tenant".into(), "a".into());
    };
    let moved = ResponseTemplate::new(308).insert_header("location", "/moved/query");
    let fake = gateway(set, |asked| asked.path == "/moved/query", moved).await;
    assert_eq!(fake.sample().await.replicas.len(), 2);
    for asked in fake.asked() {
        assert_eq!(asked.in_url.len(), 1, "{asked:?}");
        assert_eq!(asked.header("x-tenant"), "a");
    }
    fake.always(ResponseTemplate::new(404));
    contains(&fake.failure().await.to_string(), &["/api/v1/query"]);
}

/// A script that prints the file `token` next to it, and counts its runs.
fn script(folder: &Path, body: &str) -> Vec<String> {
    let path = folder.join("print-token");
    fs::write(&path, format!("cd {}\necho run >> runs\n{body}\n", folder.display())).unwrap();
    vec!["sh".into(), path.to_str().unwrap().into()]
}

fn runs(folder: &Path) -> usize {
    fs::read_to_string(folder.join("runs")).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn a_token_command_is_run_at_first_after_its_ttl_and_after_a_401() {
    let folder = tempfile::tempdir().unwrap();
    let command = script(folder.path(), "cat token");
    fs::write(folder.path().join("token"), "one\n").unwrap();
    let wanted = Wanted::new("authorization", "Bearer one");
    let gate = wanted.clone();
    let fake = gateway(
        |config| config.token_command = command,
        move |asked| gate.is_met(asked),
        ResponseTemplate::new(401),
    )
    .await;
    assert_eq!(runs(folder.path()), 0, "nothing is run before it is needed");
    assert_eq!(fake.sample().await.replicas.len(), 2);
    fake.clock.advance(Duration::from_secs(599));
    fake.sample().await;
    assert_eq!(runs(folder.path()), 1);
    fake.clock.advance(Duration::from_secs(1));
    fake.sample().await;
    assert_eq!(runs(folder.path()), 2, "the ttl is over");

    fs::write(folder.path().join("token"), "two").unwrap();
    wanted.set("Bearer two");
    fake.asked();
    assert_eq!(fake.sample().await.replicas.len(), 2);
    let sent = |token: &str| {
        fake.asked().iter().filter(|asked| asked.header("authorization") == token).count()
    };
    assert!(sent("Bearer one") > 0);
    assert_eq!(runs(folder.path()), 3, "one run for all requests that were refused");

    fake.always(ResponseTemplate::new(401).set_body_string("no two"));
    let failure = fake.failure().await;
    assert_eq!(failure.kind(), ErrorKind::Unauthorized);
    contains(
        &failure.to_string(),
        &["prometheus.token_command", "the server said: \"no [token]\""],
    );
}

#[tokio::test]
async fn the_last_token_is_used_on_while_the_command_fails() {
    let folder = tempfile::tempdir().unwrap();
    let command = script(folder.path(), "cat token");
    fs::write(folder.path().join("token"), "one").unwrap();
    let fake = gateway(
        |config| config.token_command = command,
        |asked| asked.header("authorization") == "Bearer one",
        ResponseTemplate::new(401),
    )
    .await;
    fake.sample().await;
    fs::remove_file(folder.path().join("token")).unwrap();
    fake.clock.advance(Duration::from_secs(600));
    assert_eq!(fake.sample().await.replicas.len(), 2);
    assert_eq!(runs(folder.path()), 2, "once for all requests of a fetch");
    fake.always(ResponseTemplate::new(401));
    let text = fake.failure().await.to_string();
    contains(&text, &["prometheus.token_command: \"sh\" failed (exit status: 1)", "No such file"]);
}

/// The fetch fails without a request, with these messages.
async fn command_fails(command: Vec<String>, parts: &[&str]) {
    let fake = Fake::with(|config| config.token_command = command).await;
    let failure = fake.failure().await;
    assert_eq!(failure.kind(), ErrorKind::Configuration, "{failure}");
    contains(&format!("{failure} {failure:?}"), &[&["prometheus.token_command"], parts].concat());
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn a_token_command_without_a_token_fails_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let run = |body: &str| script(folder.path(), body);
    command_fails(vec!["/does/not/exist".into()], &["\"/does/not/exist\" cannot be run"]).await;
    command_fails(run("echo not you >&2; exit 3"), &["(exit status: 3), and said: \"not you\""])
        .await;
    let failing = "echo hunter2; echo the token hunter2 is old >&2; exit 1";
    command_fails(run(failing), &["and said: \"the token [token] is old\""]).await;
    command_fails(run("exit 1"), &["said nothing"]).await;
    command_fails(run("kill -9 $$"), &["signal: 9"]).await;
    command_fails(run("true"), &["printed nothing"]).await;
    command_fails(run("echo; echo ' '"), &["printed nothing"]).await;
    command_fails(run("echo hunter2; echo more"), &["blanks, line breaks"]).await;
    command_fails(run("echo Bearer hunter2"), &["leave that off"]).await;
    command_fails(run("printf '\\377'"), &["characters"]).await;
    command_fails(run("yes hunter2"), &["more than 64 KiB"]).await;
    command_fails(run("head -c 70000 /dev/zero | tr '\\0' x"), &["more than 64 KiB"]).await;
}

#[tokio::test]
async fn a_token_command_may_write_much_to_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let body = "head -c 3000000 /dev/zero | tr '\\0' x >&2 || exit 1; echo token";
    let fake = gateway(
        |config| config.token_command = script(folder.path(), body),
        |asked| asked.header("authorization") == "Bearer token",
        ResponseTemplate::new(401),
    )
    .await;
    assert_eq!(fake.sample().await.replicas.len(), 2);
}

#[tokio::test]
async fn a_token_command_that_hangs_is_killed_with_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let id = folder.path().join("id");
    let body = format!("sh -c 'echo $$ > new; mv new {}; exec sleep 100000' & wait", id.display());
    let command = script(folder.path(), &body);
    let fetch = tokio::spawn(async move {
        command_fails(command, &["did not end within 10.0s and was killed"]).await;
    });
    while !id.exists() {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10)).await;
    fetch.await.unwrap();
    let id = fs::read_to_string(&id).unwrap();
    // Until it is killed, or forever.
    let state = format!("/proc/{}/stat", id.trim());
    while fs::read_to_string(&state).is_ok_and(|state| !state.contains(") Z ")) {
        tokio::task::yield_now().await;
    }
}

/// A server that answers everything like this.
async fn refusal(set: impl FnOnce(&mut PrometheusConfig), answer: ResponseTemplate) -> String {
    let fake = Fake::with(set).await;
    fake.always(answer);
    fake.failure().await.to_string()
}

fn nothing(_: &mut PrometheusConfig) {}

fn with_token(config: &mut PrometheusConfig) {
    config.bearer_token = Some("hunter2".into());
}

#[tokio::test]
async fn a_401_names_the_scheme_that_the_server_wants_and_its_keys() {
    let wants = |schemes: &[&str]| {
        schemes.iter().fold(ResponseTemplate::new(401), |answer, scheme| {
            answer.append_header("www-authenticate", *scheme)
        })
    };
    let text = refusal(nothing, wants(&["Basic realm=\"x, y\""])).await;
    contains(
        &text,
        &[
            "no bearer token was sent; the server wants Basic;",
            "prometheus.username",
            "password_path",
        ],
    );
    let text = refusal(with_token, wants(&["Basic realm=\"x\""])).await;
    contains(&text, &["prometheus.bearer_token was sent; the server wants Basic", "username"]);
    let text = refusal(nothing, wants(&["Bearer error=\"invalid\""])).await;
    contains(&text, &["the server wants Bearer", "PROMETHEUS_TOKEN_PATH"]);
    let text = refusal(with_token, wants(&["Basic realm=\"x\"", "basic, Bearer"])).await;
    contains(&text, &["the server wants Basic or Bearer; check prometheus.bearer_token"]);
    let text = refusal(nothing, wants(&["AWS4-HMAC-SHA256"])).await;
    contains(&text, &["prometheus.sigv4.region"]);
    let text = refusal(nothing, wants(&["Negotiate"])).await;
    contains(&text, &["the server wants Negotiate; the collector has no such scheme"]);
    let many: Vec<String> = (0..50).map(|i| format!("S{i}")).collect();
    let text = refusal(nothing, wants(&[&many.join(", ")])).await;
    contains(&text, &["wants S0 or S1 or S2 or S3;"]);
    let text = refusal(nothing, ResponseTemplate::new(401)).await;
    contains(&text, &["prometheus.token_path", "prometheus.username"]);
    let set = |config: &mut PrometheusConfig| {
        config.username = Some("me".into());
        config.password = Some("hunter2".into());
    };
    let text = refusal(set, wants(&["basic realm=\"x\""])).await;
    contains(&text, &["the password of prometheus.password;", "check prometheus.username"]);
}

#[tokio::test]
async fn a_missing_tenant_and_a_missing_namespace_name_their_keys() {
    let text = refusal(nothing, ResponseTemplate::new(401).set_body_string("no org id\n")).await;
    contains(&text, &["the server said: \"no org id\"; set prometheus.tenant"]);
    for body in [
        "this port answers only with a \"namespace\" parameter in the URL\n",
        "The \"namespace\" query parameter must be provided.",
        "Bad Request. The request or configuration is malformed.",
    ] {
        let text = refusal(with_token, ResponseTemplate::new(400).set_body_string(body)).await;
        contains(&text, &["prometheus.parameters = { namespace = \"NAMESPACE\" }"]);
        contains(&text, &[body.trim()]);
    }
    let text = refusal(nothing, error(400, "bad_data", "parse error: unexpected }")).await;
    assert!(!text.contains("prometheus.parameters"), "{text}");
}

#[tokio::test]
async fn the_words_of_the_server_are_separate_from_what_was_sent() {
    let text = refusal(with_token, ResponseTemplate::new(403).set_body_string("nope")).await;
    contains(
        &text,
        &[
            "forbidden (403): the bearer token of prometheus.bearer_token was sent; the server said: \
           \"nope\"; may this",
        ],
    );
    let text = refusal(nothing, error(403, "forbidden", "not you")).await;
    contains(&text, &["no bearer token was sent; the server said: \"not you\""]);
    let text = refusal(nothing, ResponseTemplate::new(403).set_body_string("<html>")).await;
    contains(&text, &["no bearer token was sent; the server sent an HTML page"]);
    let text = refusal(nothing, ResponseTemplate::new(404).set_body_string("404 page\n")).await;
    contains(&text, &["/api/v1/query; the server said: \"404 page\""]);
    // Without redaction it would be truncated after its first four letters.
    let echo = "x".repeat(195) + " hunter2";
    let long = ok(&format!(r#"{{"status":"error","errorType":"x","error":"{echo}"}}"#));
    let text = refusal(with_token, long).await;
    assert!(!text.contains("hunt") && text.contains("x [tok…"), "{text}");
}

#[tokio::test]
async fn a_secret_is_left_out_of_what_the_server_says_however_it_is_written() {
    let with_key = |config: &mut PrometheusConfig| {
        config.headers.insert("x-api-key".into(), "hun<ter".into());
    };
    // Servers in Go write `<` as an escape.
    let says = r#"{"status":"error","errorType":"x","error":"no key hun\u003cter"}"#;
    for status in [200, 422] {
        let answer = ResponseTemplate::new(status).set_body_raw(says, "application/json");
        contains(&refusal(with_key, answer).await, &["no key [header]"]);
    }
    let fake = Fake::with(with_key).await;
    two_pods(&fake);
    let warned = vector_text(&[]).replacen('{', r#"{"warnings":["no key hun\u003cter"],"#, 1);
    fake.answer("kv_cache_usage_perc{", ok(&warned));
    let sample = fake.sample().await;
    assert_eq!(sample.absent, Absent::Unknown(Some("no key [header]".into())));
}

#[tokio::test]
async fn an_error_document_with_a_mark_or_without_data_is_understood_in_a_503() {
    for body in [
        "\u{feff}{\"status\":\"error\",\"errorType\":\"timeout\",\"error\":\"too slow\"}",
        r#"{"status":"error","data":null,"errorType":"timeout","error":"too slow"}"#,
        r#"{"status":"error","data":"","errorType":"timeout","error":"too slow"}"#,
    ] {
        let answer = ResponseTemplate::new(503).set_body_raw(body, "application/json");
        contains(&refusal(nothing, answer).await, &["503: timeout: too slow"]);
    }
}

#[tokio::test]
async fn the_origin_of_the_url_is_named_if_the_server_is_unreachable() {
    let set = |url: &'static str| {
        move |config: &mut PrometheusConfig| {
            config.url = url.into();
            config.url_origin = Some("environment variable PROMETHEUS_BASE_URL".into());
        }
    };
    let named = "prometheus.url (environment variable PROMETHEUS_BASE_URL) right?";
    let failure = Fake::with(set("http://no-such-host.invalid")).await.failure().await;
    contains(&failure.to_string(), &[&format!("is the host in {named}")]);
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{free}").leak();
    let failure = Fake::with(set(url)).await.failure().await;
    contains(&failure.to_string(), &[&format!("is the server running, and is {named}")]);
}

#[tokio::test]
async fn retry_after_may_be_a_time_on_the_servers_clock() {
    let fake = Fake::start().await;
    let later = std::time::UNIX_EPOCH + Duration::from_secs(1_732_000_000 + 90);
    let later = httpdate::fmt_http_date(later);
    fake.always(ResponseTemplate::new(429).insert_header("retry-after", later.as_str()));
    assert_eq!(fake.failure().await.retry_after(), Some(Duration::from_secs(90)));
}

#[tokio::test]
async fn a_megabyte_name_is_listed_by_its_beginning() {
    let fake = Fake::start().await;
    let long = "x".repeat(1 << 20);
    let labels: &'static str = format!(r#""namespace":"prod","model_name":"{long}""#).leak();
    fake.rows("count by (namespace,model_name) (", &[(labels, 1.0)]);
    let models = fake.backend.list_models(ListAsk::new(&SystemClock::new())).await.unwrap();
    assert_eq!(models[0].model.model.as_str(), format!("{}…", &long[..4096]));
}

#[tokio::test]
async fn a_pod_with_a_name_of_a_megabyte_is_known_by_its_beginning() {
    let fake = Fake::start().await;
    two_pods(&fake);
    let long = "x".repeat(1 << 20);
    let labels: &'static str =
        format!(r#""namespace":"prod","model_name":"m","pod":"{long}""#).leak();
    fake.rows("timestamp(", &[(labels, crate::fake::NOW)]);
    fake.rows("kv_cache_usage_perc{", &[(labels, 0.5)]);
    let sample = fake.sample().await;
    assert_eq!(sample.replicas[0].pod_name.as_str(), format!("{}…", &long[..4096]));
    assert_eq!(sample.replicas[0].kv_cache_usage, Some(0.5));
}
