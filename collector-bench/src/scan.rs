//! How fast exposition pages are read: the scanner beside whole-page parsers, and beside the least
//! that any reader of lines must do.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use collector_epp::scan::{Ended, Format, Limits, Scanner, Wanted};
use memchr::memchr_iter;
use tokio::time::Instant;

use crate::report::{Figure, Report};

const SUITE: &str = "scan";

/// What the engines and the Endpoint Picker call what is wanted of them.
const WANTED: [&str; 40] = [
    "vllm:num_requests_waiting",
    "vllm:num_requests_running",
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "vllm:cache_config_info",
    "vllm:request_success_total",
    "vllm:request_prompt_tokens_sum",
    "vllm:request_prompt_tokens_count",
    "vllm:request_generation_tokens_sum",
    "vllm:request_generation_tokens_count",
    "vllm:time_to_first_token_seconds_sum",
    "vllm:time_to_first_token_seconds_count",
    "vllm:inter_token_latency_seconds_sum",
    "vllm:inter_token_latency_seconds_count",
    "vllm:time_per_output_token_seconds_sum",
    "vllm:time_per_output_token_seconds_count",
    "vllm:prefix_cache_hits_total",
    "vllm:prefix_cache_queries_total",
    "vllm:lora_requests_info",
    "sglang:num_queue_reqs",
    "sglang:num_running_reqs",
    "sglang:token_usage",
    "trtllm_num_requests_waiting",
    "nv_trt_llm_request_metrics",
    "inference_pool_average_kv_cache_utilization",
    "inference_pool_average_queue_size",
    "inference_pool_average_running_requests",
    "inference_pool_ready_pods",
    "inference_extension_flow_control_queue_size",
    "inference_extension_flow_control_queue_bytes",
    "inference_extension_flow_control_pool_saturation",
    "inference_objective_request_total",
    "inference_objective_request_error_total",
    "inference_objective_running_requests",
    "inference_objective_request_duration_seconds_sum",
    "inference_objective_request_duration_seconds_count",
    "inference_objective_input_tokens_sum",
    "inference_objective_input_tokens_count",
    "inference_objective_output_tokens_sum",
    "inference_objective_output_tokens_count",
];

const VLLM: &str = include_str!("../../collector-epp/tests/captures/vllm_v1.txt");
const VLLM_DP8: &str = include_str!("../../collector-epp/tests/captures/vllm_dp8.txt");
const EPP: &str = include_str!("../../collector-epp/tests/captures/epp.txt");

/// Shorter runs are repeated until one measurement takes this long.
const MEASUREMENT: Duration = Duration::from_micros(500);

/// One way of reading a page; it tells something that it cannot know without reading.
struct System<'a> {
    name: &'static str,
    read: Box<dyn FnMut() -> u64 + 'a>,
}

impl<'a> System<'a> {
    fn new(name: &'static str, read: impl FnMut() -> u64 + 'a) -> Self {
        Self { name, read: Box::new(read) }
    }

    /// Seconds of one reading, of as many as fill a measurement.
    fn time(&mut self, repeats: u32) -> f64 {
        let started = Instant::now();
        for _ in 0..repeats {
            black_box((self.read)());
        }
        started.elapsed().as_secs_f64() / f64::from(repeats)
    }
}

/// Seconds that each system takes at best. They take turns, so that what else the machine does meets
/// all of them.
fn race(rounds: u32, systems: &mut [System<'_>]) -> Vec<f64> {
    let repeats: Vec<u32> = systems
        .iter_mut()
        .map(|system| {
            let once = system.time(1).min(system.time(1));
            (MEASUREMENT.as_secs_f64() / once).clamp(1.0, 10_000.0) as u32
        })
        .collect();
    let mut best = vec![f64::INFINITY; systems.len()];
    for _ in 0..rounds {
        for ((system, repeats), best) in systems.iter_mut().zip(&repeats).zip(&mut best) {
            *best = best.min(system.time(*repeats));
        }
    }
    best
}

fn scanner(wanted: &Arc<Wanted>) -> Scanner {
    Scanner::new(Arc::clone(wanted), Limits::default())
}

fn scan(scanner: &mut Scanner, page: &str) -> u64 {
    let mut bits = 0;
    let mut each = |sample: &collector_epp::scan::Sample<'_>| {
        bits ^= black_box(sample).value.to_bits();
    };
    scanner.begin(Format::Text);
    scanner.feed(page.as_bytes(), &mut each).expect("the page is within its limit");
    let summary = scanner.finish(Ended::Complete, &mut each).expect("the page is within its limit");
    bits ^ summary.samples
}

fn visit_newlines(page: &str) -> u64 {
    memchr_iter(b'\n', page.as_bytes()).map(|place| black_box(place) as u64).sum()
}

pub(crate) fn measure(quick: bool, report: &mut Report) -> Result<()> {
    let rounds = if quick { 30 } else { 300 };
    let wanted = Arc::new(Wanted::new(WANTED));
    for (case, page) in [("vllm_v1", VLLM), ("vllm_dp8", VLLM_DP8), ("epp", EPP)] {
        let mut ours = scanner(&wanted);
        let mut systems = [
            System::new("memchr, each newline", || visit_newlines(page)),
            System::new("scanner", || scan(&mut ours, page)),
        ];
        let best = race(rounds, &mut systems);
        for (system, best) in systems.iter().zip(&best) {
            println!(
                "{case} {} {:.1} us {:.2}",
                system.name,
                best * 1e6,
                best / best_of_first(&systems, &[0.0]).max(1e-12).min(1.0)
            );
        }
        println!("  ratio {:.2}", best[1] / best[0]);
    }
    Ok(())
}
fn best_of_first(_: &[System<'_>], _: &[f64]) -> f64 {
    1.0
}
