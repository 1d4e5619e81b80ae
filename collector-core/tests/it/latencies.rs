// SPDX-License-Identifier: Apache-2.0
//! Quantiles of histograms, and histograms of several pods together.

use std::sync::Arc;

use collector_core::LatencyHistogram;
use proptest::prelude::*;

const INF: f64 = f64::INFINITY;

fn histogram<const N: usize>(bounds: [f64; N], counts: [u64; N]) -> LatencyHistogram {
    LatencyHistogram::new(bounds.into(), counts).unwrap()
}

#[test]
fn a_quantile_is_linear_within_its_bucket() {
    let latencies = histogram([0.1, 0.5, 1.0, INF], [10, 60, 30, 0]);
    // The 5th of 10 in 0 to 0.1, the 40th of 60 in 0.1 to 0.5, the 20th of 30 in 0.5 to 1.
    assert_eq!(latencies.quantile(0.05), Some(0.05));
    assert_eq!(latencies.quantile(0.1), Some(0.1));
    assert_eq!(latencies.quantile(0.5), Some(0.1 + (0.5 - 0.1) * (40.0 / 60.0)));
    assert_eq!(latencies.quantile(0.9), Some(0.5 + 0.5 * (20.0 / 30.0)));
    assert_eq!(latencies.quantile(1.0), Some(1.0));
    assert_eq!(latencies.observations(), 100);
}

#[test]
fn above_the_greatest_finite_bound_a_quantile_is_that_bound() {
    let latencies = histogram([0.1, 0.5, INF], [1, 0, 9]);
    assert_eq!(latencies.quantile(0.05), Some(0.05));
    assert_eq!(latencies.quantile(0.5), Some(0.5));
    assert_eq!(latencies.quantile(0.99), Some(0.5));
}

#[test]
fn a_quantile_of_nothing_or_outside_of_0_to_1_is_unknown() {
    assert_eq!(histogram([0.1, INF], [0, 0]).quantile(0.9), None);
    let latencies = histogram([0.1, INF], [4, 0]);
    for q in [0.0, -0.5, 1.01, f64::NAN, INF] {
        assert_eq!(latencies.quantile(q), None, "{q}");
    }
}

#[test]
fn bounds_that_are_none_make_no_histogram() {
    let all: [&[f64]; 8] = [
        &[],
        &[INF],
        &[0.1, 0.5],
        &[0.5, 0.1, INF],
        &[0.1, 0.1, INF],
        &[-0.1, INF],
        &[f64::NAN, INF],
        &[0.1, f64::NAN, INF],
    ];
    for bounds in all {
        assert_eq!(LatencyHistogram::new(bounds.into(), vec![1; bounds.len()]), None, "{bounds:?}");
    }
    assert_eq!(LatencyHistogram::new([0.1, INF].into(), [1]), None);
    assert!(LatencyHistogram::new([0.0, INF].into(), [1, 1]).is_some());
}

#[test]
fn histograms_of_equal_bounds_add_up() {
    let (one, other) =
        (histogram([0.1, 0.5, INF], [1, 2, 3]), histogram([0.1, 0.5, INF], [10, 0, 7]));
    assert_eq!(LatencyHistogram::merged([&one, &other]).unwrap().counts(), [11, 2, 10]);
    assert_eq!(LatencyHistogram::merged([&one]), Some(one));
    assert_eq!(LatencyHistogram::merged([]), None);
}

#[test]
fn histograms_of_unequal_bounds_have_their_common_ones() {
    // Two releases of one server: the newer one has more buckets.
    let old = histogram([0.1, 0.5, 7.5, INF], [1, 2, 3, 4]);
    let new = histogram([0.1, 0.25, 0.5, 7.5, 160.0, INF], [10, 20, 30, 40, 50, 60]);
    for merged in [LatencyHistogram::merged([&old, &new]), LatencyHistogram::merged([&new, &old])] {
        let merged = merged.unwrap();
        assert_eq!(merged.bounds(), [0.1, 0.5, 7.5, INF]);
        assert_eq!(merged.counts(), [11, 52, 43, 114]);
    }
}

