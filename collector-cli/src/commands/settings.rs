// SPDX-License-Identifier: Apache-2.0
//! From the command line to a configuration: the layers, the log and the collector.

use std::env;
#[cfg(feature = "tui")]
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum as _;
use collector_config::{ConfigErrors, Loaded, Loader, LogLevel, NamedBackend, Origin};
use collector_core::{Backend, Clock, Namespace, SystemClock, duration};
use collector_engine::Builder;
use collector_engine::CachingCollector;
#[cfg(feature = "kubernetes")]
use collector_kubernetes::{ClientError, Cluster};

use super::files;
use crate::args::{Format, GlobalArgs};
use crate::exit::Failure;
use crate::logging::{self, Style};
use crate::output::ErrorDocument;

/// How much a command logs by default.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verbosity {
    /// The command prints a result at its end: only warnings and errors are logged.
    OneShot,
    /// The command prints something until it is stopped: likewise.
    Lines,
    /// The log is the only output.
    Daemon,
    /// The command draws on the terminal, where log lines would be in its way unless they are asked for.
    #[cfg(feature = "tui")]
    Drawing,
}

/// A loaded configuration.
pub(super) struct Settings {
    pub(super) loaded: Loaded,
    pub(super) clock: Arc<dyn Clock>,
}

impl Settings {
    /// Loads the layers and starts the log.
    pub(super) fn load(
        base: &Loader,
        global: &GlobalArgs,
        verbosity: Verbosity,
    ) -> Result<Self, Failure> {
        Self::of(loader(base, global), verbosity)
    }

    /// Likewise, with the time over which every backend takes peaks and rates.
    pub(super) fn load_with_window(
        base: &Loader,
        global: &GlobalArgs,
        verbosity: Verbosity,
        window: Option<Duration>,
    ) -> Result<Self, Failure> {
        let mut layers = loader(base, global);
        if let Some(window) = window {
            let windows = base.keys().filter(|key| key.path.ends_with(".window"));
            for key in windows {
                layers = layers.flag(key.path, duration::format(window), "--window");
            }
        }
        Self::of(layers, verbosity)
    }

    /// Likewise, with what a command's own flags set.
    pub(super) fn of(layers: Loader, verbosity: Verbosity) -> Result<Self, Failure> {
        let (loaded, errors) = layers.load_with_errors();
        if !loaded.origins.of("log.format").eq(&Origin::Default) {
            logging::use_format(loaded.config.log.format);
        }
        let loaded = ConfigErrors::or(errors, loaded)?;
        start_log(&loaded, verbosity)?;
        let clock = loaded.config.clock(Arc::new(SystemClock::new()));
        Ok(Self { loaded, clock })
    }

    /// Reads the layers again while the log runs, for a daemon whose clock is this one.
    pub(super) fn again(layers: Loader, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let (loaded, errors) = layers.load_with_errors();
        Ok(Self { loaded: ConfigErrors::or(errors, loaded)?, clock })
    }

    /// Logs the warnings of the configuration.
    pub(super) fn warn(&self) {
        warn(&self.loaded);
    }

    /// Refuses a read that the configuration makes impossible: of a namespace that it leaves out, or
    /// from a file of targets that cannot be read.
    pub(super) async fn before_a_read(&self, namespace: Option<&Namespace>) -> Result<(), Failure> {
        if let Some(left_out) = namespace.and_then(|name| self.loaded.left_out(name.as_str())) {
            let document = ErrorDocument::new("MetricsMissing", left_out.message);
            return Err(Failure::missing(document.with_hint(left_out.remedy)));
        }
        // Another backend could still answer.
        if self.loaded.config.backend.len() == 1
            && let Some(Err(problem)) = files::targets(&self.loaded.config).await
        {
            return Err(Failure::usage(with_origin(&self.loaded, &problem)));
        }
        Ok(())
    }

