// SPDX-License-Identifier: Apache-2.0
//! vLLM's page, in both generations of its names.

use crate::engine::bounds::HTTP_DURATION;
use crate::engine::exposition::{Page, label};
use crate::engine::lora::Combination;
use crate::engine::template::Layout;
use crate::spec::{EngineSpec, MetricNames};

use super::PodView;
use super::python::{Count, Gauge, Pick, PythonPage, Series, pad, unused_histogram};

/// Reasons for the end of a request; in this simulation every request ends by itself.
const FINISHED_REASONS: [&str; 5] = ["stop", "length", "abort", "error", "repetition"];

/// The paths of the server's HTTP families, with their method.
const HANDLERS: [(&str, &str); 4] = [
    ("/v1/chat/completions", "POST"),
    ("/v1/completions", "POST"),
    ("/health", "GET"),
    ("/v1/models", "GET"),
];

pub(super) fn layout(model: &str, spec: &EngineSpec, padding: usize) -> Layout<PodView> {
    let engines = (0..usize::try_from(spec.engines).unwrap_or(usize::MAX))
        .map(|engine| match spec.names {
            MetricNames::V1 => {
                Series::of_engine(engine, &[("engine", &engine.to_string()), ("model_name", model)])
            }
            MetricNames::V0 => Series::of_engine(engine, &[("model_name", model)]),
        })
        .collect();
    let mut vllm = Vllm { page: PythonPage::new(spec), engines };
    vllm.page.process();
    match spec.names {
        MetricNames::V1 => vllm.v1(),
        MetricNames::V0 => vllm.v0(),
    }
    if !spec.lora_adapters.is_empty() {
        vllm.lora(&spec.lora_adapters);
    }
    vllm.cache_config(spec);
    vllm.http(padding);
    vllm.page.layout
}

struct Vllm {
    page: PythonPage,
    engines: Vec<Series>,
}

impl Vllm {
    fn v1(&mut self) {
        self.requests_running();
        self.requests_waiting();
        let by_reason = "vllm:num_requests_waiting_by_reason";
        let help = "Requests waiting, by reason";
        self.gauge_by(
            by_reason,
            help,
            "reason",
            &[("capacity", PodView::waiting), ("deferred", zero)],
        );
        self.gauge_by(
            "vllm:engine_sleep_state",
            "Sleep state of the engine; 1 is the current one",
            "sleep_state",
            &[("awake", one), ("weights_offloaded", zero), ("discard_all", zero)],
        );
        let kv_usage = "vllm:kv_cache_usage_perc";
        self.gauge(kv_usage, "KV-cache usage, 1 is 100 percent", PodView::kv_cache_usage);
        self.counter("vllm:prefix_cache_queries", "Tokens looked up in the prefix cache", |c| {
            c.prefix_queries
        });
        self.counter("vllm:prefix_cache_hits", "Tokens found in the prefix cache", |c| {
            c.prefix_hits
        });
        for (name, help) in [
            ("vllm:external_prefix_cache_queries", "Tokens looked up through the KV connector"),
            ("vllm:external_prefix_cache_hits", "Tokens found through the KV connector"),
            ("vllm:mm_cache_queries", "Items looked up in the multi-modal cache"),
            ("vllm:mm_cache_hits", "Items found in the multi-modal cache"),
        ] {
            self.counter(name, help, |_| 0);
        }
        let by_source: [(&str, Count); 3] = [
            ("local_compute", |c| c.prompt_tokens - c.cached_prompt_tokens),
            ("local_cache_hit", |c| c.cached_prompt_tokens),
            ("external_kv_transfer", |_| 0),
        ];
        let by_source = self.each("source", &by_source);
        self.page.counters("vllm:prompt_tokens_by_source", "Prompt tokens by source", &by_source);
        self.counter("vllm:prompt_tokens_cached", "Prompt tokens taken from a cache", |c| {
            c.cached_prompt_tokens
        });
        self.token_counters();
        self.request_success(&FINISHED_REASONS);
        self.request_shapes();
        self.time_to_first_token();
        self.histogram("vllm:inter_token_latency_seconds", "Time between output tokens", |c| {
            &c.inter_token_latency
        });
        self.histogram(
            "vllm:request_time_per_output_token_seconds",
            "Mean time per output token of a request",
            |c| &c.time_per_output_token,
        );
        self.request_times();
        self.histogram(
            "vllm:request_prefill_kv_computed_tokens",
            "Tokens whose KV entries were computed in prefill",
            |c| &c.computed_prompt_tokens,
        );
    }

