// SPDX-License-Identifier: Apache-2.0
//! `collector watch`: a line for each change of a reading.

mod change;

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use collector_config::Loader;
use collector_core::{CollectError, MetricsCollector, ModelRef, Reading, Replicas, TrackedModel};
use collector_engine::CachingCollector;
use serde_json::Value;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use self::change::{Seen, line};
use super::select::Followed;
use super::settings::{Settings, Verbosity, format};
use crate::args::{Format, GlobalArgs, SelectArgs, Selection};
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::output::{print_on, replicas_item, to_json};
use crate::signals::StopSignals;

/// When readings are read again. They come from memory, and change with the refreshes in the background.
pub(super) fn every_second() -> Interval {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

pub(super) fn run(
    base: &Loader,
    global: &GlobalArgs,
    select: &SelectArgs,
    window: Option<Duration>,
    timeout: Option<Duration>,
) -> Result<Exit, Failure> {
    let format = format(global, &[Format::Table, Format::Json])?;
    let selection = select.selection()?;
    let settings = Settings::load_with_window(base, global, Verbosity::Lines, window)?;
    settings.warn();
    super::block_on(async {
        let mut signals = StopSignals::catch()?;
        let collector = settings.collector_in_background().await?;
        let watch = Watch { settings: &settings, format, seen: HashMap::new() };
        tokio::select! {
            ended = watch.follow(&collector, &selection) => ended,
            _ = signals.received() => Ok(Exit::Success),
            () = sleep(timeout.unwrap_or(Duration::MAX)) => Ok(Exit::Success),
        }
    })
}

/// What was printed last of each model.
struct Watch<'a> {
    settings: &'a Settings,
    format: Format,
    seen: HashMap<ModelRef, Printed>,
}

struct Printed {
    seen: Seen,
    document: Value,
}

impl Watch<'_> {
    /// Prints changes for as long as somebody reads them.
    async fn follow(
        mut self,
        collector: &CachingCollector,
        selection: &Selection,
    ) -> Result<Exit, Failure> {
        let mut models = Followed::default();
        let mut ticks = every_second();
        loop {
            ticks.tick().await;
            if let Some(failure) = models.update(self.settings, collector, selection).await? {
                for problem in failure.problems() {
                    logging::report_error(&problem, &failure.advice());
                }
            }
            let readings = collector.collect_many(models.models()).await;
            for (model, reading) in models.models().iter().zip(readings) {
                let line = self.changed(model, reading, self.settings.clock.wall());
                if let Some(line) = line
                    && !print_on(&(line + "\n"))?
                {
                    return Ok(Exit::Success);
                }
            }
        }
    }

    /// The line about a model, if it has changed since its last line.
    fn changed(
        &mut self,
        model: &ModelRef,
        reading: Result<Reading<Replicas>, CollectError>,
        wall: SystemTime,
    ) -> Option<String> {
        let now = Seen::of(&reading);
        let before = self.seen.get(model);
        if self.format == Format::Table {
            let what = now.changes_since(before.map(|printed| &printed.seen))?;
            self.seen.insert(model.clone(), Printed { seen: now, document: Value::Null });
            return Some(line(model, &what, wall));
        }
        let read =
            TrackedModel { model: model.clone(), replicas: reading, allocations: Vec::new() };
        let item = replicas_item(&read, wall);
        let mut document = serde_json::to_value(&item).ok()?;
        change::without_ages(&mut document);
        if before.is_some_and(|printed| printed.document == document) {
            return None;
        }
        self.seen.insert(model.clone(), Printed { seen: now, document });
        Some(to_json(&item))
    }
}
