// SPDX-License-Identifier: Apache-2.0
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use collector_core::{EngineName, ReplicaState};

use super::*;
use crate::engines::{Engines, Exposition, Expression};
use crate::scan::{Ended, Format, Limits, Scanner};

const WINDOW: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Tick {
    Tick::from_nanos((1 << 62) + seconds * 1_000_000_000)
}

/// The row with these numbers besides its own.
fn with<const N: usize>(mut row: EngineRow, numbers: [(Quantity, f64); N]) -> EngineRow {
    for (quantity, number) in numbers {
        row.numbers[quantity] = Some(number);
    }
    row
}

fn server() -> EngineRow {
    EngineRow { model: Some("m".into()), ..EngineRow::default() }
}

fn rank(name: &str) -> EngineRow {
    let gauges = [Quantity::Waiting, Quantity::Running, Quantity::KvCacheUsage];
    let row = EngineRow { rank: Some(name.into()), ..server() };
    with(row, gauges.map(|quantity| (quantity, 0.0)))
}

fn page(rows: Vec<EngineRow>) -> ServerExposition {
    ServerExposition {
        engine: EngineName::from("vllm"),
        rows,
        no_model: None,
        ignore_case: false,
        reports: [Quantity::Waiting, Quantity::Running, Quantity::KvCacheUsage].into(),
        reasons: Vec::new(),
        process_start: None,
        lora: None,
        has_buckets: false,
        matched: [].into(),
        repeated: 0,
        beyond_limit: 0,
    }
}

/// The wall clock's time of the first page.
const START: u64 = 1_900_000_000;

fn time(seconds: u64) -> ScrapeTime {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(START + seconds);
    ScrapeTime::new(at(seconds), wall, None)
}

/// Takes a page, and gives the pods that it makes.
fn record_page(history: &mut History, page: &ServerExposition, seconds: u64) -> Vec<PodModel> {
    let name = PodName::from("m-0");
    let identity = PodIdentity { name: &name, role: None, keeps_parts: false };
    history.record(page, identity, time(seconds))
}

/// Takes a page, and gives the only pod that it makes.
fn record(history: &mut History, rows: Vec<EngineRow>, seconds: u64) -> PodModel {
    let mut models = record_page(history, &page(rows), seconds);
    assert_eq!(models.len(), 1);
    models.remove(0)
}

