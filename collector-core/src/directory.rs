// SPDX-License-Identifier: Apache-2.0
//! Which variant a pod belongs to, and what that variant is.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{AcceleratorName, ModelRef, PodName, VariantName, VariantRef};

/// Cost of a replica of which nothing else is known; what the Workload Variant Autoscaler assumes.
pub const DEFAULT_COST: f64 = 10.0;

/// One model on one accelerator, with a scale target.
#[derive(Clone, PartialEq, Debug)]
pub struct Variant {
    /// The variant's name.
    pub name: VariantName,
    /// The model it serves, and the namespace it does so in.
    pub model: ModelRef,
    /// What its pods run on.
    pub accelerator: Option<AcceleratorName>,
    /// Cost of one replica per hour, in whatever unit the user compares variants in.
    pub cost: f64,
    /// Greatest batch of one replica.
    pub max_batch: Option<u32>,
    /// How often its model is to be refreshed; `None`: as everything is. Of the variants of a model the
    /// shortest counts.
    pub fetch_interval: Option<Duration>,
}

impl Variant {
    /// Name and namespace.
    pub fn reference(&self) -> VariantRef {
        VariantRef { namespace: self.model.namespace.clone(), name: self.name.clone() }
    }
}

/// Assigns pods to variants. Called while values are published, never on a cached read.
pub trait VariantDirectory: Send + Sync + 'static {
    /// Every variant.
    fn variants(&self) -> Vec<Arc<Variant>>;

    /// The variants of one model.
    fn variants_of(&self, model: &ModelRef) -> Vec<Arc<Variant>>;

    /// The variant that claims a pod; `None` when none does, and the pod is then kept without one.
    fn variant_of(&self, model: &ModelRef, pod: &PodName) -> Option<Arc<Variant>>;

    /// Changes whenever the answers of the other methods may have, so that what is stored can be
    /// published again.
    fn generation(&self) -> u64;
}

/// A directory without variants.
#[derive(Clone, Copy, Default, Debug)]
pub struct NoVariants;

impl VariantDirectory for NoVariants {
    fn variants(&self) -> Vec<Arc<Variant>> {
        Vec::new()
    }

    fn variants_of(&self, _: &ModelRef) -> Vec<Arc<Variant>> {
        Vec::new()
    }

    fn variant_of(&self, _: &ModelRef, _: &PodName) -> Option<Arc<Variant>> {
        None
    }

    fn generation(&self) -> u64 {
        0
    }
}
