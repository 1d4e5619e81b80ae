// SPDX-License-Identifier: Apache-2.0
//! What a Kubernetes cluster knows of inference fleets, from watches: which pods belong to which workload, which of them
//! are ready, starting or leaving.
//!
//! A [`Cluster`] is a backend whose samples have a [`Supply`](collector_core::Supply) and nothing else, and it has a
//! [directory](Cluster::directory) of the variants. `watch` keeps a `store` up to date, one task for each kind; a `space`
//! of it is a namespace, where pods are assigned to variants.

mod api_service;
mod backend;
mod client;
mod cluster;
mod conditions;
mod credentials;
mod directory;
mod extension;
mod failure;
mod kind;
mod listing;
mod live;
mod objects;
mod pages;
mod questions;
mod requests;
mod selfmetrics;
mod space;
mod store;
mod watch;
mod watches;

pub use api_service::{ApiOwner, ApiServiceOwner, EXTERNAL_METRICS};
pub use backend::NAME;
pub use client::{ClientError, ClusterConfig};
pub use cluster::Cluster;
pub use conditions::Condition;
pub use directory::ClusterDirectory;
pub use extension::{AccessAnswer, AccessQuestion, RequestHeaders};
pub use kube::Client;
pub use listing::{ListedPod, ListedVariant};
pub use pages::{ClusterPages, Page, PageSource, PagesUnknown, Selector};
pub use questions::{ApiKind, ApiServer, Autoscalers, Permission, group_of};
