// SPDX-License-Identifier: Apache-2.0
//! SGLang's page: the scheduler's families per data-parallel rank, the tokenizer's once per server.

use crate::engine::bounds::SGLANG_STAGE;
use crate::engine::template::Layout;
use crate::spec::EngineSpec;

use super::PodView;
use super::python::{Count, Pick, PythonPage, Series, pad, unused_histogram};

/// The process id of the first rank; those of the others follow.
const FIRST_PID: usize = 8123;

pub(super) fn layout(model: &str, spec: &EngineSpec, padding: usize) -> Layout<PodView> {
    let rank = |rank: usize| {
        let (pid, rank_label) = ((FIRST_PID + rank).to_string(), rank.to_string());
        Series::of_engine(
            rank,
            &[
                ("dp_rank", &rank_label),
                ("engine_type", "unified"),
                ("model_name", model),
                ("moe_ep_rank", "0"),
                ("pid", &pid),
                ("pp_rank", "0"),
                ("tp_rank", "0"),
            ],
        )
    };
    let ranks = (0..usize::try_from(spec.engines).unwrap_or(usize::MAX)).map(rank).collect();
    let server = [Series::of_pod(&[("model_name", model)])];
    let mut sglang = Sglang { page: PythonPage::new(spec), ranks, server };
    sglang.gauges(spec);
    sglang.scheduler_counters(padding);
    sglang.server();
    sglang.page.process();
    sglang.page.layout
}

struct Sglang {
    page: PythonPage,
    ranks: Vec<Series>,
    server: [Series; 1],
}

impl Sglang {
    fn gauges(&mut self, spec: &EngineSpec) {
        let (blocks, tokens) = (spec.num_gpu_blocks, f64::from(spec.block_size));
        let capacity = f64::from(blocks) * tokens;
        self.gauge("num_running_reqs", "Running requests", PodView::running);
        self.gauge("num_used_tokens", "Tokens used", move |view, rank| {
            view.used_blocks(rank, blocks) * tokens
        });
        self.gauge("token_usage", "Token usage", PodView::kv_cache_usage);
        self.constants(&[
            ("pending_prealloc_token_usage", 0.0),
            ("swa_token_usage", 0.0),
            ("mamba_usage", 0.0),
            ("decode_sum_seq_lens", 0.0),
            ("gen_throughput", 0.0),
        ]);
        self.gauge("num_queue_reqs", "Requests in the waiting queue", PodView::waiting);
        self.constants(&[("num_grammar_queue_reqs", 0.0), ("num_running_reqs_offline_batch", 0.0)]);
        self.gauge("cache_hit_rate", "Prefix cache hit rate", |view, rank| {
            view.engines[rank].counters.totals().prefix_hit_ratio().unwrap_or(0.0)
        });
        self.constants(&[
            ("max_total_num_tokens", capacity),
            ("spec_accept_length", 0.0),
            ("spec_accept_rate", 0.0),
            ("num_retracted_reqs", 0.0),
            ("num_paused_reqs", 0.0),
            ("num_prefill_prealloc_queue_reqs", 0.0),
            ("num_prefill_inflight_queue_reqs", 0.0),
            ("num_decode_prealloc_queue_reqs", 0.0),
            ("num_decode_transfer_queue_reqs", 0.0),
            ("kv_transfer_speed_gb_s", 0.0),
            ("kv_transfer_latency_ms", 0.0),
            ("kv_transfer_bootstrap_ms", 0.0),
            ("kv_transfer_alloc_ms", 0.0),
            ("kv_transfer_total_mb", 0.0),
            ("utilization", 0.0),
            ("engine_startup_time", 41.7),
            ("engine_load_weights_time", 12.25),
            ("new_token_ratio", 0.7),
            ("is_cuda_graph", 1.0),
        ]);
        let (pages, page_size) = (blocks.to_string(), spec.block_size.to_string());
        let info = [("num_pages", pages.as_str()), ("page_size", &page_size)];
        let series: Vec<Series> = self.ranks.iter().map(|rank| rank.with(&info)).collect();
        self.page.constant("sglang:cache_config_info", "Cache configuration", &series, 1.0);
    }

