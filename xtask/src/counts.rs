// SPDX-License-Identifier: Apache-2.0
//! Counts of instructions and memory that must not grow.

use std::env;

use anyhow::Result;

use crate::install;
use crate::run::{cargo, step};

/// The architecture of the bounds: other processors have other instructions.
const ARCHITECTURE: &str = "x86_64";

/// Builds the counted programs with optimisation, and compares their counts with the bounds.
///
/// valgrind cannot be installed everywhere, so its absence is an error on CI only.
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
