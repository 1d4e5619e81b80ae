// SPDX-License-Identifier: Apache-2.0
//! Readings: one value at different moments.

use std::time::Duration;

use collector_core::raw::Label;
use collector_core::{
    Clock, Freshness, FreshnessThresholds, ManualClock, ModelRef, Reading, ReplicaMetrics,
    Replicas, Source, Tick,
};

const SECOND: Duration = Duration::from_secs(1);

fn thresholds() -> FreshnessThresholds {
    FreshnessThresholds::default()
}

/// Two pods of two variants, the second sampled half a minute after the first.
fn reading(at: impl Fn(Tick) -> Tick) -> (Reading<Replicas>, Tick) {
    let sampled = ManualClock::new().now();
    let mut old = ReplicaMetrics::new("old", sampled);
    old.variant_name = Some("slow".into());
    let mut new = ReplicaMetrics::new("new", sampled + SECOND * 30);
    new.variant_name = Some("quick".into());
    let model = ModelRef::new("llama", "prod");
    let replicas = Replicas::new(model, vec![old, new], "test".into(), sampled);
    (Reading::new(replicas, at(sampled), &thresholds(), Source::Cache), sampled)
}

#[test]
fn a_reading_has_the_age_of_its_oldest_part() {
    let (reading, sampled) = reading(|sampled| sampled + SECOND * 50);
    assert_eq!(reading.age(), SECOND * 50);
    assert_eq!(reading.age_of(sampled + SECOND * 30), SECOND * 20);
    assert_eq!(reading.freshness(), Freshness::Fresh);
}

#[test]
fn the_same_value_at_another_moment_is_another_reading() {
    let (mut reading, sampled) = reading(|sampled| sampled);
    let (later, source) = (sampled + SECOND * 100, Source::LastKnownGood);
    reading.relabel(Label::new(sampled, later, &thresholds(), source));
    assert_eq!(reading.age(), SECOND * 100);
    assert_eq!(reading.read_at(), sampled + SECOND * 100);
    assert_eq!(reading.freshness(), Freshness::Stale);
    assert_eq!(reading.source(), Source::LastKnownGood);
}

#[test]
fn a_reading_that_is_denied_is_stale_and_none_is_made_better_by_it() {
    let (young, _) = reading(|sampled| sampled);
    assert_eq!(young.at_best_stale().freshness(), Freshness::Stale);
    let (old, _) = reading(|sampled| sampled + SECOND * 1000);
    assert_eq!(old.at_best_stale().freshness(), Freshness::Unavailable);
}

#[test]
fn a_variants_part_has_its_own_age_and_is_denied_with_the_whole() {
    let (of_model, _) = reading(|sampled| sampled + SECOND * 70);
    assert_eq!(of_model.freshness(), Freshness::Stale);
    let part = of_model.narrowed_to(&"quick".into(), &thresholds());
    assert_eq!((part.age(), part.freshness()), (SECOND * 40, Freshness::Fresh));
    assert_eq!(part.value().replicas.len(), 1);

    let (of_model, _) = reading(|sampled| sampled + SECOND * 40);
    let part = of_model.at_best_stale().narrowed_to(&"quick".into(), &thresholds());
    assert_eq!((part.age(), part.freshness()), (SECOND * 10, Freshness::Stale));
}

#[test]
fn thresholds_may_be_equal_and_no_more() {
    let equal = FreshnessThresholds {
        fresh_threshold: SECOND,
        stale_threshold: SECOND,
        unavailable_threshold: SECOND,
    };
    assert_eq!(equal.validate(), Ok(()));
    let above = FreshnessThresholds { fresh_threshold: SECOND * 2, ..equal };
    assert_eq!(above.validate().unwrap_err().upper, "stale_threshold");
    let above = FreshnessThresholds { stale_threshold: SECOND * 2, ..equal };
    assert_eq!(above.validate().unwrap_err().upper, "unavailable_threshold");
}

#[test]
#[should_panic(expected = "the label of another value")]
fn the_label_of_another_value_is_a_defect() {
    let (reading, sampled) = reading(|sampled| sampled);
    let other = Label::new(sampled + SECOND, sampled + SECOND, &thresholds(), Source::Cache);
    let _ = Reading::<Replicas>::in_model(reading.model().clone(), (), other);
}
