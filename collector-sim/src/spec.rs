//! What a fleet is: its variants, their pods, the engine in each pod and the load on them.

use std::collections::HashSet;
use std::time::Duration;

use serde::Deserialize;

use crate::load::{Arrivals, Load, Variation};
use crate::shape::Shape;

/// More would only exhaust ports and memory of one machine.
const MAX_PODS: u32 = 10_000;
/// As many as the largest data-parallel deployments have.
const MAX_ENGINES: u32 = 64;
/// Far more than a server loads at once.
const MAX_ADAPTERS: usize = 64;
/// Beyond this a page is no page of a model server.
const MAX_PAGE_BYTES: u32 = 16 * 1024 * 1024;
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
    /// Lets one model after the other get most of the load; `None` for none.
    pub hot_model: Option<HotModel>,
    /// The variants.
    pub variants: Vec<VariantSpec>,
    /// The Endpoint Pickers in front of them; there may be none.
    pub pickers: Vec<PickerSpec>,
}

/// One model after the other, in the order of the variants, gets a multiple of its load.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HotModel {
    /// The multiple.
    pub factor: f64,
    /// How long each model's turn is.
    #[serde(with = "collector_core::duration")]
    pub turn: Duration,
}

/// An Endpoint Picker: a pod that tells of the pool of pods it sends requests to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PickerSpec {
    /// The InferencePool, unique in the namespace. The picker's pod is called `<pool>-epp`.
    pub pool: String,
    /// The namespace of the pool and its pods.
    pub namespace: String,
    /// The variants whose pods are in the pool; empty means all of the namespace.
    #[serde(default)]
    pub variants: Vec<String>,
    /// Which generations of metric names its page has.
    #[serde(default)]
    pub names: PickerNames,
    /// Whether it holds requests back while every pod of their variant has a queue, or there is
    /// none. Without it each request goes to a pod at once, as without a picker.
    #[serde(default = "yes")]
    pub flow_control: bool,
}

fn yes() -> bool {
    true
}

