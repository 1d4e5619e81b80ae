// SPDX-License-Identifier: Apache-2.0
//! The PromQL API over readings alone: no server is configured.

use std::sync::Arc;

use collector_core::supply::{Pod, PodState, Workload};
use collector_core::{Absent, Field, FieldReasons, Supply, Tick, VariantName};

use super::*;

fn fixture() -> Fixture {
    let env = [("COLLECTOR_PROMQL__ENABLED", "true"), ("COLLECTOR_BACKEND", "scrape")];
    Fixture::configured(super::open_access(), 10, &env)
}

impl Fixture {
    async fn query(&self, query: &str) -> Answer {
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        self.get(&format!("/api/v1/query?query={query}")).await
    }

    async fn read(&self, name: &str) {
        let read = self.collector.collect_replica_metrics(&ModelRef::new(name, "prod")).await;
        assert!(read.is_ok(), "{read:?}");
    }

    /// Serves pods, each with its queue.
    fn serve_queues(
        &self,
        name: &str,
        pods: &'static [(&'static str, Option<u64>)],
        absent: Absent,
    ) {
        self.backend.serve(&ModelRef::new(name, "prod"), move |as_of| {
            let replicas = pods.iter().map(|(pod, queue)| {
                let mut replica = ReplicaMetrics::new(*pod, as_of);
                replica.queue_length = *queue;
                replica
            });
            let mut sample = ModelSample::new(as_of, replicas.collect());
            sample.lists_pods = true;
            sample.absent = absent.clone();
            sample
        });
    }
}

/// The value of the one sample of an answer.
#[track_caller]
fn value(answer: &Answer) -> String {
    let document = answer.json();
    assert_eq!(answer.status, StatusCode::OK, "{document}");
    let result = document["data"]["result"].as_array().unwrap();
    assert_eq!(result.len(), 1, "{document}");
    result[0]["value"][1].as_str().expect("a value is text").to_owned()
}

#[track_caller]
fn check_refused(answer: &Answer, status: StatusCode, reason: &str, says: &str) {
    let document = answer.json();
    let given = answer.headers.get("x-collector-reason").map(|it| it.to_str().unwrap());
    assert_eq!((answer.status, given), (status, Some(reason)), "{document}");
    assert!(document["error"].as_str().unwrap().contains(says), "{document}");
}

const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
const QUEUE: &str = r#"sum(collector_replica_queue_length{namespace="prod",model_name="org/m"})"#;

#[tokio::test(start_paused = true)]
async fn every_series_of_the_readings_page_is_answered_as_it_is_shown() {
    let fixture = fixture();
    fixture.backend.serve(&model(), |as_of| {
        let mut replica = ReplicaMetrics::new("m-0\u{7}\"\\", as_of);
        replica.queue_length = Some(3);
        replica.kv_cache_usage = Some(0.1 + 0.2);
        replica.num_gpu_blocks = Some(100);
        replica.block_size = Some(16);
        ModelSample::new(as_of, vec![replica, ReplicaMetrics::new("other", as_of)])
    });
    fixture.read("org/m").await;
    tokio::time::advance(Duration::from_secs(2)).await;
    let page = fixture.get("/metrics").await.text;
    let is_reading = |line: &&str| {
        line.starts_with("collector_replica_") || line.starts_with("collector_allocation_")
    };
    let mut shown: Vec<&str> = page.lines().filter(is_reading).collect();
    // Labels as a server reads them.
    let mut held = Vec::new();
    let names: std::collections::BTreeSet<&str> =
        shown.iter().filter_map(|line| line.split(['{', ' ']).next()).collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        // Unknown values of the other pod make the answer partial, and their series are not on the page.
        let pods = if name.starts_with("collector_replica_") { "{pod!=\"other\"}" } else { "" };
        let answer = fixture.query(&format!("{name}{pods}")).await;
        let document = answer.json();
        assert_eq!(answer.status, StatusCode::OK, "{name}: {document}");
        assert_eq!(answer.headers["age"], "2");
        for sample in document["data"]["result"].as_array().unwrap() {
            let label = |name: &str| {
                let text = sample["metric"].get(name).map_or("", |text| text.as_str().unwrap());
                let text = text.replace('\\', "\\\\").replace('"', "\\\"");
                format!("{name}=\"{text}\"")
            };
            let mut labels = vec![label("model_name"), label("namespace")];
            if name.starts_with("collector_replica_") {
                labels.push(label("pod"));
            }
            labels.extend([label("variant_name"), label("accelerator_name")]);
            let value = sample["value"][1].as_str().unwrap();
            held.push(format!("{name}{{{}}} {value}", labels.join(",")));
        }
    }
    shown.retain(|line| !line.contains("pod=\"other\""));
    shown.sort_unstable();
    held.sort_unstable();
    assert_eq!(held, shown);
}

