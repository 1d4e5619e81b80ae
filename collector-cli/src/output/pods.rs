// SPDX-License-Identifier: Apache-2.0
//! The pods that a cluster has, as a document and a table.

use std::time::Duration;

use collector_documents::SCHEMA_VERSION;
use serde::Serialize;

use super::cells::{UNKNOWN, age, known, name, optional};
use super::documents::document;
use super::table::titled;

document! {
    /// The pods that serve models.
    pub(crate) PodsDocument<'a> of (items: &'a [PodItem]);
    schema_version: u32 = SCHEMA_VERSION;
    /// `pods`.
    kind: &'static str = "pods";
    items: &'a [PodItem] = items;
}

/// One pod.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PodItem {
    pub(crate) namespace: String,
    pub(crate) pod_name: String,
    pub(crate) model: String,
    /// Null when it belongs to no variant of the model.
    pub(crate) variant_name: Option<String>,
    /// `starting`, `ready`, `notReady` or `terminating`.
    pub(crate) state: &'static str,
    /// When it came into this state, by the clock of the API server; null if that does not say.
    pub(crate) since: Option<String>,
    /// Whether a backend has metrics of it: `yes`, `no`, or `asleep` for a server that has its weights offloaded; null when
    /// that is not known.
    pub(crate) answers: Option<&'static str>,
    /// The age of its newest sample; null without one.
    pub(crate) answer_age_seconds: Option<f64>,
}

/// The pods, a row each.
pub(crate) fn pods_table<'a>(
    items: impl Iterator<Item = &'a PodItem>,
    wide: bool,
    no_headers: bool,
) -> String {
    let mut header = vec!["NAMESPACE", "POD", "MODEL", "VARIANT", "STATE", "ANSWERS", "AGE"];
    if wide {
        header.push("SINCE");
    }
    let rows = items.map(|item| {
        let answer_age = item.answer_age_seconds.map(Duration::from_secs_f64);
        let mut row = vec![
            name(&item.namespace),
            name(&item.pod_name),
            name(&item.model),
            optional(item.variant_name.as_ref()),
            item.state.to_owned(),
            item.answers.unwrap_or(UNKNOWN).to_owned(),
            known(answer_age, age),
        ];
        if wide {
            row.push(optional(item.since.as_ref()));
        }
        row
    });
    titled(&header, rows, no_headers)
}
