// SPDX-License-Identifier: Apache-2.0
//! The Endpoint Picker: what its page says follows from the pods, and what it holds back is real.

use std::time::{Duration, SystemTime};

use collector_sim::{
    EngineKind, EngineSpec, Fleet, FleetSpec, Load, PickerNames, PickerSpec, VariantSpec,
};

use crate::text::Text;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A variant whose pods have room for 4 requests, each of which takes 2 s or so.
fn variant(name: &str, model: &str, pods: u32, requests_per_minute: f64) -> VariantSpec {
    VariantSpec {
        pods,
        engine: EngineSpec { max_num_seqs: 4, ..EngineSpec::default() },
        load: Load { requests_per_minute, ..Load::default() },
        ..VariantSpec::new(name, model, "ns")
    }
}

fn picker(names: PickerNames) -> PickerSpec {
    PickerSpec { names, ..PickerSpec::new("pool", "ns") }
}

fn fleet_of(variants: Vec<VariantSpec>, picker: PickerSpec) -> Fleet {
    let spec = FleetSpec { variants, pickers: vec![picker], ..FleetSpec::default() };
    Fleet::new(spec, SystemTime::UNIX_EPOCH).unwrap()
}

fn page(fleet: &mut Fleet) -> Text {
    Text::parse(&fleet.page("ns", "pool-epp").unwrap())
}

#[track_caller]
fn assert_same(shown: f64, truth: f64) {
    assert!((shown - truth).abs() < 1e-9, "{shown} is shown, {truth} is true");
}

#[test]
fn averages_and_ready_pods_count_live_pods() {
    let mut fleet = fleet_of(vec![variant("v", "m", 3, 420.0)], picker(PickerNames::LlmD));
    fleet.advance_to(at(60));
    fleet.kill_pod("ns", "v-1").unwrap();
    fleet.advance_to(at(61));
    let pods = ["v-0", "v-2"].map(|pod| fleet.truth("ns", pod).unwrap());
    let text = page(&mut fleet);
    let mean =
        |of: &dyn Fn(&collector_sim::PodTruth) -> f64| f64::midpoint(of(&pods[0]), of(&pods[1]));
    for (legacy, new, truth) in [
        ("average_queue_size", "average_queue_size", mean(&|pod| pod.waiting().into())),
        ("average_running_requests", "average_running_requests", mean(&|pod| pod.running().into())),
        ("average_kv_cache_utilization", "average_kv_cache_utilization", {
            mean(&collector_sim::PodTruth::kv_cache_usage)
        }),
        ("ready_pods", "ready_endpoints", 2.0),
    ] {
        assert_same(text.only(&format!("inference_pool_{legacy}")), truth);
        assert_same(text.only(&format!("llm_d_epp_{new}")), truth);
    }
    let queue = text.with("inference_pool_per_pod_queue_size", "model_server_pod=\"v-2\"");
    assert_same(queue, pods[1].waiting().into());
}

#[test]
fn excess_requests_are_queued_and_none_is_lost() {
    let mut fleet = fleet_of(vec![variant("v", "m", 2, 600.0)], picker(PickerNames::Router));
    fleet.advance_to(at(60));
    let truth = fleet.model_truth("ns", "m").unwrap();
    assert!(truth.held > 100, "{truth:?}");
    assert_eq!(truth.refused, 0);
    let inside: u64 = ["v-0", "v-1"]
        .iter()
        .map(|pod| fleet.truth("ns", pod).unwrap())
        .map(|pod| u64::from(pod.waiting() + pod.running()))
        .sum();
    assert_eq!(truth.totals.arrived, truth.totals.finished + inside);
    assert_eq!(truth.totals.arrived + truth.held, 600);
    for pod in ["v-0", "v-1"] {
        assert_eq!(fleet.truth("ns", pod).unwrap().waiting(), 5);
    }

    let text = page(&mut fleet);
    for prefix in ["inference_extension", "llm_d_router_epp"] {
        let sum = |name: &str| -> f64 {
            text.named(&format!("{prefix}_flow_control_{name}")).map(|(_, value)| value).sum()
        };
        assert_same(sum("queue_size"), truth.held as f64);
        // 500 tokens of 4 bytes each.
        assert_same(sum("queue_bytes"), truth.held as f64 * 2000.0);
    }
    let saturation = "inference_extension_flow_control_pool_saturation";
    assert_same(text.with(saturation, "stage=\"effective\""), 1.0);

    fleet.set_requests_per_minute("ns", "v", 0.0).unwrap();
    fleet.advance_to(at(600));
    let truth = fleet.model_truth("ns", "m").unwrap();
    assert_eq!((truth.held, truth.totals.finished), (0, 600));
}