    fn scheduler_counters(&mut self, padding: usize) {
        let ranks = self.ranks.clone();
        for name in [
            "num_retracted_requests",
            "num_retracted_input_tokens",
            "num_retracted_output_tokens",
            "num_bootstrap_failed_reqs",
            "num_transfer_failed_reqs",
        ] {
            self.page.counter(&format!("sglang:{name}"), &help(name), &ranks, |_| 0);
        }
        let name = "sglang:queue_time_seconds";
        self.page.histogram(name, "Time in the queue", &ranks, |c| &c.queue_time);
        let stages: [(&str, Pick); 4] = [
            ("prefill_waiting", |c| &c.stage_queue_time),
            ("prefill_forward", |c| &c.prefill_time),
            ("decode_waiting", |c| &c.stage_decode_waiting),
            ("decode_forward", |c| &c.decode_time),
        ];
        let stages: Vec<(Series, Pick)> = self
            .ranks
            .iter()
            .flat_map(|rank| stages.map(|(stage, pick)| (rank.with(&[("stage", stage)]), pick)))
            .collect();
        let name = "sglang:per_stage_req_latency_seconds";
        let rank = &self.ranks[0];
        self.page.padded_histograms(name, "Latency of a stage of a request", &stages, |layout| {
            pad(layout, padding, |layout, number| unused_stage(layout, name, rank, number));
        });
        self.by_mode(
            "sglang:cuda_graph_passes",
            "Forward passes",
            &[("decode_cuda_graph", |c| c.generation_tokens), ("decode_none", |_| 0)],
        );
        self.by_mode(
            "sglang:realtime_tokens",
            "Tokens as they are processed",
            &[
                ("prefill_compute", |c| c.prompt_tokens - c.cached_prompt_tokens),
                ("prefill_cache", |c| c.cached_prompt_tokens),
                ("decode", |c| c.generation_tokens),
            ],
        );
    }

    /// Counters of finished requests, over all ranks.
    fn server(&mut self) {
        let counters: [(&str, Count); 6] = [
            ("prompt_tokens", |c| c.request_prompt_tokens.sum_units()),
            ("generation_tokens", |c| c.request_generation_tokens.sum_units()),
            ("cached_tokens", |c| c.request_cached_tokens.sum_units()),
            ("num_requests", |c| c.finished),
            ("num_so_requests", |_| 0),
            ("num_aborted_requests", |_| 0),
        ];
        for (name, read) in counters {
            self.page.counter(&format!("sglang:{name}"), &help(name), &self.server, read);
        }
        let histograms: [(&str, Pick); 6] = [
            ("prompt_tokens_histogram", |c| &c.request_prompt_tokens),
            ("generation_tokens_histogram", |c| &c.request_generation_tokens),
            ("time_to_first_token_seconds", |c| &c.time_to_first_token),
            ("inter_token_latency_seconds", |c| &c.inter_token_latency),
            ("e2e_request_latency_seconds", |c| &c.e2e_latency),
            ("num_retractions", |c| &c.retractions),
        ];
        for (name, pick) in histograms {
            self.page.histogram(&format!("sglang:{name}"), &help(name), &self.server, pick);
        }
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        read: impl Fn(&PodView, usize) -> f64 + Copy + Send + Sync + 'static,
    ) {
        self.page.gauge(&format!("sglang:{name}"), help, &self.ranks, read);
    }

    fn constants(&mut self, values: &[(&str, f64)]) {
        let ranks = self.ranks.clone();
        for (name, value) in values {
            self.page.constant(&format!("sglang:{name}"), &help(name), &ranks, *value);
        }
    }

    fn by_mode(&mut self, name: &str, help: &str, modes: &[(&str, Count)]) {
        let samples: Vec<_> = self
            .ranks
            .iter()
            .flat_map(|rank| modes.iter().map(|(mode, read)| (rank.with(&[("mode", mode)]), *read)))
            .collect();
        self.page.counters(name, help, &samples);
    }
}

/// Adds another stage: SGLang has dozens more than are simulated, each a complete histogram.
fn unused_stage(layout: &mut Layout<PodView>, name: &str, rank: &Series, number: usize) {
    let series = rank.with(&[("stage", &format!("stage_{number:04}"))]);
    unused_histogram(layout, name, &series, SGLANG_STAGE);
}

/// Returns a name as words.
fn help(name: &str) -> String {
    name.replace('_', " ")
}
