//! What a fleet is: its variants, their pods, the engine in each pod and the load on them.

mod demo;
mod engine;
mod picker;

use std::collections::HashSet;
use std::time::Duration;

use serde::Deserialize;

use crate::load::Load;
use crate::shape::Shape;
pub use engine::{EngineKind, EngineSpec, MetricNames};
pub use picker::{PickerNames, PickerSpec};

/// More would only exhaust ports and memory of one machine.
pub(crate) const MAX_PODS: u32 = 10_000;
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
}
