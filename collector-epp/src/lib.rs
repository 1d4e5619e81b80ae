// SPDX-License-Identifier: Apache-2.0
//! Direct scraping: the backend that reads the metrics pages of model servers (vLLM, SGLang, TensorRT-LLM and others)
//! and of endpoint pickers itself.
//!
//! Start reading at [`EppBackend`]. `discover` finds the targets, `scrape` fetches a metrics page, `scan` finds the
//! wanted samples on it, `engines` and `endpoint_picker` turn these into rows, `rates` turns rows into rates and peaks
//! over a window, and `backend` makes answers of them.

mod backend;
mod config;
pub mod discover;
pub mod endpoint_picker;
pub mod engines;
mod rates;
pub mod scan;
mod scrape;
mod selfmetrics;

pub use backend::EppBackend;
pub use collector_transport::{ConfigError, shown};
pub use config::EppConfig;
pub use scrape::{
    Content, Credential, CutShort, ExpositionClient, ExpositionError, FetchError,
    FetchedExposition, read_exposition, target_at,
};

/// The backend's name in readings, errors, logs and metrics.
const NAME: &str = "epp";

/// The section of its keys.
const SECTION: collector_transport::Section =
    collector_transport::Section { name: NAME, variables: None };
