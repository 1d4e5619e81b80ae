//! Pages compared with those of real servers, whose families and buckets are in `fixtures`.

use std::time::{Duration, SystemTime};

use collector_sim::{EngineSpec, Fleet, FleetSpec, Load, MetricNames, VariantSpec};

use crate::text::Text;

fn page_of(model: &str, engine: EngineSpec, after: Duration) -> String {
    let variant = VariantSpec {
        pods: 1,
        engine,
        load: Load::default(),
        ..VariantSpec::new("v", model, "ns")
    };
    let spec = FleetSpec { variants: vec![variant], ..FleetSpec::default() };
    let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_755_400_000);
    let mut fleet = Fleet::new(spec, epoch).unwrap();
    fleet.advance_to(after);
    fleet.page("ns", "v-0").unwrap()
}

fn names(names: MetricNames) -> EngineSpec {
    EngineSpec { names, ..EngineSpec::default() }
}

/// Each line of a fixture is a family's name, its type and, for histograms, its bounds.
#[track_caller]
fn check_families(page: &str, fixture: &str) {
    let text = Text::parse(page);
    let bounds_of = |family: &str| {
        let mut bounds: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with(&format!("{family}_bucket{{")))
            .map(|line| line.split("le=\"").nth(1).unwrap().split('"').next().unwrap())
            .collect();
        bounds.dedup();
        bounds.join(",")
    };
    let shown: Vec<String> = text
        .families
        .iter()
        .filter(|(name, _)| name.starts_with("vllm:"))
        .map(|(name, kind)| match kind.as_str() {
            "histogram" => format!("{name} {kind} {}", bounds_of(name)),
            _ => format!("{name} {kind}"),
        })
        .collect();
    assert_eq!(shown, fixture.lines().collect::<Vec<_>>());
}

#[test]
fn a_v1_page_has_exactly_the_families_and_buckets_of_vllm() {
    let page = page_of("m", names(MetricNames::V1), Duration::from_secs(60));
    check_families(&page, include_str!("fixtures/vllm_v1_families.txt"));
}

#[test]
fn a_v0_page_has_exactly_the_families_and_buckets_of_older_vllm() {
    let page = page_of("m", names(MetricNames::V0), Duration::from_secs(60));
    check_families(&page, include_str!("fixtures/vllm_v0_families.txt"));
    assert!(!page.contains("engine=\""));
}

#[test]
fn samples_carry_the_labels_of_vllm_in_its_order() {
    let page = page_of("a/b", names(MetricNames::V1), Duration::from_secs(60));
    for line in [
        "vllm:num_requests_running{engine=\"0\",model_name=\"a/b\"} ",
        "vllm:num_requests_waiting_by_reason{engine=\"0\",model_name=\"a/b\",reason=\"capacity\"} ",
        "vllm:engine_sleep_state{engine=\"0\",model_name=\"a/b\",sleep_state=\"awake\"} 1.0",
        "vllm:prompt_tokens_by_source_total{engine=\"0\",model_name=\"a/b\",source=\"local_compute\"} ",
        "vllm:request_success_total{engine=\"0\",finished_reason=\"stop\",model_name=\"a/b\"} ",
        "vllm:request_success_created{engine=\"0\",finished_reason=\"stop\",model_name=\"a/b\"} 1.7554e+09",
        "vllm:request_prompt_tokens_bucket{engine=\"0\",le=\"1.0\",model_name=\"a/b\"} 0.0",
        "vllm:request_prompt_tokens_bucket{engine=\"0\",le=\"+Inf\",model_name=\"a/b\"} ",
        "vllm:request_prompt_tokens_count{engine=\"0\",model_name=\"a/b\"} ",
        "vllm:cache_config_info{block_size=\"16\",",
        "enable_prefix_caching=\"True\",engine=\"0\",gpu_memory_utilization=",
        "num_gpu_blocks=\"27436\",",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

#[test]
fn each_data_parallel_engine_has_its_own_samples() {
    let engine = EngineSpec { engines: 4, ..EngineSpec::default() };
    let text = Text::parse(&page_of("m", engine, Duration::from_secs(60)));
    let arrived: Vec<f64> =
        text.named("vllm:prefix_cache_queries_total").map(|(_, tokens)| tokens / 500.0).collect();
    // 240 requests in the minute, in turn.
    assert_eq!(arrived, [60.0; 4]);
    assert_eq!(text.named("vllm:cache_config_info").count(), 4);
}

#[test]
fn any_model_id_is_escaped() {
    let page = page_of("a\"b\\c\nd:/{}é", names(MetricNames::V1), Duration::from_secs(60));
    let expected = "vllm:num_requests_running{engine=\"0\",model_name=\"a\\\"b\\\\c\\nd:/{}é\"} ";
    assert!(page.contains(expected));
    Text::parse(&page);
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
