// SPDX-License-Identifier: Apache-2.0
//! D: answers that are HTTP and JSON, and not what they should be.

use std::io::Write as _;

use flate2::write::GzEncoder;
use flate2::{Compress, Compression, FlushCompress, Status};
use serde_json::{Value, json};

use super::daemon::Daemon;
use super::fleet::{COPY_LABEL, Fleet, MODEL, NAMESPACE, OLD_NAMES, Quantity, row, vector};
use super::partial::variants;
use super::server::{Reply, Request, Server, head};
use super::verdict::{Call, side_by_side};
use crate::process::collector_of;

/// A healthy server, except for what it says about one quantity.
fn except(
    quantity: Quantity,
    reply: impl Fn(&Fleet, &Request) -> Reply + Send + Sync + 'static,
) -> Server {
    let fleet = Fleet::default();
    Server::start(move |request| {
        if request.about() == quantity { reply(&fleet, request) } else { fleet.reply(request) }
    })
}

/// The whole server, or who lives on it, answers with these bytes.
fn is_no_answer(body: &[u8], says: &[&str]) {
    let everything = Server::start({
        let body = body.to_vec();
        move |_| Reply::ok(body.clone())
    });
    let verdict = Call::to(&everything).backend_fails(says);
    assert!((1..=3).contains(&verdict.asked.len()), "{}", verdict.stderr);
    let body = body.to_vec();
    let who_lives = except(Quantity::Liveness, move |_, _| Reply::ok(body.clone()));
    Call::to(&who_lives).backend_fails(says);
}

fn pod(document: &Value, name: &str) -> Value {
    let replicas = document["replicas"].as_array().unwrap();
    replicas.iter().find(|replica| replica["podName"] == name).unwrap_or(&Value::Null).clone()
}

#[test]
fn json_that_is_cut_or_followed_by_more_is_no_answer() {
    let whole = vector(&[row(&json!({"pod": "m-0"}), 1.0, "1")]);
    let cases = [
        whole[..whole.len() - 1].to_owned(),
        whole[..whole.len() / 2].to_owned(),
        format!("{whole}{whole}"),
        format!("{whole}]"),
        format!("{whole} trailing"),
    ];
    side_by_side(&cases, |body| is_no_answer(body.as_bytes(), &["not JSON"]));
}

#[test]
fn a_wrong_content_length_is_no_answer() {
    let fleet = Fleet::default();
    side_by_side(&[-1, -40, 1, 1000], |difference| {
        let (fleet, difference) = (fleet.clone(), *difference);
        let server = Server::start(move |request| {
            let Reply::Answer { body, .. } = fleet.reply(request) else { unreachable!() };
            let length = body.len().saturating_add_signed(difference);
            Reply::Close([head(&format!("Content-Length: {length}\r\n")), body].concat())
        });
        Call::to(&server).backend_fails(&[]);
    });
}

#[test]
fn another_type_of_result_is_no_answer() {
    for (kind, result) in [
        ("scalar", json!([1.0, "1"])),
        ("string", json!([1.0, "a"])),
        ("matrix", json!([{"metric": {}, "values": [[1.0, "1"]]}])),
        ("matrix", json!([])),
        ("streams", json!([])),
    ] {
        let body = json!({"status": "success", "data": {"resultType": kind, "result": result}});
        let server = except(Quantity::Liveness, move |_, _| Reply::ok(body.to_string()));
        Call::to(&server).backend_fails(&[]);
    }
}

#[test]
fn a_row_of_another_form_is_no_answer() {
    let labels = json!({"namespace": NAMESPACE, "model_name": MODEL, "pod": "m-0"});
    let data = |data: Value| json!({"status": "success", "data": data});
    let result = |result: Value| data(json!({"resultType": "vector", "result": result}));
    let cases = [
        result(json!([{"metric": labels, "value": []}])),
        result(json!([{"metric": labels, "value": [1.0]}])),
        result(json!([{"metric": labels, "value": [1.0, "1", "1"]}])),
        result(json!([{"metric": labels, "value": "1"}])),
        result(json!([{"metric": labels}])),
        result(json!([{"value": [1.0, "1"]}])),
        result(json!([{"metric": "m-0", "value": [1.0, "1"]}])),
        result(json!([{"metric": ["pod", "m-0"], "value": [1.0, "1"]}])),
        result(json!([{"metric": null, "value": [1.0, "1"]}])),
        result(json!([[]])),
        result(json!([null])),
        result(json!({})),
        result(json!("none")),
        result(Value::Null),
        data(json!({"resultType": "vector"})),
        data(json!({"result": []})),
        data(json!({"resultType": null, "result": []})),
        data(json!([])),
        data(json!("none")),
        data(Value::Null),
        json!({"status": "success"}),
        json!({"data": {"resultType": "vector", "result": []}}),
        json!({"status": "pending", "data": {"resultType": "vector", "result": []}}),
    ];
    side_by_side(&cases, |body| is_no_answer(body.to_string().as_bytes(), &[]));
}