    fn v0(&mut self) {
        self.requests_running();
        self.requests_waiting();
        self.gauge("vllm:num_requests_swapped", "Requests swapped to the CPU", zero);
        let kv_usage = "vllm:gpu_cache_usage_perc";
        self.gauge(kv_usage, "GPU KV-cache usage, 1 is 100 percent", PodView::kv_cache_usage);
        self.gauge("vllm:cpu_cache_usage_perc", "CPU KV-cache usage, 1 is 100 percent", zero);
        // vLLM shows -1 without lookups.
        self.gauge("vllm:cpu_prefix_cache_hit_rate", "CPU prefix-cache hit rate", |_, _| -1.0);
        self.gauge(
            "vllm:gpu_prefix_cache_hit_rate",
            "GPU prefix-cache hit rate",
            |view, engine| {
                view.engines[engine].counters.totals().prefix_hit_ratio().unwrap_or(-1.0)
            },
        );
        self.token_counters();
        self.request_success(&FINISHED_REASONS[..3]);
        self.request_shapes();
        self.time_to_first_token();
        self.histogram("vllm:time_per_output_token_seconds", "Time per output token", |c| {
            &c.inter_token_latency
        });
        self.request_times();
    }

    fn requests_running(&mut self) {
        let name = "vllm:num_requests_running";
        self.gauge(name, "Requests in the running batch", PodView::running);
    }

    fn requests_waiting(&mut self) {
        let name = "vllm:num_requests_waiting";
        self.gauge(name, "Requests waiting to be processed", PodView::waiting);
    }

    fn token_counters(&mut self) {
        self.counter("vllm:num_preemptions", "Preemptions by the engine", |_| 0);
        self.counter("vllm:prompt_tokens", "Prefill tokens processed", |c| c.prompt_tokens);
        self.counter("vllm:generation_tokens", "Generation tokens processed", |c| {
            c.generation_tokens
        });
    }

