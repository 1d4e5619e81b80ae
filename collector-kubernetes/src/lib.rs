// SPDX-License-Identifier: Apache-2.0
//! What a Kubernetes cluster knows of inference fleets, from watches: which pods belong to which workload, which of them
//! are ready, starting or leaving, which pools and Endpoint Pickers there are.

mod conditions;
mod directory;
mod kind;
mod objects;
mod selfmetrics;
mod space;
mod store;
mod watches;

pub use conditions::Condition;
pub use directory::ClusterDirectory;