#[test]
fn a_bare_number_is_a_value_as_good_as_a_quoted_one() {
    let server = except(Quantity::KvCache, |fleet, request| {
        Reply::ok(vector(&fleet.each(request, "0.5")).replace("\"0.5\"", "0.5"))
    });
    assert_eq!(pod(&Call::to(&server).finds().0, "m-0")["kvCacheUsage"], 0.5);
}

#[test]
fn what_cannot_be_true_is_absent_and_everything_else_stays() {
    let check = |quantity, field: &'static str, value: &'static str, expected: Value| {
        let server = except(quantity, move |fleet, request| {
            let mut rows = fleet.rows(request);
            rows[0]["value"][1] = json!(value);
            Reply::ok(vector(&rows))
        });
        let (document, _) = Call::to(&server).finds();
        let (spoiled, sound) = (pod(&document, "m-0"), pod(&document, "m-1"));
        assert_eq!(spoiled[field], expected, "{field} of {value}");
        let fields = ["kvCacheUsage", "queueLength", "runningRequests", "avgInputTokens"];
        for other in fields.iter().filter(|other| **other != field) {
            assert_eq!(spoiled[other], sound[other], "{other}");
        }
        for field in fields {
            assert!(!sound[field].is_null(), "{field} of another pod");
        }
    };
    let kv = |value, expected| check(Quantity::KvCache, "kvCacheUsage", value, expected);
    let queue = |value, expected| check(Quantity::Queue, "queueLength", value, expected);
    for value in ["NaN", "+Inf", "-Inf", "1.7", "-0.2", "full", "", "1e308"] {
        kv(value, Value::Null);
    }
    for value in ["NaN", "+Inf", "-1", "many", "1e308", "9007199254740994"] {
        queue(value, Value::Null);
    }
    check(Quantity::Running, "runningRequests", "-3", Value::Null);
    // The noise of sums over floating-point numbers.
    kv("1.0000005", json!(1.0));
    kv("-0.0000005", json!(0.0));
    queue("-0.0000005", json!(0));
}

#[test]
fn a_time_of_scrape_that_is_no_number_is_no_age() {
    for value in ["NaN", "+Inf", "soon"] {
        let server = except(Quantity::Liveness, move |fleet, request| {
            Reply::ok(vector(&fleet.each(request, value)))
        });
        Call::to(&server).backend_fails(&["no pod of this model"]);
    }
}

#[test]
fn what_was_left_out_is_counted() {
    let server = Server::start(|request| {
        let fleet = Fleet::default();
        let mut rows = match request.about() {
            Quantity::Time => return fleet.reply(request),
            Quantity::KvCache => fleet.each(request, "1.7"),
            Quantity::Queue => fleet.each(request, "NaN"),
            _ => fleet.rows(request),
        };
        if request.about() == Quantity::Liveness {
            let unnamed = json!({"namespace": NAMESPACE, "model_name": MODEL});
            rows.push(row(&unnamed, request.time, &request.time.to_string()));
        }
        Reply::ok(vector(&rows))
    });
    let daemon = Daemon::start_fast(&mut collector_of(&server.url()));
    assert_eq!(daemon.replicas().status, 200);
    let errors = "wva_metrics_collection_errors_total{query_type=";
    let out_of_range = format!("{errors}\"kv_cache\",reason=\"out_of_range\"}}");
    assert!(daemon.metric(&out_of_range) >= 2.0, "{}", daemon.get("/metrics").body);
    let not_finite = format!("{errors}\"queue_length\",reason=\"not_finite\"}}");
    assert!(daemon.metric(&not_finite) >= 2.0);
    let unnamed = "wva_pod_mapping_miss_total{namespace=\"prod\",reason=\"no_pod_label\"}";
    assert!(daemon.metric(unnamed) >= 1.0);
}

