// SPDX-License-Identifier: Apache-2.0
//! Variants as they stand in a configuration: a glob on the pod name decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    AcceleratorName, DEFAULT_COST, ModelRef, PodName, Variant, VariantDirectory, VariantName,
};
use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

/// One `[[variants]]` of a configuration.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantSpec {
    /// The variant's name.
    pub name: VariantName,
    /// Its namespace and that of its pods.
    pub namespace: collector_core::Namespace,
    /// The model it serves.
    pub model: collector_core::ModelId,
    /// What its pods run on.
    #[serde(default)]
    pub accelerator: Option<AcceleratorName>,
    /// Cost of one replica per hour. Default 10.
    #[serde(default = "default_cost")]
    pub cost: f64,
    /// The names of its pods: `*` is any text, `?` any one character. Default `*`, every pod of the
    /// model.
    #[serde(default = "every_pod")]
    pub pods: String,
    /// Greatest batch of one replica.
    #[serde(default)]
    pub max_batch: Option<u32>,
    /// How often its model is refreshed; without it as everything is. Of the variants of a model the
    /// shortest counts.
    #[serde(default, with = "collector_core::duration::option")]
    pub fetch_interval: Option<Duration>,
}

impl VariantSpec {
    /// A variant that every pod of the model belongs to, with the defaults of a configuration.
    pub fn new(name: impl Into<VariantName>, model: &ModelRef) -> Self {
        Self {
            name: name.into(),
            namespace: model.namespace.clone(),
            model: model.model.clone(),
            accelerator: None,
            cost: default_cost(),
            pods: every_pod(),
            max_batch: None,
            fetch_interval: None,
        }
    }
}

fn default_cost() -> f64 {
    DEFAULT_COST
}

fn every_pod() -> String {
    "*".to_owned()
}

/// A variant that cannot be used.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("variants[{index}] ({name:?}): {reason}")]
pub struct InvalidPattern {
    /// Its index in the list, from 0.
    pub index: usize,
    /// Its name.
    pub name: VariantName,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// A [`VariantDirectory`] that never changes.
#[derive(Debug, Default)]
pub struct StaticDirectory {
    variants: Vec<Arc<Variant>>,
    by_model: HashMap<ModelRef, Vec<(WildMatch, Arc<Variant>)>>,
}

impl StaticDirectory {
    /// A directory of these variants. Where the globs of two fit one pod, the first has it.
    ///
    /// # Errors
    /// For a variant without a name, a model, a namespace or a pattern, for a cost that is no amount,
    /// and for two of one name in one namespace.
    pub fn new(specs: Vec<VariantSpec>) -> Result<Self, InvalidPattern> {
        let mut directory = Self::default();
        let mut names = std::collections::HashSet::new();
        for (index, spec) in specs.into_iter().enumerate() {
            let fail = |reason| InvalidPattern { index, name: spec.name.clone(), reason };
            let empty = [
                (spec.name.as_str(), "its name is empty"),
                (spec.namespace.as_str(), "its namespace is empty"),
                (spec.model.as_str(), "its model is empty"),
                (spec.pods.as_str(), "its pods pattern is empty: write \"*\" for every pod"),
            ];
            if let Some((_, reason)) = empty.iter().find(|(text, _)| text.is_empty()) {
                return Err(fail(reason));
            }
            if !spec.cost.is_finite() || spec.cost < 0.0 {
                return Err(fail("its cost is not an amount: write 0 or more"));
            }
            if !names.insert((spec.namespace.clone(), spec.name.clone())) {
                return Err(fail("another variant of its namespace has the same name"));
            }
            let model = ModelRef { namespace: spec.namespace, model: spec.model };
            let variant = Arc::new(Variant {
                name: spec.name,
                model: model.clone(),
                accelerator: spec.accelerator,
                cost: spec.cost,
                max_batch: spec.max_batch,
                fetch_interval: spec.fetch_interval,
            });
            directory.variants.push(Arc::clone(&variant));
            directory
                .by_model
                .entry(model)
                .or_default()
                .push((WildMatch::new(&spec.pods), variant));
        }
        Ok(directory)
    }
}

impl VariantDirectory for StaticDirectory {
    fn variants(&self) -> Vec<Arc<Variant>> {
        self.variants.clone()
    }

    fn variants_of(&self, model: &ModelRef) -> Vec<Arc<Variant>> {
        let of_model = self.by_model.get(model).into_iter().flatten();
        of_model.map(|(_, variant)| Arc::clone(variant)).collect()
    }

    fn variant_of(&self, model: &ModelRef, pod: &PodName) -> Option<Arc<Variant>> {
        let (_, variant) =
            self.by_model.get(model)?.iter().find(|(glob, _)| glob.matches(pod.as_str()))?;
        Some(Arc::clone(variant))
    }

    fn generation(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, pods: &str) -> VariantSpec {
        let model = ModelRef::new("org/m", "prod");
        VariantSpec { pods: pods.into(), ..VariantSpec::new(name, &model) }
    }

    #[test]
    fn a_pod_belongs_to_the_first_variant_whose_glob_fits() {
        let directory =
            StaticDirectory::new(vec![spec("h100", "m-h100-*"), spec("rest", "m-?-*")]).unwrap();
        let model = ModelRef::new("org/m", "prod");
        let of = |pod: &str| {
            directory.variant_of(&model, &pod.into()).map(|variant| variant.name.to_string())
        };
        assert_eq!(of("m-h100-0").as_deref(), Some("h100"));
        assert_eq!(of("m-x-0").as_deref(), Some("rest"));
        assert_eq!(of("other"), None);
        assert_eq!(directory.variant_of(&ModelRef::new("org/m", "dev"), &"m-x-0".into()), None);
    }

    #[test]
    fn a_variant_that_cannot_work_is_refused_with_its_place() {
        let error = StaticDirectory::new(vec![spec("a", "*"), spec("a", "b-*")]).unwrap_err();
        assert!(error.to_string().starts_with("variants[1] (\"a\"): another variant"), "{error}");
        assert!(StaticDirectory::new(vec![spec("a", "")]).is_err());
        assert!(
            StaticDirectory::new(vec![VariantSpec { cost: f64::NAN, ..spec("a", "*") }]).is_err()
        );
    }

    #[test]
    fn a_variant_that_says_no_more_has_the_default_cost_and_every_pod() {
        let spec = r#"{"name":"v","namespace":"n","model":"m"}"#;
        let spec: VariantSpec = serde_json::from_str(spec).unwrap();
        assert_eq!((spec.cost.to_string(), spec.pods.as_str()), ("10".to_owned(), "*"));
    }
}
