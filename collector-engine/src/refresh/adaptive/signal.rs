// SPDX-License-Identifier: Apache-2.0
//! What an autoscaler decides by, taken from a reading, and how far two of them are apart.
//!
//! Differences are shares from 0 to 1, so that quantities of different kinds can be compared: of each,
//! 1 is the most that it can be wrong by. A difference of 0.1 of the KV-cache usage is the spare capacity
//! at which the llm-d Workload Variant Autoscaler adds a replica by default (`kvSpareTrigger`).

use collector_core::{LoadRows, ReplicaMetrics, Replicas};

/// Waiting requests of one replica at which the Workload Variant Autoscaler calls it saturated by default
/// (`queueLengthThreshold`). Fewer requests than this on a replica are no batch to compare with.
const BATCH_OF_NOTE: f32 = 5.0;

/// Requests a minute that are no load to compare with: one a second.
const ARRIVALS_OF_NOTE: f32 = 60.0;

/// A quantity whose changes count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quantity {
    /// Mean KV-cache usage over the replicas, in absolute points.
    KvCacheUsage,
    /// The share of a model's requests that wait, in absolute points.
    QueueLength,
    /// Requests running on all replicas, relative, beyond chance.
    RunningRequests,
    /// Requests that arrive, relative, beyond chance.
    ArrivalRate,
    /// How many replicas there are, relative.
    Replicas,
}

impl Quantity {
    /// Every quantity; of two that moved by the same share the first is named.
    pub const ALL: [Self; 5] = [
        Self::KvCacheUsage,
        Self::QueueLength,
        Self::RunningRequests,
        Self::ArrivalRate,
        Self::Replicas,
    ];

    /// The name in JSON of the field that it is taken from.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KvCacheUsage => "kvCacheUsage",
            Self::QueueLength => "queueLength",
            Self::RunningRequests => "runningRequests",
            Self::ArrivalRate => "arrivalRatePerMinute",
            Self::Replicas => "replicas",
        }
    }
}

/// The quantities of one fetch whose changes count. What was not measured is unknown.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Signal {
    replicas: f32,
    /// NaN where unknown, as in all below: a model has two signals for as long as it is tracked.
    usage: f32,
    waiting: f32,
    running: f32,
    arrivals: f32,
}

impl Signal {
    /// Nothing is known.
    pub(crate) const UNKNOWN: Self = Self {
        replicas: f32::NAN,
        usage: f32::NAN,
        waiting: f32::NAN,
        running: f32::NAN,
        arrivals: f32::NAN,
    };

    /// So many replicas with this mean KV-cache usage (0 to 1), waiting and running requests in all, and
    /// requests a minute.
    #[expect(clippy::cast_possible_truncation, reason = "half the size, and exact enough")]
    pub fn new(
        replicas: u32,
        kv_cache_usage: Option<f64>,
        queue_length: Option<f64>,
        running_requests: Option<f64>,
        arrival_rate: Option<f64>,
    ) -> Self {
        let known = |value: Option<f64>| value.map_or(f32::NAN, |value| value as f32);
        Self {
            replicas: f64::from(replicas) as f32,
            usage: known(kv_cache_usage),
            waiting: known(queue_length),
            running: known(running_requests),
            arrivals: known(arrival_rate),
        }
    }

    /// The signal of a reading: of its replicas, and of the load from the same fetch.
    ///
    /// A quantity that only some replicas have is unknown, or a replica that stops reporting would pass for
    /// one that empties.
    pub fn of(replicas: &Replicas, load: &LoadRows) -> Self {
        let rows = &replicas.replicas;
        let sum = |count: fn(&ReplicaMetrics) -> Option<u64>| {
            rows.iter().map(|row| count(row).map(|count| count as f64)).sum::<Option<f64>>()
        };
        let usage: Option<f64> = rows.iter().map(|row| row.kv_cache_usage).sum();
        let requests = load.iter().map(|row| row.rates.requests);
        let arrivals = requests.sum::<Option<f64>>().filter(|_| !load.is_empty());
        Self::new(
            u32::try_from(rows.len()).unwrap_or(u32::MAX),
            usage.filter(|_| !rows.is_empty()).map(|sum| sum / rows.len() as f64),
            sum(|row| row.queue_length),
            sum(|row| row.running_requests),
            arrivals.map(|per_second| per_second * 60.0),
        )
    }

    /// How far this signal is from `present` in each quantity, in the order of [`Quantity::ALL`]; 0 where
    /// one of them is unknown.
    pub(crate) fn differences(&self, present: &Self) -> [f32; Quantity::ALL.len()] {
        let batch = self.replicas.max(present.replicas) * BATCH_OF_NOTE;
        let apart = [
            (self.usage - present.usage).abs(),
            (self.waiting_share(batch) - present.waiting_share(batch)).abs(),
            beyond_chance(self.running, present.running, batch),
            beyond_chance(self.arrivals, present.arrivals, ARRIVALS_OF_NOTE),
            (self.replicas - present.replicas).abs() / self.replicas.max(present.replicas).max(1.0),
        ];
        apart.map(|share| if share.is_finite() { share.min(1.0) } else { 0.0 })
    }

