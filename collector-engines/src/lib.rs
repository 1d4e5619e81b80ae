// SPDX-License-Identifier: Apache-2.0
//! The series of each model server and their meaning, as data that every backend reads.
//!
//! [`Engines`] is the table: the built-in engines and those of the user. An [`Engine`] says how its
//! series are recognised, which labels name model and rank, and for each [`Quantity`] the
//! [`Expression`]s that may supply it, in order of preference. Direct scraping compiles the table into the series that
//! it looks for on a metrics page, the Prometheus backend into queries; neither treats an engine specially by name.
//! This crate does no I/O.
//!
//! ```
//! use collector_engines::{Engines, Quantity};
//!
//! let engines = Engines::builtin();
//! let vllm = engines.iter().find(|engine| engine.name.as_str() == "vllm").unwrap();
//! let running = &vllm.alternatives(Quantity::Running)[0];
//! assert_eq!(running.to_string(), "vllm:num_requests_running");
//! ```

mod builtin;
pub mod endpoint_picker;
mod engine;
mod expression;
mod matcher;
mod parse;
mod quantity;
mod user;

pub use engine::{Engine, Engines};
pub use expression::{Expression, Operator, Series};
pub use matcher::{LabelMatcher, MatchOperator};
pub use parse::ExpressionError;
pub use quantity::{Fold, Quantity};
pub use user::{Aliases, EngineSpec, Labels, SpecError};

/// The name of endpoint pickers in configurations and documents; no engine can have it.
pub const ENDPOINT_PICKER: &str = "epp";
