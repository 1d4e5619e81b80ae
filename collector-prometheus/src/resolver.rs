//! The system's resolver, as the HTTP client takes it.

use collector_transport::resolve;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Gives an error that is recognised when it is explained.
pub(crate) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses = resolve(name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
