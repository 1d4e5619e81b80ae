// SPDX-License-Identifier: Apache-2.0
//! What the backends list, as `/readyz` and the page show it.

use collector_core::text::counted;
use collector_core::{BackendState, CollectorState, ErrorKind, ListingState};
use serde::Serialize;

/// Which models the backends know, and which of them are tracked without a read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct DiscoveryDocument {
    /// Listed models are tracked (`tracking.discover`).
    enabled: bool,
    /// `listing` until every backend was asked once, `models` when some are known, `none` when the backends answer and
    /// know no model, `failed` when a backend does not answer and no model is known, `unsupported` when no backend can
    /// list its models.
    status: &'static str,
    /// What is wrong or left out, and what to do; null when everything known is tracked.
    message: Option<String>,
    /// Known models outside `tracking.namespaces`.
    excluded: usize,
    /// Known models that are not tracked because of `server.max_tracked`.
    left_out: usize,
    /// What each backend said when it was last asked for its models.
    backends: Vec<ListingDocument>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ListingDocument {
    name: String,
    /// Models of its last list; null when it has returned none yet, which is not 0.
    models: Option<usize>,
    /// The age of that list.
    age_seconds: Option<f64>,
    /// Why it could not be listed since; null when it was.
    error: Option<String>,
}

impl DiscoveryDocument {
    /// `None` where the backends are only listed on demand.
    pub(super) fn new(state: &CollectorState) -> Option<Self> {
        let discovery = state.discovery.as_ref()?;
        let status = status(state);
        let left_out = match (discovery.left_out, discovery.excluded) {
            (0, excluded)
                if discovery.tracks && excluded > 0 && Some(excluded) == discovery.known =>
            {
                Some("no known model is in a namespace of tracking.namespaces".to_owned())
            }
            (0, _) => None,
            (left_out, _) => Some(format!(
                "{} left out because of server.max_tracked",
                counted(left_out, "known model is", "known models are")
            )),
        };
        let cause = match status {
            "listing" => Some("the backends are being asked for their models".to_owned()),
            "none" => {
                let mut questions = vec!["does anything scrape the model servers?"];
                if state.backends.iter().any(is_cluster) {
                    questions.push("does an object of the cluster describe a model?");
                }
                Some(format!(
                    "the backends answer and know no model: {} `collector check` finds the cause",
                    questions.join(" ")
                ))
            }
            "unsupported" => Some(
                "no backend can list its models: they are tracked once they are read".to_owned(),
            ),
            _ => None,
        };
        let failures = state.backends.iter().filter_map(failure);
        let message: Vec<String> = cause.into_iter().chain(failures).chain(left_out).collect();
        Some(Self {
            enabled: discovery.tracks,
            status,
            message: (!message.is_empty()).then(|| message.join("; ")),
            excluded: discovery.excluded,
            left_out: discovery.left_out,
            backends: state.backends.iter().map(ListingDocument::new).collect(),
        })
    }
}

impl ListingDocument {
    fn new(backend: &BackendState) -> Self {
        let ListingState { models, age, error, .. } = &backend.listing;
        Self {
            name: backend.name.to_string(),
            models: *models,
            age_seconds: age.map(|age| age.as_secs_f64()),
            error: error.as_ref().map(ToString::to_string),
        }
    }
}

fn status(state: &CollectorState) -> &'static str {
    let known = state.discovery.and_then(|discovery| discovery.known);
    let listings = || state.backends.iter().map(|backend| &backend.listing);
    if known.is_some_and(|known| known > 0) {
        "models"
    } else if listings().any(|listing| listing.models.is_none() && listing.error.is_none()) {
        "listing"
    } else if state.backends.iter().any(|backend| failure(backend).is_some()) {
        "failed"
    } else if known.is_some() {
        "none"
    } else {
        "unsupported"
    }
}

/// Why a backend that can list its models did not.
fn failure(backend: &BackendState) -> Option<String> {
    let error = backend.listing.error.as_ref()?;
    let what = if is_cluster(backend) {
        "the objects of the cluster".to_owned()
    } else {
        format!("the models of {}", backend.name)
    };
    (error.kind() != ErrorKind::Unsupported).then(|| format!("{what} cannot be listed: {error}"))
}

/// Whether it is what reads a cluster, which measures nothing.
fn is_cluster(backend: &BackendState) -> bool {
    backend.name.as_str() == "kubernetes"
}

#[cfg(test)]
mod tests;