#[tokio::test(start_paused = true)]
async fn a_reading_is_answered_until_it_is_too_old() {
    let fixture = fixture();
    check_refused(&fixture.query(QUEUE).await, UNAVAILABLE, "starting", "not been collected yet");
    fixture.serve_queues("org/m", &[("m-0", Some(3)), ("m-1", Some(4))], Absent::None);
    fixture.read("org/m").await;
    assert_eq!(value(&fixture.query(QUEUE).await), "7");
    assert!(!fixture.query(QUEUE).await.headers.contains_key("age"));
    fixture.backend.fail(ErrorKind::Connect);
    tokio::time::advance(Duration::from_secs(100)).await;
    let answer = fixture.query(QUEUE).await;
    assert_eq!((value(&answer).as_str(), &answer.headers["age"]), ("7", &"100".parse().unwrap()));
    tokio::time::advance(Duration::from_secs(21)).await;
    let answer = fixture.query(QUEUE).await;
    check_refused(&answer, UNAVAILABLE, "stale", "2m1s old; the limit is 2m (promql.max_age)");
    tokio::time::advance(Duration::from_secs(180)).await;
    let answer = fixture.query(QUEUE).await;
    check_refused(&answer, UNAVAILABLE, "stale", "unavailable from 5m on");
    assert_eq!(fixture.backend.fetches(), 1, "a query reads nothing");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_older_than_its_reading_has_its_own_age() {
    let fixture = fixture();
    let serve = |failed: FieldReasons, queue| {
        fixture.backend.serve(&model(), move |as_of| {
            let mut replica = ReplicaMetrics::new("m-0", as_of);
            (replica.queue_length, replica.running_requests) = (queue, Some(1));
            let mut sample = ModelSample::new(as_of, vec![replica]);
            sample.failed = failed.clone();
            sample
        });
    };
    serve(FieldReasons::NONE, Some(3));
    fixture.read("org/m").await;
    for age in [100, 200] {
        tokio::time::advance(Duration::from_secs(100)).await;
        serve(FieldReasons::from_iter([(Field::QueueLength, "timeout")]), None);
        // The read starts a refresh.
        fixture.read("org/m").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let running = fixture.query("sum(collector_replica_running_requests)").await;
        assert_eq!((value(&running).as_str(), running.headers.get("age")), ("1", None));
        let queue = fixture.query(QUEUE).await;
        if age == 100 {
            assert_eq!(
                (value(&queue).as_str(), &queue.headers["age"]),
                ("3", &"100".parse().unwrap())
            );
        } else {
            check_refused(&queue, UNAVAILABLE, "stale", "3m20s old");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_part_of_the_fleet_refuses_the_sum() {
    let fixture = fixture();
    fixture.serve_queues("org/m", &[("m-0", Some(3)), ("m-1", Some(4))], Absent::None);
    fixture.serve_queues("org/b", &[("b-0", Some(5))], Absent::None);
    fixture.read("org/m").await;
    fixture.read("org/b").await;
    let all = r#"sum(collector_replica_queue_length{namespace="prod"})"#;
    assert_eq!(value(&fixture.query(all).await), "12");
    // A pod that does not answer.
    let absent = Absent::Pods(vec!["b-1".into()]);
    fixture.serve_queues("org/b", &[("b-0", Some(5))], absent);
    fixture.collector.invalidate_cache(&ModelRef::new("org/b", "prod"));
    fixture.read("org/b").await;
    check_refused(&fixture.query(all).await, UNAVAILABLE, "partial", "org/b");
    assert_eq!(value(&fixture.query(QUEUE).await), "7");
    let defaulted = fixture.query(&format!("{all} or vector(0)")).await;
    check_refused(&defaulted, UNAVAILABLE, "partial", "some pods of");
    // A queue that is not measured.
    fixture.serve_queues("org/b", &[("b-0", Some(5)), ("b-1", None)], Absent::None);
    fixture.collector.invalidate_cache(&ModelRef::new("org/b", "prod"));
    fixture.read("org/b").await;
    check_refused(&fixture.query(all).await, UNAVAILABLE, "partial", "pod \"b-1\"");
    fixture.backend.serve(&ModelRef::new("org/b", "prod"), |as_of| {
        let known = |pod: &str| {
            let mut replica = ReplicaMetrics::new(pod, as_of);
            replica.queue_length = (pod == "b-0").then_some(5);
            replica
        };
        let mut sample = ModelSample::new(as_of, vec![known("b-0"), known("b-1")]);
        sample.failed = FieldReasons::from_iter([(Field::QueueLength, "timeout")]);
        sample
    });
    fixture.collector.invalidate_cache(&ModelRef::new("org/b", "prod"));
    fixture.read("org/b").await;
    check_refused(&fixture.query(all).await, UNAVAILABLE, "partial", "is unknown: timeout");
    let known = r#"collector_replica_queue_length{pod="b-0"}"#;
    assert_eq!(value(&fixture.query(known).await), "5");
    let unknown = fixture.query(&known.replace("b-0", "b-1")).await;
    check_refused(&unknown, UNAVAILABLE, "missing", "is unknown");
}

#[tokio::test(start_paused = true)]
async fn no_pods_are_zero_and_a_misspelt_model_is_not() {
    let fixture = fixture();
    fixture.serve_queues("org/m", &[], Absent::None);
    fixture.serve_queues("org/b", &[("b-0", Some(5))], Absent::None);
    fixture.read("org/m").await;
    fixture.read("org/b").await;
    let none = fixture.query(QUEUE).await;
    assert_eq!(value(&none), "0");
    assert!(none.text.contains("has no pods"), "{}", none.text);
    let all = fixture.query("sum(collector_replica_queue_length)").await;
    assert_eq!(value(&all), "5");
    let typo = fixture.query(&QUEUE.replace("org/m", "org/n")).await;
    check_refused(&typo, StatusCode::UNPROCESSABLE_ENTITY, "unknown_model", "did you mean");
    let pod = fixture.query(r#"sum(collector_replica_queue_length{pod="typo"})"#).await;
    check_refused(&pod, UNAVAILABLE, "missing", "missing is not 0");
    let pod = r#"sum(collector_replica_queue_length{model_name="org/b",pod="typo"})"#;
    check_refused(&fixture.query(pod).await, UNAVAILABLE, "missing", "missing is not 0");
    // The variant of the configuration has no pods.
    fixture.serve_queues("org/m", &[("x-0", Some(1))], Absent::None);
    fixture.collector.invalidate_cache(&model());
    fixture.read("org/m").await;
    let variant = r#"sum(collector_replica_queue_length{variant_name="m-h100"})"#;
    assert_eq!(value(&fixture.query(variant).await), "0");
    let replicas = r#"collector_allocation_replicas{variant_name="m-h100"}"#;
    let _ =
        fixture.collector.collect_allocation(&model(), &VariantName::from("m-h100")).await.unwrap();
    assert_eq!(value(&fixture.query(replicas).await), "0");
}

#[tokio::test(start_paused = true)]
async fn pods_without_series_are_no_proof_of_zero() {
    let fixture = fixture();
    fixture.backend.serve(&model(), |as_of| ModelSample::new(as_of, Vec::new()));
    fixture.read("org/m").await;
    check_refused(&fixture.query(QUEUE).await, UNAVAILABLE, "missing", "or they are not scraped");
    let _ =
        fixture.collector.collect_allocation(&model(), &VariantName::from("m-h100")).await.unwrap();
    for series in ["replicas", "arrival_rate_per_minute"] {
        let query = format!("collector_allocation_{series}{{variant_name=\"m-h100\"}}");
        let answer = fixture.query(&query).await;
        check_refused(&answer, UNAVAILABLE, "missing", "or they are not scraped");
    }
}

#[tokio::test(start_paused = true)]
async fn what_needs_a_server_says_so() {
    let fixture = fixture();
    fixture.read("org/m").await;
    for query in ["up", "sum(rate(collector_replica_queue_length[1m]))", "1 + 1"] {
        let answer = fixture.query(query).await;
        check_refused(&answer, UNAVAILABLE, "no_server", "set prometheus.url");
    }
    let raw = fixture.get("/raw/api/v1/query?query=up").await;
    assert_eq!(raw.status, UNAVAILABLE, "{}", raw.text);
    assert!(raw.text.contains("no PromQL server is configured"), "{}", raw.text);
}

/// A pod with a row, and a cluster that lists it as Ready, another that starts, and what two variants want.
fn in_a_cluster(of_other: Option<u32>) -> impl Fn(Tick) -> ModelSample {
    move |as_of| {
        let pod = |name: &str, state| Pod::new(name.into(), state, as_of);
        let pods = vec![pod("m-0", PodState::Ready), pod("m-1", PodState::Starting)];
        let workloads = vec![
            Workload::new(Some("m".into()), Some(2), pods),
            Workload::new(Some("other".into()), of_other, Vec::new()),
        ];
        let mut sample = ModelSample::new(as_of, vec![ReplicaMetrics::new("m-0", as_of)]);
        sample.supply = Some(Arc::new(Supply::new(as_of, workloads)));
        sample
    }
}

#[tokio::test(start_paused = true)]
async fn supply_is_answered_by_variant_and_an_unknown_part_of_it_is_no_zero() {
    let fixture = fixture();
    let of = |name: &str, more: &str| {
        format!("sum({name}{{namespace=\"prod\",model_name=\"org/m\"{more}}})")
    };
    fixture.backend.serve(&model(), in_a_cluster(Some(3)));
    fixture.read("org/m").await;
    tokio::time::advance(Duration::from_secs(2)).await;
    let page = fixture.get("/metrics").await.text;
    let labels = "{model_name=\"org/m\",namespace=\"prod\",variant_name=\"m\"";
    for (series, number) in [
        (format!("collector_supply_pods{labels},state=\"ready\"}}"), 1),
        (format!("collector_supply_pods{labels},state=\"starting\"}}"), 1),
        (format!("collector_supply_pods{labels},state=\"notReady\"}}"), 0),
        (format!("collector_supply_wanted{labels},state=\"\"}}"), 2),
        (format!("collector_supply_age_seconds{labels},state=\"\"}}"), 2),
    ] {
        assert!(page.contains(&format!("{series} {number}\n")), "no {series} {number} in {page}");
    }
    let ready = of("collector_supply_pods", ",state=\"ready\"");
    assert_eq!(value(&fixture.query(&ready).await), "1");
    let wanted = of("collector_supply_wanted", "");
    assert_eq!(value(&fixture.query(&wanted).await), "5");

    fixture.backend.serve(&model(), in_a_cluster(None));
    fixture.collector.invalidate_cache(&model());
    fixture.read("org/m").await;
    tokio::time::advance(Duration::from_secs(10)).await;
    check_refused(&fixture.query(&wanted).await, UNAVAILABLE, "partial", "of a variant of");
    let one = of("collector_supply_wanted", ",variant_name=\"m\"");
    assert_eq!(value(&fixture.query(&one).await), "2");

    fixture
        .backend
        .serve(&model(), |as_of| ModelSample::new(as_of, vec![ReplicaMetrics::new("m-0", as_of)]));
    fixture.collector.invalidate_cache(&model());
    fixture.read("org/m").await;
    tokio::time::advance(Duration::from_secs(10)).await;
    check_refused(&fixture.query(&ready).await, UNAVAILABLE, "missing", "no cluster is asked");
}
