// SPDX-License-Identifier: Apache-2.0
//! The port of the external scaler, which may be opened, moved and closed while the process runs.

use std::net::SocketAddr;
use std::sync::Arc;

use collector_config::{KedaConfig, Loaded};
use collector_keda::Scaler;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::running::Running;
use crate::exit::Failure;
use crate::server::{Keda, Lifecycle, keda_settings};

/// The open port, if there is one.
pub(super) struct ScalerPort {
    open: Option<Open>,
    lifecycle: watch::Receiver<Lifecycle>,
}

struct Open {
    scaler: Arc<Scaler>,
    /// What it was opened with.
    config: KedaConfig,
    address: SocketAddr,
    /// Dropped to close it.
    close: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// A change that can be made: what can fail has been done.
pub(super) enum Change {
    /// The port stays as it is; the scaler reads from another collector.
    Replace(Box<collector_keda::Settings>),
    /// It is opened, or opened elsewhere.
    Open(Box<Keda>),
    Close,
}

impl ScalerPort {
    pub(super) fn new(lifecycle: watch::Receiver<Lifecycle>) -> Self {
        Self { open: None, lifecycle }
    }

    /// Prepares what the configuration says.
    ///
    /// # Errors
    /// When the address cannot be listened on, or a certificate cannot be used.
    pub(super) async fn prepare(&self, running: &Running) -> Result<Change, Failure> {
        let loaded = &running.settings.loaded;
        let Some(listen) = loaded.config.keda.listen else { return Ok(Change::Close) };
        if self.open.as_ref().is_some_and(|open| open.config.listen == Some(listen)) {
            return Ok(Change::Replace(Box::new(keda_settings(loaded)?)));
        }
        let clock = Arc::clone(&running.settings.clock);
        let keda = Keda::listen(loaded, Arc::clone(&running.collector), clock).await?;
        Ok(keda.map_or(Change::Close, |keda| Change::Open(Box::new(keda))))
    }

    /// Makes the change.
    pub(super) fn make(&mut self, change: Change, running: &Running) -> Result<(), Failure> {
        match change {
            Change::Replace(settings) => {
                if let Some(open) = &self.open {
                    open.scaler.replace(Arc::clone(&running.collector), *settings);
                }
            }
            Change::Close => self.open = None,
            Change::Open(keda) => {
                let loaded = &running.settings.loaded;
                let (address, scaler) = (keda.announce(loaded)?, keda.scaler());
                let stopping = Lifecycle::Stopping.reached(self.lifecycle.clone());
                let (close, closed) = oneshot::channel::<()>();
                let task = tokio::spawn(keda.serve(async {
                    tokio::select! {
                        () = stopping => {}
                        _ = closed => {}
                    }
                }));
                let config = loaded.config.keda.clone();
                self.open = Some(Open { scaler, config, address, close, task });
            }
        }
        Ok(())
    }

    /// Where it listens.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.open.as_ref().map(|open| open.address)
    }

    /// The keys of the open port that are others than in this configuration: its certificate is chosen when it opens.
    pub(super) fn unchanged_keys(&self, loaded: &Loaded) -> Vec<&'static str> {
        let Some(Open { config, .. }) = &self.open else { return Vec::new() };
        let new = &loaded.config.keda;
        let keys = [
            ("keda.tls_cert_path", config.tls_cert_path != new.tls_cert_path),
            ("keda.tls_client_ca_path", config.tls_client_ca_path != new.tls_client_ca_path),
            ("keda.tls_key_path", config.tls_key_path != new.tls_key_path),
        ];
        keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }

    /// Waits for its end, which comes once the process stops.
    pub(super) async fn ended(self) {
        if let Some(Open { task, close, .. }) = self.open {
            // A panic in it was logged, and ends it alone.
            let _ = task.await;
            drop(close);
        }
    }
}