/// The generations of the Endpoint Picker's metric names. Newer pages have the legacy names beside
/// their own; both tell of the same requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PickerNames {
    /// `inference_pool_*`, `inference_objective_*`, `inference_extension_*`, and no others.
    Legacy,
    /// Legacy and `llm_d_router_epp_*`.
    Router,
    /// Legacy and `llm_d_epp_*`.
    #[default]
    LlmD,
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
    /// Which model server it is.
    pub kind: EngineKind,
    /// Data-parallel engines in the pod, told apart by the label `engine` (vLLM) or `dp_rank`
    /// (SGLang). The other servers have one.
    pub engines: u32,
    /// How many requests one engine runs at once (vLLM's `--max-num-seqs`).
    pub max_num_seqs: u32,
    /// KV-cache blocks of one engine.
    pub num_gpu_blocks: u32,
    /// Tokens in a block.
    pub block_size: u32,
    /// Which generation of vLLM's metric names its page has.
    pub names: MetricNames,
    /// Names of the LoRA adapters that requests use beside the base model, each as often as the
    /// others. vLLM with one engine only.
    pub lora_adapters: Vec<String>,
    /// Fills its page with more series of families that the server itself has, up to this many
    /// bytes: real pages grow with paths, stages and models in use. `None` for as it is.
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
    fn check(&self) -> Result<(), String> {
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
        if self.engines > 1 && !parallel {
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

/// Why a description makes no fleet.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{subject}: {problem}")]
pub struct SpecError {
    /// What is described impossibly.
    subject: String,
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
        engine.check()?;
        check_load(engine, load)
    }
}

/// Whether an engine can be under a load.
pub(crate) fn check_load(engine: &EngineSpec, load: &Load) -> Result<(), String> {
    load.shape.check()?;
    check_rate(load.requests_per_minute)?;
    // A product of two numbers from 0 on.
    check_rate(load.requests_per_minute * load.shape.peak())
        .map_err(|problem| format!("with its shape, {problem}"))?;
    if load.itl.is_zero() {
        return Err("itl must be more than 0".into());
    }
    if !(0.0..=1.0).contains(&load.prefix_hit_ratio) {
        return Err(format!("prefix_hit_ratio = {} is not in 0..=1", load.prefix_hit_ratio));
    }
    let capacity = u64::from(engine.num_gpu_blocks) * u64::from(engine.block_size);
    if load.longest_request() > capacity {
        return Err(format!(
            "its longest request has {} tokens, the KV cache {capacity}, so that it could never \
             run: raise num_gpu_blocks or shorten prompt_tokens and output_tokens",
            load.longest_request()
        ));
    }
    Ok(())
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
    /// Names the first variant or picker that cannot be, and why.
    pub fn check(&self) -> Result<(), SpecError> {
        let mut names = HashSet::new();
        for variant in &self.variants {
            let VariantSpec { name, namespace, .. } = variant;
            let checked = if names.insert((namespace, name)) {
                variant.check()
            } else {
                Err("there are two of this name".into())
            };
            checked.map_err(|problem| SpecError {
                subject: format!("variant {name:?} in namespace {namespace:?}"),
                problem,
            })?;
        }
        let pods: u64 = self.variants.iter().map(|variant| u64::from(variant.pods)).sum();
        if pods > u64::from(MAX_PODS) {
            let problem = format!("{pods} pods are more than {MAX_PODS}");
            return Err(SpecError { subject: "the fleet".into(), problem });
        }
        self.check_hot_model()?;
        self.check_pickers()
    }

    fn check_hot_model(&self) -> Result<(), SpecError> {
        let error = |problem| SpecError { subject: "hot_model".into(), problem };
        let Some(HotModel { factor, turn }) = self.hot_model else { return Ok(()) };
        if turn.is_zero() {
            return Err(error("turn must be more than 0".into()));
        }
        self.hot_shape(0).check().map_err(error)?;
        let mut busiest = self.variants.iter().map(|variant| {
            variant.load.requests_per_minute * variant.load.shape.peak() * factor.max(1.0)
        });
        busiest.try_for_each(check_rate).map_err(error)
    }

    /// When the model of a variant, by its place, is the hot one.
    pub(crate) fn hot_shape(&self, variant: usize) -> Shape {
        let Some(HotModel { factor, turn }) = self.hot_model else { return Shape::Steady };
        let mut models: Vec<(&str, &str)> = Vec::new();
        let mut turns = Vec::new();
        for VariantSpec { namespace, model, .. } in &self.variants {
            let model = (namespace.as_str(), model.as_str());
            let place = models.iter().position(|known| *known == model).unwrap_or_else(|| {
                models.push(model);
                models.len() - 1
            });
            turns.push(u32::try_from(place).unwrap_or(u32::MAX));
        }
        let models = u32::try_from(models.len().max(1)).unwrap_or(u32::MAX);
        Shape::Burst {
            factor,
            every: turn.saturating_mul(models),
            lasts: turn,
            after: turn.saturating_mul(turns.get(variant).copied().unwrap_or(0)),
        }
    }

    fn check_pickers(&self) -> Result<(), SpecError> {
        let mut pools = HashSet::new();
        // A request is sent by one picker.
        let mut sent = HashSet::new();
        for picker in &self.pickers {
            let PickerSpec { pool, namespace, variants, .. } = picker;
            let error = |problem| SpecError {
                subject: format!("picker of pool {pool:?} in namespace {namespace:?}"),
                problem,
            };
            if pool.is_empty() || namespace.is_empty() {
                return Err(error("pool and namespace must not be empty".into()));
            }
            if !pools.insert((namespace, pool)) {
                return Err(error("there are two of this name".into()));
            }
            let members = picker.members(&self.variants);
            if members.is_empty() || members.len() < variants.len() {
                return Err(error(format!(
                    "not every variant of {variants:?} is in its namespace"
                )));
            }
            if let Some(twice) = members.iter().find(|member| !sent.insert(**member)) {
                let name = &self.variants[*twice].name;
                return Err(error(format!("variant {name:?} is in another pool already")));
            }
        }
        Ok(())
    }

    /// Three models on 24 pods under a lively load that comes and goes in waves: one with room,
    /// one busy, one that queues when its wave is high.
    pub fn demo() -> Self {
        let engine = |num_gpu_blocks, max_num_seqs| EngineSpec {
            max_num_seqs,
            num_gpu_blocks,
            ..EngineSpec::default()
        };
        // Of different length, so that no two models are high at the same time for long.
        let wave = |seconds| Shape::Wave { period: Duration::from_secs(seconds), low: 0.35 };
        let load = |requests_per_minute, shape, prompt_tokens, output_tokens, ttft, itl| Load {
            requests_per_minute,
            shape,
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
                    load(2_600.0, wave(90), 600, 200, 70, 18),
                ),
                variant(
                    "llama-70b",
                    "meta-llama/Llama-3.3-70B-Instruct",
                    "chat",
                    engine(3_000, 32),
                    load(800.0, wave(120), 1_500, 350, 350, 42),
                ),
                variant(
                    "qwen-coder",
                    "Qwen/Qwen3-Coder-30B-A3B-Instruct",
                    "code",
                    engine(6_000, 24),
                    load(720.0, wave(150), 3_500, 500, 450, 38),
                ),
            ],
            ..Self::default()
        }
    }
}

impl PickerSpec {
    /// The name of its pod.
    pub fn pod(&self) -> String {
        format!("{}-epp", self.pool)
    }

    /// The places of the variants in its pool.
    pub(crate) fn members(&self, variants: &[VariantSpec]) -> Vec<usize> {
        let member = |variant: &VariantSpec| {
            variant.namespace == self.namespace
                && (self.variants.is_empty() || self.variants.contains(&variant.name))
        };
        (0..variants.len()).filter(|place| member(&variants[*place])).collect()
    }
}
