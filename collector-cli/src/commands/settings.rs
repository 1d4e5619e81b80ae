//! From the command line to a configuration: the layers, the log, and who asks the backend.

use std::env;
use std::path::Path;
use std::sync::Arc;

use collector_config::{Loaded, Loader, LogLevel, Origin};
use collector_core::{Clock, MetricsCollector, SystemClock};

use crate::args::{Format, GlobalArgs};
use crate::exit::Failure;
use crate::logging;

/// How much a command says unless it is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verbosity {
    /// It prints a result: only what is wrong is worth a line beside it.
    OneShot,
    /// Its log is all there is to see.
    Daemon,
}

/// A loaded configuration.
pub(super) struct Settings {
    pub(super) loaded: Loaded,
    pub(super) clock: Arc<dyn Clock>,
}

impl Settings {
    /// Loads the layers and starts the log.
    pub(super) fn load(global: &GlobalArgs, verbosity: Verbosity) -> Result<Self, Failure> {
        Self::of(loader(global), verbosity)
    }

    /// Likewise, with what a command's own flags set.
    pub(super) fn of(layers: Loader, verbosity: Verbosity) -> Result<Self, Failure> {
        let loaded = layers.load().map_err(Failure::usage)?;
        start_log(&loaded, verbosity)?;
        Ok(Self { loaded, clock: Arc::new(SystemClock::new()) })
    }

    /// Logs what works and is not as it should be.
    pub(super) fn warn(&self) {
        for warning in &self.loaded.warnings {
            tracing::warn!("{warning}");
        }
    }

    /// The collector that the configuration describes.
    pub(super) fn collector(&self) -> Result<Arc<dyn MetricsCollector>, Failure> {
        let clock = Arc::clone(&self.clock);
        self.loaded.config.build(clock).map_err(Failure::usage)
    }
}

/// The layers that the command line names.
pub(super) fn loader(global: &GlobalArgs) -> Loader {
    layers(global, global.config.as_deref())
}

/// The same with another file.
pub(super) fn layers(global: &GlobalArgs, file: Option<&Path>) -> Loader {
    let mut loader = Loader::new().env(variables());
    if let Some(file) = file {
        loader = loader.file(file);
    }
    if let Some(backend) = &global.backend {
        loader = loader.flag("backend", backend, "--backend");
    }
    log_flags(loader, global)
}

/// Adds what the command line says about the log.
pub(super) fn log_flags(mut loader: Loader, global: &GlobalArgs) -> Loader {
    if let Some(level) = global.log_level {
        loader = loader.flag("log.level", word(&level), "--log-level");
    }
    if let Some(format) = global.log_format {
        loader = loader.flag("log.format", word(&format), "--log-format");
    }
    loader
}

/// Starts the log as configured.
pub(super) fn start_log(loaded: &Loaded, verbosity: Verbosity) -> Result<(), Failure> {
    let log = loaded.config.log;
    let one_shot = verbosity == Verbosity::OneShot;
    let unset = loaded.origins.of("log.level") == Origin::Default;
    let level = if one_shot && unset { LogLevel::Warn } else { log.level };
    logging::start(level, log.format, one_shot)
}

/// The environment. A variable that is not UTF-8 is none of ours, or wrong in a way that its key's
/// own check tells.
fn variables() -> impl Iterator<Item = (String, String)> {
    env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        Some((name, value.to_string_lossy().into_owned()))
    })
}

fn word(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The form of the result, when the command has it.
pub(super) fn format(global: &GlobalArgs, known: &[Format]) -> Result<Format, Failure> {
    let format = global.output.unwrap_or(Format::Table);
    if known.contains(&format) {
        return Ok(format);
    }
    let known: Vec<String> = known.iter().map(word).collect();
    Err(Failure::usage(format!(
        "--output {} does not work with this command: use {}",
        word(&format),
        known.join(" or ")
    )))
}
