//! How the values of a replica came about, for `explain`.

use collector_core::{Field, TraceRow};

use super::pod::Good;
use crate::engines::{EngineRow, Engines, Matched, Page, ServerPage};

/// A number of a page, by the quantity that it is read as.
type Number = (Field, &'static str, fn(&EngineRow) -> Option<f64>);

/// What each field is made of; what stands for each other side by side.
const NUMBERS: [Number; 21] = [
    (Field::KvCacheUsage, "kv_cache_usage", |row| row.kv_cache_usage),
    (Field::QueueLength, "waiting", |row| row.waiting),
    (Field::RunningRequests, "running", |row| row.running),
    (Field::CacheConfig, "kv_capacity_tokens", |row| row.kv_capacity_tokens),
    (Field::CacheConfig, "num_gpu_blocks", |row| row.num_gpu_blocks),
    (Field::CacheConfig, "block_size", |row| row.block_size),
    (Field::PrefixCacheHitRate, "prefix_hits", |row| row.counters.prefix_hits),
    (Field::PrefixCacheHitRate, "prefix_queries", |row| row.counters.prefix_queries),
    (Field::PrefixCacheHitRate, "cached_tokens_total", |row| row.counters.cached_tokens_total),
    (Field::PrefixCacheHitRate, "prefix_cache_hit_rate", |row| row.prefix_cache_hit_rate),
    (Field::ArrivalRate, "prompt_tokens_count", |row| row.counters.prompt_tokens_count),
    (Field::ArrivalRate, "requests_total", |row| row.counters.requests_total),
    (Field::ArrivalRate, "request_success_total", |row| row.counters.request_success_total),
    (Field::AvgInputTokens, "prompt_tokens_sum", |row| row.counters.prompt_tokens_sum),
    (Field::AvgInputTokens, "prompt_tokens_total", |row| row.counters.prompt_tokens_total),
    (Field::AvgOutputTokens, "generation_tokens_sum", |row| row.counters.generation_tokens_sum),
    (Field::AvgOutputTokens, "generation_tokens_total", |row| row.counters.generation_tokens_total),
    (Field::TtftAverage, "ttft_sum", |row| row.counters.ttft_sum),
    (Field::TtftAverage, "ttft_count", |row| row.counters.ttft_count),
    (Field::ItlAverage, "itl_sum", |row| row.counters.itl_sum),
    (Field::ItlAverage, "itl_count", |row| row.counters.itl_count),
];

/// One row for each number of the model on the page, and one for each field that nothing is there of.
pub(super) fn rows(good: &Good, place: usize, engines: &Engines) -> Vec<TraceRow> {
    let Page::Server(page) = &good.page else { return Vec::new() };
    let served = &good.models[place];
    let is_of_row = |row: &&EngineRow| {
        row.model.as_ref().is_none_or(|model| *model == served.model)
            && row.replica.as_deref().is_none_or(|name| name == served.replica.pod_name.as_str())
    };
    let row = |field, asked: String, matched: Option<&Matched>, raw: Option<f64>| TraceRow {
        pod: Some(served.replica.pod_name.clone()),
        field,
        asked: asked.into(),
        matched: matched.map(|matched| matched.spec.to_string().into()),
        raw,
        sampled_at: raw.map(|_| good.asked_at),
        asked_at: good.asked_at,
        answered_at: good.arrived_at,
    };
    let mut rows = Vec::new();
    for &field in Field::ALL {
        let before = rows.len();
        let of_field = || NUMBERS.iter().filter(|(of, ..)| *of == field);
        for (_, quantity, number) in of_field() {
            let numbers = page.rows.iter().filter(is_of_row).filter_map(number);
            let asked = || looked_for(engines, page, [*quantity]);
            let matched = matched(page, quantity);
            rows.extend(numbers.map(|raw| row(field, asked(), matched, Some(raw))));
        }
        if rows.len() == before {
            let asked = looked_for(engines, page, of_field().map(|(_, quantity, _)| *quantity));
            rows.push(row(field, asked, None, None));
        }
    }
    rows
}

/// The series that are looked for, the preferred one first.
fn looked_for(
    engines: &Engines,
    page: &ServerPage,
    quantities: impl IntoIterator<Item = &'static str>,
) -> String {
    let specs =
        quantities.into_iter().flat_map(|quantity| engines.looked_for(&page.engine, quantity));
    let specs: Vec<String> = specs.map(|spec| spec.to_string()).collect();
    if specs.is_empty() {
        format!("nothing: {} does not tell it", page.engine)
    } else {
        specs.join(" or ")
    }
}

fn matched<'a>(page: &'a ServerPage, quantity: &str) -> Option<&'a Matched> {
    page.matched.iter().find(|matched| matched.quantity == quantity)
}
