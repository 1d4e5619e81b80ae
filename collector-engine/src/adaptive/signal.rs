//! What an autoscaler decides by, taken from a reading, and how far two of them are apart.
//!
//! Differences are shares from 0 to 1, so that quantities of different kinds can be compared: of each,
//! 1 is the most that it can be wrong by. A difference of 0.1 of the KV-cache usage is the spare capacity
//! at which the llm-d Workload Variant Autoscaler adds a replica by default (`kvSpareTrigger`).

use collector_core::{LoadRow, Replicas};

/// Waiting requests of one replica at which the Workload Variant Autoscaler calls it saturated by default
/// (`queueLengthThreshold`). Fewer requests than this on a replica are no batch to compare with.
const BATCH_OF_NOTE: f64 = 5.0;

/// Requests a minute that are no load to compare with: one a second.
const ARRIVALS_OF_NOTE: f64 = 60.0;

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
    /// Every quantity; of two that moved alike the former is named.
    pub const ALL: [Self; 5] = [
        Self::KvCacheUsage,
        Self::QueueLength,
        Self::RunningRequests,
        Self::ArrivalRate,
        Self::Replicas,
    ];

    /// The name in JSON of the field it is taken from.
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

/// What one look at a model said, as far as its changes count. What was not measured is `None`.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Signal {
    /// How many replicas there are.
    pub replicas: u32,
    /// Mean of those that were measured, 0 to 1.
    pub kv_cache_usage: Option<f64>,
    /// Waiting requests of all replicas.
    pub queue_length: Option<f64>,
    /// Running requests of all replicas.
    pub running_requests: Option<f64>,
    /// Requests a minute.
    pub arrival_rate: Option<f64>,
}

/// How far two signals are apart in each quantity, in the order of [`Quantity::ALL`]; `None` where one of
/// them does not know.
pub type Differences = [Option<f64>; 5];

impl Signal {
    /// The signal of a reading: of its replicas, and of the load from the same look.
    ///
    /// A quantity that only some replicas have is unknown, or a replica that stops telling would pass for
    /// one that empties.
    pub fn of(replicas: &Replicas, load: &[LoadRow]) -> Self {
        let rows = &replicas.replicas;
        let sum = |count: fn(&collector_core::ReplicaMetrics) -> Option<u64>| {
            rows.iter().map(|row| count(row).map(|count| count as f64)).sum::<Option<f64>>()
        };
        let usage: Option<f64> = rows.iter().map(|row| row.kv_cache_usage).sum();
        // The row of the whole model where there is one: the rows of pods may be some of them.
        let whole = load.iter().find(|row| row.pod.is_none());
        let arrivals = match whole {
            Some(row) => row.rates.requests,
            None if load.is_empty() => None,
            None => load.iter().map(|row| row.rates.requests).sum(),
        };
        Self {
            replicas: u32::try_from(rows.len()).unwrap_or(u32::MAX),
            kv_cache_usage: usage.filter(|_| !rows.is_empty()).map(|sum| sum / rows.len() as f64),
            queue_length: sum(|row| row.queue_length),
            running_requests: sum(|row| row.running_requests),
            arrival_rate: arrivals.map(|per_second| per_second * 60.0),
        }
    }

    /// How wrong this signal is, held in place of `present`.
    pub fn differences(&self, present: &Self) -> Differences {
        let batch = f64::from(self.replicas.max(present.replicas)) * BATCH_OF_NOTE;
        let absolute = |a: f64, b: f64| (a - b).abs();
        let both = |a: Option<f64>, b: Option<f64>, apart: &dyn Fn(f64, f64) -> f64| {
            // What is no number differs from nothing.
            Some(apart(a?, b?)).filter(|share| share.is_finite()).map(|share| share.min(1.0))
        };
        Quantity::ALL.map(|quantity| match quantity {
            Quantity::KvCacheUsage => both(self.kv_cache_usage, present.kv_cache_usage, &absolute),
            Quantity::QueueLength => {
                both(self.waiting_share(batch), present.waiting_share(batch), &absolute)
            }
            Quantity::RunningRequests => {
                both(self.running_requests, present.running_requests, &|a, b| {
                    beyond_chance(a, b, batch)
                })
            }
            Quantity::ArrivalRate => both(self.arrival_rate, present.arrival_rate, &|a, b| {
                beyond_chance(a, b, ARRIVALS_OF_NOTE)
            }),
            Quantity::Replicas => {
                let (a, b) = (f64::from(self.replicas), f64::from(present.replicas));
                Some((a - b).abs() / a.max(b).max(1.0))
            }
        })
    }

    /// The greatest of the differences; 0 when none is known.
    pub fn error(&self, present: &Self) -> f64 {
        self.differences(present).into_iter().flatten().fold(0.0, f64::max)
    }

    /// The share of the model's requests that wait. A batch that is not told counts as a small one.
    fn waiting_share(&self, least_batch: f64) -> Option<f64> {
        let waiting = self.queue_length?;
        let batch = self.running_requests.unwrap_or(0.0).max(least_batch);
        Some(if waiting > 0.0 { waiting / (waiting + batch) } else { 0.0 })
    }
}

