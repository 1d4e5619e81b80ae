// SPDX-License-Identifier: Apache-2.0

use super::*;

fn pods(names: &[(&str, PodState)]) -> Vec<Pod> {
    names.iter().map(|(name, state)| Pod::new((*name).into(), *state, Tick::MIN)).collect()
}

fn supply() -> Supply {
    let a = pods(&[("a-1", PodState::Ready), ("a-0", PodState::Starting)]);
    let b = pods(&[("b-0", PodState::Ready), ("b-1", PodState::Terminating)]);
    let workloads = vec![
        Workload::new(Some("b".into()), Some(1), b),
        Workload::new(Some("a".into()), Some(3), a),
    ];
    Supply::new(Tick::MIN, workloads)
}

#[test]
fn pods_are_counted_by_state_and_found_by_name() {
    let supply = supply();
    assert_eq!(supply.count(PodState::Ready), 2);
    assert_eq!(supply.count(PodState::NotReady), 0);
    assert_eq!(supply.pod(&"a-0".into()).unwrap().state, PodState::Starting);
    assert_eq!(supply.pod(&"b-1".into()).unwrap().state, PodState::Terminating);
    assert!(supply.pod(&"c-0".into()).is_none());
    assert!(!supply.is_zero());
}

#[test]
fn a_variant_has_its_own_pods_alone() {
    let narrowed = supply().narrowed_to(&"b".into());
    assert_eq!((narrowed.pods().count(), narrowed.wanted()), (2, Some(1)));
    assert!(supply().narrowed_to(&"c".into()).is_zero());
}

#[test]
fn what_is_wanted_is_unknown_if_one_workload_does_not_say() {
    let mut supply = supply();
    assert_eq!(supply.wanted(), Some(4));
    supply.workloads.push(Workload::new(None, None, pods(&[("bare", PodState::Ready)])));
    assert_eq!(supply.wanted(), Some(4), "pods without a workload are wanted by nobody");
    supply.workloads[0].wanted = None;
    assert_eq!(supply.wanted(), None);
}

#[test]
fn a_pod_counts_once_and_a_sleeping_one_is_not_ready() {
    let mut asleep = ReplicaMetrics::new("a-1", Tick::MIN);
    asleep.state = ReplicaState::Sleeping;
    let model = crate::ModelRef::new("m", "n");
    let mut replicas = Replicas::new(model, vec![asleep], "test".into(), Tick::MIN);
    assert!(replicas.supplied(None).is_none());
    replicas.supply = Some(supply().into());
    let all = replicas.supplied(None).unwrap();
    assert_eq!(all.counts().to_string(), "1 ready, 1 starting, 1 sleeping, 1 terminating");
    assert_eq!(all.wanted(), Some(4));
    assert_eq!(all.to_string(), "1 of 4 ready, 1 starting, 1 sleeping, 1 terminating");
    let silent: Vec<&str> = all.silent().map(|pod| pod.name.as_str()).collect();
    assert_eq!(silent, ["b-0"]);
    let b = "b".into();
    let of_b = replicas.supplied(Some(&b)).unwrap();
    assert_eq!((of_b.counts().all(), of_b.wanted(), of_b.silent().count()), (2, Some(1), 1));
    assert!(replicas.supplied(Some(&"c".into())).is_none(), "it is not in the cluster");
    let by_variant = replicas.supplied_by_variant();
    let by_variant: Vec<_> =
        by_variant.map(|(variant, of)| (variant.map(AsRef::as_ref), of.to_string())).collect();
    let expected = [
        (Some("a"), "0 of 3 ready, 1 starting, 1 sleeping".to_owned()),
        (Some("b"), "1 of 1 ready, 1 terminating".to_owned()),
    ];
    assert_eq!(by_variant, expected);
}

