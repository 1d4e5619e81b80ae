// SPDX-License-Identifier: Apache-2.0
//! A backend that reads models and replicas from a JSON file.
//!
//! It is of use where something else writes that file, and as a pattern for backends outside of the
//! collector's own repository. One dependency has all that it needs, `inference-collector`.
//!
//! - [`StaticJson`]: the trait, and nothing but it,
//! - [`factory`]: the section of a configuration that chooses it,
//! - [`Document`]: the file's format, read and checked.

mod backend;
mod document;
mod settings;

pub use backend::StaticJson;
pub use document::{Document, Invalid, Load, Model, Replica};
pub use settings::factory;
