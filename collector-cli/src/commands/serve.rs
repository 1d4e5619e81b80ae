// SPDX-License-Identifier: Apache-2.0
//! `collector serve`: background refresh, the HTTP API and the metrics, until a signal.

mod config_file;
mod reload;
mod running;
#[cfg(feature = "keda")]
mod scaler;
mod systemd;

use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use collector_config::{Loaded, Loader};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use self::config_file::ConfigFile;
use self::reload::{Cause, Daemon};
use self::running::{Fixed, Running};
use self::systemd::Systemd;
use super::files;
use super::settings::{Settings, Verbosity, loader, with_origin};
#[cfg(feature = "promql")]
use super::settings::{url_of, value_of};
use crate::args::{GlobalArgs, ServeArgs};
use crate::exit::{Exit, Failure};
use crate::server::{
    Events, Lifecycle, Recorder, Reloads, address_of, api_tls, listen, serve_until,
};
use crate::signals::{SIGTERM, StopSignals, hangups};

/// How long requests under way may take once a signal came.
const GRACE: Duration = Duration::from_secs(3);

/// How long the answers may then take to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long the tasks may take to end, and the snapshot to be written. In all the process exits
/// within 5 s.
const LAST_DEEDS: Duration = Duration::from_secs(1);

/// How often samples are moved into their buckets; a scrape does it too.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

pub(super) fn run(base: &Loader, global: &GlobalArgs, args: &ServeArgs) -> Result<Exit, Failure> {
    if global.output.is_some() {
        return Err(Failure::usage(
            "--output does not work with this command: it prints no result",
        ));
    }
    let mut layers = loader(base, global);
    if let Some(listen) = &args.listen {
        layers = layers.flag("server.listen", listen, "--listen");
    }
    run_layers(layers, global.config.as_deref())
}

/// Serves what these layers configure, of which `path` is the file.
pub(super) fn run_layers(layers: Loader, path: Option<&Path>) -> Result<Exit, Failure> {
    super::block_on_many_threads(serve(layers, path))
}

async fn serve(layers: Loader, path: Option<&Path>) -> Result<Exit, Failure> {
    // Whatever changes or is sent from here on is noticed.
    let mut file = ConfigFile::new(path);
    let settings = Settings::of(layers.clone(), Verbosity::Daemon)?;
    let mut signals = StopSignals::catch()?;
    let mut hangups = hangups()?;
    warn(&settings);
    let recorder = Recorder::install()?;
    let (lifecycle, watched) = watch::channel(Lifecycle::Serving);
    let fixed = Fixed {
        recorder: recorder.clone(),
        lifecycle: watched.clone(),
        reloads: Arc::new(Reloads::new(Arc::clone(&settings.clock))),
        events: Events::new(Arc::clone(&settings.clock), watched.clone()),
        reads: Arc::default(),
    };
    let running = Running::build(&fixed, settings, None)?;
    let server = &running.settings.loaded.config.server;
    let tls = api_tls(server);
    let listener = listen(server.listen, "--listen or server.listen", tls.as_ref()).await?;
    let (address, is_tls) = (address_of(&listener)?, listener.tls.is_some());
    let (door, current_door) = watch::channel(running.door());
    let mut daemon = Daemon::new(layers, fixed, running, door);
    // KEDA and HPAs are answered from the start: a restart must not look like a scaler that is gone.
    daemon.open_scalers().await?;
    daemon.running.start().await?;
    announce(address, is_tls, &daemon.running.settings.loaded);
    announce_start(&daemon, path, address, is_tls);

    let stopping = Lifecycle::Stopping.reached(watched.clone());
    let mut api = tokio::spawn(serve_until(listener, current_door, stopping));
    let upkeep = tokio::spawn(async move {
        let mut ticks = interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            recorder.upkeep();
        }
    });
    let systemd = Systemd::from_env();
    systemd.ready();
    let mut watchdog = interval(systemd.watchdog().unwrap_or(UPKEEP_INTERVAL));
    watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let signal = 'serving: loop {
        let cause = tokio::select! {
            biased;
            signal = signals.received() => break signal,
            _ = watchdog.tick() => {
                systemd.alive();
                continue;
            }
            _ = hangups.recv() => Cause::Signal,
            () = file.changed() => Cause::File,
        };
        file.is_read();
        systemd.reloading();
        let mut reading = pin!(daemon.read());
        let read = loop {
            tokio::select! {
                biased;
                signal = signals.received() => break 'serving signal,
                _ = watchdog.tick() => systemd.alive(),
                read = &mut reading => break read,
            }
        };
        daemon.reload(cause, read).await;
        systemd.ready();
    };
    systemd.stopping();
    tracing::info!(signal, "Stopping");
    let drain = daemon.running.settings.loaded.config.server.drain;
    if signal == SIGTERM && !drain.is_zero() {
        lifecycle.send_replace(Lifecycle::Draining);
        let mut drained = pin!(sleep(drain));
        loop {
            tokio::select! {
                biased;
                // A second signal ends the drain at once.
                _ = signals.received() => break,
                () = &mut drained => break,
                _ = watchdog.tick() => systemd.alive(),
            }
        }
    }
    lifecycle.send_replace(Lifecycle::Stopping);
    let collector = Arc::clone(&daemon.running.collector);
    let mut servers = tokio::spawn(async move {
        // A panic in one was logged, and ends it alone.
        let _ = (&mut api).await;
        daemon.scalers_ended().await;
    });
    if timeout(GRACE, &mut servers).await.is_err() {
        // Whoever still waits for a backend gets an error instead of a broken connection.
        lifecycle.send_replace(Lifecycle::Leaving);
        if timeout(LAST_WORDS, &mut servers).await.is_err() {
            tracing::warn!("Connections that do not take their answers are cut");
        }
    }
    upkeep.abort();
    if timeout(LAST_DEEDS, collector.stop_background_worker()).await.is_err() {
        tracing::warn!("A request to the backend, or the last snapshot, is abandoned");
    }
    tracing::info!("Stopped");
    Ok(Exit::Success)
}

