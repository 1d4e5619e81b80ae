//! From a backend's answer to what is stored: the only place where values are made.
//!
//! Pure: no clock, no lock, no I/O. What it makes is immutable from then on.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Allocation, BackendError, BackendName, CacheKey, Cold, Field, LoadRates, LoadRow, Mark,
    ModelRef, ModelSample, Nearest, Outcome, PodName, ReplicaMetrics, Replicas, SourceAnswer,
    Stored, Tick, Value, Variant, VariantDirectory, VariantName,
};

use crate::carry::carry;
use crate::config::CacheConfig;
use crate::tracker::Tracked;

/// How long an entry survives unread once its value is of no use, and how long a model stays tracked
/// without a read: five minutes, as in the Go collector.
pub(crate) const UNTRACK_AFTER: Duration = Duration::from_secs(300);

/// How long a read past a failed refresh waits before it starts the next one. The circuit breaker
/// covers what is down; this covers what answers with a refusal each time.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// What became of one look at one model.
pub(crate) enum Looked {
    /// It was found.
    Found(ModelSample),
    /// It has no series; these exist, where that was asked.
    Missing(Option<Arc<Nearest>>),
    /// It could not be looked at.
    Failed(Arc<BackendError>),
}

impl Looked {
    /// How the look ended.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Found(_) => Outcome::Found,
            Self::Missing(_) => Outcome::Missing,
            Self::Failed(_) => Outcome::Failed,
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
    pub(crate) directory: &'a dyn VariantDirectory,
    pub(crate) model: &'a ModelRef,
    /// What is known of the model, where it is tracked.
    pub(crate) tracked: Option<&'a Tracked>,
    pub(crate) now: Tick,
}

impl Publisher<'_> {
    /// The entries after a look, given the ones from before it.
    ///
    /// `allocation_before` gives the entry of a variant's allocation from before the look.
    pub(crate) fn publish(
        &self,
        backend: &BackendName,
        looked: Looked,
        before: Option<&Stored>,
        allocation_before: impl Fn(&VariantName) -> Option<Arc<Stored>>,
    ) -> Published {
        match looked {
            Looked::Found(sample) => {
                let former = before.and_then(|stored| answer_of(backend, &stored.cold));
                match former {
                    // An older look never replaces a newer one.
                    Some(former) if former.sample.as_of > sample.as_of => {
                        self.found(former.clone())
                    }
                    _ => self.found(carry(sample, former, backend, self.config, self.now)),
                }
            }
            Looked::Missing(nearest) => {
                let known = || before.and_then(|stored| stored.cold.nearest.clone());
                let cold = Cold {
                    nearest: nearest.or_else(known).or_else(|| Some(Arc::default())),
                    error: None,
                    answered_at: Some(self.now),
                    answers: before.map(|stored| stored.cold.answers.clone()).unwrap_or_default(),
                };
                self.without_value(Outcome::Missing, cold, before, allocation_before)
            }
            Looked::Failed(error) => {
                let cold = before.map(|stored| Cold::clone(&stored.cold)).unwrap_or_default();
                let cold = Cold { error: Some(error), ..cold };
                self.without_value(Outcome::Failed, cold, before, allocation_before)
            }
        }
    }

    /// The entries made anew from the last answer, after the directory has changed; `None` when there
    /// is none.
    pub(crate) fn again(&self, backend: &BackendName, before: &Stored) -> Option<Published> {
        let last = answer_of(backend, &before.cold)?;
        let mut made = self.found(last.clone());
        if before.outcome != Outcome::Found {
            // The value is made anew; what has become of later looks stays as it is.
            let allocations = made.allocations.iter_mut().map(|(_, _, stored)| stored);
            for stored in allocations.chain([&mut made.replicas]) {
                let value = stored.value.clone();
                *stored = Arc::new(Stored { value, ..before.clone() });
            }
        }
        Some(made)
    }

    fn found(&self, answer: SourceAnswer) -> Published {
        let sample = Arc::clone(&answer.sample);
        let backend = answer.backend.clone();
        let arrived_at = answer.arrived_at;
        let load_marks = answer.load_marks.clone();
        let mut rows = sample.replicas.clone();
        let mut unclaimed = 0;
        for row in &mut rows {
            match self.directory.variant_of(self.model, &row.pod_name) {
                Some(variant) => {
                    row.variant_name = Some(variant.name.clone());
                    row.accelerator_name.clone_from(&variant.accelerator);
                    row.cost = variant.cost;
                }
                None => unclaimed += 1,
            }
        }
        fill_token_averages(&mut rows, &sample.load, &load_marks);
        let mut replicas = Replicas::new(self.model.clone(), rows, backend, sample.as_of);
        replicas.partial = !sample.complete;

        let cold = Arc::new(Cold {
            answers: vec![answer],
            error: None,
            nearest: None,
            answered_at: Some(arrived_at),
        });
        let allocations = self
            .kept_variants()
            .into_iter()
            .map(|variant| {
                let allocation = allocation(&variant, &replicas, &sample, &load_marks);
                let value = Value::Allocation(Arc::new(allocation));
                let stored = self.stored(value, Outcome::Found, arrived_at, &cold);
                (self.allocation_key(&variant), variant.name.clone(), stored)
            })
            .collect();
        let value = Value::Replicas(Arc::new(replicas));
        let replicas = self.stored(value, Outcome::Found, arrived_at, &cold);
        Published { replicas, allocations, unclaimed }
    }

    fn without_value(
        &self,
        outcome: Outcome,
        cold: Cold,
        before: Option<&Stored>,
        allocation_before: impl Fn(&VariantName) -> Option<Arc<Stored>>,
    ) -> Published {
        let cold = Arc::new(cold);
        let value_of = |stored: Option<&Stored>| stored.map_or(Value::None, |s| s.value.clone());
        let allocations = self
            .kept_variants()
            .into_iter()
            .map(|variant| {
                let value = value_of(allocation_before(&variant.name).as_deref());
                let stored = self.stored(value, outcome, self.now, &cold);
                (self.allocation_key(&variant), variant.name.clone(), stored)
            })
            .collect();
        Published {
            replicas: self.stored(value_of(before), outcome, self.now, &cold),
            allocations,
            unclaimed: 0,
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
        CacheKey::allocation(self.model, &variant.name, variant.accelerator.clone())
    }

    fn stored(
        &self,
        value: Value,
        outcome: Outcome,
        arrived_at: Tick,
        cold: &Arc<Cold>,
    ) -> Arc<Stored> {
        let oldest = value_oldest(&value);
        let refresh_after = arrived_at
            + match outcome {
                Outcome::Found => self.config.ttl,
                Outcome::Missing => self.config.missing_ttl,
                Outcome::Failed => PAUSE_AFTER_FAILURE,
            };
        let keep_until = match oldest {
            // A configured model remembers for as long as it is one.
            _ if self.tracked.is_some_and(|tracked| tracked.pinned) => Tick::MAX,
            Some(oldest) => oldest + self.config.freshness.unavailable_threshold,
            None => refresh_after,
        };
        // The news that a name is misspelt is forgotten soon after it was last asked for.
        let keep_unread = if oldest.is_none() { self.config.missing_ttl } else { UNTRACK_AFTER };
        Arc::new(Stored {
            value,
            outcome,
            refresh_after,
            keep_until,
            keep_unread,
            cold: Arc::clone(cold),
        })
    }
}

