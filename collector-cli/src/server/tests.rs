// SPDX-License-Identifier: Apache-2.0
//! The API over a scripted backend, without sockets; `tests/it` has the sockets.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use collector_config::ServerConfig;
use collector_core::{ErrorKind, MetricsCollector as _, ModelRef, ModelSample, ReplicaMetrics};
use collector_engine::Discovery;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use self::fixture::{Answer, Fixture, model, open_access};
use super::app::Peer;
use super::{Access, Front, Lifecycle};

mod events;
mod fixture;
mod lists;
mod metrics;
mod page;
#[cfg(feature = "promql")]
mod promql;
mod read;

#[tokio::test(start_paused = true)]
async fn a_reading_has_the_documented_fields_and_null_for_unmeasured_ones() {
    let fixture = Fixture::new();
    fixture.backend.serve(&model(), |as_of| {
        let mut replica = ReplicaMetrics::new("m-0", as_of);
        replica.queue_length = Some(3);
        ModelSample::new(as_of, vec![replica])
    });
    let uri = "/api/v1/replicas?model=org%2Fm&namespace=prod";
    let answer = fixture.get(uri).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    let document = answer.json();
    assert_eq!(document["schemaVersion"], 1);
    assert_eq!(document["kind"], "replicas");
    assert_eq!(document["status"], "fresh");
    assert_eq!(document["source"], "backend");
    assert_eq!(document["backend"], "prometheus");
    assert_eq!(document["partial"], false);
    let replica = &document["replicas"][0];
    assert_eq!(replica["podName"], "m-0");
    assert_eq!(replica["variantName"], "m-h100");
    assert_eq!(replica["queueLength"], 3);
    assert_eq!(replica["runningRequests"], Value::Null);
    assert_eq!(replica["totalKvCapacityTokens"], Value::Null);
    assert!(replica.get("marks").is_none());
    assert_eq!(fixture.get(uri).await.json()["source"], "cache");
}

#[tokio::test(start_paused = true)]
async fn an_allocation_is_that_of_its_variant() {
    let fixture = Fixture::new();
    let answer = fixture.get("/api/v1/allocation?model=org/m&namespace=prod&variant=m-h100").await;
    let document = answer.json();
    assert_eq!(document["kind"], "allocation", "{document}");
    assert_eq!(document["variant"], "m-h100");
    assert_eq!(document["accelerator"], "H100");
    assert_eq!(document["numReplicas"], 2);
    assert_eq!(document["maxBatch"], 256);
    assert!(document["load"].get("arrivalRatePerMinute").is_some());

    let unknown = fixture.get("/api/v1/allocation?model=org/m&namespace=prod&variant=m-a100").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(unknown.reason(), "MetricsMissing");
    assert_eq!(unknown.json()["error"]["suggestions"], json!(["m-h100"]));
}

#[tokio::test(start_paused = true)]
async fn the_list_has_a_reading_or_an_error_for_each_tracked_model() {
    let fixture = Fixture::new();
    let list = fixture.get("/api/v1/replicas").await.json();
    assert_eq!(list["schemaVersion"], 1);
    let item = &list["items"][0];
    assert_eq!(item["model"], "org/m");
    assert!(item["error"]["reason"].is_string(), "{list}");

    fixture.collector.collect_replica_metrics(&model()).await.unwrap();
    let list = fixture.get("/api/v1/replicas").await.json();
    assert_eq!(list["items"][0]["replicas"][0]["podName"], "m-0");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_does_not_exist_is_missing_with_its_neighbours() {
    let fixture = Fixture::new();
    let answer = fixture.get("/api/v1/replicas?model=org/n&namespace=prod").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.reason(), "MetricsMissing");
    assert_eq!(answer.json()["error"]["suggestions"], json!(["org/m"]));
}

#[tokio::test(start_paused = true)]
async fn a_failed_backend_is_503_and_says_when_to_ask_again() {
    let fixture = Fixture::new();
    fixture.backend.fail(ErrorKind::Unauthorized);
    let answer = fixture.get("/api/v1/replicas?model=org/m&namespace=prod").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.reason(), "PrometheusError");
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test(start_paused = true)]
async fn an_outage_goes_from_last_known_good_to_unavailable() {
    let fixture = Fixture::new();
    let uri = "/api/v1/replicas?model=org/m&namespace=prod";
    fixture.get(uri).await;
    fixture.backend.fail(ErrorKind::Connect);
    tokio::time::advance(Duration::from_secs(90)).await;
    let document = fixture.get(uri).await.json();
    assert_eq!(document["status"], "stale");
    assert_eq!(document["source"], "last-known-good");
    assert_eq!(document["ageSeconds"], 90.0);

    tokio::time::advance(Duration::from_secs(300)).await;
    let answer = fixture.get(uri).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.reason(), "MetricsStale");
}

