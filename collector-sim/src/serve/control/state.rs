// SPDX-License-Identifier: Apache-2.0
//! The truth of a whole fleet as a document.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::super::{Faults, FleetServer};
use crate::load::Load;
use crate::truth::{PodTruth, VariantTruth};

/// The document of `GET /state`.
#[derive(Debug, Serialize)]
pub(super) struct State {
    /// Duration of the load, including the warm-up.
    simulated_seconds: f64,
    variants: Vec<VariantState>,
    pickers: Vec<PodState>,
}

#[derive(Debug, Serialize)]
struct VariantState {
    namespace: String,
    name: String,
    model: String,
    engine: String,
    load: Load,
    requests_per_minute: f64,
    held: u64,
    refused: u64,
    pods: Vec<PodState>,
}

#[derive(Debug, Serialize)]
struct PodState {
    pod: String,
    /// `None` for a moment, while the pod is added or deleted.
    address: Option<SocketAddr>,
    alive: bool,
    faults: Faults,
    /// Over all engines; `None` while it is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_cache_usage: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truth: Option<PodTruth>,
}

pub(super) fn of(fleet: &FleetServer) -> State {
    let addresses: HashMap<(String, String), SocketAddr> = fleet
        .targets()
        .into_iter()
        .map(|target| ((target.namespace, target.pod), target.address))
        .collect();
    let pod = |namespace: &str, pod: String, alive: bool, truth: Option<PodTruth>| PodState {
        address: addresses.get(&(namespace.to_owned(), pod.clone())).copied(),
        faults: fleet.faults(namespace, &pod).unwrap_or_default(),
        pod,
        alive,
        waiting: truth.as_ref().map(PodTruth::waiting),
        running: truth.as_ref().map(PodTruth::running),
        kv_cache_usage: truth.as_ref().map(PodTruth::kv_cache_usage),
        truth,
    };
    let (now, variants, pickers) = fleet.full_truth();
    let variants = variants.into_iter().map(|variant| {
        let VariantTruth { namespace, pods, .. } = variant;
        VariantState {
            pods: pods
                .into_iter()
                .map(|(name, truth)| pod(&namespace, name, truth.is_some(), truth))
                .collect(),
            namespace,
            name: variant.name,
            model: variant.model,
            engine: variant.engine,
            load: variant.load,
            requests_per_minute: variant.requests_per_minute,
            held: variant.held,
            refused: variant.refused,
        }
    });
    State {
        simulated_seconds: now.as_secs_f64(),
        variants: variants.collect(),
        pickers: pickers
            .into_iter()
            .map(|(namespace, name)| pod(&namespace, name, true, None))
            .collect(),
    }
}