fn answer_of<'a>(backend: &BackendName, cold: &'a Cold) -> Option<&'a SourceAnswer> {
    cold.answers.iter().find(|answer| answer.backend == *backend)
}

fn value_oldest(value: &Value) -> Option<Tick> {
    match value {
        Value::None => None,
        Value::Replicas(replicas) => Some(replicas.oldest),
        Value::Allocation(allocation) => Some(allocation.oldest),
    }
}

/// Gives each replica the token averages of its own load row, or of the model where the load is
/// known for the model alone.
fn fill_token_averages(rows: &mut [ReplicaMetrics], load: &[LoadRow], load_marks: &[Mark]) {
    for row in rows {
        let own = load.iter().find(|load| load.pod.as_ref() == Some(&row.pod_name));
        let of_model = load.iter().find(|load| load.pod.is_none());
        let load = match (own, of_model) {
            (Some(own), Some(of_model)) => own.rates.or(of_model.rates),
            (Some(one), None) | (None, Some(one)) => one.rates,
            (None, None) => continue,
        }
        .load();
        for (field, average, place) in [
            (Field::AvgInputTokens, load.avg_input_tokens, &mut row.avg_input_tokens),
            (Field::AvgOutputTokens, load.avg_output_tokens, &mut row.avg_output_tokens),
        ] {
            if place.is_none() && average.is_some() {
                *place = average;
                // A mean is as old as the older of its two halves.
                let mark = load_marks
                    .iter()
                    .filter(|mark| mark.field == field || mark.field == Field::ArrivalRate)
                    .min_by_key(|mark| mark.sampled_at);
                row.marks.extend(mark.map(|mark| Mark { field, ..mark.clone() }));
            }
        }
    }
}

