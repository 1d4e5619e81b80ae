//! From what backends answer to what is stored: the only place where values are made.
//!
//! [`Publisher`] is pure: no clock, no lock, no I/O. The value of a record follows from what each source last answered
//! and from the directory alone, so that it can be made again at any time, by whichever source brings something new.

use std::sync::Arc;
use std::time::Duration;

use collector_core::raw::{Cold, SourceState};
use collector_core::{
    BackendError, BackendName, Deadlines, ModelRecord, ModelRef, ModelSample, ModelValue, Nearest,
    Outcome, Tick, Variant, VariantDirectory,
};

use crate::carry::carry;
use crate::config::CacheConfig;
use crate::engine::Engine;
use crate::fetch::{Fetch, Source};
use crate::merge::{self, View};
use crate::pace::Pace;
use crate::state::{State, Tracked};

/// How long an entry survives unread once its value is of no use, and how long a model stays tracked
/// without a read: five minutes, as in the Go collector.
pub(crate) const UNTRACK_AFTER: Duration = Duration::from_secs(300);

/// How long a read past a failed refresh waits before it starts the next one. The circuit breaker
/// covers what is down; this covers what answers with a refusal each time.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// What became of one look of one source at one model.
pub(crate) enum Fetched {
    /// It was found.
    Found(ModelSample),
    /// It has no series.
    Missing {
        /// When it was looked at.
        as_of: Tick,
        /// What exists, where that was asked.
        nearest: Option<Arc<Nearest>>,
    },
    /// It could not be looked at.
    Failed {
        /// When the look began.
        began: Tick,
        /// Why.
        error: Arc<BackendError>,
    },
}

impl Fetched {
    /// When the source was looked at: the order of what it says.
    pub(crate) fn as_of(&self) -> Tick {
        match self {
            Self::Found(sample) => sample.as_of,
            Self::Missing { as_of, .. } => *as_of,
            Self::Failed { began, .. } => *began,
        }
    }

    /// How the look ended.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Found(_) => Outcome::Found,
            Self::Missing { .. } => Outcome::Missing,
            Self::Failed { .. } => Outcome::Failed,
        }
    }
}

/// Makes the records of one model.
pub(crate) struct Publisher<'a> {
    pub(crate) config: &'a CacheConfig,
    pub(crate) pace: Pace,
    pub(crate) directory: &'a dyn VariantDirectory,
    /// The sources that there are, in order of preference.
    pub(crate) sources: &'a [BackendName],
    pub(crate) model: &'a ModelRef,
    /// What is known of the model, where it is tracked.
    pub(crate) tracked: Option<&'a Tracked>,
    pub(crate) now: Tick,
}

