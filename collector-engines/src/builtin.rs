// SPDX-License-Identifier: Apache-2.0
//! The built-in engines, in the syntax of [`Expression`](crate::Expression).
//!
//! Names and labels are those of the servers' own sources and documents. Where names moved between
//! releases, the newest comes first.

use crate::quantity::Quantity;

use Quantity as Q;

/// One engine, or one generation of its names: entries with the same name are the same engine.
pub(crate) struct Builtin {
    pub(crate) name: &'static str,
    /// The engine whose metrics are used if this one has none; its prefix is replaced by this one's.
    pub(crate) base: Option<&'static str>,
    /// The prefix of its names.
    pub(crate) prefix: &'static str,
    pub(crate) model_labels: &'static [&'static str],
    pub(crate) rank_labels: &'static [&'static str],
    /// The label that names a replica if one page or pod has several: the page of a Ray node has all of its
    /// replicas, and autoscalers count replicas, not nodes.
    pub(crate) replica_label: Option<&'static str>,
    /// The label that names the role of a server, if several serve a request together.
    pub(crate) role_label: Option<&'static str>,
    /// Values of the model label that are no model's id: the model must be given.
    pub(crate) no_models: &'static [&'static str],
    /// Whether ids of models are compared without case.
    pub(crate) ignore_case: bool,
    /// Whether it counts the requests of servers behind it, which may be scraped as well.
    pub(crate) is_frontend: bool,
    /// Series that every page of this engine has.
    pub(crate) required: &'static [&'static str],
    pub(crate) metrics: &'static [(Quantity, &'static [&'static str])],
    /// The series whose labels name its LoRA adapters.
    pub(crate) lora: Option<&'static str>,
}

const NOTHING: Builtin = Builtin {
    name: "",
    base: None,
    prefix: "",
    model_labels: &["model_name"],
    rank_labels: &[],
    replica_label: None,
    role_label: None,
    no_models: &[],
    ignore_case: false,
    is_frontend: false,
    required: &[],
    metrics: &[],
    lora: None,
};

