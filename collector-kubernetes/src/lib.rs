// SPDX-License-Identifier: Apache-2.0
//! What a Kubernetes cluster knows of inference fleets, from watches: which pods belong to which workload, which of them
//! are ready, starting or leaving, which pools and Endpoint Pickers there are.

mod conditions;
mod kind;
mod objects;
mod space;

pub use conditions::Condition;
