// SPDX-License-Identifier: Apache-2.0
//! Plays a recording to a policy of when to look, and counts what it costs and how wrong it is.

use std::time::Duration;

use collector_core::Tick;
use collector_engine::adaptive::{AdaptiveTtl, Bounds, Signal};

use super::record::Recording;

/// When to look at which model.
pub(crate) enum Policy {
    /// At all of them, at this interval.
    Fixed(Duration),
    /// As the collector does with `cache.adaptive`.
    Adaptive(Bounds),
}

/// What became of it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// Looks at one model, a minute and model.
    pub(crate) looks: f64,
    /// Looks at any number of models at once, a minute.
    pub(crate) batches: f64,
    /// How wrong what is held is, on average over seconds and models; a share.
    pub(crate) error: f64,
    /// The same at the worst twentieth of all seconds and models.
    pub(crate) error_p95: f64,
    /// How often a model's ttl changed, an hour and model.
    pub(crate) changes: f64,
}

/// Plays the whole recording. What is held in the first two minutes does not count: every policy
/// starts by looking at everything.
pub(crate) fn replay(recording: &Recording, policy: &Policy) -> Outcome {
    let models = recording.models.len();
    let seconds = recording.models.first().map_or(0, Vec::len);
    let mut looker = Looker::new(models, policy);
    let mut held: Vec<Signal> = recording.models.iter().map(|model| model[0]).collect();
    let mut errors = Vec::with_capacity(models * seconds);
    let (mut looks, mut batches) = (0, 0);
    for second in 0..seconds {
        let due = looker.due(second, |model| recording.models[model][second]);
        for model in &due {
            held[*model] = recording.models[*model][second];
        }
        looks += due.len();
        batches += usize::from(!due.is_empty());
        if second >= 120 {
            let error = |model: usize| held[model].error(&recording.models[model][second]);
            errors.extend((0..models).map(error));
        }
    }
    let minutes = seconds as f64 / 60.0;
    errors.sort_unstable_by(f64::total_cmp);
    Outcome {
        looks: looks as f64 / minutes / models as f64,
        batches: f64::from(u32::try_from(batches).unwrap_or(u32::MAX)) / minutes,
        error: errors.iter().sum::<f64>() / errors.len() as f64,
        error_p95: errors[errors.len() * 95 / 100],
        changes: looker.changes as f64 * 60.0 / minutes / models as f64,
    }
}

/// A policy at work.
struct Looker {
    /// How often it is looked which models are due.
    tick: Duration,
    last_tick: Option<u128>,
    bounds: Option<Bounds>,
    models: Vec<Looked>,
    changes: usize,
}

struct Looked {
    /// The second of the last look.
    at: Option<usize>,
    ttl: Duration,
    learned: Option<AdaptiveTtl>,
}

impl Looker {
    fn new(models: usize, policy: &Policy) -> Self {
        // Looks come when a ttl is over, here as with fixed ones.
        let (tick, ttl, bounds) = match policy {
            Policy::Fixed(ttl) => (*ttl, *ttl, None),
            Policy::Adaptive(bounds) => (bounds.min, bounds.base, Some(*bounds)),
        };
        let learned = bounds.as_ref().map(AdaptiveTtl::new);
        let models = (0..models).map(|_| Looked { at: None, ttl, learned }).collect();
        Self { tick, last_tick: None, bounds, models, changes: 0 }
    }

    /// The models that are looked at in a second, all in one batch.
    fn due(&mut self, second: usize, look: impl Fn(usize) -> Signal) -> Vec<usize> {
        // Ticks need not fall on whole seconds.
        let ticks = second as u128 * 1000 / self.tick.as_millis();
        if self.last_tick == Some(ticks) {
            return Vec::new();
        }
        self.last_tick = Some(ticks);
        let now = Tick::from_nanos(second as u64 * 1_000_000_000);
        // What comes due before the middle of the way to the next tick is due in this one.
        let half = self.tick.as_secs_f64() / 2.0;
        let due: Vec<usize> = (0..self.models.len())
            .filter(|place| {
                let model = &self.models[*place];
                model.at.is_none_or(|at| (second - at) as f64 > model.ttl.as_secs_f64() - half)
            })
            .collect();
        for place in &due {
            let model = &mut self.models[*place];
            model.at = Some(second);
            if let (Some(learned), Some(bounds)) = (&mut model.learned, &self.bounds) {
                learned.found(bounds, now, look(*place));
                self.changes += usize::from(learned.ttl() != model.ttl);
                model.ttl = learned.ttl();
            }
        }
        due
    }
}
