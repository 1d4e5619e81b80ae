//! A model server's engine: what it does with its requests, and the page that tells of it.
//!
//! [`scheduler`] simulates vLLM's scheduler and fills [`counters`]; [`vllm`] renders both as vLLM
//! does, through the writer in [`exposition`].

mod counters;
mod exposition;
mod histogram;
mod scheduler;
mod vllm;

pub(crate) use scheduler::{Engine, Snapshot};
pub(crate) use vllm::PodPage;
