//! The engines that are known without being told, in the syntax of [`Spec`](super::Spec).

use super::quantity::Quantity;

use Quantity as Q;

/// One engine: which labels name a row's model and rank, and where each quantity stands. The first
/// alias that is on a page is the one that counts there.
pub(super) struct Builtin {
    pub(super) name: &'static str,
    pub(super) model_label: &'static str,
    pub(super) rank_label: &'static str,
    pub(super) metrics: &'static [(Quantity, &'static [&'static str])],
    /// Whether it tells its LoRA adapters as vLLM does.
    pub(super) lora: bool,
}

pub(super) const ENGINES: [Builtin; 4] = [
    Builtin {
        name: "vllm",
        model_label: "model_name",
        rank_label: "engine",
        lora: true,
        metrics: &[
            (Q::Waiting, &["vllm:num_requests_waiting"]),
            (Q::Running, &["vllm:num_requests_running"]),
            (Q::KvCacheUsage, &["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"]),
            (Q::BlockSize, &["vllm:cache_config_info[block_size]"]),
            (Q::NumGpuBlocks, &["vllm:cache_config_info[num_gpu_blocks]"]),
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
            (Q::PrefixHits, &["vllm:prefix_cache_hits_total"]),
            (Q::PrefixQueries, &["vllm:prefix_cache_queries_total"]),
        ],
    },
    Builtin {
        name: "sglang",
        model_label: "model_name",
        rank_label: "dp_rank",
        lora: false,
        metrics: &[
            (Q::Waiting, &["sglang:num_queue_reqs"]),
            (Q::Running, &["sglang:num_running_reqs"]),
            (Q::KvCacheUsage, &["sglang:token_usage"]),
            (Q::BlockSize, &["sglang:cache_config_info[page_size]"]),
            (Q::NumGpuBlocks, &["sglang:cache_config_info[num_pages]"]),
            (Q::RequestsTotal, &["sglang:num_requests_total"]),
            (Q::PromptTokensSum, &["sglang:prompt_tokens_histogram_sum"]),
            (Q::PromptTokensCount, &["sglang:prompt_tokens_histogram_count"]),
            (Q::PromptTokensTotal, &["sglang:prompt_tokens_total"]),
            (Q::GenerationTokensSum, &["sglang:generation_tokens_histogram_sum"]),
            (Q::GenerationTokensCount, &["sglang:generation_tokens_histogram_count"]),
            (Q::GenerationTokensTotal, &["sglang:generation_tokens_total"]),
            (Q::TtftSum, &["sglang:time_to_first_token_seconds_sum"]),
            (Q::TtftCount, &["sglang:time_to_first_token_seconds_count"]),
            (Q::ItlSum, &["sglang:inter_token_latency_seconds_sum"]),
            (Q::ItlCount, &["sglang:inter_token_latency_seconds_count"]),
            (Q::CachedTokensTotal, &["sglang:cached_tokens_total"]),
        ],
    },
    Builtin {
        name: "trtllm-serve",
        model_label: "model_name",
        rank_label: "",
        lora: false,
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
        ],
    },
    // It counts neither tokens nor latencies, and the requests of its other models (`ensemble`,
    // `preprocessing`) are these same requests.
    Builtin {
        name: "triton-tensorrt-llm",
        model_label: "model",
        rank_label: "",
        lora: false,
        metrics: &[
            (Q::Waiting, &["nv_trt_llm_request_metrics{request_type=waiting}"]),
            (Q::Running, &["nv_trt_llm_request_metrics{request_type=scheduled}"]),
            (Q::KvCacheUsage, &["nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}"]),
            (Q::BlockSize, &["nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per}"]),
            (Q::NumGpuBlocks, &["nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}"]),
        ],
    },
];

/// The series in which vLLM tells its LoRA adapters.
pub(super) const LORA: &str = "vllm:lora_requests_info";
