// SPDX-License-Identifier: Apache-2.0
//! Runs the loom models.

use anyhow::Result;

use crate::run::{cargo, step};
use crate::workspace;

/// Builds cache and engine with loom's locks, in a separate folder because every dependency is rebuilt, and
/// runs their models through the interleavings of their threads.
pub(crate) fn all() -> Result<()> {
    let mut test = cargo(&["test", "--quiet", "--lib", "interleavings::"]);
    test.args(["--package", "collector-cache", "--package", "collector-engine"])
        .env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", workspace::target_folder()?.join("loom"));
    step("every interleaving", &mut test)
}
