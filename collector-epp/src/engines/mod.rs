// SPDX-License-Identifier: Apache-2.0
//! Reads the metrics pages of model servers.
//!
//! [`Engines`] is the table of [`collector_engines`], compiled: for each engine and quantity the series
//! that may supply it. An [`ExpositionReader`] takes the samples of a metrics page from a
//! [`Scanner`](crate::scan::Scanner) and returns an [`Exposition`]: for a model server, one row for each model and
//! data-parallel rank. The page of an endpoint picker is read by [`endpoint_picker`](crate::endpoint_picker).
//!
//! ```
//! use std::sync::Arc;
//! use collector_epp::engines::{Engines, Exposition, Quantity};
//! use collector_epp::scan::{Ended, Format, Limits, Scanner};
//!
//! let engines = Engines::builtin();
//! let mut scanner = Scanner::new(Arc::clone(engines.wanted()), Limits::default());
//! let mut reader = engines.reader();
//! scanner.begin(Format::Text);
//! let page = b"vllm:num_requests_waiting{model_name=\"llama\",engine=\"0\"} 3.0\n";
//! scanner.feed(page, |sample| reader.sample(sample))?;
//! let summary = scanner.finish(Ended::Complete, |sample| reader.sample(sample))?;
//! let Ok(Exposition::Server(page)) = reader.finish(&summary) else { panic!("it is a server's") };
//! assert_eq!(page.engine.as_str(), "vllm");
//! let numbers = &page.rows[0].numbers;
//! assert_eq!((numbers[Quantity::Waiting], numbers[Quantity::Running]), (Some(3.0), None));
//! # Ok::<(), collector_epp::scan::TooLarge>(())
//! ```

mod assemble;
mod bits;
mod buckets;
mod cells;
mod compile;
mod exposition;
mod gauges;
mod lora;
mod reader;
mod rows;
mod series;
mod table;

pub use collector_engines::{
    Aliases, ENDPOINT_PICKER, EngineSpec, Expression, Operator, Quantity, Series, SpecError,
};
pub use compile::Engines;
pub use exposition::{
    Buckets, EngineRow, Exposition, LoraAdapters, Matched, NoModel, Numbers, ServerExposition,
    UnknownExposition,
};
pub use reader::ExpositionReader;
