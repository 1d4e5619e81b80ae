// SPDX-License-Identifier: Apache-2.0
//! An HPA as Kubernetes documents it: it adds up the items in thousandths, divides by the target, tolerates a tenth, and
//! does nothing at an error.

use collector_core::ErrorKind;
use std::time::Duration;

use crate::fixture::{Answer, Fixture, queue_of};

/// The target of an HPA's metric, in thousandths.
#[derive(Clone, Copy)]
enum Target {
    AverageValue(u64),
    Value(u64),
}

/// The replicas that an HPA wants, or why it does nothing.
fn wanted(replicas: u64, target: Target, answer: &Answer) -> Result<u64, String> {
    if answer.code != 200 {
        let message = answer.body["message"].as_str().unwrap();
        return Err(format!("unable to fetch metrics from external metrics API: {message}"));
    }
    let items = answer.body["items"].as_array().unwrap();
    if items.is_empty() {
        return Err("no metrics returned from external metrics API".to_owned());
    }
    let usage: u64 = items.iter().map(|item| thousandths(item["value"].as_str().unwrap())).sum();
    let (ratio, wanted) = match target {
        Target::AverageValue(target) => {
            (usage as f64 / (target * replicas) as f64, usage.div_ceil(target))
        }
        Target::Value(target) => {
            let ratio = usage as f64 / target as f64;
            (ratio, (usage * replicas).div_ceil(target))
        }
    };
    Ok(if (1.0 - ratio).abs() <= 0.1 { replicas } else { wanted })
}

/// As `MilliValue` of Kubernetes: rounded up.
fn thousandths(quantity: &str) -> u64 {
    let end = quantity.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(quantity.len());
    let number: u64 = quantity[..end].parse().unwrap();
    match &quantity[end..] {
        "n" => number.div_ceil(1_000_000),
        "u" => number.div_ceil(1_000),
        "m" => number,
        "" => number * 1_000,
        "k" => number * 1_000_000,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_hpa_scales_with_the_value_and_holds_at_every_error() {
    let fixture = Fixture::start().await;
    let read = || fixture.read("collector-queue", "model=org_chat");
    for (queue, replicas, target, expected) in [
        (50, 2, Target::AverageValue(5_000), 10),
        (21, 4, Target::AverageValue(5_000), 4),
        (0, 4, Target::AverageValue(5_000), 0),
        (12_000, 1, Target::AverageValue(100_000), 120),
        (20, 3, Target::Value(10_000), 6),
    ] {
        fixture.serve(queue_of(queue));
        fixture.forget();
        assert_eq!(wanted(replicas, target, &read().await), Ok(expected), "{queue}");
    }
    fixture.serve(queue_of(1));
    fixture.forget();
    let kv = fixture.read("collector-kv-max", "model=org_chat").await;
    assert_eq!(wanted(4, Target::Value(800), &kv), Ok(2));

    let holds = |answer: &Answer, part: &str| {
        let error = wanted(4, Target::AverageValue(5_000), answer).unwrap_err();
        assert!(
            error.starts_with("unable to fetch metrics from external metrics API: "),
            "{error}"
        );
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    };
    fixture.backend.fail(ErrorKind::Connect);
    fixture.forget();
    holds(&read().await, "nothing");
    fixture.backend.restore();
    fixture.forget();
    assert_eq!(wanted(1, Target::AverageValue(1_000), &read().await), Ok(1));
    // An outage: the value is served with its age until it is too old.
    fixture.backend.fail(ErrorKind::Connect);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(wanted(1, Target::AverageValue(1_000), &read().await), Ok(1));
    tokio::time::advance(Duration::from_secs(600)).await;
    holds(&read().await, "nothing newer than");
    holds(&fixture.read("collector-queue", "model=none").await, "nothing is known of \"none\"");
    holds(&fixture.read("collector-kv-min", "model=org_chat").await, "there is no metric");
}
