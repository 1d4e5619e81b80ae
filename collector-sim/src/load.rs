// SPDX-License-Identifier: Apache-2.0
//! The load on a variant: how many requests arrive, and what each needs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::shape::Shape;

/// The deviation of [`Variation::Spread`] from a mean, as a fraction of it.
pub(crate) const SPREAD: f64 = 0.5;

/// The load of all clients on one variant, for all of its pods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Load {
    /// Requests that arrive per minute, before [`shape`](Self::shape); 0 is an idle variant.
    pub requests_per_minute: f64,
    /// How the rate changes over time.
    pub shape: Shape,
    /// Mean length of a prompt, in tokens.
    pub prompt_tokens: u32,
    /// Mean length of an answer, in tokens.
    pub output_tokens: u32,
    /// Mean time from admission to the first token. A client sees this plus the time in the queue.
    #[serde(with = "collector_core::duration")]
    pub ttft: Duration,
    /// Mean time between two tokens of an answer.
    #[serde(with = "collector_core::duration")]
    pub itl: Duration,
    /// Fraction of the prompt tokens that are in the prefix cache, 0 to 1.
    pub prefix_hit_ratio: f64,
    /// The distribution of arrivals over time.
    pub arrivals: Arrivals,
    /// The differences between requests.
    pub variation: Variation,
}

impl Default for Load {
    /// A steady chat load: four equal requests a second, so that rates can be compared exactly.
    fn default() -> Self {
        Self {
            requests_per_minute: 240.0,
            shape: Shape::Steady,
            prompt_tokens: 500,
            output_tokens: 100,
            ttft: Duration::from_millis(80),
            itl: Duration::from_millis(20),
            prefix_hit_ratio: 0.4,
            arrivals: Arrivals::Even,
            variation: Variation::Fixed,
        }
    }
}

/// The distribution of arrivals over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// Evenly spaced.
    #[default]
    Even,
    /// A Poisson process: independent clients.
    Poisson,
}

/// The differences between requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variation {
    /// Every request has the mean lengths.
    #[default]
    Fixed,
    /// Lengths and the time between tokens are drawn, evenly from half to one and a half times
    /// their mean; the time to the first token follows the length of the prompt.
    Spread,
}

/// One request to an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) prompt_tokens: u32,
    /// At least 1.
    pub(crate) output_tokens: u32,
    /// From admission to the first token.
    pub(crate) prefill: Duration,
    /// Between two tokens.
    pub(crate) itl: Duration,
    /// The number of its LoRA adapter; `None` for the base model.
    pub(crate) adapter: Option<u16>,
}

impl Load {
    /// Draws the next request, to the base model or to one of `adapters`.
    pub(crate) fn request(&self, adapters: u16, rng: &mut fastrand::Rng) -> Request {
        let mut around = |mean: f64| match self.variation {
            Variation::Fixed => mean,
            Variation::Spread => mean * (1.0 - SPREAD + 2.0 * SPREAD * rng.f64()),
        };
        let prompt_tokens = tokens(around(f64::from(self.prompt_tokens)));
        let output_tokens = tokens(around(f64::from(self.output_tokens)));
        let itl = self.itl.mul_f64(around(1.0));
        let prefill =
            self.ttft.mul_f64(f64::from(prompt_tokens) / f64::from(self.prompt_tokens.max(1)));
        // Nothing is drawn without a choice, so that adapters elsewhere change nothing.
        let adapter = if adapters == 0 { None } else { rng.u16(0..=adapters).checked_sub(1) };
        Request { prompt_tokens, output_tokens, prefill, itl, adapter }
    }

    /// Returns the length of the longest request that can be drawn, in tokens of prompt and answer.
    pub(crate) fn longest_request(&self) -> u64 {
        let stretch = match self.variation {
            Variation::Fixed => 1.0,
            Variation::Spread => 1.0 + SPREAD,
        };
        u64::from(tokens(f64::from(self.prompt_tokens) * stretch))
            + u64::from(tokens(f64::from(self.output_tokens) * stretch))
    }
}

/// Converts a drawn length to tokens, at least 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded, positive, and `as` saturates"
)]
fn tokens(length: f64) -> u32 {
    (length.round() as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_requests_keep_the_described_means_and_never_exceed_the_longest() {
        let load = Load { variation: Variation::Spread, ..Load::default() };
        let mut rng = fastrand::Rng::with_seed(1);
        let drawn: Vec<_> = (0..20_000).map(|_| load.request(0, &mut rng)).collect();
        let mean = |of: &dyn Fn(&Request) -> f64| drawn.iter().map(of).sum::<f64>() / 20_000.0;

        assert!((mean(&|r| f64::from(r.prompt_tokens)) / 500.0 - 1.0).abs() < 0.01);
        assert!((mean(&|r| f64::from(r.output_tokens)) / 100.0 - 1.0).abs() < 0.01);
        assert!((mean(&|r| r.prefill.as_secs_f64()) / 0.08 - 1.0).abs() < 0.01);
        assert!((mean(&|r| r.itl.as_secs_f64()) / 0.02 - 1.0).abs() < 0.01);
        let longest = drawn.iter().map(|r| u64::from(r.prompt_tokens + r.output_tokens)).max();
        assert!(longest.unwrap() <= load.longest_request());
    }
}