/// Logs what works and may be a mistake.
fn warn(settings: &Settings) {
    settings.warn();
    if let Some(problem) = files::snapshot_problem(&settings.loaded.config) {
        // It serves all the same, and a restart begins with nothing.
        tracing::warn!("{}", with_origin(&settings.loaded, &problem));
    }
}

fn announce(address: SocketAddr, is_tls: bool, loaded: &Loaded) {
    let scheme = if is_tls { "https" } else { "http" };
    tracing::info!("listening on {scheme}://{address}");
    let server = &loaded.config.server;
    let is_protected = server.read_token_path.is_some() || server.tls_client_ca_path.is_some();
    if !address.ip().is_loopback() && !is_protected {
        tracing::warn!(
            %address,
            "Whoever reaches this address can read everything: let only a trusted network in, or set \
             server.read_token_path or server.tls_client_ca_path"
        );
    }
    #[cfg(feature = "promql")]
    if loaded.config.promql.enabled {
        let upstream = value_of(loaded, "promql.upstream");
        if loaded.config.is_recorded() {
            tracing::info!(
                "PromQL queries over readings of the recording are answered, and no others"
            );
        } else if let Some(url) = upstream.or_else(|| url_of(loaded, "prometheus")) {
            let server = format!("prometheus at {url}");
            tracing::info!(
                server,
                "PromQL queries are answered with the credentials for this server"
            );
        } else {
            tracing::info!(
                "PromQL queries over readings and scraped pods are answered, and no others: neither promql.upstream nor prometheus.url is set"
            );
        }
    }
}

/// The line by which a start is found in a log.
fn announce_start(daemon: &Daemon, path: Option<&Path>, address: SocketAddr, is_tls: bool) {
    let settings = &daemon.running.settings;
    let config = &settings.loaded.config;
    let backends: Vec<String> = config.backend.iter().map(|name| settings.place_of(name)).collect();
    let scheme = if is_tls { "https" } else { "http" };
    let mut doors = vec![format!("{scheme}://{address}")];
    if config.promql.enabled {
        doors.push("promql".to_owned());
    }
    doors.extend(daemon.scaler_addresses().map(|(name, address)| format!("{name} {address}")));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        configuration = path.map(|path| path.display().to_string()),
        backends = backends.join(", "),
        variants = config.variants.len(),
        doors = doors.join(", "),
        "Started"
    );
}
