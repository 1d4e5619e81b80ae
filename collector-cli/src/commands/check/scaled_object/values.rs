//! The present values of a ScaledObject's triggers: of queries by the server, of signals by a reading.

use collector_core::{
    Check, CheckStatus, EndpointPicker, MetricsCollector, ModelRef, ReplicaMetrics, Replicas,
    VariantName,
};
use collector_promql::{Guard, Limits, describe};

use super::super::present::{present, read_by_keda};
use super::{ScaledObject, Trigger};
use crate::output::ErrorDocument;

impl ScaledObject {
    /// Runs the query of each trigger, and reads the model of each trigger on the external scaler, except invalid ones,
    /// which the rules report. `guard` is needed where [`has_queries`](Self::has_queries).
    pub(in super::super) async fn values(
        &self,
        guard: Option<&Guard>,
        limits: &Limits,
        collector: &dyn MetricsCollector,
    ) -> Vec<Check> {
        let mut checks = Vec::new();
        for trigger in &self.triggers {
            let (status, detail) = if trigger.is_of_collector() {
                match trigger.text("model") {
                    Some(model) => self.signal_value(trigger, model, collector).await,
                    None => continue,
                }
            } else if trigger.kind == "prometheus" {
                let query = trigger.text("query").filter(|query| describe(query, limits).is_ok());
                let (Some(query), Some(guard)) = (query, guard) else { continue };
                let parameters = trigger.text("queryParameters").unwrap_or_default();
                present(guard, query, parameters, read_by_keda).await
            } else {
                continue;
            };
            let detail = format!("trigger {}: {detail}", trigger.number());
            checks.push(self.check("value", status, detail));
        }
        checks
    }

    /// Returns whether the endpoint picker's queue in a reading must start the first replica, because all triggers are on
    /// readings or on metrics of pods.
    fn needs_picker(&self) -> bool {
        let of_pods = |trigger: &Trigger| trigger.is_of_collector() || trigger.is_of_engine();
        self.to_zero() && self.triggers.iter().all(of_pods)
    }

    async fn signal_value(
        &self,
        trigger: &Trigger,
        model: &str,
        collector: &dyn MetricsCollector,
    ) -> (CheckStatus, String) {
        let namespace = trigger.text("modelNamespace").or(self.namespace.as_deref());
        let Some(namespace) = namespace else {
            let detail = "not read, because the object has no metadata.namespace and the trigger no modelNamespace";
            return (CheckStatus::Skip, detail.to_owned());
        };
        let model = ModelRef::new(model, namespace);
        match collector.collect_replica_metrics(&model).await {
            Ok(reading)
                if self.needs_picker()
                    && reading.value().endpoint_picker == EndpointPicker::None =>
            {
                let detail = format!(
                    "no endpoint picker of {model} is read, and nothing else shows requests while there are no pods, so \
                     nothing starts the first replica"
                );
                (CheckStatus::Fail, detail)
            }
            Ok(reading) => match trigger.text("variant") {
                Some(name) => {
                    let variant = VariantName::new(name);
                    let narrowed = reading.value().narrowed_to(&variant);
                    if narrowed.replicas.is_empty() && !reading.value().replicas.is_empty() {
                        let detail = format!("no pod of {model} belongs to variant {name:?}");
                        return (CheckStatus::Fail, detail);
                    }
                    value_of(trigger.signal(), &narrowed)
                }
                None => value_of(trigger.signal(), reading.value()),
            },
            Err(error) => (CheckStatus::Fail, ErrorDocument::of(&error).message().to_owned()),
        }
    }
}

/// The value of a signal, where it follows from the replicas alone.
fn value_of(signal: &str, reading: &Replicas) -> (CheckStatus, String) {
    type Field = fn(&ReplicaMetrics) -> Option<f64>;
    let queue: Field = |replica| replica.queue_length.map(as_float);
    let running: Field = |replica| replica.running_requests.map(as_float);
    let (field, greatest): (Field, bool) = match signal {
        "queue" => (queue, false),
        "running" => (running, false),
        "kv-sum" => (|replica| replica.kv_cache_usage, false),
        "kv-max" => (|replica| replica.kv_cache_usage, true),
        _ => {
            let detail = format!("the value of signal {signal} is not computed here");
            return (CheckStatus::Skip, detail);
        }
    };
    let replicas = &reading.replicas;
    let values: Vec<f64> = replicas.iter().filter_map(field).collect();
    if reading.partial || values.len() < replicas.len() {
        let detail = format!(
            "unknown: {} of {} pods report it{}",
            values.len(),
            replicas.len(),
            if reading.partial { ", and others may be absent from the answer" } else { "" }
        );
        return (CheckStatus::Fail, detail);
    }
    let mut value =
        if greatest { values.iter().copied().fold(0.0, f64::max) } else { values.iter().sum() };
    let mut from = collector_core::text::counted(replicas.len(), "pod", "pods");
    if signal == "queue" {
        let Some(held) = reading.endpoint_picker.queued_requests() else {
            let detail = "unknown: the endpoint picker does not report its queue";
            return (CheckStatus::Fail, detail.to_owned());
        };
        if reading.endpoint_picker.load().is_some() {
            from.push_str(" and the endpoint picker");
        }
        value += as_float(held);
    }
    (CheckStatus::Pass, format!("signal {signal} is {value} now, from {from}"))
}

fn as_float(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use collector_core::{EndpointPickerLoad, Tick};

    use super::*;

    fn replica(queue: Option<u64>, usage: f64) -> ReplicaMetrics {
        let mut replica = ReplicaMetrics::new("m-0", Tick::MIN);
        (replica.queue_length, replica.kv_cache_usage) = (queue, Some(usage));
        replica
    }

    fn reading(replicas: Vec<ReplicaMetrics>) -> Replicas {
        Replicas::new(ModelRef::new("m", "prod"), replicas, "fake".into(), Tick::MIN)
    }

    #[test]
    fn a_signal_is_computed_from_all_pods_or_unknown() {
        let two = reading(vec![replica(Some(2), 0.5), replica(Some(3), 0.75)]);
        let is = |signal: &str, value: &str| {
            let (status, detail) = value_of(signal, &two);
            assert_eq!(status, CheckStatus::Pass, "{detail}");
            assert!(detail.contains(&format!("{signal} is {value} now")), "{detail}");
        };
        is("queue", "5");
        is("kv-sum", "1.25");
        is("kv-max", "0.75");
        assert_eq!(value_of("saturation", &two).0, CheckStatus::Skip);
        assert_eq!(value_of("running", &two).0, CheckStatus::Fail, "no pod reports it");
        let silent = reading(vec![replica(Some(2), 0.5), replica(None, 0.5)]);
        assert!(value_of("queue", &silent).1.contains("1 of 2 pods"));
        let mut partial = two.clone();
        partial.partial = true;
        assert_eq!(value_of("kv-max", &partial).0, CheckStatus::Fail);
    }

    #[test]
    fn the_endpoint_pickers_queue_counts() {
        let mut reading = reading(Vec::new());
        let mut load = EndpointPickerLoad::new(Tick::MIN);
        (load.flow_control, load.queued_requests) = (true, Some(4));
        reading.endpoint_picker = EndpointPicker::Responding(Arc::new(load));
        let (status, detail) = value_of("queue", &reading);
        assert_eq!(status, CheckStatus::Pass);
        assert!(detail.contains("is 4 now, from 0 pods and the endpoint picker"), "{detail}");
        reading.endpoint_picker = EndpointPicker::silent(None, "connection refused");
        assert_eq!(value_of("queue", &reading).0, CheckStatus::Fail);
    }
}
