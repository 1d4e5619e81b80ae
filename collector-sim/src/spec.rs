//! What a fleet is: its variants, their pods, the engine in each pod and the load on them.

use std::collections::HashSet;
use std::time::Duration;

use serde::Deserialize;

use crate::load::{Arrivals, Load, Variation};

/// More would only exhaust ports and memory of one machine.
const MAX_PODS: u32 = 10_000;
/// As many as the largest data-parallel deployments have.
const MAX_ENGINES: u32 = 64;
/// Keeps the catching-up after a long pause bounded: 1000 requests a second and variant.
const MAX_REQUESTS_PER_MINUTE: f64 = 60_000.0;

/// A described fleet. The same description, seed included, makes the same fleet.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FleetSpec {
    /// Seeds every drawn number.
    pub seed: u64,
    /// How long the load has been on when the fleet is first looked at. Without it the first
    /// looks see queues and caches that are still filling.
    #[serde(with = "collector_core::duration")]
    pub warm_up: Duration,
    /// The variants.
    pub variants: Vec<VariantSpec>,
}

/// One variant: a model on some pods of one kind, with its own share of the load.
///
/// Two variants may serve the same model in the same namespace, as when it runs on two
/// accelerators or while an engine is upgraded.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantSpec {
    /// Its name, unique in the namespace. Its pods are called `<name>-0`, `<name>-1` and so on.
    pub name: String,
    /// The model id, any text: the value of the label `model_name`.
    pub model: String,
    /// The namespace of its pods.
    pub namespace: String,
    /// How many pods it starts with.
    #[serde(default = "default_pods")]
    pub pods: u32,
    /// What each pod runs.
    #[serde(default)]
    pub engine: EngineSpec,
    /// The load on all its pods together.
    #[serde(default)]
    pub load: Load,
}

fn default_pods() -> u32 {
    2
}

/// What a pod runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSpec {
    /// Data-parallel engines in the pod, told apart by the label `engine`.
    pub engines: u32,
    /// How many requests one engine runs at once (vLLM's `--max-num-seqs`).
    pub max_num_seqs: u32,
    /// KV-cache blocks of one engine.
    pub num_gpu_blocks: u32,
    /// Tokens in a block.
    pub block_size: u32,
    /// Which generation of metric names its page has.
    pub names: MetricNames,
}

impl Default for EngineSpec {
    /// vLLM's own defaults; the blocks are those of an 8B model on a GPU with 80 GB.
    fn default() -> Self {
        Self {
            engines: 1,
            max_num_seqs: 256,
            num_gpu_blocks: 27_436,
            block_size: 16,
            names: MetricNames::V1,
        }
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

/// Why a description makes no fleet.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("variant {variant:?} in namespace {namespace:?}: {problem}")]
pub struct SpecError {
    variant: String,
    namespace: String,
    problem: String,
}

impl VariantSpec {
    /// A variant with two pods, default engines and the default load.
    pub fn new(name: &str, model: &str, namespace: &str) -> Self {
        Self {
            name: name.to_owned(),
            model: model.to_owned(),
            namespace: namespace.to_owned(),
            pods: default_pods(),
            engine: EngineSpec::default(),
            load: Load::default(),
        }
    }

    fn check(&self) -> Result<(), String> {
        let (engine, load) = (&self.engine, &self.load);
        if self.name.is_empty() || self.namespace.is_empty() {
            return Err("name and namespace must not be empty".into());
        }
        if self.pods > MAX_PODS {
            return Err(format!("pods = {} is more than {MAX_PODS}", self.pods));
        }
        if !(1..=MAX_ENGINES).contains(&engine.engines) {
            return Err(format!("engines = {} is not in 1..={MAX_ENGINES}", engine.engines));
        }
        if engine.names == MetricNames::V0 && engine.engines > 1 {
            return Err("names = \"v0\" has no label to tell engines apart: use engines = 1".into());
        }
        if engine.max_num_seqs == 0 {
            return Err("max_num_seqs must be at least 1".into());
        }
        check_rate(load.requests_per_minute)?;
        if load.itl.is_zero() {
            return Err("itl must be more than 0".into());
        }
        if !(0.0..=1.0).contains(&load.prefix_hit_ratio) {
            return Err(format!("prefix_hit_ratio = {} is not in 0..=1", load.prefix_hit_ratio));
        }
        let capacity = u64::from(engine.num_gpu_blocks) * u64::from(engine.block_size);
        if load.longest_request() > capacity {
            return Err(format!(
                "its longest request has {} tokens, the KV cache {capacity}, so that it could \
                 never run: raise num_gpu_blocks or shorten prompt_tokens and output_tokens",
                load.longest_request()
            ));
        }
        Ok(())
    }
}

/// Whether a rate can be simulated.
pub(crate) fn check_rate(requests_per_minute: f64) -> Result<(), String> {
    if (0.0..=MAX_REQUESTS_PER_MINUTE).contains(&requests_per_minute) {
        Ok(())
    } else {
        Err(format!(
            "requests_per_minute = {requests_per_minute} is not in 0..={MAX_REQUESTS_PER_MINUTE}"
        ))
    }
}

impl FleetSpec {
    /// Whether a fleet can be made of it.
    ///
    /// # Errors
    /// Names the first variant that cannot be, and why.
    pub fn check(&self) -> Result<(), SpecError> {
        let mut names = HashSet::new();
        for variant in &self.variants {
            let checked = if names.insert((&variant.namespace, &variant.name)) {
                variant.check()
            } else {
                Err("there are two of this name".into())
            };
            checked.map_err(|problem| SpecError {
                variant: variant.name.clone(),
                namespace: variant.namespace.clone(),
                problem,
            })?;
        }
        Ok(())
    }

    /// Three models on 24 pods under a lively load: one with room, one busy, one that queues at
    /// times.
    pub fn demo() -> Self {
        let engine = |num_gpu_blocks, max_num_seqs| EngineSpec {
            max_num_seqs,
            num_gpu_blocks,
            ..EngineSpec::default()
        };
        let load = |requests_per_minute, prompt_tokens, output_tokens, ttft, itl| Load {
            requests_per_minute,
            prompt_tokens,
            output_tokens,
            ttft: Duration::from_millis(ttft),
            itl: Duration::from_millis(itl),
            arrivals: Arrivals::Poisson,
            variation: Variation::Spread,
            ..Load::default()
        };
        let variant = |name, model, namespace, engine, load| VariantSpec {
            pods: 8,
            engine,
            load,
            ..VariantSpec::new(name, model, namespace)
        };
        Self {
            seed: 1,
            warm_up: Duration::from_secs(300),
            variants: vec![
                variant(
                    "llama-8b",
                    "meta-llama/Llama-3.1-8B-Instruct",
                    "chat",
                    engine(4_000, 64),
                    load(1_800.0, 600, 200, 70, 18),
                ),
                variant(
                    "llama-70b",
                    "meta-llama/Llama-3.3-70B-Instruct",
                    "chat",
                    engine(3_000, 32),
                    load(600.0, 1_500, 350, 350, 42),
                ),
                variant(
                    "qwen-coder",
                    "Qwen/Qwen3-Coder-30B-A3B-Instruct",
                    "code",
                    engine(6_000, 24),
                    load(540.0, 3_500, 500, 450, 38),
                ),
            ],
        }
    }
}
