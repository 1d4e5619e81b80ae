// SPDX-License-Identifier: Apache-2.0
//! `scrape`: pages good and bad, from files, from stdin and from servers.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use crate::faults::certificates::Authority;
use crate::process::{Ended, collector, run};

fn capture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../collector-epp/tests/captures").join(name)
}

/// The page of a URL is waited for as long as a slow machine takes.
pub(crate) fn scrape(page: &str, args: &[&str]) -> Ended {
    let mut command = collector();
    command.args(["scrape", page]);
    if page.contains("://") {
        command.args(["--timeout", "30s"]);
    }
    run(&mut command, args)
}

fn scrape_file(name: &str, args: &[&str]) -> Ended {
    scrape(capture(name).to_str().unwrap(), args)
}

/// The page of a file of this content.
fn scrape_text(text: &[u8], args: &[&str]) -> Ended {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("page.txt");
    fs::write(&path, text).unwrap();
    scrape(path.to_str().unwrap(), args)
}

/// A whole answer with this page.
pub(crate) fn page(content_type: &str, page: &str) -> Vec<u8> {
    let length = page.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: ";
    format!("{head}{content_type}\r\nContent-Length: {length}\r\n\r\n{page}").into()
}

/// A server that sends these bytes to each that comes, and more without end when `endless`.
pub(crate) fn server(answer: impl Into<Vec<u8>>, endless: bool) -> String {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let mut sent = stream.write_all(&answer);
            while endless && sent.is_ok() {
                sent = stream.write_all(&[b'x'; 4096]);
            }
        }
    });
    format!("http://{address}/metrics")
}

#[track_caller]
pub(crate) fn error_of(ended: &Ended, exit: i32) -> Value {
    assert_eq!(ended.exit, exit, "{} {}", ended.stdout, ended.stderr);
    assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
    ended.json()["error"].clone()
}

