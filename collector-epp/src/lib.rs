//! A backend that reads model servers (vLLM, SGLang, TensorRT-LLM) and the Endpoint Picker directly.

pub mod discover;
pub mod engines;
pub mod scan;

/// The backend's name in readings, errors, logs and metrics.
const NAME: &str = "epp";

/// The section of its keys.
const SECTION: collector_transport::Section =
    collector_transport::Section { name: NAME, variables: None };
