// SPDX-License-Identifier: Apache-2.0
//! Signals that stop the process, and the one that has it read its configuration again.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// The name of the signal by which a manager ends the process.
pub(crate) const SIGTERM: &str = "SIGTERM";

/// SIGTERM and SIGINT, caught from when this is made.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Catches the signals from now on.
    pub(crate) fn catch() -> Result<Self, Failure> {
        Ok(Self {
            terminate: caught(SignalKind::terminate())?,
            interrupt: caught(SignalKind::interrupt())?,
        })
    }

    /// Resolves at the next of them, with its name.
    pub(crate) async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => SIGTERM,
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGHUP, caught from now on.
pub(crate) fn hangups() -> Result<Signal, Failure> {
    caught(SignalKind::hangup())
}

/// A signal, caught from now on.
pub(crate) fn caught(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::other(format!("cannot catch signals: {error}")))
}
