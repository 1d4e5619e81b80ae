//! Instructions of one operation, counted by callgrind: unlike times, the same on a busy machine and an idle
//! one.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::case::Case;
use crate::report::{Figure, Report};
use crate::{hit, invalidate};

const SUITE: &str = "instructions";
/// Runs of the one count and of the other: what is in both, the start of the program and its warming up,
/// falls out of the difference.
const RUNS: [u32; 2] = [20, 220];

/// What is counted: cases of few entries, because no cache of a processor makes a difference here.
async fn cases() -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = hit::hot().await?.into();
    cases.push(invalidate::overwrite());
    Ok(cases)
}

/// Counts for each system; in a quick run for those that a goal compares.
pub(crate) async fn measure(quick: bool, report: &mut Report) -> Result<()> {
    if !is_there() {
        report.note(SUITE, "not measured: there is no `valgrind` program");
        return Ok(());
    }
    let quick_ones = [hit::KEYED, hit::HANDLE, hit::DYN];
    for (number, case) in cases().await?.into_iter().enumerate() {
        for system in &case.systems {
            let name = system.name();
            if quick && (number > 0 || !quick_ones.contains(&name)) {
                continue;
            }
            match of_one_run(number, name) {
                Ok(count) => {
                    let value = count / f64::from(system.operations());
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

fn of_one_run(case: usize, system: &str) -> Result<f64> {
    let few = collected(case, system, RUNS[0])?;
    let many = collected(case, system, RUNS[1])?;
    Ok((many - few) / f64::from(RUNS[1] - RUNS[0]))
}

/// Instructions of this program when it does nothing but so many runs of a system.
fn collected(case: usize, system: &str, runs: u32) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["--repeat-case", &case.to_string(), "--repeat-system", system])
        .args(["--repeat-runs", &runs.to_string()])
        .stdin(Stdio::null())
        .output()
        .context("cannot run valgrind")?;
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

/// The other side of `collected`: some runs of one system, and nothing else.
pub(crate) async fn repeat(case: usize, system: &str, runs: u32) -> Result<()> {
    let mut cases = cases().await?;
    let case = cases.get_mut(case).context("no such case")?;
    let system = case.systems.iter_mut().find(|it| it.name() == system);
    system.context("no such system")?.run(runs)?;
    Ok(())
}
