// SPDX-License-Identifier: Apache-2.0
//! The signal `slo-ratio`: a quantile of a latency, divided by the greatest that it may be.

use collector_core::{
    Field, Latencies, LatencyHistogram, ReplicaMetrics, ReplicaState, Role, Tick,
};

use super::{Measured, Unknown, View};
use crate::positive::Positive;

/// The roles of pods that share the work on a request.
const PREFILL: &str = "prefill";
const DECODE: &str = "decode";

/// A latency.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Latency {
    /// The time to the first token.
    Ttft,
    /// The inter-token latency.
    Itl,
}

/// The greatest value that a quantile of a latency may have.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Slo {
    /// The latency.
    pub latency: Latency,
    /// The share of the requests, or tokens, that must not take longer: below 1.
    pub quantile: Positive,
    /// The greatest value, in seconds.
    pub limit: Positive,
}

impl Latency {
    /// The name in metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::Itl => "itl",
        }
    }

    fn of(self, latencies: &Latencies) -> Option<&LatencyHistogram> {
        match self {
            Self::Ttft => latencies.ttft.as_ref(),
            Self::Itl => latencies.itl.as_ref(),
        }
    }

    /// The role whose pods do not measure it, where others share their work: a prefill pod generates one token alone,
    /// and a decode pod has the first one from elsewhere.
    fn is_not_of(self) -> &'static str {
        match self {
            Self::Ttft => DECODE,
            Self::Itl => PREFILL,
        }
    }
}

impl<'a> View<'a> {
    pub(super) fn slo_ratio(self, slo: &Slo) -> Result<Measured, Unknown> {
        self.complete()?;
        if self.pods().next().is_none() {
            return self.without_pods();
        }
        let mut oldest: Option<Tick> = None;
        let mut sampled = |at: Tick| oldest = Some(oldest.map_or(at, |oldest| oldest.min(at)));
        let mut pods = 0;
        for pod in self.pods_with_latency(slo.latency) {
            let latencies = pod.latencies.as_deref();
            let known = latencies.filter(|latencies| slo.latency.of(latencies).is_some());
            let Some(known) = known else {
                // Some servers create the series with the first request.
                if is_idle(pod) {
                    sampled(idle_since(pod));
                    continue;
                }
                return Err(Unknown::Latency { pod: pod.pod_name.clone(), latency: slo.latency });
            };
            sampled(known.sampled_at);
            pods += 1;
        }
        let histograms = self
            .pods_with_latency(slo.latency)
            .filter_map(|pod| slo.latency.of(pod.latencies.as_deref()?));
        let oldest = oldest.unwrap_or(self.replicas.oldest);
        let measured = |value, sampled_at| Measured { value, sampled_at, pods };
        // That is no latency where nothing runs, and may be any where something does.
        let without_end = || {
            let seen_at = self.pods().map(idle_since).fold(oldest, Tick::min);
            let is_known = self.pods().all(is_idle);
            is_known.then(|| measured(0.0, seen_at)).ok_or(Unknown::NothingEnded(slo.latency))
        };
        // None serves, or none has had a request.
        if pods == 0 {
            return without_end();
        }
        let all = LatencyHistogram::merged(histograms).ok_or(Unknown::Buckets)?;
        match all.quantile(slo.quantile.get()) {
            Some(seconds) => Ok(measured(seconds / slo.limit.get(), oldest)),
            None => without_end(),
        }
    }

    /// The pods that serve and measure the latency.
    fn pods_with_latency(
        self,
        latency: Latency,
    ) -> impl Iterator<Item = &'a ReplicaMetrics> + Clone {
        let of_role = move |role: &str| self.pods().any(|pod| has_role(pod, role));
        let are_split = of_role(PREFILL) && of_role(DECODE);
        self.pods().filter(move |pod| {
            pod.state.serves() && !(are_split && has_role(pod, latency.is_not_of()))
        })
    }
}

fn has_role(pod: &ReplicaMetrics, role: &str) -> bool {
    pod.role.as_ref().is_some_and(|own: &Role| own.as_str() == role)
}

fn is_idle(pod: &ReplicaMetrics) -> bool {
    pod.state == ReplicaState::Sleeping
        || (pod.running_requests == Some(0) && pod.queue_length == Some(0))
}