#[test]
fn histograms_whose_common_bounds_are_too_low_do_not_merge() {
    // All requests took two seconds, and the only common bound is at 0.1.
    let one = histogram([0.1, 1.5, 3.0, INF], [0, 0, 9, 0]);
    let other = histogram([0.1, 2.5, INF], [0, 9, 0]);
    assert_eq!(LatencyHistogram::merged([&one, &other]), None);
    // What counts is the bound that all have, in whatever order they come.
    let low = histogram([0.1, INF], [1, 0]);
    assert!(LatencyHistogram::merged([&one, &other, &low]).is_some());
    assert!(LatencyHistogram::merged([&low, &other, &one]).is_some());
}

/// The bounds of vLLM's inter-token latencies, and fewer.
const BOUNDS: [f64; 8] = [0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 2.5, INF];

fn counts() -> impl Strategy<Value = [u64; 8]> {
    prop::array::uniform8(prop_oneof![Just(0), 0_u64..20, 0_u64..1_000_000])
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * one.abs().max(other.abs())
}

proptest! {
    #[test]
    fn a_quantile_of_all_is_between_those_of_the_parts(
        parts in prop::collection::vec(counts(), 1..5),
        q in 0.001_f64..=1.0,
    ) {
        let bounds: Arc<[f64]> = BOUNDS.into();
        let parts: Vec<LatencyHistogram> = parts
            .into_iter()
            .map(|counts| LatencyHistogram::new(Arc::clone(&bounds), counts).unwrap())
            .collect();
        let all = LatencyHistogram::merged(&parts).unwrap().quantile(q);
        let own: Vec<f64> = parts.iter().filter_map(|part| part.quantile(q)).collect();
        let least = own.iter().copied().reduce(f64::min);
        let greatest = own.iter().copied().reduce(f64::max);
        match (all, least, greatest) {
            (None, None, None) => {}
            (Some(all), Some(least), Some(greatest)) => {
                prop_assert!(all >= least || near(all, least), "{all} < {least}");
                prop_assert!(all <= greatest || near(all, greatest), "{all} > {greatest}");
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn a_quantile_estimates_the_observation_within_its_bucket(
        mut latencies in prop::collection::vec(0.0_f64..4.0, 1..200),
        q in 0.001_f64..=1.0,
    ) {
        let bucket = |latency: f64| BOUNDS.iter().position(|bound| latency <= *bound).unwrap();
        let mut counts = [0; 8];
        for latency in &latencies {
            counts[bucket(*latency)] += 1;
        }
        let estimate = histogram(BOUNDS, counts).quantile(q).unwrap();
        latencies.sort_by(f64::total_cmp);
        let rank = q * latencies.len() as f64;
        let (truth, _) = latencies.iter().zip(1_u32..).find(|(_, nth)| f64::from(*nth) >= rank).unwrap();
        // The last finite bound stands for all above it.
        prop_assert_eq!(bucket(estimate), bucket(truth.min(2.5)), "{} for {}", estimate, truth);
    }

    #[test]
    fn a_quantile_over_common_bounds_is_in_the_bucket_of_the_truth(
        one in counts(),
        other in counts(),
        missing in prop::collection::btree_set(0_usize..6, 0..5),
        q in 0.001_f64..=1.0,
    ) {
        let fine = histogram(BOUNDS, one);
        // The same pod as a server with fewer buckets would show it; the greatest finite bound stays.
        let (mut bounds, mut counts, mut carried) = (Vec::new(), Vec::new(), 0);
        for (index, (bound, count)) in BOUNDS.iter().zip(other).enumerate() {
            carried += count;
            if !missing.contains(&index) {
                bounds.push(*bound);
                counts.push(std::mem::take(&mut carried));
            }
        }
        let coarse = LatencyHistogram::new(bounds.clone().into(), counts).unwrap();
        let merged = LatencyHistogram::merged([&fine, &coarse]).unwrap();
        prop_assert_eq!(merged.bounds(), &*bounds);
        let truth = LatencyHistogram::merged([&fine, &histogram(BOUNDS, other)]).unwrap();
        let bucket = |it: Option<f64>| it.map(|it| bounds.iter().position(|bound| it <= *bound));
        prop_assert_eq!(bucket(merged.quantile(q)), bucket(truth.quantile(q)));
    }
}
