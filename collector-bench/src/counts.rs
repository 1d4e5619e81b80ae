// SPDX-License-Identifier: Apache-2.0
//! Counts that may not grow: instructions of what is hot, and bytes over an hour. Unlike times they are the same
//! on a busy machine and an idle one, so that a change that makes one worse is stopped before it is merged.

use std::collections::HashMap;
use std::thread;

use anyhow::{Result, anyhow, bail};
use tokio::runtime::{self, Runtime};

use crate::hour::Memory;
use crate::instructions::Counted;
use crate::report::Report;
use crate::{hit, hour, invalidate, scan};

/// A case, and the name of a system in it.
type Operation = (Counted, &'static str);

/// What one operation may come to.
struct Bound {
    id: &'static str,
    operation: Operation,
    at_most: f64,
    unit: Unit,
    /// What it came to when the bound was set, and of what: for whoever is above it.
    why: &'static str,
}

enum Unit {
    Instructions,
    /// Those of another, which are counted in the same run.
    Of(Operation),
}

/// Some 12 % above what was counted when they were set: hashes are seeded anew in each run, which moves a count
/// by a percent or two, and another compiler or C library may move it by more. They are of x86-64 and of the
/// profile `counts`, in which a hit takes a tenth more than in a release. Whoever makes something cheaper lowers
/// its bound; whoever raises one says in the change what that buys.
const BOUNDS: &[Bound] = &[
    Bound {
        id: "hit.keyed.instructions",
        operation: (Counted::HotWritten, hit::KEYED),
        at_most: 480.0,
        unit: Unit::Instructions,
        why: "390 to 417: the clock, the hash, one look-up, an Arc's count, the freshness",
    },
    Bound {
        id: "hit.keyed.vs_dashmap",
        operation: (Counted::HotWritten, hit::KEYED),
        at_most: 1.95,
        unit: Unit::Of((Counted::HotAlike, "dashmap")),
        why: "1.56 to 1.68: like for like, a bare map that takes no note of reads",
    },
    Bound {
        id: "hit.handle.instructions",
        operation: (Counted::HotWritten, hit::HANDLE),
        at_most: 212.0,
        unit: Unit::Instructions,
        why: "188: nothing is looked up while the version is the same",
    },
    Bound {
        id: "hit.dyn.instructions",
        operation: (Counted::HotWritten, hit::DYN),
        at_most: 1260.0,
        unit: Unit::Instructions,
        why: "806 to 1121: a hit by key and its future's one allocation, which holds the larger reading",
    },
    Bound {
        id: "overwrite.instructions",
        operation: (Counted::Overwrite, invalidate::OURS),
        at_most: 325.0,
        unit: Unit::Instructions,
        why: "286: each model once a cycle, under the lock of its shard",
    },
    Bound {
        id: "overwrite.vs_dashmap",
        operation: (Counted::Overwrite, invalidate::OURS),
        at_most: 0.65,
        unit: Unit::Of((Counted::Overwrite, "dashmap")),
        why: "0.57: a bare map also allocates its key",
    },
    Bound {
        id: "invalidate.model.instructions",
        operation: (Counted::RemoveOfMany, invalidate::OURS),
        at_most: 2200.0,
        unit: Unit::Instructions,
        why: "1477 to 1895, by whether the table has to tidy up: one model among 10 000 is removed, and put again",
    },
    Bound {
        id: "invalidate.model.flatness",
        operation: (Counted::RemoveOfMany, invalidate::OURS),
        at_most: 1.5,
        unit: Unit::Of((Counted::RemoveOfFew, invalidate::OURS)),
        why: "1.00 to 1.28 of what it takes among 1000",
    },
    Bound {
        id: "scan.line.instructions",
        operation: (Counted::Scan, scan::SCANNER),
        at_most: 275.0,
        unit: Unit::Instructions,
        // 209 before queue, prefill and decode times were read: their many buckets begin as their sums.
        why: "248 a line of a vLLM page, most of which are skipped by their first bytes",
    },
];

/// How much more may be in memory after an hour than after ten minutes, as a share; it was nothing when this was set.
const GROWTH: f64 = 0.0005;

/// Counts, prints, and fails where a count is above its bound.
///
/// # Errors
/// When something is above its bound, or cannot be counted.
pub fn counts() -> Result<()> {
    let mut report = Report::new();
    let above = thread::scope(|scope| {
        // Its allocations are those of its thread.
        let memory = scope.spawn(hour::measure);
        let mut above = instructions(&mut report)?;
        let memory = memory.join().map_err(|_panic| anyhow!("the hour panicked"))??;
        above.extend(growth(&memory, &mut report));
        anyhow::Ok(above)
    })?;
    println!("{}", report.goals());
    if !above.is_empty() {
        bail!("above the bounds in collector-bench/src/counts.rs:\n{}", above.join("\n"));
    }
    Ok(())
}

/// Counts instructions, and tells what is above its bound.
fn instructions(report: &mut Report) -> Result<Vec<String>> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut counts = HashMap::new();
    let mut above = Vec::new();
    for bound in BOUNDS {
        let mut value = count(bound.operation, &runtime, &mut counts)?;
        if let Unit::Of(other) = bound.unit {
            value /= count(other, &runtime, &mut counts)?;
        }
        report.goal(bound.id, bound.at_most, value);
        if value > bound.at_most {
            above.push(format!(
                "{}: {value:.2}, at most {} ({})",
                bound.id, bound.at_most, bound.why
            ));
        }
    }
    Ok(above)
}

/// Instructions of an operation, which are counted once.
fn count(
    operation: Operation,
    runtime: &Runtime,
    counts: &mut HashMap<Operation, f64>,
) -> Result<f64> {
    if let Some(count) = counts.get(&operation) {
        return Ok(*count);
    }
    let (counted, name) = operation;
    let count = runtime.block_on(counted.of(name))?;
    counts.insert(operation, count);
    Ok(count)
}

fn growth(memory: &Memory, report: &mut Report) -> Option<String> {
    let Memory { live, grown } = *memory;
    let at_most = (live * GROWTH).floor();
    report.goal("memory.hour.growth", at_most, grown);
    let text =
        || format!("memory.hour.growth: {grown} bytes, at most {at_most} (on top of {live})");
    (grown > at_most).then(text)
}
