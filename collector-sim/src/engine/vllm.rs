//! vLLM's `/metrics` page, in both generations of its names.

use std::iter::zip;

use crate::engine::counters::Counters;
use crate::engine::exposition::{Page, label, number_label};
use crate::engine::histogram::Histogram;
use crate::engine::scheduler::Snapshot;
use crate::spec::{EngineSpec, MetricNames};

/// A page is some 50 KB an engine.
const PAGE_BYTES: usize = 56 * 1024;

/// Reasons for which a request can end; in this simulation each ends by itself.
const FINISHED_REASONS: [&str; 5] = ["stop", "length", "abort", "error", "repetition"];

/// Reads one gauge.
type Gauge = fn(&Snapshot) -> f64;
/// Reads one counter.
type Count = fn(&Counters) -> u64;

/// All that a pod's page tells, at one instant.
#[derive(Debug, Clone)]
pub(crate) struct PodPage {
    pub(crate) model: String,
    pub(crate) spec: EngineSpec,
    /// When the process started, as seconds since the Unix epoch.
    pub(crate) started: f64,
    /// In the order of the label `engine`.
    pub(crate) engines: Vec<Snapshot>,
}

impl PodPage {
    /// The page as text.
    pub(crate) fn render(&self) -> String {
        let engines: Vec<Labels> =
            (0..self.engines.len()).map(|index| self.labels(index)).collect();
        let mut writer = Writer {
            page: Page::with_capacity(PAGE_BYTES * self.engines.len()),
            pod: self,
            labels: engines,
        };
        writer.process();
        match self.spec.names {
            MetricNames::V1 => writer.v1(),
            MetricNames::V0 => writer.v0(),
        }
        writer.page.finish()
    }

    fn labels(&self, index: usize) -> Labels {
        Labels {
            engine: match self.spec.names {
                MetricNames::V1 => label("engine", &index.to_string()),
                MetricNames::V0 => String::new(),
            },
            model: label("model_name", &self.model),
        }
    }
}

/// The labels of an engine, in two parts: other labels sort between or after them.
struct Labels {
    engine: String,
    model: String,
}

struct Writer<'a> {
    page: Page,
    pod: &'a PodPage,
    labels: Vec<Labels>,
}

