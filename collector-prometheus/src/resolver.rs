// SPDX-License-Identifier: Apache-2.0
//! The system's resolver, for the HTTP client.

use collector_transport::resolve;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Returns errors that can be explained later.
pub(crate) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses = resolve(name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
