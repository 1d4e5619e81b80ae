//! Counts what may not grow.

use std::env;

use anyhow::Result;

use crate::install;
use crate::run::{cargo, step};

/// What the bounds are of: another processor has other instructions.
const ARCHITECTURE: &str = "x86_64";

/// Builds what is counted, optimised, and holds its counts against their bounds.
///
/// valgrind cannot be installed everywhere, so that where it lacks is no error but on a CI.
pub(crate) fn all() -> Result<()> {
    if env::consts::ARCH != ARCHITECTURE {
        println!("== counts: skipped, because their bounds are of {ARCHITECTURE}");
        return Ok(());
    }
    if let Err(error) = install::valgrind() {
        if env::var_os("CI").is_some() {
            return Err(error);
        }
        println!("== counts: skipped: {error:#}");
        return Ok(());
    }
    step(
        "counts",
        &mut cargo(&[
            "run",
            "--profile",
            "counts",
            "--package",
            "collector-bench",
            "--bin",
            "counts",
        ]),
    )
}
