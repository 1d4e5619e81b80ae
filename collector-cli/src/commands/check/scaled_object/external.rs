// SPDX-License-Identifier: Apache-2.0
//! The rules for triggers on the collector's external scaler, and their present values. The scaler itself reads the metadata and
//! measures, so that what is found is what KEDA gets.

use std::sync::Arc;

use collector_core::text::counted;
use collector_core::{Check, CheckStatus, Clock, EndpointPicker, MetricsCollector};
use collector_keda::api::ScaledObjectRef;
use collector_keda::{Invalid, OnMissing, Settings as Scaler, Signal, known_keys, unknown_keys};
use collector_promql::Kind;
use serde_json::Value;

use super::super::objects::Finding;
use super::{ScaledObject, Trigger};
use crate::commands::settings::Settings;
use crate::exit::Failure;
use crate::output::{ErrorDocument, nearest_first};
use crate::server::scaler_settings;

/// The port of the scaler in the documentation.
const PORT: &str = ":9465";

/// Where the values of signals come from.
pub(in super::super) struct Readings {
    collector: Arc<dyn MetricsCollector>,
    clock: Arc<dyn Clock>,
    scaler: Scaler,
    /// The names of the backends.
    pub(in super::super) backends: String,
}

impl Readings {
    pub(in super::super) fn new(
        settings: &Settings,
        collector: Arc<dyn MetricsCollector>,
    ) -> Result<Self, Failure> {
        let config = &settings.loaded.config;
        let backends = config.backend.iter().map(|name| settings.place_of(name));
        Ok(Self {
            collector,
            clock: Arc::clone(&settings.clock),
            scaler: scaler_settings(&settings.loaded)?,
            backends: backends.collect::<Vec<_>>().join(", "),
        })
    }
}

impl ScaledObject {
    /// Reads the model of each trigger on the collector's external scaler, except invalid ones, which the rules report.
    pub(in super::super) async fn signals(&self, readings: &Readings) -> Vec<Check> {
        let mut checks = Vec::new();
        for trigger in self.triggers.iter().filter(|trigger| trigger.is_of_collector()) {
            let Ok(read) = trigger.read(self.namespace.as_deref().unwrap_or_default()) else {
                continue;
            };
            let (status, detail) = if trigger.metadata.keys().any(|key| key.ends_with("FromEnv")) {
                let detail = "not read, because a part of its metadata is in the environment of the pods (…FromEnv)";
                (CheckStatus::Skip, detail.to_owned())
            } else if read.subject.model.namespace.as_str().is_empty() {
                let detail = "not read, because the object has no metadata.namespace and the trigger no modelNamespace";
                (CheckStatus::Skip, detail.to_owned())
            } else {
                match self.signal(&read, readings).await {
                    Ok(value) => (CheckStatus::Pass, value),
                    Err(why) => (CheckStatus::Fail, why),
                }
            };
            let detail = format!("trigger {}: {detail}", trigger.number());
            checks.push(self.check("value", status, detail));
        }
        checks
    }

    /// The value of a signal, or why there is none.
    async fn signal(
        &self,
        trigger: &collector_keda::Trigger,
        readings: &Readings,
    ) -> Result<String, String> {
        let model = &trigger.subject.model;
        if let Some(why) = (readings.scaler.left_out)(model.namespace.as_str()) {
            return Err(why);
        }
        let reading = readings.collector.collect_replica_metrics(model).await;
        let reading = reading.map_err(|error| ErrorDocument::of(&error).message().to_owned())?;
        let picker = &reading.value().endpoint_picker;
        if self.needs_picker() && *picker == EndpointPicker::None {
            return Err(format!(
                "no endpoint picker of {model} is read, and nothing else shows requests while there are no pods, so nothing \
                 starts the first replica"
            ));
        }
        let now = readings.clock.now();
        let measured = trigger.measure(&reading, &readings.scaler, now)?;
        let credit = match trigger.credit(&reading, &readings.scaler, now) {
            None => String::new(),
            Some(Ok(credit)) => format!(
                "; with pendingCredit {} ({} ready, {} starting)",
                trigger.credited(measured.value, credit),
                credit.ready,
                credit.starting
            ),
            Some(Err(unknown)) => format!("; pendingCredit has no effect: {unknown}"),
        };
        let pods = counted(measured.pods, "pod", "pods");
        let picker = if picker.load().is_some() { " and an endpoint picker" } else { "" };
        let signal = trigger.subject.signal.name();
        Ok(format!(
            "signal {signal} is {} now, in a reading of {pods}{picker}{credit}",
            measured.value
        ))
    }