pub(crate) const ENGINES: [Builtin; 21] = [
    Builtin {
        name: "vllm",
        prefix: "vllm:",
        rank_labels: &["engine"],
        lora: Some("vllm:lora_requests_info"),
        metrics: &[
            (Q::Waiting, &["vllm:num_requests_waiting"]),
            (Q::WaitingForCapacity, &["vllm:num_requests_waiting_by_reason{reason=capacity}"]),
            (Q::Running, &["vllm:num_requests_running"]),
            // With several API servers, 0.9 to 0.11 write the new name once for each process, which
            // only the last writer has right.
            (
                Q::KvCacheUsage,
                &["vllm:kv_cache_usage_perc{pid=\"\"}", "vllm:gpu_cache_usage_perc{pid=\"\"}"],
            ),
            // For hybrid models, blocks times block size is not the capacity.
            (Q::KvCapacityTokens, &["vllm:cache_config_info[kv_cache_size_tokens]"]),
            (Q::BlockSize, &["vllm:cache_config_info[block_size]"]),
            (Q::NumGpuBlocks, &["vllm:cache_config_info[num_gpu_blocks]"]),
            (Q::Sleeping, &["vllm:engine_sleep_state{sleep_state!=awake}"]),
            (Q::RequestSuccessTotal, &["vllm:request_success_total"]),
            (Q::PromptTokensSum, &["vllm:request_prompt_tokens_sum"]),
            (Q::PromptTokensCount, &["vllm:request_prompt_tokens_count"]),
            (Q::PromptTokensTotal, &["vllm:prompt_tokens_total"]),
            (Q::GenerationTokensSum, &["vllm:request_generation_tokens_sum"]),
            (Q::GenerationTokensCount, &["vllm:request_generation_tokens_count"]),
            (Q::GenerationTokensTotal, &["vllm:generation_tokens_total"]),
            (Q::TtftSum, &["vllm:time_to_first_token_seconds_sum"]),
            (Q::TtftCount, &["vllm:time_to_first_token_seconds_count"]),
            (
                Q::ItlSum,
                &["vllm:inter_token_latency_seconds_sum", "vllm:time_per_output_token_seconds_sum"],
            ),
            (
                Q::ItlCount,
                &[
                    "vllm:inter_token_latency_seconds_count",
                    "vllm:time_per_output_token_seconds_count",
                ],
            ),
            // A connector is asked for tokens that the local cache does not have, so its hits are of the same tokens.
            (
                Q::PrefixHits,
                &[
                    "vllm:prefix_cache_hits_total + vllm:external_prefix_cache_hits_total?",
                    "vllm:gpu_prefix_cache_hits_total",
                ],
            ),
            (
                Q::PrefixQueries,
                &["vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"],
            ),
            (Q::QueueTimeSum, &["vllm:request_queue_time_seconds_sum"]),
            (Q::QueueTimeCount, &["vllm:request_queue_time_seconds_count"]),
            (Q::PrefillTimeSum, &["vllm:request_prefill_time_seconds_sum"]),
            (Q::PrefillTimeCount, &["vllm:request_prefill_time_seconds_count"]),
            (Q::DecodeTimeSum, &["vllm:request_decode_time_seconds_sum"]),
            (Q::DecodeTimeCount, &["vllm:request_decode_time_seconds_count"]),
        ],
        ..NOTHING
    },
    Builtin {
        name: "sglang",
        prefix: "sglang:",
        rank_labels: &["dp_rank"],
        role_label: Some("engine_type"),
        metrics: &[
            // Gauges by priority are exported beside their total, which has none. Counters have each request once, under
            // its own priority.
            (
                Q::Waiting,
                &["sglang:num_queue_reqs{priority=\"\"} \
                   + sglang:num_grammar_queue_reqs{priority=\"\"}? \
                   + sglang:num_paused_reqs{priority=\"\"}? \
                   + sglang:num_decode_prealloc_queue_reqs{engine_type=decode,priority=\"\"}? \
                   + sglang:num_prefill_bootstrap_queue_reqs{engine_type=prefill,priority=\"\"}?"],
            ),
            (Q::Running, &["sglang:num_running_reqs{priority=\"\"}"]),
            (Q::KvCacheUsage, &["sglang:token_usage{priority=\"\"}"]),
            (
                Q::KvCapacityTokens,
                &[
                    "sglang:max_total_num_tokens{priority=\"\"}",
                    "sglang:num_pages{priority=\"\"} * sglang:page_size{priority=\"\"}",
                ],
            ),
            (Q::BlockSize, &["sglang:cache_config_info[page_size]", "sglang:page_size"]),
            (Q::NumGpuBlocks, &["sglang:cache_config_info[num_pages]", "sglang:num_pages"]),
            (Q::RequestsTotal, &["sglang:num_requests_total"]),
            (Q::PromptTokensSum, &["sglang:prompt_tokens_histogram_sum"]),
            (Q::PromptTokensCount, &["sglang:prompt_tokens_histogram_count"]),
            (Q::PromptTokensTotal, &["sglang:prompt_tokens_total"]),
            (Q::GenerationTokensSum, &["sglang:generation_tokens_histogram_sum"]),
            (Q::GenerationTokensCount, &["sglang:generation_tokens_histogram_count"]),
            (Q::GenerationTokensTotal, &["sglang:generation_tokens_total"]),
            (Q::TtftSum, &["sglang:time_to_first_token_seconds_sum"]),
            (Q::TtftCount, &["sglang:time_to_first_token_seconds_count"]),
            (
                Q::ItlSum,
                &[
                    "sglang:inter_token_latency_seconds_sum",
                    "sglang:time_per_output_token_seconds_sum",
                ],
            ),
            (
                Q::ItlCount,
                &[
                    "sglang:inter_token_latency_seconds_count",
                    "sglang:time_per_output_token_seconds_count",
                ],
            ),
            (Q::CachedTokensTotal, &["sglang:cached_tokens_total"]),
            (Q::QueueTimeSum, &["sglang:queue_time_seconds_sum"]),
            (Q::QueueTimeCount, &["sglang:queue_time_seconds_count"]),
        ],
        ..NOTHING
    },
    Builtin {
        name: "trtllm-serve",
        prefix: "trtllm_",
        no_models: &["undefined"],
        metrics: &[
            (Q::Waiting, &["trtllm_num_requests_waiting"]),
            (Q::Running, &["trtllm_num_requests_running"]),
            (Q::KvCacheUsage, &["trtllm_kv_cache_utilization"]),
            (Q::BlockSize, &["trtllm_kv_cache_tokens_per_block"]),
            (Q::NumGpuBlocks, &["trtllm_kv_cache_max_blocks"]),
            (Q::RequestSuccessTotal, &["trtllm_request_success_total"]),
            (Q::PromptTokensTotal, &["trtllm_prompt_tokens_total"]),
            (Q::GenerationTokensTotal, &["trtllm_generation_tokens_total"]),
            (Q::TtftSum, &["trtllm_time_to_first_token_seconds_sum"]),
            (Q::TtftCount, &["trtllm_time_to_first_token_seconds_count"]),
            (Q::ItlSum, &["trtllm_time_per_output_token_seconds_sum"]),
            (Q::ItlCount, &["trtllm_time_per_output_token_seconds_count"]),
            (Q::PrefixHits, &["trtllm_kv_cache_reused_blocks_total"]),
            (
                Q::PrefixQueries,
                &["trtllm_kv_cache_reused_blocks_total + trtllm_kv_cache_missed_blocks_total"],
            ),
            (Q::QueueTimeSum, &["trtllm_request_queue_time_seconds_sum"]),
            (Q::QueueTimeCount, &["trtllm_request_queue_time_seconds_count"]),
        ],
        ..NOTHING
    },
    // 1.0 to 1.2 wrote no prefix, and none of the gauges.
    Builtin {
        name: "trtllm-serve",
        no_models: &["undefined"],
        required: &["e2e_request_latency_seconds_count", "request_success_total"],
        metrics: &[
            (Q::RequestSuccessTotal, &["request_success_total"]),
            (Q::TtftSum, &["time_to_first_token_seconds_sum"]),
            (Q::TtftCount, &["time_to_first_token_seconds_count"]),
            (Q::ItlSum, &["time_per_output_token_seconds_sum"]),
            (Q::ItlCount, &["time_per_output_token_seconds_count"]),
            (Q::QueueTimeSum, &["request_queue_time_seconds_sum"]),
            (Q::QueueTimeCount, &["request_queue_time_seconds_count"]),
        ],
        ..NOTHING
    },
    // It counts neither tokens nor latencies, and the requests of its other models (`ensemble`,
    // `preprocessing`) are these same requests.
    Builtin {
        name: "triton-tensorrt-llm",
        prefix: "nv_",
        model_labels: &["model"],
        no_models: TRITON_PARTS,
        metrics: &[
            (Q::Waiting, &["nv_trt_llm_request_metrics{request_type=waiting}"]),
            (Q::Running, &["nv_trt_llm_request_metrics{request_type=scheduled}"]),
            (Q::KvCacheUsage, &["nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}"]),
            (Q::BlockSize, &["nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per}"]),
            (Q::NumGpuBlocks, &["nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}"]),
        ],
        ..NOTHING
    },
    // Triton with the vLLM backend: vLLM's names, each with Triton's labels.
    Builtin {
        name: "triton-vllm",
        base: Some("vllm"),
        prefix: "vllm:",
        model_labels: &["model"],
        required: &["vllm:num_requests_running"],
        ..NOTHING
    },
    Builtin {
        name: "triton",
        prefix: "nv_",
        model_labels: &["model"],
        no_models: TRITON_PARTS,
        metrics: &[
            (Q::Waiting, &["nv_inference_pending_request_count"]),
            (Q::RequestSuccessTotal, &["nv_inference_request_success"]),
        ],
        ..NOTHING
    },
    Builtin { name: "nim", base: Some("vllm"), required: &["num_requests_running"], ..NOTHING },
    Builtin { name: "tokenspeed", base: Some("vllm"), prefix: "tokenspeed:", ..NOTHING },
    Builtin {
        name: "lmdeploy",
        base: Some("vllm"),
        prefix: "lmdeploy:",
        rank_labels: &["engine"],
        metrics: &[
            (Q::Waiting, &["lmdeploy:num_requests_waiting + lmdeploy:num_api_requests_waiting?"]),
            (Q::KvCacheUsage, &["lmdeploy:gpu_cache_usage_perc"]),
            (Q::PrefixHits, &[]),
            (Q::PrefixQueries, &[]),
            (Q::PrefixCacheHitRate, &["lmdeploy:prefix_cache_hit_rate"]),
        ],
        ..NOTHING
    },
    Builtin {
        name: "fastdeploy",
        prefix: "fastdeploy:",
        metrics: &[
            (Q::Waiting, &["fastdeploy:num_requests_waiting"]),
            (Q::Running, &["fastdeploy:num_requests_running"]),
            (Q::KvCacheUsage, &["fastdeploy:gpu_cache_usage_perc"]),
            (Q::RequestSuccessTotal, &["fastdeploy:request_success_total"]),
            (Q::RequestsTotal, &["fastdeploy:requests_number_total"]),
            (Q::PromptTokensSum, &["fastdeploy:request_prompt_tokens_sum"]),
            (Q::PromptTokensCount, &["fastdeploy:request_prompt_tokens_count"]),
            (Q::PromptTokensTotal, &["fastdeploy:prompt_tokens_total"]),
            (Q::GenerationTokensSum, &["fastdeploy:request_generation_tokens_sum"]),
            (Q::GenerationTokensCount, &["fastdeploy:request_generation_tokens_count"]),
            (Q::GenerationTokensTotal, &["fastdeploy:generation_tokens_total"]),
            (Q::TtftSum, &["fastdeploy:time_to_first_token_seconds_sum"]),
            (Q::TtftCount, &["fastdeploy:time_to_first_token_seconds_count"]),
            (Q::ItlSum, &["fastdeploy:time_per_output_token_seconds_sum"]),
            (Q::ItlCount, &["fastdeploy:time_per_output_token_seconds_count"]),
            (Q::QueueTimeSum, &["fastdeploy:request_queue_time_seconds_sum"]),
            (Q::QueueTimeCount, &["fastdeploy:request_queue_time_seconds_count"]),
            (Q::PrefillTimeSum, &["fastdeploy:request_prefill_time_seconds_sum"]),
            (Q::PrefillTimeCount, &["fastdeploy:request_prefill_time_seconds_count"]),
            (Q::DecodeTimeSum, &["fastdeploy:request_decode_time_seconds_sum"]),
            (Q::DecodeTimeCount, &["fastdeploy:request_decode_time_seconds_count"]),
        ],
        ..NOTHING
    },
    Builtin {
        name: "atom",
        prefix: "atom:",
        metrics: &[
            (Q::Waiting, &["atom:num_requests_waiting", "atom:requests_waiting"]),
            (Q::Running, &["atom:num_requests_running", "atom:requests_running"]),
            (Q::KvCacheUsage, &["atom:kv_cache_usage_perc", "atom:kv_cache_usage_ratio"]),
            (Q::BlockSize, &["atom:cache_config_info[block_size]"]),
            (Q::NumGpuBlocks, &["atom:cache_config_info[num_gpu_blocks]"]),
            (Q::RequestsTotal, &["atom:requests_finished_total"]),
            (Q::PromptTokensTotal, &["atom:prompt_tokens_total"]),
            (Q::GenerationTokensTotal, &["atom:generation_tokens_total"]),
        ],
        ..NOTHING
    },
    Builtin {
        name: "ray-vllm",
        base: Some("vllm"),
        prefix: "ray_vllm_",
        rank_labels: &["engine"],
        replica_label: Some("ReplicaId"),
        lora: Some("ray_vllm_lora_requests_info"),
        ..NOTHING
    },
    Builtin {
        name: "ray-vllm",
        base: Some("vllm"),
        prefix: "ray_vllm:",
        rank_labels: &["engine"],
        replica_label: Some("ReplicaId"),
        lora: Some("ray_vllm:lora_requests_info"),
        ..NOTHING
    },
    Builtin {
        name: "ray-sglang",
        base: Some("sglang"),
        prefix: "ray_sglang_",
        rank_labels: &["dp_rank"],
        replica_label: Some("ReplicaId"),
        role_label: Some("engine_type"),
        ..NOTHING
    },
    Builtin {
        name: "tgi",
        prefix: "tgi_",
        metrics: &[
            (Q::Waiting, &["tgi_queue_size"]),
            (Q::Running, &["tgi_batch_current_size"]),
            // What fits; `tgi_batch_current_max_tokens` is the budget of the batch at work.
            (Q::KvCapacityTokens, &["tgi_batch_max_total_tokens"]),
            (Q::RequestSuccessTotal, &["tgi_request_success"]),
            (Q::RequestsTotal, &["tgi_request_count"]),
            (Q::PromptTokensSum, &["tgi_request_input_length_sum"]),
            (Q::PromptTokensCount, &["tgi_request_input_length_count"]),
            (Q::GenerationTokensSum, &["tgi_request_generated_tokens_sum"]),
            (Q::GenerationTokensCount, &["tgi_request_generated_tokens_count"]),
            (Q::ItlSum, &["tgi_request_mean_time_per_token_duration_sum"]),
            (Q::ItlCount, &["tgi_request_mean_time_per_token_duration_count"]),
            (Q::QueueTimeSum, &["tgi_request_queue_duration_sum"]),
            (Q::QueueTimeCount, &["tgi_request_queue_duration_count"]),
        ],
        ..NOTHING
    },
    Builtin {
        name: "llamacpp",
        prefix: "llamacpp:",
        metrics: &[
            (Q::Waiting, &["llamacpp:requests_deferred"]),
            (Q::Running, &["llamacpp:requests_processing"]),
            // Builds of 2025 and before.
            (Q::KvCacheUsage, &["llamacpp:kv_cache_usage_ratio"]),
            (Q::PromptTokensTotal, &["llamacpp:prompt_tokens_total"]),
            (Q::GenerationTokensTotal, &["llamacpp:tokens_predicted_total"]),
        ],
        ..NOTHING
    },
    // It counts finished work, and exports neither its queue nor its cache.
    Builtin {
        name: "mlc",
        required: &["engine_prefill_time_sum", "engine_decode_time_sum"],
        metrics: &[
            (Q::PromptTokensTotal, &["prompt_tokens_sum"]),
            (Q::GenerationTokensTotal, &["completion_tokens_sum"]),
        ],
        ..NOTHING
    },
    // The frontend of a deployment: it counts for all workers behind it.
    Builtin {
        name: "dynamo",
        prefix: "dynamo_frontend_",
        model_labels: &["model"],
        ignore_case: true,
        is_frontend: true,
        metrics: &[
            (Q::Waiting, &["dynamo_frontend_queued_requests"]),
            (Q::Running, &["dynamo_frontend_inflight_requests - dynamo_frontend_queued_requests"]),
            (Q::RequestsTotal, &["dynamo_frontend_requests_total"]),
            (Q::PromptTokensSum, &["dynamo_frontend_input_sequence_tokens_sum"]),
            (Q::PromptTokensCount, &["dynamo_frontend_input_sequence_tokens_count"]),
            (Q::GenerationTokensSum, &["dynamo_frontend_output_sequence_tokens_sum"]),
            (Q::GenerationTokensCount, &["dynamo_frontend_output_sequence_tokens_count"]),
            (Q::TtftSum, &["dynamo_frontend_time_to_first_token_seconds_sum"]),
            (Q::TtftCount, &["dynamo_frontend_time_to_first_token_seconds_count"]),
            (Q::ItlSum, &["dynamo_frontend_inter_token_latency_seconds_sum"]),
            (Q::ItlCount, &["dynamo_frontend_inter_token_latency_seconds_count"]),
        ],
        ..NOTHING
    },
    Builtin {
        name: "kserve-vllm",
        base: Some("vllm"),
        prefix: "kserve_vllm:",
        rank_labels: &["engine"],
        lora: Some("kserve_vllm:lora_requests_info"),
        ..NOTHING
    },
    Builtin {
        name: "kserve-sglang",
        base: Some("sglang"),
        prefix: "kserve_sglang:",
        rank_labels: &["dp_rank"],
        role_label: Some("engine_type"),
        ..NOTHING
    },
];

/// What Triton calls the parts of a TensorRT-LLM deployment, whatever model it serves.
const TRITON_PARTS: &[&str] =
    &["tensorrt_llm", "tensorrt_llm_bls", "ensemble", "preprocessing", "postprocessing"];

/// Series that only a router or gateway exports, with its name. Beside a model server's series they mean that those
/// belong to other servers.
pub(crate) const ROUTERS: &[(&str, &str)] = &[
    ("vllm:healthy_pods_total", "the vLLM production-stack router"),
    ("vllm:current_qps", "the vLLM production-stack router"),
    ("aibrix_gateway_requests_total", "the AIBrix gateway"),
];