    fn request_success(&mut self, reasons: &[&'static str]) {
        let reasons: Vec<(&str, Count)> = reasons
            .iter()
            .map(|reason| -> (&str, Count) {
                if *reason == "stop" { (reason, |c| c.finished) } else { (reason, |_| 0) }
            })
            .collect();
        let samples = self.each("finished_reason", &reasons);
        self.page.counters("vllm:request_success", "Successfully processed requests", &samples);
    }

    fn request_shapes(&mut self) {
        self.histogram("vllm:request_prompt_tokens", "Prefill tokens of a request", |c| {
            &c.request_prompt_tokens
        });
        self.histogram("vllm:request_generation_tokens", "Generation tokens of a request", |c| {
            &c.request_generation_tokens
        });
        self.histogram("vllm:iteration_tokens_total", "Tokens of an engine step", |c| {
            &c.step_tokens
        });
        self.histogram(
            "vllm:request_max_num_generation_tokens",
            "Most generation tokens a request asked for",
            |c| &c.request_max_tokens,
        );
        self.histogram("vllm:request_params_n", "The n request parameter", |c| &c.request_n);
        self.histogram("vllm:request_params_max_tokens", "The max_tokens request parameter", |c| {
            &c.request_max_tokens
        });
    }

    fn time_to_first_token(&mut self) {
        self.histogram("vllm:time_to_first_token_seconds", "Time to first token", |c| {
            &c.time_to_first_token
        });
    }

    fn request_times(&mut self) {
        self.histogram("vllm:e2e_request_latency_seconds", "End to end request latency", |c| {
            &c.e2e_latency
        });
        self.histogram("vllm:request_queue_time_seconds", "Time a request waited", |c| {
            &c.queue_time
        });
        self.histogram("vllm:request_inference_time_seconds", "Time a request ran", |c| {
            &c.inference_time
        });
        self.histogram("vllm:request_prefill_time_seconds", "Time a request was in prefill", |c| {
            &c.prefill_time
        });
        self.histogram("vllm:request_decode_time_seconds", "Time a request was in decode", |c| {
            &c.decode_time
        });
    }

    /// Adds a series per past combination of adapters. Its value is the time when it last existed: the
    /// greatest is current.
    fn lora(&mut self, adapters: &[String]) {
        const NAME: &str = "vllm:lora_requests_info";
        let max_lora = label("max_lora", &adapters.len().to_string());
        let names = adapters.to_vec();
        self.page.layout.family(NAME, "LoRA adapters of running and waiting requests", "gauge");
        self.page.layout.lines(move |view: &PodView, page: &mut Page| {
            let Some(lora) = &view.engines[0].lora else { return };
            for (Combination { running, waiting }, last) in lora {
                let running = label("running_lora_adapters", &joined(&names, running));
                let waiting = label("waiting_lora_adapters", &joined(&names, waiting));
                let time = (view.epoch + *last).as_secs_f64();
                page.sample(NAME, &[&max_lora, &running, &waiting], time);
            }
        });
    }

    fn cache_config(&mut self, spec: &EngineSpec) {
        let block_size = spec.block_size.to_string();
        let num_gpu_blocks = spec.num_gpu_blocks.to_string();
        let config = [
            ("block_size", block_size.as_str()),
            ("cache_dtype", "auto"),
            ("calculate_kv_scales", "False"),
            ("cpu_kvcache_space_bytes", "None"),
            ("cpu_offload_gb", "0"),
            ("enable_prefix_caching", "True"),
            ("gpu_memory_utilization", "0.9"),
            ("is_attention_free", "False"),
            ("kv_cache_memory_bytes", "None"),
            ("kv_sharing_fast_prefill", "False"),
            ("mamba_block_size", "None"),
            ("mamba_cache_dtype", "auto"),
            ("mamba_page_size_padded", "None"),
            ("mamba_ssm_cache_dtype", "auto"),
            ("num_cpu_blocks", "None"),
            ("num_gpu_blocks", &num_gpu_blocks),
            ("num_gpu_blocks_override", "None"),
            ("prefix_caching_hash_algo", "sha256"),
            ("sliding_window", "None"),
            ("swap_space", "4"),
        ];
        // The only family of vLLM without the model's name.
        let config = Series::of_pod(&config);
        let series: Vec<Series> = match spec.names {
            MetricNames::V1 => (0..self.engines.len())
                .map(|engine| config.with(&[("engine", &engine.to_string())]))
                .collect(),
            MetricNames::V0 => vec![config],
        };
        let help = "Information of the LLM engine's cache config";
        self.page.constant("vllm:cache_config_info", help, &series, 1.0);
    }

    /// Adds the families of the web framework. All requests are chat completions.
    fn http(&mut self, padding: usize) {
        let counts = |handler: &str, status: &str| -> Count {
            if handler == HANDLERS[0].0 && status == "2xx" { |c| c.finished } else { |_| 0 }
        };
        let samples: Vec<_> = HANDLERS
            .iter()
            .flat_map(|(handler, method)| {
                ["2xx", "4xx"].map(|status| {
                    let labels = [("handler", *handler), ("method", *method), ("status", status)];
                    (Series::of_pod(&labels), counts(handler, status))
                })
            })
            .collect();
        self.page.counters("http_requests", "Requests by handler, status and method", &samples);
        self.http_sizes("http_request_size_bytes", "Size of requests", |c| {
            c.request_prompt_tokens.sum_units() * 4
        });
        self.http_sizes("http_response_size_bytes", "Size of responses", |c| {
            c.request_generation_tokens.sum_units() * 4
        });
        let pod = [Series::of_pod(&[])];
        let name = "http_request_duration_highr_seconds";
        self.page.histogram(name, "Latency in many buckets", &pod, |c| &c.http_duration_fine);
        let name = "http_request_duration_seconds";
        let by_handler: Vec<(Series, Pick)> = HANDLERS
            .iter()
            .map(|(handler, method)| -> (Series, Pick) {
                let series = Series::of_pod(&[("handler", handler), ("method", method)]);
                if *handler == HANDLERS[0].0 {
                    (series, |c| &c.http_duration)
                } else {
                    (series, |c| &c.http_duration_elsewhere)
                }
            })
            .collect();
        self.page.padded_histograms(name, "Latency by handler", &by_handler, |layout| {
            pad(layout, padding, |layout, number| unused_handler(layout, name, number));
        });
    }

    fn http_sizes(&mut self, name: &str, help: &str, bytes: Count) {
        let samples = HANDLERS.map(|(handler, _)| -> (Series, Count, Count) {
            let series = Series::of_pod(&[("handler", handler)]);
            if handler == HANDLERS[0].0 {
                (series, |c| c.finished, bytes)
            } else {
                (series, |_| 0, |_| 0)
            }
        });
        self.page.summary(name, help, &samples);
    }

    fn gauge(&mut self, name: &str, help: &str, read: Gauge) {
        self.page.gauge(name, help, &self.engines, read);
    }

    /// Adds a gauge with one more label.
    fn gauge_by(&mut self, name: &str, help: &str, by: &str, values: &[(&str, Gauge)]) {
        let samples = self.each(by, values);
        self.page.gauges(name, help, &samples);
    }

    fn counter(&mut self, name: &str, help: &str, read: Count) {
        self.page.counter(name, help, &self.engines, read);
    }

    fn histogram(&mut self, name: &str, help: &str, pick: Pick) {
        self.page.histogram(name, help, &self.engines, pick);
    }

    /// Returns each engine with each value of one more label.
    fn each<T: Copy>(&self, name: &str, values: &[(&str, T)]) -> Vec<(Series, T)> {
        self.engines
            .iter()
            .flat_map(|engine| {
                values.iter().map(|(value, read)| (engine.with(&[(name, value)]), *read))
            })
            .collect()
    }
}

/// Adds one more path of the web framework: a server has as many as its plugins and clients create.
fn unused_handler(layout: &mut Layout<PodView>, name: &str, number: usize) {
    let handler = format!("/v1/custom/{number:04}");
    let series = Series::of_pod(&[("handler", &handler), ("method", "POST")]);
    unused_histogram(layout, name, &series, HTTP_DURATION);
}

fn zero(_: &PodView, _: usize) -> f64 {
    0.0
}

fn one(_: &PodView, _: usize) -> f64 {
    1.0
}

fn joined(names: &[String], adapters: &[u16]) -> String {
    let names: Vec<&str> =
        adapters.iter().map(|adapter| names[usize::from(*adapter)].as_str()).collect();
    names.join(",")
}
