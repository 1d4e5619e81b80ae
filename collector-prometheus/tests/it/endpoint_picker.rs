// SPDX-License-Identifier: Apache-2.0
//! The endpoint picker of a model, from the series that a real Prometheus has of it.

use collector_core::{Answer, EndpointPicker, EndpointPickerLoad, ModelSample, Saturation};

use crate::fake::{Fake, found};
use crate::written::{MODEL, Reader, Row, USUAL, changed, fleet, scene, served};

/// A series of the endpoint picker `epp-0`.
fn series(name: &str, labels: &[(&str, &str)], value: f64) -> Row {
    let mut row = Row::still(name, labels, value);
    for (label, value) in [
        ("namespace", "prod"),
        ("pod", "epp-0"),
        ("service", "pool-epp"),
        ("instance", "10.0.0.9:9090"),
        ("job", "prod/epp"),
    ] {
        row.set(label, value);
    }
    row
}

/// The series of every endpoint picker with flow control, in a generation of names.
fn idle(prefix: &str) -> Vec<Row> {
    let pool = ("inference_pool", "pool");
    let saturation = format!("{prefix}flow_control_pool_saturation");
    vec![
        series(&format!("{prefix}info"), &[("commit", "c")], 1.0),
        series(&saturation, &[pool, ("stage", "effective")], 0.5),
        series(&saturation, &[pool, ("stage", "prefill")], 0.1),
        series(&saturation, &[pool, ("stage", "decode")], 0.5),
    ]
}

/// The oldest generation, which newer builds write as well.
fn legacy() -> Vec<Row> {
    let mut rows = idle("inference_extension_");
    rows.push(series("inference_pool_ready_pods", &[("name", "pool")], 2.0));
    rows
}

fn queue(prefix: &str, model: &str, tenant: &str, requests: f64) -> Row {
    let labels = [
        ("fairness_id", tenant),
        ("priority", "0"),
        ("inference_pool", "pool"),
        ("model_name", model),
        ("target_model_name", model),
    ];
    series(&format!("{prefix}flow_control_queue_size"), &labels, requests)
}

fn in_flight(name: &str, endpoint: &str, producer: &str, value: f64) -> Row {
    let labels = [
        ("endpoint_name", endpoint),
        ("producer_name", producer),
        ("fairness_id", "f"),
        ("priority", "0"),
    ];
    series(&format!("llm_d_epp_inflight_{name}"), &labels, value)
}

fn busy() -> Vec<Row> {
    let mut rows = idle("llm_d_epp_");
    let outcome = |outcome, value| {
        let labels = [("outcome", outcome), ("priority", "0"), ("inference_pool", "pool")];
        series("llm_d_epp_flow_control_requests_total", &labels, value)
    };
    let of_model = [("model_name", MODEL), ("target_model_name", MODEL), ("priority", "0")];
    rows.extend([
        queue("llm_d_epp_", MODEL, "a", 2.0),
        queue("llm_d_epp_", MODEL, "b", 3.0),
        queue("llm_d_epp_", "other", "a", 40.0),
        series("llm_d_epp_flow_control_queue_bytes", &of_model, 700.0),
        series("llm_d_epp_request_running", &of_model, 9.0),
        in_flight("requests", "m-0-rank-0", "p", 4.0),
        in_flight("requests", "m-1-rank-0", "p", 3.0),
        in_flight("requests", "m-0-rank-0", "q", 4.0),
        in_flight("requests", "gone-rank-0", "p", 90.0),
        in_flight("tokens", "m-0-rank-0", "p", 1200.0),
        series("llm_d_epp_flow_control_stale_endpoints", &[("detector", "d")], 1.0),
        outcome("Dispatched", 800.0),
        outcome("RejectedCapacity", 5.0),
        outcome("EvictedTTL", 2.0),
    ]);
    rows
}

fn with_fleet(rows: Vec<Row>) -> Vec<Row> {
    fleet().into_iter().chain(rows).collect()
}

