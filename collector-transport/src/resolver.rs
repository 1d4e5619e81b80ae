// SPDX-License-Identifier: Apache-2.0
//! Resolves host names.

use std::fmt;
use std::net::SocketAddr;

use collector_core::text::quote;

/// A host name without an address.
#[derive(Debug, thiserror::Error)]
pub struct Unresolved {
    host: String,
    #[source]
    source: Option<std::io::Error>,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.host)?;
        match &self.source {
            Some(error) => write!(f, ": {}", quote(&error.to_string())),
            None => f.write_str(" has no address"),
        }
    }
}

/// Resolves a host with the system's resolver, to at least one address.
///
/// # Errors
/// An error of a type of its own, so that [`find`](crate::find) recognises it.
pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
    let unresolved = |source| Unresolved { host: host.to_owned(), source };
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| unresolved(Some(error)))?
        .collect();
    if addresses.is_empty() { Err(unresolved(None)) } else { Ok(addresses) }
}
