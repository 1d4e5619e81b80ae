// SPDX-License-Identifier: Apache-2.0
//! `check --scaled-object`: KEDA's ScaledObjects, checked by rules (`rules`, `trigger`, `external`) and by the present values of
//! their triggers (`values`).

#[cfg(feature = "keda")]
mod external;
mod fields;
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
    /// KEDA takes a missing one for 0, except beside `idle`.
    min: Option<u64>,
    max: u64,
    /// The replicas while no trigger is active, if they are not `min`.
    idle: Option<u64>,
    fallback: Option<Fallback>,
    /// Annotations that pause scaling.
    paused: Option<String>,
    /// How long its HPA waits before it removes replicas, if this is set.
    stabilization: Option<u64>,
    /// The directions in which its HPA may not scale: `scaleUp`, `scaleDown`.
    disabled: Vec<&'static str>,
    /// The target of the formula that replaces the values of the triggers, if there is one.
    formula: Option<String>,
    triggers: Vec<Trigger>,
    /// What is wrong with fields that KEDA does not have.
    unknown: Vec<String>,
    /// A workload's kind that is not in the group `apps`, without its group.
    kind_without_group: Option<String>,
    /// Fields whose value is not a number.
    not_numbers: Vec<(&'static [&'static str], Value)>,
}

#[derive(Clone, PartialEq, Debug)]
struct Fallback {
    failures: Option<u64>,
    replicas: u64,
    behavior: String,
}

#[derive(Clone, PartialEq, Debug)]
struct Trigger {
    /// Its index in the list.
    index: usize,
    kind: String,
    metric_type: String,
    /// Its value is a part of a formula, whose type of metric counts.
    in_formula: bool,
    has_authentication: bool,
    metadata: Map<String, Value>,
}

impl ScaledObject {
    pub(super) fn of(document: &Value) -> Self {
        const NUMBERS: [&[&str]; 7] = [
            &["pollingInterval"],
            &["cooldownPeriod"],
            &["minReplicaCount"],
            &["maxReplicaCount"],
            &["idleReplicaCount"],
            &["fallback", "failureThreshold"],
            &["fallback", "replicas"],
        ];
        let (metadata, spec) = (&document["metadata"], &document["spec"]);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let seconds =
            |key: &str, default| Duration::from_secs(number(&spec[key]).unwrap_or(default));
        let fallback = spec["fallback"].as_object().map(|fallback| Fallback {
            failures: fallback.get("failureThreshold").and_then(number),
            replicas: fallback.get("replicas").and_then(number).unwrap_or(0),
            behavior: fallback
                .get("behavior")
                .and_then(text)
                .unwrap_or_else(|| "static".to_owned()),
        });
        let advanced = &spec["advanced"];
        let modifiers = &advanced["scalingModifiers"];
        let in_formula = modifiers["formula"].is_string();
        let triggers = spec["triggers"].as_array().into_iter().flatten().enumerate();
        let triggers = triggers.map(|(index, trigger)| Trigger {
            index,
            kind: text(&trigger["type"]).unwrap_or_default(),
            metric_type: text(&trigger["metricType"]).unwrap_or_else(|| "AverageValue".to_owned()),
            has_authentication: trigger["authenticationRef"].is_object(),
            in_formula,
            metadata: trigger["metadata"].as_object().cloned().unwrap_or_default(),
        });
        let annotations = metadata["annotations"].as_object().into_iter().flatten();
        let mut paused = annotations
            .filter(|(name, _)| name.starts_with("autoscaling.keda.sh/paused"))
            .filter(|(name, value)| is_number_of_replicas(name) || !is_false(value))
            .map(|(name, _)| name);
        let behavior = &advanced["horizontalPodAutoscalerConfig"]["behavior"];
        let of_path = |path: &[&str]| path.iter().fold(spec, |value, key| &value[*key]);
        let not_numbers = NUMBERS.into_iter().map(|path| (path, of_path(path)));
        let not_numbers = not_numbers.filter(|(_, value)| !value.is_null() && !value.is_u64());
        let disabled = ["scaleUp", "scaleDown"].into_iter();
        let disabled = disabled.filter(|way| behavior[*way]["selectPolicy"] == "Disabled");
        let target = &spec["scaleTargetRef"];
        let kind = target["kind"].as_str().filter(|kind| !is_of_apps(kind));
        Self {
            name: name_of(document),
            namespace: text(&metadata["namespace"]),
            polling: seconds("pollingInterval", POLLING_SECONDS),
            cooldown: seconds("cooldownPeriod", COOLDOWN_SECONDS),
            min: number(&spec["minReplicaCount"]),
            max: number(&spec["maxReplicaCount"]).unwrap_or(MAX_REPLICAS),
            idle: number(&spec["idleReplicaCount"]),
            fallback,
            paused: paused.next().cloned(),
            stabilization: behavior["scaleDown"]["stabilizationWindowSeconds"].as_u64(),
            disabled: disabled.collect(),
            formula: in_formula.then(|| text(&modifiers["target"]).unwrap_or_default()),
            triggers: triggers.collect(),
            unknown: fields::unknown(spec),
            kind_without_group: kind.filter(|_| target["apiVersion"].is_null()).map(str::to_owned),
            not_numbers: not_numbers.map(|(path, value)| (path, value.clone())).collect(),
        }
    }

    fn min(&self) -> u64 {
        self.min.unwrap_or(0)
    }

    /// Returns whether it scales to zero.
    fn to_zero(&self) -> bool {
        (self.min() == 0 || self.idle == Some(0)) && !self.is_of_resources()
    }

    /// Returns whether all of its triggers are of CPU and memory: KEDA then keeps a replica.
    fn is_of_resources(&self) -> bool {
        !self.triggers.is_empty() && self.active().next().is_none()
    }

    /// Returns the triggers that can start the first replica and keep the last one: KEDA never takes CPU and memory for activity.
    fn active(&self) -> impl Iterator<Item = &Trigger> {
        self.triggers.iter().filter(|trigger| !["cpu", "memory"].contains(&trigger.kind.as_str()))
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

/// Returns a number, also one that was written as a text: a finding of its own says so.
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse::<u32>().ok().map(u64::from))
}

/// Returns whether a kind of workloads is in the group `apps`.
pub(super) fn is_of_apps(kind: &str) -> bool {
    ["Deployment", "StatefulSet", "ReplicaSet"].contains(&kind)
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
