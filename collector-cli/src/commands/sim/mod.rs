// SPDX-License-Identifier: Apache-2.0
//! `collector sim`: a described fleet on loopback, until a signal.

mod description;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use collector_config::Loader;
use collector_sim::{ControlServer, FleetServer, PodLabel, Target, VariantTruth};
use serde_json::json;
use tokio::time::timeout;

use super::settings::{Verbosity, format, log_flags, start_log};
use crate::args::{Format, GlobalArgs, SimArgs};
use crate::exit::{Exit, Failure};
use crate::output::{aligned, print, printable, to_json};
use crate::signals::StopSignals;

/// For connections to be closed once a signal came.
const GRACE: Duration = Duration::from_millis(500);

pub(super) fn run(base: &Loader, global: &GlobalArgs, args: &SimArgs) -> Result<Exit, Failure> {
    let format = format(global, &[Format::Table, Format::Json])?;
    if global.backend.is_some() {
        return Err(Failure::usage("--backend does not work with this command: it asks nobody"));
    }
    if !args.listen.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "--listen {}: whoever reaches the control endpoint can do anything to the fleet, so \
             that it needs a loopback address, as 127.0.0.1:{}",
            args.listen,
            args.listen.port()
        )));
    }
    let loaded = log_flags(base.clone(), global).read()?;
    start_log(&loaded, Verbosity::Lines)?;
    super::block_on_many_threads(simulate(args, format))
}

async fn simulate(args: &SimArgs, format: Format) -> Result<Exit, Failure> {
    let mut signals = StopSignals::catch()?;
    let file = &args.fleet;
    let spec = description::read(file)?;
    spec.check().map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    let fleet =
        Arc::new(FleetServer::start_from_port(spec, args.port).await.map_err(Failure::other)?);
    let control = ControlServer::open(Arc::clone(&fleet), args.listen).await.map_err(|error| {
        Failure::other(format!(
            "cannot listen on {}: {error}; choose another address with --listen",
            args.listen
        ))
    })?;
    if let Some(path) = &args.targets {
        fleet.write_targets_to(path, PodLabel::Pod).map_err(Failure::other)?;
    }
    print(&announcement(&fleet, &control, format))?;

    signals.received().await;
    // Whoever does not let go of a connection loses it with the process.
    let _ = timeout(GRACE, async {
        control.stop().await;
        fleet.stop().await;
    })
    .await;
    Ok(Exit::Success)
}

/// Where everything listens.
fn announcement(fleet: &FleetServer, control: &ControlServer, format: Format) -> String {
    let control = format!("http://{}", control.address());
    let targets = fleet.targets();
    if format == Format::Json {
        return to_json(&json!({ "control": control, "targets": targets })) + "\n";
    }
    let variants = fleet.variants();
    let of_pod: HashMap<(&str, &str), &VariantTruth> = variants
        .iter()
        .flat_map(|variant| {
            let namespace = variant.namespace.as_str();
            variant.pods.iter().map(move |(pod, _)| ((namespace, pod.as_str()), variant))
        })
        .collect();
    let row = |Target { address, namespace, pod }: &Target| {
        let variant = of_pod.get(&(namespace.as_str(), pod.as_str()));
        // A target of no variant is an endpoint picker.
        let (model, engine) = variant
            .map_or(("-", "epp"), |variant| (variant.model.as_str(), variant.engine.as_str()));
        [namespace, pod, model, engine, &format!("http://{address}/metrics")]
            .map(|cell| printable(cell).to_string())
            .to_vec()
    };
    let header = ["NAMESPACE", "POD", "MODEL", "ENGINE", "PAGE"];
    // A URL is of no use when it is cut.
    let rows = std::iter::once(header.map(str::to_owned).to_vec()).chain(targets.iter().map(row));
    let pods = aligned([], rows);
    format!("control on {control}\n\n{pods}\nSIGINT or SIGTERM stops it\n")
}
