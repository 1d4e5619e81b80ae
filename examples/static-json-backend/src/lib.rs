//! A backend that reads models and replicas from a JSON file.
//!
//! It is of use where something else writes that file, and as a pattern for backends outside of the
//! collector's own repository: it needs `collector-core`, and `collector-testkit` for its tests.
//!
//! - [`StaticJson`]: the trait, and nothing but it,
//! - [`Document`]: the file's format, read and checked.

mod backend;
mod document;

pub use backend::StaticJson;
pub use document::{Document, Invalid, Load, Model, Replica};