impl Writer<'_> {
    /// What any Python process shows.
    fn process(&mut self) {
        self.page.family("python_info", "", "Python platform information", "gauge");
        let python = [
            ("implementation", "CPython"),
            ("major", "3"),
            ("minor", "12"),
            ("version", "3.12.11"),
        ]
        .map(|(name, value)| label(name, value));
        self.page.sample("python_info", "", &python.each_ref().map(String::as_str), 1.0);
        let start = "process_start_time_seconds";
        self.page.family(start, "", "Start time of the process since the epoch, seconds", "gauge");
        self.page.sample(start, "", &[], self.pod.started);
    }

    fn v1(&mut self) {
        self.requests_running();
        self.requests_waiting();
        self.gauge_by(
            "vllm:num_requests_waiting_by_reason",
            "Requests waiting, by reason",
            "reason",
            &[("capacity", |engine| f64::from(engine.gauges.waiting)), ("deferred", |_| 0.0)],
        );
        self.gauge_by(
            "vllm:engine_sleep_state",
            "Sleep state of the engine; 1 is the current one",
            "sleep_state",
            &[("awake", |_| 1.0), ("weights_offloaded", |_| 0.0), ("discard_all", |_| 0.0)],
        );
        self.gauge("vllm:kv_cache_usage_perc", "KV-cache usage, 1 is 100 percent", |engine| {
            engine.gauges.kv_cache_usage
        });
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
        self.counter_by(
            "vllm:prompt_tokens_by_source",
            "Prompt tokens by source",
            |engine, value| [engine.engine.clone(), engine.model.clone(), label("source", value)],
            &[
                ("local_compute", |c| c.prompt_tokens - c.cached_prompt_tokens),
                ("local_cache_hit", |c| c.cached_prompt_tokens),
                ("external_kv_transfer", |_| 0),
            ],
        );
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
        self.cache_config();
    }

    fn v0(&mut self) {
        self.requests_running();
        self.requests_waiting();
        self.gauge("vllm:num_requests_swapped", "Requests swapped to the CPU", |_| 0.0);
        self.gauge("vllm:gpu_cache_usage_perc", "GPU KV-cache usage, 1 is 100 percent", |engine| {
            engine.gauges.kv_cache_usage
        });
        self.gauge("vllm:cpu_cache_usage_perc", "CPU KV-cache usage, 1 is 100 percent", |_| 0.0);
        // -1 is what vLLM shows when nothing was looked up.
        self.gauge("vllm:cpu_prefix_cache_hit_rate", "CPU prefix-cache hit rate", |_| -1.0);
        self.gauge("vllm:gpu_prefix_cache_hit_rate", "GPU prefix-cache hit rate", |engine| {
            engine.counters.totals().prefix_hit_ratio().unwrap_or(-1.0)
        });
        self.token_counters();
        self.request_success(&FINISHED_REASONS[..3]);
        self.request_shapes();
        self.time_to_first_token();
        self.histogram("vllm:time_per_output_token_seconds", "Time per output token", |c| {
            &c.inter_token_latency
        });
        self.request_times();
        self.cache_config();
    }

    fn requests_running(&mut self) {
        self.gauge("vllm:num_requests_running", "Requests in the running batch", |engine| {
            f64::from(engine.gauges.running)
        });
    }

    fn requests_waiting(&mut self) {
        self.gauge("vllm:num_requests_waiting", "Requests waiting to be processed", |engine| {
            f64::from(engine.gauges.waiting)
        });
    }

    fn token_counters(&mut self) {
        self.counter("vllm:num_preemptions", "Preemptions by the engine", |_| 0);
        self.counter("vllm:prompt_tokens", "Prefill tokens processed", |c| c.prompt_tokens);
        self.counter("vllm:generation_tokens", "Generation tokens processed", |c| {
            c.generation_tokens
        });
    }

    fn request_success(&mut self, reasons: &[&'static str]) {
        let values: Vec<(&str, Count)> = reasons
            .iter()
            .map(|reason| -> (&str, Count) {
                if *reason == "stop" { (reason, |c| c.finished) } else { (reason, |_| 0) }
            })
            .collect();
        self.counter_by(
            "vllm:request_success",
            "Successfully processed requests",
            |engine, value| {
                [engine.engine.clone(), label("finished_reason", value), engine.model.clone()]
            },
            &values,
        );
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

    fn cache_config(&mut self) {
        const NAME: &str = "vllm:cache_config_info";
        self.page.family(NAME, "", "Information of the LLM engine's cache config", "gauge");
        let block_size = self.pod.spec.block_size.to_string();
        let num_gpu_blocks = self.pod.spec.num_gpu_blocks.to_string();
        for labels in &self.labels {
            let before: String = [
                ("block_size", block_size.as_str()),
                ("cache_dtype", "auto"),
                ("calculate_kv_scales", "False"),
                ("cpu_kvcache_space_bytes", "None"),
                ("cpu_offload_gb", "0"),
                ("enable_prefix_caching", "True"),
            ]
            .map(|(name, value)| label(name, value))
            .concat();
            let after: String = [
                ("gpu_memory_utilization", "0.9"),
                ("is_attention_free", "False"),
                ("kv_cache_memory_bytes", "None"),
                ("kv_sharing_fast_prefill", "False"),
                ("mamba_block_size", "None"),
                ("mamba_cache_dtype", "auto"),
                ("mamba_page_size_padded", "None"),
                ("mamba_ssm_cache_dtype", "auto"),
                ("num_cpu_blocks", "None"),
                ("num_gpu_blocks", num_gpu_blocks.as_str()),
                ("num_gpu_blocks_override", "None"),
                ("prefix_caching_hash_algo", "sha256"),
                ("sliding_window", "None"),
                ("swap_space", "4"),
            ]
            .map(|(name, value)| label(name, value))
            .concat();
            // The one family of vLLM without the model's name.
            self.page.sample(NAME, "", &[&before, &labels.engine, &after], 1.0);
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: Gauge) {
        self.page.family(name, "", help, "gauge");
        for (labels, engine) in zip(&self.labels, &self.pod.engines) {
            self.page.sample(name, "", &[&labels.engine, &labels.model], value(engine));
        }
    }

    /// A gauge with one more label, whose name sorts after `model_name`.
    fn gauge_by(&mut self, name: &str, help: &str, by: &str, values: &[(&str, Gauge)]) {
        self.page.family(name, "", help, "gauge");
        let values: Vec<_> = values.iter().map(|(key, value)| (label(by, key), value)).collect();
        for (labels, engine) in zip(&self.labels, &self.pod.engines) {
            for (by, value) in &values {
                self.page.sample(name, "", &[&labels.engine, &labels.model, by], value(engine));
            }
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: Count) {
        self.counter_by(
            name,
            help,
            |engine, _| [engine.engine.clone(), engine.model.clone(), String::new()],
            &[("", value)],
        );
    }

    /// A counter with one sample for each of `values`, whose labels `place` puts in order.
    fn counter_by(
        &mut self,
        name: &str,
        help: &str,
        place: fn(&Labels, &str) -> [String; 3],
        values: &[(&str, Count)],
    ) {
        let samples: Vec<([String; 3], u64)> = zip(&self.labels, &self.pod.engines)
            .flat_map(|(labels, engine)| {
                values.iter().map(move |(key, value)| (place(labels, key), value(&engine.counters)))
            })
            .collect();
        self.page.family(name, "_total", help, "counter");
        for (labels, value) in &samples {
            let labels = labels.each_ref().map(String::as_str);
            self.page.sample(name, "_total", &labels, *value as f64);
        }
        self.page.family(name, "_created", help, "gauge");
        for (labels, _) in &samples {
            let labels = labels.each_ref().map(String::as_str);
            self.page.sample(name, "_created", &labels, self.pod.started);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, of: fn(&Counters) -> &Histogram) {
        self.page.family(name, "", help, "histogram");
        for (labels, engine) in zip(&self.labels, &self.pod.engines) {
            let histogram = of(&engine.counters);
            for (bound, count) in histogram.cumulative() {
                let le = number_label("le", bound);
                let labels: [&str; 3] = [&labels.engine, &le, &labels.model];
                self.page.sample(name, "_bucket", &labels, count as f64);
            }
            let labels: [&str; 2] = [&labels.engine, &labels.model];
            self.page.sample(name, "_count", &labels, histogram.count() as f64);
            self.page.sample(name, "_sum", &labels, histogram.sum());
        }
        self.page.family(name, "_created", help, "gauge");
        for labels in &self.labels {
            let labels: [&str; 2] = [&labels.engine, &labels.model];
            self.page.sample(name, "_created", &labels, self.pod.started);
        }
    }
}
