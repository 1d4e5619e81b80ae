//! Writes `docs/benchmarks.md` and its plots.

use std::path::Path;

use anyhow::Result;

use crate::report::Report;

pub(crate) fn write(_docs: &Path, _report: &Report) -> Result<()> {
    Ok(())
}
