//! From what backends answer to what is stored: the only place where values are made.
//!
//! Pure: no clock, no lock, no I/O. What it makes is immutable from then on. An entry's value follows
//! from what each source last said and from the directory alone, so that it can be made again at any
//! time, by whichever of the sources brings something new.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    BackendError, BackendName, CacheKey, Cold, ModelRef, ModelSample, Nearest, Outcome,
    SourceState, Stored, Tick, Value, Variant, VariantDirectory, VariantName,
};

use crate::carry::carry;
use crate::config::CacheConfig;
use crate::merge::{self, View};
use crate::pace::Pace;
use crate::tracker::Tracked;

/// How long an entry survives unread once its value is of no use, and how long a model stays tracked
/// without a read: five minutes, as in the Go collector.
pub(crate) const UNTRACK_AFTER: Duration = Duration::from_secs(300);

/// How long a read past a failed refresh waits before it starts the next one. The circuit breaker
/// covers what is down; this covers what answers with a refusal each time.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// What became of one look of one source at one model.
pub(crate) enum Looked {
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

impl Looked {
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

/// The entries of one model: its replicas, and the allocation of each variant that is kept.
pub(crate) struct Published {
    pub(crate) replicas: Arc<Stored>,
    pub(crate) allocations: Vec<(CacheKey, VariantName, Arc<Stored>)>,
    /// Pods that no variant claims.
    pub(crate) unclaimed: usize,
}

/// Makes entries.
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
    /// The entries after a look of one source, given what all of them said before it.
    pub(crate) fn publish(
        &self,
        backend: &BackendName,
        looked: Looked,
        before: &[SourceState],
    ) -> Published {
        let former = before.iter().find(|state| state.backend == *backend);
        let mut states = vec![self.after(backend, looked, former)];
        states.extend(before.iter().filter(|state| state.backend != *backend).cloned());
        self.entries(states)
    }

    /// What a source has said, after one more look.
    fn after(
        &self,
        backend: &BackendName,
        looked: Looked,
        former: Option<&SourceState>,
    ) -> SourceState {
        // A clock that is ahead makes nothing younger than now.
        let as_of = looked.as_of().min(self.now);
        if let Some(former) = former
            && former.as_of.is_some_and(|newer| newer > as_of)
        {
            // An older look never replaces a newer one, however it ended.
            return former.clone();
        }
        let former_answer = former.and_then(|state| state.answer.as_ref());
        let state = SourceState {
            backend: backend.clone(),
            outcome: looked.outcome(),
            ended_at: self.now,
            answered_at: Some(self.now),
            as_of: Some(as_of),
            answer: former_answer.cloned(),
            error: None,
            nearest: None,
        };
        match looked {
            Looked::Found(sample) => {
                let answer = carry(sample, former_answer, backend, self.config, self.now);
                SourceState { answer: Some(answer), ..state }
            }
            Looked::Missing { nearest, .. } => {
                let known = || former.and_then(|state| state.nearest.clone());
                SourceState { nearest: nearest.or_else(known), ..state }
            }
            Looked::Failed { error, .. } => SourceState {
                answered_at: former.and_then(|state| state.answered_at),
                as_of: former.and_then(|state| state.as_of),
                error: Some(error),
                ..state
            },
        }
    }