#[test]
fn a_page_is_read_by_the_engine_that_it_is_of() {
    let ended = scrape_file("vllm_v1.txt", &["-o", "json"]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let document = ended.json();
    assert_eq!(document["schemaVersion"], 1);
    assert_eq!(document["kind"], "scrape");
    assert_eq!(document["engine"], "vllm");
    assert_eq!(document["samples"], 487);
    assert_eq!(document["malformed"], json!([]));
    assert_eq!(document["matched"]["kvCacheUsage"], "vllm:kv_cache_usage_perc");
    assert_eq!(document["lora"], Value::Null);
    // As text, because the parser of the tests may lose the last digit.
    let rows = "\"rows\":[{\"model\":\"meta-llama/Llama-3.1-8B-Instruct\",\"engine\":\"0\",\
                \"waiting\":1,\"running\":180,\"kvCacheUsage\":0.25880177162758333,\
                \"blockSize\":16,\"numGpuBlocks\":27436,\
                \"requestSuccessTotal\":151736,\"requestsTotal\":null,\
                \"promptTokensSum\":913183,\"promptTokensCount\":700,\
                \"promptTokensTotal\":913183,\
                \"generationTokensSum\":179816,\"generationTokensCount\":700,\
                \"generationTokensTotal\":179816,\
                \"ttftSum\":191.52203136132994,\"ttftCount\":700,\
                \"itlSum\":50.26388038927517,\"itlCount\":2100,\
                \"prefixHits\":68199839,\"prefixQueries\":120447315,\
                \"cachedTokensTotal\":null,\
                \"kvCapacityTokens\":438976,\"prefixCacheHitRate\":0.5662";
    assert!(ended.stdout.contains(rows), "{}", ended.stdout);
}

#[test]
fn adapters_are_shown_if_the_server_reports_them() {
    let document = scrape_file("vllm_lora.txt", &["-o", "json"]).json();
    let lora = json!({ "running": ["tweet-summary-2"], "waiting": [], "maxLora": 4 });
    assert_eq!(document["lora"], lora);
    let ended = scrape_file("vllm_lora.txt", &[]);
    assert!(ended.stdout.contains("running: tweet-summary-2; waiting: none"), "{}", ended.stdout);
}

#[test]
fn the_pickers_page_has_models_and_pools_instead_of_rows() {
    let document = scrape_file("epp_llm_d_names.txt", &["-o", "json"]).json();
    assert_eq!(document["engine"], "epp");
    assert_eq!(document.get("rows"), None);
    let models = document["perModel"].as_array().unwrap();
    assert_eq!(models.len(), 11);
    let food = models.iter().find(|row| row["target"] == "food-review-2").unwrap();
    assert_eq!(food["model"], "food-review");
    assert_eq!((&food["running"], &food["flowControlQueueSize"]), (&json!(12), &json!(20)));
    assert_eq!(food["ttft"]["streaming=true"], json!([35.863_389_402_181_504, 150]));
    let [pool] = &document["perPool"].as_array().unwrap()[..] else { panic!("one pool") };
    assert_eq!((&pool["ready"], &pool["saturationEffective"]), (&json!(6), &json!(0.83)));
    assert_eq!(pool["perPodQueue"].as_object().unwrap().len(), 6);

    let legacy = scrape_file("epp.txt", &["-o", "json"]).json();
    let models = legacy["perModel"].as_array().unwrap();
    let food: Vec<(&Value, &Value)> = models
        .iter()
        .filter(|row| row["model"] == "food-review")
        .map(|row| (&row["target"], &row["running"]))
        .collect();
    let (one, two) = (json!("food-review-1"), json!("food-review-2"));
    let null = Value::Null;
    assert_eq!(food, [(&null, &json!(177)), (&one, &null), (&two, &null)]);
}

#[test]
fn every_form_names_models_and_the_series_they_were_read_from() {
    for (name, model, series) in [
        ("sglang.txt", "Qwen/Qwen3-32B", "sglang:token_usage"),
        ("triton_trtllm.txt", "tensorrt_llm", "nv_trt_llm_request_metrics{request_type=waiting}"),
        ("epp_router_names.txt", "qwen3-32b", "llm_d_router_epp_request_total"),
    ] {
        for form in ["table", "yaml", "json"] {
            let ended = scrape_file(name, &["-o", form]);
            assert_eq!(ended.exit, 0, "{name} {form}: {}", ended.stderr);
            assert!(ended.stdout.contains(model), "{name} {form}: {}", ended.stdout);
            assert!(ended.stdout.contains(series), "{name} {form}: {}", ended.stdout);
        }
    }
}

#[test]
fn a_page_comes_from_stdin_and_from_a_compressed_file_as_well() {
    let page = File::open(capture("trtllm.txt")).unwrap();
    let ended = run(collector().stdin(page), &["scrape", "-", "-o", "json"]);
    assert_eq!(ended.json()["engine"], "trtllm-serve", "{}", ended.stderr);

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("page.txt.gz");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&fs::read(capture("sglang.txt")).unwrap()).unwrap();
    let compressed = encoder.finish().unwrap();
    fs::write(&path, &compressed).unwrap();
    let ended = scrape(path.to_str().unwrap(), &["-o", "json"]);
    assert_eq!(ended.json()["rows"].as_array().unwrap().len(), 3, "{}", ended.stderr);

    fs::write(&path, &compressed[..compressed.len() / 2]).unwrap();
    let error = error_of(&scrape(path.to_str().unwrap(), &["-o", "json"]), 1);
    assert_eq!(error["reason"], "TransferCutShort");
    fs::write(&path, "vllm:num_requests_waiting 3\n").unwrap();
    let error = error_of(&scrape(path.to_str().unwrap(), &["-o", "json"]), 1);
    assert_eq!(error["reason"], "Unreadable");
}

#[test]
fn a_page_is_fetched_and_its_content_type_decides_how_it_is_read() {
    let body = "vllm:num_requests_waiting{model_name=\"m\"} 3 5000\n";
    let text = server(page("text/plain; version=0.0.4", body), false);
    let ended = scrape(&text, &["-o", "json"]);
    assert_eq!(ended.json()["rows"][0]["waiting"], 3, "{}", ended.stderr);
    let raw = ["--raw", "-o", "json"];
    let document = scrape(&text, &raw).json();
    assert_eq!(document["format"], "text");
    assert_eq!(document["samples"][0]["timestampMs"], 5000);

    let body = "vllm:num_requests_waiting{model_name=\"m\"} 3 5\n# EOF\n";
    let open = server(page("application/openmetrics-text; version=1.0.0", body), false);
    let document = scrape(&open, &raw).json();
    assert_eq!(document["format"], "openmetrics");
    assert_eq!(document["samples"][0]["timestampMs"], 5000);
}

