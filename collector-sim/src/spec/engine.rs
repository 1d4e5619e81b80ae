// SPDX-License-Identifier: Apache-2.0
//! The engine in a pod.

use collector_engines::{Engine, Engines};
use serde::Deserialize;

/// As many as in the largest data-parallel deployments.
const MAX_ENGINES: u32 = 64;
/// Far more than a server loads at once.
const MAX_ADAPTERS: usize = 64;
/// No model server has a larger page.
const MAX_PAGE_BYTES: u32 = 16 * 1024 * 1024;

/// The engine in a pod.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSpec {
    /// The kind of model server.
    pub kind: EngineKind,
    /// A model server instead of `kind`: a built-in engine by its name, or one defined as in `[[engines]]`.
    /// Its page has the series of its quantities.
    pub described: Option<Box<collector_engines::EngineSpec>>,
    /// Data-parallel engines in the pod, distinguished by the label `engine` (vLLM) or `dp_rank` (SGLang).
    /// Other servers have one.
    pub engines: u32,
    /// Concurrent requests of one engine (vLLM's `--max-num-seqs`).
    pub max_num_seqs: u32,
    /// KV-cache blocks of one engine.
    pub num_gpu_blocks: u32,
    /// Tokens in a block.
    pub block_size: u32,
    /// The generation of vLLM's metric names on its page.
    pub names: MetricNames,
    /// Names of the LoRA adapters that requests use besides the base model, all equally often. vLLM with one
    /// engine only.
    pub lora_adapters: Vec<String>,
    /// Pads its page with more series of the server's families to this many bytes: real pages grow with
    /// paths, stages and models in use. `None` for no padding.
    pub page_bytes: Option<u32>,
}

/// A model server, named as by the pod label `llm-d.ai/engine-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EngineKind {
    /// vLLM.
    #[default]
    Vllm,
    /// SGLang.
    Sglang,
    /// TensorRT-LLM's own server.
    TrtllmServe,
    /// Triton with the TensorRT-LLM backend.
    TritonTensorrtLlm,
}

impl EngineKind {
    /// The value of the pod label `llm-d.ai/engine-type`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::TrtllmServe => "trtllm-serve",
            Self::TritonTensorrtLlm => "triton-tensorrt-llm",
        }
    }
}

impl Default for EngineSpec {
    /// vLLM's own defaults; the blocks are those of an 8B model on a GPU with 80 GB.
    fn default() -> Self {
        Self {
            kind: EngineKind::Vllm,
            described: None,
            engines: 1,
            max_num_seqs: 256,
            num_gpu_blocks: 27_436,
            block_size: 16,
            names: MetricNames::V1,
            lora_adapters: Vec::new(),
            page_bytes: None,
        }
    }
}

impl EngineSpec {
    /// Returns the described engine; `None` for one of `kind`.
    pub(crate) fn described(&self) -> Option<Engine> {
        let spec = self.described.as_deref()?;
        // It was validated with the rest.
        Engines::new(std::slice::from_ref(spec)).ok()?.of_user().first().cloned()
    }

    /// The value of the pod label `llm-d.ai/engine-type`.
    pub(crate) fn label(&self) -> &str {
        match &self.described {
            Some(described) => described.name.as_str(),
            None => self.kind.label(),
        }
    }

    fn check_described(&self) -> Result<(), String> {
        let Some(spec) = self.described.as_deref() else { return Ok(()) };
        let engines =
            Engines::new(std::slice::from_ref(spec)).map_err(|error| error.to_string())?;
        if self.kind != EngineKind::Vllm || self.names != MetricNames::V1 {
            return Err("described takes the place of kind and names: leave these out".into());
        }
        if !self.lora_adapters.is_empty() || self.page_bytes.is_some() {
            return Err("lora_adapters and page_bytes are for the servers of kind".into());
        }
        let ranks = engines.of_user().first().is_some_and(|engine| !engine.rank_labels.is_empty());
        if self.engines > 1 && !ranks {
            let name = &spec.name;
            return Err(format!(
                "a page of {name} has no label to tell engines apart: use engines = 1"
            ));
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), String> {
        self.check_described()?;
        if !(1..=MAX_ENGINES).contains(&self.engines) {
            return Err(format!("engines = {} is not in 1..={MAX_ENGINES}", self.engines));
        }
        if self.names == MetricNames::V0 && self.kind != EngineKind::Vllm {
            return Err("names = \"v0\" is a generation of vLLM: leave it out".into());
        }
        let parallel = match self.kind {
            EngineKind::Vllm => self.names == MetricNames::V1,
            EngineKind::Sglang => true,
            EngineKind::TrtllmServe | EngineKind::TritonTensorrtLlm => false,
        };
        if self.engines > 1 && !parallel && self.described.is_none() {
            return Err(format!(
                "a page of {}{} has no label to tell engines apart: use engines = 1",
                self.kind.label(),
                if self.kind == EngineKind::Vllm { " with names = \"v0\"" } else { "" },
            ));
        }
        if self.max_num_seqs == 0 {
            return Err("max_num_seqs must be at least 1".into());
        }
        if let Some(bytes) = self.page_bytes.filter(|bytes| *bytes > MAX_PAGE_BYTES) {
            return Err(format!("page_bytes = {bytes} is more than {MAX_PAGE_BYTES}"));
        }
        self.check_adapters()
    }

    fn check_adapters(&self) -> Result<(), String> {
        let adapters = &self.lora_adapters;
        if adapters.is_empty() {
            return Ok(());
        }
        if self.kind != EngineKind::Vllm || self.engines > 1 {
            return Err("lora_adapters need a vLLM with engines = 1".into());
        }
        if adapters.len() > MAX_ADAPTERS {
            return Err(format!(
                "lora_adapters has {} names, more than {MAX_ADAPTERS}",
                adapters.len()
            ));
        }
        if adapters.iter().any(|name| name.is_empty() || name.contains(',')) {
            return Err("a name in lora_adapters is empty or holds a comma".into());
        }
        Ok(())
    }
}

/// A generation of vLLM's metric names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricNames {
    /// `vllm:kv_cache_usage_perc`, `vllm:inter_token_latency_seconds`, a label `engine`.
    #[default]
    V1,
    /// `vllm:gpu_cache_usage_perc`, `vllm:time_per_output_token_seconds`, no label `engine`.
    V0,
}
