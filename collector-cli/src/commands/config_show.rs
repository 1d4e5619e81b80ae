//! `collector config show`: each key with its value and where that came from.

use collector_config::Loader;

use super::settings::{Verbosity, format, loader, start_log, warn};
use crate::args::{ConfigShowArgs, Format, GlobalArgs};
use crate::exit::{Exit, Failure};
use crate::output::{ConfigDocument, ConfigEntry, aligned, print, printable, to_json};

pub(super) fn run(
    base: &Loader,
    global: &GlobalArgs,
    args: &ConfigShowArgs,
) -> Result<Exit, Failure> {
    let format = format(global, &[Format::Table, Format::Json])?;
    let layers = if args.defaults { base.clone() } else { loader(base, global) };
    // Only read: a configuration that is not complete yet can be looked at.
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
    let text = if format == Format::Json {
        to_json(&ConfigDocument::new(entries)) + "\n"
    } else {
        let rows = entries.iter().map(|entry| {
            let cells = [Some(&entry.key), Some(&entry.value), entry.origin.as_ref()];
            let shown = cells.into_iter().flatten();
            shown.map(|cell| printable(cell).to_string()).collect()
        });
        aligned([], rows)
    };
    print(&text)?;
    Ok(Exit::Success)
}
