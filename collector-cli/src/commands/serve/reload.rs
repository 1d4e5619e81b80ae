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
#[cfg(feature = "kubernetes")]
use crate::server::ExternalMetricsDoor;
#[cfg(feature = "keda")]
use crate::server::Keda;

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
    keda: ScalerPort<Keda>,
    #[cfg(feature = "kubernetes")]
    external_metrics: ScalerPort<ExternalMetricsDoor>,
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
            keda: ScalerPort::new(fixed.lifecycle.clone()),
            #[cfg(feature = "kubernetes")]
            external_metrics: ScalerPort::new(fixed.lifecycle.clone()),
            fixed,
            running,
            door,
        }
    }

    /// Opens the ports of the doors that answer from the scaler, if they are configured.
    #[cfg_attr(not(feature = "keda"), expect(clippy::unused_async, reason = "there is none"))]
    pub(super) async fn open_scalers(&mut self) -> Result<(), Failure> {
        #[cfg(feature = "keda")]
        {
            let change = self.keda.prepare(&self.running).await?;
            self.keda.make(change, &self.running)?;
        }
        #[cfg(feature = "kubernetes")]
        {
            let change = self.external_metrics.prepare(&self.running).await?;
            self.external_metrics.make(change, &self.running)?;
        }
        Ok(())
    }

    /// Where the doors listen that answer from the scaler, by their names.
    #[cfg_attr(not(feature = "keda"), expect(clippy::unused_self, reason = "there is none"))]
    pub(super) fn scaler_addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let doors: [(&str, Option<SocketAddr>); _] = [
            #[cfg(feature = "keda")]
            ("keda", self.keda.address()),
            #[cfg(feature = "kubernetes")]
            ("external-metrics", self.external_metrics.address()),
        ];
        doors.into_iter().filter_map(|(name, address)| Some((name, address?)))
    }

    /// Waits for the end of these doors.
    #[cfg_attr(not(feature = "keda"), expect(clippy::unused_async, reason = "there is none"))]
    pub(super) async fn scalers_ended(self) {
        #[cfg(feature = "keda")]
        self.keda.ended().await;
        #[cfg(feature = "kubernetes")]
        self.external_metrics.ended().await;
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
            if self.fixed.reloads.is_failed() {
                tracing::info!("The configuration can be used again: it is the one in use");
            } else if cause == Cause::Signal {
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
            let keda = self.keda.prepare(&next).await?;
            #[cfg(feature = "kubernetes")]
            let external_metrics = self.external_metrics.prepare(&next).await?;
            next.start_after(&self.running).await?;
            self.door.send_replace(next.door());
            #[cfg(feature = "keda")]
            self.keda.make(keda, &next)?;
            #[cfg(feature = "kubernetes")]
            self.external_metrics.make(external_metrics, &next)?;
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
        keys.extend(self.keda.fixed_keys(loaded));
        #[cfg(feature = "kubernetes")]
        keys.extend(self.external_metrics.fixed_keys(loaded));
        keys
    }
}