    /// The greatest of the differences: how wrong this signal is, if it were used instead of `present`.
    pub fn error(&self, present: &Self) -> f64 {
        self.differences(present).into_iter().fold(0.0, f32::max).into()
    }

    /// The share of the model's requests that wait. A batch that is unknown counts as a small one.
    fn waiting_share(&self, least_batch: f32) -> f32 {
        let batch = self.running.max(least_batch);
        if self.waiting > 0.0 { self.waiting / (self.waiting + batch) } else { self.waiting }
    }
}

/// The difference of two counts of independent requests as a share of the greater one, or of `of_note`
/// where both are small. A count of n is off by the root of n by chance alone (Poisson), and that much of
/// a difference means nothing.
fn beyond_chance(a: f32, b: f32, of_note: f32) -> f32 {
    let difference = (a - b).abs();
    if difference.is_nan() {
        return difference;
    }
    let greater = a.max(b);
    (difference - greater.sqrt()).max(0.0) / greater.max(of_note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_core::{LoadRates, ModelRef, Tick};

    const KNOWN: [f64; 4] = [0.4, 0.0, 100.0, 400.0];

    fn signal(replicas: u32, [usage, waiting, running, arrivals]: [f64; 4]) -> Signal {
        Signal::new(replicas, Some(usage), Some(waiting), Some(running), Some(arrivals))
    }

    #[track_caller]
    fn check(present: Signal, quantity: Quantity, expected: f32) {
        let signal = signal(2, KNOWN);
        for differences in [signal.differences(&present), present.differences(&signal)] {
            let index = Quantity::ALL.iter().position(|each| *each == quantity).unwrap();
            assert!((differences[index] - expected).abs() < 1e-6, "{differences:?}");
        }
    }

    #[test]
    fn each_quantity_has_its_own_scale() {
        check(signal(2, [0.55, 0.0, 100.0, 400.0]), Quantity::KvCacheUsage, 0.15);
        // A hundred wait and a hundred run.
        check(signal(2, [0.4, 100.0, 100.0, 400.0]), Quantity::QueueLength, 0.5);
        check(signal(2, [0.4, 0.0, 64.0, 400.0]), Quantity::RunningRequests, 0.26);
        check(signal(2, [0.4, 0.0, 100.0, 100.0]), Quantity::ArrivalRate, 0.7);
        check(signal(3, KNOWN), Quantity::Replicas, 1.0 / 3.0);
    }

    #[test]
    fn a_few_requests_are_compared_with_a_batch_of_note() {
        // Five on each of two replicas; of four requests two are chance.
        let few = |running, waiting| signal(2, [0.0, waiting, running, 0.0]);
        let [_, queue, running, ..] = few(4.0, 10.0).differences(&few(0.0, 0.0));
        assert_eq!((queue, running), (0.5, 0.2));
        let none = signal(0, [0.0; 4]);
        assert!(none.error(&none).abs() < 1e-12);
    }

    #[test]
    fn an_unknown_value_differs_from_nothing() {
        let known = signal(2, KNOWN);
        let unknown = Signal::new(2, None, None, None, None);
        let no_numbers = signal(2, [f64::NAN; 4]);
        for present in [unknown, no_numbers, Signal::UNKNOWN] {
            assert!(known.error(&present).abs() < 1e-12);
            assert!(present.error(&known).abs() < 1e-12);
        }
        // A queue over a batch that is unknown still counts.
        let queue = Signal::new(2, None, Some(10.0), None, None);
        check(queue, Quantity::QueueLength, 0.5);
    }

    #[test]
    fn a_change_that_chance_alone_makes_of_a_count_is_none() {
        check(signal(2, [0.4, 0.0, 91.0, 400.0]), Quantity::RunningRequests, 0.0);
        let one = Signal::new(0, None, None, Some(1.0), None);
        assert!(Signal::new(0, None, None, Some(0.0), None).error(&one).abs() < 1e-12);
    }

    #[test]
    fn a_quantity_that_some_replicas_do_not_report_is_unknown() {
        let mut one = ReplicaMetrics::new("a", Tick::MIN);
        one.kv_cache_usage = Some(0.2);
        one.queue_length = Some(3);
        let mut other = ReplicaMetrics::new("b", Tick::MIN);
        other.kv_cache_usage = Some(0.6);
        let model = ModelRef::new("m", "n");
        let replicas = Replicas::new(model, vec![one, other], "test".into(), Tick::MIN);
        let rates = |requests: Option<f64>| LoadRates::ZERO.with_requests(requests);
        let pods = |a, b| -> LoadRows {
            [("a", a), ("b", b)]
                .map(|(pod, of)| (pod.into(), rates(of).into()))
                .into_iter()
                .collect()
        };

        let read = Signal::of(&replicas, &pods(Some(1.0), Some(2.0)));
        assert_eq!((read.replicas, read.usage, read.arrivals), (2.0, 0.4, 180.0));
        assert!(read.waiting.is_nan());

        assert!(Signal::of(&replicas, &pods(Some(1.0), None)).arrivals.is_nan());
        assert!(Signal::of(&replicas, &LoadRows::None).arrivals.is_nan());
        let of_model = LoadRows::Model(rates(Some(5.0)).into());
        assert!((Signal::of(&replicas, &of_model).arrivals - 300.0).abs() < 1e-6);
    }
}
