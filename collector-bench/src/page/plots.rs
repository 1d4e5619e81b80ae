// SPDX-License-Identifier: Apache-2.0
//! The plots of the page. What was not measured is not drawn.

use std::path::Path;

use anyhow::Result;

use crate::hit;
use crate::plot::{self, Axis, Bar, Group, Line, Scale};
use crate::report::{Report, Row};

/// A plot that was drawn.
pub(super) struct Plot {
    pub(super) suite: &'static str,
    pub(super) title: &'static str,
    pub(super) file: &'static str,
}

/// Draws them into `plots` in the folder of the documentation.
pub(super) fn draw(docs: &Path, report: &Report) -> Result<Vec<Plot>> {
    let folder = docs.join("plots");
    let mut plots = Vec::new();
    for bars in &BARS {
        if bars.draw(&folder, report)? {
            plots.push(Plot { suite: bars.suite, title: bars.title, file: bars.file });
        }
    }
    plots.extend(growth(&folder, report)?);
    Ok(plots)
}

/// One figure of some cases, as bars.
struct Bars {
    suite: &'static str,
    cases: &'static [&'static str],
    figure: &'static str,
    unit: &'static str,
    scale: Scale,
    title: &'static str,
    file: &'static str,
}

const BARS: [Bars; 6] = [
    Bars {
        suite: "hit",
        cases: &[hit::HOT_WRITTEN, hit::HOT_ALIKE],
        figure: "time",
        unit: "ns",
        scale: Scale::Linear,
        title: "A hit among 100 entries",
        file: "hit-hot.svg",
    },
    Bars {
        suite: "hit",
        cases: &[hit::SPREAD_WRITTEN, hit::SPREAD_ALIKE],
        figure: "time",
        unit: "ns",
        scale: Scale::Linear,
        title: "A hit among 10 000 entries, spread",
        file: "hit-spread.svg",
    },
    Bars {
        suite: "threads",
        cases: &crate::threads::CASES,
        figure: "time",
        unit: "ns",
        scale: Scale::Linear,
        title: "A hit on two threads",
        file: "threads.svg",
    },
    Bars {
        suite: "memory",
        cases: &[crate::memory::ENTRY],
        figure: "heap",
        unit: "B",
        scale: Scale::Linear,
        title: "Memory of an entry, besides its value",
        file: "memory.svg",
    },
    Bars {
        suite: "refresh",
        cases: &["10 variants", "100 variants", "1000 variants"],
        figure: "wall",
        unit: "s",
        scale: Scale::Log,
        title: "One refresh from Prometheus",
        file: "refresh-wall.svg",
    },
    Bars {
        suite: "refresh",
        cases: &["10 variants", "100 variants", "1000 variants"],
        figure: "server allocated",
        unit: "MB",
        scale: Scale::Log,
        title: "What a refresh makes Prometheus allocate",
        file: "refresh-allocated.svg",
    },
];

impl Bars {
    /// False when there is nothing to draw.
    fn draw(&self, folder: &Path, report: &Report) -> Result<bool> {
        let group = |case: &&'static str| {
            let rows = report.rows_of(self.suite).filter(|row| row.case == *case);
            let bar = |row: &Row| {
                let value = row.figures.iter().find(|figure| figure.name == self.figure)?.value;
                // An axis of powers has no place for it.
                let shown = value.is_finite() && (value > 0.0 || self.scale == Scale::Linear);
                shown.then_some(Bar { name: row.system, value })
            };
            Group { heading: case, bars: rows.filter_map(bar).collect() }
        };
        let groups = self.cases.iter().map(group).filter(|group| !group.bars.is_empty());
        let groups: Vec<_> = groups.collect();
        if !groups.is_empty() {
            plot::bars(&folder.join(self.file), self.title, self.unit, self.scale, &groups)?;
        }
        Ok(!groups.is_empty())
    }
}

/// The time of a hit as entries become more.
fn growth(folder: &Path, report: &Report) -> Result<Option<Plot>> {
    let (suite, title, file) = ("hit", "A hit as entries become more", "hit-growth.svg");
    let time = |row: &Row| Some(row.figures.iter().find(|figure| figure.name == "time")?.value);
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (entries, case) in hit::SIZES {
        for row in report.rows_of(suite).filter(|row| row.case == case) {
            let Some(time) = time(row) else { continue };
            let place = lines.iter().position(|line| line.name == row.system);
            let place = place.unwrap_or_else(|| {
                lines.push(Line { name: row.system, points: Vec::new(), labels: Vec::new() });
                lines.len() - 1
            });
            lines[place].points.push((entries as f64, time));
        }
    }
    if lines.is_empty() {
        return Ok(None);
    }
    let x = Axis { label: "entries, read in an order by chance", scale: Scale::Log };
    let y = Axis { label: "ns a hit, like for like", scale: Scale::Log };
    plot::lines(&folder.join(file), title, x, y, &lines)?;
    Ok(Some(Plot { suite, title, file }))
}
