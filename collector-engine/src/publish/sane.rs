// SPDX-License-Identifier: Apache-2.0
//! Values of a backend, or of a file, that cannot be true: they are unknown, with a reason.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use collector_core::sanitize::{self, Rejected};
use collector_core::{EndpointPicker, Field, LoadRow, LoadRows, ModelSample, ReplicaMetrics};

/// Makes what cannot be true unknown: numbers that are none, negative rates, shares above 1. A pod that comes
/// twice counts once, as it came first, with a warning.
pub(crate) fn keep_what_can_be(sample: &mut ModelSample) {
    if !sample.replicas.is_sorted_by(|one, next| one.pod_name < next.pod_name) {
        let mut seen = HashSet::new();
        let twice = sample.replicas.iter().find(|row| !seen.insert(&row.pod_name));
        if let Some(twice) = twice {
            let warning = format!("the pod {:?} came twice: it counts once", twice.pod_name);
            sample.warnings.push(warning.into());
            keep_first(&mut sample.replicas, |row| row.pod_name.clone());
        }
    }
    if let LoadRows::Pods(rows) = &mut sample.load {
        keep_first(rows, |(pod, _)| pod.clone());
    }
    sample.replicas.iter_mut().for_each(check_row);
    sample.load.iter_mut().for_each(check_load);
    if let EndpointPicker::Responding(load) = &mut sample.endpoint_picker {
        let mut saturation = load.saturation;
        for stage in [&mut saturation.effective, &mut saturation.prefill, &mut saturation.decode] {
            *stage = stage.and_then(|said| sanitize::rate(said).ok());
        }
        if saturation != load.saturation {
            Arc::make_mut(load).saturation = saturation;
        }
    }
}

fn check_row(row: &mut ReplicaMetrics) {
    let ReplicaMetrics { reasons, .. } = row;
    let mut check = |field, value: &mut Option<f64>, judge: Judge| {
        if let Some(reason) = refused(value, judge) {
            reasons.insert(field, reason);
        }
    };
    check(Field::KvCacheUsage, &mut row.kv_cache_usage, sanitize::ratio);
    check(Field::PrefixCacheHitRate, &mut row.prefix_cache_hit_rate, sanitize::ratio);
    check(Field::AvgInputTokens, &mut row.avg_input_tokens, sanitize::rate);
    check(Field::AvgOutputTokens, &mut row.avg_output_tokens, sanitize::rate);
    for (field, count) in [
        (Field::QueueLength, &mut row.queue_length),
        (Field::QueueLength, &mut row.waiting_for_capacity),
        (Field::RunningRequests, &mut row.running_requests),
        (Field::CacheConfig, &mut row.kv_capacity_tokens),
        (Field::CacheConfig, &mut row.num_gpu_blocks),
        (Field::CacheConfig, &mut row.block_size),
        (Field::KvCacheUsage, &mut row.kv_tokens_in_use),
    ] {
        let Some(said) = *count else { continue };
        if let Err(rejected) = sanitize::count(said as f64) {
            *count = None;
            row.reasons.insert(field, why(said, rejected));
        }
    }
    row.servers = row.servers.max(1);
}

fn check_load(row: &mut LoadRow) {
    let LoadRow { rates, reasons, .. } = row;
    for (field, rate) in [
        (Field::ArrivalRate, &mut rates.requests),
        (Field::AvgInputTokens, &mut rates.prompt_tokens),
        (Field::AvgOutputTokens, &mut rates.generation_tokens),
        (Field::TtftAverage, &mut rates.ttft_seconds),
        (Field::TtftAverage, &mut rates.ttft_count),
        (Field::ItlAverage, &mut rates.itl_seconds),
        (Field::ItlAverage, &mut rates.itl_count),
    ] {
        if let Some(reason) = refused(rate, sanitize::rate) {
            reasons.insert(field, reason);
        }
    }
}

type Judge = fn(f64) -> Result<f64, Rejected>;

/// Leaves a value as it may be; the reason where it may not be at all.
fn refused(value: &mut Option<f64>, judge: Judge) -> Option<String> {
    let said = (*value)?;
    match judge(said) {
        Ok(accepted) => {
            *value = Some(accepted);
            None
        }
        Err(rejected) => {
            *value = None;
            Some(why(said, rejected))
        }
    }
}

fn why(said: impl std::fmt::Display, rejected: Rejected) -> String {
    format!("the backend says {said}, which is {rejected}")
}

/// Of duplicates the first counts.
pub(crate) fn keep_first<T, K: Hash + Eq>(items: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut seen = HashSet::new();
    items.retain(|item| seen.insert(key(item)));
}

#[cfg(test)]
mod tests {
    use collector_core::{LoadRates, PodName, Tick};

    use super::*;

    fn sample(rows: Vec<ReplicaMetrics>) -> ModelSample {
        ModelSample::new(Tick::MIN, rows)
    }

    fn row(pod: &str) -> ReplicaMetrics {
        ReplicaMetrics::new(pod, Tick::MIN)
    }

    #[test]
    fn numbers_that_cannot_be_are_unknown_with_what_was_said() {
        let mut odd = row("a");
        odd.kv_cache_usage = Some(f64::NAN);
        odd.prefix_cache_hit_rate = Some(1.7);
        odd.queue_length = Some(u64::MAX);
        odd.running_requests = Some(3);
        odd.block_size = Some(u64::MAX);
        let mut sample = sample(vec![odd]);
        let rates = LoadRates::default().with_requests(-1.0).with_ttft(f64::INFINITY, 2.0);
        sample.load = LoadRows::Model(rates.into());
        keep_what_can_be(&mut sample);
        let row = &sample.replicas[0];
        assert_eq!((row.kv_cache_usage, row.prefix_cache_hit_rate), (None, None));
        assert_eq!((row.queue_length, row.running_requests, row.block_size), (None, Some(3), None));
        let reason = |field| row.reasons.get(field).unwrap().to_string();
        assert_eq!(reason(Field::KvCacheUsage), "the backend says NaN, which is not a number");
        assert!(reason(Field::QueueLength).ends_with("which is out of range"));
        assert!(!row.reasons.contains(Field::RunningRequests));
        let load = sample.load.of_model().unwrap();
        assert_eq!((load.rates.requests, load.rates.ttft_seconds), (None, None));
        assert_eq!(load.rates.ttft_count, Some(2.0));
        assert!(
            load.reasons.contains(Field::ArrivalRate) && load.reasons.contains(Field::TtftAverage)
        );
        assert!(sample.warnings.is_empty());
    }

    #[test]
    fn a_pod_that_comes_twice_counts_once_with_a_warning() {
        let mut first = row("b");
        first.queue_length = Some(1);
        let mut sample = sample(vec![first.clone(), row("a"), row("b")]);
        let load = (PodName::from("b"), LoadRow::from(LoadRates::ZERO));
        sample.load = LoadRows::Pods(vec![load.clone(), load]);
        keep_what_can_be(&mut sample);
        assert_eq!(sample.replicas, [first, row("a")]);
        assert_eq!(sample.load.pods().len(), 1);
        assert_eq!(&*sample.warnings[0], "the pod \"b\" came twice: it counts once");
    }

    #[test]
    fn pods_in_any_order_are_left_as_they_are() {
        let mut sample = sample(vec![row("c"), row("a"), row("b")]);
        keep_what_can_be(&mut sample);
        assert_eq!(sample.replicas, [row("c"), row("a"), row("b")]);
        assert_eq!(sample.warnings, []);
    }
}
