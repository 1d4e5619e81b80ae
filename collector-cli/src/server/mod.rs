//! The HTTP API: a collector's readings, its health and its own metrics.

mod admin;
mod api;
mod app;
mod connections;
mod health;
mod metrics;
mod page;
mod query;
mod recorder;
mod respond;
mod routes;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use admin::Admin;
pub(crate) use app::{App, Lifecycle};
pub(crate) use connections::{Listener, serve_until};
#[cfg(test)]
pub(crate) use health::{HealthDocument, ReadinessDocument};
pub(crate) use recorder::Recorder;
pub(crate) use tls::load_tls;
