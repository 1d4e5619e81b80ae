// SPDX-License-Identifier: Apache-2.0
//! What the log says about the ages of readings: a line when one turns stale, old, unavailable or fresh again, and
//! none in between.

use std::collections::HashMap;
use std::time::Duration;

use collector_core::{Freshness, FreshnessThresholds, ModelRef, Tick, duration};

/// Models that are named at once for each kind of change; the others are counted.
const NAMED_MAX: usize = 20;

/// What was last logged of each model that was not fresh.
#[derive(Clone, Default)]
pub(crate) struct AgeLog(HashMap<ModelRef, Logged>);

#[derive(Clone, Copy)]
struct Logged {
    level: Level,
    since: Tick,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Level {
    Fresh,
    Stale,
    /// Beyond `stale_threshold`: worth a warning.
    Old,
    Unavailable,
}

impl Level {
    fn of(age: Duration, thresholds: &FreshnessThresholds) -> Self {
        match thresholds.determine_status(age) {
            Freshness::Unavailable => Self::Unavailable,
            _ if thresholds.warns(age) => Self::Old,
            Freshness::Fresh => Self::Fresh,
            Freshness::Stale => Self::Stale,
        }
    }
}

impl AgeLog {
    /// Logs what has changed, given each tracked model that has a reading, with its age.
    pub(crate) fn update(
        &mut self,
        ages: &HashMap<ModelRef, Duration>,
        thresholds: &FreshnessThresholds,
        now: Tick,
    ) {
        self.0.retain(|model, _| ages.contains_key(model));
        let mut changes: Vec<_> = ages
            .iter()
            .filter_map(|(model, age)| {
                Some((self.change(model, *age, thresholds, now)?, model, *age))
            })
            .collect();
        changes.sort_unstable_by(|one, other| (one.0.level, one.1).cmp(&(other.0.level, other.1)));
        for of_level in changes.chunk_by(|one, other| one.0.level == other.0.level) {
            for (logged, model, age) in of_level.iter().take(NAMED_MAX) {
                log(*logged, model, *age, thresholds, now);
            }
            let others = of_level.len().saturating_sub(NAMED_MAX);
            if others > 0 {
                log_others(of_level[0].0.level, others);
            }
        }
    }

    /// What has to be logged of a model: its level is another than the last that was logged. A level that falls is
    /// logged only when it is fresh.
    fn change(
        &mut self,
        model: &ModelRef,
        age: Duration,
        thresholds: &FreshnessThresholds,
        now: Tick,
    ) -> Option<Logged> {
        let level = Level::of(age, thresholds);
        let before = self.0.get(model).copied();
        match before {
            None if level == Level::Fresh => None,
            Some(before) if level == Level::Fresh => {
                self.0.remove(model);
                Some(Logged { level, ..before })
            }
            Some(before) if level <= before.level => None,
            _ => {
                let logged = Logged { level, since: before.map_or(now, |before| before.since) };
                self.0.insert(model.clone(), logged);
                Some(logged)
            }
        }
    }
}

fn log(
    logged: Logged,
    model: &ModelRef,
    age: Duration,
    thresholds: &FreshnessThresholds,
    now: Tick,
) {
    let ModelRef { model, namespace, .. } = model;
    let age = duration::format_seconds(age);
    match logged.level {
        Level::Fresh => tracing::info!(
            ?model, ?namespace, %age, notFreshFor = %duration::format_seconds(logged.since.age(now)), "Metrics are fresh again"
        ),
        Level::Stale => tracing::info!(
            ?model, ?namespace, %age,
            threshold = %duration::format(thresholds.fresh_threshold), "Metrics are stale"
        ),
        Level::Old => tracing::warn!(
            ?model, ?namespace, %age,
            threshold = %duration::format(thresholds.stale_threshold), "Metrics are stale"
        ),
        Level::Unavailable => tracing::warn!(
            ?model, ?namespace, %age,
            threshold = %duration::format(thresholds.unavailable_threshold), "Metrics are unavailable"
        ),
    }
}

/// The line for those that are not named.
fn log_others(level: Level, models: usize) {
    match level {
        Level::Fresh => tracing::info!(models, "Metrics of more models are fresh again"),
        Level::Stale => tracing::info!(models, "Metrics of more models are stale"),
        Level::Old => tracing::warn!(models, "Metrics of more models are stale"),
        Level::Unavailable => tracing::warn!(models, "Metrics of more models are unavailable"),
    }
}
