// SPDX-License-Identifier: Apache-2.0
//! What becomes of answers: values, ages, marks.

use super::store::unclaimed;
use super::*;
use crate::directory::{StaticDirectory, VariantSpec};
use collector_core::{
    Absent, Allocation, Clock as _, Field, LoadRates, LoadRow, LoadRows, ManualClock,
    ReplicaMetrics, ReplicaState, Replicas,
};

struct Fixture {
    config: CacheConfig,
    directory: StaticDirectory,
    model: ModelRef,
    clock: ManualClock,
}

impl Fixture {
    fn new(variants: &[(&str, &str)]) -> Self {
        let model = ModelRef::new("llama", "prod");
        let spec = |(name, pods): &(&str, &str)| VariantSpec {
            pods: (*pods).to_owned(),
            ..VariantSpec::new(*name, &model)
        };
        Self {
            config: CacheConfig::default(),
            directory: StaticDirectory::new(variants.iter().map(spec).collect()).unwrap(),
            model: model.clone(),
            clock: ManualClock::new(),
        }
    }

    fn publish(&self, fetched: Fetched, before: Option<&ModelRecord>) -> ModelRecord {
        let publisher = Publisher {
            config: &self.config,
            pace: Pace::of(&self.config),
            directory: &self.directory,
            sources: &["test".into()],
            model: &self.model,
            tracked: None,
            now: self.clock.now(),
        };
        let before = before.map(|record| record.cold.sources.as_slice()).unwrap_or_default();
        publisher.publish(&"test".into(), fetched, before, self.clock.now())
    }

    fn sample(&self, pods: &[&str]) -> ModelSample {
        let now = self.clock.now();
        ModelSample::new(now, pods.iter().map(|pod| ReplicaMetrics::new(*pod, now)).collect())
    }
}

fn replicas(record: &ModelRecord) -> &Replicas {
    &record.value.as_ref().unwrap().replicas
}

fn allocation_of<'r>(record: &'r ModelRecord, variant: &str) -> &'r Allocation {
    let allocations = &record.value.as_ref().unwrap().allocations;
    allocations.iter().find(|known| known.variant.as_str() == variant).unwrap()
}

fn of_model(requests: f64) -> LoadRows {
    LoadRows::Model(LoadRates::default().with_requests(requests).into())
}

fn of_pods<const N: usize>(requests: [(&str, f64); N]) -> LoadRows {
    let rates = |requests: f64| LoadRates::default().with_requests(requests);
    requests.map(|(pod, requests)| (pod.into(), rates(requests).into())).into_iter().collect()
}

#[test]
fn an_older_fetch_never_replaces_a_newer_one() {
    let fixture = Fixture::new(&[]);
    let old = fixture.sample(&["a"]);
    fixture.clock.advance(Duration::from_secs(1));
    let newer = fixture.publish(Fetched::Found(fixture.sample(&["a", "b"])), None);
    let after = fixture.publish(Fetched::Found(old), Some(&newer));
    assert_eq!(replicas(&after).replicas.len(), 2);
}

#[test]
fn what_cannot_be_true_is_never_published() {
    let fixture = Fixture::new(&[]);
    let mut sample = fixture.sample(&["a", "a"]);
    sample.replicas[0].kv_cache_usage = Some(f64::NAN);
    let record = fixture.publish(Fetched::Found(sample), None);
    let published = replicas(&record);
    assert_eq!(published.replicas.len(), 1);
    assert_eq!(published.replicas[0].kv_cache_usage, None);
    assert!(published.replicas[0].reasons.contains(Field::KvCacheUsage));
}

#[test]
fn a_sample_from_the_future_is_from_now() {
    let fixture = Fixture::new(&[]);
    let mut sample = fixture.sample(&["a"]);
    sample.replicas[0].sampled_at = fixture.clock.now() + Duration::from_secs(3600);
    let published = fixture.publish(Fetched::Found(sample), None);
    assert_eq!(replicas(&published).oldest, fixture.clock.now());
}

