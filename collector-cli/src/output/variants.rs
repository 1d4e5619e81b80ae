// SPDX-License-Identifier: Apache-2.0
//! The variants, as a document and a table.

use collector_documents::SCHEMA_VERSION;
use serde::Serialize;

use super::cells::{UNKNOWN, name, optional, tenths, whole};
use super::documents::document;
use super::table::titled;

document! {
    /// The variants that are configured, and those that objects of a cluster describe.
    pub(crate) VariantsDocument<'a> of (items: &'a [VariantItem]);
    schema_version: u32 = SCHEMA_VERSION;
    /// `variants`.
    kind: &'static str = "variants";
    items: &'a [VariantItem] = items;
}

/// One variant.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct VariantItem {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) model: String,
    /// Null when it is not known.
    pub(crate) accelerator: Option<String>,
    /// Cost of one replica per hour, in the unit of the configuration.
    pub(crate) cost: f64,
    /// What its pods do where a request is served by several; null when it is not known.
    pub(crate) role: Option<String>,
    /// The kind of the workload that it scales; null without a cluster that has it.
    pub(crate) target_kind: Option<String>,
    /// The name of this workload.
    pub(crate) target_name: Option<String>,
    /// The replicas that the workload asks for; null when that is not known.
    pub(crate) wanted: Option<u32>,
    /// The pods that are Ready; null, as the counts below, without a cluster that has it.
    pub(crate) ready: Option<u32>,
    /// The pods that have not been Ready yet.
    pub(crate) starting: Option<u32>,
    /// The pods that have been Ready and are not any more.
    pub(crate) not_ready: Option<u32>,
    /// The pods that are being deleted.
    pub(crate) terminating: Option<u32>,
    /// `configuration`, or the kind of the object that describes it, as `ScaledObject`.
    pub(crate) source: String,
}

/// The variants, a row each.
pub(crate) fn variants_table<'a>(
    items: impl Iterator<Item = &'a VariantItem>,
    wide: bool,
    no_headers: bool,
) -> String {
    let mut header = vec![
        "NAMESPACE",
        "VARIANT",
        "MODEL",
        "ACCELERATOR",
        "COST",
        "WANTED",
        "READY",
        "STARTING",
        "TARGET",
    ];
    if wide {
        header.extend(["ROLE", "NOT READY", "TERMINATING", "SOURCE"]);
    }
    let count = |count: Option<u32>| whole(count.map(u64::from));
    let rows = items.map(|item| {
        let target = match (&item.target_kind, &item.target_name) {
            (Some(kind), Some(target)) => name(&format!("{kind}/{target}")),
            _ => UNKNOWN.to_owned(),
        };
        let mut row = vec![
            name(&item.namespace),
            name(&item.name),
            name(&item.model),
            optional(item.accelerator.as_ref()),
            tenths(Some(item.cost)),
            count(item.wanted),
            count(item.ready),
            count(item.starting),
            target,
        ];
        if wide {
            row.extend([
                optional(item.role.as_ref()),
                count(item.not_ready),
                count(item.terminating),
                name(&item.source),
            ]);
        }
        row
    });
    titled(&header, rows, no_headers)
}
