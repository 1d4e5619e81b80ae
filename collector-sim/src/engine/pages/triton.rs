// SPDX-License-Identifier: Apache-2.0
//! The page of Triton with the TensorRT-LLM backend: one family holds several quantities, distinguished by a
//! label. It has no histograms and no name of the served model.

use crate::engine::counters::Counters;
use crate::engine::exposition::{Numbers, labels};
use crate::engine::template::Layout;
use crate::spec::EngineSpec;

use super::{PodView, Whose};

/// The models of Triton's repository: the parts of a pipeline.
const MODELS: [&str; 5] =
    ["ensemble", "preprocessing", "postprocessing", "tensorrt_llm", "tensorrt_llm_bls"];
/// The model that runs the engine.
const ENGINE: &str = "tensorrt_llm";
const GPUS: usize = 4;

/// Returns the value of a family of the pipeline's models.
type Count = fn(&Counters) -> f64;

/// The families that Triton has for each model of its repository.
const INFERENCE: [(&str, &str, &str, Count); 10] = [
    ("nv_inference_request_success", "Requests that succeeded", "counter", |c| c.finished as f64),
    ("nv_inference_request_failure", "Requests that failed", "counter", |_| 0.0),
    ("nv_inference_count", "Inferences", "counter", |c| c.finished as f64),
    ("nv_inference_exec_count", "Executions", "counter", |c| c.finished as f64),
    ("nv_inference_request_duration_us", "Request time", "counter", |c| {
        micros(c.e2e_latency.sum())
    }),
    ("nv_inference_queue_duration_us", "Queue time", "counter", |c| micros(c.queue_time.sum())),
    ("nv_inference_compute_input_duration_us", "Input time", "counter", |_| 0.0),
    ("nv_inference_compute_infer_duration_us", "Compute time", "counter", |c| {
        micros(c.inference_time.sum())
    }),
    ("nv_inference_compute_output_duration_us", "Output time", "counter", |_| 0.0),
    ("nv_inference_pending_request_count", "Requests pending", "gauge", |_| 0.0),
];

fn micros(seconds: f64) -> f64 {
    (seconds * 1e6).round()
}

/// Triton names the model by its position in the pipeline, whatever it serves.
pub(super) fn layout(spec: &EngineSpec, padding: usize) -> Layout<PodView> {
    let mut layout = Layout::new(Numbers::Plain);
    inference(&mut layout, padding);
    host(&mut layout);
    let blocks = spec.num_gpu_blocks;
    let (block_size, batch) = (f64::from(spec.block_size), f64::from(spec.max_num_seqs));
    quantities(
        &mut layout,
        "request",
        "Request counts",
        "request_type",
        vec![
            ("waiting", of_pod(|view| view.waiting(0))),
            ("context", of_pod(|_| 0.0)),
            ("scheduled", of_pod(|view| view.running(0))),
            ("max", of_pod(move |_| batch)),
            ("active", of_pod(|view| view.waiting(0) + view.running(0))),
        ],
    );
    quantities(
        &mut layout,
        "runtime_memory",
        "Memory",
        "memory_type",
        vec![
            ("pinned", of_pod(|_| 0.0)),
            ("gpu", of_pod(|_| 1_610_236.0)),
            ("cpu", of_pod(|_| 0.0)),
        ],
    );
    quantities(
        &mut layout,
        "kv_cache_block",
        "KV blocks",
        "kv_cache_block_type",
        vec![
            ("fraction", of_pod(|view| view.kv_cache_usage(0))),
            ("tokens_per", of_pod(move |_| block_size)),
            ("used", of_pod(move |view| view.used_blocks(0, blocks))),
            ("free", of_pod(move |view| f64::from(blocks) - view.used_blocks(0, blocks))),
            ("max", of_pod(move |_| f64::from(blocks))),
        ],
    );
    let metric = "inflight_batcher_specific_metric";
    quantities(
        &mut layout,
        "inflight_batcher",
        "In-flight batcher",
        metric,
        vec![
            ("micro_batch_id", of_pod(|_| 0.0)),
            ("generation_requests", of_pod(|view| view.running(0))),
            ("total_context_tokens", of_pod(|_| 0.0)),
        ],
    );
    quantities(
        &mut layout,
        "general",
        "General",
        "general_type",
        vec![
            (
                "iteration_counter",
                of_pod(|view| view.counters(Whose::Pod).generation_tokens as f64),
            ),
            ("timestamp", of_pod(|view| view.started.floor())),
        ],
    );
    let name = "nv_trt_llm_disaggregated_serving_metrics";
    layout.family(name, "Disaggregation", "counter");
    for value in ["kv_cache_transfer_ms", "request_count"] {
        let label =
            labels(&[("disaggregated_serving_type", value), ("model", ENGINE), ("version", "1")]);
        layout.constant(name, &[&label], 0.0);
    }
    gpus(&mut layout);
    layout
}

