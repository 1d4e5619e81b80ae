// SPDX-License-Identifier: Apache-2.0
//! A variant without pods beside one that has some.

use super::*;

/// A pod of variant `w`, and variant `v` whose pods the cluster lists: all of them, or perhaps not.
fn beside_another(wanted: Option<u32>, lists_pods: bool) -> Replicas {
    let mut other = pod("w-0", 3, 7, 0.4);
    other.variant_name = Some("w".into());
    let mut model = listed(replicas(vec![other]), &[], &[], wanted);
    let supply = Arc::make_mut(model.supply.as_mut().unwrap());
    supply.workloads[0].lists_pods = lists_pods;
    model
}

fn of_v(model: &Replicas, signal: &Signal) -> Result<Measured, Unknown> {
    let variant = VariantName::from("v");
    View { replicas: model, variant: Some(&variant), engines: &ENGINES }.measure(signal)
}

#[test]
fn a_variant_without_pods_beside_others_is_zero_by_the_cluster() {
    let mut idle = beside_another(Some(0), true);
    let zero = Measured { value: 0.0, sampled_at: at(NOW - 9), pods: 0 };
    for signal in all().iter().chain(&OF_SUPPLY) {
        assert_eq!(of_v(&idle, signal), Ok(zero), "{}", signal.name());
    }
    // Neither the rows of the other nor pods of it that do not answer count.
    idle.replicas[0].sampled_at = at(NOW - 400);
    idle.oldest = at(NOW - 400);
    idle.partial = true;
    for signal in all() {
        assert_eq!(of_v(&idle, &signal), Ok(zero), "{}", signal.name());
    }
    let waited_for = behind(idle.clone(), picker(Some(2)));
    assert_eq!(of_v(&waited_for, &Signal::Queue).unwrap().value, 2.0);
    assert_eq!(of_v(&waited_for, &Signal::Running).unwrap().value, 2.0);
    let silent = of_v(&behind_silent(idle), &Signal::Queue);
    assert!(matches!(silent, Err(Unknown::PickerSilent { no_pods: true, .. })), "{silent:?}");
}

#[test]
fn a_variant_without_pods_is_no_zero_if_it_may_have_some() {
    let unlisted = beside_another(Some(0), false);
    let starting = beside_another(Some(1), true);
    let mut unplaced = beside_another(Some(0), true);
    unplaced.replicas.push(pod("new", 1, 1, 0.1));
    for (model, why) in [(&unlisted, "unlisted"), (&starting, "wanted"), (&unplaced, "unplaced")] {
        for signal in all() {
            let measured = of_v(model, &signal);
            assert_eq!(measured, Err(Unknown::NoPodSeen), "{why} {}", signal.name());
        }
    }
    let of_supply = OF_SUPPLY.map(|signal| of_v(&unlisted, &signal).map(|it| it.value));
    let unknown = Err(Unknown::PodsUnlisted);
    // What is wanted is the specification's, and less than none is not Ready.
    assert_eq!(of_supply, [unknown.clone(), unknown.clone(), Ok(0.0), Ok(0.0)]);
    let mut may_be_ready = beside_another(Some(1), false);
    let shortfall = of_v(&may_be_ready, &Signal::SupplyShortfall);
    assert_eq!(shortfall, Err(Unknown::PodsUnlisted));
    Arc::make_mut(may_be_ready.supply.as_mut().unwrap()).workloads[0].lists_pods = true;
    assert_eq!(of_v(&may_be_ready, &Signal::SupplyShortfall).unwrap().value, 1.0);
}
