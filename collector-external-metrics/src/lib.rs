// SPDX-License-Identifier: Apache-2.0
//! The External Metrics API of Kubernetes (`external.metrics.k8s.io/v1beta1`): an HPA reads the signals of the external
//! scaler.
//!
//! An HPA adds up the items of a list and takes none for an error, so an answer is a list of one item or an error: what is
//! unknown, partial or missing is never 0. The signals and their texts are those of [`collector_keda`]; this crate has the
//! [label selectors](parse_selector) that choose a model, exact quantities, and the access of Kubernetes: the API server
//! ([front proxy](FrontProxyConfig)) names the user, and the [`AccessControl`] decides what the user may read. [`serve`] runs
//! the server.

mod access_control;
mod answer;
mod counters;
mod front_proxy;
mod models;
mod quantity;
mod question;
mod reviews;
mod selector;
mod server;
mod service;
mod trust;

pub use access_control::{AccessControl, AccessRequest, Decision};
pub use front_proxy::{FrontProxyConfig, User};
pub use selector::{Operator, Requirement, label_of, parse as parse_selector};
pub use server::serve;
pub use service::ExternalMetrics;
