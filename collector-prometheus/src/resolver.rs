//! Finds the addresses of a host.

use std::fmt;
use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::failure::quote;

/// The system's resolver, with an error of its own that can be recognised.
pub(crate) struct Resolver;

/// A host name without an address.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Unresolved {
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

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str();
            let unresolved = |source| Unresolved { host: host.to_owned(), source };
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, 0))
                .await
                .map_err(|error| unresolved(Some(error)))?
                .collect();
            if addresses.is_empty() {
                return Err(unresolved(None).into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
