// SPDX-License-Identifier: Apache-2.0
//! What a read of a metric answers.

use std::time::Duration;

use collector_core::{MetricsCollector as _, ModelRef};
use collector_keda::{Settings, Signal};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, advance};

use crate::fixture::{Fixture, MODEL, model, queue_of};

#[tokio::test(start_paused = true)]
async fn a_value_is_one_item_with_its_exact_quantity() {
    let fixture = Fixture::start().await;
    for (queue, metric, value) in [
        (7, "collector-queue", "7"),
        (0, "collector-queue", "0"),
        (12_000, "collector-queue", "12k"),
        (1, "collector-kv-max", "300m"),
        (4, "collector-saturation", "800m"),
    ] {
        fixture.serve(queue_of(queue));
        fixture.forget();
        let answer = fixture.read(metric, "model=org_chat").await;
        assert_eq!(answer.value(), value, "{metric}");
        assert_eq!(answer.body["items"][0]["metricName"], metric);
        assert_eq!(answer.body["apiVersion"], "external.metrics.k8s.io/v1beta1");
        let timestamp = answer.body["items"][0]["timestamp"].as_str().unwrap();
        assert_eq!((timestamp.len(), &timestamp[19..]), ("2026-01-01T00:00:00Z".len(), "Z"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_timestamp_is_that_of_the_sample() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(1));
    let at = |answer: crate::fixture::Answer| {
        let text = answer.body["items"][0]["timestamp"].as_str().unwrap().to_owned();
        text.parse::<Timestamp>().unwrap().duration_since(Timestamp::UNIX_EPOCH)
    };
    let first = at(fixture.read("collector-queue", "model=org_chat").await);
    fixture.backend.hang();
    advance(Duration::from_secs(40)).await;
    // It is the same sample, which is older now.
    let second = at(fixture.read("collector-queue", "model=org_chat").await);
    assert!((first - second).abs() <= SignedDuration::from_secs(1), "{first} {second}");
}

#[tokio::test(start_paused = true)]
async fn a_model_is_chosen_by_its_label_or_by_a_variant() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(3));
    fixture.backend.serve(&ModelRef::new("plain", "prod"), queue_of(4));
    fixture.backend.serve(&ModelRef::new("elsewhere", "other"), queue_of(5));
    for (selector, value) in [
        ("model=org_chat", "3"),
        ("model in (org_chat)", "3"),
        ("variant=small", "0"),
        ("model=plain", "4"),
        ("model=elsewhere,modelNamespace=other", "5"),
    ] {
        // The variant has no pod of its own, and nothing says that it has none.
        if selector == "variant=small" {
            let message = fixture.read("collector-queue", selector).await;
            assert!(message.error(503).contains("no series of a pod"), "{}", message.body);
        } else {
            assert_eq!(
                fixture.read("collector-queue", selector).await.value(),
                value,
                "{selector}"
            );
        }
    }
    for (selector, code, part) in [
        ("", 400, "model is missing"),
        ("variant=large", 404, "there is no variant \"large\" in \"prod\"; there are \"small\""),
        ("model=plain,variant=small", 404, "has no variant"),
        ("model=org_cat", 404, "there is no model \"org_cat\""),
        ("model=elsewhere", 404, "it exists in \"other\": set modelNamespace"),
    ] {
        let answer = fixture.read("collector-queue", selector).await;
        assert!(answer.error(code).contains(part), "{selector}: {}", answer.body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_label_that_several_models_have_is_an_error_with_their_names() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(3));
    fixture.backend.serve(&ModelRef::new("org_chat", "prod"), queue_of(9));
    for name in [MODEL, "org_chat"] {
        fixture.collector.peek_replicas(&ModelRef::new(name, "prod")).unwrap_err();
    }
    fixture.collector.collect_replica_metrics(&ModelRef::new("org_chat", "prod")).await.unwrap();
    let answer = fixture.read("collector-queue", "model=org_chat").await;
    let expected = "model=org_chat may be \"org/chat\", \"org_chat\": add variant";
    assert_eq!(answer.error(400), expected);
    // The variant is one of the first.
    fixture.read("collector-queue", "model=org_chat,variant=small").await.error(503);
}

#[tokio::test(start_paused = true)]
async fn a_selector_that_cannot_be_used_is_an_error() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(3));
    for (selector, part) in [
        ("model!=a", "model!=a cannot be used: a label must be equal to one value"),
        ("model in (a,b)", "cannot be used"),
        ("model notin (a)", "cannot be used"),
        ("model", "cannot be used"),
        ("!model", "cannot be used"),
        ("model>1", "cannot be used"),
        ("model=org_chat,x!=y", "cannot be used"),
        ("model=org_chat,pool=a", "no label \"pool\""),
        ("model=org/chat", "is not the value of a label"),
        ("model=a,model=b", "model is required twice"),
        ("model=a b", "found \"b\""),
        ("model=(", "found \"(\""),
        ("\u{1b}[31m=a", "is not the name of a label"),
        (&"a,".repeat(3000), "longer than"),
        ("model=org_chat,maxAge=soon", "maxAge"),
        ("model=org_chat,onMissing=hold", "onMissing"),
    ] {
        let answer = fixture.read("collector-queue", selector).await;
        let message = answer.error(400);
        assert!(message.contains(part), "{selector}: {message}");
        assert!(!message.contains('\u{1b}') && message.len() < 1100, "{message}");
    }
    for (metric, part) in [
        ("queue", "there is no metric \"queue\""),
        ("collector-nonsense", "there are collector-queue"),
        ("collector-queue/extra", "there is nothing at"),
    ] {
        let answer = fixture.read(metric, "model=org_chat").await;
        assert!(answer.error(404).contains(part), "{}", answer.body);
    }
    let root = crate::fixture::ROOT;
    for (path, code) in [
        (
            format!(
                "{root}/namespaces/prod/collector-queue?labelSelector=model%3Da&labelSelector=b"
            ),
            400,
        ),
        (format!("{root}/namespaces/prod/collector-queue?labelSelector=%FF"), 400),
        (format!("{root}/namespaces/%FF/collector-queue"), 400),
        (
            format!(
                "{root}/namespaces/prod/collector-queue?labelSelector=model%3Dorg_chat&watch=true"
            ),
            400,
        ),
        (format!("{root}/namespaces/prod/collector-queue?fieldSelector=a%3Db"), 400),
        (format!("{root}/namespaces/prod"), 404),
        ("/metrics".to_owned(), 404),
        ("/openapi/v2".to_owned(), 404),
        ("/openapi/v3".to_owned(), 404),
    ] {
        fixture.client.get(&path).await.error(code);
    }
    fixture
        .client
        .request(
            "POST",
            &format!("{root}/namespaces/prod/collector-queue"),
            &[("X-Remote-User", "u")],
        )
        .await
        .error(405);
    assert_eq!(fixture.backend.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_other_metrics_need_comes_in_labels() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(4));
    for (metric, labels, value) in [
        ("collector-composite", "queue=5,kv-max=0.1", "3"),
        ("collector-composite", "queue=5", "800m"),
        ("collector-queue", "maxAge=30s", "4"),
        ("collector-queue", "onMissing=hold-10m", "4"),
    ] {
        let answer = fixture.read(metric, &format!("model=org_chat,{labels}")).await;
        assert_eq!(answer.value(), value, "{metric} {labels}");
    }
    for (metric, labels, part) in [
        ("collector-composite", "", "needs a label for each signal"),
        ("collector-backlog-seconds", "", "peakPrefillThroughput is missing"),
        ("collector-slo-ratio", ",metric=ttft", "slo is missing"),
    ] {
        let answer = fixture.read(metric, &format!("model=org_chat{labels}")).await;
        assert!(answer.error(400).contains(part), "{metric}: {}", answer.body);
    }
    // Every metric is there, whether or not it has a value.
    for signal in Signal::NAMES {
        let answer = fixture.read(&format!("collector-{signal}"), "model=org_chat").await;
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert!(!message.contains("there is no metric"), "{signal}: {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_read_tracks_the_model_and_waits_no_longer_than_configured() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(3));
    fixture.backend.hang();
    let begun = Instant::now();
    let answer = fixture.read("collector-queue", "model=org_chat").await;
    assert!(answer.error(503).contains("is being read for the first time"), "{}", answer.body);
    assert!(begun.elapsed() <= Duration::from_millis(1100), "{:?}", begun.elapsed());
    assert_eq!(fixture.collector.tracked_names(), [model()]);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_clients_get_an_error_in_time_while_the_backend_hangs() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(3));
    fixture.backend.hang();
    let begun = Instant::now();
    let answers = (0..200).map(|_| fixture.read("collector-queue", "model=org_chat"));
    for answer in join_all(answers).await {
        answer.error(503);
    }
    assert!(begun.elapsed() <= Duration::from_millis(1100), "{:?}", begun.elapsed());
    assert_eq!(fixture.backend.fetches(), 1);
}