impl Publisher<'_> {
    /// The record after a fetch from one source, given what all of them answered before it.
    pub(crate) fn publish(
        &self,
        backend: &BackendName,
        fetched: Fetched,
        before: &[SourceState],
        last_read: Tick,
    ) -> ModelRecord {
        let former = before.iter().find(|state| state.backend == *backend);
        let mut states = vec![self.after(backend, fetched, former)];
        states.extend(before.iter().filter(|state| state.backend != *backend).cloned());
        self.record(states, last_read)
    }

    /// What a source has said, after one more look.
    fn after(
        &self,
        backend: &BackendName,
        fetched: Fetched,
        former: Option<&SourceState>,
    ) -> SourceState {
        // A clock that is ahead makes nothing younger than now.
        let as_of = fetched.as_of().min(self.now);
        if let Some(former) = former
            && former.as_of.is_some_and(|newer| newer > as_of)
        {
            // An older look never replaces a newer one, however it ended.
            return former.clone();
        }
        let former_answer = former.and_then(|state| state.answer.as_ref());
        let state = SourceState {
            backend: backend.clone(),
            outcome: fetched.outcome(),
            ended_at: self.now,
            answered_at: Some(self.now),
            as_of: Some(as_of),
            answer: former_answer.cloned(),
            error: None,
            nearest: None,
        };
        match fetched {
            Fetched::Found(sample) => {
                let answer = carry(sample, former_answer, backend, self.config, self.now);
                SourceState { answer: Some(answer), ..state }
            }
            Fetched::Missing { nearest, .. } => {
                let known = || former.and_then(|state| state.nearest.clone());
                SourceState { nearest: nearest.or_else(known), ..state }
            }
            Fetched::Failed { error, .. } => SourceState {
                answered_at: former.and_then(|state| state.answered_at),
                as_of: former.and_then(|state| state.as_of),
                error: Some(error),
                ..state
            },
        }
    }

    /// The record that follows from what each source last answered.
    pub(crate) fn record(&self, states: Vec<SourceState>, last_read: Tick) -> ModelRecord {
        let cold = self.cold(states);
        let outcome = self.outcome(&cold.sources);
        let value = self.value(&cold.sources);
        let deadlines = self.deadlines(value.as_ref(), outcome, &cold);
        let (model, value) = (self.model.clone(), value.map(Arc::new));
        ModelRecord::new(model, value, outcome, cold, deadlines, self.tracked.is_some(), last_read)
    }

    fn value(&self, states: &[SourceState]) -> Option<ModelValue> {
        let views = self.views(states);
        let thresholds = &self.config.freshness;
        let replicas = merge::replicas(self.model, &views, thresholds, self.now)?;
        let of_variant = |variant: &Arc<Variant>| {
            merge::allocation(variant, &replicas, &views, thresholds, self.now)
        };
        let allocations = self.kept_variants().iter().map(of_variant).collect();
        Some(ModelValue::new(replicas, allocations))
    }

    /// The sources whose answers make the value. What says that the model is missing counts only where
    /// nobody says otherwise: its last answer is then the last known good one.
    fn views<'s>(&self, states: &'s [SourceState]) -> Vec<View<'s>> {
        let has = |state: &&SourceState| state.answer.is_some();
        let denies = |state: &&SourceState| state.outcome == Outcome::Missing;
        let some_do_not = states.iter().filter(has).any(|state| !denies(&state));
        states
            .iter()
            .filter(|state| !(some_do_not && denies(state)))
            .filter_map(|state| {
                let answer = state.answer.as_ref()?;
                let mut rows = answer.sample.replicas.clone();
                for row in &mut rows {
                    if let Some(variant) = self.directory.variant_of(self.model, &row.pod_name) {
                        row.variant_name = Some(variant.name.clone());
                        row.accelerator_name.clone_from(&variant.accelerator);
                        row.cost = Some(variant.cost);
                    }
                }
                let thresholds = &self.config.freshness;
                let said_by = (&state.backend, state.outcome);
                Some(View::new(said_by, answer, rows, thresholds, self.now))
            })
            .collect()
    }

    fn cold(&self, mut states: Vec<SourceState>) -> Arc<Cold> {
        let place = |state: &SourceState| self.sources.iter().position(|n| *n == state.backend);
        states.sort_by_key(place);
        let error = states.iter().find_map(|state| state.error.clone());
        let nearest = states.iter().filter_map(|state| state.nearest.clone());
        let nearest = nearest.reduce(|one, other| Arc::new(one.and(&other)));
        Arc::new(Cold { sources: states, error, nearest })
    }

    /// How the last looks ended, taken together: found where one source has the model, missing only
    /// where all of them have answered that they have not.
    fn outcome(&self, states: &[SourceState]) -> Outcome {
        let all = |outcome| states.iter().all(|state| state.outcome == outcome);
        if states.iter().any(|state| state.outcome == Outcome::Found) {
            Outcome::Found
        } else if all(Outcome::Missing) && states.len() >= self.sources.len() {
            Outcome::Missing
        } else {
            Outcome::Failed
        }
    }

    fn kept_variants(&self) -> Vec<Arc<Variant>> {
        let mut variants = self.directory.variants_of(self.model);
        if let Some(tracked) = self.tracked {
            variants.retain(|variant| !tracked.stopped.contains(&variant.name));
        }
        variants
    }

    fn deadlines(&self, value: Option<&ModelValue>, outcome: Outcome, cold: &Cold) -> Deadlines {
        let of_outcome = cold.sources.iter().filter(|state| state.outcome == outcome);
        let due = of_outcome.map(|state| next_fetch(state, self.pace));
        let current_until = due.clone().max().unwrap_or(self.now + PAUSE_AFTER_FAILURE);
        let refresh_after = match outcome {
            // One source that pushes all the time does not make up for another that is only asked.
            Outcome::Found => due.min().unwrap_or(current_until),
            Outcome::Missing | Outcome::Failed => current_until,
        };
        let useful_until = |value: &ModelValue| {
            let oldest = value.allocations.iter().map(|allocation| allocation.oldest);
            let newest = oldest.fold(value.replicas.oldest, Tick::max);
            newest + self.config.freshness.unavailable_threshold
        };
        let keep_until = match value {
            // A configured model remembers for as long as it is one.
            _ if self.tracked.is_some_and(|tracked| tracked.pinned) => Tick::MAX,
            Some(value) => useful_until(value),
            None => current_until,
        };
        // Negative records expire `missing_ttl` after their last read.
        let keep_unread = if value.is_none() { self.pace.missing_ttl } else { UNTRACK_AFTER };
        Deadlines { current_until, refresh_after, keep_until, keep_unread }
    }
}

