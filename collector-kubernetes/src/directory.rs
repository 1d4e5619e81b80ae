// SPDX-License-Identifier: Apache-2.0
//! The variants that objects of the cluster describe, for the engine.

use std::sync::Arc;

use collector_core::{ModelRef, PodName, Variant, VariantDirectory};

use crate::store::Store;

/// The variants of a cluster. A look-up takes two hashes.
#[derive(Clone)]
pub struct ClusterDirectory {
    pub(crate) store: Arc<Store>,
}

impl std::fmt::Debug for ClusterDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterDirectory").field("generation", &self.generation()).finish()
    }
}

impl VariantDirectory for ClusterDirectory {
    fn variants(&self) -> Vec<Arc<Variant>> {
        self.store.variants()
    }

    fn variants_of(&self, model: &ModelRef) -> Vec<Arc<Variant>> {
        self.store.variants_of(model)
    }

    fn variant_of(&self, model: &ModelRef, pod: &PodName) -> Option<Arc<Variant>> {
        self.store.variant_of(model, pod)
    }

    /// Changes with variants, and not with pods: a pod that comes or goes is pushed with its model.
    fn generation(&self) -> u64 {
        self.store.generation()
    }
}
