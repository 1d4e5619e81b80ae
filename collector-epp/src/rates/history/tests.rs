use collector_core::EngineName;

use super::*;
use crate::engines::{Counters as Counts, Ignored};

const WINDOW: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Tick {
    Tick::from_nanos(seconds * 1_000_000_000)
}

fn rank(name: &str) -> EngineRow {
    EngineRow {
        model: Some("m".into()),
        rank: Some(name.into()),
        waiting: Some(0.0),
        running: Some(0.0),
        kv_cache_usage: Some(0.0),
        ..EngineRow::default()
    }
}

fn page(rows: Vec<EngineRow>) -> ServerPage {
    ServerPage {
        engine: EngineName::from("vllm"),
        rows,
        lora: None,
        matched: Vec::new(),
        ignored: Ignored::default(),
    }
}

/// Takes a page, and gives the only pod that it makes.
fn record(history: &mut History, rows: Vec<EngineRow>, seconds: u64) -> PodModel {
    let pod = PodName::from("m-0");
    let whose = Whose { pod: &pod, role: None };
    let mut models = history.record(&page(rows), whose, at(seconds));
    assert_eq!(models.len(), 1);
    models.remove(0)
}

#[test]
fn queues_of_engines_add_up_at_their_peaks_and_the_fullest_cache_counts() {
    let mut history = History::new(WINDOW);
    let gauges = |name, waiting, kv| EngineRow {
        waiting: Some(waiting),
        kv_cache_usage: Some(kv),
        running: Some(3.0),
        ..rank(name)
    };
    record(&mut history, vec![gauges("0", 5.0, 0.2), gauges("1", 0.0, 0.9)], 0);
    let pod = record(&mut history, vec![gauges("0", 1.0, 0.1), gauges("1", 4.0, 0.3)], 10);
    // The peaks of the two were not at one moment.
    assert_eq!(pod.replica.queue_length, Some(9));
    assert_eq!(pod.replica.kv_cache_usage, Some(0.9));
    assert_eq!(pod.replica.running_requests, Some(6));
    let pod = record(&mut history, vec![gauges("0", 0.0, 0.0), gauges("1", 0.0, 0.0)], 65);
    assert_eq!((pod.replica.queue_length, pod.replica.kv_cache_usage), (Some(5), Some(0.3)));
}

#[test]
fn an_engine_whose_part_is_unknown_makes_the_whole_unknown() {
    let mut history = History::new(WINDOW);
    let lacking = EngineRow { running: None, ..rank("1") };
    let pod = record(&mut history, vec![rank("0"), lacking], 0);
    assert_eq!((pod.replica.running_requests, pod.replica.queue_length), (None, Some(0)));
    let spoiled = EngineRow { kv_cache_usage: Some(f64::NAN), ..rank("1") };
    let pod = record(&mut History::new(WINDOW), vec![rank("0"), spoiled], 0);
    assert_eq!(pod.replica.kv_cache_usage, None);
}

#[test]
fn what_is_given_per_server_stands_beside_its_engines() {
    let mut history = History::new(WINDOW);
    let rows = |requests| {
        let counters = Counts {
            prompt_tokens_count: Some(requests),
            prompt_tokens_sum: Some(requests * 10.0),
            ..Counts::default()
        };
        let server = EngineRow { model: Some("m".into()), counters, ..EngineRow::default() };
        vec![rank("0"), rank("1"), server]
    };
    record(&mut history, rows(100.0), 0);
    let pod = record(&mut history, rows(120.0), 10);
    assert_eq!(pod.replica.running_requests, Some(0));
    assert_eq!(pod.rates.requests, Some(2.0));
    assert_eq!(pod.rates.load(true).avg_input_tokens, Some(10.0));
}

#[test]
fn a_series_without_a_model_is_of_the_only_one() {
    let nameless = EngineRow { num_gpu_blocks: Some(500.0), ..EngineRow::default() };
    let pod = record(&mut History::new(WINDOW), vec![rank("0"), nameless.clone()], 0);
    assert_eq!(pod.replica.num_gpu_blocks, Some(500));
    let other = EngineRow { model: Some("n".into()), ..rank("0") };
    let pod = PodName::from("m-0");
    let whose = Whose { pod: &pod, role: None };
    let rows = vec![rank("0"), other, nameless];
    let models = History::new(WINDOW).record(&page(rows), whose, at(0));
    assert_eq!(models.len(), 2);
    assert!(models.iter().all(|served| served.replica.num_gpu_blocks.is_none()));
}

#[test]
fn a_counter_that_another_takes_the_place_of_has_no_rate_across_the_two() {
    let mut history = History::new(WINDOW);
    let rows = |counters| vec![EngineRow { counters, ..rank("0") }];
    let ended = Counts { request_success_total: Some(1000.0), ..Counts::default() };
    let arrived = Counts { prompt_tokens_count: Some(5000.0), ..ended };
    record(&mut history, rows(ended), 0);
    assert_eq!(record(&mut history, rows(arrived), 1).rates.requests, None);
    assert_eq!(record(&mut history, rows(arrived), 2).rates.requests, Some(0.0));
}

#[test]
fn hits_are_divided_by_what_was_looked_up_in_some_minutes() {
    let mut history = History::new(WINDOW);
    let rows = |hits, queries| {
        let counters =
            Counts { prefix_hits: Some(hits), prefix_queries: Some(queries), ..Counts::default() };
        vec![EngineRow { counters, ..rank("0") }]
    };
    assert_eq!(record(&mut history, rows(0.0, 0.0), 0).replica.prefix_cache_hit_rate, None);
    let idle = record(&mut history, rows(0.0, 0.0), 30).replica.prefix_cache_hit_rate;
    assert_eq!(idle, Some(0.0));
    // It reaches further back than the window of the rates.
    for seconds in [60, 200] {
        let busy = record(&mut history, rows(30.0, 40.0), seconds).replica.prefix_cache_hit_rate;
        assert!((busy.unwrap() - 0.75).abs() < 1e-9, "{busy:?}");
    }
}

#[test]
fn models_that_come_and_go_are_forgotten() {
    let mut history = History::new(WINDOW);
    for number in 0..2000 {
        let row = EngineRow { model: Some(format!("m{number}").into()), ..rank("0") };
        record(&mut history, vec![row], number / 100);
        assert!(history.engines.len() <= ENGINES_MAX, "{}", history.engines.len());
    }
}