/// The difference of two counts of independent requests as a share of the greater one, or of `of_note`
/// where both are small. A count of n is off by the root of n by chance alone (Poisson), and that much of
/// a difference means nothing.
fn beyond_chance(a: f64, b: f64, of_note: f64) -> f64 {
    let greater = a.max(b);
    ((a - b).abs() - greater.sqrt()).max(0.0) / greater.max(of_note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_core::{LoadRates, ModelRef, ReplicaMetrics, Tick};

    fn signal() -> Signal {
        Signal {
            replicas: 2,
            kv_cache_usage: Some(0.4),
            queue_length: Some(0.0),
            running_requests: Some(100.0),
            arrival_rate: Some(400.0),
        }
    }

    #[track_caller]
    fn check(present: Signal, quantity: Quantity, expected: Option<f64>) {
        for differences in [signal().differences(&present), present.differences(&signal())] {
            let place = Quantity::ALL.iter().position(|each| *each == quantity).unwrap();
            match (differences[place], expected) {
                (Some(shown), Some(expected)) => {
                    assert!((shown - expected).abs() < 1e-9, "{shown}");
                }
                (shown, expected) => assert_eq!(shown, expected),
            }
        }
    }

    #[test]
    fn each_quantity_has_its_own_scale() {
        let usage = Signal { kv_cache_usage: Some(0.55), ..signal() };
        check(usage, Quantity::KvCacheUsage, Some(0.15));
        // A hundred wait beside a hundred that run.
        let queue = Signal { queue_length: Some(100.0), ..signal() };
        check(queue, Quantity::QueueLength, Some(0.5));
        let running = Signal { running_requests: Some(64.0), ..signal() };
        check(running, Quantity::RunningRequests, Some(0.26));
        let arrivals = Signal { arrival_rate: Some(100.0), ..signal() };
        check(arrivals, Quantity::ArrivalRate, Some(0.7));
        check(Signal { replicas: 3, ..signal() }, Quantity::Replicas, Some(1.0 / 3.0));
    }

    #[test]
    fn a_few_requests_are_compared_with_a_batch_of_note() {
        let few = |replicas, running, waiting| Signal {
            replicas,
            running_requests: Some(running),
            queue_length: Some(waiting),
            ..Signal::default()
        };
        // Five on each of two replicas; of four requests two are chance.
        let [_, queue, running, ..] = few(2, 4.0, 10.0).differences(&few(2, 0.0, 0.0));
        assert_eq!((queue, running), (Some(0.5), Some(0.2)));
        assert!((few(2, 4.0, 0.0).error(&few(2, 0.0, 0.0)) - 0.2).abs() < 1e-12);
        let none = few(0, 0.0, 0.0);
        assert_eq!(none.differences(&none)[1], Some(0.0));
    }

    #[test]
    fn what_is_unknown_counts_for_nothing() {
        check(Signal { kv_cache_usage: None, ..signal() }, Quantity::KvCacheUsage, None);
        check(Signal { queue_length: None, ..signal() }, Quantity::QueueLength, None);
        let nan = Signal { kv_cache_usage: Some(f64::NAN), ..signal() };
        check(nan, Quantity::KvCacheUsage, None);
        assert!(signal().error(&nan).abs() < 1e-12);
    }

    #[test]
    fn what_chance_alone_makes_of_a_count_is_no_change() {
        check(
            Signal { running_requests: Some(91.0), ..signal() },
            Quantity::RunningRequests,
            Some(0.0),
        );
        let one = Signal { running_requests: Some(1.0), ..Signal::default() };
        assert!(Signal { running_requests: Some(0.0), ..one }.error(&one).abs() < 1e-12);
    }

    #[test]
    fn a_reading_whose_replicas_do_not_all_tell_has_no_sum() {
        let mut one = ReplicaMetrics::new("a", Tick::MIN);
        one.kv_cache_usage = Some(0.2);
        one.queue_length = Some(3);
        let mut other = ReplicaMetrics::new("b", Tick::MIN);
        other.kv_cache_usage = Some(0.6);
        let model = ModelRef::new("m", "n");
        let replicas = Replicas::new(model, vec![one, other], "test".into(), Tick::MIN);
        let row = |pod: Option<&str>, requests| {
            LoadRow::new(pod.map(Into::into), LoadRates { requests, ..LoadRates::ZERO })
        };

        let pods = [row(Some("a"), Some(1.0)), row(Some("b"), Some(2.0))];
        let read = Signal::of(&replicas, &pods);
        assert_eq!((read.replicas, read.kv_cache_usage), (2, Some(0.4)));
        assert_eq!((read.queue_length, read.arrival_rate), (None, Some(180.0)));

        let half = [row(Some("a"), Some(1.0)), row(Some("b"), None)];
        assert_eq!(Signal::of(&replicas, &half).arrival_rate, None);
        assert_eq!(Signal::of(&replicas, &[]).arrival_rate, None);
        let whole = [row(Some("a"), Some(1.0)), row(None, Some(5.0))];
        assert_eq!(Signal::of(&replicas, &whole).arrival_rate, Some(300.0));
    }
}
