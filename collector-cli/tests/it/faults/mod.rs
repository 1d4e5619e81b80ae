// SPDX-License-Identifier: Apache-2.0
//! What users see when something breaks, shown with the real binary.
//!
//! Each case says which fault it makes, and every one of them is held to the same rules
//! (`verdict.rs`): the exit code, one document at most on stdout, one cause on stderr that names
//! what to change, no secret anywhere, an end within the deadline.

pub(crate) mod certificates;
mod configuration;
pub(crate) mod daemon;
mod data;
pub(crate) mod fleet;
mod lifecycle;
mod load;
mod partial;
mod reaching;
mod restart;
pub(crate) mod server;
mod status;
mod tls;
mod verdict;
