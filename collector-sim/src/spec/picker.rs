// SPDX-License-Identifier: Apache-2.0
//! The Endpoint Pickers of a fleet.

use serde::Deserialize;

use super::VariantSpec;

/// An Endpoint Picker: a pod that reports on the pool of pods that it sends requests to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PickerSpec {
    /// The InferencePool, unique in the namespace. The picker's pod is named `<pool>-epp`.
    pub pool: String,
    /// The namespace of the pool and its pods.
    pub namespace: String,
    /// The variants whose pods are in the pool; empty means all of the namespace.
    #[serde(default)]
    pub variants: Vec<String>,
    /// The generations of metric names on its page.
    #[serde(default)]
    pub names: PickerNames,
    /// Whether it queues requests while every pod of their variant has a queue, or there is no pod. Without
    /// it each request goes to a pod at once, as without a picker.
    #[serde(default = "yes")]
    pub flow_control: bool,
}

fn yes() -> bool {
    true
}

/// The generations of the Endpoint Picker's metric names. Newer pages have the legacy names as well, for the
/// same requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PickerNames {
    /// Only `inference_pool_*`, `inference_objective_*` and `inference_extension_*`.
    Legacy,
    /// Legacy and `llm_d_router_epp_*`.
    Router,
    /// Legacy and `llm_d_epp_*`.
    #[default]
    LlmD,
}

impl PickerSpec {
    /// A picker with flow control for all pods of the namespace, whose page has the newest names.
    pub fn new(pool: &str, namespace: &str) -> Self {
        Self {
            pool: pool.to_owned(),
            namespace: namespace.to_owned(),
            variants: Vec::new(),
            names: PickerNames::default(),
            flow_control: true,
        }
    }

    /// Returns the name of its pod.
    pub fn pod(&self) -> String {
        format!("{}-epp", self.pool)
    }

    /// Returns the indices of the variants in its pool.
    pub(crate) fn members(&self, variants: &[VariantSpec]) -> Vec<usize> {
        let member = |variant: &VariantSpec| {
            variant.namespace == self.namespace
                && (self.variants.is_empty() || self.variants.contains(&variant.name))
        };
        (0..variants.len()).filter(|place| member(&variants[*place])).collect()
    }
}
