// SPDX-License-Identifier: Apache-2.0
//! Errors of serving a fleet.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::fleet::FleetError;
use crate::spec::SpecError;

/// Why a fleet could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The description is invalid.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The requested item is not in the fleet.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A pod's listener could not be opened.
    #[error("cannot listen on {address} for pod {pod:?}: {source}")]
    Listen {
        /// The pod.
        pod: String,
        /// Its address; port 0 means any free one.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// There are more pods than ports after the first one.
    #[error("there is no port left for pod {pod:?}: begin at a lower port")]
    NoPort {
        /// The pod.
        pod: String,
    },
    /// Faults that no pod can have.
    #[error("{0}")]
    BadFaults(String),
    /// A targets file could not be written.
    #[error("cannot write the targets file {}: {source}", path.display())]
    Targets {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}
