// SPDX-License-Identifier: Apache-2.0
//! Adaptive ttls against fixed ones, on recorded load shapes: how wrong the held readings are, and what it
//! costs to have them. No clock and no server: the same figures each time.

mod record;
mod replay;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use collector_engine::adaptive::Bounds;

use self::record::Recording;
use self::replay::{Outcome, Policy, replay};
use crate::plot::{Axis, Bar, Group, Line, Scale, bars, lines};
use crate::report::{Figure, Report};

/// Where the documentation shows the curve.
const CURVE: &str = "docs/plots/adaptive.svg";
/// Where it shows each load shape.
const SHAPES: &str = "docs/plots/adaptive-shapes.svg";

/// The fleet that is like a real one: most models do little.
const MIXED: &str = "mixed fleet";

/// Fixed ttls, in seconds.
const FIXED: [(&str, f64); 5] = [
    ("fixed 7.5s", 7.5),
    ("fixed 15s", 15.0),
    ("fixed 30s", 30.0),
    ("fixed 60s", 60.0),
    ("fixed 120s", 120.0),
];
/// Adaptive ones, from half of a fixed one to twice as much, as by default.
const ADAPTIVE: [(&str, f64); 3] =
    [("adaptive 15s", 15.0), ("adaptive 30s", 30.0), ("adaptive 60s", 60.0)];
/// The same from a quarter to four times as much.
const WIDE: [(&str, f64); 3] =
    [("adaptive 15s, wide", 15.0), ("adaptive 30s, wide", 30.0), ("adaptive 60s, wide", 60.0)];

/// What all policies make of one recording.
struct Results {
    fixed: Vec<Outcome>,
    adaptive: Vec<Outcome>,
    wide: Vec<Outcome>,
}

/// Measures; draws the curve when it is not `quick`, which records too little for the documentation.
pub(crate) fn measure(quick: bool, report: &mut Report) -> Result<()> {
    let seconds = if quick { 1800 } else { 2 * 3600 };
    let mut worst_alike: f64 = 0.0;
    let mut shapes = Vec::new();
    for recording in record::all(seconds)? {
        let results = play(&recording, report);
        // In the order of their lists: 30 s.
        let (fixed, adaptive) = (results.fixed[2], results.adaptive[1]);
        // What a fixed ttl of as many looks would be wrong by.
        let same_looks = error_for(&results.fixed, adaptive.looks)?;
        let bar = |name, error: f64| Bar { name, value: error * 100.0 };
        let pair = vec![bar("fixed ttl", same_looks), bar(ADAPTIVE[1].0, adaptive.error)];
        shapes.push(Group { heading: recording.name, bars: pair });
        if recording.name == MIXED {
            let name = "adaptive.mixed.error_vs_fixed_of_same_looks";
            report.goal(name, 0.8, adaptive.error / same_looks);
            let same = looks_for(&results.fixed, adaptive.error)?;
            report.goal("adaptive.mixed.looks_vs_fixed_of_same_error", 0.7, adaptive.looks / same);
            report.goal("adaptive.mixed.looks_vs_fixed_30s", 1.1, adaptive.looks / fixed.looks);
            if !quick {
                draw(Path::new(CURVE), &results)?;
            }
        } else if fixed.error > 0.0 {
            worst_alike = worst_alike.max(adaptive.error / same_looks);
        }
    }
    if !quick {
        let title = "How wrong a held reading is, for the same looks";
        bars(Path::new(SHAPES), title, "%", Scale::Linear, &shapes)?;
    }
    // Where all models move alike there is nothing to win, and little may be lost.
    report.goal("adaptive.alike.error_vs_fixed_of_same_looks", 1.1, worst_alike);
    Ok(())
}