#[test]
fn peak_queues_are_summed_and_the_fullest_cache_is_used() {
    let mut history = History::new(WINDOW);
    let gauges = |name, waiting, usage| {
        let numbers = [(Quantity::Waiting, waiting), (Quantity::KvCacheUsage, usage)];
        with(with(rank(name), numbers), [(Quantity::Running, 3.0)])
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
    let mut lacking = rank("1");
    lacking.numbers[Quantity::Running] = None;
    let pod = record(&mut history, vec![rank("0"), lacking], 0);
    assert_eq!((pod.replica.running_requests, pod.replica.queue_length), (None, Some(0)));
    let spoiled = with(rank("1"), [(Quantity::KvCacheUsage, f64::NAN)]);
    let pod = record(&mut History::new(WINDOW), vec![rank("0"), spoiled], 0);
    assert_eq!(pod.replica.kv_cache_usage, None);
}

#[test]
fn counters_given_per_server_are_added_to_its_engines() {
    let mut history = History::new(WINDOW);
    let rows = |requests| {
        let counters =
            [(Quantity::PromptTokensCount, requests), (Quantity::PromptTokensSum, requests * 10.0)];
        vec![rank("0"), rank("1"), with(server(), counters)]
    };
    record(&mut history, rows(100.0), 0);
    let pod = record(&mut history, rows(120.0), 10);
    assert_eq!(pod.replica.running_requests, Some(0));
    assert_eq!(pod.rates.requests, Some(2.0));
    assert_eq!(pod.rates.load(true).avg_input_tokens, Some(10.0));
}

#[test]
fn a_series_without_a_model_belongs_to_the_only_model() {
    let nameless = with(EngineRow::default(), [(Quantity::NumGpuBlocks, 500.0)]);
    let pod = record(&mut History::new(WINDOW), vec![rank("0"), nameless.clone()], 0);
    assert_eq!(pod.replica.num_gpu_blocks, Some(500));
    let other = EngineRow { model: Some("n".into()), ..rank("0") };
    let rows = vec![rank("0"), other, nameless];
    let models = record_page(&mut History::new(WINDOW), &page(rows), 0);
    assert_eq!(models.len(), 2);
    assert!(models.iter().all(|served| served.replica.num_gpu_blocks.is_none()));
}

#[test]
fn no_rate_spans_two_different_counters() {
    let mut history = History::new(WINDOW);
    let ended = with(rank("0"), [(Quantity::RequestSuccessTotal, 1000.0)]);
    let arrived = with(ended.clone(), [(Quantity::PromptTokensCount, 5000.0)]);
    record(&mut history, vec![ended], 0);
    assert_eq!(record(&mut history, vec![arrived.clone()], 1).rates.requests, None);
    assert_eq!(record(&mut history, vec![arrived], 2).rates.requests, Some(0.0));
}

#[test]
fn the_hit_rate_covers_a_window_of_minutes() {
    let mut history = History::new(WINDOW);
    let rows = |hits, queries| {
        let counters = [(Quantity::PrefixHits, hits), (Quantity::PrefixQueries, queries)];
        vec![with(rank("0"), counters)]
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
fn former_models_are_forgotten() {
    let mut history = History::new(WINDOW);
    for number in 0..2000 {
        let row = EngineRow { model: Some(format!("m{number}").into()), ..rank("0") };
        record(&mut history, vec![row], number / 100);
        assert!(history.engines.len() <= ENGINES_MAX, "{}", history.engines.len());
    }
}

fn matched(quantity: Quantity, spec: &str) -> Matched {
    let spec: Expression = spec.parse().unwrap();
    Matched { quantity, spec: Arc::new(spec) }
}

#[test]
fn an_idle_rank_is_zero_and_one_that_has_worked_is_named() {
    let without_gauges = |total| {
        let row = EngineRow { rank: Some("3".into()), ..server() };
        with(row, [(Quantity::PromptTokensTotal, total)])
    };
    let working = with(rank("0"), [(Quantity::Waiting, 2.0), (Quantity::Running, 5.0)]);
    let pages = |total| {
        let mut page = page(vec![working.clone(), without_gauges(total)]);
        page.matched = [matched(Quantity::Waiting, "vllm:num_requests_waiting")].into();
        page
    };
    let idle = &record_page(&mut History::new(WINDOW), &pages(0.0), 0)[0].replica;
    assert_eq!((idle.queue_length, idle.running_requests), (Some(2), Some(5)));
    assert_eq!((idle.kv_cache_usage, idle.servers), (Some(0.0), 2));
    let busy = &record_page(&mut History::new(WINDOW), &pages(9.0), 0)[0].replica;
    assert_eq!((busy.queue_length, busy.running_requests), (None, None));
    let reason = busy.reasons.get(Field::QueueLength).unwrap();
    assert_eq!(&**reason, "engine 3 of 2 has no vllm:num_requests_waiting");
}

#[test]
fn gauges_that_cannot_be_read_are_not_zero_where_nothing_was_counted() {
    let gauges = [Quantity::Waiting, Quantity::Running, Quantity::KvCacheUsage];
    let reasons = gauges.map(|quantity| (quantity, "each process has its own".into()));
    let row = with(server(), [(Quantity::PromptTokensCount, 0.0)]);
    let row = EngineRow { reasons: reasons.into(), ..row };
    let replica = record(&mut History::new(WINDOW), vec![row], 0).replica;
    assert_eq!((replica.queue_length, replica.running_requests), (None, None));
    assert_eq!(replica.kv_cache_usage, None);
    assert_eq!(&**replica.reasons.get(Field::QueueLength).unwrap(), "each process has its own");
}

#[test]
fn a_quantity_that_the_engine_never_reports_is_not_zero() {
    let mut page = page(vec![with(server(), [(Quantity::PromptTokensTotal, 0.0)])]);
    page.reports = [Quantity::Waiting].into();
    let replica = &record_page(&mut History::new(WINDOW), &page, 0)[0].replica;
    assert_eq!((replica.queue_length, replica.kv_cache_usage), (Some(0), None));
}

#[test]
fn tokens_in_use_are_the_sum_over_engines_of_usage_times_capacity() {
    let full = |name, usage, blocks| {
        let blocks = [(Quantity::NumGpuBlocks, blocks), (Quantity::BlockSize, 16.0)];
        with(with(rank(name), [(Quantity::KvCacheUsage, usage)]), blocks)
    };
    let rows = vec![full("0", 1.0, 1000.0), full("1", 0.25, 2000.0)];
    let replica = record(&mut History::new(WINDOW), rows, 0).replica;
    assert_eq!(replica.total_kv_capacity_tokens(), Some(48_000));
    assert_eq!((replica.tokens_in_use(), replica.kv_cache_usage), (Some(24_000), Some(1.0)));
    // What the server itself says goes before blocks.
    let said = with(full("0", 0.5, 1000.0), [(Quantity::KvCapacityTokens, 50_000.0)]);
    let replica = record(&mut History::new(WINDOW), vec![said], 0).replica;
    let tokens = (replica.total_kv_capacity_tokens(), replica.tokens_in_use());
    assert_eq!(tokens, (Some(50_000), Some(25_000)));
}

#[test]
fn a_configuration_of_the_server_holds_for_each_of_its_engines() {
    let blocks = [(Quantity::NumGpuBlocks, 100.0), (Quantity::BlockSize, 64.0)];
    let half = |name| with(rank(name), [(Quantity::KvCacheUsage, 0.5)]);
    let rows = vec![half("0"), half("1"), with(server(), blocks)];
    let replica = record(&mut History::new(WINDOW), rows, 0).replica;
    assert_eq!((replica.num_gpu_blocks, replica.block_size), (Some(200), Some(64)));
    assert_eq!(replica.tokens_in_use(), Some(6400));
}

#[test]
fn a_server_that_sleeps_has_no_capacity() {
    let asleep = |name, sleeping| {
        let blocks = [(Quantity::NumGpuBlocks, 100.0), (Quantity::BlockSize, 16.0)];
        with(with(rank(name), [(Quantity::Sleeping, sleeping)]), blocks)
    };
    let of = |rows| record(&mut History::new(WINDOW), rows, 0).replica;
    let all = of(vec![asleep("0", 1.0), asleep("1", 1.0)]);
    assert_eq!((all.state, all.total_kv_capacity_tokens()), (ReplicaState::Sleeping, None));
    let one = of(vec![asleep("0", 1.0), asleep("1", 0.0)]);
    assert_eq!((one.state, one.total_kv_capacity_tokens()), (ReplicaState::Serving, Some(1600)));
}

#[test]
fn rates_are_the_increases_of_series_whatever_the_sums_do() {
    let mut history = History::new(WINDOW);
    let rows = |sum, increase| {
        let of = |value| with(rank("0"), [(Quantity::PromptTokensCount, value)]);
        let increases = Some(Box::new(of(increase).numbers));
        vec![EngineRow { increases, ..of(sum) }]
    };
    record(&mut history, rows(8000.0, 0.0), 0);
    record(&mut history, rows(8040.0, 40.0), 10);
    // One of two workers is gone: the smaller sum is no restart.
    let pod = record(&mut history, rows(3030.0, 10.0), 20);
    assert_eq!(pod.rates.requests, Some(2.5));
}

#[test]
fn processes_that_answer_in_turns_have_no_rate() {
    let pages = |started: u64, count| {
        let mut page = page(vec![with(rank("0"), [(Quantity::PromptTokensCount, count)])]);
        page.process_start = Some(started as f64);
        page
    };
    let mut history = History::new(WINDOW);
    record_page(&mut history, &pages(START - 500, 100.0), 0);
    let restarted = record_page(&mut history, &pages(START + 5, 20.0), 10);
    assert_eq!(restarted[0].rates.requests, Some(2.0));
    let other = record_page(&mut history, &pages(START - 500, 110.0), 20);
    assert_eq!(other[0].rates.requests, None);
    let reason = other[0].reasons.get(Field::ArrivalRate).unwrap();
    assert!(reason.contains("scrape the pods"), "{reason}");
    // One that was started long ago is no successor either.
    let mut history = History::new(WINDOW);
    record_page(&mut history, &pages(START - 500, 100.0), 0);
    assert_eq!(record_page(&mut history, &pages(START - 400, 900.0), 1)[0].rates.requests, None);
    // A window later there is a rate again.
    record_page(&mut history, &pages(START - 400, 1000.0), 62);
    let alone = record_page(&mut history, &pages(START - 400, 1010.0), 72);
    assert_eq!(alone[0].rates.requests, Some(1.0));
}

#[test]
fn samples_that_carry_their_time_are_as_old_as_they_say() {
    let old = |seconds: u64| i64::try_from((START - seconds) * 1000).unwrap();
    let row = with(rank("0"), [(Quantity::PromptTokensSum, 5.0)]);
    let marked = EngineRow { times: vec![(Quantity::PromptTokensSum, old(40))], ..row.clone() };
    let replica = record(&mut History::new(WINDOW), vec![marked], 0).replica;
    assert_eq!(replica.sampled_at, at(0));
    let marks: Vec<_> =
        replica.marks.iter().map(|it| (it.field, it.sampled_at.age(at(0)))).collect();
    assert_eq!(marks, [(Field::AvgInputTokens, Duration::from_secs(40))]);
    let stale = EngineRow { times: vec![(Quantity::Waiting, old(90))], ..row };
    let replica = record(&mut History::new(WINDOW), vec![stale], 0).replica;
    assert_eq!((replica.sampled_at.age(at(0)).as_secs(), replica.marks.len()), (90, 0));
}

#[test]
fn one_sample_on_two_pages_has_no_rate() {
    let sampled = i64::try_from((START - 5) * 1000).unwrap();
    let mut history = History::new(WINDOW);
    let mut record = |count, sampled, time| {
        let row = with(rank("0"), [(Quantity::PromptTokensCount, count)]);
        let row = EngineRow { times: vec![(Quantity::PromptTokensCount, sampled)], ..row };
        let name = PodName::from("m-0");
        let identity = PodIdentity { name: &name, role: None, keeps_parts: false };
        history.record(&page(vec![row]), identity, time).remove(0).rates.requests
    };
    assert_eq!(record(10.0, sampled, time(0)), None);
    // The wall clock and ours differ by less than a millisecond.
    let wall = SystemTime::UNIX_EPOCH + Duration::from_micros((START + 1) * 1_000_000 - 400);
    assert_eq!(record(10.0, sampled, ScrapeTime::new(at(1), wall, None)), None);
    assert_eq!(record(30.0, sampled + 10_000, time(10)), Some(2.0));
}

#[test]
fn a_peak_ends_however_old_the_configuration_is() {
    let mut history = History::new(WINDOW);
    let mut queue = |waiting, seconds| {
        let row = with(rank("0"), [(Quantity::Waiting, waiting), (Quantity::NumGpuBlocks, 100.0)]);
        let started = i64::try_from((START - 600) * 1000).unwrap();
        let row = EngineRow { times: vec![(Quantity::NumGpuBlocks, started)], ..row };
        record(&mut history, vec![row], seconds).replica.queue_length
    };
    assert_eq!(queue(10.0, 0), Some(10));
    assert_eq!(queue(1.0, 50), Some(10));
    assert_eq!(queue(0.0, 70), Some(1));
}

/// A page that has these quantities alone, each in a series of its own, as a history takes it.
fn page_of(quantities: &[Quantity], value: f64) -> ServerExposition {
    let series = |quantity: &Quantity| (quantity.key(), format!("acme_{}", quantity.key()));
    let metrics: HashMap<&str, String> = Quantity::ALL.iter().map(series).collect();
    let spec = serde_json::json!({"name": "acme", "model": "m", "metrics": metrics});
    let engines = Engines::new(&[serde_json::from_value(spec).unwrap()]).unwrap();
    let mut reader = engines.reader();
    let mut scanner = Scanner::new(Arc::clone(engines.wanted()), Limits::default());
    scanner.begin(Format::Text);
    for quantity in quantities {
        let line = format!("{} {value}\n", series(quantity).1);
        scanner.feed(line.as_bytes(), |sample| reader.sample(sample)).unwrap();
    }
    let summary = scanner.finish(Ended::Complete, |sample| reader.sample(sample)).unwrap();
    let Ok(Exposition::Server(page)) = reader.finish(&summary) else { panic!("a server's page") };
    page
}

/// The table of docs/engines.md marks these as of direct scraping alone.
#[test]
fn times_of_stages_and_counts_of_generations_are_not_used() {
    let unread = Quantity::ALL.iter().copied().filter(|quantity| {
        let gauge = match quantity {
            Quantity::Running => Quantity::Waiting,
            _ => Quantity::Running,
        };
        let pods = |quantities: &[Quantity]| {
            let mut history = History::new(WINDOW);
            let name = PodName::from("m-0");
            let identity = PodIdentity { name: &name, role: None, keeps_parts: true };
            history.record(&page_of(quantities, 0.25), identity, time(0));
            history.record(&page_of(quantities, 0.75), identity, time(10))
        };
        // One half of a ratio or a mean is nothing without the other.
        let others: Vec<Quantity> = [gauge].into_iter().chain(quantity.partner()).collect();
        pods(&others) == pods(&[&others[..], &[*quantity]].concat())
    });
    let expected = [
        Quantity::GenerationTokensCount,
        Quantity::QueueTimeSum,
        Quantity::QueueTimeCount,
        Quantity::PrefillTimeSum,
        Quantity::PrefillTimeCount,
        Quantity::DecodeTimeSum,
        Quantity::DecodeTimeCount,
    ];
    assert_eq!(unread.collect::<Vec<_>>(), expected);
}
