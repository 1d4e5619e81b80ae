// SPDX-License-Identifier: Apache-2.0
//! `check --scaled-object`: KEDA's ScaledObjects, checked by rules (`rules`, `trigger`, `external`) and by the present values of
//! their triggers (`values`).

#[cfg(feature = "keda")]
mod external;
mod rules;
mod trigger;
mod values;

use std::time::Duration;

use collector_core::{Check, CheckStatus};
use serde_json::{Map, Value};

#[cfg(feature = "keda")]
pub(super) use self::external::Readings;
pub(super) use self::rules::Context;
pub(super) use self::trigger::{ENGINES, MODEL};
use super::objects::name_of;

/// KEDA's defaults.
const POLLING_SECONDS: u64 = 30;
const COOLDOWN_SECONDS: u64 = 300;
const MAX_REPLICAS: u64 = 100;

/// The fields of a ScaledObject that its scaling depends on.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct ScaledObject {
    /// `namespace/name`.
    pub(super) name: String,
    namespace: Option<String>,
    polling: Duration,
    cooldown: Duration,
    min: u64,
    max: u64,
    /// The replicas while no trigger is active, if they are not `min`.
    idle: Option<u64>,
    fallback: Option<Fallback>,
    /// Annotations that pause scaling.
    paused: Option<String>,
    /// How long its HPA waits before it removes replicas, if this is set.
    stabilization: Option<u64>,
    /// The formula that replaces the values of the triggers.
    formula: Option<String>,
    triggers: Vec<Trigger>,
    /// Fields whose value is not a number.
    not_numbers: Vec<(&'static str, Value)>,
}

#[derive(Clone, PartialEq, Debug)]
struct Fallback {
    failures: u64,
    replicas: u64,
    behavior: String,
}

#[derive(Clone, PartialEq, Debug)]
struct Trigger {
    /// Its index in the list.
    index: usize,
    kind: String,
    metric_type: String,
    has_authentication: bool,
    metadata: Map<String, Value>,
}

impl ScaledObject {
    pub(super) fn of(document: &Value) -> Self {
        const NUMBERS: [&str; 5] = [
            "pollingInterval",
            "cooldownPeriod",
            "minReplicaCount",
            "maxReplicaCount",
            "idleReplicaCount",
        ];
        let (metadata, spec) = (&document["metadata"], &document["spec"]);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let seconds =
            |key: &str, default| Duration::from_secs(spec[key].as_u64().unwrap_or(default));
        let fallback = spec["fallback"].as_object().map(|fallback| Fallback {
            failures: fallback.get("failureThreshold").and_then(Value::as_u64).unwrap_or(0),
            replicas: fallback.get("replicas").and_then(Value::as_u64).unwrap_or(0),
            behavior: fallback
                .get("behavior")
                .and_then(text)
                .unwrap_or_else(|| "static".to_owned()),
        });
        let triggers = spec["triggers"].as_array().into_iter().flatten().enumerate();
        let triggers = triggers.map(|(index, trigger)| Trigger {
            index,
            kind: text(&trigger["type"]).unwrap_or_default(),
            metric_type: text(&trigger["metricType"]).unwrap_or_else(|| "AverageValue".to_owned()),
            has_authentication: trigger["authenticationRef"].is_object(),
            metadata: trigger["metadata"].as_object().cloned().unwrap_or_default(),
        });
        let annotations = metadata["annotations"].as_object().into_iter().flatten();
        let mut paused = annotations
            .filter(|(name, _)| name.starts_with("autoscaling.keda.sh/paused"))
            .filter(|(name, value)| is_number_of_replicas(name) || !is_false(value))
            .map(|(name, _)| name);
        let advanced = &spec["advanced"];
        let behavior = &advanced["horizontalPodAutoscalerConfig"]["behavior"];
        let not_numbers = NUMBERS.into_iter().map(|key| (key, &spec[key]));
        let not_numbers = not_numbers.filter(|(_, value)| !value.is_null() && !value.is_u64());
        Self {
            name: name_of(document),
            namespace: text(&metadata["namespace"]),
            polling: seconds("pollingInterval", POLLING_SECONDS),
            cooldown: seconds("cooldownPeriod", COOLDOWN_SECONDS),
            min: spec["minReplicaCount"].as_u64().unwrap_or(0),
            max: spec["maxReplicaCount"].as_u64().unwrap_or(MAX_REPLICAS),
            idle: spec["idleReplicaCount"].as_u64(),
            fallback,
            paused: paused.next().cloned(),
            stabilization: behavior["scaleDown"]["stabilizationWindowSeconds"].as_u64(),
            formula: text(&advanced["scalingModifiers"]["formula"]),
            triggers: triggers.collect(),
            not_numbers: not_numbers.map(|(key, value)| (key, value.clone())).collect(),
        }
    }

    /// Returns whether it scales to zero.
    fn to_zero(&self) -> bool {
        self.min == 0 || self.idle == Some(0)
    }

    /// Returns whether a trigger has a query for the server of `[prometheus]`. Without a server, `serve` answers queries over
    /// readings itself.
    pub(super) fn asks_server(&self, has_server: bool) -> bool {
        let asks = |trigger: &Trigger| {
            trigger.kind == "prometheus" && (has_server || !trigger.is_of_readings())
        };
        self.triggers.iter().any(asks)
    }

    /// Returns whether a trigger asks a Prometheus or a collector.
    #[cfg(feature = "kubernetes")]
    pub(super) fn is_of_metrics(&self) -> bool {
        self.triggers.iter().any(|trigger| {
            #[cfg(feature = "keda")]
            if trigger.is_of_collector() {
                return true;
            }
            trigger.kind == "prometheus"
        })
    }

    /// Creates a check about this object.
    fn check(&self, name: &str, status: CheckStatus, detail: impl std::fmt::Display) -> Check {
        Check::new(format!("scaled-object.{name}"), status, format!("{}: {detail}", self.name))
    }
}

/// Returns whether an annotation pauses at the number of replicas that is its value.
fn is_number_of_replicas(annotation: &str) -> bool {
    annotation.ends_with("/paused-replicas")
}

/// Returns whether KEDA reads the value of an annotation as false. It reads a value that is not a boolean as true.
fn is_false(value: &Value) -> bool {
    value.as_str().is_some_and(|it| ["0", "f", "F", "false", "FALSE", "False"].contains(&it))
}

impl Trigger {
    /// Its position as people count.
    fn number(&self) -> usize {
        self.index + 1
    }

    /// Returns a text of the metadata; `None` if it is empty.
    fn text(&self, key: &str) -> Option<&str> {
        self.metadata
            .get(key)
            .and_then(Value::as_str)
            .map(str::trim)
            .filter(|text| !text.is_empty())
    }
}