fn allocation(
    variant: &Variant,
    replicas: &Replicas,
    sample: &ModelSample,
    load_marks: &[Mark],
) -> Allocation {
    let of_variant = |row: &&ReplicaMetrics| row.variant_name.as_ref() == Some(&variant.name);
    let own: Vec<&ReplicaMetrics> = replicas.replicas.iter().filter(of_variant).collect();
    let rates = variant_rates(&own, replicas, &sample.load);
    let sampled = own.iter().map(|row| row.sampled_at).min().unwrap_or(sample.as_of);
    let oldest = load_marks.iter().map(|mark| mark.sampled_at).min().unwrap_or(sampled);
    let mut allocation = Allocation::new(
        replicas.model.clone(),
        variant.name.clone(),
        u32::try_from(own.len()).unwrap_or(u32::MAX),
        replicas.backend.clone(),
        sampled.min(oldest),
    );
    allocation.accelerator.clone_from(&variant.accelerator);
    allocation.max_batch = variant.max_batch;
    allocation.partial = replicas.partial;
    allocation.marks = load_marks.to_vec();
    if let Some(rates) = rates {
        allocation.load = rates.load();
        allocation.itl_average = rates.itl_average();
        allocation.ttft_average = rates.ttft_average();
    }
    allocation
}

/// The rates of one variant: the sum of its pods' where they are known per pod, and the model's
/// where the variant has all of the model's replicas. A share of the model's load cannot be guessed:
/// it is unknown.
fn variant_rates(
    own: &[&ReplicaMetrics],
    replicas: &Replicas,
    load: &[LoadRow],
) -> Option<LoadRates> {
    let is_own = |pod: &PodName| own.iter().any(|replica| replica.pod_name == *pod);
    let per_pod = load
        .iter()
        .filter(|row| row.pod.as_ref().is_some_and(is_own))
        .map(|row| row.rates)
        .reduce(LoadRates::plus);
    let of_model = load.iter().find(|row| row.pod.is_none()).map(|row| row.rates);
    if own.len() == replicas.replicas.len() {
        // Where a field was kept from a look at the model as a whole, its pods lack it.
        return match (per_pod, of_model) {
            (Some(per_pod), Some(of_model)) => Some(per_pod.or(of_model)),
            (one, None) | (None, one) => one,
        };
    }
    // A variant without pods carries nothing, whoever carries the rest; but only when it is known
    // that it has none.
    let others = replicas.replicas.iter().all(|replica| replica.variant_name.is_some());
    let none = own.is_empty() && others && !replicas.partial;
    per_pod.or(none.then_some(LoadRates::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{StaticDirectory, VariantSpec};
    use collector_core::{Clock as _, ManualClock};

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
            };
            Self {
                config: CacheConfig::default(),
                directory: StaticDirectory::new(variants.iter().map(spec).collect()).unwrap(),
                model: model.clone(),
                clock: ManualClock::new(),
            }
        }

        fn publish(&self, looked: Looked, before: Option<&Stored>) -> Published {
            let publisher = Publisher {
                config: &self.config,
                directory: &self.directory,
                model: &self.model,
                tracked: None,
                now: self.clock.now(),
            };
            publisher.publish(&"test".into(), looked, before, |_| None)
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
        LoadRow { pod: pod.map(PodName::from), rates }
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
        assert_eq!(allocation_of(&published, "h100").load.arrival_rate, None);
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
        sample.complete = false;
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
        sample.load = vec![LoadRow { pod: None, rates: rates(2.0, Some(1000.0)) }];
        let before = bench.publish(Looked::Found(sample), None);
        bench.clock.advance(Duration::from_secs(30));
        let mut sample = bench.sample(&["h-0"]);
        sample.load = vec![LoadRow { pod: None, rates: rates(4.0, None) }];
        sample.failed.insert(Field::AvgInputTokens);
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
        sample.complete = false;
        sample.failed.insert(Field::ArrivalRate);
        let published = bench.publish(Looked::Found(sample), Some(&before.replicas));
        let allocation = allocation_of(&published, "h100");
        assert_eq!((allocation.num_replicas, allocation.load.arrival_rate), (2, Some(120.0)));
    }

    #[test]
    fn a_partial_answer_without_a_variants_pods_is_no_zero() {
        let bench = Bench::new(&[("h100", "h-*"), ("l4", "l-*")]);
        let mut sample = bench.sample(&["h-0"]);
        sample.load = vec![load(Some("h-0"), 1.0)];
        sample.complete = false;
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
        sample.load =
            pods.iter().map(|pod| LoadRow { pod: pod.map(PodName::from), rates }).collect();
        sample.failed.insert(Field::ArrivalRate);
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
        sample.load = vec![LoadRow { pod: None, rates: rates(0.0, Some(0.0)) }];
        let before = bench.publish(Looked::Found(sample), None);
        bench.clock.advance(Duration::from_secs(30));
        let mut sample = bench.sample(&["h-0"]);
        sample.load = vec![LoadRow { pod: None, rates: rates(4.0, None) }];
        sample.failed.insert(Field::AvgInputTokens);
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
        let after = bench.publish(Looked::Failed(error), Some(&before.replicas));
        assert_eq!(replicas(&after), replicas(&before));
        assert_eq!(after.replicas.outcome, Outcome::Failed);
        assert_eq!(after.replicas.keep_until, before.replicas.keep_until);
    }
}
