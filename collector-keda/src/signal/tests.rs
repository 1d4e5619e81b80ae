// SPDX-License-Identifier: Apache-2.0
//! Each signal on pods and endpoint pickers of every state.
#![expect(clippy::float_cmp, reason = "the expected values are computed in the same way")]

use std::sync::LazyLock;
use std::time::Duration;

use collector_core::supply::{Pod, PodState, Workload};
use collector_core::{
    EndpointPickerLoad, FieldReasons, Latencies, LatencyHistogram, Mark, ModelRef, Supply,
};
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_000;

static ENGINES: LazyLock<Engines> = LazyLock::new(Engines::builtin);

pub(super) fn at(second: u64) -> Tick {
    Tick::MIN + Duration::from_secs(second)
}

/// A pod that was sampled just now.
pub(super) fn pod(name: &str, queue: u64, running: u64, kv: f64) -> ReplicaMetrics {
    let mut pod = ReplicaMetrics::new(name, at(NOW));
    pod.engine = Some("vllm".into());
    pod.queue_length = Some(queue);
    pod.running_requests = Some(running);
    pod.kv_cache_usage = Some(kv);
    pod.avg_input_tokens = Some(100.0);
    let ttft = LatencyHistogram::new(Arc::from([0.1, 1.0, f64::INFINITY]), [10, 0, 0]);
    pod.latencies = Some(Arc::new(Latencies::new(at(NOW), ttft, None)));
    pod
}

/// The pods, by a backend that has a list of them.
pub(super) fn replicas(pods: Vec<ReplicaMetrics>) -> Replicas {
    let mut replicas = Replicas::new(ModelRef::new("m", "prod"), pods, "test".into(), at(NOW));
    replicas.lists_pods = true;
    replicas
}

/// An endpoint picker with flow control.
fn picker(queued: Option<u64>) -> EndpointPickerLoad {
    let mut load = EndpointPickerLoad::new(at(NOW - 3));
    load.flow_control = true;
    load.queued_requests = queued;
    load.running_requests = Some(0);
    load
}

fn behind(mut replicas: Replicas, load: EndpointPickerLoad) -> Replicas {
    replicas.endpoint_picker = EndpointPicker::Responding(Arc::new(load));
    replicas
}

fn behind_silent(mut replicas: Replicas) -> Replicas {
    replicas.endpoint_picker = EndpointPicker::silent(Some(at(NOW - 41)), "connection refused");
    replicas
}

pub(super) fn measure(replicas: &Replicas, signal: &Signal) -> Result<Measured, Unknown> {
    View { replicas, variant: None, engines: &ENGINES }.measure(signal)
}

#[track_caller]
fn value(replicas: &Replicas, signal: &Signal) -> f64 {
    measure(replicas, signal).unwrap().value
}

fn backlog() -> Signal {
    Signal::BacklogSeconds { peak_prefill_throughput: positive(1000.0) }
}

const OF_SUPPLY: [Signal; 4] =
    [Signal::SupplyReady, Signal::SupplyStarting, Signal::SupplyWanted, Signal::SupplyShortfall];

fn slo() -> Signal {
    let (quantile, limit) = (positive(0.9), positive(0.5));
    Signal::SloRatio(Slo { latency: Latency::Ttft, quantile, limit })
}

/// Every signal of load.
fn all() -> Vec<Signal> {
    let part = |signal, target| Part { signal, target: positive(target) };
    vec![
        Signal::Queue,
        Signal::Running,
        Signal::KvSum,
        Signal::KvMax,
        Signal::Saturation,
        backlog(),
        Signal::WaitingCapacity,
        Signal::Composite(vec![part(Signal::Queue, 5.0), part(Signal::KvMax, 0.8)]),
        slo(),
    ]
}

