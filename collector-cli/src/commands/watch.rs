//! `collector watch`: a line for each change of a reading.

mod change;

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use collector_config::Loader;
use collector_core::{CollectError, MetricsCollector, ModelRef, Reading, Replicas, TrackedModel};
use collector_engine::CachingCollector;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::change::{Seen, line};
use super::select::listed;
use super::settings::{Settings, Verbosity, format};
use crate::args::{Format, GlobalArgs, SelectArgs, Selection};
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::output::{print_on, replicas_item, to_json};
use crate::signals::StopSignals;

/// How often readings are looked at. They come from memory, and change with the refreshes in the background.
const LOOK: Duration = Duration::from_secs(1);

/// After how many looks models are listed again, for new ones.
const LOOKS_PER_LIST: u32 = 30;

pub(super) fn run(
    base: &Loader,
    global: &GlobalArgs,
    select: &SelectArgs,
    window: Option<Duration>,
    timeout: Option<Duration>,
) -> Result<Exit, Failure> {
    let format = format(global, &[Format::Table, Format::Json])?;
    let selection = select.selection()?;
    let settings = Settings::load_with_window(base, global, Verbosity::OneShot, window)?;
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
        let mut models = Models::default();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            models.update(self.settings, collector, selection).await?;
            let readings = collector.collect_many(&models.known).await;
            for (model, reading) in models.known.iter().zip(readings) {
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

/// The models that are watched. One that is no longer listed is watched on: that it is missing is a change.
#[derive(Default)]
struct Models {
    known: Vec<ModelRef>,
    looks: u32,
    /// Why there is no list, as it was reported last.
    problem: Option<String>,
}

impl Models {
    async fn update(
        &mut self,
        settings: &Settings,
        collector: &dyn MetricsCollector,
        selection: &Selection,
    ) -> Result<(), Failure> {
        let is_due = self.looks.is_multiple_of(LOOKS_PER_LIST) || self.problem.is_some();
        self.looks = self.looks.wrapping_add(1);
        if !is_due {
            return Ok(());
        }
        if let Selection::One(model) = selection {
            if self.known.is_empty() {
                settings.before_a_read(Some(&model.namespace)).await?;
                self.known.push(model.clone());
            }
            return Ok(());
        }
        match listed(settings, collector, selection).await {
            Ok(listed) => {
                let new = listed.into_iter().filter(|model| !self.known.contains(model));
                let new: Vec<ModelRef> = new.collect();
                self.known.extend(new);
                self.problem = None;
            }
            Err(failure) if failure.exit() == Exit::Usage => return Err(failure),
            // It may come: a watch outlives the restart of a server.
            Err(failure) => {
                let problem = failure.problems().join("\n");
                if self.problem.as_ref() != Some(&problem) {
                    logging::report_error(&problem, &failure.advice());
                    self.problem = Some(problem);
                }
            }
        }
        Ok(())
    }
}