#[test]
fn a_variant_is_known_to_be_empty_if_all_its_pods_are_listed_and_none_is_wanted() {
    let as_of = Tick::from_nanos(7);
    let idle = |wanted| {
        let mut workload = Workload::new(Some("idle".into()), wanted, Vec::new());
        workload.lists_pods = true;
        workload
    };
    let of = |idle: Workload, rows: &[(&str, Option<&str>)]| {
        let mut supply = supply();
        supply.as_of = as_of;
        supply.workloads.push(idle);
        let row = |(pod, variant): &(&str, Option<&str>)| {
            let mut row = ReplicaMetrics::new(*pod, Tick::MIN);
            row.variant_name = variant.map(Into::into);
            row
        };
        let rows = rows.iter().map(row).collect();
        let model = crate::ModelRef::new("m", "n");
        let mut replicas = Replicas::new(model, rows, "test".into(), Tick::MIN);
        replicas.supply = Some(supply.into());
        replicas.known_empty(&"idle".into())
    };
    // Rows of other variants, and of a pod that the cluster lists for another workload.
    let others = [("a-1", Some("a")), ("gone", Some("b")), ("b-0", None)];
    assert_eq!(of(idle(Some(0)), &others), Some(as_of));
    assert_eq!(of(idle(Some(1)), &others), None, "it is made now");
    assert_eq!(of(idle(None), &others), None);
    assert_eq!(of(Workload::new(Some("idle".into()), Some(0), Vec::new()), &others), None);
    assert_eq!(of(idle(Some(0)), &[("new", None)]), None, "it may be its own");
    assert_eq!(of(idle(Some(0)), &[("new", Some("idle"))]), None);
    let mut terminating = idle(Some(0));
    terminating.pods = pods(&[("idle-0", PodState::Terminating)]);
    assert_eq!(of(terminating, &others), None);
    assert_eq!(of(Workload::new(Some("other".into()), Some(0), Vec::new()), &others), None);
}

#[test]
fn a_count_of_0_is_known_only_if_all_pods_are_listed() {
    let model = crate::ModelRef::new("m", "n");
    let mut replicas = Replicas::new(model, Vec::new(), "test".into(), Tick::MIN);
    let mut supply = supply();
    replicas.supply = Some(supply.clone().into());
    let known = |replicas: &Replicas, count| replicas.supplied(None).unwrap().known(count);
    assert_eq!((known(&replicas, 2), known(&replicas, 0)), (Some(2), None));
    supply.workloads[0].lists_pods = true;
    replicas.supply = Some(supply.clone().into());
    assert_eq!(known(&replicas, 0), None, "another variant may have more");
    supply.workloads[1].lists_pods = true;
    replicas.supply = Some(supply.into());
    assert_eq!(known(&replicas, 0), Some(0));
}

#[test]
fn no_pod_is_silent_while_names_differ() {
    let model = crate::ModelRef::new("m", "n");
    let row = ReplicaMetrics::new("10.0.0.7:8000", Tick::MIN);
    let mut replicas = Replicas::new(model, vec![row], "test".into(), Tick::MIN);
    replicas.supply = Some(supply().into());
    let supplied = replicas.supplied(None).unwrap();
    assert!(supplied.names_differ());
    assert_eq!(supplied.silent().count(), 0);
}

#[test]
fn counts_without_a_pod_are_none() {
    assert_eq!(PodCounts::default().to_string(), "none");
}

#[test]
fn what_is_out_of_order_or_twice_is_put_in_order() {
    let now = Tick::from_nanos(10);
    let at = Tick::from_nanos;
    let mut supply = supply();
    supply.as_of = at(11);
    supply.workloads.reverse();
    let twice = Pod::new("a-0".into(), PodState::Ready, at(12));
    supply.workloads[1].pods.push(twice);
    supply.deleted = vec![("z".into(), at(3)), ("y".into(), at(20)), ("z".into(), at(4))];
    supply.normalize(now);
    assert_eq!(supply.pods().count(), 4);
    assert_eq!(supply.pod(&"a-0".into()).unwrap().state, PodState::Starting);
    assert_eq!(supply.deleted, [("y".into(), now), ("z".into(), at(4))]);
    assert!(supply.saw_delete(&"z".into(), at(3)) && !supply.saw_delete(&"z".into(), at(4)));
    assert_eq!(supply.as_of, now);
}

#[test]
fn zero_takes_that_no_pod_is_left() {
    let mut supply = Supply::new(Tick::MIN, Vec::new());
    assert!(supply.is_zero());
    supply.workloads.push(Workload::new(None, None, pods(&[("m", PodState::Terminating)])));
    assert!(!supply.is_zero());
}