#[test]
fn each_signal_is_computed_from_the_pods() {
    let two = replicas(vec![pod("a", 3, 7, 0.4), pod("b", 1, 2, 0.6)]);
    let values: Vec<f64> = all().iter().map(|signal| value(&two, signal)).collect();
    // Queue / 5 is 0.8; KV / 0.8 is 0.75, so the queue decides.
    assert_eq!(values, [4.0, 9.0, 1.0, 0.6, 0.6 / 0.8, 0.4, 4.0, 0.8, 0.1 * 0.9 / 0.5]);
    let full = replicas(vec![pod("a", 6, 7, 0.4)]);
    assert_eq!(value(&full, &Signal::Saturation), 1.2);
    assert_eq!(all().len() + OF_SUPPLY.len(), Signal::NAMES.len());
}

/// Ready and starting pods of variant `v`, and what its workload asks for, as the cluster listed it 9 s ago.
fn listed(
    mut replicas: Replicas,
    ready: &[&str],
    starting: &[&str],
    wanted: Option<u32>,
) -> Replicas {
    let of = |names: &[&str], state| {
        let pods = names.iter().map(move |name| Pod::new((*name).into(), state, Tick::MIN));
        pods.collect::<Vec<_>>()
    };
    let pods = [of(ready, PodState::Ready), of(starting, PodState::Starting)].concat();
    let workload = Workload::new(Some("v".into()), wanted, pods);
    replicas.supply = Some(Arc::new(Supply::new(at(NOW - 9), vec![workload])));
    replicas.lists_pods = false;
    replicas
}

#[test]
fn supply_is_what_the_cluster_lists_and_as_old_as_its_list() {
    let mut partial = replicas(vec![pod("a", 3, 7, 0.4)]);
    partial.partial = true;
    let two = listed(partial, &["a", "b"], &["c"], Some(5));
    let measured = OF_SUPPLY.map(|signal| measure(&two, &signal).unwrap());
    assert_eq!(measured.map(|it| it.value), [2.0, 1.0, 5.0, 3.0]);
    assert!(measured.iter().all(|it| it.sampled_at == at(NOW - 9) && it.pods == 3));
    let more = listed(replicas(Vec::new()), &["a", "b"], &[], Some(1));
    assert_eq!(value(&more, &Signal::SupplyShortfall), 0.0, "while it is scaled down");
}

#[test]
fn supply_that_is_not_known_is_no_zero() {
    let pods = replicas(vec![pod("a", 3, 7, 0.4)]);
    for signal in OF_SUPPLY {
        assert_eq!(measure(&pods, &signal), Err(Unknown::NoSupply), "{}", signal.name());
        let other = "other".into();
        let listed = listed(pods.clone(), &["a"], &[], Some(1));
        let view = View { replicas: &listed, variant: Some(&other), engines: &ENGINES };
        assert_eq!(view.measure(&signal), Err(Unknown::NoWorkload), "{}", signal.name());
    }
    let unwanted = listed(pods, &["a"], &[], None);
    assert_eq!(value(&unwanted, &Signal::SupplyReady), 1.0);
    for signal in [Signal::SupplyWanted, Signal::SupplyShortfall] {
        assert_eq!(measure(&unwanted, &signal), Err(Unknown::NotWanted));
    }
}

#[test]
fn pods_that_the_cluster_lists_and_nobody_sees_are_named() {
    let unseen = listed(replicas(Vec::new()), &[], &["a", "b"], Some(2));
    for signal in all() {
        match measure(&unseen, &signal) {
            Err(Unknown::PodsListed(pods)) => assert_eq!(pods.starting, 2),
            other => panic!("{}: {other:?}", signal.name()),
        }
    }
}

#[test]
fn latencies_are_those_of_pods_that_serve() {
    let mut starting = pod("b", 0, 1, 0.0);
    starting.state = ReplicaState::Starting;
    starting.latencies = None;
    let pods = replicas(vec![pod("a", 3, 7, 0.4), starting.clone()]);
    assert!(measure(&pods, &slo()).is_ok());
    starting.state = ReplicaState::NotReady;
    let pods = replicas(vec![pod("a", 3, 7, 0.4), starting]);
    assert!(matches!(measure(&pods, &slo()), Err(Unknown::Latency { .. })));
}

