//! The Endpoint Pickers of a fleet.

use serde::Deserialize;

use super::VariantSpec;

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
