//! A backend that reads model servers (vLLM, SGLang, TensorRT-LLM) and the Endpoint Picker directly.

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
pub use collector_transport::ConfigError;
pub use config::EppConfig;
pub use scrape::{
    Content, Credential, CutShort, FetchError, FetchedPage, PageClient, PageError, read_page,
    shown, target_at,
};

/// The backend's name in readings, errors, logs and metrics.
const NAME: &str = "epp";

/// The section of its keys.
const SECTION: collector_transport::Section =
    collector_transport::Section { name: NAME, variables: None };