#[test]
fn sums_have_pods_that_are_not_ready_or_terminate() {
    let states = [ReplicaState::Serving, ReplicaState::NotReady, ReplicaState::Terminating];
    let rows = states.into_iter().zip(["a", "b", "c"]).map(|(state, name)| {
        let mut pod = pod(name, 2, 1, 0.5);
        pod.state = state;
        pod
    });
    let pods = replicas(rows.collect());
    let values = [Signal::Queue, Signal::Running, Signal::KvSum].map(|it| value(&pods, &it));
    assert_eq!(values, [6.0, 3.0, 1.5]);
}

#[test]
fn of_pods_that_report_why_requests_wait_those_for_capacity_count() {
    let told = |queue, for_capacity| {
        let mut pod = pod("a", queue, 7, 0.4);
        pod.waiting_for_capacity = for_capacity;
        pod
    };
    let waiting = |pods| value(&replicas(pods), &Signal::WaitingCapacity);
    assert_eq!(waiting(vec![told(9, Some(0))]), 0.0, "all of them wait for something else");
    // Of the second pod the reasons are unknown.
    assert_eq!(waiting(vec![told(9, Some(2)), told(3, None)]), 5.0);
    let mut unknown = told(0, Some(2));
    unknown.queue_length = None;
    assert!(measure(&replicas(vec![unknown]), &Signal::WaitingCapacity).is_err());
}

#[test]
fn a_backlog_is_as_old_as_the_prompt_lengths_that_it_is_made_of() {
    let mut older = pod("b", 0, 2, 0.6);
    let (field, sampled_at) = (Field::AvgInputTokens, at(NOW - 200));
    older.marks.push(Mark { field, backend: "test".into(), sampled_at });
    let pods = || replicas(vec![pod("a", 0, 7, 0.4), older.clone()]);
    for in_flight in [None, Some(5_000)] {
        let mut load = picker(Some(10));
        load.in_flight_tokens = in_flight;
        let measured = measure(&behind(pods(), load), &backlog()).unwrap();
        assert_eq!(measured.sampled_at, at(NOW - 200), "{in_flight:?}");
    }
    let nothing_held = measure(&behind(pods(), picker(Some(0))), &backlog()).unwrap();
    assert_eq!(nothing_held.sampled_at, at(NOW - 3), "no length counts");
}

#[test]
fn the_picker_adds_its_queue_and_knows_the_saturation() {
    let pods = || replicas(vec![pod("a", 3, 7, 0.4), pod("b", 1, 2, 0.6)]);
    let mut load = picker(Some(10));
    let held = behind(pods(), load.clone());
    assert_eq!(value(&held, &Signal::Queue), 14.0);
    assert_eq!(value(&held, &Signal::WaitingCapacity), 4.0);
    assert_eq!(value(&held, &Signal::Running), 9.0);
    // 4 wait at pods and 10 in the picker, 100 tokens each.
    assert_eq!(value(&held, &backlog()), 1.4);
    load.in_flight_tokens = Some(5_000);
    load.saturation.effective = Some(0.3);
    let held = behind(pods(), load);
    assert_eq!(value(&held, &backlog()), 6.0);
    assert_eq!(value(&held, &Signal::Saturation), 0.3);
    // Flow control that is off holds nothing back.
    let off = behind(pods(), EndpointPickerLoad::new(at(NOW)));
    assert_eq!(value(&off, &Signal::Queue), 4.0);
}

