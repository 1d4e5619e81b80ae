// SPDX-License-Identifier: Apache-2.0
//! The JSON documents of the metrics collector, as types.
//!
//! What `collector get -o json` prints and `collector serve` answers is made of these; a program that embeds
//! the collector serialises them itself and its users need not learn another form:
//!
//! ```
//! use std::time::SystemTime;
//!
//! use collector_core::{Reading, Replicas};
//! use collector_documents::ReplicasDocument;
//!
//! fn json(reading: &Reading<Replicas>) -> String {
//!     ReplicasDocument::new(reading, SystemTime::now()).to_json()
//! }
//! ```
//!
//! Programs rely on them: within a [schema version](SCHEMA_VERSION) documents only grow. Their JSON schemas
//! are in `docs/schema` of the repository; with the feature `schemars` each type makes its own.
#![cfg_attr(docsrs, feature(doc_cfg))]

/// Defines a document and how it is made: each field with its value.
macro_rules! document {
    ($(#[$meta:meta])* $vis:vis $name:ident$(<$a:lifetime>)? of ($($from:ident: $from_type:ty),+);
     $($(#[$doc:meta])* $shown:vis $field:ident: $type:ty = $value:expr;)*) => {
        $(#[$meta])*
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        #[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
        $vis struct $name$(<$a>)? {
            $($(#[$doc])* $shown $field: $type,)*
        }

        impl$(<$a>)? $name$(<$a>)? {
            /// Makes the document. `wall` is the time of the read.
            $vis fn new($($from: $from_type),+) -> Self {
                Self { $($field: $value,)* }
            }
        }
    };
}
mod backend;
mod check;
mod endpoint_picker;
mod error;
mod json;
mod lists;
mod named;
mod pace;
mod readings;
mod supply;
pub mod text;

use std::time::Duration;

pub use backend::BackendDocument;
pub use check::CheckDocument;
pub use error::{ErrorBody, ErrorDocument, variant_to_add};
pub use json::{escape_controls, to_json};
pub use lists::{
    ListDocument, ModelItem, ReadingItem, allocation_item, allocation_items, model_items,
    replicas_item,
};
pub use pace::PaceDocument;
pub use readings::{AllocationDocument, ReplicasDocument};

/// The version that every document carries.
pub const SCHEMA_VERSION: u32 = 1;

/// Seconds to the millisecond, which is all that ages are good for.
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
