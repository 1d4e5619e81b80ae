// SPDX-License-Identifier: Apache-2.0
//! When the requests to a variant arrive.
//!
//! The next arrival is found by integrating the rate over the pieces of its shape. Only complete pieces are
//! subtracted, so the result does not depend on how often the stream is read.

use std::time::Duration;

use crate::load::{Arrivals, Load};
use crate::shape::Shape;

/// The stream of arrivals of one variant.
#[derive(Debug)]
pub(crate) struct Stream {
    /// When the load was set; its shape counts from here.
    since: Duration,
    /// The second factor, counted from time zero.
    hot: Shape,
    /// Everything up to this time is counted.
    at: Duration,
    /// Number of requests by the rate until the next arrival.
    due: f64,
}

impl Stream {
    /// Starts a stream at `since`.
    pub(crate) fn new(load: &Load, hot: Shape, since: Duration, rng: &mut fastrand::Rng) -> Self {
        Self { since, hot, at: since, due: draw(load.arrivals, rng) }
    }

    /// Changes the load from now on.
    pub(crate) fn restart(&mut self, load: &Load, now: Duration, rng: &mut fastrand::Rng) {
        *self = Self::new(load, self.hot, now, rng);
    }

    /// Returns the greatest second factor.
    pub(crate) fn hot_peak(&self) -> f64 {
        self.hot.peak()
    }

    /// Returns the requests per minute at a time, and how long that rate lasts; `None` is forever.
    pub(crate) fn rate(&self, load: &Load, at: Duration) -> (f64, Option<Duration>) {
        let (factor, shaped) = load.shape.piece(at.saturating_sub(self.since));
        let (hot, spell) = self.hot.piece(at);
        let shaped = shaped.map(|until| until.saturating_add(self.since));
        let until = match (shaped, spell) {
            (Some(shaped), Some(spell)) => Some(shaped.min(spell)),
            (one, other) => one.or(other),
        };
        (load.requests_per_minute * factor * hot, until)
    }

    /// Returns the next arrival if it is no later than `now`.
    pub(crate) fn peek(&mut self, load: &Load, now: Duration) -> Option<Duration> {
        loop {
            let (rate, until) = self.rate(load, self.at);
            let arrival = Duration::try_from_secs_f64(self.due * 60.0 / rate)
                .ok()
                .and_then(|gap| self.at.checked_add(gap));
            if let Some(arrival) = arrival.filter(|at| until.is_none_or(|until| *at <= until)) {
                return (arrival <= now).then_some(arrival);
            }
            let until = until.filter(|until| *until <= now)?;
            let passed = until.saturating_sub(self.at).as_secs_f64();
            self.due = (self.due - rate * passed / 60.0).max(0.0);
            self.at = until;
        }
    }

    /// Consumes the arrival that was peeked at.
    pub(crate) fn take(&mut self, load: &Load, arrival: Duration, rng: &mut fastrand::Rng) {
        self.at = arrival;
        self.due = draw(load.arrivals, rng);
    }
}

fn draw(arrivals: Arrivals, rng: &mut fastrand::Rng) -> f64 {
    match arrivals {
        Arrivals::Even => 1.0,
        // The inverse of the exponential distribution; 1 - u is never 0.
        Arrivals::Poisson => -(1.0 - rng.f64()).ln(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn arrivals(load: &Load, hot: Shape, looks: &[Duration]) -> Vec<Duration> {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut stream = Stream::new(load, hot, Duration::ZERO, &mut rng);
        let mut arrivals = Vec::new();
        for now in looks {
            while let Some(arrival) = stream.peek(load, *now) {
                stream.take(load, arrival, &mut rng);
                arrivals.push(arrival);
            }
        }
        arrivals
    }

    #[test]
    fn even_arrivals_are_exactly_spaced() {
        let load = Load { requests_per_minute: 120.0, ..Load::default() };
        let shown = arrivals(&load, Shape::Steady, &[at(2)]);
        assert_eq!(shown, [500, 1000, 1500, 2000].map(Duration::from_millis));
    }

    #[test]
    fn poisson_arrivals_keep_the_described_rate_and_have_no_memory() {
        let load =
            Load { requests_per_minute: 120.0, arrivals: Arrivals::Poisson, ..Load::default() };
        let shown = arrivals(&load, Shape::Steady, &[at(10_000)]);
        let gaps: Vec<f64> =
            shown.windows(2).map(|pair| pair[1].as_secs_f64() - pair[0].as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 0.5).abs() < 0.01);
        // An exponential distribution's deviation is its mean.
        assert!((variance.sqrt() - 0.5).abs() < 0.02);
    }

    #[test]
    fn an_idle_load_has_no_arrivals() {
        let nothing = Load { requests_per_minute: 0.0, ..Load::default() };
        let idle = Load { shape: Shape::Idle, ..Load::default() };
        for load in [nothing, idle] {
            assert_eq!(arrivals(&load, Shape::Steady, &[at(100_000)]), []);
        }
    }

    #[test]
    fn arrivals_equal_the_sum_of_a_shapes_factors() {
        for (shape, expected) in [
            (Shape::Ramp { from: 0.0, to: 2.0, over: at(600), after: at(0) }, 600.0),
            (Shape::Burst { factor: 4.0, every: at(100), lasts: at(25), after: at(0) }, 1050.0),
            (Shape::Wave { period: at(300), low: 0.2 }, 360.0),
        ] {
            let load = Load { requests_per_minute: 60.0, shape, ..Load::default() };
            let shown = arrivals(&load, Shape::Steady, &[at(600)]).len();
            assert!((shown as f64 - expected).abs() <= 1.0, "{shape:?}: {shown}");
        }
    }

    #[test]
    fn frequent_reads_change_no_arrival() {
        let shape = Shape::Wave { period: at(60), low: 0.0 };
        let load = Load { shape, arrivals: Arrivals::Poisson, ..Load::default() };
        let hot = Shape::Burst { factor: 3.0, every: at(50), lasts: at(7), after: at(3) };
        let often: Vec<Duration> = (0..7000).map(|step| Duration::from_millis(step * 43)).collect();
        let end = *often.last().unwrap();
        assert_eq!(arrivals(&load, hot, &often), arrivals(&load, hot, &[end]));
    }

    #[test]
    fn a_hot_spell_multiplies_the_shape() {
        let load = Load { requests_per_minute: 60.0, ..Load::default() };
        let hot = Shape::Burst { factor: 5.0, every: at(60), lasts: at(20), after: at(20) };
        let shown = arrivals(&load, hot, &[at(60)]);
        let between = |from: u64, to: u64| {
            shown.iter().filter(|arrival| **arrival > at(from) && **arrival <= at(to)).count()
        };
        assert_eq!((between(0, 20), between(20, 40), between(40, 60)), (20, 100, 20));
    }
}