    /// Returns whether the endpoint picker's queue in a reading must start the first replica, because all triggers are on
    /// readings or on metrics of pods.
    fn needs_picker(&self) -> bool {
        let of_pods = |trigger: &Trigger| trigger.is_of_collector() || trigger.is_of_engine();
        self.to_zero() && self.active().all(of_pods)
    }
}

impl Trigger {
    /// Returns whether the scaler is a collector's: it has its port, or a model.
    pub(super) fn is_of_collector(&self) -> bool {
        self.is_external()
            && (["model", "modelFromEnv"].iter().any(|key| self.metadata.contains_key(*key))
                || self.text("scalerAddress").is_some_and(|address| address.ends_with(PORT)))
    }

    /// What KEDA sends to the scaler for an object in this namespace. Values must be texts; the rules report others.
    fn object(&self, namespace: &str) -> ScaledObjectRef {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let metadata = self.metadata.iter().map(|(key, value)| (key.clone(), text(value)));
        let mut object = ScaledObjectRef {
            name: String::new(),
            namespace: namespace.to_owned(),
            scaler_metadata: metadata.collect(),
        };
        // KEDA replaces it by the value of the variable, which is not known here.
        if let Some(variable) = object.scaler_metadata.get("modelFromEnv").cloned() {
            object.scaler_metadata.entry("model".to_owned()).or_insert(variable);
        }
        object
    }

    /// Reads the metadata as the scaler does.
    pub(super) fn read(&self, namespace: &str) -> Result<collector_keda::Trigger, Invalid> {
        collector_keda::Trigger::of(&self.object(namespace))
    }

    /// Returns whether it counts waiting requests alone.
    pub(super) fn is_on_waiting(&self) -> bool {
        let signal = self.read("").map(|trigger| trigger.subject.signal);
        matches!(signal, Ok(Signal::Queue | Signal::WaitingCapacity))
    }

    pub(super) fn external_rules(&self) -> Vec<Finding> {
        let check = |name: &str, status, detail: String| {
            Check::new(format!("scaled-object.{name}"), status, detail)
        };
        if !self.is_of_collector() {
            let detail = "the external scaler is not this collector's, and is not checked";
            return vec![check("trigger", CheckStatus::Skip, detail.to_owned()).into()];
        }
        let mut findings = self.texts();
        findings.extend(self.address());
        let object = self.object("");
        for key in unknown_keys(&object) {
            let nearest = nearest_first(key, known_keys()).first().copied().unwrap_or_default();
            let detail = format!(
                "metadata.{key} is not a key of the scaler, and is ignored; did you mean {nearest}?"
            );
            findings.push(check("trigger", CheckStatus::Warn, detail).into());
        }
        let trigger = match collector_keda::Trigger::of(&object) {
            Ok(trigger) => trigger,
            Err(Invalid(text)) => {
                findings.push(check("trigger", CheckStatus::Fail, text).into());
                return findings;
            }
        };
        let signal = &trigger.subject.signal;
        let is_sum = signal.metric_type() == "AverageValue";
        let kind = if is_sum { Kind::Sum } else { Kind::Ratio };
        findings.extend(self.metric_type_rule(kind, "signal"));
        if trigger.on_missing == OnMissing::Zero {
            let detail =
                "onMissing: zero scales a running model down while its metrics are missing";
            let check = check("missing", CheckStatus::Warn, detail.to_owned());
            findings.push(check.with_remedy("remove onMissing, or set it to hold=10m").into());
        }
        if findings.is_empty() {
            let detail = format!("signal {} follows the rules", signal.name());
            findings.push(check("trigger", CheckStatus::Pass, detail).into());
        }
        findings
    }

