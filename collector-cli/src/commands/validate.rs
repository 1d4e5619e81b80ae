//! `collector validate`: whether configuration files work, without the network.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use collector_config::{ConfigErrors, Origin};
use collector_core::SystemClock;

use super::settings::{format, layers};
use crate::args::{Format, GlobalArgs, ValidateArgs};
use crate::exit::{Exit, Failure};
use crate::output::{print, printable};

pub(super) fn run(global: &GlobalArgs, args: &ValidateArgs) -> Result<Exit, Failure> {
    format(global, &[Format::Table])?;
    let mut wrong = Vec::new();
    for file in &args.files {
        let name = file.to_string_lossy();
        match validate(global, file) {
            Ok(warnings) => {
                let mut text = format!("{}: ok\n", printable(&name));
                for warning in warnings {
                    let _ = writeln!(text, "  warning: {}", printable(&warning));
                }
                print(&text)?;
            }
            Err(errors) => wrong.extend(errors.iter().map(|error| match error.origin() {
                // It names the file by itself, and the line.
                Some(Origin::File { .. }) => error.to_string(),
                _ => format!("{name}: {error}"),
            })),
        }
    }
    if wrong.is_empty() { Ok(Exit::Success) } else { Err(Failure::usage(wrong.join("\n"))) }
}

/// Loads a file as `serve` would, and builds what it describes: that opens the files it names.
fn validate(global: &GlobalArgs, file: &Path) -> Result<Vec<String>, ConfigErrors> {
    let loaded = layers(global, Some(file)).load()?;
    loaded.config.build(Arc::new(SystemClock::new()))?;
    Ok(loaded.warnings)
}
