// SPDX-License-Identifier: Apache-2.0
//! The record of a model: what reads mark in it, and what is left of it after an invalidation.

use std::sync::Arc;
use std::time::Duration;

use collector_core::raw::Cold;
use collector_core::{
    Allocation, Clock as _, Deadlines, ManualClock, ModelRecord, ModelRef, ModelValue, Outcome,
    Replicas, Scope, Tick, VariantName,
};

const SECOND: Duration = Duration::from_secs(1);

fn start() -> Tick {
    ManualClock::new().now()
}

fn model() -> ModelRef {
    ModelRef::new("llama", "prod")
}

/// A record with an allocation of `h100` on H100, one of `l4` on L4 and one of `bare`.
fn record() -> ModelRecord {
    let allocation = |(variant, accelerator): (&str, Option<&str>)| {
        let mut allocation = Allocation::new(model(), variant.into(), 1, "test".into(), start());
        allocation.accelerator = accelerator.map(Into::into);
        allocation
    };
    let allocations = [("h100", Some("H100")), ("l4", Some("L4")), ("bare", None)];
    let replicas = Replicas::new(model(), Vec::new(), "test".into(), start());
    let value = ModelValue::new(replicas, allocations.into_iter().map(allocation).collect());
    let deadlines = Deadlines {
        current_until: start() + SECOND,
        refresh_after: start() + SECOND,
        keep_until: start() + SECOND * 300,
        keep_unread: SECOND * 600,
    };
    let cold = Arc::new(Cold::default());
    ModelRecord::new(model(), Some(Arc::new(value)), Outcome::Found, cold, deadlines, true, start())
}

fn printed(record: &ModelRecord) -> Vec<String> {
    record.keys().iter().map(ToString::to_string).collect()
}

fn variant(name: &str) -> VariantName {
    name.into()
}

#[test]
fn a_record_prints_its_addresses() {
    let keys = ["replicas:llama:prod", "allocation:llama:prod:H100", "allocation:llama:prod:L4"];
    let keys = [keys.as_slice(), &["allocation:llama:prod:bare"]].concat();
    assert_eq!(printed(&record()), keys);
    assert_eq!(record().entries(), 4);
}

#[test]
fn a_scope_removes_what_it_contains_and_nothing_else() {
    let of = |text: &str| Scope::parse(text).unwrap();
    let scopes = [
        (Scope::all(), 4),
        (Scope::of_model(&model()), 4),
        (Scope::of_model(&ModelRef::new("llama", "dev")), 0),
        (of("replicas"), 1),
        (of("replicas:llama"), 1),
        (of("replicas:llama-8b"), 0),
        (of("allocation"), 3),
        (of("allocation:llama:prod:H100"), 1),
        (of("allocation:llama:prod:bare"), 1),
        (Scope::all().namespace("prod"), 4),
        (Scope::all().accelerator("L4"), 1),
        (Scope::all().variant("l4"), 1),
    ];
    for (scope, expected) in scopes {
        let before = record();
        let (rest, removed) = before.without(&scope);
        assert_eq!(removed, expected, "removed by {scope:?}");
        let kept = before.keys().into_iter().filter(|key| !scope.contains(key));
        let rest_keys = rest.as_ref().map(ModelRecord::keys).unwrap_or_default();
        assert_eq!(rest_keys, kept.collect::<Vec<_>>(), "{scope:?}");
        assert_eq!(rest.as_ref().map_or(0, ModelRecord::entries), 4 - expected, "{scope:?}");
    }
}

#[test]
fn what_was_removed_is_not_found_and_the_rest_is() {
    let (rest, _) = record().without(&Scope::all().variant("l4"));
    let rest = rest.unwrap();
    assert!(rest.allocation(&variant("l4")).is_none());
    assert_eq!(rest.allocation(&variant("h100")).map(|(_, index)| index), Some(0));
    assert_eq!(rest.allocation(&variant("bare")).map(|(_, index)| index), Some(2));
    assert!(rest.replicas().is_some() && rest.allocation(&variant("other")).is_none());
    let (rest, removed) = rest.without(&Scope::parse("replicas").unwrap());
    assert_eq!(removed, 1);
    assert!(rest.as_ref().unwrap().replicas().is_none(), "the allocations alone are left");
    let (rest, removed) = rest.unwrap().without(&Scope::all());
    assert!(rest.is_none() && removed == 2, "each address is removed once");
}

#[test]
fn a_read_moves_the_last_read_forward_and_with_it_the_end() {
    let record = record();
    assert_eq!(record.expires_at(), start() + SECOND * 600);
    record.touch(start() + SECOND * 100);
    record.touch(start() + SECOND * 50);
    assert_eq!(record.last_read(), start() + SECOND * 100);
    assert_eq!(record.expires_at(), start() + SECOND * 700);
    let (rest, _) = record.without(&Scope::all().variant("l4"));
    assert_eq!(rest.unwrap().last_read(), record.last_read());
}

#[test]
fn one_read_a_second_claims_the_refresh() {
    let record = record();
    assert!(record.claim_refresh(start()));
    assert!(!record.claim_refresh(start()));
    assert!(!record.claim_refresh(start() + SECOND - Duration::from_nanos(1)));
    assert!(record.claim_refresh(start() + SECOND));
}
