// SPDX-License-Identifier: Apache-2.0
//! Systems that do one thing, raced against each other: a table of the report, a group of the criterion
//! benches, and what callgrind counts.

use anyhow::{Context as _, Result};

use crate::race::{Judged, System, race};
use crate::report::{Figure, Report};

/// One thing, done by several systems.
pub struct Case {
    pub(crate) suite: &'static str,
    pub(crate) name: &'static str,
    pub(crate) systems: Vec<System<'static>>,
}

/// What one operation cost one system.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) seconds: f64,
    /// Not a number where they were not counted.
    pub(crate) allocations: f64,
}

/// What each system spent.
pub(crate) struct Outcome(Vec<(&'static str, Spent)>);

impl Case {
    pub(crate) fn new(
        suite: &'static str,
        name: &'static str,
        systems: Vec<System<'static>>,
    ) -> Self {
        Self { suite, name, systems }
    }

    /// How the case is called, with its suite.
    pub fn title(&self) -> String {
        format!("{}: {}", self.suite, self.name)
    }

    /// The systems, in the order of the tables.
    pub fn systems(&mut self) -> &mut [System<'static>] {
        &mut self.systems
    }

    /// Races the systems, and adds a row for each.
    pub(crate) fn measure(mut self, rounds: u32, report: &mut Report) -> Result<Outcome> {
        let seconds = race(rounds, &mut self.systems, Judged::ByBest)?;
        let mut spent = Vec::new();
        for (system, seconds) in self.systems.iter_mut().zip(seconds) {
            let allocations = system.allocations()?;
            let counted = Figure { name: "allocations", value: allocations, unit: "" };
            report.row(self.suite, self.name, system.name(), &[time(seconds), counted]);
            spent.push((system.name(), Spent { seconds, allocations }));
        }
        Ok(Outcome(spent))
    }

    /// The same where several threads work: their allocations are not counted, and the round in the middle
    /// counts.
    pub(crate) fn measure_threads(mut self, rounds: u32, report: &mut Report) -> Result<Outcome> {
        let seconds = race(rounds, &mut self.systems, Judged::ByMedian)?;
        let mut spent = Vec::new();
        for (system, seconds) in self.systems.iter().zip(seconds) {
            report.row(self.suite, self.name, system.name(), &[time(seconds)]);
            spent.push((system.name(), Spent { seconds, allocations: f64::NAN }));
        }
        Ok(Outcome(spent))
    }
}

fn time(seconds: f64) -> Figure {
    Figure { name: "time", value: seconds * 1e9, unit: "ns" }
}

impl Outcome {
    /// What a system spent on one operation.
    pub(crate) fn of(&self, system: &str) -> Result<Spent> {
        let found = self.0.iter().find(|(name, _)| *name == system);
        Ok(found.with_context(|| format!("{system} was not measured"))?.1)
    }
}