#[test]
fn a_model_without_pods_has_the_load_that_the_picker_holds_back() {
    for signal in all() {
        assert_eq!(value(&replicas(Vec::new()), &signal), 0.0, "{}", signal.name());
        let idle = behind(replicas(Vec::new()), picker(Some(0)));
        assert_eq!(value(&idle, &signal), 0.0, "{}", signal.name());
    }
    let waited_for = behind(replicas(Vec::new()), picker(Some(3)));
    for signal in [
        Signal::Queue,
        Signal::Running,
        Signal::KvSum,
        Signal::KvMax,
        Signal::Saturation,
        Signal::WaitingCapacity,
    ] {
        assert_eq!(value(&waited_for, &signal), 3.0, "{}", signal.name());
    }
    assert_eq!(measure(&waited_for, &backlog()), Err(Unknown::PromptLength));
    // An empty pool says that it is full.
    let mut load = picker(Some(0));
    load.saturation.effective = Some(1.0);
    assert_eq!(value(&behind(replicas(Vec::new()), load), &Signal::Saturation), 1.0);
}

#[test]
fn pods_that_are_not_seen_are_no_zero_without_a_list_of_them_or_an_idle_picker() {
    let mut unlisted = replicas(Vec::new());
    unlisted.lists_pods = false;
    for signal in all() {
        assert_eq!(measure(&unlisted, &signal), Err(Unknown::NoPodSeen), "{}", signal.name());
        let idle = behind(unlisted.clone(), picker(Some(0)));
        assert_eq!(value(&idle, &signal), 0.0, "{}", signal.name());
        for running in [Some(20), None] {
            let mut busy = picker(Some(0));
            busy.running_requests = running;
            // Whatever a list says: requests run somewhere.
            let measured = measure(&behind(replicas(Vec::new()), busy), &signal);
            assert_eq!(measured, Err(Unknown::PodsNotSeen { running }), "{}", signal.name());
        }
    }
}

#[test]
fn a_silent_picker_is_unknown_where_its_queue_counts() {
    let silent = |no_pods| Unknown::PickerSilent {
        since: Some(at(NOW - 41)),
        reason: "connection refused".into(),
        no_pods,
    };
    for signal in all() {
        let measured = measure(&behind_silent(replicas(Vec::new())), &signal);
        assert_eq!(measured, Err(silent(true)), "{}", signal.name());
    }
    let beside_pods = behind_silent(replicas(vec![pod("a", 3, 7, 0.4)]));
    assert_eq!(measure(&beside_pods, &Signal::Queue), Err(silent(false)));
    assert_eq!(measure(&beside_pods, &backlog()), Err(silent(false)));
    let engine_alone = [
        (Signal::Running, 7.0),
        (Signal::KvSum, 0.4),
        (Signal::KvMax, 0.4),
        (Signal::WaitingCapacity, 3.0),
        (Signal::Saturation, 0.6),
    ];
    for (signal, expected) in engine_alone {
        assert_eq!(value(&beside_pods, &signal), expected, "{}", signal.name());
    }
    let mute = behind(replicas(vec![pod("a", 3, 7, 0.4)]), picker(None));
    assert_eq!(measure(&mute, &Signal::Queue), Err(Unknown::PickerQueue));
}

#[test]
fn an_incomplete_reading_has_no_signal() {
    let mut partial = replicas(vec![pod("a", 3, 7, 0.4)]);
    partial.partial = true;
    for signal in all() {
        let measured = measure(&partial, &signal);
        assert_eq!(measured, Err(Unknown::Partial { known: 1 }), "{}", signal.name());
    }
    partial.replicas.clear();
    for signal in all() {
        let measured = measure(&partial, &signal);
        assert_eq!(measured, Err(Unknown::Partial { known: 0 }), "{}", signal.name());
    }
    // The picker's saturation does not come from the pods.
    let mut load = picker(Some(0));
    load.saturation.effective = Some(0.5);
    assert_eq!(value(&behind(partial, load), &Signal::Saturation), 0.5);
}

