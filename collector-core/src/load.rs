// SPDX-License-Identifier: Apache-2.0
//! The load of a model: rates that can be summed, and the means that are divided from them.

use crate::field::Field;
use crate::model::Role;

/// The roles of pods that share the work on a request.
const PREFILL: &str = "prefill";
const DECODE: &str = "decode";

/// Rates over the window, per second, from which averages are divided; they can be summed over
/// pods where averages cannot.
///
/// `None` is unknown; 0 is measured.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
#[non_exhaustive]
pub struct LoadRates {
    /// Requests that arrived.
    pub requests: Option<f64>,
    /// Prompt tokens of these.
    pub prompt_tokens: Option<f64>,
    /// Generated tokens.
    pub generation_tokens: Option<f64>,
    /// Sum of the times to first token, in seconds.
    pub ttft_seconds: Option<f64>,
    /// Number of first tokens.
    pub ttft_count: Option<f64>,
    /// Sum of the inter-token latencies, in seconds.
    pub itl_seconds: Option<f64>,
    /// Number of inter-token latencies.
    pub itl_count: Option<f64>,
}

/// The rates in the order of the fields.
impl From<[Option<f64>; 7]> for LoadRates {
    fn from(rates: [Option<f64>; 7]) -> Self {
        let [
            requests,
            prompt_tokens,
            generation_tokens,
            ttft_seconds,
            ttft_count,
            itl_seconds,
            itl_count,
        ] = rates;
        Self {
            requests,
            prompt_tokens,
            generation_tokens,
            ttft_seconds,
            ttft_count,
            itl_seconds,
            itl_count,
        }
    }
}

impl LoadRates {
    /// Nothing arrives: a known zero.
    pub const ZERO: Self = Self {
        requests: Some(0.0),
        prompt_tokens: Some(0.0),
        generation_tokens: Some(0.0),
        ttft_seconds: Some(0.0),
        ttft_count: Some(0.0),
        itl_seconds: Some(0.0),
        itl_count: Some(0.0),
    };

    /// Sets the requests that arrive per second.
    #[must_use]
    pub fn with_requests(self, requests: impl Into<Option<f64>>) -> Self {
        Self { requests: requests.into(), ..self }
    }

    /// Sets the prompt tokens and the generated tokens per second.
    #[must_use]
    pub fn with_tokens(
        self,
        prompt: impl Into<Option<f64>>,
        generation: impl Into<Option<f64>>,
    ) -> Self {
        Self { prompt_tokens: prompt.into(), generation_tokens: generation.into(), ..self }
    }

    /// Sets the times to first token: their sum in seconds and their number, both per second.
    #[must_use]
    pub fn with_ttft(self, seconds: impl Into<Option<f64>>, count: impl Into<Option<f64>>) -> Self {
        Self { ttft_seconds: seconds.into(), ttft_count: count.into(), ..self }
    }

    /// Sets the inter-token latencies: their sum in seconds and their number, both per second.
    #[must_use]
    pub fn with_itl(self, seconds: impl Into<Option<f64>>, count: impl Into<Option<f64>>) -> Self {
        Self { itl_seconds: seconds.into(), itl_count: count.into(), ..self }
    }

