//! What users read: the documents of the command line and the HTTP API, and their printed forms.

mod backend;
mod columns;
mod documents;
mod error;
mod explain;
mod exposition;
mod json;
mod lists;
mod notes;
mod pace;
mod readings;
mod table;
mod terminal;
mod text;
mod validation;

pub(crate) use backend::BackendDocument;
pub(crate) use collector_core::text::printable;
pub(crate) use columns::{aligned, shortened};
#[cfg(test)]
pub(crate) use documents::ReadingItem;
pub(crate) use documents::{
    AllocationDocument, CheckDocument, ConfigDocument, ConfigEntry, ListDocument, ModelItem,
    RemovedDocument, ReplicasDocument, SCHEMA_VERSION,
};
pub(crate) use error::{ErrorDocument, variant_to_add};
pub(crate) use explain::{ExplainDocument, ExplainedPace, Look, Looked, explain_table};
pub(crate) use exposition::{Exposition, Kind};
pub(crate) use json::{to_json, to_yaml};
pub(crate) use lists::{allocation_items, model_items, replicas_item};
pub(crate) use notes::{failed_fields, unknown_fields};
pub(crate) use pace::PaceDocument;
pub(crate) use readings::{ALLOCATION_FAMILIES, REPLICA_FAMILIES};
pub(crate) use table::{UNKNOWN, allocation_table, models_table, replicas_table};
#[cfg(test)]
pub(crate) use terminal::{ASCII, UNICODE};
pub(crate) use terminal::{Signs, colours, signs};
pub(crate) use text::{nearest_first, print, print_on, quoted};
pub(crate) use validation::{
    CheckedFile, Targets, ValidatedBackend, ValidatedFile, ValidationDocument,
};
