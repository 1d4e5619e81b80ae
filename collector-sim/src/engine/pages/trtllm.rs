// SPDX-License-Identifier: Apache-2.0
//! The page of TensorRT-LLM's own server, `trtllm-serve`.

use crate::engine::template::Layout;
use crate::spec::EngineSpec;

use super::PodView;
use super::python::{Count, Pick, PythonPage, Series, constant, pad};

pub(super) fn layout(model: &str, spec: &EngineSpec, padding: usize) -> Layout<PodView> {
    let mut server = Trtllm { page: PythonPage::new(spec), model: model.to_owned() };
    server.requests();
    server.kv_cache();
    server.gauges(spec);
    server.errors(padding);
    server.config(spec);
    server.page.layout
}

struct Trtllm {
    page: PythonPage,
    model: String,
}

impl Trtllm {
    fn series(&self) -> Series {
        Series::of_engine(0, &[("engine_type", "trtllm"), ("model_name", &self.model)])
    }

    fn requests(&mut self) {
        let reasons: [(&str, Count); 3] =
            [("stop", |c| c.finished), ("length", |_| 0), ("cancelled", |_| 0)];
        let series = self.series();
        let success =
            reasons.map(|(reason, read)| (series.with(&[("finished_reason", reason)]), read));
        self.page.counters("trtllm_request_success", "Requests that succeeded", &success);
        let histograms: [(&str, Pick); 7] = [
            ("e2e_request_latency_seconds", |c| &c.e2e_latency),
            ("time_to_first_token_seconds", |c| &c.time_to_first_token),
            ("time_per_output_token_seconds", |c| &c.time_per_output_token),
            ("request_queue_time_seconds", |c| &c.queue_time),
            ("request_prefill_time_seconds", |c| &c.prefill_time),
            ("request_decode_time_seconds", |c| &c.decode_time),
            ("request_inference_time_seconds", |c| &c.inference_time),
        ];
        for (name, pick) in histograms {
            self.histogram(name, pick);
        }
        self.counter("prompt_tokens", |c| c.prompt_tokens);
        self.counter("generation_tokens", |c| c.generation_tokens);
    }

    fn kv_cache(&mut self) {
        self.gauge("kv_cache_hit_rate", |view, engine| {
            view.engines[engine].counters.totals().prefix_hit_ratio().unwrap_or(0.0)
        });
        // In blocks: the simulation counts tokens, and a block has a fixed number of them.
        self.counter("kv_cache_reused_blocks", |c| c.prefix_hits / TOKENS_PER_BLOCK);
        self.counter("kv_cache_missed_blocks", |c| {
            c.prefix_queries / TOKENS_PER_BLOCK - c.prefix_hits / TOKENS_PER_BLOCK
        });
        self.gauge("kv_cache_utilization", PodView::kv_cache_usage);
        self.constant("kv_cache_host_utilization", 0.0);
        self.constant("kv_cache_iter_reuse_rate", 0.0);
        for name in [
            "kv_cache_iter_reused_blocks",
            "kv_cache_iter_full_reused_blocks",
            "kv_cache_iter_partial_reused_blocks",
            "kv_cache_iter_missed_blocks",
            "kv_cache_gen_alloc_blocks",
            "kv_cache_onboard_bytes",
            "kv_cache_offload_bytes",
            "kv_cache_disk_prefetch_blocks",
            "kv_cache_intra_device_copy_bytes",
        ] {
            self.counter(name, |_| 0);
        }
        self.counter("num_requests_completed", |c| c.finished);
        self.counter("spec_decode_num_draft_tokens", |_| 0);
        self.counter("spec_decode_num_accepted_tokens", |_| 0);
        self.counter("prompt_cached_tokens", |c| c.cached_prompt_tokens);
    }

