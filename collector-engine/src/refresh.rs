// SPDX-License-Identifier: Apache-2.0
//! The background: which models are discovered, and refreshed when, sources that push, and the sweep of what expires.

pub mod adaptive;
mod ages;
mod discovery;
mod live;
mod pace;
mod schedule;
mod worker;

pub use discovery::Discovery;

pub(crate) use ages::AgeLog;
pub(crate) use discovery::Discoverer;
pub(crate) use pace::{Pace, Paces};
pub(crate) use worker::Worker;
