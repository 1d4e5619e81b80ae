//! `collector scrape`: one page, and what is taken from it.

mod document;
mod fetch;
mod intake;
mod raw;
mod shorten;
mod source;
mod table;
mod unknown;

use std::fmt::Write as _;
use std::sync::Arc;

use collector_config::Loader;
use collector_core::{Clock as _, EngineName, SystemClock};
use collector_epp::engines::{Engines, Ignored, NoModel, Page, PageReader};
use collector_epp::scan::Summary;
use collector_epp::{CutShort, EppConfig};

use self::intake::{Intake, Transfer};
use self::source::Source;
use super::settings::{Verbosity, format, loader, start_log};
use crate::args::{Format, GlobalArgs, ScrapeArgs};
use crate::exit::{Exit, Failure};
use crate::output::{ErrorDocument, print, printable, to_json, to_yaml};

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
    let wanted = Arc::clone(engines.wanted());
    let content_type = args.content_type.as_deref();
    let mut intake =
        Intake::new(wanted, config.limits(), content_type, |sample| reader.sample(sample));
    let transfer = source.read(config, target.is_some(), args.timeout, &mut intake)?;
    let read = intake.finish(&transfer).map_err(|error| source.too_large(error))?;
    check_whole(&source, &transfer)?;
    if let Some(cut) = read.cut
        && (read.summary.samples > 0 || unknown::no_metrics(&read).is_none())
    {
        return Err(may_be_cut(&source, cut));
    }
    let page = match reader.finish(&read.summary) {
        Page::Unknown(unknown) => return Err(unknown::failure(&source, &unknown, &read)),
        page => page,
    };
    print(&match format {
        Format::Json => to_json(&ScrapeDocument::new(&page, &read)) + "\n",
        Format::Yaml => to_yaml(&ScrapeDocument::new(&page, &read)),
        _ => table::of(&page, &read),
    })?;
    warn(&page);
    Ok(Exit::Success)
}

fn reader(engines: &Engines, engine: Option<&str>) -> Result<PageReader, Failure> {
    let Some(name) = engine else { return Ok(engines.reader()) };
    engines.reader_of(&EngineName::from(name)).ok_or_else(|| {
        let known: Vec<&str> = engines.names().map(AsRef::as_ref).collect();
        Failure::usage(format!(
            "--engine {name:?}: there is no engine of this name, only {}",
            known.join(", ")
        ))
    })
}

/// Says what stands on the page and does not count.
fn warn(page: &Page) {
    let Ignored { repeated, beyond_limit } = match page {
        Page::Server(page) => page.ignored,
        Page::Picker(page) => page.ignored,
        Page::Unknown(_) => return,
    };
    if let Page::Server(page) = page
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

fn check_whole(source: &Source, transfer: &Transfer) -> Result<(), Failure> {
    match transfer {
        Transfer::Complete { .. } => Ok(()),
        Transfer::CutShort(cause) => {
            let cause = printable(cause);
            Err(cut_short(format!("{source}: the page was cut short: {cause}")))
        }
    }
}

fn may_be_cut(source: &Source, cut: CutShort) -> Failure {
    cut_short(format!("{source}: {cut}"))
}

/// Half a page is no page: what it lacks would pass for what the server does not have.
fn cut_short(message: String) -> Failure {
    Failure::explained(
        ErrorDocument::new("TransferCutShort", message)
            .with_hint("nothing of it is shown, because values may be missing or shortened"),
    )
}
