// SPDX-License-Identifier: Apache-2.0
//! What users read: the documents of the command line and the HTTP API, and their printed forms.

pub(crate) mod cells;
mod columns;
mod documents;
mod explain;
mod exposition;
mod json;
mod notes;
#[cfg(feature = "kubernetes")]
mod pods;
mod readings;
mod rows;
mod status;
mod table;
mod terminal;
mod text;
mod validation;
mod variants;

pub(crate) use collector_core::text::printable;
pub(crate) use collector_documents::text::{nearest_first, quoted};
pub(crate) use collector_documents::{
    AllocationDocument, BackendDocument, CheckDocument, ErrorBody, ErrorDocument, ListDocument,
    ModelItem, PaceDocument, ReadingItem, ReplicasDocument, SCHEMA_VERSION, allocation_item,
    allocation_items, model_items, replicas_item, variant_to_add,
};
pub(crate) use columns::{aligned, shortened};
#[cfg(feature = "epp")]
pub(crate) use documents::document;
pub(crate) use documents::{ConfigDocument, ConfigEntry, RemovedDocument, VersionDocument};
pub(crate) use explain::{
    ExplainDocument, ExplainedPace, FetchOutcome, TracedFetch, explain_table,
};
#[cfg(feature = "promql")]
pub(crate) use exposition::label_value;
pub(crate) use exposition::{Exposition, Kind, Series, series};
pub(crate) use json::{printed_json, shown, to_json};
pub(crate) use notes::{failed_fields, unknown_fields};
#[cfg(feature = "kubernetes")]
pub(crate) use pods::{PodItem, PodsDocument, pods_table};
pub(crate) use readings::{
    ALLOCATION_SERIES, REPLICA_SERIES, SUPPLY_SERIES, allocation_samples, replica_samples,
    supply_samples,
};
#[cfg(feature = "promql")]
pub(crate) use readings::{
    OfAllocation, OfReplica, OfSupply, allocation_labels, replica_labels, supply_labels,
};
pub(crate) use rows::Rows;
pub(crate) use status::status_without_reading;
pub(crate) use table::{
    allocation_table, allocations_table, list_table, models_table, replicas_table,
};
#[cfg(all(test, feature = "sim"))]
pub(crate) use terminal::ASCII;
#[cfg(any(feature = "sim", feature = "tui"))]
pub(crate) use terminal::Signs;
#[cfg(all(test, any(feature = "sim", feature = "tui")))]
pub(crate) use terminal::UNICODE;
pub(crate) use terminal::{Colour, Colours, colours, painted, signs, width};
pub(crate) use text::{print, print_on};
pub(crate) use validation::{
    CheckedFile, Targets, ValidatedBackend, ValidatedFile, ValidationDocument,
};
pub(crate) use variants::{VariantItem, VariantsDocument, variants_table};
