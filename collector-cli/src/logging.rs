// SPDX-License-Identifier: Apache-2.0
//! The log, on stderr.

use std::env;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use collector_config::{LogFormat, LogLevel};
use collector_core::{Clock as _, SystemClock};
use serde_json::json;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::exit::Failure;
use crate::output::colours;
use crate::progress;

/// Whether what is written to stderr is JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// What is logged of the running log, unless `RUST_LOG` says so.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Of failures that the result of a command may be about to report: their log lines wait for it.
const REPORTED: [&str; 2] = ["Target cannot be scraped", "The circuit is open"];

/// The lines that wait; `None` where none does.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Sets the form of errors from before the configuration is read: as the flag says, else the variable.
pub(crate) fn expect_format(flag: Option<&str>) {
    let format = flag.map(str::to_owned).or_else(|| env::var("COLLECTOR_LOG__FORMAT").ok());
    let is_json = format.is_some_and(|format| format.trim().eq_ignore_ascii_case("json"));
    JSON.store(is_json, Ordering::Relaxed);
}

/// Sets the form of errors as configured.
pub(crate) fn use_format(format: LogFormat) {
    JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

/// Writes an error to stderr, whatever the log level: a line `error: …` with what to do about it below,
/// or one JSON object in the form of the log.
pub(crate) fn report_error(problem: &str, advice: &[String]) {
    let mut text = problem.to_owned();
    if is_json() {
        for advice in advice {
            text.push_str("; ");
            text.push_str(advice);
        }
        return write("ERROR", "", &text);
    }
    for line in advice.iter().flat_map(|advice| advice.lines()) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    write("ERROR", "error: ", &text);
}

/// Writes to stderr what a command is doing, while its result is not there yet.
pub(crate) fn note(text: &str) {
    write("INFO", "", text);
}

/// Whether what is written to stderr is JSON.
pub(crate) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

fn write(level: &str, prefix: &str, text: &str) {
    let line = if is_json() {
        let timestamp = jiff::Timestamp::try_from(SystemClock::new().wall()).unwrap_or_default();
        let timestamp = format!("{timestamp:.6}");
        json!({ "timestamp": timestamp, "level": level, "message": text, "target": "collector" })
            .to_string()
    } else {
        format!("{prefix}{text}")
    };
    progress::clear();
    // A closed stderr leaves no place for an error.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Where log lines go.
struct Lines;

impl io::Write for Lines {
    /// Writes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(line);
        match &mut *held {
            Some(held) if REPORTED.iter().any(|message| text.contains(message)) => {
                held.push(text.into_owned());
            }
            _ => {
                progress::clear();
                io::stderr().write_all(line)?;
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Writes the lines that wait, except for those about a URL that was reported as failed.
pub(crate) fn release(reported: &str) {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    for line in held.unwrap_or_default() {
        if !urls(&line).any(|url| urls(reported).any(|known| known == url)) {
            progress::clear();
            // A closed stderr leaves no place for an error.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

/// The URLs in a text.
fn urls(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control() || "\"\\".contains(c));
    // A word may be a field of the log: url=http://…
    let urls = words.filter_map(|word| word.find("http").map(|start| &word[start..]));
    let urls = urls.map(|url| url.trim_end_matches([':', ',', ';', '.', ')']));
    urls.filter(|url| url.contains("://"))
}

/// What log lines are like, and when they are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// For a daemon: each line has its time and where it comes from.
    Full,
    /// Neither.
    Plain,
    /// Likewise, and lines about what the result may report wait for [`release`].
    Result,
}

/// Starts to log. `level` is that of the collector's own events; `RUST_LOG` can enable those of libraries.
///
/// Fails where `RUST_LOG` is no filter.
pub(crate) fn start(level: LogLevel, format: LogFormat, style: Style) -> Result<(), Failure> {
    use_format(format);
    let filter = match env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => {
            let filter = directives.parse::<Targets>().map_err(|error| {
                Failure::usage(format!(
                    "RUST_LOG: {error}; write for example info or collector_engine=debug"
                ))
            })?;
            reload::Layer::new(filter).0
        }
        _ => {
            let (filter, handle) = reload::Layer::new(of_level(level));
            // The log is started once.
            let _ = FILTER.set(handle);
            filter
        }
    };
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(|| Lines);
    if style == Style::Result {
        *HELD.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    }
    match format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
        LogFormat::Text => {
            let lines = lines.with_ansi(colours(&io::stderr()));
            match style {
                Style::Full => registry.with(lines).init(),
                _ => registry.with(lines.without_time().with_target(false)).init(),
            }
        }
    }
    Ok(())
}

/// Logs from this level on, unless `RUST_LOG` takes precedence.
pub(crate) fn set_level(level: LogLevel) {
    if let Some(filter) = FILTER.get() {
        // It fails only if the log is gone.
        let _ = filter.reload(of_level(level));
    }
}

fn of_level(level: LogLevel) -> Targets {
    let own = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(own.min(LevelFilter::WARN))
        // Each of its errors is one of ours as well.
        .with_target("kube_client", LevelFilter::OFF)
        .with_target("collector", own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_found_in_both_forms_of_the_log_and_in_errors() {
        let found = |text: &str| urls(text).map(str::to_owned).collect::<Vec<_>>();
        let (one, two) = ("http://h:1/metrics", "https://h:2/metrics?a");
        assert_eq!(found(&format!(" WARN Target url={one} pod=m-0 error=no")), [one]);
        assert_eq!(
            found(&format!("{{\"url\":\"{one}\",\"error\":\"from {two}: no\"}}")),
            [one, two]
        );
        assert_eq!(
            found(&format!("\u{1b}[3murl\u{1b}[0m\u{1b}[2m=\u{1b}[0m{one} \u{1b}[3m")),
            [one]
        );
        assert_eq!(found(&format!("epp: fetching from {one}: no; or ({two})")), [one, two]);
        assert_eq!(found("epp: nothing"), [""; 0]);
    }
}
