//! The log, on stderr.

use std::env;
use std::io::{self, IsTerminal as _};

use collector_config::{LogFormat, LogLevel};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::exit::Failure;

/// Starts to log. `level` is about the collector's own events; what the libraries below log is for
/// those who ask for it in `RUST_LOG`.
///
/// Beside a result (`one_shot`) a line says what is wrong and not when.
pub(crate) fn start(level: LogLevel, format: LogFormat, one_shot: bool) -> Result<(), Failure> {
    let filter = match env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => {
            directives.parse::<Targets>().map_err(|error| {
                Failure::usage(format!(
                    "RUST_LOG: {error}; write for example info or collector_engine=debug"
                ))
            })?
        }
        _ => of_level(level),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
        LogFormat::Text => {
            let lines = lines.with_ansi(colours());
            if one_shot {
                registry.with(lines.without_time().with_target(false)).init();
            } else {
                registry.with(lines).init();
            }
        }
    }
    Ok(())
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

/// <https://no-color.org>: any value but the empty one counts.
fn colours() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
