// SPDX-License-Identifier: Apache-2.0
//! What the cluster has, for people: its variants and its pods.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use collector_core::supply::{PodState, Workload};
use collector_core::{BackendError, ModelRef, Operation, PodName, Unlimited, Variant, VariantName};

use crate::backend::{bring_up_to_date, error_of};
use crate::cluster::Cluster;

/// A variant that an object of the cluster describes.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ListedVariant {
    /// The variant.
    pub variant: Arc<Variant>,
    /// What its pods do where a request is served by several, as the object says.
    pub role: Option<Arc<str>>,
    /// The kind of the object that describes it.
    pub described_by: &'static str,
    /// The kind of what it scales.
    pub target_kind: Arc<str>,
    /// The name of what it scales.
    pub target_name: Arc<str>,
    /// The replicas that are wanted, and the pods.
    pub workload: Workload,
}

/// A pod that serves a model.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ListedPod {
    /// The model, with the namespace of the pod.
    pub model: ModelRef,
    /// Its variant; `None`: it belongs to no variant of the model.
    pub variant: Option<VariantName>,
    /// Its name.
    pub name: PodName,
    /// Its state.
    pub state: PodState,
    /// When it came into this state, by the clock of the API server; `None` if that does not say.
    pub changed: Option<SystemTime>,
}

impl ListedVariant {
    /// By what variants are ordered.
    pub(crate) fn place(&self) -> (&ModelRef, &VariantName) {
        (&self.variant.model, &self.variant.name)
    }
}

impl ListedPod {
    pub(crate) fn place(&self) -> (&ModelRef, &PodName) {
        (&self.model, &self.name)
    }
}

impl Cluster {
    /// Lists all objects, unless the live source keeps them up to date.
    ///
    /// # Errors
    /// When one of the kinds could not be listed.
    pub async fn refresh(&self, time_left: Duration) -> Result<(), BackendError> {
        let shared = &self.shared;
        let brought = bring_up_to_date(shared, time_left, &Unlimited).await;
        let current = brought.and_then(|()| shared.store.as_of());
        current.map(|_| ()).map_err(|unheard| error_of(unheard, Operation::ListModels))
    }

    /// The variants that objects describe, in the order of their models, each with its pods.
    pub fn listed_variants(&self) -> Vec<ListedVariant> {
        self.shared.store.listed()
    }

    /// The pods that serve models, in the order of the models. Of a group of pods that is one replica, it is the pod that
    /// serves requests.
    pub fn listed_pods(&self) -> Vec<ListedPod> {
        self.shared.store.listed_pods()
    }
}