#[track_caller]
fn load(sample: &ModelSample) -> EndpointPickerLoad {
    let picker = &sample.endpoint_picker;
    picker.load().unwrap_or_else(|| panic!("{picker:?} {:?}", sample.warnings)).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_number_is_of_the_model_in_every_generation_and_through_copies() {
    // Two servers scrape everything, and a store shows both.
    let copies = |name| {
        let of = |replica| changed(with_fleet(busy()), move |row| row.set("replica", replica));
        scene(name, [of("a"), of("b")].concat())
    };
    let queued = |prefix: &str, mut rows: Vec<Row>| {
        rows.push(queue(prefix, MODEL, "a", 4.0));
        rows
    };
    let both = [queued("inference_extension_", legacy()), queued("llm_d_epp_", idle("llm_d_epp_"))];
    let rows = [
        scene("busy", with_fleet(busy())),
        copies("copies"),
        scene("legacy", with_fleet(queued("inference_extension_", legacy()))),
        scene("router", with_fleet(queued("llm_d_router_epp_", idle("llm_d_router_epp_")))),
        scene("both", with_fleet(both.concat())),
    ];
    let Some(server) = served(&rows.concat(), USUAL).await else { return };
    for name in ["busy", "copies"] {
        let sample = Reader::of_scene(&server.url(), name).sample(MODEL).await;
        let load = load(&sample);
        let mut expected = EndpointPickerLoad::new(load.sampled_at);
        expected.flow_control = true;
        expected.queued_requests = Some(5);
        expected.queued_bytes = Some(700);
        expected.running_requests = Some(9);
        expected.in_flight_requests = Some(7);
        expected.in_flight_tokens = Some(1200);
        let mut saturation = Saturation::default();
        (saturation.effective, saturation.prefill) = (Some(0.5), Some(0.1));
        saturation.decode = Some(0.5);
        expected.saturation = saturation;
        expected.stale_endpoints = Some(1);
        expected.rejected_requests = Some(7);
        assert_eq!(load, expected, "{name}");
        let age = load.sampled_at.age(sample.as_of).as_secs_f64();
        assert!(age <= 16.0, "the scrapes are 15 s apart: {age}");
        assert_eq!(sample.replicas.len(), 2, "{name}");
    }
    for name in ["legacy", "router", "both"] {
        let sample = Reader::of_scene(&server.url(), name).sample(MODEL).await;
        assert_eq!(load(&sample).queued_requests, Some(4), "{name}");
        assert_eq!(load(&sample).saturation.effective, Some(0.5), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn off_idle_gone_and_none_are_four_states() {
    let off = vec![series("llm_d_epp_info", &[("commit", "c")], 1.0)];
    // Its samples are too old to be current, and within the hour.
    let gone = changed(busy(), |row| row.newest = 480.0);
    let unnamed = changed(busy(), |row| row.set("namespace", ""));
    let mut waiting = idle("llm_d_epp_");
    waiting.push(queue("llm_d_epp_", MODEL, "a", 3.0));
    // Another endpoint picker has the series by which the age is known.
    let mut undated: Vec<Row> =
        waiting.iter().filter(|row| row.name != "llm_d_epp_info").cloned().collect();
    undated.extend(changed(idle("llm_d_epp_"), |row| row.set("namespace", "elsewhere")));
    let rows = [
        scene("off", with_fleet(off)),
        scene("idle", with_fleet(idle("llm_d_epp_"))),
        scene("gone", with_fleet(gone)),
        scene("unnamed", with_fleet(unnamed)),
        scene("none", fleet()),
        scene("zero", waiting),
        scene("undated", with_fleet(undated)),
    ];
    let Some(server) = served(&rows.concat(), USUAL).await else { return };
    let of = async |name: &str| Reader::of_scene(&server.url(), name).sample(MODEL).await;

    let off = of("off").await;
    assert_eq!((load(&off).flow_control, load(&off).queued_requests), (false, None));
    let idle = of("idle").await;
    assert_eq!((load(&idle).flow_control, load(&idle).queued_requests), (true, Some(0)));
    let none = of("none").await;
    assert_eq!((none.endpoint_picker, none.warnings.len()), (EndpointPicker::None, 0));
    for (name, word) in [
        ("gone", "is gone"),
        ("unnamed", "prometheus.labels.namespace"),
        ("undated", "when it was sampled"),
    ] {
        let sample = of(name).await;
        assert_eq!(sample.endpoint_picker.queued_requests(), None, "{name}");
        let warning = sample.warnings.iter().find(|warning| warning.contains(word));
        assert!(warning.is_some(), "{name}: {:?}", sample.warnings);
        assert_eq!(sample.replicas.len(), 2, "{name}");
    }
    // The model has no pod, and three requests wait for one.
    let zero = of("zero").await;
    assert_eq!((zero.replicas.len(), zero.endpoint_picker.queued_requests()), (0, Some(3)));
    let reader = Reader::of_scene(&server.url(), "zero");
    assert!(matches!(reader.answer("misspelt").await, Answer::Missing { .. }));
}

#[tokio::test]
async fn where_the_question_fails_the_queue_is_unknown_and_the_rest_is_as_it_was() {
    let fake = Fake::start().await;
    crate::fake::two_pods(&fake);
    fake.answer("llm_d_epp_info", crate::fake::error(422, "execution", "too many samples"));
    let sample = fake.sample().await;
    assert_eq!(sample.replicas.len(), 2);
    assert_eq!(sample.endpoint_picker.queued_requests(), None);
    assert!(sample.warnings[0].contains("too many samples"), "{:?}", sample.warnings);
    assert!(found(fake.answer_for_m().await.unwrap()).failed.is_empty());
}
