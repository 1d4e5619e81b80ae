// SPDX-License-Identifier: Apache-2.0
//! How a load changes over time.
//!
//! A shape is a factor on the described rate. It is constant within pieces of time, so that the number of
//! arrivals in any span can be computed without visiting each instant.

use std::f64::consts::TAU;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Duration of a piece of a ramp or a wave.
const STEP: Duration = Duration::from_secs(1);
/// Least number of steps of a ramp or a wave.
const SHORTEST: Duration = Duration::from_secs(10);

/// How a load changes over time, counted from when it was set.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Shape {
    /// Always the described rate.
    #[default]
    Steady,
    /// No requests.
    Idle,
    /// Linear from one factor to another, where it stays.
    Ramp {
        /// The initial factor, 0 or more.
        #[serde(default)]
        from: f64,
        /// The final factor, 0 or more.
        #[serde(default = "full")]
        to: f64,
        /// How long the change takes, at least 10 s.
        #[serde(with = "collector_core::duration")]
        over: Duration,
        /// When it starts.
        #[serde(default, with = "collector_core::duration")]
        after: Duration,
    },
    /// The described rate, and at intervals a multiple of it.
    Burst {
        /// The factor during a burst.
        factor: f64,
        /// Time between the starts of two bursts.
        #[serde(with = "collector_core::duration")]
        every: Duration,
        /// Duration of a burst.
        #[serde(with = "collector_core::duration")]
        lasts: Duration,
        /// When the first burst starts.
        #[serde(default, with = "collector_core::duration")]
        after: Duration,
    },
    /// Between a fraction of the described rate and all of it, like day and night; it starts at the low end.
    Wave {
        /// Time between two low ends, at least 10 s.
        #[serde(default = "day", with = "collector_core::duration")]
        period: Duration,
        /// The factor at the low end, 0 to 1.
        #[serde(default = "night")]
        low: f64,
    },
}

fn full() -> f64 {
    1.0
}

fn day() -> Duration {
    Duration::from_secs(24 * 3600)
}

fn night() -> f64 {
    0.2
}

impl Shape {
    /// Returns the factor at a time, and how long it lasts; `None` is forever.
    pub(crate) fn piece(&self, at: Duration) -> (f64, Option<Duration>) {
        match *self {
            Self::Steady => (1.0, None),
            Self::Idle => (0.0, None),
            Self::Ramp { from, to, over, after } => {
                let Some(since) = at.checked_sub(after) else {
                    return (from, Some(after));
                };
                if since >= over {
                    return (to, None);
                }
                let (middle, end) = step(since);
                let share = (middle.as_secs_f64() / over.as_secs_f64()).min(1.0);
                (from + (to - from) * share, Some(after.saturating_add(end.min(over))))
            }
            Self::Burst { factor, every, lasts, after } => {
                let Some(since) = at.checked_sub(after) else {
                    return (1.0, Some(after));
                };
                let begun = at.saturating_sub(remainder(since, every));
                let over = begun.saturating_add(lasts);
                if at < over {
                    (factor, Some(over))
                } else {
                    (1.0, Some(begun.saturating_add(every)))
                }
            }
            Self::Wave { period, low } => {
                let (middle, end) = step(at);
                let phase = middle.as_secs_f64() / period.as_secs_f64();
                let height = f64::midpoint(1.0, -(TAU * phase).cos());
                (low + (1.0 - low) * height, Some(end))
            }
        }
    }

    /// Returns the greatest factor.
    pub(crate) fn peak(&self) -> f64 {
        match *self {
            Self::Steady | Self::Wave { .. } => 1.0,
            Self::Idle => 0.0,
            Self::Ramp { from, to, .. } => from.max(to),
            Self::Burst { factor, .. } => factor.max(1.0),
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let factor = |name: &str, value: f64| {
            if value.is_finite() && value >= 0.0 {
                Ok(())
            } else {
                Err(format!("shape: {name} = {value} is not a factor: use a number of at least 0"))
            }
        };
        match *self {
            Self::Steady | Self::Idle => Ok(()),
            Self::Ramp { from, to, over, .. } => {
                factor("from", from)?;
                factor("to", to)?;
                long_enough("over", over)
            }
            Self::Burst { factor: value, every, lasts, .. } => {
                factor("factor", value)?;
                if every.is_zero() || lasts > every {
                    return Err("shape: every must be more than 0 and no less than lasts".into());
                }
                Ok(())
            }
            Self::Wave { period, low } => {
                if !(0.0..=1.0).contains(&low) {
                    return Err(format!("shape: low = {low} is not in 0..=1"));
                }
                long_enough("period", period)
            }
        }
    }
}

fn long_enough(name: &str, value: Duration) -> Result<(), String> {
    if value < SHORTEST {
        return Err(format!("shape: {name} must be at least {}s", SHORTEST.as_secs()));
    }
    Ok(())
}

/// Returns the middle and the end of the step at a time.
fn step(at: Duration) -> (Duration, Duration) {
    let begin = at.saturating_sub(remainder(at, STEP));
    (begin + STEP / 2, begin + STEP)
}

/// Returns the rest of a time after whole periods.
fn remainder(time: Duration, period: Duration) -> Duration {
    let nanos = time.as_nanos() % period.as_nanos().max(1);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[track_caller]
    fn check(shape: Shape, seconds: f64, factor: f64, until: Option<u64>) {
        let (shown, end) = shape.piece(Duration::from_secs_f64(seconds));
        assert!((shown - factor).abs() < 1e-9, "{shown} is not {factor}");
        assert_eq!(end, until.map(at));
    }

    #[test]
    fn a_ramp_climbs_each_second_and_is_constant_otherwise() {
        let ramp = Shape::Ramp { from: 0.0, to: 2.0, over: at(20), after: at(60) };
        check(ramp, 0.0, 0.0, Some(60));
        check(ramp, 60.0, 0.05, Some(61));
        check(ramp, 69.5, 0.95, Some(70));
        check(ramp, 80.0, 2.0, None);
    }

    #[test]
    fn bursts_begin_on_time_and_end_on_time() {
        let burst = Shape::Burst { factor: 4.0, every: at(60), lasts: at(10), after: at(30) };
        check(burst, 29.9, 1.0, Some(30));
        check(burst, 30.0, 4.0, Some(40));
        check(burst, 40.0, 1.0, Some(90));
        check(burst, 95.0, 4.0, Some(100));
    }

    #[test]
    fn a_wave_starts_low_and_is_full_after_half_a_period() {
        let wave = Shape::Wave { period: at(1000), low: 0.2 };
        assert!(wave.piece(at(0)).0 < 0.2001);
        assert!(wave.piece(at(500)).0 > 0.9999);
        assert!(wave.piece(at(1000)).0 < 0.2001);
        let mean = (0..1000).map(|second| wave.piece(at(second)).0).sum::<f64>() / 1000.0;
        assert!((mean - 0.6).abs() < 1e-6, "{mean}");
    }

    #[test]
    fn invalid_shapes_are_refused() {
        for (shape, words) in [
            (Shape::Ramp { from: -1.0, to: 1.0, over: at(60), after: at(0) }, "from = -1"),
            (Shape::Ramp { from: 0.0, to: 1.0, over: at(9), after: at(0) }, "over"),
            (Shape::Burst { factor: 2.0, every: at(5), lasts: at(6), after: at(0) }, "lasts"),
            (Shape::Burst { factor: f64::NAN, every: at(5), lasts: at(1), after: at(0) }, "NaN"),
            (Shape::Wave { period: at(60), low: 1.5 }, "low = 1.5"),
        ] {
            let problem = shape.check().unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
    }
}