fn inference(layout: &mut Layout<PodView>, padding: usize) {
    // A repository may hold any number of models; each has a sample in each of these families.
    let bytes_of_a_model: usize = INFERENCE.iter().map(|(family, ..)| family.len() + 35).sum();
    let unused = padding.div_ceil(bytes_of_a_model);
    for (family, help, kind, read) in INFERENCE {
        layout.family(family, help, kind);
        for model in MODELS {
            let label = labels(&[("model", model), ("version", "1")]);
            layout.sample(family, &[&label], move |view| read(view.counters(Whose::Pod)));
        }
        for number in 0..unused {
            let label = labels(&[("model", &format!("model_{number:04}")), ("version", "1")]);
            layout.constant(family, &[&label], 0.0);
        }
    }
}

fn host(layout: &mut Layout<PodView>) {
    for (family, value) in [
        ("nv_pinned_memory_pool_total_bytes", 268_435_456.0),
        ("nv_pinned_memory_pool_used_bytes", 0.0),
        ("nv_cpu_utilization", 0.21),
        ("nv_cpu_memory_total_bytes", 1_081_101_176_832.0),
        ("nv_cpu_memory_used_bytes", 92_341_796_864.0),
    ] {
        layout.family(family, "Host resource", "gauge");
        layout.constant(family, &[], value);
    }
}

fn gpus(layout: &mut Layout<PodView>) {
    for (family, value) in [
        ("nv_gpu_utilization", 0.93),
        ("nv_gpu_memory_total_bytes", 85_520_809_984.0),
        ("nv_gpu_memory_used_bytes", 77_309_411_328.0),
        ("nv_gpu_power_usage", 612.3),
        ("nv_gpu_power_limit", 700.0),
    ] {
        layout.family(family, "GPU", "gauge");
        for gpu in 0..GPUS {
            let uuid = format!("GPU-5f0c1d3e-0000-4000-8000-{gpu:012}");
            layout.constant(family, &[&labels(&[("gpu_uuid", &uuid)])], value);
        }
    }
}

type Read = Box<dyn Fn(&PodView) -> f64 + Send + Sync>;

fn of_pod(read: impl Fn(&PodView) -> f64 + Send + Sync + 'static) -> Read {
    Box::new(read)
}

/// Adds one of the backend's families: several quantities, distinguished by the label `by`.
fn quantities(
    layout: &mut Layout<PodView>,
    family: &str,
    help: &str,
    by: &str,
    quantities: Vec<(&str, Read)>,
) {
    let name = format!("nv_trt_llm_{family}_metrics");
    layout.family(&name, help, "gauge");
    for (quantity, read) in quantities {
        let mut pairs = [(by, quantity), ("model", ENGINE), ("version", "1")];
        pairs.sort_unstable();
        layout.sample(&name, &[&labels(&pairs)], read);
    }
}
