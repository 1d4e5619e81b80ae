// SPDX-License-Identifier: Apache-2.0
//! The HTTP API: a collector's readings, its health and its own metrics.

mod access;
mod api;
mod app;
mod connections;
mod discovery;
mod etag;
mod events;
#[cfg(feature = "kubernetes")]
mod external_metrics;
mod fields;
mod front;
mod gzip;
mod health;
#[cfg(feature = "keda")]
mod keda;
mod lists;
mod metrics;
mod openapi;
mod page;
mod process;
#[cfg(feature = "promql")]
mod promql;
mod query;
mod read;
mod recorder;
mod reloads;
mod respond;
mod routes;
#[cfg(feature = "keda")]
mod scaler_door;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use access::Access;
pub(crate) use app::{App, Lifecycle};
pub(crate) use connections::{Door, MAX_HEAD_BYTES, MAX_HEAD_WITH_QUERY_BYTES, serve_until};
pub(crate) use events::Events;
#[cfg(test)]
pub(crate) use events::{ModelEvent, RemovedEvent, ResetEvent};
#[cfg(feature = "kubernetes")]
pub(crate) use external_metrics::ExternalMetricsDoor;
pub(crate) use front::Front;
#[cfg(test)]
pub(crate) use health::{HealthDocument, ReadinessDocument};
#[cfg(feature = "keda")]
pub(crate) use keda::Keda;
pub(crate) use page::Changes;
#[cfg(feature = "promql")]
pub(crate) use promql::guard::{guard, limits, server};
#[cfg(feature = "promql")]
pub(crate) use promql::{Promql, max_age};
pub(crate) use read::ReadPlaces;
pub(crate) use recorder::Recorder;
pub(crate) use reloads::Reloads;
#[cfg(feature = "keda")]
pub(crate) use scaler_door::{ScalerDoor, settings as scaler_settings};
pub(crate) use tls::{address_of, api_tls, external_metrics_tls, keda_tls, listen, load_tls};