#[test]
fn the_models_load_belongs_to_a_variant_only_when_all_its_pods_do() {
    let fixture = Fixture::new(&[("h100", "h-*")]);
    let mut sample = fixture.sample(&["h-0", "h-1"]);
    sample.load = of_model(2.0);
    let published = fixture.publish(Fetched::Found(sample), None);
    assert_eq!(allocation_of(&published, "h100").load.arrival_rate, Some(120.0));

    let mut sample = fixture.sample(&["h-0", "stray"]);
    sample.load = of_model(2.0);
    let published = fixture.publish(Fetched::Found(sample.clone()), None);
    let shared = allocation_of(&published, "h100");
    assert_eq!(shared.load.arrival_rate, None);
    let reason = shared.reasons.get(Field::ArrivalRate).unwrap();
    assert_eq!(&**reason, "the model's load is not known pod by pod, and 1 of 2 pods are its");
    assert_eq!(unclaimed(&published), 1);

    sample.load = of_pods([("h-0", 1.5), ("stray", 0.5)]);
    let published = fixture.publish(Fetched::Found(sample), None);
    assert_eq!(allocation_of(&published, "h100").load.arrival_rate, Some(90.0));
}

#[test]
fn arrivals_without_those_of_a_pod_that_may_have_requests_are_a_warning() {
    let fixture = Fixture::new(&[("h100", "h-*")]);
    let check = |running: Option<u64>, roles: [Option<&str>; 2], state, is_expected: bool| {
        let mut sample = fixture.sample(&["h-0", "h-1"]);
        sample.replicas[1].running_requests = running;
        sample.replicas[1].state = state;
        for (row, role) in sample.replicas.iter_mut().zip(roles) {
            row.role = role.map(Into::into);
        }
        let rows = [("h-0", Some(1.0)), ("h-1", None)];
        let rates = |requests: Option<f64>| LoadRates::default().with_requests(requests);
        let rows = rows.map(|(pod, requests)| (pod.into(), rates(requests).into()));
        sample.load = rows.into_iter().collect();
        let published = fixture.publish(Fetched::Found(sample), None);
        let allocation = allocation_of(&published, "h100");
        assert_eq!(allocation.load.arrival_rate, Some(60.0));
        let warned = allocation.warnings.iter().any(|it| it.contains("lack those of h-1"));
        assert_eq!(warned, is_expected, "{running:?} {roles:?}");
        // No pod is absent, and nothing but the arrivals is too small.
        assert!(!allocation.partial);
    };
    let (serving, no_roles) = (ReplicaState::Serving, [None, None]);
    check(Some(3), no_roles, serving, true);
    check(None, no_roles, serving, true);
    // It has just begun, and adds nothing.
    check(Some(0), no_roles, serving, false);
    check(None, no_roles, ReplicaState::Sleeping, false);
    check(Some(3), [Some("decode"), Some("prefill")], serving, false);
}

#[test]
fn a_variant_without_pods_has_a_load_of_zero_if_another_has_them_all() {
    let fixture = Fixture::new(&[("h100", "h-*"), ("l4", "l-*")]);
    let mut sample = fixture.sample(&["h-0"]);
    sample.load = of_pods([("h-0", 1.0)]);
    let published = fixture.publish(Fetched::Found(sample), None);
    let idle = allocation_of(&published, "l4");
    assert_eq!((idle.num_replicas, idle.load.arrival_rate), (0, Some(0.0)));
    assert_eq!(idle.ttft_average, Some(0.0));
}

#[test]
fn replicas_that_an_incomplete_answer_lacks_keep_their_load_too() {
    let fixture = Fixture::new(&[("h100", "h-*"), ("l4", "l-*")]);
    let mut sample = fixture.sample(&["h-0", "h-1"]);
    sample.load = of_pods([("h-0", 1.0), ("h-1", 1.0)]);
    let before = fixture.publish(Fetched::Found(sample), None);
    fixture.clock.advance(Duration::from_secs(30));
    let mut sample = fixture.sample(&["h-0"]);
    sample.load = of_pods([("h-0", 1.0)]);
    sample.absent = Absent::Unknown(None);
    let published = fixture.publish(Fetched::Found(sample), Some(&before));
    let allocation = allocation_of(&published, "h100");
    assert_eq!((allocation.num_replicas, allocation.load.arrival_rate), (2, Some(120.0)));
    assert!(allocation.partial);
}

