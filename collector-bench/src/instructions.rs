// SPDX-License-Identifier: Apache-2.0
//! Instructions of one operation, counted by callgrind: unlike times, the same on a busy machine and an idle
//! one.

use std::env;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::case::Case;
use crate::report::{Figure, Report};
use crate::{hit, invalidate, scan};

const SUITE: &str = "instructions";
/// Operations in the shorter of two counts, and how many more are in the longer. What is in both, the start
/// of the program and its warming up, falls out of the difference.
const WARM: u32 = 2000;
const COUNTED: u32 = 20_000;

/// What is counted: cases of few entries where it makes no difference, for no cache of a processor does here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum)]
pub(crate) enum Counted {
    HotWritten,
    HotAlike,
    Overwrite,
    RemoveOfFew,
    RemoveOfMany,
    Scan,
}

impl Counted {
    async fn case(self) -> Result<Case> {
        Ok(match self {
            Self::HotWritten => hit::hot_as_written().await?,
            Self::HotAlike => hit::hot_like_for_like().await?,
            Self::Overwrite => invalidate::overwrite(),
            Self::RemoveOfFew => invalidate::remove_and_put("one model of 1000", 1000),
            Self::RemoveOfMany => invalidate::remove_and_put("one model of 10 000", 10_000),
            Self::Scan => scan::lines(),
        })
    }

    /// Instructions of one operation of a system.
    pub(crate) async fn of(self, system: &str) -> Result<f64> {
        let case = self.case().await?;
        let found = case.systems.iter().find(|it| it.name() == system);
        of_operation(self, system, found.context("no such system")?.operations())
    }
}

/// Counts for each system; in a quick run for those that a goal compares.
pub(crate) async fn measure(quick: bool, report: &mut Report) -> Result<()> {
    if !is_there() {
        report.note(SUITE, "not measured: there is no `valgrind` program");
        return Ok(());
    }
    let quick_ones = [hit::KEYED, hit::HANDLE, hit::DYN];
    for counted in [Counted::HotWritten, Counted::HotAlike, Counted::Overwrite] {
        let case = counted.case().await?;
        for system in &case.systems {
            let name = system.name();
            if quick && (counted != Counted::HotWritten || !quick_ones.contains(&name)) {
                continue;
            }
            match of_operation(counted, name, system.operations()) {
                Ok(value) => {
                    let figures = [Figure { name: "instructions", value, unit: "" }];
                    report.row(SUITE, case.name, name, &figures);
                }
                Err(error) => report.note(SUITE, format!("{name}: not measured: {error:#}")),
            }
        }
    }
    Ok(())
}

fn is_there() -> bool {
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    valgrind.status().is_ok_and(|status| status.success())
}

fn of_operation(counted: Counted, system: &str, operations: u32) -> Result<f64> {
    let few = (WARM / operations).max(1);
    let more = (COUNTED / operations).max(1);
    // Both at once, for there is most often a second processor.
    let shorter = start(counted, system, few)?;
    let longer = start(counted, system, few + more)?;
    let (shorter, longer) = (collected(shorter), collected(longer));
    Ok((longer? - shorter?) / f64::from(more * operations))
}

/// Starts this program under callgrind, to do nothing but so many runs of a system.
fn start(counted: Counted, system: &str, runs: u32) -> Result<Child> {
    let case = counted.to_possible_value().context("no name")?;
    Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["--repeat-case", case.get_name(), "--repeat-system", system])
        .args(["--repeat-runs", &runs.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run valgrind")
}

/// Instructions of such a program.
fn collected(program: Child) -> Result<f64> {
    let output = program.wait_with_output().context("valgrind: its output is lost")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let why = ["unhandled", "terminating", "error"];
        let reason = said.lines().find(|line| why.iter().any(|word| line.contains(word)));
        bail!("valgrind: {}", reason.unwrap_or("it failed").trim());
    }
    let line = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, count) = line.context("callgrind does not say what it collected")?;
    count.trim().parse().with_context(|| format!("not a count: {count}"))
}

/// The other side of `start`: some runs of one system, and nothing else.
pub(crate) async fn repeat(counted: Counted, system: &str, runs: u32) -> Result<()> {
    let mut case = counted.case().await?;
    let system = case.systems.iter_mut().find(|it| it.name() == system);
    system.context("no such system")?.run(runs)?;
    Ok(())
}
