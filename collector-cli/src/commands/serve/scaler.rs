// SPDX-License-Identifier: Apache-2.0
//! The port of a door that answers from the scaler, which may be opened, moved and closed while the process runs.

use std::net::SocketAddr;
use std::sync::Arc;

use collector_config::Loaded;
use collector_keda::Scaler;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::running::Running;
use crate::exit::Failure;
use crate::server::{Lifecycle, ScalerDoor, scaler_settings};

/// The open port, if there is one.
pub(super) struct ScalerPort<D> {
    open: Option<Open>,
    lifecycle: watch::Receiver<Lifecycle>,
    door: std::marker::PhantomData<D>,
}

struct Open {
    scaler: Arc<Scaler>,
    /// Where it was to listen, and where it does.
    listen: SocketAddr,
    address: SocketAddr,
    /// The configuration that it was opened with.
    opened_with: Loaded,
    /// Dropped to close it.
    close: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// A change that can be made: what can fail has been done.
pub(super) enum Change<D> {
    /// The port stays as it is; the scaler reads from another collector.
    Replace(Box<collector_keda::Settings>),
    /// It is opened, or opened elsewhere.
    Open(Box<D>, SocketAddr),
    Close,
}

impl<D: ScalerDoor> ScalerPort<D> {
    pub(super) fn new(lifecycle: watch::Receiver<Lifecycle>) -> Self {
        Self { open: None, lifecycle, door: std::marker::PhantomData }
    }

    /// Prepares what the configuration says.
    ///
    /// # Errors
    /// When the address cannot be listened on, or a certificate cannot be used.
    pub(super) async fn prepare(&self, running: &Running) -> Result<Change<D>, Failure> {
        let loaded = &running.settings.loaded;
        let Some(listen) = D::address(&loaded.config) else { return Ok(Change::Close) };
        if self.open.as_ref().is_some_and(|open| open.listen == listen) {
            return Ok(Change::Replace(Box::new(scaler_settings(loaded)?)));
        }
        let clock = Arc::clone(&running.settings.clock);
        let collector = Arc::clone(&running.collector);
        let door = D::listen(loaded, &running.backends, collector, clock, listen).await?;
        Ok(Change::Open(Box::new(door), listen))
    }

    /// Makes the change.
    pub(super) fn make(&mut self, change: Change<D>, running: &Running) -> Result<(), Failure> {
        match change {
            Change::Replace(settings) => {
                if let Some(open) = &self.open {
                    open.scaler.replace(Arc::clone(&running.collector), *settings);
                }
            }
            Change::Close => self.open = None,
            Change::Open(door, listen) => {
                let loaded = &running.settings.loaded;
                let (address, scaler) = (door.announce(loaded)?, door.scaler());
                let stopping = Lifecycle::Stopping.reached(self.lifecycle.clone());
                let (close, closed) = oneshot::channel::<()>();
                let task = tokio::spawn(door.serve(async {
                    tokio::select! {
                        () = stopping => {}
                        _ = closed => {}
                    }
                }));
                let opened_with = loaded.clone();
                self.open = Some(Open { scaler, listen, address, opened_with, close, task });
            }
        }
        Ok(())
    }

    /// Where it listens.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.open.as_ref().map(|open| open.address)
    }

    /// The keys that have changed since the port was opened, and take effect only when it is opened again.
    pub(super) fn fixed_keys(&self, loaded: &Loaded) -> Vec<&'static str> {
        let Some(Open { opened_with, .. }) = &self.open else { return Vec::new() };
        let mut keys = loaded.changed_keys(opened_with);
        keys.retain(|key| D::is_fixed(key, &opened_with.config));
        keys
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