#[test]
fn doubled_rows_are_one_replica_with_unchanged_values() {
    let (expected, _) = Call::to(&except(Quantity::Time, Fleet::reply)).finds();
    let server = Server::start(|request| {
        let fleet = Fleet::default();
        match request.about() {
            Quantity::Time => fleet.reply(request),
            _ => Reply::ok(vector(&[fleet.rows(request), fleet.rows(request)].concat())),
        }
    });
    let (document, _) = Call::to(&server).finds();
    same_but_for_age(&document, &expected);
}

#[test]
fn series_that_a_pair_of_servers_stores_twice_are_not_doubled() {
    let single = except(Quantity::Time, Fleet::reply);
    let (expected, _) = Call::to(&single).finds();
    // A sum counts both copies unless the query tells them apart.
    let fleet = Fleet { copies: &["a", "b"], ..Fleet::default() };
    let pair = Server::start(move |request| fleet.reply(request));
    let (document, verdict) = Call::to(&pair).finds();
    same_but_for_age(&document, &expected);
    assert!(verdict.asked.iter().any(|asked| asked.query.contains(COPY_LABEL)));
    let variants = variants();
    let load = |server: &Server| {
        let args = ["get", "allocation", "-m", MODEL, "-n", NAMESPACE, "--variant", "v"];
        let call = Call::to(server).args(&args);
        let path = variants.path().to_str().unwrap();
        call.env("COLLECTOR_CONFIG", path).finds().0["load"].clone()
    };
    let expected = load(&single);
    assert!(expected["arrivalRatePerMinute"].is_number(), "{expected}");
    assert_eq!(load(&pair), expected);
}

#[track_caller]
fn same_but_for_age(document: &Value, expected: &Value) {
    let replicas = |document: &Value| {
        let mut replicas = document["replicas"].as_array().unwrap().clone();
        for replica in &mut replicas {
            replica["ageSeconds"] = Value::Null;
        }
        replicas
    };
    assert_eq!(replicas(document), replicas(expected));
}

#[test]
fn a_row_without_a_pod_is_left_out_and_the_others_stay() {
    let server = except(Quantity::Liveness, |fleet, request| {
        let unnamed = json!({"namespace": NAMESPACE, "model_name": MODEL});
        let mut rows = fleet.rows(request);
        rows.insert(0, row(&unnamed, request.time, &request.time.to_string()));
        Reply::ok(vector(&rows))
    });
    let (document, verdict) = Call::to(&server).finds();
    assert_eq!(document["replicas"].as_array().unwrap().len(), 2);
    assert!(verdict.stderr.contains("no label that names a pod"), "{}", verdict.stderr);
}

#[test]
fn a_fleet_without_pod_labels_is_not_an_empty_fleet() {
    let fleet = Fleet { pod_label: "host", ..Fleet::default() };
    let server = Server::start(move |request| fleet.reply(request));
    Call::to(&server).backend_fails(&["prometheus.labels.pod", "relabelling"]);
}

#[test]
fn models_without_labels_are_not_an_empty_list() {
    let server = except(Quantity::Models, |_, request| {
        Reply::ok(vector(&[row(&json!({"model_name": MODEL}), request.time, "2")]))
    });
    Call::to(&server).args(&["get", "models"]).backend_fails(&["namespace", "relabelling"]);
}

#[test]
fn pods_may_be_named_by_another_label() {
    let fleet = Fleet { pod_label: "pod_name", ..Fleet::default() };
    let server = Server::start(move |request| fleet.reply(request));
    let (document, _) = Call::to(&server).finds();
    assert_eq!(pod(&document, "m-1")["kvCacheUsage"], 0.42, "{document}");
    assert_eq!(pod(&document, "m-1")["numGpuBlocks"], 1000, "{document}");
}

