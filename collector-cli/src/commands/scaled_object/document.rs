// SPDX-License-Identifier: Apache-2.0
//! A ScaledObject as YAML.

use collector_core::ModelRef;
use collector_keda::Signal;
use serde::Serialize;

/// The longest time without metrics is `FAILURES` x `POLLING` seconds, which is less than `COOLDOWN`.
const POLLING: u32 = 15;
const FAILURES: u32 = 3;
const COOLDOWN: u32 = 300;
const MAX_REPLICAS: u32 = 8;

/// A ScaledObject, in the order in which people write it.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Serialize, Debug)]
struct Metadata {
    name: String,
    namespace: String,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Spec {
    scale_target_ref: Target,
    min_replica_count: u32,
    max_replica_count: u32,
    polling_interval: u32,
    cooldown_period: u32,
    fallback: Fallback,
    triggers: Vec<Trigger>,
}

#[derive(Serialize, Debug)]
struct Target {
    name: String,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Fallback {
    failure_threshold: u32,
    replicas: u32,
    behavior: &'static str,
}

/// A trigger.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trigger {
    #[serde(rename = "type")]
    kind: &'static str,
    metric_type: &'static str,
    metadata: TriggerMetadata,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase", untagged)]
enum TriggerMetadata {
    #[serde(rename_all = "camelCase")]
    Query {
        server_address: String,
        query: String,
        threshold: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        query_parameters: Option<&'static str>,
    },
    #[serde(rename_all = "camelCase")]
    External {
        scaler_address: String,
        model: String,
        model_namespace: String,
        signal: &'static str,
        target: String,
    },
}

impl Trigger {
    /// A trigger with a query for a signal. `zero_if_empty`: without pods its series are absent, and that is 0.
    pub(super) fn query(
        address: &str,
        query: String,
        signal: &Signal,
        zero_if_empty: bool,
    ) -> Self {
        let metadata = TriggerMetadata::Query {
            server_address: address.to_owned(),
            query,
            threshold: target(signal),
            query_parameters: zero_if_empty.then_some("empty=zero"),
        };
        Self { kind: "prometheus", metric_type: signal.metric_type(), metadata }
    }

    /// A trigger on the external scaler.
    pub(super) fn external(address: &str, model: &ModelRef, signal: &Signal) -> Self {
        let metadata = TriggerMetadata::External {
            scaler_address: address.to_owned(),
            model: model.model.to_string(),
            model_namespace: model.namespace.to_string(),
            signal: signal.name(),
            target: target(signal),
        };
        Self { kind: "external", metric_type: signal.metric_type(), metadata }
    }
}

impl Document {
    pub(super) fn new(
        model: &ModelRef,
        target: &str,
        min: u32,
        max: Option<u32>,
        triggers: Vec<Trigger>,
    ) -> Self {
        Self {
            api_version: "keda.sh/v1alpha1",
            kind: "ScaledObject",
            metadata: Metadata { name: target.to_owned(), namespace: model.namespace.to_string() },
            spec: Spec {
                scale_target_ref: Target { name: target.to_owned() },
                min_replica_count: min,
                max_replica_count: max.unwrap_or(MAX_REPLICAS.max(min)),
                polling_interval: POLLING,
                cooldown_period: COOLDOWN,
                fallback: Fallback {
                    failure_threshold: FAILURES,
                    replicas: min.max(1),
                    behavior: "currentReplicasIfHigher",
                },
                triggers,
            },
        }
    }

    pub(super) fn to_yaml(&self) -> String {
        // A query stays on one line, so that it can be searched for.
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        let mut text = String::new();
        serde_saphyr::to_fmt_writer_with_options(&mut text, self, options)
            .expect("it has only texts and numbers");
        text
    }
}

/// The default target of a signal. A target is not shown with an exponent, so it is a number for KEDA.
fn target(signal: &Signal) -> String {
    signal.default_target().get().to_string()
}