#[tokio::test(start_paused = true)]
async fn one_model_too_many_is_429() {
    let fixture = Fixture::with(open_access(), 1);
    fixture.backend.serve_pods(&ModelRef::new("org/other", "prod"), &["o-0"]);
    fixture.get("/api/v1/replicas?model=org/m&namespace=prod").await;
    let answer = fixture.get("/api/v1/replicas?model=org/other&namespace=prod").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.reason(), "TooManyModels");
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test(start_paused = true)]
async fn known_models_say_whether_they_are_tracked() {
    let fixture = Fixture::new();
    fixture.backend.serve_pods(&ModelRef::new("org/other", "dev"), &["o-0"]);
    let list = fixture.get("/api/v1/models").await.json();
    assert_eq!(
        list["items"],
        json!([
            {"model": "org/other", "namespace": "dev", "replicas": 1, "tracked": false},
            {"model": "org/m", "namespace": "prod", "replicas": 2, "tracked": true},
        ])
    );
}

#[tokio::test(start_paused = true)]
async fn wrong_parameters_are_400_and_never_another_question() {
    let fixture = Fixture::new();
    for uri in [
        "/api/v1/replicas?model=org/m",
        "/api/v1/replicas?model=&namespace=prod",
        "/api/v1/replicas?model=a&model=b&namespace=prod",
        "/api/v1/replicas?modell=a&namespace=prod",
        "/api/v1/replicas?model=%ff&namespace=prod",
        "/api/v1/replicas?model=org/m&namespace=prod&limit=1",
        "/api/v1/replicas?limit=0",
        "/api/v1/replicas?limit=10001",
        "/api/v1/replicas?after=x",
        "/api/v1/replicas?fields=modell",
        "/api/v1/replicas?fields=replicas.podname",
        "/api/v1/replicas?model=org/m&namespace=prod&variant=m-h100",
        "/api/v1/allocation?model=org/m&namespace=prod&variant=m-h100&accelerator=H100",
        "/api/v1/models?namespace=prod",
    ] {
        let answer = fixture.get(uri).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{uri}");
        assert_eq!(answer.reason(), "BadRequest", "{uri}");
    }
    assert_eq!(fixture.backend.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn replicas_are_the_same_with_and_without_the_router() {
    let fixture = Fixture::new();
    let one = "/api/v1/replicas?model=org/m&namespace=prod";
    let tag = fixture.get(one).await.headers["etag"].to_str().unwrap().to_owned();
    for (uri, header, status) in [
        (one, ("accept", "*/*"), 200),
        (one, ("if-none-match", &*tag), 304),
        (one, ("content-length", "7"), 400),
        ("/api/v1/replicas", ("accept", "*/*"), 200),
        ("/api/v1/replicas?model=org/m&namespace=prod&fields=generation", ("accept", "*/*"), 200),
        ("/api/v1/replicas?model=org/x&namespace=prod", ("accept", "*/*"), 404),
        ("/api/v1/replicas?model=org/m", ("accept", "*/*"), 400),
        ("/api/v1/replicas/", ("accept", "*/*"), 404),
    ] {
        let request = || {
            let mut request = Request::get(uri).header(header.0, header.1);
            request.extensions_mut().unwrap().insert(Peer("127.0.0.1".parse().unwrap()));
            request.body(Body::empty()).unwrap()
        };
        let mut own = fixture.ask(request(), "127.0.0.1").await;
        let router = Arc::clone(&fixture.app).router();
        let of_router = Answer::of(router.oneshot(request()).await.unwrap()).await;
        // These are added to all answers.
        own.headers.remove("cache-control");
        own.headers.remove("x-content-type-options");
        // The router counts the bytes of a body, and so does the connection.
        own.headers.remove("content-length");
        let mut expected = of_router.headers;
        expected.remove("content-length");
        assert_eq!(own.status, status, "{uri}");
        assert_eq!((own.status, own.text), (of_router.status, of_router.text), "{uri}");
        assert_eq!(own.headers, expected, "{uri}");
    }
}

#[tokio::test]
async fn what_is_allocated_for_each_request_is_small() {
    let front = Front::new(Fixture::new().app);
    let answering = front.answer(Request::new(Body::empty()));
    // Each thread has freed pieces of at most this size at hand (glibc); larger ones take several times as long.
    let bytes = size_of_val(&*answering);
    assert!(bytes <= 1032, "{bytes} bytes");
}

#[tokio::test(start_paused = true)]
async fn unknown_paths_and_methods_are_json_errors_and_bodies_are_refused() {
    let fixture = Fixture::new();
    for uri in ["/nothing", "/api/v1/", "/../../etc/passwd", "/<script>"] {
        let answer = fixture.get(&uri.replace('<', "%3C").replace('>', "%3E")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{uri}");
        assert_eq!(answer.reason(), "NotFound", "{uri}");
    }
    let post = Request::post("/api/v1/replicas").body(Body::empty()).unwrap();
    let answer = fixture.ask(post, "127.0.0.1").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.reason(), "MethodNotAllowed");
    assert_eq!(answer.headers["allow"], "GET,HEAD");

    let with_body =
        Request::get("/healthz").header("content-length", "100000000").body(Body::empty()).unwrap();
    let answer = fixture.ask(with_body, "127.0.0.1").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.headers["connection"], "close");
}

#[tokio::test(start_paused = true)]
async fn entries_are_dropped_with_the_token_where_there_is_one_and_else_on_loopback() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "s3cret\n").unwrap();
    let access = Access::new(&ServerConfig {
        admin_token_path: Some(token.path().to_owned()),
        ..ServerConfig::default()
    })
    .unwrap();
    let fixture = Fixture::with(access, 10);
    let delete = |authorization: &str| {
        Request::delete("/api/v1/cache?model=org/m&namespace=prod")
            .header("authorization", authorization)
            .body(Body::empty())
            .unwrap()
    };
    fixture.get("/api/v1/replicas?model=org/m&namespace=prod").await;
    for (authorization, peer, status) in [
        ("", "10.0.0.7", StatusCode::FORBIDDEN),
        ("Bearer s3cre", "10.0.0.7", StatusCode::FORBIDDEN),
        ("Bearer s3cret", "10.0.0.7", StatusCode::OK),
        ("", "::ffff:127.0.0.1", StatusCode::FORBIDDEN),
        ("bearer s3cret", "127.0.0.1", StatusCode::OK),
    ] {
        let answer = fixture.ask(delete(authorization), peer).await;
        assert_eq!(answer.status, status, "{authorization:?} from {peer}");
    }
    assert_eq!(fixture.collector.cache_size(), 0);
    let fixture = Fixture::new();
    for (peer, status) in
        [("10.0.0.7", StatusCode::FORBIDDEN), ("::ffff:127.0.0.1", StatusCode::OK)]
    {
        assert_eq!(fixture.ask(delete(""), peer).await.status, status, "from {peer}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_read_token_everything_but_the_probes_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, token: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, token).unwrap();
        Some(path)
    };
    let access = Access::new(&ServerConfig {
        read_token_path: file("read", "r3ad\n"),
        admin_token_path: file("admin", "adm1n"),
        ..ServerConfig::default()
    })
    .unwrap();
    let env = [("COLLECTOR_PROMQL__ENABLED", "true"), ("COLLECTOR_BACKEND", "scrape")];
    let fixture = Fixture::configured(access, 10, &env);
    let get = |path: &str, authorization: Option<&str>| {
        let request = Request::get(path);
        let request = match authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        };
        fixture.ask(request.body(Body::empty()).unwrap(), "127.0.0.1")
    };
    for path in ["/healthz", "/readyz", "/", "/page/page.js"] {
        assert_ne!(get(path, None).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let paths = [
        "/page/changes",
        "/page/model?id=0",
        "/metrics",
        "/api/v1/replicas",
        "/api/v1/query?query=1",
        "/nowhere",
    ];
    for path in paths {
        let refused = get(path, None).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(refused.headers["www-authenticate"], "Bearer realm=\"collector\"");
        assert_eq!(refused.reason(), "Unauthorized");
        for wrong in ["Bearer r3a", "Bearer ", "Basic r3ad", "r3ad", "Bearer r3adr3ad"] {
            let refused = get(path, Some(wrong)).await;
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{path} with {wrong:?}");
            let challenge = refused.headers["www-authenticate"].to_str().unwrap();
            assert!(challenge.contains("invalid_token"), "{challenge}");
        }
        for right in ["Bearer r3ad", "bearer r3ad", "Bearer adm1n"] {
            let answer = get(path, Some(right)).await;
            assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{path} with {right:?}");
        }
    }
    // The token rotates.
    file("read", "a-longer-one");
    assert_eq!(get("/metrics", Some("Bearer r3ad")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(get("/metrics", Some("Bearer a-longer-one")).await.status, StatusCode::OK);
    let delete = Request::delete("/api/v1/cache?model=org/m&namespace=prod")
        .header("authorization", "Bearer a-longer-one");
    let refused = fixture.ask(delete.body(Body::empty()).unwrap(), "127.0.0.1").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "a token for reads changes nothing");
}

#[tokio::test(start_paused = true)]
async fn ready_once_the_first_cycle_has_ended_and_then_for_good() {
    let fixture = Fixture::new();
    assert_eq!(fixture.get("/healthz").await.status, StatusCode::OK);
    let before = fixture.get("/readyz").await;
    assert_eq!(before.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(before.json()["ready"], false);

    fixture.backend.fail(ErrorKind::Connect);
    fixture.collector.start_background_worker().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let after = fixture.get("/readyz").await;
    assert_eq!(after.status, StatusCode::OK, "{}", after.text);
    let backend = &after.json()["backends"][0];
    assert_eq!(backend["name"], "prometheus");
    assert_eq!(backend["state"], "down");
    assert_eq!(after.json()["stale"][0]["model"], "org/m");
}

#[tokio::test(start_paused = true)]
async fn readiness_and_metrics_count_what_is_known_and_an_unknown_number_is_not_0() {
    let access = open_access();
    let fixture = Fixture::of(access, &[], |builder| builder.discover(Discovery::default()));
    fixture.backend.serve_pods(&ModelRef::new("<b>other</b>\"", "dev"), &["o-0"]);
    fixture.backend.fail(ErrorKind::Connect);
    fixture.collector.start_background_worker().await.unwrap();
    let asked = fixture.get("/readyz").await;
    assert_eq!(asked.status, StatusCode::SERVICE_UNAVAILABLE, "{}", asked.text);
    assert_eq!(asked.json()["discovery"]["status"], "listing");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let failed = fixture.get("/readyz").await;
    assert_eq!((failed.status, &failed.json()["known"]), (StatusCode::OK, &Value::Null));
    assert_eq!(failed.json()["discovery"]["status"], "failed");
    let page = fixture.get("/metrics").await.text;
    assert!(page.contains("# TYPE collector_known_models gauge\n"), "{page}");
    assert!(!page.contains("\ncollector_known_models "), "{page}");

    fixture.backend.restore();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let known = fixture.get("/readyz").await.json();
    assert_eq!(
        (&known["known"], &known["tracked"], &known["notFresh"]),
        (&2.into(), &2.into(), &0.into())
    );
    let page = fixture.get("/metrics").await.text;
    for line in [
        "collector_known_models 2\n",
        "collector_left_out_models 0\n",
        "collector_backend_known_models{backend=\"prometheus\"} 2\n",
        "collector_replica_queue_length{model_name=\"<b>other</b>\\\"\",namespace=\"dev\"",
    ] {
        assert!(page.contains(line), "no {line} in {page}");
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_and_metrics_show_an_open_breaker() {
    let fixture = Fixture::new();
    let before = fixture.get("/readyz").await.json()["backends"][0].clone();
    assert_eq!(before["breaker"], "closed");
    assert!(before["breakerOpenSeconds"].is_null() && before["retryInSeconds"].is_null());
    assert!(!fixture.get("/metrics").await.text.contains("collector_backend_failure_ratio{"));

    fixture.backend.fail(ErrorKind::Connect);
    assert!(fixture.collector.collect_replica_metrics(&model()).await.is_err());
    tokio::time::sleep(Duration::from_millis(400)).await;
    let open = fixture.get("/readyz").await.json()["backends"][0].clone();
    assert_eq!((&open["breaker"], &open["state"]), (&"open".into(), &"down".into()));
    assert_eq!((&open["recentLooks"], &open["recentFailures"]), (&3.into(), &3.into()));
    // A timer is good to a millisecond.
    let is_about = |key: &str, expected: f64| (open[key].as_f64().unwrap() - expected).abs() < 0.01;
    assert!(is_about("breakerOpenSeconds", 0.4) && is_about("retryInSeconds", 0.6), "{open}");
    let page = fixture.get("/metrics").await.text;
    assert!(page.contains("collector_backend_failure_ratio{backend=\"prometheus\"} 1\n"));
    assert!(page.contains("collector_backend_breaker_state{backend=\"prometheus\"} 2\n"));
}

#[tokio::test(start_paused = true)]
async fn every_family_is_on_the_page_before_anything_was_counted() {
    let fixture = Fixture::new();
    let answer = fixture.get("/metrics").await;
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    for family in [
        "wva_metrics_pods_discovered gauge",
        "wva_metrics_freshness_status gauge",
        "wva_pod_mapping_miss_total counter",
        "collector_cache_hits_total counter",
        "collector_cache_misses_total counter",
        "collector_cache_stale_serves_total counter",
        "collector_cache_entries gauge",
        "collector_cache_evictions_total counter",
        "collector_cache_coalesced_misses_total counter",
        "collector_background_refreshes_total counter",
        "collector_backend_breaker_state gauge",
        "collector_backend_requests_total counter",
        "collector_backend_pushes_total counter",
        "collector_background_cycles_skipped_total counter",
        "collector_backend_panics_total counter",
        "collector_panics_total counter",
        "collector_cache_ttl_seconds gauge",
        "collector_cache_volatility_ratio gauge",
    ] {
        let line = format!("# TYPE {family}\n");
        assert!(answer.text.contains(&line), "no {family} in {}", answer.text);
    }
    assert!(
        answer
            .text
            .contains("wva_pod_mapping_miss_total{namespace=\"\",reason=\"no_variant\"} 0\n")
    );
}

#[tokio::test(start_paused = true)]
async fn the_series_of_a_model_that_is_gone_are_gone() {
    let fixture = Fixture::new();
    let other = ModelRef::new("other", "dev");
    fixture.backend.serve_pods(&other, &["o-0", "o-1", "o-2"]);
    fixture.collector.collect_replica_metrics(&other).await.unwrap();
    let page = fixture.get("/metrics").await.text;
    assert!(page.contains("wva_metrics_pods_discovered{namespace=\"dev\"} 3\n"), "{page}");
    assert!(page.contains(
        "wva_metrics_freshness_status{variant_name=\"\",namespace=\"dev\",status=\"fresh\"} 1\n"
    ));
    assert!(page.contains("collector_replica_age_seconds{model_name=\"other\""));
    let ttl = "collector_cache_ttl_seconds{model_name=\"other\",namespace=\"dev\"} 30\n";
    assert!(page.contains(ttl), "{page}");

    fixture.collector.invalidate_cache(&other);
    let page = fixture.get("/metrics").await.text;
    assert!(!page.contains("collector_replica_age_seconds{model_name=\"other\""), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_read_is_answered_when_the_process_exits() {
    let fixture = Fixture::new();
    fixture.backend.hang();
    let uri = "/api/v1/replicas?model=org/m&namespace=prod";
    let (answer, ()) = tokio::join!(fixture.get(uri), async {
        fixture.backend.entered().await;
        fixture.lifecycle.send_replace(Lifecycle::Leaving);
    });
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.reason(), "Stopping");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_answers_and_sends_its_clients_elsewhere() {
    let fixture = Fixture::new();
    fixture.app.ready.store(true, Ordering::Relaxed);
    let uri = "/api/v1/replicas?model=org/m&namespace=prod";
    let answer = fixture.get(uri).await;
    assert!(!answer.headers.contains_key("connection"));
    assert_eq!(fixture.get("/readyz").await.status, StatusCode::OK);

    fixture.lifecycle.send_replace(Lifecycle::Draining);
    let answer = fixture.get(uri).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["connection"], "close");
    let ready = fixture.get("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.json()["ready"], false);
    assert_eq!(fixture.get("/healthz").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_page_allows_nothing_from_elsewhere() {
    let answer = Fixture::new().get("/").await;
    let policy = answer.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(!answer.text.contains("innerHTML") && !answer.text.contains("http"));
}

#[tokio::test(start_paused = true)]
async fn the_pace_of_a_model_is_shown_without_a_fetch() {
    let fixture = Fixture::new();
    let answer = fixture.get("/api/v1/pace?model=org/m&namespace=prod").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.json(),
        json!({
            "schemaVersion": 1, "kind": "pace", "model": "org/m", "namespace": "prod",
            "ttlSeconds": 30.0, "reason": "configured", "because": "cache.ttl",
            "field": null, "changePerMinute": null,
        })
    );
    assert_eq!(fixture.backend.fetches(), 0);
    assert_eq!(fixture.get("/api/v1/pace").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn an_excluded_namespace_is_missing_and_its_key_is_named() {
    let access = open_access();
    let fixture = Fixture::configured(access, 10, &[("WATCH_NAMESPACE", "staging")]);
    for uri in [
        "/api/v1/replicas?model=org%2Fm&namespace=prod",
        "/api/v1/allocation?model=org%2Fm&namespace=prod&variant=m-h100",
    ] {
        let answer = fixture.get(uri).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text);
        assert_eq!(answer.reason(), "MetricsMissing");
        assert!(answer.text.contains("environment variable WATCH_NAMESPACE"), "{}", answer.text);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_parameter_of_a_path_without_any_is_refused_with_that() {
    let answer = Fixture::new().get("/api/v1/models?nam=prod").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("this path takes no parameters"), "{}", answer.text);
}