    /// The sum over two pods, or two groups of them.
    ///
    /// What only one side knows is that side's, with one exception: a mean needs both of its halves
    /// from the same requests. Where one side has requests and does not know their tokens, those of
    /// the sum are unknown; likewise the latencies.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let add = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (one, None) | (None, one) => one,
        };
        let counts = |count: Option<f64>| count.is_some_and(|count| count > 0.0);
        let half = |sum: fn(&Self) -> Option<f64>, count: fn(&Self) -> Option<f64>| {
            let lacks = |side: &Self| counts(count(side)) && sum(side).is_none();
            if lacks(&self) || lacks(&other) { None } else { add(sum(&self), sum(&other)) }
        };
        Self {
            requests: add(self.requests, other.requests),
            prompt_tokens: half(|rates| rates.prompt_tokens, |rates| rates.requests),
            generation_tokens: half(|rates| rates.generation_tokens, |rates| rates.requests),
            ttft_seconds: half(|rates| rates.ttft_seconds, |rates| rates.ttft_count),
            ttft_count: half(|rates| rates.ttft_count, |rates| rates.ttft_seconds),
            itl_seconds: half(|rates| rates.itl_seconds, |rates| rates.itl_count),
            itl_count: half(|rates| rates.itl_count, |rates| rates.itl_seconds),
        }
    }

    /// The load of pods with these roles.
    ///
    /// Where some pods prefill and others decode, each request is seen by one of each: arrivals,
    /// generated tokens and inter-token latencies are then those of the decode side, times to first
    /// token and the mean of the prompt tokens those of the prefill side. `None` for no pod.
    pub fn of_roles<'a>(
        pods: impl Iterator<Item = (Option<&'a Role>, Self)> + Clone,
    ) -> Option<Self> {
        let side = |wanted: &'static str| {
            let is_of_side =
                move |role: Option<&Role>| role.is_some_and(|it| it.as_str() == wanted);
            let pods = pods.clone().filter(move |(role, _)| is_of_side(*role));
            pods.map(|(_, rates)| rates).reduce(Self::plus)
        };
        let (Some(prefill), Some(decode)) = (side(PREFILL), side(DECODE)) else {
            return pods.map(|(_, rates)| rates).reduce(Self::plus);
        };
        let both = Self {
            prompt_tokens: at_mean_of(&prefill, decode.requests),
            ttft_seconds: prefill.ttft_seconds,
            ttft_count: prefill.ttft_count,
            ..decode
        };
        let others = pods
            .filter(|(role, _)| !matches!(role.map(Role::as_str), Some(PREFILL | DECODE)))
            .map(|(_, rates)| rates)
            .reduce(Self::plus);
        Some(others.map_or(both, |others| others.plus(both)))
    }

    /// Takes what belongs to one field from other rates.
    pub fn copy_field(&mut self, field: Field, from: &Self) {
        match field {
            Field::ArrivalRate => self.requests = from.requests,
            Field::AvgInputTokens => self.prompt_tokens = from.prompt_tokens,
            Field::AvgOutputTokens => self.generation_tokens = from.generation_tokens,
            Field::TtftAverage => {
                self.ttft_seconds = from.ttft_seconds;
                self.ttft_count = from.ttft_count;
            }
            Field::ItlAverage => {
                self.itl_seconds = from.itl_seconds;
                self.itl_count = from.itl_count;
            }
            Field::KvCacheUsage
            | Field::QueueLength
            | Field::RunningRequests
            | Field::CacheConfig
            | Field::PrefixCacheHitRate => {}
        }
    }

    /// The load: arrivals per minute, and means per request. `idle`: see [`mean_over_window`].
    pub fn load(&self, idle: bool) -> Load {
        Load {
            arrival_rate: self.requests.map(|per_second| per_second * 60.0),
            avg_input_tokens: mean_over_window(self.prompt_tokens, self.requests, idle),
            avg_output_tokens: mean_over_window(self.generation_tokens, self.requests, idle),
        }
    }

    /// Whether both halves of a mean are known, and there is nothing to divide by.
    pub fn counts_nothing(&self, field: Field) -> bool {
        let halves = match field {
            Field::AvgInputTokens => (self.prompt_tokens, self.requests),
            Field::AvgOutputTokens => (self.generation_tokens, self.requests),
            Field::TtftAverage => (self.ttft_seconds, self.ttft_count),
            Field::ItlAverage => (self.itl_seconds, self.itl_count),
            _ => return false,
        };
        matches!(halves, (Some(_), Some(0.0)))
    }

    /// Mean time to first token, in milliseconds.
    pub fn ttft_average(&self, idle: bool) -> Option<f64> {
        mean_over_window(self.ttft_seconds, self.ttft_count, idle).map(|seconds| seconds * 1000.0)
    }

    /// Mean inter-token latency, in milliseconds.
    pub fn itl_average(&self, idle: bool) -> Option<f64> {
        mean_over_window(self.itl_seconds, self.itl_count, idle).map(|seconds| seconds * 1000.0)
    }
}

/// The prompt tokens of so many requests that are as long as those of other rates.
fn at_mean_of(rates: &LoadRates, requests: Option<f64>) -> Option<f64> {
    let requests = requests?;
    if requests == 0.0 {
        return Some(0.0);
    }
    Some(mean_over_window(rates.prompt_tokens, rates.requests, false)? * requests)
}