/// When a source is to be asked again, if nobody does so before.
pub(crate) fn next_fetch(state: &SourceState, pace: Pace) -> Tick {
    state.ended_at
        + match state.outcome {
            Outcome::Found => pace.ttl,
            Outcome::Missing => pace.missing_ttl,
            Outcome::Failed => PAUSE_AFTER_FAILURE,
        }
}

impl Engine {
    /// What makes the records of a model as things stand.
    pub(crate) fn publisher<'a>(
        &'a self,
        cell: &'a State<Fetch>,
        model: &'a ModelRef,
        now: Tick,
    ) -> Publisher<'a> {
        Publisher {
            config: &self.config,
            pace: self.pace_in(cell, model),
            directory: &*self.directory,
            sources: &self.names,
            model,
            tracked: cell.tracked.as_ref(),
            now,
        }
    }

    /// Publishes what a source has answered, and stores it unless it may not be stored or nobody wants it any more.
    /// Called under the lock of the model's cell.
    pub(crate) fn publish(
        &self,
        cell: &mut State<Fetch>,
        source: &Source,
        model: &ModelRef,
        fetched: Fetched,
        awaited: bool,
        may_store: bool,
    ) -> Arc<ModelRecord> {
        let now = self.clock.now();
        let outcome = fetched.outcome();
        let before = if may_store { self.cache.get(model) } else { None };
        // Collecting tracks, before the record is made: it says whether it is tracked.
        if may_store && awaited && outcome == Outcome::Found && self.cache.retains() {
            self.models.track(cell, now, self.max_tracked);
        }
        let last_read = before.as_ref().map_or(now, |before| before.last_read());
        let states = before.as_ref().map(|before| before.cold.sources.as_slice());
        let publisher = self.publisher(cell, model, now);
        let states = states.unwrap_or_default();
        let record = Arc::new(publisher.publish(&source.name, fetched, states, last_read));
        let tracked = cell.tracked.is_some();
        let wanted = may_store
            && match outcome {
                // What is neither read nor tracked was stopped meanwhile.
                Outcome::Found => tracked,
                Outcome::Missing => tracked || before.is_some() || awaited,
                // That a model nobody has ever seen could not be fetched is nothing to keep, unless
                // another source may still have it.
                Outcome::Failed => {
                    tracked || before.is_some() || (awaited && self.sources.len() > 1)
                }
            };
        if wanted {
            self.put(cell, &record, before.as_deref());
            self.learn(cell, source, outcome, &record, now);
        }
        let unclaimed = unclaimed(&record);
        if unclaimed > 0 && outcome == Outcome::Found {
            let namespace = model.namespace.to_string();
            metrics::counter!(
                "wva_pod_mapping_miss_total", "namespace" => namespace, "reason" => "no_variant"
            )
            .increment(unclaimed as u64);
        }
        record
    }

    /// Stores a record in place of `before`. Called under the lock of the model's cell.
    pub(crate) fn put(
        &self,
        cell: &mut State<Fetch>,
        record: &Arc<ModelRecord>,
        before: Option<&ModelRecord>,
    ) {
        cell.record_changed = true;
        self.cache.put(Arc::clone(record));
        if let Some(before) = before {
            // Reads of the former record while this one was made count as well.
            record.touch(before.last_read());
        }
    }

    /// Makes the records of tracked models again, because pods may belong to other variants now: each in one step.
    pub(crate) fn publish_again(&self) {
        let now = self.clock.now();
        for model in self.models.tracked() {
            self.models.with(&model, |cell| {
                let Some(before) = self.cache.get(&model).filter(|_| cell.tracked.is_some()) else {
                    return;
                };
                let states = before.cold.sources.clone();
                let record = self.publisher(cell, &model, now).record(states, before.last_read());
                self.put(cell, &Arc::new(record), Some(&before));
            });
        }
    }
}