    /// The entries that follow from what each source last said.
    pub(crate) fn entries(&self, states: Vec<SourceState>) -> Published {
        let cold = self.cold(states);
        let outcome = self.outcome(&cold.sources);
        let variants = self.kept_variants();
        let views = self.views(&cold.sources);
        let thresholds = &self.config.freshness;
        let merged = merge::replicas(self.model, &views, thresholds, self.now);
        let Some(replicas) = merged else {
            let nothing = || self.stored(Value::None, outcome, &cold);
            let allocation = |variant: &Arc<Variant>| {
                (self.allocation_key(variant), variant.name.clone(), nothing())
            };
            let allocations = variants.iter().map(allocation).collect();
            return Published { replicas: nothing(), allocations, unclaimed: 0 };
        };
        let unclaimed = replicas.replicas.iter().filter(|row| row.variant_name.is_none()).count();
        let allocations = variants
            .iter()
            .map(|variant| {
                let value = merge::allocation(variant, &replicas, &views, thresholds, self.now);
                let stored = self.stored(Value::Allocation(Arc::new(value)), outcome, &cold);
                (self.allocation_key(variant), variant.name.clone(), stored)
            })
            .collect();
        let value = Value::Replicas(Arc::new(replicas));
        Published { replicas: self.stored(value, outcome, &cold), allocations, unclaimed }
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

    fn allocation_key(&self, variant: &Variant) -> CacheKey {
        CacheKey::allocation(self.model, &variant.name, variant.accelerator.as_ref())
    }

    fn stored(&self, value: Value, outcome: Outcome, cold: &Arc<Cold>) -> Arc<Stored> {
        let oldest = match &value {
            Value::None => None,
            Value::Replicas(replicas) => Some(replicas.oldest),
            Value::Allocation(allocation) => Some(allocation.oldest),
        };
        let of_outcome = cold.sources.iter().filter(|state| state.outcome == outcome);
        let due = of_outcome.map(|state| next_look(state, self.pace));
        let current_until = due.clone().max().unwrap_or(self.now + PAUSE_AFTER_FAILURE);
        let refresh_after = match outcome {
            // One source that pushes all the time does not make up for another that is only asked.
            Outcome::Found => due.min().unwrap_or(current_until),
            Outcome::Missing | Outcome::Failed => current_until,
        };
        let keep_until = match oldest {
            // A configured model remembers for as long as it is one.
            _ if self.tracked.is_some_and(|tracked| tracked.pinned) => Tick::MAX,
            Some(oldest) => oldest + self.config.freshness.unavailable_threshold,
            None => current_until,
        };
        // The news that a name is misspelt is forgotten soon after it was last asked for.
        let keep_unread = if oldest.is_none() { self.pace.missing_ttl } else { UNTRACK_AFTER };
        Arc::new(Stored {
            value,
            outcome,
            current_until,
            refresh_after,
            keep_until,
            keep_unread,
            tracked: self.tracked.is_some(),
            cold: Arc::clone(cold),
        })
    }
}

/// When a source is to be looked at again, if nobody does so before.
pub(crate) fn next_look(state: &SourceState, pace: Pace) -> Tick {
    state.ended_at
        + match state.outcome {
            Outcome::Found => pace.ttl,
            Outcome::Missing => pace.missing_ttl,
            Outcome::Failed => PAUSE_AFTER_FAILURE,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{StaticDirectory, VariantSpec};
    use collector_core::{
        Absent, Allocation, Clock as _, Field, LoadRates, LoadRow, ManualClock, PodName,
        ReplicaMetrics, Replicas,
    };

    struct Bench {
        config: CacheConfig,
        directory: StaticDirectory,
        model: ModelRef,
        clock: ManualClock,
    }

    impl Bench {
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

        fn publish(&self, looked: Looked, before: Option<&Arc<Stored>>) -> Published {
            let publisher = Publisher {
                config: &self.config,
                pace: Pace::of(&self.config),
                directory: &self.directory,
                sources: &["test".into()],
                model: &self.model,
                tracked: None,
                now: self.clock.now(),
            };
            let before = before.map(|stored| stored.cold.sources.as_slice()).unwrap_or_default();
            publisher.publish(&"test".into(), looked, before)
        }

        fn sample(&self, pods: &[&str]) -> ModelSample {
            let now = self.clock.now();
            ModelSample::new(now, pods.iter().map(|pod| ReplicaMetrics::new(*pod, now)).collect())
        }
    }

    fn replicas(published: &Published) -> Arc<Replicas> {
        match &published.replicas.value {
            Value::Replicas(replicas) => Arc::clone(replicas),
            other => panic!("{other:?}"),
        }
    }

    fn allocation_of(published: &Published, variant: &str) -> Arc<Allocation> {
        let found = published.allocations.iter().find(|(_, name, _)| name.as_str() == variant);
        match &found.unwrap().2.value {
            Value::Allocation(allocation) => Arc::clone(allocation),
            other => panic!("{other:?}"),
        }
    }

    fn load(pod: Option<&str>, requests: f64) -> LoadRow {
        let rates = LoadRates { requests: Some(requests), ..LoadRates::default() };
        LoadRow::new(pod.map(PodName::from), rates)
    }

    #[test]
    fn an_older_look_never_replaces_a_newer_one() {
        let bench = Bench::new(&[]);
        let old = bench.sample(&["a"]);
        bench.clock.advance(Duration::from_secs(1));
        let newer = bench.publish(Looked::Found(bench.sample(&["a", "b"])), None);
        let after = bench.publish(Looked::Found(old), Some(&newer.replicas));
        assert_eq!(replicas(&after).replicas.len(), 2);
    }

    #[test]
    fn what_cannot_be_true_is_never_published() {
        let bench = Bench::new(&[]);
        let mut sample = bench.sample(&["a", "a"]);
        sample.replicas[0].kv_cache_usage = Some(f64::NAN);
        let published = replicas(&bench.publish(Looked::Found(sample), None));
        assert_eq!(published.replicas.len(), 1);
        assert_eq!(published.replicas[0].kv_cache_usage, None);
        assert!(published.replicas[0].reasons.contains(Field::KvCacheUsage));
    }

    #[test]
    fn a_sample_from_the_future_is_from_now() {
        let bench = Bench::new(&[]);
        let mut sample = bench.sample(&["a"]);
        sample.replicas[0].sampled_at = bench.clock.now() + Duration::from_secs(3600);
        let published = bench.publish(Looked::Found(sample), None);
        assert_eq!(replicas(&published).oldest, bench.clock.now());
    }

    #[test]
    fn the_models_load_belongs_to_a_variant_only_when_all_its_pods_do() {
        let bench = Bench::new(&[("h100", "h-*")]);
        let mut sample = bench.sample(&["h-0", "h-1"]);
        sample.load = vec![load(None, 2.0)];
        let published = bench.publish(Looked::Found(sample), None);
        assert_eq!(allocation_of(&published, "h100").load.arrival_rate, Some(120.0));

        let mut sample = bench.sample(&["h-0", "stray"]);
        sample.load = vec![load(None, 2.0)];
        let published = bench.publish(Looked::Found(sample.clone()), None);
        let shared = allocation_of(&published, "h100");
        assert_eq!(shared.load.arrival_rate, None);
        let reason = shared.reasons.get(Field::ArrivalRate).unwrap();
        assert_eq!(&**reason, "the model's load is not known pod by pod, and 1 of 2 pods are its");
        assert_eq!(published.unclaimed, 1);

        sample.load = vec![load(Some("h-0"), 1.5), load(Some("stray"), 0.5)];
        let published = bench.publish(Looked::Found(sample), None);
        assert_eq!(allocation_of(&published, "h100").load.arrival_rate, Some(90.0));
    }

    #[test]
    fn a_variant_without_pods_beside_one_with_them_carries_a_known_zero() {
        let bench = Bench::new(&[("h100", "h-*"), ("l4", "l-*")]);
        let mut sample = bench.sample(&["h-0"]);
        sample.load = vec![load(Some("h-0"), 1.0)];
        let published = bench.publish(Looked::Found(sample), None);
        let idle = allocation_of(&published, "l4");
        assert_eq!((idle.num_replicas, idle.load.arrival_rate), (0, Some(0.0)));
        assert_eq!(idle.ttft_average, Some(0.0));
    }

    #[test]
    fn replicas_that_an_incomplete_answer_lacks_keep_their_load_too() {
        let bench = Bench::new(&[("h100", "h-*"), ("l4", "l-*")]);
        let mut sample = bench.sample(&["h-0", "h-1"]);
        sample.load = vec![load(Some("h-0"), 1.0), load(Some("h-1"), 1.0)];
        let before = bench.publish(Looked::Found(sample), None);
        bench.clock.advance(Duration::from_secs(30));
        let mut sample = bench.sample(&["h-0"]);
        sample.load = vec![load(Some("h-0"), 1.0)];
        sample.absent = Absent::Unknown(None);
        let published = bench.publish(Looked::Found(sample), Some(&before.replicas));
        let allocation = allocation_of(&published, "h100");
        assert_eq!((allocation.num_replicas, allocation.load.arrival_rate), (2, Some(120.0)));
        assert!(allocation.partial);
    }

    #[test]
    fn a_mean_whose_sum_failed_stays_what_it_was_while_the_arrivals_change() {
        let bench = Bench::new(&[("h100", "*")]);
        let rates = |requests, prompt_tokens| LoadRates {
            requests: Some(requests),
            prompt_tokens,
            ..LoadRates::default()
        };
        let mut sample = bench.sample(&["h-0"]);
        sample.load = vec![LoadRow::new(None, rates(2.0, Some(1000.0)))];
        let before = bench.publish(Looked::Found(sample), None);
        bench.clock.advance(Duration::from_secs(30));
        let mut sample = bench.sample(&["h-0"]);
        sample.load = vec![LoadRow::new(None, rates(4.0, None))];
        sample.failed.insert(Field::AvgInputTokens, "422");
        let published = bench.publish(Looked::Found(sample), Some(&before.replicas));
        let load = allocation_of(&published, "h100").load;
        assert_eq!((load.arrival_rate, load.avg_input_tokens), (Some(240.0), Some(500.0)));
    }

    #[test]
    fn a_kept_replica_whose_load_query_failed_counts_once() {
        let bench = Bench::new(&[("h100", "h-*")]);
        let mut sample = bench.sample(&["h-0", "h-1"]);
        sample.load = vec![load(Some("h-0"), 1.0), load(Some("h-1"), 1.0)];
        let before = bench.publish(Looked::Found(sample), None);
        bench.clock.advance(Duration::from_secs(30));
        let mut sample = bench.sample(&["h-0"]);
        sample.absent = Absent::Unknown(None);
        sample.failed.insert(Field::ArrivalRate, "422");
        let published = bench.publish(Looked::Found(sample), Some(&before.replicas));
        let allocation = allocation_of(&published, "h100");
        assert_eq!((allocation.num_replicas, allocation.load.arrival_rate), (2, Some(120.0)));
    }

    #[test]
    fn a_partial_answer_without_a_variants_pods_is_no_zero() {
        let bench = Bench::new(&[("h100", "h-*"), ("l4", "l-*")]);
        let mut sample = bench.sample(&["h-0"]);
        sample.load = vec![load(Some("h-0"), 1.0)];
        sample.absent = Absent::Unknown(None);
        let published = bench.publish(Looked::Found(sample), None);
        assert_eq!(allocation_of(&published, "l4").load.arrival_rate, None);
    }

    fn keeps_the_arrivals_and_takes_the_latency(before_load: Vec<LoadRow>, pods: &[Option<&str>]) {
        let bench = Bench::new(&[("h100", "*")]);
        let mut sample = bench.sample(&["h-0", "h-1"]);
        sample.load = before_load;
        let before = bench.publish(Looked::Found(sample), None);
        bench.clock.advance(Duration::from_secs(30));
        let mut sample = bench.sample(&["h-0", "h-1"]);
        let rates =
            LoadRates { ttft_seconds: Some(1.0), ttft_count: Some(2.0), ..LoadRates::default() };
        sample.load = pods.iter().map(|pod| LoadRow::new(pod.map(PodName::from), rates)).collect();
        sample.failed.insert(Field::ArrivalRate, "422");
        let published = bench.publish(Looked::Found(sample), Some(&before.replicas));
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
    fn a_look_from_the_future_is_from_now() {
        let bench = Bench::new(&[]);
        let mut sample = bench.sample(&[]);
        sample.as_of = bench.clock.now() + Duration::from_secs(3600);
        let first = bench.publish(Looked::Found(sample), None);
        bench.clock.advance(Duration::from_secs(600));
        let second = bench.publish(Looked::Found(bench.sample(&["a"])), Some(&first.replicas));
        assert_eq!(replicas(&second).replicas.len(), 1);
    }

    #[test]
    fn the_mean_of_no_requests_is_not_that_of_new_ones() {
        let bench = Bench::new(&[("h100", "*")]);
        let rates = |requests, prompt_tokens| LoadRates {
            requests: Some(requests),
            prompt_tokens,
            ..LoadRates::default()
        };
        let mut sample = bench.sample(&["h-0"]);
        sample.load = vec![LoadRow::new(None, rates(0.0, Some(0.0)))];
        let before = bench.publish(Looked::Found(sample), None);
        bench.clock.advance(Duration::from_secs(30));
        let mut sample = bench.sample(&["h-0"]);
        sample.load = vec![LoadRow::new(None, rates(4.0, None))];
        sample.failed.insert(Field::AvgInputTokens, "422");
        let published = bench.publish(Looked::Found(sample), Some(&before.replicas));
        let load = allocation_of(&published, "h100").load;
        assert_eq!((load.arrival_rate, load.avg_input_tokens), (Some(240.0), None));
    }

    #[test]
    fn a_failed_look_changes_no_value() {
        let bench = Bench::new(&[]);
        let before = bench.publish(Looked::Found(bench.sample(&["a"])), None);
        bench.clock.advance(Duration::from_secs(30));
        let kind = collector_core::ErrorKind::Timeout;
        let operation = collector_core::Operation::Fetch;
        let error = Arc::new(BackendError::new(kind, "test".into(), operation, "x"));
        let failed = Looked::Failed { began: bench.clock.now(), error };
        let after = bench.publish(failed, Some(&before.replicas));
        assert_eq!(replicas(&after), replicas(&before));
        assert_eq!(after.replicas.outcome, Outcome::Failed);
        assert_eq!(after.replicas.keep_until, before.replicas.keep_until);
        let last_heard = |published: &Published| {
            let state = &published.replicas.cold.sources[0];
            (state.answered_at, state.as_of)
        };
        assert_eq!(last_heard(&after), last_heard(&before));
    }

    #[test]
    fn of_two_looks_of_the_same_moment_the_later_one_counts() {
        let bench = Bench::new(&[]);
        let first = bench.publish(Looked::Found(bench.sample(&["a"])), None);
        let sample = bench.sample(&["a", "b"]);
        let second = bench.publish(Looked::Found(sample), Some(&first.replicas));
        assert_eq!(replicas(&second).replicas.len(), 2);
        assert_eq!(second.replicas.keep_until, bench.clock.now() + Duration::from_secs(300));
    }

    #[test]
    fn what_one_of_two_sources_has_not_is_asked_for_again_after_a_pause() {
        let bench = Bench::new(&[]);
        let now = bench.clock.now();
        let publisher = Publisher {
            config: &bench.config,
            pace: Pace::of(&bench.config),
            directory: &bench.directory,
            sources: &["test".into(), "other".into()],
            model: &bench.model,
            tracked: None,
            now,
        };
        let missing = Looked::Missing { as_of: now, nearest: None };
        let stored = publisher.publish(&"test".into(), missing, &[]).replicas;
        assert_eq!(stored.outcome, Outcome::Failed, "the other has not said anything");
        assert_eq!(stored.current_until, now + PAUSE_AFTER_FAILURE);
    }
}
