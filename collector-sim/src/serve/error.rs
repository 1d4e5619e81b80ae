//! What can go wrong while a fleet is served.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::fleet::FleetError;
use crate::spec::SpecError;

/// Why a fleet could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The description is impossible.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// What was asked for is not in the fleet.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A pod's listener could not be opened.
    #[error("cannot listen on {address} for pod {pod:?}: {source}")]
    Listen {
        /// The pod.
        pod: String,
        /// Where it was to listen; port 0 means any free one.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// There are more pods than ports from the first one on.
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
        /// What the system said.
        source: io::Error,
    },
}