    fn address(&self) -> Option<Finding> {
        let fail = |detail: String| Check::new("scaled-object.address", CheckStatus::Fail, detail);
        let Some(address) = self.text("scalerAddress") else {
            return Some(fail("metadata.scalerAddress is missing".to_owned()).into());
        };
        let bare = address
            .strip_prefix("http://")
            .or_else(|| address.strip_prefix("https://"))
            .map(|rest| rest.trim_end_matches('/'));
        if let Some(bare) = bare {
            let detail = format!("scalerAddress is {address}, but gRPC addresses have no scheme");
            let check = fail(detail).with_remedy(format!("set scalerAddress: {bare}"));
            let finding = Finding::from(check);
            return Some(finding.fixed_by(self.metadata_path("scalerAddress"), bare));
        }
        let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            let detail = format!("scalerAddress is {address}, and has no port");
            return Some(fail(detail).with_remedy("write host:9465").into());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use collector_core::{
        EndpointPickerLoad, ManualClock, ModelRef, ModelValue, ReplicaMetrics, Replicas,
    };
    use collector_promql::Limits;
    use collector_testkit::FakeCollector;

    use super::super::ScaledObject;
    use super::super::rules::Context;
    use super::*;

    /// The checks of a trigger with this metadata that do not pass.
    fn found(metadata: &str, metric_type: &str) -> Vec<(CheckStatus, String)> {
        let text = format!(
            "kind: ScaledObject\nspec:\n  minReplicaCount: 1\n  triggers:\n    - type: external\n      metricType: \
             {metric_type}\n      metadata: {{scalerAddress: \"collector:9465\", {metadata}}}\n"
        );
        let object = ScaledObject::of(&serde_saphyr::from_str(&text).unwrap());
        let context = Context { port: 9464, limits: Limits::default() };
        let checks = object.rules(&context).into_iter().map(|finding| finding.check);
        let checks = checks.filter(|check| check.status != CheckStatus::Pass);
        checks.map(|check| (check.status, check.detail)).collect()
    }

    #[track_caller]
    fn check_found(metadata: &str, metric_type: &str, status: CheckStatus, says: &str) {
        let found = found(metadata, metric_type);
        let [(is, text)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((*is, text.contains(says)), (status, true), "{text}");
    }

    #[test]
    fn metadata_by_the_contract_passes() {
        for (metadata, metric_type) in [
            ("model: m", "AverageValue"),
            (
                "model: m, modelNamespace: ns, variant: v, signal: running, target: \"16\"",
                "AverageValue",
            ),
            (
                "model: m, signal: kv-max, activation: \"0.1\", maxAge: 2m, onMissing: hold=10m",
                "Value",
            ),
            ("model: m, signal: backlog-seconds, peakPrefillThroughput: \"9000\"", "Value"),
            ("model: m, signal: composite, signals: \"queue, kv-max=0.8\"", "Value"),
            ("modelFromEnv: M, onMissing: error", "AverageValue"),
        ] {
            assert_eq!(found(metadata, metric_type), [], "{metadata}");
        }
    }

    #[test]
    fn wrong_metadata_is_named() {
        use CheckStatus::{Fail, Warn};
        let average = "AverageValue";
        check_found("signal: queue", average, Fail, "model is missing: set it");
        check_found("model: m, signal: quue", average, Fail, "there is no signal \"quue\"");
        check_found("model: m, target: \"0\"", average, Fail, "is not a number from 0.001");
        check_found("model: m, target: 5", average, Fail, "metadata.target is 5");
        check_found("model: m, activation: \"-1\"", average, Fail, "is not a number from 0 to");
        check_found("model: m, variant: \"\"", average, Fail, "variant is empty");
        check_found("model: m, maxAge: soon", average, Fail, "maxAge: ");
        check_found("model: m, onMissing: hold", average, Fail, "is none of error, zero and hold=");
        check_found("model: m, onMissing: zero", average, Warn, "scales a running model down");
        check_found("model: m, signal: kv-max", average, Warn, "a ratio must not be divided");
        check_found("model: m", "Value", Warn, "a sum must be divided");
        let backlog = "model: m, signal: backlog-seconds, peakPrefillThroughput: \"9000\"";
        check_found(backlog, average, Warn, "metricType is AverageValue");
        check_found("model: m, signal: composite", "Value", Fail, "signals is missing");
        let says =
            "metadata.targget is not a key of the scaler, and is ignored; did you mean target?";
        check_found("model: m, targget: \"5\"", average, Warn, says);
        check_found("model: m, enableTls: \"true\"", average, Warn, "did you mean enableTLS?");
    }

    #[test]
    fn the_scaler_of_another_program_is_not_checked() {
        let text = "spec:\n  minReplicaCount: 1\n  triggers:\n    - {type: external-push, metadata: {scalerAddress: \
                    \"other:6000\", a: b}}\n";
        let object = ScaledObject::of(&serde_saphyr::from_str(text).unwrap());
        let context = Context { port: 9464, limits: Limits::default() };
        let skipped =
            object.rules(&context).into_iter().filter(|it| it.check.status == CheckStatus::Skip);
        assert_eq!(skipped.count(), 1);
    }

    /// The values of a trigger on a model in `prod` with these keys, for these replicas.
    async fn values(keys: &str, replicas: Replicas) -> Vec<(CheckStatus, String)> {
        let clock = Arc::new(ManualClock::new());
        let collector = FakeCollector::new(clock.clone());
        collector.serve(ModelValue::new(replicas, Vec::new()));
        let text = format!(
            "metadata: {{name: m, namespace: prod}}\nspec:\n  minReplicaCount: 1\n  triggers:\n    - {{type: external, \
             metadata: {{{keys}}}}}\n"
        );
        let object = ScaledObject::of(&serde_saphyr::from_str(&text).unwrap());
        let scaler = Scaler::default();
        let readings =
            Readings { collector: Arc::new(collector), clock, scaler, backends: String::new() };
        let checks = object.signals(&readings).await.into_iter();
        checks.map(|check| (check.status, check.detail)).collect()
    }

    fn two(queue: Option<u64>) -> Replicas {
        let pod = |name: &str, queue, usage| {
            let mut pod = ReplicaMetrics::new(name, ManualClock::new().now());
            (pod.queue_length, pod.kv_cache_usage) = (queue, Some(usage));
            pod
        };
        let pods = vec![pod("m-0", queue, 0.5), pod("m-1", Some(3), 0.75)];
        Replicas::new(ModelRef::new("m", "prod"), pods, "fake".into(), ManualClock::new().now())
    }

    #[tokio::test]
    async fn a_trigger_has_the_value_that_keda_gets_or_its_error() {
        for (keys, value) in [
            ("model: m", "signal queue is 5 now, in a reading of 2 pods"),
            ("model: m, signal: kv-sum", "kv-sum is 1.25 now"),
            ("model: m, signal: waiting-capacity, modelNamespace: prod", "capacity is 5 now"),
            ("model: m, signal: composite, signals: 'queue=2,kv-max'", "composite is 2.5 now"),
        ] {
            let [(status, detail)] = values(keys, two(Some(2))).await.try_into().unwrap();
            assert_eq!(status, CheckStatus::Pass, "{detail}");
            assert!(detail.contains("trigger 1: ") && detail.contains(value), "{detail}");
        }
        let mut partial = two(Some(2));
        partial.partial = true;
        for (keys, replicas, why) in [
            (
                "model: m",
                two(None),
                "the queue length of pod \"m-0\" of \"m\" in \"prod\" is unknown",
            ),
            ("model: m, signal: running", two(Some(2)), "the number of running requests of pod"),
            ("model: m, signal: kv-max", partial, "the greatest value may be another pod's"),
            ("model: m, variant: v", two(Some(2)), "has no variant \"v\""),
        ] {
            let [(status, detail)] = values(keys, replicas).await.try_into().unwrap();
            assert_eq!(status, CheckStatus::Fail, "{detail}");
            assert!(detail.contains(why), "{detail}");
        }
        assert_eq!(values("modelFromEnv: M", two(None)).await[0].0, CheckStatus::Skip);
        assert_eq!(values("model: m, signal: other", two(None)).await, [], "the rules report it");
    }

    #[tokio::test]
    async fn the_endpoint_pickers_queue_counts() {
        let mut reading = two(None);
        reading.replicas.clear();
        let mut load = EndpointPickerLoad::new(ManualClock::new().now());
        (load.flow_control, load.queued_requests) = (true, Some(4));
        load.running_requests = Some(0);
        reading.endpoint_picker = EndpointPicker::Responding(Arc::new(load));
        let [(status, detail)] = values("model: m", reading.clone()).await.try_into().unwrap();
        assert_eq!(status, CheckStatus::Pass);
        assert!(
            detail.ends_with("is 4 now, in a reading of 0 pods and an endpoint picker"),
            "{detail}"
        );
        reading.endpoint_picker = EndpointPicker::silent(None, "connection refused");
        let [(status, detail)] = values("model: m", reading).await.try_into().unwrap();
        assert_eq!(status, CheckStatus::Fail);
        assert!(detail.contains("the picker that holds its queue does not answer"), "{detail}");
    }
}