#[test]
fn an_unknown_field_is_never_zero_and_has_its_reason() {
    let cases: [(Field, &[Signal]); 3] = [
        (Field::QueueLength, &[Signal::Queue, Signal::WaitingCapacity, Signal::Saturation]),
        (Field::RunningRequests, &[Signal::Running]),
        (Field::KvCacheUsage, &[Signal::KvSum, Signal::KvMax, Signal::Saturation]),
    ];
    for (field, signals) in cases {
        let mut unknown = pod("b", 1, 1, 0.1);
        unknown.copy_field(field, &ReplicaMetrics::new("b", at(NOW)));
        let known = pod("a", 3, 7, 0.4);
        let expected = |reason: Option<&str>| {
            Err(Unknown::Field { pod: "b".into(), field, reason: reason.map(Arc::from) })
        };
        for signal in signals {
            let mut model = replicas(vec![known.clone(), unknown.clone()]);
            assert_eq!(measure(&model, signal), expected(None), "{}", signal.name());
            model.failed = [(field, "422")].into_iter().collect();
            assert_eq!(measure(&model, signal), expected(Some("422")), "{}", signal.name());
            model.replicas[1].reasons = [(field, "NaN")].into_iter().collect::<FieldReasons>();
            assert_eq!(measure(&model, signal), expected(Some("NaN")), "{}", signal.name());
        }
    }
}

#[test]
fn what_an_engine_does_not_export_is_another_matter() {
    let mut tgi = pod("a", 1, 1, 0.0);
    tgi.engine = Some("tgi".into());
    tgi.kv_cache_usage = None;
    let model = replicas(vec![tgi]);
    let expected = Unknown::NotExported { engine: "tgi".into(), field: Field::KvCacheUsage };
    for signal in [Signal::KvMax, Signal::KvSum, Signal::Saturation] {
        assert_eq!(measure(&model, &signal), Err(expected.clone()), "{}", signal.name());
    }
    assert_eq!(value(&model, &Signal::Queue), 1.0);
}

#[test]
fn a_pod_that_sleeps_has_no_kv_cache_and_still_has_a_queue() {
    let mut asleep = pod("b", 2, 0, 0.0);
    asleep.state = ReplicaState::Sleeping;
    asleep.kv_cache_usage = None;
    let model = replicas(vec![pod("a", 3, 7, 0.4), asleep.clone()]);
    assert_eq!(value(&model, &Signal::KvSum), 0.4);
    assert_eq!(value(&model, &Signal::Queue), 5.0);
    assert_eq!(value(&replicas(vec![asleep]), &Signal::KvMax), 0.0);
}

#[test]
fn a_variant_counts_its_own_pods() {
    let mut pods = vec![pod("a", 3, 7, 0.4), pod("b", 1, 2, 0.6)];
    pods[1].variant_name = Some("small".into());
    let model = replicas(pods);
    let of = |name: &str, signal| {
        let variant = VariantName::from(name);
        let view = View { replicas: &model, variant: Some(&variant), engines: &ENGINES };
        view.measure(signal).unwrap()
    };
    assert_eq!(of("small", &Signal::Queue).value, 1.0);
    assert_eq!((of("small", &Signal::KvMax).value, of("small", &Signal::KvMax).pods), (0.6, 1));
    assert_eq!((of("large", &Signal::Queue).value, of("large", &Signal::Queue).pods), (0.0, 0));
}

#[test]
fn a_backlog_needs_the_length_of_prompts_only_where_requests_wait() {
    let mut idle = pod("b", 0, 2, 0.6);
    idle.avg_input_tokens = None;
    assert_eq!(value(&replicas(vec![idle.clone()]), &backlog()), 0.0);
    let held = behind(replicas(vec![idle.clone()]), picker(Some(1)));
    assert_eq!(measure(&held, &backlog()), Err(Unknown::PromptLength));
    idle.queue_length = Some(1);
    idle.avg_input_tokens = Some(0.0);
    assert_eq!(measure(&replicas(vec![idle]), &backlog()), Err(Unknown::PromptLength));
}

