// SPDX-License-Identifier: Apache-2.0
//! What the engine keeps of models besides their records: their fetches in flight, their last invalidation, whether
//! they are tracked.

mod cell;
mod models;

pub(crate) use cell::{Cell, Joined, State, Tracked};
pub(crate) use models::Models;