/// When it was seen that nothing runs and waits at a pod that is idle.
fn idle_since(pod: &ReplicaMetrics) -> Tick {
    pod.sampled_at(Field::RunningRequests).min(pod.sampled_at(Field::QueueLength))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use collector_core::Mark;

    use super::super::tests::{at, measure, pod, replicas};
    use super::super::{Signal, Unknown};
    use super::*;
    use crate::positive::positive;

    /// Times to first token: so many of at most 0.1 s, of at most 1 s and of more.
    fn with_ttft(name: &str, counts: [u64; 3]) -> ReplicaMetrics {
        let mut pod = pod(name, 0, 1, 0.5);
        let histogram = LatencyHistogram::new(Arc::from([0.1, 1.0, f64::INFINITY]), counts);
        pod.latencies = Some(Arc::new(Latencies::new(at(990), histogram, None)));
        pod
    }

    fn p90(latency: Latency) -> Signal {
        let (quantile, limit) = (const { positive(0.9) }, const { positive(0.5) });
        Signal::SloRatio(Slo { latency, quantile, limit })
    }

    #[test]
    fn the_quantile_is_of_the_requests_of_all_pods() {
        let both = replicas(vec![with_ttft("a", [90, 0, 0]), with_ttft("b", [0, 10, 0])]);
        let measured = measure(&both, &p90(Latency::Ttft)).unwrap();
        assert!((measured.value - 0.1 / 0.5).abs() < 1e-12, "{}", measured.value);
        assert_eq!((measured.sampled_at, measured.pods), (at(990), 2));
        // Not the mean of two quantiles, which would be 1 s and 0.1 s.
        let slower = replicas(vec![with_ttft("a", [80, 0, 0]), with_ttft("b", [0, 20, 0])]);
        let expected = (0.1 + 0.9 * 0.5) / 0.5;
        let measured = measure(&slower, &p90(Latency::Ttft)).unwrap();
        assert!((measured.value - expected).abs() < 1e-12, "{}", measured.value);
    }

    #[test]
    fn one_pod_without_a_histogram_makes_it_unknown() {
        let mut unknown = with_ttft("b", [1, 0, 0]);
        unknown.latencies = None;
        let both = replicas(vec![with_ttft("a", [90, 0, 0]), unknown]);
        let expected = Unknown::Latency { pod: "b".into(), latency: Latency::Ttft };
        assert_eq!(measure(&both, &p90(Latency::Ttft)), Err(expected));
        let expected = Unknown::Latency { pod: "a".into(), latency: Latency::Itl };
        assert_eq!(measure(&both, &p90(Latency::Itl)), Err(expected));
    }

    #[test]
    fn without_an_end_it_is_0_only_if_nothing_runs() {
        let running = replicas(vec![with_ttft("a", [0, 0, 0])]);
        let expected = Unknown::NothingEnded(Latency::Ttft);
        assert_eq!(measure(&running, &p90(Latency::Ttft)), Err(expected));
        let mut idle = with_ttft("a", [0, 0, 0]);
        idle.running_requests = Some(0);
        let value = measure(&replicas(vec![idle]), &p90(Latency::Ttft)).unwrap().value;
        assert!(value.abs() < f64::EPSILON, "{value}");
    }

    #[test]
    fn without_a_pod_that_serves_it_is_0_only_if_nothing_runs() {
        let mut leaving = with_ttft("a", [0, 0, 90]);
        leaving.state = ReplicaState::Terminating;
        let mut starting = with_ttft("b", [0, 0, 0]);
        starting.state = ReplicaState::Starting;
        (starting.running_requests, starting.latencies) = (Some(0), None);
        let both = replicas(vec![leaving.clone(), starting.clone()]);
        let expected = Unknown::NothingEnded(Latency::Ttft);
        assert_eq!(measure(&both, &p90(Latency::Ttft)), Err(expected));
        leaving.running_requests = Some(0);
        let value = measure(&replicas(vec![leaving, starting]), &p90(Latency::Ttft)).unwrap().value;
        assert!(value.abs() < f64::EPSILON, "{value}");
    }

    #[test]
    fn that_a_pod_is_idle_is_as_old_as_its_counts() {
        let mut idle = with_ttft("b", [0, 0, 0]);
        idle.running_requests = Some(0);
        let (field, sampled_at) = (Field::RunningRequests, at(970));
        idle.marks.push(Mark { field, backend: "test".into(), sampled_at });
        let alone = replicas(vec![idle.clone()]);
        assert_eq!(measure(&alone, &p90(Latency::Ttft)).unwrap().sampled_at, at(970));
        idle.latencies = None;
        let both = replicas(vec![with_ttft("a", [90, 0, 0]), idle]);
        let measured = measure(&both, &p90(Latency::Ttft)).unwrap();
        assert_eq!((measured.sampled_at, measured.pods), (at(970), 1));
    }

    #[test]
    fn of_prefill_and_decode_pods_each_measures_its_own_latency() {
        let mut prefill = with_ttft("a", [10, 0, 0]);
        prefill.role = Some("prefill".into());
        let mut decode = with_ttft("b", [0, 0, 10]);
        decode.role = Some("decode".into());
        let both = replicas(vec![prefill, decode.clone()]);
        let value = measure(&both, &p90(Latency::Ttft)).unwrap().value;
        assert!((value - 0.09 / 0.5).abs() < 1e-12, "{value}");
        // Alone, they do everything.
        let value = measure(&replicas(vec![decode]), &p90(Latency::Ttft)).unwrap().value;
        assert!((value - 1.0 / 0.5).abs() < 1e-12, "{value}");
    }

    #[test]
    fn buckets_that_cannot_be_joined_make_it_unknown() {
        let mut other = with_ttft("b", [1, 0, 0]);
        let histogram = LatencyHistogram::new(Arc::from([0.2, 0.7, f64::INFINITY]), [1, 0, 0]);
        other.latencies = Some(Arc::new(Latencies::new(at(990), histogram, None)));
        let both = replicas(vec![with_ttft("a", [1, 0, 0]), other]);
        assert_eq!(measure(&both, &p90(Latency::Ttft)), Err(Unknown::Buckets));
    }
}
