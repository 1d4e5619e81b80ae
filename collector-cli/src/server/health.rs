// SPDX-License-Identifier: Apache-2.0
//! `/healthz` and `/readyz`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use collector_core::{CollectError, Freshness, TrackedModel};
use serde::Serialize;

use super::app::App;
use super::discovery::DiscoveryDocument;
use super::reloads::ConfigurationDocument;
use super::respond::json;
use crate::output::{BackendDocument, SCHEMA_VERSION, status_without_reading};

/// So many models are named in the answer at most; the rest is counted.
const MAX_NAMED: usize = 100;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct HealthDocument {
    schema_version: u32,
    /// `ok`.
    status: &'static str,
}

/// How the backends are, and what is outdated because of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ReadinessDocument {
    schema_version: u32,
    /// The configuration is loaded, every backend was asked for its models, and the first cycle has ended, well or
    /// badly; and the server was not told to stop.
    ready: bool,
    /// The configuration in use, and whether a newer one could not be.
    configuration: ConfigurationDocument,
    backends: Vec<BackendDocument>,
    /// Models that the backends list, tracked or not; null when no backend has listed any yet, which is not 0.
    known: Option<usize>,
    /// What the backends list, and what is not tracked of it; null where they are only asked on demand.
    discovery: Option<DiscoveryDocument>,
    /// Models tracked.
    tracked: usize,
    /// Of these, how many have no fresh reading.
    not_fresh: usize,
    /// The first of them.
    stale: Vec<StaleDocument>,
}

/// What callers get that may not read what runs here.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReadyDocument {
    schema_version: u32,
    ready: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct StaleDocument {
    model: String,
    namespace: String,
    /// `stale`, `unavailable`, `missing`, `pending` or `failed`.
    status: &'static str,
    /// The age of what is known; null when nothing is.
    age_seconds: Option<f64>,
}

/// The process answers.
pub(super) async fn alive() -> Response {
    let document = HealthDocument { schema_version: SCHEMA_VERSION, status: "ok" };
    json(StatusCode::OK, &document)
}

/// Returns whether readings can be read, and the state of the backends.
pub(super) async fn ready(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let state = app.collector.state();
    let ready = app.is_ready(&state) && !app.is_stopping();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !app.access.may_read(&headers) {
        // What a probe needs. The rest names models and addresses.
        return json(status, &ReadyDocument { schema_version: SCHEMA_VERSION, ready });
    }
    let tracked = app.collector.tracked();
    let outdated = || tracked.iter().filter_map(outdated);
    let document = ReadinessDocument {
        schema_version: SCHEMA_VERSION,
        ready,
        configuration: app.reloads.document(),
        backends: state.backends.iter().map(BackendDocument::new).collect(),
        known: state.discovery.and_then(|discovery| discovery.known),
        discovery: DiscoveryDocument::new(&state),
        tracked: state.tracked,
        not_fresh: outdated().count(),
        stale: outdated().take(MAX_NAMED).collect(),
    };
    json(status, &document)
}

fn outdated(tracked: &TrackedModel) -> Option<StaleDocument> {
    let (status, age) = match &tracked.replicas {
        Ok(reading) if reading.freshness() == Freshness::Fresh => return None,
        Ok(reading) => (reading.freshness().as_str(), Some(reading.age())),
        Err(error @ CollectError::Unavailable { age, .. }) => {
            (status_without_reading(error), Some(*age))
        }
        Err(error) => (status_without_reading(error), None),
    };
    Some(StaleDocument {
        model: tracked.model.model.to_string(),
        namespace: tracked.model.namespace.to_string(),
        status,
        age_seconds: age.map(|age| age.as_secs_f64()),
    })
}
