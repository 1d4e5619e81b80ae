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
pub(crate) use columns::{aligned, aligned_by};
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
#[cfg(feature = "epp")]
pub(crate) use table::UNKNOWN;
pub(crate) use table::{allocation_table, models_table, replicas_table};
pub(crate) use terminal::{Signs, signs};
pub(crate) use text::{nearest_first, print, printable, quoted};
pub(crate) use validation::{
    CheckedFile, Targets, ValidatedBackend, ValidatedFile, ValidationDocument,
};
