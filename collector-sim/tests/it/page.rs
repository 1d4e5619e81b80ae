// SPDX-License-Identifier: Apache-2.0
//! Pages compared with those of real servers: the captures that the reader of pages is tested with.

use std::time::{Duration, SystemTime};

use collector_sim::{
    EngineKind, EngineSpec, Fleet, FleetSpec, Load, MetricNames, PickerNames, PickerSpec,
    VariantSpec,
};

use crate::text::Text;

macro_rules! capture {
    ($name:literal) => {
        include_str!(concat!("../../../collector-epp/tests/captures/", $name, ".txt"))
    };
}

fn fleet_of(spec: FleetSpec, after: Duration) -> Fleet {
    let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_755_400_000);
    let mut fleet = Fleet::new(spec, epoch).unwrap();
    fleet.advance_to(after);
    fleet
}

fn page_of(model: &str, engine: EngineSpec, after: Duration) -> String {
    let variant = VariantSpec { pods: 1, engine, ..VariantSpec::new("v", model, "ns") };
    let spec = FleetSpec { variants: vec![variant], ..FleetSpec::default() };
    fleet_of(spec, after).page("ns", "v-0").unwrap()
}

fn kind(kind: EngineKind) -> EngineSpec {
    EngineSpec { kind, ..EngineSpec::default() }
}

fn names(names: MetricNames) -> EngineSpec {
    EngineSpec { names, ..EngineSpec::default() }
}