/// The arrivals and the mean of input tokens after a fetch whose sum of tokens failed.
fn load_after_a_failed_sum(requests: f64, tokens: f64) -> (Option<f64>, Option<f64>) {
    let fixture = Fixture::new(&[("h100", "*")]);
    let load = |requests: f64, prompt: Option<f64>| {
        LoadRows::Model(
            LoadRates::default().with_requests(requests).with_tokens(prompt, None).into(),
        )
    };
    let mut sample = fixture.sample(&["h-0"]);
    sample.load = load(requests, Some(tokens));
    let before = fixture.publish(Fetched::Found(sample), None);
    fixture.clock.advance(Duration::from_secs(30));
    let mut sample = fixture.sample(&["h-0"]);
    sample.load = load(4.0, None);
    sample.failed.insert(Field::AvgInputTokens, "422");
    let published = fixture.publish(Fetched::Found(sample), Some(&before));
    let load = allocation_of(&published, "h100").load;
    (load.arrival_rate, load.avg_input_tokens)
}

#[test]
fn a_mean_whose_sum_failed_stays_what_it_was_while_the_arrivals_change() {
    assert_eq!(load_after_a_failed_sum(2.0, 1000.0), (Some(240.0), Some(500.0)));
}

#[test]
fn the_mean_of_no_requests_is_not_that_of_new_ones() {
    assert_eq!(load_after_a_failed_sum(0.0, 0.0), (Some(240.0), None));
}

#[test]
fn a_kept_replica_whose_load_query_failed_counts_once() {
    let fixture = Fixture::new(&[("h100", "h-*")]);
    let mut sample = fixture.sample(&["h-0", "h-1"]);
    sample.load = of_pods([("h-0", 1.0), ("h-1", 1.0)]);
    let before = fixture.publish(Fetched::Found(sample), None);
    fixture.clock.advance(Duration::from_secs(30));
    let mut sample = fixture.sample(&["h-0"]);
    sample.absent = Absent::Unknown(None);
    sample.failed.insert(Field::ArrivalRate, "422");
    let published = fixture.publish(Fetched::Found(sample), Some(&before));
    let allocation = allocation_of(&published, "h100");
    assert_eq!((allocation.num_replicas, allocation.load.arrival_rate), (2, Some(120.0)));
}

#[test]
fn a_partial_answer_without_a_variants_pods_is_no_zero() {
    let fixture = Fixture::new(&[("h100", "h-*"), ("l4", "l-*")]);
    let mut sample = fixture.sample(&["h-0"]);
    sample.load = of_pods([("h-0", 1.0)]);
    sample.absent = Absent::Unknown(None);
    let published = fixture.publish(Fetched::Found(sample), None);
    assert_eq!(allocation_of(&published, "l4").load.arrival_rate, None);
}

/// The time to first token and the arrivals after a fetch without the arrivals, whose load is in another
/// form than before.
fn after_another_form(before: LoadRows, now: impl Fn(LoadRow) -> LoadRows) -> [Option<f64>; 2] {
    let fixture = Fixture::new(&[("h100", "*")]);
    let mut sample = fixture.sample(&["h-0", "h-1"]);
    sample.load = before;
    let before = fixture.publish(Fetched::Found(sample), None);
    fixture.clock.advance(Duration::from_secs(30));
    let mut sample = fixture.sample(&["h-0", "h-1"]);
    sample.load = now(LoadRates::default().with_ttft(1.0, 2.0).into());
    sample.failed.insert(Field::ArrivalRate, "422");
    let published = fixture.publish(Fetched::Found(sample), Some(&before));
    let allocation = allocation_of(&published, "h100");
    [allocation.ttft_average, allocation.load.arrival_rate]
}