#[test]
fn nothing_found_is_missing_and_names_what_exists() {
    let fleet = Fleet::default();
    let server = Server::start(move |request| fleet.reply(request));
    let missing = |args: [&str; 6]| {
        let verdict = Call::to(&server).args(&args).fails(3, "MetricsMissing", &[args[3]]);
        serde_json::from_str::<Value>(&verdict.stdout).unwrap()["error"].clone()
    };
    let error = missing(["get", "replicas", "-m", "org/modle", "-n", NAMESPACE]);
    assert_eq!(error["suggestions"], json!([MODEL]));
    let error = missing(["get", "replicas", "-m", MODEL, "-n", "staging"]);
    assert!(error["hints"].to_string().contains(NAMESPACE), "{error}");
}

#[test]
fn odd_names_are_exact_in_json_and_never_raw_on_a_terminal() {
    let names = [
        "a\"b",
        "a\\b",
        "<script>alert(1)</script>",
        "模型-0",
        "a{b}",
        "a\nb",
        "a\u{1b}[31mb",
        "a\rb",
        "a\u{202e}b",
        "a\tb",
    ];
    let fleet = Fleet::of_pods(&names);
    let server = Server::start(move |request| fleet.reply(request));
    let (document, _) = Call::to(&server).finds();
    let replicas = document["replicas"].as_array().unwrap();
    for name in &names[..5] {
        assert!(replicas.iter().any(|replica| replica["podName"] == **name), "{name:?}");
    }
    // Exact, or left out.
    for replica in replicas {
        assert!(names.contains(&replica["podName"].as_str().unwrap()), "{replica}");
    }
    for form in ["table", "wide"] {
        let shown = Call::to(&server)
            .args(&["get", "replicas", "-m", MODEL, "-n", NAMESPACE, "-o", form])
            .prints();
        assert!(!shown.contains('\u{202e}') && shown.contains("模型-0"), "{shown:?}");
        assert!(shown.lines().count() <= names.len() + 6, "{shown}");
    }
}

#[test]
fn what_is_not_known_or_not_there_does_no_harm() {
    let fleet = Fleet::default();
    let server = Server::start(move |request| {
        let Reply::Answer { body, .. } = fleet.reply(request) else { unreachable!() };
        let mut document: Value = serde_json::from_slice(&body).unwrap();
        document["infos"] = json!(["PromQL info: ignored"]);
        document["tomorrow"] = json!({"deep": [[[null, "1e400"]]]});
        document["data"]["stats"] = json!({"seriesFetched": "2"});
        if let Some(rows) = document["data"]["result"].as_array_mut() {
            for row in rows.iter_mut().filter(|row| row.is_object()) {
                row["histogram"] = json!([1, {"count": "3"}]);
            }
        }
        // The protocol of another century, and no type.
        Reply::Close([b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), document.to_string().into()].concat())
    });
    let (document, _) = Call::to(&server).finds();
    assert_eq!(pod(&document, "m-0")["kvCacheUsage"], 0.42, "{document}");
    assert_eq!(document["partial"], false);
}

#[test]
fn deep_nesting_is_refused_and_overflows_nothing() {
    let deep = |open: &str, close: &str| open.repeat(500_000) + &close.repeat(500_000);
    let result = |rows: String| {
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":{rows}}}}}"#)
    };
    for (body, says) in [
        (deep("[", "]"), "not JSON"),
        (deep("{\"data\":", "}"), "not JSON"),
        (result(deep("[", "]")), "not JSON"),
        (format!("{{\"ignored\":{}}}", deep("[", "]")), "the answer has no status"),
    ] {
        let server = Server::start(move |_| Reply::ok(body.clone()));
        Call::to(&server).backend_fails(&[says]);
    }
}

/// So much memory may a call take over what it takes idle.
const MEMORY_MAX: u64 = 128 << 20;

/// A daemon in front of this fails, names its limit, and stays small.
#[cfg(target_os = "linux")]
fn is_too_large(reply: Reply) {
    let fleet = Fleet::default();
    let server = Server::start(move |request| match request.about() {
        Quantity::Liveness => reply.clone(),
        _ => fleet.reply(request),
    });
    let mut command = collector_of(&server.url());
    command.env("COLLECTOR_PROMETHEUS__TIMEOUT", "20s");
    let daemon = Daemon::start(&mut command);
    assert_eq!(daemon.get("/healthz").status, 200);
    let idle = daemon.peak_memory();
    let answer = daemon.replicas();
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("64 MiB") || answer.body.contains("head"), "{}", answer.body);
    let grown = daemon.peak_memory() - idle;
    assert!(grown <= MEMORY_MAX, "{} MiB", grown >> 20);
}

