// SPDX-License-Identifier: Apache-2.0
//! Who may read: questions that the cluster answers.

use async_trait::async_trait;

use crate::front_proxy::{FrontProxyConfig, User};

/// Says who the front proxy is, and what users may read.
#[async_trait]
pub trait AccessControl: Send + Sync + 'static {
    /// The front proxy as it is at present.
    ///
    /// # Errors
    /// Why it is not known, in words.
    async fn front_proxy(&self) -> Result<FrontProxyConfig, String>;

    /// Whether a user may read a metric.
    ///
    /// # Errors
    /// Why that is not known, in words.
    async fn review(&self, access: &AccessRequest) -> Result<Decision, String>;
}

/// What a user wants to read.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AccessRequest {
    /// The user.
    pub user: User,
    /// The namespace of the metric.
    pub namespace: String,
    /// The metric, which is the resource.
    pub metric: String,
}

/// Whether a user may read a metric.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The user may.
    pub is_allowed: bool,
    /// Why, or why not, where the cluster says so.
    pub reason: String,
}
