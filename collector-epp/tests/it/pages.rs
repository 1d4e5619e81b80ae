// SPDX-License-Identifier: Apache-2.0
//! What counts on a page, and what does not.

use std::fmt::Write as _;

use collector_epp::endpoint_picker::EndpointPickerMetrics;
use collector_epp::engines::{Engines, Exposition, Quantity};
use proptest::prelude::*;

use crate::read::{page_of, server_of};

fn endpoint_picker(page: &str) -> EndpointPickerMetrics {
    match page_of(&Engines::builtin(), page) {
        Ok(Exposition::EndpointPicker(page)) => page,
        page => panic!("{page:?}"),
    }
}

#[test]
fn old_and_new_names_are_never_summed() {
    let page = server_of(
        &Engines::builtin(),
        "vllm:gpu_cache_usage_perc{model_name=\"m\"} 0.25\n\
         vllm:kv_cache_usage_perc{model_name=\"m\"} 0.5\n\
         vllm:time_per_output_token_seconds_sum{model_name=\"m\"} 7\n",
    );
    assert_eq!(page.rows.len(), 1);
    assert_eq!(page.rows[0].numbers[Quantity::KvCacheUsage], Some(0.5));
    assert_eq!(page.rows[0].numbers[Quantity::ItlSum], Some(7.0));
    let matched: Vec<String> =
        page.matched.iter().map(|it| format!("{}: {}", it.quantity.key(), it.spec)).collect();
    assert_eq!(
        matched,
        [
            "kv_cache_usage: vllm:kv_cache_usage_perc",
            "itl_sum: vllm:time_per_output_token_seconds_sum"
        ]
    );

    let page = endpoint_picker(
        "inference_objective_request_total{model_name=\"m\",target_model_name=\"t\",priority=\"0\"} 5\n\
         llm_d_router_epp_request_total{model_name=\"m\",target_model_name=\"t\",priority=\"0\"} 5\n\
         llm_d_epp_request_total{model_name=\"m\",target_model_name=\"t\",priority=\"0\"} 5\n\
         llm_d_epp_request_total{model_name=\"m\",target_model_name=\"t\",priority=\"1\"} 2\n",
    );
    assert_eq!(page.models.len(), 1);
    assert_eq!(page.models[0].numbers.get("requests_total"), Some(&7.0));
}

#[test]
fn the_first_alias_on_the_page_is_used_even_if_it_is_nan() {
    let page = server_of(
        &Engines::builtin(),
        "vllm:kv_cache_usage_perc{model_name=\"m\"} NaN\n\
         vllm:gpu_cache_usage_perc{model_name=\"m\"} 0.5\n",
    );
    assert!(page.rows[0].numbers[Quantity::KvCacheUsage].unwrap().is_nan());
}

#[test]
fn a_repeated_series_counts_once() {
    let page = server_of(
        &Engines::builtin(),
        "vllm:request_success_total{model_name=\"m\",finished_reason=\"stop\"} 3\n\
         vllm:request_success_total{model_name=\"m\",finished_reason=\"length\"} 4\n\
         vllm:request_success_total{finished_reason=\"stop\",model_name=\"m\"} 5\n",
    );
    assert_eq!(page.rows[0].numbers[Quantity::RequestSuccessTotal], Some(7.0));
    assert_eq!(page.repeated, 1);
}

#[test]
fn a_sum_with_a_malformed_part_is_unknown() {
    let page = server_of(
        &Engines::builtin(),
        "vllm:request_success_total{model_name=\"m\",finished_reason=\"stop\"} 3\n\
         vllm:request_success_total{model_name=\"m\",finished_reason=\"length\"} 4x\n\
         vllm:num_requests_waiting{model_name=\"m\"} 2\n",
    );
    assert_eq!(page.rows[0].numbers[Quantity::RequestSuccessTotal], None);
    assert_eq!(page.rows[0].numbers[Quantity::Waiting], Some(2.0));
}