/// A gzip stream of this many mebibytes of blanks, in little more than a kibibyte for each.
fn bomb(mebibytes: usize) -> Vec<u8> {
    let mut deflate = Compress::new(Compression::best(), false);
    let mut piece = Vec::with_capacity(1 << 16);
    // After a full flush nothing refers back, so that the piece can be repeated.
    let status = deflate.compress_vec(&vec![b' '; 1 << 20], &mut piece, FlushCompress::Full);
    assert_eq!(status.unwrap(), Status::Ok);
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    [&header[..], &piece.repeat(mebibytes)].concat()
}

#[cfg(target_os = "linux")]
#[test]
fn endless_answers_are_cut_off_at_the_limit_within_its_memory() {
    let megabyte = vec![b' '; 1 << 20];
    let header = format!("X-Pad: {}\r\n", "x".repeat(8_000)).into_bytes();
    let series = format!(
        r#"{{"metric":{{"namespace":"prod","model_name":"org/model","pod":"m-{}"}},"value":[1.0,"1.0"]}},"#,
        "0".repeat(20)
    );
    let opening = br#"{"status":"success","data":{"resultType":"vector","result":["#;
    let cases = [
        Reply::Flood(head(""), megabyte.clone(), 400),
        Reply::Flood(head("Content-Length: 419430400\r\n"), megabyte, 400),
        Reply::Close([head("Content-Encoding: gzip\r\n"), bomb(1024)].concat()),
        Reply::Flood([head(""), opening.to_vec()].concat(), series.into_bytes(), 1_000_000),
        Reply::Flood(b"HTTP/1.1 200 OK\r\n".to_vec(), header, 2_000),
    ];
    for case in cases {
        is_too_large(case);
    }
}

#[test]
fn a_compressed_answer_is_read_and_a_broken_one_refused() {
    fn compressed(body: &[u8]) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(body).unwrap();
        gzip.finish().unwrap()
    }
    let serving = |spoil: fn(Vec<u8>) -> Vec<u8>, encoding: &'static str| {
        let fleet = Fleet::default();
        Server::start(move |request| {
            let Reply::Answer { body, .. } = fleet.reply(request) else { unreachable!() };
            Reply::ok(spoil(compressed(&body))).header("Content-Encoding", encoding)
        })
    };
    let (document, _) = Call::to(&serving(|whole| whole, "gzip")).finds();
    assert_eq!(pod(&document, "m-0")["kvCacheUsage"], 0.42, "{document}");
    let spoiled = serving(|_| b"this is not gzip".to_vec(), "gzip");
    Call::to(&spoiled).backend_fails(&["compressed"]);
    let cut = serving(|whole| whole[..whole.len() / 2].to_vec(), "gzip");
    Call::to(&cut).backend_fails(&["compressed"]);
    // All of its text, and without the end that says so.
    let cut = serving(|whole| whole[..whole.len() - 8].to_vec(), "gzip");
    Call::to(&cut).backend_fails(&["compressed"]);
    Call::to(&serving(|whole| whole, "br")).backend_fails(&["br"]);
    Call::to(&serving(|whole| whole, "gzip, gzip")).backend_fails(&[]);
}

#[test]
fn a_cache_without_a_size_has_none() {
    let server = except(Quantity::CacheConfig, |fleet, request| {
        Reply::ok(vector(&fleet.cache_config(request, "None")))
    });
    let (document, _) = Call::to(&server).finds();
    let replica = pod(&document, "m-0");
    for field in ["numGpuBlocks", "totalKvCapacityTokens", "tokensInUse"] {
        assert_eq!(replica[field], Value::Null, "{field}");
        let reason = replica["reasons"][field].as_str().unwrap();
        assert!(reason.contains("vllm:cache_config_info"), "{field}: {reason}");
    }
    assert_eq!(replica["kvCacheUsage"], 0.42);
}

#[test]
fn the_names_of_older_servers_are_read() {
    let fleet = Fleet { names: &OLD_NAMES, ..Fleet::default() };
    let server = Server::start(move |request| fleet.reply(request));
    let (document, _) = Call::to(&server).finds();
    let replica = pod(&document, "m-0");
    assert_eq!(replica["kvCacheUsage"], 0.42, "{document}");
    assert_eq!(replica["prefixCacheHitRate"], Value::Null, "{document}");
}