#[test]
fn load_that_was_known_by_pod_is_kept_for_the_model() {
    let before = of_pods([("h-0", 1.0), ("h-1", 1.0)]);
    assert_eq!(after_another_form(before, LoadRows::Model), [Some(500.0), Some(120.0)]);
}

#[test]
fn load_that_was_the_models_cannot_be_kept_by_pod() {
    let by_pod =
        |row: LoadRow| ["h-0", "h-1"].map(|pod| (pod.into(), row.clone())).into_iter().collect();
    assert_eq!(after_another_form(of_model(2.0), by_pod), [Some(500.0), None]);
}

#[test]
fn the_load_of_some_pods_is_not_that_of_a_variant() {
    let fixture = Fixture::new(&[("h100", "h-*")]);
    let mut sample = fixture.sample(&["h-0", "h-1"]);
    sample.load = of_pods([("h-0", 1.0)]);
    let published = fixture.publish(Fetched::Found(sample), None);
    let allocation = allocation_of(&published, "h100");
    assert_eq!(allocation.load.arrival_rate, None);
    let reason = allocation.reasons.get(Field::ArrivalRate).unwrap();
    assert_eq!(&**reason, "the load of h-1 is unknown");
}

#[test]
fn a_fetch_from_the_future_is_from_now() {
    let fixture = Fixture::new(&[]);
    let mut sample = fixture.sample(&[]);
    sample.as_of = fixture.clock.now() + Duration::from_secs(3600);
    let first = fixture.publish(Fetched::Found(sample), None);
    fixture.clock.advance(Duration::from_secs(600));
    let second = fixture.publish(Fetched::Found(fixture.sample(&["a"])), Some(&first));
    assert_eq!(replicas(&second).replicas.len(), 1);
}

#[test]
fn a_failed_fetch_changes_no_value() {
    let fixture = Fixture::new(&[]);
    let before = fixture.publish(Fetched::Found(fixture.sample(&["a"])), None);
    fixture.clock.advance(Duration::from_secs(30));
    let kind = collector_core::ErrorKind::Timeout;
    let operation = collector_core::Operation::Fetch;
    let error = Arc::new(BackendError::new(kind, "test".into(), operation, "x"));
    let failed = Fetched::Failed { began: fixture.clock.now(), error };
    let after = fixture.publish(failed, Some(&before));
    assert_eq!(replicas(&after), replicas(&before));
    assert_eq!(after.outcome, Outcome::Failed);
    assert_eq!(after.deadlines.keep_until, before.deadlines.keep_until);
    let last_heard = |record: &ModelRecord| {
        let state = &record.cold.sources[0];
        (state.answered_at, state.as_of)
    };
    assert_eq!(last_heard(&after), last_heard(&before));
}

#[test]
fn of_two_fetches_of_the_same_moment_the_later_one_counts() {
    let fixture = Fixture::new(&[]);
    let first = fixture.publish(Fetched::Found(fixture.sample(&["a"])), None);
    let sample = fixture.sample(&["a", "b"]);
    let second = fixture.publish(Fetched::Found(sample), Some(&first));
    assert_eq!(replicas(&second).replicas.len(), 2);
    assert_eq!(second.deadlines.keep_until, fixture.clock.now() + Duration::from_secs(300));
}

#[test]
fn what_one_of_two_sources_has_not_is_asked_for_again_after_a_pause() {
    let fixture = Fixture::new(&[]);
    let now = fixture.clock.now();
    let publisher = Publisher {
        config: &fixture.config,
        pace: Pace::of(&fixture.config),
        directory: &fixture.directory,
        sources: &["test".into(), "other".into()],
        model: &fixture.model,
        tracked: None,
        now,
    };
    let missing = Fetched::Missing { as_of: now, nearest: None };
    let stored = publisher.publish(&"test".into(), missing, &[], now);
    assert_eq!(stored.outcome, Outcome::Failed, "the other has not said anything");
    assert_eq!(stored.deadlines.current_until, now + PAUSE_AFTER_FAILURE);
}
