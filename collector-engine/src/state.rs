//! What the engine knows of models besides their records: who fetches them, what may not be stored any more, what is
//! tracked.

mod cell;
mod models;

pub(crate) use cell::{Cell, Joined, State, Tracked};
pub(crate) use models::Models;