    /// The collector that the configuration describes, over these backends of it, for a daemon.
    pub(super) fn collector_over(
        &self,
        backends: Vec<Arc<dyn Backend>>,
    ) -> Result<Arc<CachingCollector>, Failure> {
        let mut discovery = self.loaded.config.tracking.discovery();
        if self.loaded.config.is_recorded() {
            // Models come and go as fast as the recording is replayed, and a list costs nothing.
            discovery.interval = Some(Duration::from_secs(1));
        }
        self.built(backends, |builder| builder.discover(discovery))
    }

    /// The same for a command that reads once.
    pub(super) fn collector_at_once(&self) -> Result<Arc<CachingCollector>, Failure> {
        self.collector_at_once_over(self.backends()?)
    }

    /// The same over these backends of it.
    pub(super) fn collector_at_once_over(
        &self,
        backends: Vec<Arc<dyn Backend>>,
    ) -> Result<Arc<CachingCollector>, Failure> {
        self.built(backends, Builder::at_once)
    }

    /// A collector that refreshes what is read of it, until the process ends.
    pub(super) async fn collector_in_background(&self) -> Result<Arc<CachingCollector>, Failure> {
        let collector = self.built(self.backends()?, |builder| builder)?;
        collector.start_background_worker().await.map_err(Failure::other)?;
        Ok(collector)
    }

    pub(super) fn built(
        &self,
        backends: Vec<Arc<dyn Backend>>,
        change: impl FnOnce(Builder) -> Builder,
    ) -> Result<Arc<CachingCollector>, Failure> {
        let builder = self.loaded.config.builder_over(backends, Arc::clone(&self.clock));
        match builder.and_then(|builder| Ok(change(builder).build()?)) {
            Ok(collector) => Ok(Arc::new(collector)),
            Err(errors) => Err(located(&self.loaded, &errors)),
        }
    }

    /// The chosen backends.
    pub(super) fn backends(&self) -> Result<Vec<Arc<dyn Backend>>, Failure> {
        let built = self.backends_besides(|_| Vec::new())?;
        Ok(built.into_iter().map(|(_, backend)| backend).collect())
    }

    /// The chosen backends without the cluster, which measures nothing.
    pub(super) fn backends_that_measure(&self) -> Result<Vec<Arc<dyn Backend>>, Failure> {
        let backends = self.backends()?.into_iter();
        Ok(backends.filter(|backend| backend.name() != "kubernetes").collect())
    }

    /// The cluster, if one is read.
    #[cfg(feature = "kubernetes")]
    pub(super) fn cluster(&self) -> Result<Option<Cluster>, Failure> {
        let config = &self.loaded.config;
        if !config.kubernetes.enabled || config.is_recorded() {
            return Ok(None);
        }
        let refuse = |error: String| Failure::usage(with_origin(&self.loaded, &error));
        let settings = config.cluster().map_err(|error| refuse(error.to_string()))?;
        let cluster = Cluster::new(settings, Arc::clone(&self.clock));
        Ok(Some(cluster.map_err(|error| refuse(error.to_string()))?))
    }

    /// The cluster that the External Metrics API asks, if none is read.
    #[cfg(feature = "kubernetes")]
    pub(super) fn cluster_of_external_metrics(&self) -> Result<Option<Cluster>, Failure> {
        let config = &self.loaded.config;
        // With a file that names the front proxy it asks none.
        let door = Some(&config.external_metrics)
            .filter(|door| door.enabled && door.front_proxy_ca_path.is_none());
        if config.kubernetes.enabled || door.is_none() {
            return Ok(None);
        }
        let cluster = Cluster::new(config.kubernetes.cluster(), Arc::clone(&self.clock));
        let refuse =
            |error: ClientError| Failure::usage(with_origin(&self.loaded, &error.to_string()));
        Ok(Some(cluster.map_err(refuse)?))
    }

    /// The same with the names by which they are chosen, without building those that there are.
    pub(super) fn backends_besides(
        &self,
        existing: impl Fn(&str) -> Vec<Arc<dyn Backend>>,
    ) -> Result<Vec<NamedBackend>, Failure> {
        let backends = self.loaded.config.build_other_backends(Arc::clone(&self.clock), existing);
        backends.map_err(|errors| located(&self.loaded, &errors))
    }