#[tokio::test]
async fn two_hundred_connections_are_served_while_the_backend_hangs() {
    let fixture = Fixture::start().await;
    fixture.backend.hang();
    let client = fixture.connected(Some(&fixture.front_proxy));
    let answers = (0..200).map(|_| client.read("prod", "collector-queue", "model=org_chat"));
    for answer in join_all(answers).await {
        answer.error(503);
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_hpas_cost_the_backend_nothing() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(3));
    fixture.read("collector-queue", "model=org_chat").await.value();
    let (fetches, lists) = (fixture.backend.fetches(), fixture.backend.list_calls());
    for _ in 0..3 {
        let answers = (0..200).map(|_| fixture.read("collector-queue", "model=org_chat"));
        for answer in join_all(answers).await {
            assert_eq!(answer.value(), "3");
        }
    }
    assert_eq!((fixture.backend.fetches(), fixture.backend.list_calls()), (fetches, lists));
    // What the cache has is what the next read gets.
    fixture.serve(queue_of(8));
    fixture.forget();
    fixture.collector.collect_replica_metrics(&model()).await.unwrap();
    assert_eq!(fixture.read("collector-queue", "model=org_chat").await.value(), "8");
}

#[tokio::test(start_paused = true)]
async fn a_variant_where_the_cluster_is_not_watched_is_unknown_and_not_absent() {
    let mut settings = Settings::default();
    settings.unwatched = Box::new(|name| Some(format!("namespace {name} is not watched")));
    let fixture = Fixture::with(settings).await;
    fixture.serve(queue_of(3));
    for selector in ["variant=large", "model=org_chat,variant=large"] {
        let answer = fixture.read("collector-queue", selector).await;
        let message = answer.error(503);
        assert!(message.contains("namespace prod is not watched"), "{message}");
    }
    let answer = fixture.read("collector-supply-ready", "model=org_chat").await;
    assert!(answer.error(503).contains("namespace prod is not watched"), "{}", answer.body);
}
