//! Runs the benches.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::run::{cargo, step};
use crate::{install, workspace};

/// Builds the collector as it is released and measures it.
pub(crate) fn all(quick: bool, json: Option<&Path>) -> Result<()> {
    install::prometheus()?;
    step("build the collector", &mut cargo(&["build", "--release", "--package", "collector-cli"]))?;
    let collector = workspace::target_folder()?.join("release/collector");
    let mut bench = cargo(&["run", "--release", "--package", "collector-bench", "--"]);
    bench.arg("--collector").arg(collector);
    if quick {
        bench.arg("--quick");
    }
    if let Some(json) = json {
        // The bench runs in the workspace's root, and the path counts from where the user is.
        let json =
            std::path::absolute(json).with_context(|| format!("no path: {}", json.display()))?;
        bench.arg("--json").arg(json);
    }
    step("measure", &mut bench)
}
