//! Runs the models that loom explores.

use anyhow::Result;

use crate::run::{cargo, step};
use crate::workspace;

/// Builds the engine over loom's locks, in a folder of its own because every dependency is built again,
/// and runs its models through the interleavings of their threads.
pub(crate) fn all() -> Result<()> {
    let mut test =
        cargo(&["test", "--quiet", "--package", "collector-engine", "--lib", "interleavings::"]);
    test.env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", workspace::target_folder()?.join("loom"));
    step("every interleaving", &mut test)
}
