// SPDX-License-Identifier: Apache-2.0
//! The description of a fleet: its variants, their pods, the engine in each pod and the load on them.

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

/// More would exhaust the ports and the memory of one machine.
pub(crate) const MAX_PODS: u32 = 10_000;
/// Bounds the work after a long pause: 1000 requests per second and variant.
const MAX_REQUESTS_PER_MINUTE: f64 = 60_000.0;

/// A described fleet. The same description, including the seed, makes the same fleet.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FleetSpec {
    /// The seed of all random numbers.
    pub seed: u64,
    /// Simulated time under load before the first read. Without it, queues and caches are still filling at
    /// first.
    #[serde(with = "collector_core::duration")]
    pub warm_up: Duration,
    /// Gives one model after the other most of the load; `None` for none.
    pub hot_model: Option<HotModel>,
    /// The variants.
    pub variants: Vec<VariantSpec>,
    /// The Endpoint Pickers in front of them, if any.
    pub pickers: Vec<PickerSpec>,
}

/// Gives each model in turn, in the order of the variants, a multiple of its load.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HotModel {
    /// The multiple.
    pub factor: f64,
    /// Duration of each model's turn.
    #[serde(with = "collector_core::duration")]
    pub turn: Duration,
}

/// One variant: a model on some pods of one kind, with its own share of the load.
///
/// Two variants may serve the same model in the same namespace, for example on two accelerators or during an
/// upgrade of an engine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantSpec {
    /// Its name, unique in the namespace. Its pods are named `<name>-0`, `<name>-1` and so on.
    pub name: String,
    /// The model id, any text: the value of the label `model_name`.
    pub model: String,
    /// The namespace of its pods.
    pub namespace: String,
    /// The initial number of pods.
    #[serde(default = "default_pods")]
    pub pods: u32,
    /// The engine in each pod.
    #[serde(default)]
    pub engine: EngineSpec,
    /// The load on all of its pods.
    #[serde(default)]
    pub load: Load,
}

fn default_pods() -> u32 {
    2
}

/// Why a description is invalid.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{subject}: {problem}")]
pub struct SpecError {
    /// The reason.
    subject: String,
    problem: String,
}

impl VariantSpec {
    /// Makes a variant with two pods, default engines and the default load.
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

/// Returns whether an engine can be under a load.
pub(crate) fn check_load(engine: &EngineSpec, load: &Load) -> Result<(), String> {
    load.shape.check()?;
    check_rate(load.requests_per_minute)?;
    // A product of two non-negative numbers.
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

/// Returns whether a rate can be simulated.
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
    /// Validates the description.
    ///
    /// # Errors
    /// Names the first invalid variant or picker, and the reason.
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

    /// Returns when the model of a variant, by its index, is the hot one.
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
        // A request has one picker.
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