#[test]
fn the_age_is_that_of_the_oldest_number_that_counts() {
    let mut old = pod("b", 1, 2, 0.6);
    old.sampled_at = at(NOW - 20);
    let mut kept = pod("a", 3, 7, 0.4);
    let mark = |field, second| collector_core::Mark {
        field,
        backend: "test".into(),
        sampled_at: at(second),
    };
    kept.marks.push(mark(Field::KvCacheUsage, NOW - 90));
    let model = replicas(vec![kept, old]);
    let age = |model: &Replicas, signal| measure(model, &signal).unwrap().sampled_at;
    assert_eq!(age(&model, Signal::Queue), at(NOW - 20));
    assert_eq!(age(&model, Signal::KvMax), at(NOW - 90));
    let mut load = picker(Some(1));
    load.sampled_at = at(NOW - 50);
    let behind = behind(model, load);
    assert_eq!(age(&behind, Signal::Queue), at(NOW - 50));
    assert_eq!(age(&behind, Signal::Running), at(NOW - 20));
}

#[test]
fn a_value_that_cannot_be_true_is_unknown() {
    let model = replicas(vec![pod("a", 2_000_000_000_000, 7, 0.4)]);
    assert_eq!(measure(&model, &Signal::Queue), Err(Unknown::Impossible(2e12)));
    let mut load = picker(Some(0));
    for wrong in [f64::NAN, f64::INFINITY, -0.1] {
        load.saturation.effective = Some(wrong);
        let measured = measure(&behind(replicas(Vec::new()), load.clone()), &Signal::Saturation);
        assert!(matches!(measured, Err(Unknown::Impossible(_))), "{wrong}");
    }
}

#[test]
fn what_measuring_allocates_does_not_grow_with_the_fleet() {
    let pods = (0..1000).map(|index| pod(&format!("p-{index}"), 1, 2, 0.3)).collect();
    let fleet = behind(replicas(pods), picker(Some(3)));
    let view = View { replicas: &fleet, variant: None, engines: &ENGINES };
    for signal in all() {
        let allocations = allocation_counter::measure(|| {
            let _ = view.measure(&signal);
        });
        // The bounds are shared, and the counts of all pods are one list in the joined histogram.
        let expected = if signal == slo() { 2 } else { 0 };
        assert_eq!(allocations.count_total, expected, "{}", signal.name());
    }
}

/// What may be known of a pod: nothing is `None`.
fn any_pod() -> impl Strategy<Value = ReplicaMetrics> {
    let count = || prop::option::weighted(0.9, 0_u64..50);
    let share = prop::option::weighted(0.9, 0.0..=1.0_f64);
    (count(), count(), share, prop::option::of(0.0..500.0_f64)).prop_map(
        |(queue, running, kv, tokens)| {
            let mut pod = ReplicaMetrics::new("p", at(NOW));
            (pod.queue_length, pod.running_requests) = (queue, running);
            (pod.kv_cache_usage, pod.avg_input_tokens) = (kv, tokens);
            pod
        },
    )
}

proptest! {
    /// Against the same sums over what is known for certain.
    #[test]
    fn a_value_is_the_sum_of_all_pods_or_there_is_none(
        pods in prop::collection::vec(any_pod(), 0..6),
        partial in prop::bool::weighted(0.1),
        held in prop::option::of(0_u64..20),
        has_picker: bool,
    ) {
        let mut model = replicas(pods.clone());
        model.partial = partial;
        if has_picker {
            model = behind(model, picker(held));
        }
        let held = if has_picker { held } else { Some(0) };
        let queue: Option<u64> = pods.iter().map(|pod| pod.queue_length).sum();
        let running: Option<u64> = pods.iter().map(|pod| pod.running_requests).sum();
        let truth = |of_pods: Option<u64>, of_picker: Option<u64>| {
            if partial { None } else { Some((of_pods? + of_picker?) as f64) }
        };
        let asleep = pods.is_empty();
        let known = |signal| measure(&model, &signal).ok().map(|it| it.value);
        prop_assert_eq!(known(Signal::Queue), truth(queue, held));
        prop_assert_eq!(known(Signal::Running), truth(running, if asleep { held } else { Some(0) }));
        for signal in all() {
            if let Ok(measured) = measure(&model, &signal) {
                prop_assert!((0.0..=1e12).contains(&measured.value));
            }
        }
    }
}
