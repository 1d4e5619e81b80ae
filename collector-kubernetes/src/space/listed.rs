// SPDX-License-Identifier: Apache-2.0
//! What a namespace has, for people: each variant with what it scales, and each pod with its variant.

use std::sync::Arc;

use collector_core::supply::Workload;
use collector_core::{ModelId, ModelRef, VariantName};

use super::Space;
use super::variants::Described;
use crate::listing::{ListedPod, ListedVariant};

impl Space {
    pub(crate) fn listed(&self) -> impl Iterator<Item = ListedVariant> {
        let described = self.found.models.values().flat_map(std::collections::BTreeMap::values);
        described.map(|described| self.listed_variant(described))
    }

    fn listed_variant(&self, described: &Described) -> ListedVariant {
        let variant = &described.variant;
        let name: Arc<str> = variant.name.as_str().into();
        let scaler = self.scalers.get(&(described.source, name));
        let pods = self.pods_of(&variant.model.model, Some(&variant.name));
        ListedVariant {
            workload: Workload::new(Some(variant.name.clone()), self.wanted(described), pods),
            role: scaler.and_then(|scaler| scaler.role.clone()),
            described_by: described.source.as_str(),
            target_kind: described.target.kind.as_str().into(),
            target_name: Arc::clone(&described.target.name),
            variant: Arc::clone(variant),
        }
    }

    pub(crate) fn listed_pods(&self) -> impl Iterator<Item = ListedPod> {
        self.found.models.iter().flat_map(|(model, variants)| {
            let of_variants = variants.keys().map(Some).chain([None]);
            of_variants.flat_map(|variant| self.listed_pods_of(model, variant))
        })
    }

    fn listed_pods_of(&self, model: &ModelId, variant: Option<&VariantName>) -> Vec<ListedPod> {
        let pods = self.pods_of(model, variant).into_iter();
        let listed = pods.map(|pod| ListedPod {
            changed: self.pods.get(&pod.name).and_then(super::pods::PodEntry::changed),
            model: ModelRef::new(model.clone(), self.namespace.clone()),
            variant: variant.cloned(),
            name: pod.name,
            state: pod.state,
        });
        listed.collect()
    }
}