#[test]
fn sums_are_unknown_after_however_many_malformed_lines_and_no_others() {
    let mut page = "vllm:num_requests_running{model_name=\"m\"} x\n".repeat(20);
    page += "vllm:request_success_total{model_name=\"m\",finished_reason=\"stop\"} 3\n\
             vllm:request_success_total{model_name=\"m\",finished_reason=\"abort\"} x\n\
             vllm:prompt_tokens_total{model_name=\"m\"} 7\n";
    let page = server_of(&Engines::builtin(), &page);
    assert_eq!(page.rows[0].numbers[Quantity::RequestSuccessTotal], None);
    assert_eq!(page.rows[0].numbers[Quantity::PromptTokensTotal], Some(7.0));
}

#[test]
fn floats_add_up_in_the_order_of_the_page() {
    let mut page = String::new();
    for (tenant, sum) in [0.1, 0.2, 0.3, 0.4, 0.7].iter().enumerate() {
        let _ = writeln!(
            page,
            "llm_d_epp_request_duration_seconds_sum{{model_name=\"m\",target_model_name=\"m\",\
             fairness_id=\"{tenant}\"}} {sum}"
        );
    }
    // Readers differ in how they hash.
    for _ in 0..20 {
        let expected = Some(0.1 + 0.2 + 0.3 + 0.4 + 0.7);
        let models = endpoint_picker(&page).models;
        assert_eq!(models[0].numbers.get("duration_sum").copied(), expected);
    }
}

#[test]
fn an_endpoint_pickers_sums_are_exact_or_unknown() {
    let page = endpoint_picker(
        "llm_d_epp_request_total{model_name=\"m\",target_model_name=\"t\",priority=\"0\"} 5\n\
         llm_d_epp_request_total{model_name=\"m\",target_model_name=\"t\",priority=\"1\"} 5x\n\
         llm_d_epp_request_error_total{model_name=\"m\",target_model_name=\"t\"} 2\n\
         llm_d_epp_request_error_total{target_model_name=\"t\",model_name=\"m\"} 3\n",
    );
    let [model] = &page.models[..] else { panic!("{:?}", page.models) };
    assert_eq!(model.numbers, [("errors_total", 2.0)].into());
    assert_eq!((page.repeated, page.beyond_limit), (1, 0));
}

#[test]
fn newest_lora_series_is_the_current_one_wherever_it_stands() {
    let page = server_of(
        &Engines::builtin(),
        "vllm:num_requests_waiting{model_name=\"m\"} 3\n\
         vllm:lora_requests_info{max_lora=\"2\",running_lora_adapters=\"a, b\"} 1.75540040025e+09\n\
         vllm:lora_requests_info{max_lora=\"2\",running_lora_adapters=\"c\"} 1.75540030025e+09\n\
         vllm:lora_requests_info{max_lora=\"2\",running_lora_adapters=\"d\"} NaN\n",
    );
    let lora = page.lora.unwrap();
    let running: Vec<&str> = lora.running.iter().map(AsRef::as_ref).collect();
    assert_eq!((running, lora.waiting.len(), lora.max), (vec!["a", "b"], 0, Some(2)));
}

#[test]
fn tensor_ranks_of_one_scheduler_are_not_added() {
    let page = server_of(
        &Engines::builtin(),
        "sglang:num_queue_reqs{dp_rank=\"0\",model_name=\"m\",tp_rank=\"0\"} 3\n\
         sglang:num_queue_reqs{dp_rank=\"0\",model_name=\"m\",tp_rank=\"1\"} 4\n",
    );
    assert_eq!((page.rows.len(), page.rows[0].numbers[Quantity::Waiting]), (1, Some(4.0)));
}