fn play(recording: &Recording, report: &mut Report) -> Results {
    let seconds = Duration::from_secs_f64;
    let mut run = |(system, ttl): (&'static str, f64), spread: Option<f64>| {
        let policy = match spread {
            None => Policy::Fixed(seconds(ttl)),
            Some(spread) => Policy::Adaptive(Bounds {
                base: seconds(ttl),
                min: seconds(ttl / spread),
                max: seconds(ttl * spread),
            }),
        };
        let outcome = replay(recording, &policy);
        report.row("adaptive", recording.name, system, &figures(&outcome));
        outcome
    };
    Results {
        fixed: FIXED.map(|policy| run(policy, None)).to_vec(),
        adaptive: ADAPTIVE.map(|policy| run(policy, Some(2.0))).to_vec(),
        wide: WIDE.map(|policy| run(policy, Some(4.0))).to_vec(),
    }
}

fn figures(outcome: &Outcome) -> [Figure; 5] {
    let figure = |name, value, unit| Figure { name, value, unit };
    [
        figure("looks", outcome.looks, "a minute and model"),
        figure("batches", outcome.batches, "a minute"),
        figure("error", outcome.error * 100.0, "%"),
        figure("error p95", outcome.error_p95 * 100.0, "%"),
        figure("ttl changes", outcome.changes, "an hour and model"),
    ]
}

/// How many looks a fixed ttl would need for this error.
fn looks_for(fixed: &[Outcome], error: f64) -> Result<f64> {
    between(fixed.iter().map(|outcome| (outcome.error, outcome.looks)), error)
}

/// How wrong a fixed ttl of as many looks would be.
fn error_for(fixed: &[Outcome], looks: f64) -> Result<f64> {
    between(fixed.iter().rev().map(|outcome| (outcome.looks, outcome.error)), looks)
}

/// The y at `x`, between the two points that are nearest, in a line on axes of powers.
fn between(points: impl Iterator<Item = (f64, f64)>, x: f64) -> Result<f64> {
    let points: Vec<(f64, f64)> = points.collect();
    let around = |pair: &&[(f64, f64)]| (pair[0].0..=pair[1].0).contains(&x);
    let pair = points.windows(2).find(around).context("no fixed ttl is like it")?;
    let [(from, low), (to, high)] = [pair[0], pair[1]];
    if low == 0.0 && high == 0.0 {
        return Ok(0.0);
    }
    Ok(low * (high / low).powf((x / from).ln() / (to / from).ln()))
}

fn draw(path: &Path, results: &Results) -> Result<()> {
    let line = |name, policies: &[(&str, f64)], outcomes: &[Outcome]| Line {
        name,
        points: outcomes.iter().map(|outcome| (outcome.looks, outcome.error * 100.0)).collect(),
        labels: policies.iter().map(|(_, ttl)| format!("{ttl}s")).collect(),
    };
    lines(
        path,
        "How wrong a held reading is, by what it costs (mixed fleet)",
        Axis { label: "looks a minute and model", scale: Scale::Linear },
        Axis { label: "mean error, %", scale: Scale::Linear },
        &[
            line("fixed ttl", &FIXED, &results.fixed),
            line("adaptive, from half to twice", &ADAPTIVE, &results.adaptive),
            line("adaptive, from a quarter to four times", &[], &results.wide),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_and_errors_lie_between_those_of_two_ttls() -> Result<()> {
        let outcome = |looks, error| Outcome { looks, error, ..Outcome::default() };
        let fixed = [outcome(4.0, 0.01), outcome(2.0, 0.02), outcome(1.0, 0.04)];
        assert!((looks_for(&fixed, 0.02)? - 2.0).abs() < 1e-9);
        assert!((looks_for(&fixed, 0.02 * 2_f64.sqrt())? - 2_f64.sqrt()).abs() < 1e-9);
        assert!(looks_for(&fixed, 0.1).is_err());
        assert!((error_for(&fixed, 2.0 * 2_f64.sqrt())? - 0.02 / 2_f64.sqrt()).abs() < 1e-9);
        Ok(())
    }
}
