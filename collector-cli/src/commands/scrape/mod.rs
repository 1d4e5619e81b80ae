// SPDX-License-Identifier: Apache-2.0
//! `collector scrape`: one page, and what is taken from it.

mod document;
mod fetch;
mod raw;
mod shorten;
mod source;
mod table;
mod unknown;

use std::fmt::Write as _;

use collector_config::Loader;
use collector_core::{Clock as _, EngineName, SystemClock};
use collector_epp::engines::{Engines, Exposition, ExpositionReader, NoModel};
use collector_epp::scan::Summary;
use collector_epp::{EppConfig, read_exposition};

use self::source::Source;
use super::settings::{Verbosity, format, loader, start_log};
use crate::args::{Format, GlobalArgs, ScrapeArgs};
use crate::exit::{Exit, Failure};
use crate::output::{ErrorDocument, print, printable, shown};

pub(crate) use self::document::ScrapeDocument;
#[cfg(test)]
pub(crate) use self::raw::SamplesDocument;

pub(super) fn run(base: &Loader, global: &GlobalArgs, args: &ScrapeArgs) -> Result<Exit, Failure> {
    let format = format(global, &[Format::Table, Format::Json, Format::Yaml])?;
    let loaded = loader(base, global).read().map_err(Failure::usage)?;
    start_log(&loaded, Verbosity::OneShot)?;
    let config = &loaded.config.settings_of::<EppConfig>().cloned().unwrap_or_default();
    let source = Source::of(&args.page)?;
    if args.timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err(Failure::usage(
            "--timeout 0s leaves no time for a page; give it 5s for example",
        ));
    }
    let engines = Engines::new(&config.engines)
        .map_err(|error| Failure::usage(format!("engines: {error}")))?;
    if args.raw {
        return raw::run(config, &engines, &source, args, format);
    }
    let mut reader = reader(&engines, args.engine.as_deref())?;
    reader.set_time(SystemClock::new().wall());
    let target = source.target(config)?;
    // As the backend reads the page of this target.
    let own_engine = target.as_ref().and_then(|target| target.engine.as_ref());
    if let (None, Some(engine)) = (&args.engine, own_engine) {
        reader = engines.reader_of(engine).ok_or_else(|| {
            Failure::usage(format!("the target's engine {engine:?} is not known"))
        })?;
    }
    let mut fetched = source.read(config, target.is_some(), args.timeout)?;
    if let Some(content_type) = &args.content_type {
        fetched.content_type = Some(content_type.clone());
    }
    let (page, summary) = read_exposition(&engines, reader, config.limits(), &fetched)
        .map_err(|error| unknown::failure(&source, &error, &fetched))?;
    let read = Read { samples: sample_lines(&fetched.bytes), summary };
    print(&shown(format, &ScrapeDocument::new(&page, &read), || table::of(&page, &read)))?;
    warn(&page);
    Ok(Exit::Success)
}

/// What is shown of a page besides its values.
struct Read {
    /// Its lines that are neither empty nor comments, wanted or not.
    samples: u64,
    summary: Summary,
}

fn sample_lines(page: &[u8]) -> u64 {
    let lines = page.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")).count() as u64
}

fn reader(engines: &Engines, engine: Option<&str>) -> Result<ExpositionReader, Failure> {
    let Some(name) = engine else { return Ok(engines.reader()) };
    engines.reader_of(&EngineName::from(name)).ok_or_else(|| {
        let known: Vec<&str> = engines.names().collect();
        Failure::usage(format!(
            "--engine {name:?}: no engine has this name; there are {}",
            known.join(", ")
        ))
    })
}

/// Warns about the parts of the page that are ignored.
fn warn(page: &Exposition) {
    let (repeated, beyond_limit) = match page {
        Exposition::Server(page) => (page.repeated, page.beyond_limit),
        Exposition::EndpointPicker(page) => (page.repeated, page.beyond_limit),
    };
    if let Exposition::Server(page) = page
        && let Some(no_model) = &page.no_model
    {
        let label = match no_model {
            NoModel::NoId(name) => printable(name).to_string(),
            NoModel::NoLabel | NoModel::Several(_) => "none".to_owned(),
        };
        tracing::warn!(
            label,
            "The page names no model: as a target of direct scraping it fails, unless the model is \
             given (model = \"…\" on the target or in [[engines]])"
        );
    }
    if repeated > 0 {
        tracing::warn!(samples = repeated, "Series stand on the page twice; the first ones count");
    }
    if beyond_limit > 0 {
        tracing::warn!(
            samples = beyond_limit,
            "The page has more rows than are read of one page; its sums are unknown"
        );
    }
}

/// The malformed lines, for people.
fn malformed_lines(summary: &Summary) -> String {
    let mut text = String::new();
    if summary.malformed_count > 0 {
        let _ = writeln!(text, "\n{} malformed lines were skipped", summary.malformed_count);
    }
    for malformed in &summary.malformed {
        let _ = writeln!(text, "  line {}: {}", malformed.line, malformed.reason);
    }
    text
}

/// The failure of a truncated page: what it lacks would pass for what the server does not have.
fn cut_short(message: String) -> Failure {
    Failure::explained(
        ErrorDocument::new("TransferCutShort", message)
            .with_hint("nothing of it is shown, because values may be missing or shortened"),
    )
}
