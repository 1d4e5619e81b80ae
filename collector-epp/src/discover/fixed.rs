// SPDX-License-Identifier: Apache-2.0
//! Targets that stand in the configuration.

use async_trait::async_trait;

use super::{Discovery, DiscoveryError, Target};

/// A list that never changes.
#[derive(Clone, Debug)]
pub struct FixedTargets(Vec<Target>);

impl FixedTargets {
    /// These targets.
    pub fn new(targets: Vec<Target>) -> Self {
        Self(targets)
    }
}

#[async_trait]
impl Discovery for FixedTargets {
    fn source(&self) -> &'static str {
        "epp.targets"
    }

    async fn targets(&self) -> Result<Vec<Target>, DiscoveryError> {
        Ok(self.0.clone())
    }

    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}