fn with_adapters() -> EngineSpec {
    let lora_adapters = ["sql", "tweets", "support"].map(str::to_owned).to_vec();
    EngineSpec { lora_adapters, ..EngineSpec::default() }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Families, types, labels and buckets are those of the capture: no more and no fewer.
#[track_caller]
fn check_shape(page: &str, capture: &str) {
    let (shown, expected) = (Text::parse(page).shape(), Text::parse(capture).shape());
    for (family, expected) in &expected {
        assert_eq!(shown.get(family), Some(expected), "{family}");
    }
    let invented: Vec<_> = shown.keys().filter(|family| !expected.contains_key(*family)).collect();
    assert!(invented.is_empty(), "{invented:?}");
}

#[test]
fn a_v1_page_has_exactly_the_families_labels_and_buckets_of_vllm() {
    check_shape(&page_of("m", names(MetricNames::V1), MINUTE), capture!("vllm_v1"));
}

#[test]
fn a_v0_page_has_exactly_the_families_labels_and_buckets_of_older_vllm() {
    check_shape(&page_of("m", names(MetricNames::V0), MINUTE), capture!("vllm_old_names"));
}

#[test]
fn a_data_parallel_page_has_exactly_the_families_labels_and_buckets_of_vllm() {
    let engine = EngineSpec { engines: 4, ..EngineSpec::default() };
    check_shape(&page_of("m", engine, MINUTE), capture!("vllm_dp4"));
}

#[test]
fn a_page_with_adapters_has_exactly_the_families_labels_and_buckets_of_vllm() {
    check_shape(&page_of("m", with_adapters(), MINUTE), capture!("vllm_lora"));
}

#[test]
fn an_sglang_page_has_exactly_the_families_labels_and_buckets_of_sglang() {
    let engine = EngineSpec { engines: 2, ..kind(EngineKind::Sglang) };
    check_shape(&page_of("m", engine, MINUTE), capture!("sglang"));
}

#[test]
fn a_trtllm_page_has_exactly_the_families_labels_and_buckets_of_trtllm_serve() {
    check_shape(&page_of("m", kind(EngineKind::TrtllmServe), MINUTE), capture!("trtllm"));
}

#[test]
fn a_triton_page_has_exactly_the_families_and_labels_of_triton() {
    let page = page_of("m", kind(EngineKind::TritonTensorrtLlm), MINUTE);
    check_shape(&page, capture!("triton_trtllm"));
    for quantity in ["waiting", "context", "scheduled", "max", "active"] {
        let labels =
            format!("{{model=\"tensorrt_llm\",request_type=\"{quantity}\",version=\"1\"}}");
        assert!(page.contains(&format!("nv_trt_llm_request_metrics{labels} ")), "{quantity}");
    }
}

#[test]
fn a_pickers_page_has_exactly_the_families_labels_and_buckets_of_each_generation() {
    for (names, capture) in [
        (PickerNames::Legacy, capture!("epp")),
        (PickerNames::Router, capture!("epp_router_names")),
        (PickerNames::LlmD, capture!("epp_llm_d_names")),
    ] {
        let picker = PickerSpec { names, ..PickerSpec::new("pool", "ns") };
        let spec = FleetSpec {
            variants: vec![VariantSpec::new("v", "m", "ns")],
            pickers: vec![picker],
            ..FleetSpec::default()
        };
        check_shape(&fleet_of(spec, MINUTE).page("ns", "pool-epp").unwrap(), capture);
    }
}

#[test]
fn samples_carry_the_labels_of_vllm_in_its_order() {
    let page = page_of("a/b", names(MetricNames::V1), MINUTE);
    for line in [
        "vllm:num_requests_running{engine=\"0\",model_name=\"a/b\"} ",
        "vllm:num_requests_waiting_by_reason{engine=\"0\",model_name=\"a/b\",reason=\"capacity\"} ",
        "vllm:engine_sleep_state{engine=\"0\",model_name=\"a/b\",sleep_state=\"awake\"} 1.0",
        "vllm:request_success_created{engine=\"0\",finished_reason=\"stop\",model_name=\"a/b\"} 1.7554e+09",
        "vllm:request_prompt_tokens_bucket{engine=\"0\",le=\"1.0\",model_name=\"a/b\"} 0.0",
        "vllm:cache_config_info{block_size=\"16\",",
        "num_gpu_blocks=\"27436\",",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

#[test]
fn each_data_parallel_engine_has_its_own_samples() {
    let engine = EngineSpec { engines: 4, ..EngineSpec::default() };
    let text = Text::parse(&page_of("m", engine, MINUTE));
    let arrived: Vec<f64> =
        text.named("vllm:prefix_cache_queries_total").map(|(_, tokens)| tokens / 500.0).collect();
    // 240 requests in the minute, in turn.
    assert_eq!(arrived, [60.0; 4]);
    assert_eq!(text.named("vllm:cache_config_info").count(), 4);
}

#[test]
fn any_model_id_is_escaped() {
    let model = "a\"b\\c\nd:/{}é";
    let page = page_of(model, names(MetricNames::V1), MINUTE);
    let expected = "vllm:num_requests_running{engine=\"0\",model_name=\"a\\\"b\\\\c\\nd:/{}é\"} ";
    assert!(page.contains(expected));
    for kind in [EngineKind::Sglang, EngineKind::TrtllmServe, EngineKind::TritonTensorrtLlm] {
        Text::parse(&page_of(model, EngineSpec { kind, ..EngineSpec::default() }, MINUTE));
    }
}

#[test]
fn an_idle_engine_shows_zeros_in_every_family() {
    let text = Text::parse(&page_of("m", names(MetricNames::V1), Duration::ZERO));
    let idle = |series: &str| {
        !["_created", "_info", "sleep_state", "process_"].iter().any(|part| series.contains(part))
    };
    for (series, value) in text.samples.iter().filter(|(series, _)| idle(series)) {
        assert!(value.abs() < f64::EPSILON, "{series} is {value}");
    }
}

#[test]
fn pages_are_padded_with_existing_families() {
    for kind in [
        EngineKind::Vllm,
        EngineKind::Sglang,
        EngineKind::TrtllmServe,
        EngineKind::TritonTensorrtLlm,
    ] {
        let plain = EngineSpec { kind, ..EngineSpec::default() };
        let filled = EngineSpec { page_bytes: Some(150_000), ..plain.clone() };
        let (plain, filled) = (page_of("m", plain, MINUTE), page_of("m", filled, MINUTE));
        assert!((147_000..155_000).contains(&filled.len()), "{kind:?}: {} bytes", filled.len());
        let (plain, filled) = (Text::parse(&plain), Text::parse(&filled));
        assert_eq!(plain.families, filled.families);
        for (series, value) in &plain.samples {
            assert_eq!(filled.samples.get(series), Some(value), "{series}");
        }
    }
}

/// The truth of a pod under load, and its page.
fn busy(engine: EngineSpec) -> (collector_sim::PodTruth, Text) {
    let load = Load { requests_per_minute: 600.0, ..Load::default() };
    let engine = EngineSpec { max_num_seqs: 6, ..engine };
    let variant = VariantSpec { pods: 1, engine, load, ..VariantSpec::new("v", "m", "ns") };
    let spec = FleetSpec { variants: vec![variant], ..FleetSpec::default() };
    let mut fleet = fleet_of(spec, MINUTE);
    let truth = fleet.truth("ns", "v-0").unwrap();
    assert!(truth.waiting() > 0 && truth.running() > 0 && truth.kv_cache_usage() > 0.0);
    (truth, Text::parse(&fleet.page("ns", "v-0").unwrap()))
}

#[track_caller]
fn assert_same(shown: f64, truth: f64) {
    assert!((shown - truth).abs() < 1e-6, "{shown} is shown, {truth} is true");
}

#[test]
fn an_sglang_page_shows_gauges_by_rank_and_histograms_by_server() {
    let (truth, text) = busy(EngineSpec { engines: 2, ..kind(EngineKind::Sglang) });
    for (rank, gauges) in truth.engines.iter().enumerate() {
        let labels = format!("dp_rank=\"{rank}\",engine_type=\"unified\",model_name=\"m\"");
        assert_same(text.with("sglang:num_queue_reqs", &labels), gauges.waiting.into());
        assert_same(text.with("sglang:num_running_reqs", &labels), gauges.running.into());
        assert_same(text.with("sglang:token_usage", &labels), gauges.kv_cache_usage);
    }
    let info = text.named("sglang:cache_config_info").next().unwrap().0;
    assert!(info.contains("num_pages=\"27436\",page_size=\"16\""), "{info}");
    let totals = truth.totals;
    assert_same(text.only("sglang:num_requests_total"), totals.finished as f64);
    assert_same(text.only("sglang:prompt_tokens_histogram_sum"), totals.prompt_tokens as f64);
    assert_same(text.only("sglang:time_to_first_token_seconds_sum"), totals.ttft.as_secs_f64());
    assert_same(text.only("sglang:inter_token_latency_seconds_count"), totals.gaps as f64);
}

#[test]
fn a_trtllm_page_shows_the_truth() {
    let (truth, text) = busy(kind(EngineKind::TrtllmServe));
    assert_same(text.only("trtllm_num_requests_waiting"), truth.waiting().into());
    assert_same(text.only("trtllm_num_requests_running"), truth.running().into());
    assert_same(text.only("trtllm_kv_cache_utilization"), truth.kv_cache_usage());
    assert_same(text.only("trtllm_kv_cache_max_blocks"), truth.num_gpu_blocks.into());
    assert_same(text.only("trtllm_kv_cache_tokens_per_block"), truth.block_size.into());
    let finished = text.with("trtllm_request_success_total", "finished_reason=\"stop\"");
    assert_same(finished, truth.totals.finished as f64);
    let hit_ratio = text.only("trtllm_kv_cache_hit_rate");
    assert_same(hit_ratio, truth.totals.prefix_hit_ratio().unwrap());
}

#[test]
fn a_triton_page_shows_the_truth_in_two_families() {
    let (truth, text) = busy(kind(EngineKind::TritonTensorrtLlm));
    let requests = |of: &str| text.with("nv_trt_llm_request_metrics", &format!("type=\"{of}\""));
    assert_same(requests("waiting"), truth.waiting().into());
    assert_same(requests("scheduled"), truth.running().into());
    let blocks =
        |of: &str| text.with("nv_trt_llm_kv_cache_block_metrics", &format!("type=\"{of}\""));
    assert_same(blocks("fraction"), truth.kv_cache_usage());
    assert_same(blocks("max"), truth.num_gpu_blocks.into());
    assert_same(blocks("tokens_per"), truth.block_size.into());
    assert_same(blocks("used") + blocks("free"), truth.num_gpu_blocks.into());
}

#[test]
fn the_adapter_combination_with_the_greatest_value_is_current() {
    let (truth, text) = busy(with_adapters());
    let combinations: Vec<_> = text.named("vllm:lora_requests_info").collect();
    assert!(combinations.len() > 5, "{combinations:?}");
    let (present, now) =
        combinations.iter().max_by(|(_, one), (_, other)| one.total_cmp(other)).unwrap();
    assert_same(**now, 1_755_400_060.0);
    let lora = truth.lora.unwrap();
    let expected = format!(
        "{{max_lora=\"3\",running_lora_adapters=\"{}\",waiting_lora_adapters=\"{}\"}}",
        lora.running.join(","),
        lora.waiting.join(",")
    );
    assert!(present.ends_with(&expected), "{present} is not {expected}");
    assert!(!lora.running.is_empty());
}

/// What a described server shows, read off its page: the value of one series.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in {page}"));
    line.trim().parse().unwrap()
}

fn described(spec: &str) -> EngineSpec {
    toml::from_str(&format!("described = {{ {spec} }}")).unwrap()
}

#[test]
fn every_engine_has_a_page_with_its_quantities() {
    let engines = collector_engines::Engines::builtin();
    for name in engines.names() {
        let page = page_of("org/m", described(&format!("name = \"{name}\"")), MINUTE);
        let engine = engines.iter().find(|engine| engine.name == name).unwrap();
        for (quantity, alternatives) in engine.metrics() {
            let Some(first) = alternatives.first() else { continue };
            // Nothing that the simulation knows of sleeps.
            let known = quantity != collector_engines::Quantity::Sleeping;
            for series in first.series().into_iter().filter(|_| known) {
                let has = page.lines().any(|line| line.starts_with(&format!("{}{{", series.name)));
                assert!(has, "{name}, {}: {} is not in {page}", quantity.key(), series.name);
            }
        }
    }
}

#[test]
fn the_series_of_a_described_engine_make_its_quantities_true() {
    let dynamo = page_of("org/m", described("name = \"dynamo\""), MINUTE);
    let of = |name: &str| value(&dynamo, &format!("dynamo_frontend_{name}{{model=\"org/m\"}}"));
    let vllm = page_of("org/m", EngineSpec::default(), MINUTE);
    let truth =
        |name: &str| value(&vllm, &format!("vllm:{name}{{engine=\"0\",model_name=\"org/m\"}}"));
    let inflight = truth("num_requests_running") + truth("num_requests_waiting");
    assert_eq!(of("inflight_requests").to_bits(), inflight.to_bits());
    let counted = (of("input_sequence_tokens_count"), truth("request_prompt_tokens_count"));
    assert_eq!(counted.0.to_bits(), counted.1.to_bits());
    assert!(counted.0 > 0.0);
    let own = "name = \"acme\", rank_label = \"shard\", metrics = { running = \"acme_busy / 2\", \
               kv_cache_usage = \"acme_used{kind=gpu} / 100\", block_size = \"acme_info[size]\" }";
    let page = page_of("org/m", EngineSpec { engines: 2, ..described(own) }, MINUTE);
    let sizes = value(&page, "acme_info{model_name=\"org/m\",shard=\"1\",size=\"16\"}");
    assert_eq!(sizes.to_bits(), 1.0_f64.to_bits());
    assert!(page.contains("acme_used{kind=\"gpu\",model_name=\"org/m\",shard=\"0\"} "), "{page}");
}
