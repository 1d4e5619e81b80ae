//! The background: which models are refreshed when, sources that push, and the sweep of what expires.

pub mod adaptive;
mod live;
mod pace;
mod schedule;
mod worker;

pub(crate) use pace::{Pace, Paces};
pub(crate) use worker::Worker;
