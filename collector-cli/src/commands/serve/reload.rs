// SPDX-License-Identifier: Apache-2.0
//! A reload: the configuration is read again as a whole, and what follows from it takes the place of what runs. A
//! configuration that cannot be used changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use collector_config::{Loaded, Loader};
use collector_core::Tick;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::running::{Fixed, Running};
#[cfg(feature = "keda")]
use super::scaler::ScalerPort;
use crate::commands::settings::Settings;
use crate::exit::Failure;
use crate::logging;
use crate::server::Door;

/// What takes effect only after a restart: sockets stay open, and the form of the log is that of its first line.
const AT_START: [&str; 5] = [
    "log.format",
    "server.listen",
    "server.tls_cert_path",
    "server.tls_client_ca_path",
    "server.tls_key_path",
];

/// For reading the configuration and the files that it names.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// Why the configuration is read again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// SIGHUP.
    Signal,
    /// Its file has changed.
    File,
}

/// A configuration that was read again.
pub(super) struct Read {
    settings: Result<Settings, Failure>,
    began: Tick,
}

/// What runs, and what is needed to replace it.
pub(super) struct Daemon {
    layers: Loader,
    fixed: Fixed,
    pub(super) running: Running,
    /// The configuration of the start.
    first: Loaded,
    door: watch::Sender<Door>,
    #[cfg(feature = "keda")]
    scaler: ScalerPort,
}

impl Daemon {
    pub(super) fn new(
        layers: Loader,
        fixed: Fixed,
        running: Running,
        door: watch::Sender<Door>,
    ) -> Self {
        Self {
            layers,
            first: running.settings.loaded.clone(),
            #[cfg(feature = "keda")]
            scaler: ScalerPort::new(fixed.lifecycle.clone()),
            fixed,
            running,
            door,
        }
    }

    /// Opens the port of the external scaler, if it is configured.
    #[cfg_attr(not(feature = "keda"), expect(clippy::unused_async, reason = "there is none"))]
    pub(super) async fn open_scaler(&mut self) -> Result<(), Failure> {
        #[cfg(feature = "keda")]
        {
            let change = self.scaler.prepare(&self.running).await?;
            self.scaler.make(change, &self.running)?;
        }
        Ok(())
    }

    /// Where the external scaler listens.
    #[cfg_attr(not(feature = "keda"), expect(clippy::unused_self, reason = "there is none"))]
    pub(super) fn scaler_address(&self) -> Option<SocketAddr> {
        #[cfg(feature = "keda")]
        return self.scaler.address();
        #[cfg(not(feature = "keda"))]
        None
    }

    /// Waits for the end of the external scaler.
    #[cfg_attr(not(feature = "keda"), expect(clippy::unused_async, reason = "there is none"))]
    pub(super) async fn scaler_ended(self) {
        #[cfg(feature = "keda")]
        self.scaler.ended().await;
    }

    /// Reads the configuration again. A file system may hang meanwhile, so drop it if something else matters more.
    pub(super) fn read(&self) -> impl Future<Output = Read> + use<> {
        let (layers, clock) = (self.layers.clone(), Arc::clone(&self.running.settings.clock));
        async move {
            let began = clock.now();
            let reading = spawn_blocking(|| Settings::again(layers, clock));
            let settings = if let Ok(read) = timeout(READ_WITHIN, reading).await {
                read.unwrap_or_else(|_| Err(Failure::other("reading it panicked")))
            } else {
                let seconds = READ_WITHIN.as_secs();
                Err(Failure::other(format!("it could not be read within {seconds} s")))
            };
            Read { settings, began }
        }
    }

    /// Applies a configuration, or says why not.
    pub(super) async fn reload(&mut self, cause: Cause, read: Read) {
        match self.try_reload(cause, read).await {
            Ok(restart_for) => self.fixed.reloads.succeeded(&restart_for),
            Err(failure) => {
                let error = failure.problems().join("; ");
                tracing::error!(
                    error,
                    "The new configuration cannot be used: the former one stays"
                );
                self.fixed.reloads.failed(error);
            }
        }
    }

    /// Returns the keys that take effect only after a restart.
    async fn try_reload(&mut self, cause: Cause, read: Read) -> Result<Vec<&'static str>, Failure> {
        let clock = Arc::clone(&self.running.settings.clock);
        let Read { settings, began } = read;
        let settings = settings?;
        let speeds = [&self.running.settings, &settings].map(|it| it.loaded.config.speed());
        if speeds[0] != speeds[1] {
            // All ages count on the clock of the start.
            return Err(Failure::usage(format!(
                "time would pass at the speed {} instead of {}: only a restart can change that",
                speeds[1].unwrap_or(1.0),
                speeds[0].unwrap_or(1.0)
            )));
        }
        let changed = settings.loaded.changed_keys(&self.running.settings.loaded);
        if !changed.is_empty() {
            settings.warn();
            self.apply(settings, &changed).await?;
        }
        let restart_for = self.restart_for();
        if changed.is_empty() {
            if cause == Cause::Signal {
                tracing::info!(
                    "The configuration has not changed; files that it names are read when they do"
                );
            }
            return Ok(restart_for);
        }
        tracing::info!(
            changed = changed.join(", "),
            variants = self.running.settings.loaded.config.variants.len(),
            took = ?began.age(clock.now()),
            "Reloaded the configuration"
        );
        if changed.iter().any(|key| restart_for.contains(key)) {
            tracing::warn!(
                keys = restart_for.join(", "),
                "Some keys that have changed take effect only after a restart"
            );
        }
        Ok(restart_for)
    }

    /// Everything that can fail is done before anything changes.
    async fn apply(&mut self, settings: Settings, changed: &[&str]) -> Result<(), Failure> {
        let level = settings.loaded.config.log.level;
        if changed.iter().all(|key| key.starts_with("log.") || AT_START.contains(key)) {
            self.running.settings = settings;
        } else {
            let next = Running::build(&self.fixed, settings, Some(&self.running))?;
            #[cfg(feature = "keda")]
            let change = self.scaler.prepare(&next).await?;
            next.start_after(&self.running).await?;
            self.door.send_replace(next.door());
            #[cfg(feature = "keda")]
            self.scaler.make(change, &next)?;
            self.running = next;
        }
        logging::set_level(level);
        Ok(())
    }

    fn restart_for(&self) -> Vec<&'static str> {
        let loaded = &self.running.settings.loaded;
        let mut keys = loaded.changed_keys(&self.first);
        keys.retain(|key| AT_START.contains(key));
        #[cfg(feature = "keda")]
        keys.extend(self.scaler.unchanged_keys(loaded));
        keys
    }
}