#[test]
fn half_a_page_is_no_page() {
    let cut = server(
        *b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n\
          vllm:num_requests_waiting{model_name=\"m\"} 3\nvllm:num_requests_running{model_name=\"m\"} 1",
        false,
    );
    for args in [&["-o", "json"][..], &["--raw", "-o", "json"]] {
        let error = error_of(&scrape(&cut, args), 1);
        assert_eq!(error["reason"], "TransferCutShort", "{error}");
    }
    let open = ["-o", "json", "--content-type", "application/openmetrics-text"];
    let error = error_of(&scrape_text(b"vllm:num_requests_waiting 3\n", &open), 1);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("`# EOF` is missing, so that the page may be cut"), "{error}");
    // Neither its length nor its end is told, and its last line has none.
    let until_closed =
        server(*b"HTTP/1.0 200 OK\r\n\r\nvllm:num_requests_waiting{model_name=\"m\"} 3", false);
    let error = error_of(&scrape(&until_closed, &["-o", "json"]), 1);
    assert!(error["message"].as_str().unwrap().contains("middle of a line"), "{error}");
    // The scanner's own work is shown with a warning.
    let raw = ["--raw", "-o", "json", "--content-type", "application/openmetrics-text"];
    let ended = scrape_text(b"vllm:num_requests_waiting 3 1.5\n", &raw);
    assert_eq!(ended.json()["samples"][0]["timestampMs"], 1500);
    assert!(ended.stderr.contains("# EOF"), "{}", ended.stderr);
}

