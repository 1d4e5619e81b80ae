// SPDX-License-Identifier: Apache-2.0
//! `collector version`: what this program is, and what it was built with.

use crate::args::{Format, GlobalArgs};
use crate::commands::settings::format;
use crate::exit::{Exit, Failure};
use crate::output::{VersionDocument, aligned, print, shown};

/// The features of the package that are enabled.
macro_rules! enabled {
    ($($name:literal),*) => {
        [$(($name, cfg!(feature = $name))),*]
    };
}

pub(super) fn run(global: &GlobalArgs) -> Result<Exit, Failure> {
    let format = format(global, &[Format::Table, Format::Json, Format::Yaml])?;
    let all = enabled![
        "epp",
        "keda",
        "kubernetes",
        "prometheus",
        "promql",
        "record",
        "sigv4",
        "sim",
        "tui"
    ];
    let features = all.into_iter().filter(|(_, enabled)| *enabled).map(|(name, _)| name).collect();
    let commit = Some(env!("COLLECTOR_COMMIT")).filter(|commit| !commit.is_empty());
    let document = VersionDocument::of(commit, features);
    print(&shown(format, &document, || {
        let rows = [
            ["collector", document.version],
            ["commit", document.commit.unwrap_or("unknown")],
            ["features", &document.features.join(", ")],
        ];
        aligned([], rows.into_iter().map(|row| row.map(str::to_owned).to_vec()))
    }))?;
    Ok(Exit::Success)
}
