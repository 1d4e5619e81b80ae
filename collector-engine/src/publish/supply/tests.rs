// SPDX-License-Identifier: Apache-2.0
//! What becomes of rows and readings when a cluster lists the pods, in any order of answers.

use std::sync::Arc;
use std::time::Duration;

use collector_core::supply::{Pod, PodState, Workload};
use collector_core::{
    Absent, BackendError, BackendName, Clock as _, ErrorKind, ManualClock, ModelRecord, ModelRef,
    ModelSample, Operation, Outcome, ReplicaMetrics, ReplicaState, Replicas, Supply, Tick,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::config::CacheConfig;
use crate::directory::{StaticDirectory, VariantSpec};
use crate::publish::{Fetched, Publisher};
use crate::refresh::Pace;

struct Fixture {
    config: CacheConfig,
    directory: StaticDirectory,
    model: ModelRef,
    clock: ManualClock,
    sources: Vec<BackendName>,
    record: Option<ModelRecord>,
}

impl Fixture {
    fn new() -> Self {
        let model = ModelRef::new("llama", "prod");
        let variant = VariantSpec { pods: "m-*".to_owned(), ..VariantSpec::new("v", &model) };
        let clock = ManualClock::new();
        // The list and the rows may be hours old.
        clock.advance(Duration::from_secs(36_000));
        Self {
            config: CacheConfig::default(),
            directory: StaticDirectory::new(vec![variant]).unwrap(),
            model,
            clock,
            sources: vec!["metrics".into(), "cluster".into()],
            record: None,
        }
    }

    fn publish(&mut self, backend: &str, fetched: Fetched) -> &ModelRecord {
        let publisher = Publisher {
            config: &self.config,
            pace: Pace::of(&self.config),
            directory: &self.directory,
            sources: &self.sources,
            model: &self.model,
            tracked: None,
            now: self.clock.now(),
        };
        let before = self.record.as_ref().map(|record| record.cold.sources.as_slice());
        let record =
            publisher.publish(&backend.into(), fetched, before.unwrap_or_default(), Tick::MIN);
        self.record.insert(record)
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn rows(&mut self, pods: &[&str]) -> &ModelRecord {
        let now = self.clock.now();
        let rows = pods.iter().map(|pod| ReplicaMetrics::new(*pod, now)).collect();
        self.publish("metrics", Fetched::Found(ModelSample::new(now, rows)))
    }

    fn lists(&mut self, pods: &[(&str, PodState)]) -> &ModelRecord {
        let supply = supply(self.clock.now(), pods);
        self.publish("cluster", Fetched::Found(listing(supply)))
    }

    fn missing(&mut self, backend: &str) -> &ModelRecord {
        let as_of = self.clock.now();
        self.publish(backend, Fetched::Missing { as_of, nearest: None })
    }

    fn failed(&mut self, backend: &str) -> &ModelRecord {
        let began = self.clock.now();
        let kind = ErrorKind::Connect;
        let error = BackendError::new(kind, backend.into(), Operation::Fetch, "x");
        self.publish(backend, Fetched::Failed { began, error: Arc::new(error) })
    }
}

/// Pods that have been in their states for an hour.
fn supply(as_of: Tick, pods: &[(&str, PodState)]) -> Supply {
    let since = as_of - Duration::from_secs(3600);
    let pods = pods.iter().map(|(name, state)| Pod::new((*name).into(), *state, since)).collect();
    Supply::new(as_of, vec![Workload::new(Some("v".into()), Some(4), pods)])
}

/// A sample as a cluster's backend answers it.
fn listing(supply: Supply) -> ModelSample {
    let mut sample = ModelSample::new(supply.as_of, Vec::new());
    sample.lists_pods = supply.is_zero();
    sample.supply = Some(Arc::new(supply));
    sample
}

fn replicas(record: &ModelRecord) -> &Replicas {
    &record.value.as_ref().unwrap().replicas
}

fn states(record: &ModelRecord) -> Vec<(&str, ReplicaState)> {
    let rows = replicas(record).replicas.iter();
    rows.map(|row| (row.pod_name.as_str(), row.state)).collect()
}

use PodState::{NotReady, Ready, Starting, Terminating};

#[test]
fn rows_have_the_states_that_the_cluster_lists() {
    let mut fixture = Fixture::new();
    let pods = ["m-0", "m-1", "m-2", "m-3", "other"];
    fixture.rows(&pods);
    let record = fixture.lists(&[
        ("m-0", Ready),
        ("m-1", Starting),
        ("m-2", NotReady),
        ("m-3", Terminating),
    ]);
    let listed = [
        ("m-0", ReplicaState::Serving),
        ("m-1", ReplicaState::Starting),
        ("m-2", ReplicaState::NotReady),
        ("m-3", ReplicaState::Terminating),
        ("other", ReplicaState::Serving),
    ];
    assert_eq!(states(record), listed);
    let allocation = &record.value.as_ref().unwrap().allocations[0];
    let counts = (allocation.num_replicas, allocation.num_sleeping, allocation.num_starting);
    assert_eq!(counts, (2, 0, Some(1)));
    assert!(!replicas(record).partial);

    // What the cluster said is the present state only while it answers.
    fixture.pass(1);
    let record = fixture.failed("cluster");
    assert!(states(record).iter().all(|(_, state)| *state == ReplicaState::Serving));
    assert!(replicas(record).supply.is_some(), "the last list stays, with its age");
}

#[test]
fn a_server_that_sleeps_says_so_itself_unless_its_pod_terminates() {
    let mut fixture = Fixture::new();
    let now = fixture.clock.now();
    let asleep = |pod: &str| {
        let mut row = ReplicaMetrics::new(pod, now);
        row.state = ReplicaState::Sleeping;
        row
    };
    let rows = ["m-0", "m-1", "m-2"].map(asleep).to_vec();
    fixture.publish("metrics", Fetched::Found(ModelSample::new(now, rows)));
    let record = fixture.lists(&[("m-0", Ready), ("m-1", NotReady), ("m-2", Terminating)]);
    let listed = [ReplicaState::Sleeping, ReplicaState::Sleeping, ReplicaState::Terminating];
    assert_eq!(states(record).into_iter().map(|(_, state)| state).collect::<Vec<_>>(), listed);
    let allocation = &record.value.as_ref().unwrap().allocations[0];
    assert_eq!((allocation.num_replicas, allocation.num_sleeping), (0, 2));
    let counts = replicas(record).supplied(None).unwrap().counts();
    assert_eq!(counts.to_string(), "2 sleeping, 1 terminating");
}

#[test]
fn a_row_is_dropped_once_its_pod_was_deleted_after_it_was_sampled() {
    let mut fixture = Fixture::new();
    fixture.rows(&["m-0", "m-1"]);
    fixture.pass(5);
    let mut supply = supply(fixture.clock.now(), &[("m-1", Ready)]);
    supply.deleted = vec![("m-0".into(), fixture.clock.now())];
    let record = fixture.publish("cluster", Fetched::Found(listing(supply)));
    assert_eq!(states(record), [("m-1", ReplicaState::Serving)]);
    // A pod of the same name that was sampled later is another one.
    fixture.pass(5);
    assert_eq!(states(fixture.rows(&["m-0", "m-1"])).len(), 2);
}

#[test]
fn pods_that_are_ready_and_have_no_metrics_make_a_reading_partial() {
    let mut fixture = Fixture::new();
    fixture.rows(&["m-0"]);
    let silent = [("m-0", Ready), ("m-1", Ready), ("m-2", Ready), ("m-3", Starting)];
    let record = fixture.lists(&silent);
    assert!(replicas(record).partial);
    assert!(record.value.as_ref().unwrap().allocations[0].partial);
    let warning = "2 pods are Ready and no backend has metrics of them: m-1, m-2";
    assert_eq!(replicas(record).warnings, [Arc::from(warning)]);

    let many = [("m-0", Ready), ("m-1", Ready), ("m-2", Ready), ("m-3", Ready), ("m-4", Ready)];
    let record = fixture.lists(&many);
    let warning = "4 pods are Ready and no backend has metrics of them: m-1, m-2, m-3, …";
    assert_eq!(replicas(record).warnings, [Arc::from(warning)]);
    assert!(!replicas(fixture.rows(&["m-0", "m-1", "m-2", "m-3", "m-4"])).partial);
}

#[test]
fn a_pod_has_a_minute_from_ready_to_its_first_metrics() {
    let partial_after = |seconds| {
        let mut fixture = Fixture::new();
        fixture.rows(&["m-0"]);
        let now = fixture.clock.now();
        let mut supply = supply(now, &[("m-0", Ready), ("m-1", Ready)]);
        supply.workloads[0].pods[1].since = now - Duration::from_secs(seconds);
        replicas(fixture.publish("cluster", Fetched::Found(listing(supply)))).partial
    };
    assert_eq!((partial_after(60), partial_after(61)), (false, true));
}

#[test]
fn pods_of_other_names_are_no_absent_ones() {
    let mut fixture = Fixture::new();
    fixture.rows(&["10.0.0.7:8000"]);
    let record = fixture.lists(&[("m-0", Ready)]);
    assert!(!replicas(record).partial);
    assert_eq!(replicas(record).warnings.len(), 1);
    assert!(replicas(record).warnings[0].contains("the names of pods differ"));
    // Without a row there is nothing to compare.
    assert!(replicas(fixture.rows(&[])).partial);
}

#[test]
fn pods_alone_are_no_metrics() {
    let mut fixture = Fixture::new();
    let record = fixture.lists(&[("m-0", Ready), ("m-1", Ready), ("m-2", Starting)]);
    assert_eq!(record.outcome, Outcome::Failed, "the other source has not answered");
    assert!(record.value.is_none());
    let record = fixture.missing("metrics");
    assert_eq!(record.outcome, Outcome::Missing);
    assert!(record.value.is_none());
    let pods = record.cold.nearest.as_ref().unwrap().pods.unwrap();
    assert_eq!(pods.to_string(), "2 ready, 1 starting");
    assert_eq!(fixture.failed("metrics").outcome, Outcome::Failed);
    assert_eq!(fixture.rows(&[]).outcome, Outcome::Found);
    // A reading without rows of a model with pods is no zero.
    assert!(!replicas(fixture.record.as_ref().unwrap()).lists_pods);
}

#[test]
fn a_cluster_without_a_pod_is_a_known_zero_while_it_answers() {
    let mut fixture = Fixture::new();
    fixture.missing("metrics");
    let listed_at = fixture.clock.now();
    let record = fixture.lists(&[]);
    assert_eq!(record.outcome, Outcome::Found);
    let zero = replicas(record);
    assert_eq!((zero.replicas.len(), zero.lists_pods, zero.partial), (0, true, false));
    assert_eq!((zero.backend.as_str(), zero.oldest), ("cluster", listed_at));

    fixture.pass(1);
    let unknown = replicas(fixture.failed("cluster"));
    assert_eq!((unknown.replicas.len(), unknown.lists_pods), (0, false));
    assert_eq!((unknown.oldest, unknown.supply.as_ref().unwrap().as_of), (listed_at, listed_at));
}

#[test]
fn a_list_that_is_not_confirmed_any_more_is_no_zero() {
    let mut fixture = Fixture::new();
    fixture.missing("metrics");
    fixture.lists(&[]);
    fixture.pass(121);
    let record = fixture.missing("metrics");
    assert!(!replicas(record).lists_pods);
}

#[test]
fn a_list_from_before_a_restart_is_no_zero() {
    let mut fixture = Fixture::new();
    fixture.missing("metrics");
    let mut restored = listing(supply(fixture.clock.now(), &[]));
    restored.lists_pods = false;
    let record = fixture.publish("cluster", Fetched::Found(restored));
    assert_eq!((record.outcome, record.value.is_none()), (Outcome::Missing, true));
}

#[test]
fn what_was_sampled_after_the_list_is_no_zero() {
    let mut fixture = Fixture::new();
    fixture.lists(&[]);
    fixture.pass(5);
    fixture.rows(&["m-0"]);
    fixture.pass(5);
    let record = fixture.missing("metrics");
    assert_ne!(record.outcome, Outcome::Found);
    assert!(!replicas(record).lists_pods);
    assert_eq!(replicas(record).replicas.len(), 1, "the last known good value");
    fixture.pass(1);
    assert!(replicas(fixture.lists(&[])).lists_pods, "the list is newer now");
}

#[test]
fn rows_of_a_model_without_a_listed_pod_stay() {
    let mut fixture = Fixture::new();
    fixture.lists(&[]);
    let record = fixture.rows(&["elsewhere-0"]);
    assert_eq!(replicas(record).replicas.len(), 1);
    assert!(!replicas(record).lists_pods && !replicas(record).partial);
    assert!(replicas(record).warnings[0].contains("the cluster lists no pod"));
}

#[test]
fn targets_that_are_all_gone_are_no_zero_while_the_cluster_lists_pods() {
    let mut fixture = Fixture::new();
    let now = fixture.clock.now();
    let mut none = ModelSample::new(now, Vec::new());
    none.lists_pods = true;
    assert!(replicas(fixture.publish("metrics", Fetched::Found(none))).lists_pods);
    assert!(!replicas(fixture.lists(&[("m-0", Starting)])).lists_pods);
}

#[test]
fn a_model_that_the_cluster_has_no_more_has_no_supply() {
    let mut fixture = Fixture::new();
    fixture.rows(&["m-0"]);
    fixture.lists(&[("m-0", Starting)]);
    let record = fixture.missing("cluster");
    assert!(replicas(record).supply.is_none());
    assert_eq!(states(record), [("m-0", ReplicaState::Serving)]);
}

/// What happens in a random sequence.
#[derive(Clone, Copy, Debug)]
enum Event {
    Pass(u64),
    /// A pod starts, becomes Ready, does both at once, or ends.
    Start(usize),
    Ready(usize),
    Serve(usize),
    End(usize),
    /// The source of metrics answers what it sees, with only some of the pods, that it has nothing, or not at all.
    Metrics,
    Partial,
    MetricsMissing,
    MetricsFail,
    /// The cluster answers what is so, what was so some time ago, that it does not know the model, or not at all.
    Cluster,
    ClusterLate,
    ClusterMissing,
    ClusterFails,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => prop_oneof![Just(1_u64), Just(10), Just(70), Just(130)].prop_map(Event::Pass),
        2 => (0..POD_NAMES.len()).prop_map(Event::Start),
        2 => (0..POD_NAMES.len()).prop_map(Event::Ready),
        2 => (0..POD_NAMES.len()).prop_map(Event::Serve),
        3 => (0..POD_NAMES.len()).prop_map(Event::End),
        3 => Just(Event::Metrics),
        1 => Just(Event::Partial),
        2 => Just(Event::MetricsMissing),
        1 => Just(Event::MetricsFail),
        4 => Just(Event::Cluster),
        1 => Just(Event::ClusterLate),
        1 => Just(Event::ClusterMissing),
        1 => Just(Event::ClusterFails),
    ]
}

const POD_NAMES: [&str; 3] = ["m-0", "m-1", "m-2"];

/// What is so.
#[derive(Clone, Default)]
struct Truth {
    pods: [Option<(PodState, Option<Tick>)>; 3],
    deleted: Vec<(usize, Tick)>,
}

impl Truth {
    fn supply(&self, as_of: Tick) -> Supply {
        let known = self.pods.iter().zip(POD_NAMES);
        let pods = known.filter_map(|(pod, name)| {
            let (state, since) = (*pod)?;
            Some(Pod::new(name.into(), state, since.unwrap_or(as_of)))
        });
        let workload = Workload::new(Some("v".into()), None, pods.collect());
        let mut supply = Supply::new(as_of, vec![workload]);
        supply.deleted =
            self.deleted.iter().map(|(pod, at)| (POD_NAMES[*pod].into(), *at)).collect();
        supply
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_order_of_answers_makes_a_false_zero(events in vec(event(), 1..40)) {
        let mut fixture = Fixture::new();
        let mut truth = Truth::default();
        let mut earlier = (truth.clone(), fixture.clock.now());
        // When the cluster last confirmed what it said, and whether it has answered since.
        let mut confirmed: Option<(Tick, Truth)> = None;
        // When the last rows were sampled.
        let mut sampled: Option<Tick> = None;
        for event in events {
            let now = fixture.clock.now();
            match event {
                Event::Pass(seconds) => {
                    earlier = (truth.clone(), now);
                    fixture.pass(seconds);
                    continue;
                }
                Event::Start(pod) => {
                    truth.pods[pod].get_or_insert((Starting, Some(now)));
                    continue;
                }
                Event::Ready(pod) => {
                    if let Some(pod @ (Starting | NotReady, _)) = &mut truth.pods[pod] {
                        *pod = (Ready, Some(now));
                    }
                    continue;
                }
                Event::Serve(pod) => {
                    truth.pods[pod].get_or_insert((Ready, Some(now)));
                    continue;
                }
                Event::End(pod) => {
                    if truth.pods[pod].take().is_some() {
                        truth.deleted.push((pod, now));
                    }
                    continue;
                }
                Event::Metrics | Event::Partial => {
                    // A pod that starts has no metrics yet.
                    let ready = truth.pods.iter().zip(POD_NAMES);
                    let ready = ready.filter(|(pod, _)| matches!(pod, Some((Ready, _))));
                    let mut rows: Vec<_> =
                        ready.map(|(_, name)| ReplicaMetrics::new(name, now)).collect();
                    let mut sample = ModelSample::new(now, Vec::new());
                    if matches!(event, Event::Partial) {
                        rows.pop();
                        sample.absent = Absent::Unknown(None);
                    }
                    sampled = (!rows.is_empty()).then_some(now);
                    sample.replicas = rows;
                    fixture.publish("metrics", Fetched::Found(sample));
                }
                Event::MetricsMissing => {
                    fixture.missing("metrics");
                }
                Event::MetricsFail => {
                    fixture.failed("metrics");
                }
                Event::Cluster => {
                    fixture.publish("cluster", Fetched::Found(listing(truth.supply(now))));
                    confirmed = Some((now, truth.clone()));
                }
                Event::ClusterLate => {
                    // An answer that comes late, of what was so before the last pause.
                    let (truth, at) = &earlier;
                    let late = listing(truth.supply(*at));
                    let newer = fixture.record.iter().flat_map(|record| &record.cold.sources);
                    let newer = newer.filter(|state| state.backend.as_str() == "cluster");
                    let overtaken = newer.filter_map(|state| state.as_of).any(|as_of| as_of > *at);
                    fixture.publish("cluster", Fetched::Found(late));
                    if !overtaken {
                        confirmed = Some((*at, truth.clone()));
                    }
                }
                Event::ClusterMissing => {
                    fixture.missing("cluster");
                    confirmed = None;
                }
                Event::ClusterFails => {
                    fixture.failed("cluster");
                    confirmed = None;
                }
            }
            let record = fixture.record.as_ref().unwrap();
            let Some(value) = &record.value else { continue };
            let value = &value.replicas;
            if value.lists_pods {
                // A zero is what the cluster has just said, was so then, and nothing newer says otherwise.
                prop_assert!(value.replicas.is_empty());
                let Some((at, then)) = &confirmed else {
                    return Err(TestCaseError::fail("zero without a cluster that answers"));
                };
                prop_assert!(then.pods.iter().all(Option::is_none), "there were pods");
                prop_assert!(at.age(now) < Duration::from_secs(120));
                prop_assert!(sampled.is_none_or(|sampled| sampled <= *at), "a pod was sampled later");
                prop_assert_eq!(value.oldest, *at);
                prop_assert_eq!(record.outcome, Outcome::Found);
            }
            for row in &value.replicas {
                // A pod that was deleted after it was sampled has no row, if the cluster reported that.
                let is_gone = |(pod, at): &(usize, Tick)| {
                    POD_NAMES[*pod] == row.pod_name.as_str() && *at > row.sampled_at
                };
                if let Some((_, then)) = &confirmed {
                    prop_assert!(!then.deleted.iter().any(is_gone), "{:?} is gone", row.pod_name);
                }
            }
            if let Some((at, then)) = &confirmed
                && at.age(now) < Duration::from_secs(120)
            {
                let silent = then.pods.iter().zip(POD_NAMES).any(|(pod, name)| {
                    let long = |since: Tick| since.age(*at) > Duration::from_secs(60);
                    matches!(pod, Some((Ready, Some(since))) if long(*since))
                        && value.replicas.iter().all(|row| row.pod_name.as_str() != name)
                });
                let listed = |name: &str| {
                    then.pods.iter().zip(POD_NAMES).any(|(pod, known)| pod.is_some() && known == name)
                };
                let comparable = value.replicas.is_empty()
                    || value.replicas.iter().any(|row| listed(row.pod_name.as_str()));
                prop_assert!(!(silent && comparable) || value.partial, "a Ready pod is absent");
            }
        }
    }
}
