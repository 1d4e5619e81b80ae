//! `collector replay`: a recording, served as `serve` serves its backends, or one reading of it.

use std::path::Path;
use std::time::Duration;

use collector_config::Loader;
use collector_core::duration;
use collector_record::Recording;

use super::settings::{Settings, Verbosity, format, loader};
use super::{get, serve};
use crate::args::{Format, GetCommand, GlobalArgs, ReplayArgs};
use crate::exit::{Exit, Failure};

pub(super) fn run(base: &Loader, global: &GlobalArgs, args: &ReplayArgs) -> Result<Exit, Failure> {
    if global.backend.is_some() {
        return Err(Failure::usage(
            "--backend does not work with this command: it has the recording",
        ));
    }
    let mut start = args.start;
    if args.once && start.is_none() {
        // The last moment that was recorded.
        let recording = Recording::open(&args.file).map_err(Failure::usage)?;
        start = Some(recording.length().saturating_sub(Duration::from_millis(100)));
    }
    let path = absolute(&args.file)?;
    let mut loader =
        loader(base, global).flag("backend", "replay", "replay").flag("replay.path", path, "FILE");
    if let Some(speed) = args.speed {
        loader = loader.flag("replay.speed", speed.to_string(), "--speed");
    }
    if let Some(start) = start {
        let start = Duration::from_millis(u64::try_from(start.as_millis()).unwrap_or(u64::MAX));
        loader = loader.flag("replay.start", duration::format(start), "--start");
    }
    if args.repeat {
        loader = loader.flag("replay.loop", "true", "--loop");
    }
    if let Some(listen) = &args.listen {
        loader = loader.flag("server.listen", listen, "--listen");
    }
    if let Some(model) = args.model() {
        let known = [Format::Table, Format::Wide, Format::Json, Format::Yaml, Format::Prometheus];
        let format = format(global, &known)?;
        let settings = settings(loader, Verbosity::OneShot)?;
        settings.warn();
        return get::print_result(&settings, &GetCommand::Replicas(model), format);
    }
    if global.output.is_some() {
        return Err(Failure::usage("--output does not work with this command unless with --once"));
    }
    serve::serve_settings(&settings(loader, Verbosity::Daemon)?)
}

/// The configuration without the snapshot of the daemon: readings of a recording must not be restored there.
fn settings(loader: Loader, verbosity: Verbosity) -> Result<Settings, Failure> {
    let mut settings = Settings::of(loader, verbosity)?;
    settings.loaded.config.cache.snapshot_path = None;
    Ok(settings)
}

fn absolute(path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    absolute
        .into_os_string()
        .into_string()
        .map_err(|path| Failure::usage(format!("{path:?}: the path is not UTF-8")))
}