    /// A backend by its name, with the URL of its server where it has one.
    pub(super) fn place_of(&self, backend: &str) -> String {
        match url_of(&self.loaded, backend) {
            Some(url) => format!("{backend} at {url}"),
            None => backend.to_owned(),
        }
    }
}

/// The URL of a backend's server, as it may be shown.
pub(super) fn url_of(loaded: &Loaded, backend: &str) -> Option<String> {
    value_of(loaded, &format!("{backend}.url"))
}

/// Returns the value of a key as it may be shown, if it is set.
pub(super) fn value_of(loaded: &Loaded, key: &str) -> Option<String> {
    let entry = loaded.entries().into_iter().find(|entry| entry.key == key)?;
    Some(entry.value).filter(|value| !value.is_empty())
}

/// A mistake in the configuration that was found when its parts were put together, behind the place
/// where its key is set. The message begins with the key.
pub(super) fn with_origin(loaded: &Loaded, problem: &str) -> String {
    let key = problem.split(':').next().unwrap_or_default();
    match loaded.origins.of(key) {
        Origin::Default => problem.to_owned(),
        // An argument without a name is its value, which the problem has.
        Origin::Flag(name) if !name.starts_with('-') => {
            problem.split_once(": ").map_or(problem, |(_, problem)| problem).to_owned()
        }
        origin => format!("{origin}: {problem}"),
    }
}

fn located(loaded: &Loaded, errors: &ConfigErrors) -> Failure {
    let lines = errors.iter().map(|error| with_origin(loaded, &error.to_string()));
    Failure::usage(lines.collect::<Vec<_>>().join("\n"))
}

/// Logs the warnings of the configuration.
pub(super) fn warn(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
}

/// The environment, and the layers that the command line names.
pub(super) fn loader(base: &Loader, global: &GlobalArgs) -> Loader {
    layers(base, global, global.config.as_deref())
}

/// The same with another file.
pub(super) fn layers(base: &Loader, global: &GlobalArgs, file: Option<&Path>) -> Loader {
    let mut loader = base.clone().env(variables());
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
    if let Some(level) = &global.log_level {
        loader = loader.flag("log.level", level, "--log-level");
    }
    if let Some(format) = &global.log_format {
        loader = loader.flag("log.format", format, "--log-format");
    }
    loader
}

/// Starts the log as configured.
pub(super) fn start_log(loaded: &Loaded, verbosity: Verbosity) -> Result<(), Failure> {
    let log = loaded.config.log;
    let unset = loaded.origins.of("log.level") == Origin::Default;
    let level = match verbosity {
        Verbosity::OneShot | Verbosity::Lines if unset => LogLevel::Warn,
        #[cfg(feature = "tui")]
        Verbosity::Drawing if unset && io::stderr().is_terminal() => LogLevel::Off,
        #[cfg(feature = "tui")]
        Verbosity::Drawing if unset => LogLevel::Warn,
        _ => log.level,
    };
    let style = match verbosity {
        // With a level of the user, lines are printed at once.
        Verbosity::OneShot if unset => Style::Result,
        Verbosity::Daemon => Style::Full,
        _ => Style::Plain,
    };
    logging::start(level, log.format, style)
}

/// The environment. A variable that is not UTF-8 is not ours, or its key's check reports it.
fn variables() -> impl Iterator<Item = (String, String)> {
    env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        Some((name, value.to_string_lossy().into_owned()))
    })
}

fn word(format: Format) -> String {
    format.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Refuses `--output`, for a command whose result has one form.
pub(super) fn one_form(global: &GlobalArgs) -> Result<(), Failure> {
    if global.output.is_none() {
        return Ok(());
    }
    Err(Failure::usage("--output does not work with this command: it has one form"))
}

/// The form of the result, when the command has it.
pub(super) fn format(global: &GlobalArgs, known: &[Format]) -> Result<Format, Failure> {
    let format = global.output.as_ref().map_or(Format::Table, |form| form.format);
    if known.contains(&format) {
        return Ok(format);
    }
    let known: Vec<String> = known.iter().copied().map(word).collect();
    Err(Failure::usage(format!(
        "--output {} does not work with this command: use {}",
        word(format),
        known.join(" or ")
    )))
}