/// `sum / count`; unknown where either is. A count of 0 has no mean: where nothing runs (`idle`) it is a
/// known zero, and where requests run and none has finished it is unknown.
///
/// Every mean is divided here, on the client, because servers disagree about 0/0: Prometheus
/// answers NaN, VictoriaMetrics leaves the row out, and neither distinguishes idle from unknown.
pub fn mean_over_window(sum: Option<f64>, count: Option<f64>, idle: bool) -> Option<f64> {
    let (sum, count) = (sum?, count?);
    if count == 0.0 {
        return idle.then_some(0.0);
    }
    Some(sum / count).filter(|mean| mean.is_finite())
}

/// What arrives at a model or a variant.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Load {
    /// Requests per minute.
    pub arrival_rate: Option<f64>,
    /// Mean prompt tokens per request.
    pub avg_input_tokens: Option<f64>,
    /// Mean generated tokens per request.
    pub avg_output_tokens: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_a_known_zero_and_unknown_stays_unknown() {
        assert_eq!(mean_over_window(Some(0.0), Some(0.0), true), Some(0.0));
        assert_eq!(mean_over_window(Some(0.0), Some(0.0), false), None, "requests run");
        assert_eq!(mean_over_window(None, Some(0.0), true), None);
        assert_eq!(mean_over_window(Some(5.0), None, true), None);
        assert_eq!(mean_over_window(Some(6.0), Some(2.0), false), Some(3.0));
        assert_eq!(mean_over_window(Some(f64::NAN), Some(2.0), false), None);
    }

    #[test]
    fn rates_of_pods_add_up_and_an_unknown_one_adds_nothing() {
        let known = LoadRates { requests: Some(2.0), ..LoadRates::default() };
        let sum = known.plus(known).plus(LoadRates::default());
        assert_eq!(sum.requests, Some(4.0));
        assert_eq!(sum.load(true).arrival_rate, Some(240.0));
        assert_eq!(sum.load(true).avg_input_tokens, None);
    }

    #[test]
    fn prefill_and_decode_pods_see_each_request_once_each() {
        let (prefill, decode) = (Role::from(PREFILL), Role::from(DECODE));
        let seen = |prompt, generated, ttft, itl| LoadRates {
            requests: Some(4.0),
            prompt_tokens: Some(prompt),
            generation_tokens: Some(generated),
            ttft_seconds: Some(ttft),
            ttft_count: Some(4.0),
            itl_seconds: Some(itl),
            itl_count: Some(800.0),
        };
        let first = seen(4000.0, 4.0, 1.2, 0.0);
        let second = seen(3600.0, 800.0, 0.2, 16.0);
        let both = [(Some(&prefill), first), (Some(&decode), second)];
        let load = LoadRates::of_roles(both.into_iter()).unwrap();
        assert_eq!(load.load(false).arrival_rate, Some(240.0));
        assert_eq!(load.load(false).avg_input_tokens, Some(1000.0));
        assert_eq!(load.load(false).avg_output_tokens, Some(200.0));
        assert_eq!((load.ttft_average(false), load.itl_average(false)), (Some(300.0), Some(20.0)));
        // The two count a request at different moments: the mean is of one side's requests.
        let ahead = first.with_requests(5.0).with_tokens(5000.0, 4.0).with_ttft(1.5, 5.0);
        let both = [(Some(&prefill), ahead), (Some(&decode), second)];
        let load = LoadRates::of_roles(both.into_iter()).unwrap();
        assert_eq!(load.load(false).avg_input_tokens, Some(1000.0));
        assert_eq!(load.load(false).arrival_rate, Some(240.0));
        assert_eq!((load.ttft_count, load.itl_count), (Some(5.0), Some(800.0)));
        // Pods of one role, or of none, have their own load.
        let alone = [(Some(&prefill), first), (None, second)];
        assert_eq!(LoadRates::of_roles(alone.into_iter()), Some(first.plus(second)));
        assert_eq!(LoadRates::of_roles([].into_iter()), None);
    }

    #[test]
    fn a_sum_has_no_mean_of_requests_whose_tokens_are_unknown() {
        let known =
            LoadRates { requests: Some(1.0), prompt_tokens: Some(100.0), ..LoadRates::default() };
        let spoiled = LoadRates { prompt_tokens: None, ..known };
        let sum = known.plus(spoiled).load(true);
        assert_eq!((sum.arrival_rate, sum.avg_input_tokens), (Some(120.0), None));
        let idle = LoadRates { requests: Some(0.0), ..LoadRates::default() };
        assert_eq!(known.plus(idle).load(true).avg_input_tokens, Some(100.0));
    }
}