#[test]
fn configuration_without_a_model_belongs_to_the_only_model() {
    let info = "vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"None\"} 1\n";
    let waiting = |rank: u8| {
        format!("vllm:num_requests_waiting{{model_name=\"m\",engine=\"{rank}\"}} {rank}\n")
    };
    let one = server_of(&Engines::builtin(), &(waiting(0) + info));
    assert_eq!(one.rows.len(), 1);
    assert_eq!(
        (one.rows[0].numbers[Quantity::BlockSize], one.rows[0].numbers[Quantity::NumGpuBlocks]),
        (Some(16.0), None)
    );

    let two = server_of(&Engines::builtin(), &(waiting(0) + info + &waiting(1)));
    assert_eq!(two.rows.len(), 3);
    assert_eq!(
        (two.rows[0].model.as_ref(), two.rows[0].numbers[Quantity::BlockSize]),
        (None, Some(16.0))
    );
    assert_eq!(
        (two.rows[1].numbers[Quantity::BlockSize], two.rows[2].numbers[Quantity::BlockSize]),
        (None, None)
    );
}

#[test]
fn label_that_is_empty_is_no_label() {
    let page = server_of(&Engines::builtin(), "vllm:num_requests_waiting{model_name=\"\"} 2\n");
    assert_eq!(
        (page.rows[0].model.as_ref(), page.rows[0].numbers[Quantity::Waiting]),
        (None, Some(2.0))
    );

    let staged = endpoint_picker(
        "llm_d_epp_flow_control_pool_saturation{inference_pool=\"p\",stage=\"prefill\"} 0.1\n\
         llm_d_epp_flow_control_pool_saturation{inference_pool=\"p\",stage=\"effective\"} 0.2\n",
    );
    assert_eq!(staged.pools[0].numbers.get("saturation_effective"), Some(&0.2));
    let whole = endpoint_picker(
        "inference_extension_flow_control_pool_saturation{inference_pool=\"p\"} 0.3\n",
    );
    assert_eq!(whole.pools[0].numbers.get("saturation_effective"), Some(&0.3));
}

#[test]
fn page_of_no_known_engine_is_unknown_and_not_empty() {
    for page in ["", "up 1\n", "<html>vllm:num_requests_waiting 3</html>\n"] {
        let Err(unknown) = page_of(&Engines::builtin(), page) else {
            panic!("{page} is of no engine")
        };
        assert_eq!((unknown.expected, unknown.looks_like, unknown.router), (None, None, None));
    }
}

#[test]
fn rows_beyond_the_limit_make_sums_unknown() {
    let mut page = String::new();
    for model in 0..10_000 {
        let _ = writeln!(page, "vllm:request_success_total{{model_name=\"{model}\"}} 1");
        let _ = writeln!(page, "vllm:num_requests_waiting{{model_name=\"{model}\"}} 1");
    }
    let page = server_of(&Engines::builtin(), &page);
    assert!(page.rows.len() < 10_000);
    assert_eq!(page.beyond_limit, 2 * (10_000 - page.rows.len() as u64));
    assert!(page.rows.iter().all(|row| row.numbers[Quantity::Waiting] == Some(1.0)));
    assert!(page.rows.iter().all(|row| row.numbers[Quantity::RequestSuccessTotal].is_none()));
}

const NAMES: &[&str] = &[
    "vllm:num_requests_waiting",
    "vllm:request_success_total",
    "vllm:cache_config_info",
    "sglang:num_queue_reqs",
    "nv_trt_llm_request_metrics",
    "llm_d_epp_request_ttft_seconds_sum",
    "inference_objective_running_requests",
    "inference_pool_per_pod_queue_size",
    "inference_extension_flow_control_pool_saturation",
];

proptest! {
    /// Whatever the lines are, reading them ends in a page, and that of the same lines is the same.
    #[test]
    fn every_page_is_read_to_its_end(
        lines in proptest::collection::vec(
            (
                proptest::sample::select(NAMES),
                "(model_name|engine|streaming|name|stage)",
                "(a|0|1|true|effective|)",
                "(1|-2.5|NaN|\\+Inf|x)",
            ),
            0..40,
        )
    ) {
        let engines = Engines::builtin();
        let mut page = String::new();
        for (name, label, text, value) in lines {
            let _ = writeln!(page, "{name}{{{label}=\"{text}\"}} {value}");
        }
        let shown = |page: Result<Exposition, _>| format!("{page:?}");
        prop_assert_eq!(shown(page_of(&engines, &page)), shown(page_of(&engines, &page)));
    }
}
