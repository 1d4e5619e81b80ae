// SPDX-License-Identifier: Apache-2.0
//! `collector config show`: each key with its value and where that came from.

use collector_config::Loader;

use super::settings::{Verbosity, format, loader, start_log, warn};
use crate::args::{ConfigShowArgs, Format, GlobalArgs};
use crate::exit::{Exit, Failure};
use crate::output::{ConfigDocument, ConfigEntry, aligned, print, printable, shown};

pub(super) fn run(
    base: &Loader,
    global: &GlobalArgs,
    args: &ConfigShowArgs,
) -> Result<Exit, Failure> {
    let format = format(global, &[Format::Table, Format::Json])?;
    let layers = if args.defaults { base.clone() } else { loader(base, global) };
    // The configuration is not validated, so that an incomplete one can be shown.
    let loaded = layers.read()?;
    start_log(&loaded, Verbosity::OneShot)?;
    warn(&loaded);
    let entries: Vec<ConfigEntry> = loaded
        .entries()
        .into_iter()
        .map(|entry| ConfigEntry {
            key: entry.key,
            value: entry.value,
            origin: args.origin.then_some(entry.origin),
        })
        .collect();
    let document = ConfigDocument::of(entries);
    print(&shown(format, &document, || {
        let rows = document.entries.iter().map(|entry| {
            let cells = [Some(&entry.key), Some(&entry.value), entry.origin.as_ref()];
            cells.into_iter().flatten().map(|cell| printable(cell).to_string()).collect()
        });
        aligned([], rows)
    }))?;
    Ok(Exit::Success)
}
