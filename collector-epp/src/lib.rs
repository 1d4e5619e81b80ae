//! A backend that reads model servers (vLLM, SGLang, TensorRT-LLM) and the Endpoint Picker directly.

pub mod engines;
pub mod scan;
