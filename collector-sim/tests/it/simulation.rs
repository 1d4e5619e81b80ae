// SPDX-License-Identifier: Apache-2.0
//! The state machine: what it shows follows from the load, the seed and the time alone.

use std::time::{Duration, SystemTime};

use collector_sim::{
    Arrivals, EngineKind, EngineSpec, Fleet, FleetError, FleetSpec, Gauges, HotModel, Load, Shape,
    Totals, VariantSpec, Variation,
};

use crate::text::Text;

const MODEL: &str = "org/model";

fn lively(requests_per_minute: f64) -> Load {
    Load {
        requests_per_minute,
        arrivals: Arrivals::Poisson,
        variation: Variation::Spread,
        ..Load::default()
    }
}

fn fleet_of(seed: u64, variants: Vec<VariantSpec>) -> Fleet {
    let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_755_400_000);
    Fleet::new(FleetSpec { seed, variants, ..FleetSpec::default() }, epoch).unwrap()
}

fn one_variant(pods: u32, load: Load) -> VariantSpec {
    VariantSpec { pods, load, ..VariantSpec::new("v", MODEL, "ns") }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[track_caller]
fn assert_close(value: Option<f64>, expected: f64, tolerance: f64) {
    let value = value.expect("measured");
    assert!((value / expected - 1.0).abs() <= tolerance, "{value} is not {expected}");
}

#[test]
fn the_same_seed_shows_the_same_page_at_any_read() {
    let spec = || vec![one_variant(2, lively(600.0))];
    let mut once = fleet_of(7, spec());
    let mut often = fleet_of(7, spec());
    for step in 0..3000 {
        often.advance_to(Duration::from_millis(step * 41));
        often.page("ns", "v-1").unwrap();
    }
    for fleet in [&mut once, &mut often] {
        fleet.advance_to(at(123));
    }
    assert_eq!(once.page("ns", "v-1"), often.page("ns", "v-1"));

    let mut other = fleet_of(8, spec());
    other.advance_to(at(123));
    assert_ne!(once.page("ns", "v-1"), other.page("ns", "v-1"));
}

#[test]
fn every_request_is_waiting_running_or_finished() {
    let engine = EngineSpec { max_num_seqs: 6, num_gpu_blocks: 300, ..EngineSpec::default() };
    let mut fleet = fleet_of(3, vec![VariantSpec { engine, ..one_variant(3, lively(600.0)) }]);
    let mut queued = false;
    for second in 1..300 {
        fleet.advance_to(at(second));
        for pod in ["v-0", "v-1", "v-2"] {
            let truth = fleet.truth("ns", pod).unwrap();
            let inside = u64::from(truth.waiting() + truth.running());
            assert_eq!(truth.totals.arrived, truth.totals.finished + inside);
            queued |= truth.waiting() > 0;
        }
    }
    assert!(queued, "the load was meant to make queues");
}

#[test]
fn counters_decrease_only_at_a_restart() {
    let mut fleet = fleet_of(3, vec![one_variant(1, lively(600.0))]);
    let counters = |fleet: &mut Fleet| {
        let mut text = Text::parse(&fleet.page("ns", "v-0").unwrap());
        let parts = ["_total{", "_bucket{", "_count{", "_sum{"];
        text.samples.retain(|series, _| parts.iter().any(|part| series.contains(part)));
        text.samples
    };
    let mut before = counters(&mut fleet);
    for step in 1..400 {
        fleet.advance_to(Duration::from_millis(step * 137));
        let now = counters(&mut fleet);
        for (series, value) in &now {
            assert!(value >= &before[series], "{series} fell to {value}");
        }
        before = now;
    }

    fleet.restart_pod("ns", "v-0").unwrap();
    assert!(counters(&mut fleet).values().all(|value| value.abs() < f64::EPSILON));
    let created = fleet.page("ns", "v-0").unwrap();
    assert!(created.contains("process_start_time_seconds 1.755400054663e+09"), "{created}");
}

#[test]
fn the_page_shows_the_truth() {
    let engine = EngineSpec { max_num_seqs: 6, ..EngineSpec::default() };
    let mut fleet = fleet_of(5, vec![VariantSpec { engine, ..one_variant(2, lively(600.0)) }]);
    fleet.advance_to(at(300));
    let truth = fleet.truth("ns", "v-0").unwrap();
    let text = Text::parse(&fleet.page("ns", "v-0").unwrap());
    let check = |name: &str, truth: f64| {
        let shown = text.only(name);
        assert!((shown - truth).abs() < 1e-6, "{name} shows {shown}, the truth is {truth}");
    };
    check("vllm:num_requests_waiting", f64::from(truth.waiting()));
    check("vllm:num_requests_running", f64::from(truth.running()));
    check("vllm:kv_cache_usage_perc", truth.kv_cache_usage());
    let Totals { prompt_tokens, output_tokens, finished, .. } = truth.totals;
    check("vllm:request_prompt_tokens_count", finished as f64);
    check("vllm:request_prompt_tokens_sum", prompt_tokens as f64);
    check("vllm:request_generation_tokens_sum", output_tokens as f64);
    check("vllm:time_to_first_token_seconds_sum", truth.totals.ttft.as_secs_f64());
    check("vllm:time_to_first_token_seconds_count", truth.totals.first_tokens as f64);
    check("vllm:inter_token_latency_seconds_sum", truth.totals.itl.as_secs_f64());
    check("vllm:inter_token_latency_seconds_count", truth.totals.gaps as f64);
    check("vllm:prefix_cache_queries_total", truth.totals.prefix_queries as f64);
    check("vllm:prefix_cache_hits_total", truth.totals.prefix_hits as f64);
    assert!(truth.waiting() > 0 && truth.running() > 0 && truth.kv_cache_usage() > 0.0);
}

#[test]
fn a_steady_load_gives_exactly_the_described_rates() {
    let mut fleet = fleet_of(1, vec![one_variant(4, Load::default())]);
    fleet.advance_to(at(60));
    let before = fleet.model_truth("ns", MODEL).unwrap().totals;
    fleet.advance_to(at(120));
    let minute = fleet.model_truth("ns", MODEL).unwrap().totals - before;

    assert_eq!((minute.arrived, minute.finished), (240, 240));
    assert_close(minute.mean_prompt_tokens(), 500.0, 1e-9);
    assert_close(minute.mean_output_tokens(), 100.0, 1e-9);
    assert_close(minute.mean_ttft(), 0.080, 1e-9);
    assert_close(minute.mean_itl(), 0.020, 1e-9);
    assert_close(minute.prefix_hit_ratio(), 0.4, 1e-4);
}

#[test]
fn a_lively_load_keeps_its_means_and_littles_law() {
    let mut fleet = fleet_of(1, vec![one_variant(4, lively(600.0))]);
    let mut running = 0;
    for second in 1..=3600 {
        fleet.advance_to(at(second));
        running += ["v-0", "v-1", "v-2", "v-3"]
            .map(|pod| fleet.truth("ns", pod).unwrap().running())
            .iter()
            .sum::<u32>();
    }
    let totals = fleet.model_truth("ns", MODEL).unwrap().totals;
    assert_close(Some(totals.arrived as f64), 36_000.0, 0.02);
    assert_close(totals.mean_prompt_tokens(), 500.0, 0.02);
    assert_close(totals.mean_output_tokens(), 100.0, 0.02);
    // With room for everybody: in the system = rate x (time to first token + answer).
    let expected = 10.0 * (0.08 + 99.0 * 0.02);
    assert_close(Some(f64::from(running) / 3600.0), expected, 0.03);
}

#[test]
fn the_load_of_a_killed_pod_goes_to_the_others() {
    let mut fleet = fleet_of(1, vec![one_variant(3, Load::default())]);
    fleet.advance_to(at(60));
    fleet.kill_pod("ns", "v-1").unwrap();
    assert_eq!(fleet.truth("ns", "v-1"), None);
    assert_eq!(fleet.page("ns", "v-1"), None);
    let before = fleet.truth("ns", "v-0").unwrap().totals;
    fleet.advance_to(at(120));
    assert_eq!((fleet.truth("ns", "v-0").unwrap().totals - before).arrived, 120);
    let model = fleet.model_truth("ns", MODEL).unwrap();
    assert_eq!((model.pods, model.totals.arrived, model.refused), (2, 480, 0));

    fleet.kill_pod("ns", "v-0").unwrap();
    fleet.kill_pod("ns", "v-2").unwrap();
    fleet.advance_to(at(180));
    let model = fleet.model_truth("ns", MODEL).unwrap();
    assert_eq!((model.pods, model.totals.arrived, model.refused), (0, 480, 240));
}

#[test]
fn a_new_pod_takes_its_share_and_names_are_not_used_again() {
    let mut fleet = fleet_of(1, vec![one_variant(1, Load::default())]);
    assert_eq!(fleet.add_pod("ns", "v").unwrap(), "v-1");
    fleet.advance_to(at(60));
    assert_eq!(fleet.truth("ns", "v-1").unwrap().totals.arrived, 120);
    fleet.delete_pod("ns", "v-1").unwrap();
    assert_eq!(fleet.add_pod("ns", "v").unwrap(), "v-2");
    assert!(matches!(fleet.kill_pod("ns", "v-1"), Err(FleetError::NoSuchPod { .. })));
}

#[test]
fn two_variants_of_a_model_are_one_model() {
    let variants = ["a", "b"]
        .map(|name| VariantSpec { pods: 1, ..VariantSpec::new(name, MODEL, "ns") })
        .to_vec();
    let mut fleet = fleet_of(1, variants);
    fleet.advance_to(at(60));
    let model = fleet.model_truth("ns", MODEL).unwrap();
    assert_eq!((model.pods, model.totals.arrived), (2, 480));
    assert_close(Some(model.requests_per_minute), 480.0, 1e-9);
    assert_eq!(fleet.model_truth("other", MODEL), None);
}

#[test]
fn a_load_can_end_and_begin_again() {
    let mut fleet = fleet_of(1, vec![one_variant(1, Load::default())]);
    fleet.advance_to(at(60));
    fleet.set_requests_per_minute("ns", "v", 0.0).unwrap();
    fleet.advance_to(at(600));
    let idle = fleet.truth("ns", "v-0").unwrap();
    assert_eq!((idle.totals.arrived, idle.totals.finished, idle.running()), (240, 240, 0));
    fleet.set_requests_per_minute("ns", "v", 60.0).unwrap();
    fleet.advance_to(at(610));
    assert_eq!(fleet.truth("ns", "v-0").unwrap().totals.arrived, 250);
    let error = fleet.set_requests_per_minute("ns", "v", f64::NAN).unwrap_err();
    assert!(matches!(error, FleetError::BadLoad(_)));
}

#[test]
fn pinned_gauges_are_shown_and_true_until_unpinned() {
    let mut fleet = fleet_of(1, vec![one_variant(1, Load::default())]);
    fleet.advance_to(at(60));
    let own = fleet.truth("ns", "v-0").unwrap().engines[0];
    let pinned = Gauges { waiting: 17, running: 3, kv_cache_usage: 0.875 };
    fleet.pin("ns", "v-0", 0, pinned).unwrap();
    assert_eq!(fleet.truth("ns", "v-0").unwrap().engines, [pinned]);
    let text = Text::parse(&fleet.page("ns", "v-0").unwrap());
    assert!((text.only("vllm:kv_cache_usage_perc") - 0.875).abs() < f64::EPSILON);
    assert!((text.only("vllm:num_requests_waiting") - 17.0).abs() < f64::EPSILON);
    fleet.unpin("ns", "v-0").unwrap();
    assert_eq!(fleet.truth("ns", "v-0").unwrap().engines, [own]);
    let error = fleet.pin("ns", "v-0", 1, pinned).unwrap_err();
    assert!(matches!(error, FleetError::NoSuchEngine { engine: 1, .. }));
}

#[test]
fn a_load_follows_its_shape() {
    let shape = Shape::Burst { factor: 3.0, every: at(60), lasts: at(20), after: at(40) };
    let load = Load { shape, ..Load::default() };
    let mut fleet = fleet_of(1, vec![one_variant(2, load)]);
    fleet.advance_to(at(40));
    let before = fleet.model_truth("ns", MODEL).unwrap();
    fleet.advance_to(at(50));
    assert_close(Some(fleet.model_truth("ns", MODEL).unwrap().requests_per_minute), 720.0, 1e-9);
    fleet.advance_to(at(60));
    let after = fleet.model_truth("ns", MODEL).unwrap();
    assert_eq!((before.totals.arrived, after.totals.arrived), (160, 400));
}

#[test]
fn a_new_shape_begins_when_it_is_set() {
    let mut fleet = fleet_of(1, vec![one_variant(1, Load::default())]);
    fleet.advance_to(at(1000));
    let shape = Shape::Ramp { from: 0.0, to: 1.0, over: at(60), after: at(0) };
    fleet.set_load("ns", "v", Load { shape, ..Load::default() }).unwrap();
    let begun = fleet.truth("ns", "v-0").unwrap().totals.arrived;
    fleet.advance_to(at(1060));
    let ramp = fleet.truth("ns", "v-0").unwrap().totals.arrived - begun;
    assert!((118..=121).contains(&ramp), "{ramp}");
    assert_eq!(fleet.load("ns", "v").unwrap().shape, shape);
}

#[test]
fn models_take_turns_at_being_hot() {
    let variants = ["a", "b", "c"].map(|name| VariantSpec {
        // Two variants of the first model.
        model: if name == "c" { "a" } else { name }.to_owned(),
        ..VariantSpec::new(name, MODEL, "ns")
    });
    let hot_model = Some(HotModel { factor: 5.0, turn: at(30) });
    let spec = FleetSpec { hot_model, variants: variants.to_vec(), ..FleetSpec::default() };
    let mut fleet = Fleet::new(spec, SystemTime::UNIX_EPOCH).unwrap();
    let too_much = Load { requests_per_minute: 20_000.0, ..Load::default() };
    let error = fleet.set_load("ns", "b", too_much).unwrap_err().to_string();
    assert!(error.contains("while its model is hot, requests_per_minute = 100000"), "{error}");
    for (second, a, b) in [(1, 2400.0, 240.0), (31, 480.0, 1200.0), (61, 2400.0, 240.0)] {
        fleet.advance_to(at(second));
        let mut rate = |model| fleet.model_truth("ns", model).unwrap().requests_per_minute;
        assert_close(Some(rate("a")), a, 1e-9);
        assert_close(Some(rate("b")), b, 1e-9);
    }
}

#[test]
fn a_new_prefix_hit_ratio_holds_from_now_on() {
    let mut fleet = fleet_of(1, vec![one_variant(1, Load::default())]);
    fleet.advance_to(at(60));
    let before = fleet.truth("ns", "v-0").unwrap().totals;
    let load = Load { prefix_hit_ratio: 0.1, ..Load::default() };
    fleet.set_load("ns", "v", load).unwrap();
    fleet.advance_to(at(120));
    let minute = fleet.truth("ns", "v-0").unwrap().totals - before;
    assert_close(minute.prefix_hit_ratio(), 0.1, 1e-3);
}

#[test]
fn the_demo_fleet_is_neither_idle_nor_saturated() {
    let mut fleet = Fleet::new(FleetSpec::demo(), SystemTime::UNIX_EPOCH).unwrap();
    let pods: Vec<_> = fleet.pods().map(|(ns, pod)| (ns.to_owned(), pod.to_owned())).collect();
    assert_eq!(pods.len(), 24);
    for minutes in [5, 10, 30, 60] {
        fleet.advance_to(at(minutes * 60));
        for (namespace, pod) in &pods {
            let truth = fleet.truth(namespace, pod).unwrap();
            assert!((0.02..=1.0).contains(&truth.kv_cache_usage()), "{pod}: {truth:?}");
            assert!(truth.running() > 0 && truth.waiting() < 50, "{pod}: {truth:?}");
        }
    }
}

#[test]
fn a_fleet_can_be_described_in_toml() {
    let spec: FleetSpec = toml::from_str(
        r#"
        seed = 9
        warm_up = "2m"
        [[variants]]
        name = "llama-h100"
        model = "meta-llama/Llama-3.1-8B-Instruct"
        namespace = "chat"
        pods = 3
        engine = { engines = 2, max_num_seqs = 64 }
        load = { requests_per_minute = 90, itl = "25ms", arrivals = "poisson", variation = "spread" }
        "#,
    )
    .unwrap();
    let variant = &spec.variants[0];
    assert_eq!(spec.warm_up, at(120));
    assert_eq!((variant.pods, variant.engine.engines, variant.engine.block_size), (3, 2, 16));
    assert_eq!(variant.load.itl, Duration::from_millis(25));
    assert_eq!(variant.load.arrivals, Arrivals::Poisson);
    assert!(toml::from_str::<FleetSpec>("[[variants]]\nname = \"a\"").is_err());
    assert!(toml::from_str::<FleetSpec>("sed = 1").unwrap_err().to_string().contains("sed"));
}

#[track_caller]
fn check_refused(variant: VariantSpec, words: &str) {
    let spec = FleetSpec { variants: vec![variant], ..FleetSpec::default() };
    let error = Fleet::new(spec, SystemTime::UNIX_EPOCH).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn impossible_descriptions_are_refused_with_their_reason() {
    let variant = || VariantSpec::new("v", MODEL, "ns");
    let engine = EngineSpec { num_gpu_blocks: 10, ..EngineSpec::default() };
    check_refused(VariantSpec { engine, ..variant() }, "its longest request has 600 tokens");
    let engine = EngineSpec { block_size: 0, ..EngineSpec::default() };
    check_refused(VariantSpec { engine, ..variant() }, "the KV cache 0");
    let engine =
        EngineSpec { engines: 2, names: collector_sim::MetricNames::V0, ..EngineSpec::default() };
    check_refused(VariantSpec { engine, ..variant() }, "no label to tell engines apart");
    let engine = EngineSpec { engines: 2, kind: EngineKind::TrtllmServe, ..EngineSpec::default() };
    check_refused(VariantSpec { engine, ..variant() }, "no label to tell engines apart");
    let engine = EngineSpec {
        kind: EngineKind::Sglang,
        names: collector_sim::MetricNames::V0,
        ..EngineSpec::default()
    };
    check_refused(VariantSpec { engine, ..variant() }, "a generation of vLLM");
    let engine = EngineSpec { lora_adapters: vec!["a,b".into()], ..EngineSpec::default() };
    check_refused(VariantSpec { engine, ..variant() }, "holds a comma");
    let engine = EngineSpec {
        kind: EngineKind::Sglang,
        lora_adapters: vec!["a".into()],
        ..EngineSpec::default()
    };
    check_refused(VariantSpec { engine, ..variant() }, "need a vLLM");
    let shape = Shape::Burst { factor: 1000.0, every: at(60), lasts: at(1), after: at(0) };
    let load = Load { shape, ..Load::default() };
    check_refused(VariantSpec { load, ..variant() }, "with its shape, requests_per_minute");
    check_refused(VariantSpec { load: lively(-1.0), ..variant() }, "requests_per_minute = -1");
    check_refused(VariantSpec { load: lively(f64::INFINITY), ..variant() }, "inf");
    check_refused(VariantSpec { name: String::new(), ..variant() }, "must not be empty");

    let twice = FleetSpec { variants: vec![variant(), variant()], ..FleetSpec::default() };
    let error = Fleet::new(twice, SystemTime::UNIX_EPOCH).unwrap_err().to_string();
    assert!(error.contains("there are two of this name"), "{error}");
}

#[test]
fn a_fleet_has_no_more_pods_than_a_machine_can_show() {
    let load = Load { requests_per_minute: 0.0, ..Load::default() };
    let mut fleet = fleet_of(1, vec![one_variant(10_000, load)]);
    assert_eq!(fleet.add_pod("ns", "v"), Err(FleetError::TooManyPods));
    fleet.delete_pod("ns", "v-17").unwrap();
    assert_eq!(fleet.add_pod("ns", "v").unwrap(), "v-10000");
    let two = || VariantSpec { pods: 6_000, ..VariantSpec::new("v", MODEL, "ns") };
    let other = VariantSpec { name: "w".into(), ..two() };
    let spec = FleetSpec { variants: vec![two(), other], ..FleetSpec::default() };
    assert!(spec.check().unwrap_err().to_string().contains("12000 pods"));
}
