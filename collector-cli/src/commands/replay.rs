// SPDX-License-Identifier: Apache-2.0
//! `collector replay`: a recording, served as `serve` serves its backends, shown as the demo is, or read once.

use std::path::Path;

use collector_config::Loader;
use collector_core::duration;

#[cfg(feature = "sim")]
use super::demo;
use super::settings::loader;
#[cfg(feature = "sim")]
use super::settings::{Settings, Verbosity};
use super::{get, serve};
use crate::args::{GlobalArgs, ReplayArgs};
use crate::exit::{Exit, Failure};

pub(super) fn run(base: &Loader, global: &GlobalArgs, args: &ReplayArgs) -> Result<Exit, Failure> {
    if global.backend.is_some() {
        return Err(Failure::usage(
            "--backend does not work with this command: it has the recording",
        ));
    }
    let layers = layers(base, global, args)?;
    if args.once {
        return get::replicas_of(layers, global, &args.model.model()?);
    }
    if args.model.is_named() {
        return Err(Failure::usage("a model is named: add --once to print its reading"));
    }
    if global.output.is_some() {
        return Err(Failure::usage("--output does not work with this command without --once"));
    }
    if args.watch {
        return watch(layers, args);
    }
    serve::run_layers(layers, global.config.as_deref())
}

/// The layers of every command, and the recording.
fn layers(base: &Loader, global: &GlobalArgs, args: &ReplayArgs) -> Result<Loader, Failure> {
    let path = absolute(&args.file)?;
    let mut layers =
        loader(base, global).flag("backend", "replay", "replay").flag("replay.path", path, "FILE");
    let speed = if args.once { Some(0.0) } else { args.speed };
    if let Some(speed) = speed {
        layers = layers.flag("replay.speed", speed.to_string(), "--speed");
    }
    if let Some(start) = args.start {
        layers = layers.flag("replay.start", duration::format(start), "--start");
    }
    if args.repeat {
        layers = layers.flag("replay.loop", "true", "--loop");
    }
    if let Some(listen) = &args.listen {
        layers = layers.flag("server.listen", listen, "--listen");
    }
    Ok(layers)
}

#[cfg(feature = "sim")]
fn watch(layers: Loader, args: &ReplayArgs) -> Result<Exit, Failure> {
    let settings = Settings::of(layers, Verbosity::Lines)?;
    let speed = settings.loaded.config.speed().unwrap_or(1.0);
    let title = format!("collector replay: {} at speed {speed}", args.file.display());
    super::block_on_many_threads(async {
        let collector = settings.collector_over(settings.backends()?)?;
        demo::watch(&collector, &title).await
    })
}

#[cfg(not(feature = "sim"))]
fn watch(_: Loader, _: &ReplayArgs) -> Result<Exit, Failure> {
    Err(Failure::usage(
        "this build cannot show models in a terminal: --watch needs the cargo feature `sim`",
    ))
}

fn absolute(path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let text = absolute.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::usage(format!("{}: the path is not UTF-8", absolute.display())))
}