/// How many pods no variant claims.
fn unclaimed(record: &ModelRecord) -> usize {
    let rows = record.value.iter().flat_map(|value| &value.replicas.replicas);
    rows.filter(|row| row.variant_name.is_none()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{StaticDirectory, VariantSpec};
    use collector_core::{
        Allocation, Clock as _, Field, LoadRates, LoadRow, ManualClock, PodName, ReplicaMetrics,
        Replicas,
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
                name: (*name).into(),
                namespace: model.namespace.clone(),
                model: model.model.clone(),
                accelerator: None,
                cost: 10.0,
                pods: (*pods).to_owned(),
                max_batch: None,
                fetch_interval: None,
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

    fn load(pod: Option<&str>, requests: f64) -> LoadRow {
        let rates = LoadRates { requests: Some(requests), ..LoadRates::default() };
        LoadRow::new(pod.map(PodName::from), rates)
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
        sample.load = vec![load(None, 2.0)];
        let published = fixture.publish(Fetched::Found(sample), None);
        assert_eq!(allocation_of(&published, "h100").load.arrival_rate, Some(120.0));

        let mut sample = fixture.sample(&["h-0", "stray"]);
        sample.load = vec![load(None, 2.0)];
        let published = fixture.publish(Fetched::Found(sample.clone()), None);
        let shared = allocation_of(&published, "h100");
        assert_eq!(shared.load.arrival_rate, None);
        let reason = shared.reasons.get(Field::ArrivalRate).unwrap();
        assert_eq!(&**reason, "the model's load is not known pod by pod, and 1 of 2 pods are its");
        assert_eq!(unclaimed(&published), 1);

        sample.load = vec![load(Some("h-0"), 1.5), load(Some("stray"), 0.5)];
        let published = fixture.publish(Fetched::Found(sample), None);
        assert_eq!(allocation_of(&published, "h100").load.arrival_rate, Some(90.0));
    }

    #[test]
    fn a_variant_without_pods_beside_one_with_them_carries_a_known_zero() {
        let fixture = Fixture::new(&[("h100", "h-*"), ("l4", "l-*")]);
        let mut sample = fixture.sample(&["h-0"]);
        sample.load = vec![load(Some("h-0"), 1.0)];
        let published = fixture.publish(Fetched::Found(sample), None);
        let idle = allocation_of(&published, "l4");
        assert_eq!((idle.num_replicas, idle.load.arrival_rate), (0, Some(0.0)));
        assert_eq!(idle.ttft_average, Some(0.0));
    }

    #[test]
    fn replicas_that_an_incomplete_answer_lacks_keep_their_load_too() {
        let fixture = Fixture::new(&[("h100", "h-*"), ("l4", "l-*")]);
        let mut sample = fixture.sample(&["h-0", "h-1"]);
        sample.load = vec![load(Some("h-0"), 1.0), load(Some("h-1"), 1.0)];
        let before = fixture.publish(Fetched::Found(sample), None);
        fixture.clock.advance(Duration::from_secs(30));
        let mut sample = fixture.sample(&["h-0"]);
        sample.load = vec![load(Some("h-0"), 1.0)];
        sample.complete = false;
        let published = fixture.publish(Fetched::Found(sample), Some(&before));
        let allocation = allocation_of(&published, "h100");
        assert_eq!((allocation.num_replicas, allocation.load.arrival_rate), (2, Some(120.0)));
        assert!(allocation.partial);
    }

    #[test]
    fn a_mean_whose_sum_failed_stays_what_it_was_while_the_arrivals_change() {
        let fixture = Fixture::new(&[("h100", "*")]);
        let rates = |requests, prompt_tokens| LoadRates {
            requests: Some(requests),
            prompt_tokens,
            ..LoadRates::default()
        };
        let mut sample = fixture.sample(&["h-0"]);
        sample.load = vec![LoadRow::new(None, rates(2.0, Some(1000.0)))];
        let before = fixture.publish(Fetched::Found(sample), None);
        fixture.clock.advance(Duration::from_secs(30));
        let mut sample = fixture.sample(&["h-0"]);
        sample.load = vec![LoadRow::new(None, rates(4.0, None))];
        sample.failed.insert(Field::AvgInputTokens, "422");
        let published = fixture.publish(Fetched::Found(sample), Some(&before));
        let load = allocation_of(&published, "h100").load;
        assert_eq!((load.arrival_rate, load.avg_input_tokens), (Some(240.0), Some(500.0)));
    }

    #[test]
    fn a_kept_replica_whose_load_query_failed_counts_once() {
        let fixture = Fixture::new(&[("h100", "h-*")]);
        let mut sample = fixture.sample(&["h-0", "h-1"]);
        sample.load = vec![load(Some("h-0"), 1.0), load(Some("h-1"), 1.0)];
        let before = fixture.publish(Fetched::Found(sample), None);
        fixture.clock.advance(Duration::from_secs(30));
        let mut sample = fixture.sample(&["h-0"]);
        sample.complete = false;
        sample.failed.insert(Field::ArrivalRate, "422");
        let published = fixture.publish(Fetched::Found(sample), Some(&before));
        let allocation = allocation_of(&published, "h100");
        assert_eq!((allocation.num_replicas, allocation.load.arrival_rate), (2, Some(120.0)));
    }

    #[test]
    fn a_partial_answer_without_a_variants_pods_is_no_zero() {
        let fixture = Fixture::new(&[("h100", "h-*"), ("l4", "l-*")]);
        let mut sample = fixture.sample(&["h-0"]);
        sample.load = vec![load(Some("h-0"), 1.0)];
        sample.complete = false;
        let published = fixture.publish(Fetched::Found(sample), None);
        assert_eq!(allocation_of(&published, "l4").load.arrival_rate, None);
    }

    fn keeps_the_arrivals_and_takes_the_latency(before_load: Vec<LoadRow>, pods: &[Option<&str>]) {
        let fixture = Fixture::new(&[("h100", "*")]);
        let mut sample = fixture.sample(&["h-0", "h-1"]);
        sample.load = before_load;
        let before = fixture.publish(Fetched::Found(sample), None);
        fixture.clock.advance(Duration::from_secs(30));
        let mut sample = fixture.sample(&["h-0", "h-1"]);
        let rates =
            LoadRates { ttft_seconds: Some(1.0), ttft_count: Some(2.0), ..LoadRates::default() };
        sample.load = pods.iter().map(|pod| LoadRow::new(pod.map(PodName::from), rates)).collect();
        sample.failed.insert(Field::ArrivalRate, "422");
        let published = fixture.publish(Fetched::Found(sample), Some(&before));
        let a = allocation_of(&published, "h100");
        assert_eq!((a.ttft_average, a.load.arrival_rate), (Some(500.0), Some(120.0)));
    }

    #[test]
    fn load_that_was_per_pod_is_kept_for_the_model() {
        keeps_the_arrivals_and_takes_the_latency(
            vec![load(Some("h-0"), 1.0), load(Some("h-1"), 1.0)],
            &[None],
        );
    }

    #[test]
    fn load_that_was_the_models_is_kept_beside_that_of_pods() {
        keeps_the_arrivals_and_takes_the_latency(
            vec![load(None, 2.0)],
            &[Some("h-0"), Some("h-1")],
        );
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
    fn the_mean_of_no_requests_is_not_that_of_new_ones() {
        let fixture = Fixture::new(&[("h100", "*")]);
        let rates = |requests, prompt_tokens| LoadRates {
            requests: Some(requests),
            prompt_tokens,
            ..LoadRates::default()
        };
        let mut sample = fixture.sample(&["h-0"]);
        sample.load = vec![LoadRow::new(None, rates(0.0, Some(0.0)))];
        let before = fixture.publish(Fetched::Found(sample), None);
        fixture.clock.advance(Duration::from_secs(30));
        let mut sample = fixture.sample(&["h-0"]);
        sample.load = vec![LoadRow::new(None, rates(4.0, None))];
        sample.failed.insert(Field::AvgInputTokens, "422");
        let published = fixture.publish(Fetched::Found(sample), Some(&before));
        let load = allocation_of(&published, "h100").load;
        assert_eq!((load.arrival_rate, load.avg_input_tokens), (Some(240.0), None));
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
}
