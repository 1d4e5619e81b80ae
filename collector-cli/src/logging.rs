//! The log, on stderr.

use std::env;
use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use collector_config::{LogFormat, LogLevel};
use collector_core::{Clock as _, SystemClock};
use serde_json::json;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::exit::Failure;
use crate::output::colours;

/// Whether what is written to stderr is JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// What is logged of the running log, unless `RUST_LOG` says so.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

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
    if JSON.load(Ordering::Relaxed) {
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

fn write(level: &str, prefix: &str, text: &str) {
    let line = if JSON.load(Ordering::Relaxed) {
        let timestamp = jiff::Timestamp::try_from(SystemClock::new().wall()).unwrap_or_default();
        let timestamp = format!("{timestamp:.6}");
        json!({ "timestamp": timestamp, "level": level, "message": text, "target": "collector" })
            .to_string()
    } else {
        format!("{prefix}{text}")
    };
    // A closed stderr leaves no place for an error.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Starts to log. `level` is that of the collector's own events; `RUST_LOG` can enable those of libraries.
///
/// With `one_shot`, the log lines of a command that prints a result have no time.
pub(crate) fn start(level: LogLevel, format: LogFormat, one_shot: bool) -> Result<(), Failure> {
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
    let lines = fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
        LogFormat::Text => {
            let lines = lines.with_ansi(colours(&io::stderr()));
            if one_shot {
                registry.with(lines.without_time().with_target(false)).init();
            } else {
                registry.with(lines).init();
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
    Targets::new().with_default(own.min(LevelFilter::WARN)).with_target("collector", own)
}
