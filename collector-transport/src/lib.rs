// SPDX-License-Identifier: Apache-2.0
//! The parts of a connection to a server that all backends share.
//!
//! [`Tls`], [`Token`] and [`Secret`] are made from a user's settings and read their files again when these change.
//! [`Wording`] explains connection errors and names the key to change. [`collecting`] counts under the names that all
//! backends share. No request is sent from here: each backend has its own client. With the cargo feature `command`, [`command`]
//! runs commands that print credentials; with `server`, [`server`] has what our own servers share: connections with limits,
//! and TLS.

mod auth;
mod certificates;
pub mod collecting;
#[cfg(feature = "command")]
pub mod command;
mod error;
mod expiry;
mod explain;
mod files;
mod resolver;
mod secret;
#[cfg(feature = "server")]
pub mod server;
mod tls;
mod url;

pub use auth::{Token, check_token, sensitive};
pub use collector_core::text::quote;
pub use error::{ConfigError, Section};
pub use expiry::certificate_expiry;
pub use explain::{Cause, Wording, find, root_cause};
pub use files::{NamedFile, Stamp};
pub use resolver::{Unresolved, resolve};
pub use secret::{Extract, Secret};
pub use tls::{Tls, TlsSettings};
pub use url::{redirect, server_url, shown};