#[test]
fn an_unexpected_response_exits_with_5_and_a_remedy() {
    let redirecting = server(*b"HTTP/1.1 302 Found\r\nLocation: /metrics\r\n\r\n", false);
    let missing = server(*b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false);
    let squeezed = server(*b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nabc", false);
    let endless = server(*b"HTTP/1.1 200 OK\r\n\r\n", true);
    let not_http = server(*b"SSH-2.0-OpenSSH_9.2\r\n", false);
    for (url, words) in [
        // Port 9 of loopback is closed everywhere.
        ("http://user:hunter2@127.0.0.1:9/metrics?token=hunter2", "refused"),
        (&redirecting, "more than 5 redirects"),
        (&missing, "404"),
        (&squeezed, "gzip"),
        (&endless, "larger than 16777216 bytes"),
        (&not_http, "not HTTP"),
    ] {
        let ended = scrape(url, &["-o", "json"]);
        let error = error_of(&ended, 5);
        assert_eq!(error["reason"], "EppError");
        assert!(error["message"].as_str().unwrap().contains(words), "{words}: {error}");
        assert!(!error["hints"].as_array().unwrap().is_empty(), "{error}");
        assert!(!format!("{}{}", ended.stderr, ended.stdout).contains("hunter2"), "{error}");
    }
}

#[test]
fn a_page_of_no_engine_exits_with_1_and_says_what_it_seems_to_be() {
    for (page, words) in [
        (&b"[]"[..], "JSON"),
        (b"\"up 1\\n\"", "one JSON string"),
        (&b"<!DOCTYPE html><html><body>login</body></html>"[..], "HTML"),
        (b"{\"iteration\": 3}\n", "JSON"),
        (b"", "empty"),
        (b"# HELP up nothing\nup 1\nnode_load1 0.5\n", "up, node_load1"),
        (b"\xff\xfe\x00garbage\n\x1b[2J", "no series"),
    ] {
        let ended = scrape_text(page, &["-o", "json"]);
        let error = error_of(&ended, 1);
        assert_eq!(error["reason"], "UnknownEngine");
        assert!(error["message"].as_str().unwrap().contains(words), "{words}: {error}");
    }
    let error = error_of(&scrape_file("sglang.txt", &["--engine", "vllm", "-o", "json"]), 1);
    assert!(error["message"].as_str().unwrap().contains("\"sglang\""), "{error}");
}

#[test]
fn malformed_lines_are_reported_and_only_they_are_lost() {
    let page = b"vllm:num_requests_waiting{model_name=\"m\"} 3\n\
                 vllm:num_requests_running{model_name=\"m\"} three\n\
                 vllm:request_success_total{model_name=\"m\",finished_reason=\"stop\"} 5\n\
                 vllm:request_success_total{model_name=\"m\",finished_reason=\"abort} 6\n\
                 other{ 1\n";
    let ended = scrape_text(page, &["-o", "json"]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let document = ended.json();
    let lines: Vec<&Value> =
        document["malformed"].as_array().unwrap().iter().map(|it| &it["line"]).collect();
    assert_eq!(lines, [&json!(2), &json!(4)]);
    let row = &document["rows"][0];
    assert_eq!((&row["waiting"], &row["running"]), (&json!(3), &Value::Null));
    assert_eq!(row["requestSuccessTotal"], Value::Null);
    let ended = scrape_text(page, &[]);
    assert!(ended.stdout.contains("line 2: the value is not a number"), "{}", ended.stdout);
}

#[test]
fn raw_shows_samples_as_they_stand_on_any_page() {
    let page = b"up{job=\"a\\nb\"} NaN 123\nup +Inf\nup{ 1\nx_sum -inf\nother 2\nup 5e-1";
    let ended = scrape_text(page, &["--raw", "--name", "up", "--name", "x_sum", "-o", "json"]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let sample = |name: &str, labels: Value, value: Value, at: Value| json!({ "name": name, "labels": labels, "value": value, "timestampMs": at });
    assert_eq!(
        ended.json(),
        json!({
            "schemaVersion": 1,
            "kind": "samples",
            "format": "text",
            "samples": [
                sample("up", json!({ "job": "a\nb" }), json!("NaN"), json!(123)),
                sample("up", json!({}), json!("+Inf"), Value::Null),
                sample("x_sum", json!({}), json!("-Inf"), Value::Null),
                sample("up", json!({}), json!(0.5), Value::Null),
            ],
            "malformed": [{ "line": 3, "reason": "a label name is missing or has characters that no name has" }],
            "malformedCount": 1,
            "lastLineUnterminated": true,
        })
    );
    let ended = scrape_text(page, &["--raw", "--name", "up"]);
    assert!(
        ended.stdout.contains("NaN") && ended.stdout.contains("no newline"),
        "{}",
        ended.stdout
    );

    // Without names, what any engine has.
    let document = scrape_file("vllm_v1.txt", &["--raw", "-o", "json"]).json();
    assert_eq!(document["samples"].as_array().unwrap().len(), 34);
}

#[test]
fn raw_shows_all_of_a_page_of_no_engine_or_says_why_there_is_nothing() {
    let node = b"\xef\xbb\xbfnode_load1 0.5\r\n# TYPE x gauge\r\n{\"a.b\",cpu=\"0\"} 12345.5 7\r\n";
    let ended = scrape_text(node, &["--raw", "-o", "json"]);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    let document = ended.json();
    let samples = document["samples"].as_array().unwrap();
    let shown: Vec<_> = samples.iter().map(|it| (&it["name"], &it["value"])).collect();
    assert_eq!(shown, [(&json!("node_load1"), &json!(0.5)), (&json!("a.b"), &json!(12345.5))]);
    assert_eq!(samples[1]["timestampMs"], 7);
    assert_eq!(document.get("shortened"), None);
    for (page, words) in [
        (&b"<html></html>"[..], "HTML"),
        (b"", "it is empty"),
        (b"# HELP up nothing\n", "no line of it is a sample"),
        (b"[{\"iter\": 1}]", "JSON"),
    ] {
        let ended = scrape_text(page, &["--raw", "-o", "json"]);
        assert_eq!((ended.exit, &ended.json()["samples"]), (0, &json!([])), "{words}");
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    let ended = scrape_text(b"up 1\n", &["--raw", "--name", "down", "-o", "json"]);
    assert!(ended.stderr.contains("none of its samples"), "{}", ended.stderr);
}

#[test]
fn long_label_values_are_shortened_wherever_they_are_shown() {
    let long = "m".repeat(5000);
    let page = format!(
        "vllm:num_requests_waiting{{model_name=\"{long}\"}} 3\n\
         vllm:lora_requests_info{{max_lora=\"4\",running_lora_adapters=\"{long}\",\
         waiting_lora_adapters=\"\"}} 1\n"
    );
    for args in [&[][..], &["-o", "json"], &["-o", "yaml"], &["--raw"], &["--raw", "-o", "json"]] {
        let ended = scrape_text(page.as_bytes(), args);
        assert_eq!(ended.exit, 0, "{}", ended.stderr);
        assert!(ended.stdout.contains(&"m".repeat(4096)), "{args:?}");
        assert!(!ended.stdout.contains(&"m".repeat(4097)), "{args:?}");
        assert!(ended.stdout.contains("(904 more bytes)"), "{args:?}");
    }
    let ended = scrape_text(page.as_bytes(), &["--raw", "-o", "json"]);
    assert_eq!(ended.json()["shortened"], 2);
    let ended = scrape_text(page.as_bytes(), &["--raw"]);
    assert!(ended.stdout.contains("shortened to 4096 bytes: 2"), "{}", &ended.stdout[20_000..]);
}

#[test]
fn nothing_on_a_page_acts_on_the_terminal() {
    let page = "vllm:num_requests_waiting{model_name=\"a\x1b[2J\u{9b}b\u{202e}\"} 3\n";
    for args in [&[][..], &["-o", "json"], &["-o", "yaml"], &["--raw"], &["--raw", "-o", "json"]] {
        let ended = scrape_text(page.as_bytes(), args);
        assert_eq!(ended.exit, 0, "{}", ended.stderr);
        let harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{9b}';
        assert!(!ended.stdout.contains(harmful), "{args:?}: {:?}", ended.stdout);
    }
}

#[test]
fn a_wrong_command_line_exits_with_2_and_prints_nothing_on_stdout() {
    let page = capture("vllm_v1.txt");
    let page = page.to_str().unwrap();
    for args in [
        &["scrape"][..],
        &["scrape", ""],
        &["scrape", "/does/not/exist", "-o", "json"],
        &["scrape", "localhost:8000/metrics", "-o", "json"],
        &["scrape", page, "--timeout", "5s"],
        &["scrape", "http://127.0.0.1:9/metrics", "--timeout", "0s"],
        &["scrape", "ftp://host/metrics"],
        &["scrape", "http://"],
        &["scrape", page, "-o", "wide"],
        &["scrape", page, "--engine", "vlm"],
        &["scrape", page, "--name", "up"],
        &["scrape", page, "--raw", "--engine", "vllm"],
    ] {
        let ended = run(&mut collector(), args);
        assert_eq!(ended.exit, 2, "{args:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{args:?}");
    }
    let ended = scrape(page, &["--engine", "vlm"]);
    assert!(ended.stderr.contains("triton-tensorrt-llm"), "{}", ended.stderr);
    let ended = scrape("me:hunter2@10.0.0.7:8000/metrics", &[]);
    assert!(
        ended.stderr.contains("did you mean http://10.0.0.7:8000/metrics?"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    let ended = run(&mut collector(), &["scrape", "--help"]);
    assert_eq!(ended.exit, 0);
    assert!(ended.stdout.contains("--raw") && ended.stdout.contains("Examples:"));
}

#[test]
fn engines_and_limits_of_the_configuration_hold() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("collector.toml");
    let page = folder.path().join("page.txt");
    fs::write(&page, "acme_requests{model_name=\"m\",state=\"waiting\"} 3\n").unwrap();
    let with = |text: &str| {
        fs::write(&config, text).unwrap();
        let args = ["--config", config.to_str().unwrap(), "-o", "json"];
        scrape(page.to_str().unwrap(), &args)
    };
    let acme = "[[epp.engines]]\nname = \"acme\"\nmetrics.waiting = ";
    let ended = with(&format!("{acme}\"acme_requests{{state=waiting}}\"\n"));
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    assert_eq!(
        (&ended.json()["engine"], &ended.json()["rows"][0]["waiting"]),
        (&json!("acme"), &json!(3))
    );

    let ended = with(&format!("{acme}\"acme_requests{{state\"\n"));
    assert_eq!((ended.exit, ended.stdout.as_str()), (2, ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("metrics.waiting") && ended.stderr.contains("character 20"));

    fs::write(&page, "x 1\n".repeat(20_000)).unwrap();
    let error = error_of(&with("[epp]\nmax_page_bytes = 65536\n"), 1);
    assert_eq!(error["reason"], "PageTooLarge");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_behind_tls_is_read_when_its_authority_is_known() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(authority.sign("127.0.0.1").server(None));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/metrics", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = page("text/plain", "sglang:num_queue_reqs{model_name=\"m\"} 3\n");
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    });
    let args = ["scrape", &url, "--timeout", "30s", "-o", "json"];
    let known = run(collector().env("COLLECTOR_EPP__CA_CERT_PATH", authority.file()), &args);
    assert_eq!(known.json()["engine"], "sglang", "{}", known.stderr);
    let other = run(collector().env("COLLECTOR_EPP__CA_CERT_PATH", Authority::new().file()), &args);
    let error = error_of(&other, 5);
    assert!(error["message"].as_str().unwrap().contains("TLS failed"), "{error}");
    assert!(error["hints"][0].as_str().unwrap().contains("epp.ca_cert_path"), "{error}");
}
