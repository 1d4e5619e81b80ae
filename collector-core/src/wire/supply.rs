// SPDX-License-Identifier: Apache-2.0
//! The supply of a model, in a form that outlives the process.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Age;
use crate::clock::Tick;
use crate::model::{PodName, VariantName};
use crate::supply::{Pod, PodState, Supply, Workload};

/// A [`Supply`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of Supply")]
pub struct SupplyRecord {
    pub as_of: Age,
    pub workloads: Vec<WorkloadRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<(PodName, Age)>,
}

/// A [`Workload`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of Workload")]
pub struct WorkloadRecord {
    pub variant: Option<VariantName>,
    pub wanted: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lists_pods: bool,
    /// Each with the name of its state, and since when it has been in it.
    pub pods: Vec<(PodName, Cow<'static, str>, Age)>,
}

impl SupplyRecord {
    pub(super) fn new(supply: &Supply, written_at: Tick) -> Self {
        let workload = |workload: &Workload| {
            let pods = workload.pods.iter();
            let pods = pods.map(|pod| {
                (pod.name.clone(), pod.state.as_str().into(), Age::of(pod.since, written_at))
            });
            WorkloadRecord {
                variant: workload.variant.clone(),
                wanted: workload.wanted,
                lists_pods: workload.lists_pods,
                pods: pods.collect(),
            }
        };
        let deleted = supply.deleted.iter();
        Self {
            as_of: Age::of(supply.as_of, written_at),
            workloads: supply.workloads.iter().map(workload).collect(),
            deleted: deleted.map(|(pod, at)| (pod.clone(), Age::of(*at, written_at))).collect(),
        }
    }

    pub(super) fn recall(self, written_at: Tick) -> Supply {
        let workload = |workload: WorkloadRecord| {
            let pods = workload.pods.into_iter();
            let pods = pods.map(|(name, state, since)| {
                // It exists, and a state that is not known is not Ready.
                let state = PodState::of_name(&state).unwrap_or(PodState::NotReady);
                Pod::new(name, state, since.tick(written_at))
            });
            let lists_pods = workload.lists_pods;
            let workload = Workload::new(workload.variant, workload.wanted, pods.collect());
            Workload { lists_pods, ..workload }
        };
        let workloads = self.workloads.into_iter().map(workload);
        let mut supply = Supply::new(self.as_of.tick(written_at), workloads.collect());
        let deleted = self.deleted.into_iter();
        supply.deleted = deleted.map(|(pod, at)| (pod, at.tick(written_at))).collect();
        supply.normalize(written_at);
        supply
    }
}