#[test]
fn requests_without_a_pod_wait_for_one() {
    let mut fleet = fleet_of(vec![variant("v", "m", 0, 60.0)], picker(PickerNames::Legacy));
    fleet.advance_to(at(10));
    assert_eq!(fleet.model_truth("ns", "m").unwrap().held, 10);
    let text = page(&mut fleet);
    assert_same(text.only("inference_pool_ready_pods"), 0.0);
    assert_same(
        text.with("inference_extension_flow_control_pool_saturation", "stage=\"effective\""),
        1.0,
    );
    fleet.add_pod("ns", "v").unwrap();
    // Four run and five wait.
    assert_eq!(fleet.model_truth("ns", "m").unwrap().held, 1);
    fleet.advance_to(at(20));
    assert_eq!(fleet.model_truth("ns", "m").unwrap().held, 0);
}

#[test]
fn reading_a_fleet_with_a_picker_changes_nothing() {
    let make = || fleet_of(vec![variant("v", "m", 2, 300.0)], picker(PickerNames::LlmD));
    let (mut once, mut often) = (make(), make());
    for step in 0..1000 {
        often.advance_to(Duration::from_millis(step * 61));
        often.page("ns", "pool-epp").unwrap();
    }
    for fleet in [&mut once, &mut often] {
        fleet.advance_to(at(61));
    }
    assert_eq!(once.page("ns", "pool-epp"), often.page("ns", "pool-epp"));
    assert_eq!(once.page("ns", "v-1"), often.page("ns", "v-1"));
}

#[test]
fn picker_counters_outlive_the_pods_by_model() {
    let sglang = EngineSpec { kind: EngineKind::Sglang, max_num_seqs: 4, ..EngineSpec::default() };
    let variants = vec![
        variant("a", "m", 2, 60.0),
        VariantSpec { engine: sglang, ..variant("b", "m", 1, 60.0) },
        variant("c", "other", 1, 60.0),
    ];
    let mut fleet = fleet_of(variants, picker(PickerNames::LlmD));
    fleet.advance_to(at(60));
    fleet.delete_pod("ns", "a-0").unwrap();
    fleet.restart_pod("ns", "c-0").unwrap();
    let text = page(&mut fleet);
    for model in ["m", "other"] {
        let truth = fleet.model_truth("ns", model).unwrap().totals;
        let labels = format!("model_name=\"{model}\"");
        let same = |name: &str, truth: f64| {
            let shown = text.with(name, &labels);
            assert!((shown - truth).abs() < 1e-6, "{name} of {model}: {shown}, not {truth}");
        };
        same("inference_objective_request_total", truth.arrived as f64);
        same("inference_objective_input_tokens_count", truth.finished as f64);
        same("inference_objective_input_tokens_sum", truth.prompt_tokens as f64);
        same("inference_objective_output_tokens_sum", truth.output_tokens as f64);
        same("llm_d_epp_request_ttft_seconds_sum", truth.ttft.as_secs_f64());
        same("llm_d_epp_request_streaming_itl_seconds_count", truth.gaps as f64);
    }
}

#[test]
fn picker_counters_never_fall() {
    let mut fleet = fleet_of(vec![variant("v", "m", 3, 300.0)], picker(PickerNames::LlmD));
    let counters = |fleet: &mut Fleet| {
        let mut samples = page(fleet).samples;
        let parts = ["_total", "_bucket", "_count", "_sum"];
        samples.retain(|series, _| {
            let name = series.split('{').next().unwrap();
            parts.iter().any(|part| name.ends_with(part))
        });
        samples
    };
    let mut before = counters(&mut fleet);
    for second in 1..90 {
        fleet.advance_to(at(second));
        match second {
            30 => fleet.restart_pod("ns", "v-0").unwrap(),
            50 => fleet.kill_pod("ns", "v-1").unwrap(),
            70 => fleet.delete_pod("ns", "v-2").unwrap(),
            _ => {}
        }
        let now = counters(&mut fleet);
        for (series, value) in &now {
            let was = before.get(series).copied().unwrap_or(0.0);
            assert!(*value >= was, "{series} fell from {was} to {value} at {second} s");
        }
        before = now;
    }
}

#[test]
fn a_picker_needs_variants_without_another_picker() {
    let check = |pickers: Vec<PickerSpec>, words: &str| {
        let variants = vec![variant("v", "m", 1, 60.0)];
        let spec = FleetSpec { variants, pickers, ..FleetSpec::default() };
        let error = Fleet::new(spec, SystemTime::UNIX_EPOCH).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let named = PickerSpec::new;
    check(vec![named("pool", "elsewhere")], "not every variant");
    check(vec![named("one", "ns"), named("two", "ns")], "in another pool already");
    check(vec![named("one", "ns"), named("one", "ns")], "two of this name");
    check(vec![named("", "ns")], "must not be empty");
    let of = |variants: &[&str]| PickerSpec {
        variants: variants.iter().map(|name| (*name).to_owned()).collect(),
        ..named("pool", "ns")
    };
    check(vec![of(&["v", "w"])], "not every variant");
}