    fn gauges(&mut self, spec: &EngineSpec) {
        let (blocks, batch) = (spec.num_gpu_blocks, f64::from(spec.max_num_seqs));
        self.gauge("num_requests_running", PodView::running);
        self.gauge("num_requests_waiting", PodView::waiting);
        self.constant("max_num_active_requests", batch);
        self.constant("iteration_latency_seconds", 0.0213);
        self.constant("gpu_memory_usage_bytes", 128_849_018_880.0);
        self.constant("cpu_memory_usage_bytes", 0.0);
        self.constant("pinned_memory_usage_bytes", 2_097_152.0);
        self.constant("max_batch_size_static", batch);
        self.constant("max_batch_size_runtime", batch);
        self.constant("max_num_tokens_runtime", 8192.0);
        self.constant("kv_cache_max_blocks", f64::from(blocks));
        self.gauge("kv_cache_free_blocks", move |view, engine| {
            f64::from(blocks) - view.used_blocks(engine, blocks)
        });
        self.gauge("kv_cache_used_blocks", move |view, engine| view.used_blocks(engine, blocks));
        self.constant("kv_cache_tokens_per_block", f64::from(spec.block_size));
        self.constant("num_context_requests", 0.0);
        self.gauge("num_generation_requests", PodView::running);
        self.constant("num_paused_requests", 0.0);
        self.gauge("num_scheduled_requests", PodView::running);
        self.constant("total_context_tokens", 0.0);
        self.constant("avg_decoded_tokens_per_iter", 1.0);
        self.constant("spec_decode_acceptance_length", 0.0);
        self.constant("spec_decode_draft_overhead", 0.0);
        self.constant("prefill_batch_occupancy", 0.0);
    }

    fn errors(&mut self, padding: usize) {
        self.histogram("prompt_cached_tokens_per_request", |c| &c.request_cached_tokens);
        self.histogram("prefill_batch_tokens", |c| &c.step_tokens);
        let series = self.series();
        let (name, none) = ("trtllm_request_error", (|_| 0) as Count);
        let errors = [(series.with(&[("http_code", "400")]), none)];
        self.page.padded_counters(name, "Requests that failed", &errors, |layout| {
            // The only family of the server with a label of many values.
            pad(layout, padding, |layout, number| {
                let code = (401 + number).to_string();
                let series = series.with(&[("http_code", &code)]);
                constant(layout, &format!("{name}_total"), &series, 0.0);
            });
        });
    }

    fn config(&mut self, spec: &EngineSpec) {
        let (model, page_size) = (self.model.clone(), spec.block_size.to_string());
        for (family, labels) in [
            (
                "trtllm_model_config_info",
                &[
                    ("dtype", "bfloat16"),
                    ("gpu_type", "NVIDIA H200"),
                    ("model", model.as_str()),
                    ("quantization", "FP8"),
                ][..],
            ),
            (
                "trtllm_parallel_config_info",
                &[("ep_size", "1"), ("pp_size", "1"), ("tp_size", "4")],
            ),
            (
                "trtllm_kv_cache_config_info",
                &[
                    ("enable_block_reuse", "True"),
                    ("enable_partial_reuse", "True"),
                    ("free_gpu_memory_fraction", "0.9"),
                    ("page_size", &page_size),
                ],
            ),
        ] {
            let series = [self.series().with(labels)];
            self.page.constant(family, "Configuration", &series, 1.0);
        }
    }

    fn counter(&mut self, name: &str, read: Count) {
        let series = [self.series()];
        self.page.counter(&format!("trtllm_{name}"), &help(name), &series, read);
    }

    fn gauge(
        &mut self,
        name: &str,
        read: impl Fn(&PodView, usize) -> f64 + Copy + Send + Sync + 'static,
    ) {
        let series = [self.series()];
        self.page.gauge(&format!("trtllm_{name}"), &help(name), &series, read);
    }

    fn constant(&mut self, name: &str, value: f64) {
        let series = [self.series()];
        self.page.constant(&format!("trtllm_{name}"), &help(name), &series, value);
    }

    fn histogram(&mut self, name: &str, pick: Pick) {
        let series = [self.series()];
        self.page.histogram(&format!("trtllm_{name}"), &help(name), &series, pick);
    }
}

/// Reuse counters in units of their own: readers use them as a ratio.
const TOKENS_PER_BLOCK: u64 = 32;

/// Returns a name as words.
fn help(name: &str) -> String {
    name.replace('_', " ")
}
