// SPDX-License-Identifier: Apache-2.0
//! The endpoint picker of a model, in the document of its replicas.

use collector_core::{EndpointPicker, EndpointPickerLoad, Reading, Replicas, Tick};
use serde::Serialize;

use crate::named::Named;
use crate::seconds;

/// The endpoint picker of a model. What is not known is null, never 0, with its reason.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub(crate) struct EndpointPickerDocument<'a> {
    /// `responding`, or `silent`: all that it would report is unknown.
    state: &'static str,
    /// Age of its oldest number, or the time since it last responded.
    age_seconds: Option<f64>,
    /// Whether flow control is on. If it is off, no request is held back.
    flow_control: Option<bool>,
    /// Requests for the model that flow control holds back; 0 if it is idle.
    queue: Option<u64>,
    /// Bytes of these requests.
    queue_bytes: Option<u64>,
    /// Requests for the model that are not answered.
    running: Option<u64>,
    /// Requests in flight to live pods of the model.
    in_flight_requests: Option<u64>,
    /// Their prompt tokens that no cache had.
    in_flight_tokens: Option<u64>,
    /// How full the pool is: flow control holds back requests from 1.0 on.
    saturation: Option<f64>,
    /// Of the pods that prefill.
    saturation_prefill: Option<f64>,
    /// Of the pods that decode, and of those that do both.
    saturation_decode: Option<f64>,
    /// Pods of the pool without recent metrics.
    stale_endpoints: Option<u64>,
    /// Requests that flow control rejected or evicted since the endpoint picker started.
    rejected: Option<u64>,
    /// Why fields are null.
    #[serde(skip_serializing_if = "Named::is_empty")]
    reasons: Named<&'a str>,
}

const OFF: &str = "flow control is off";
const NO_PRODUCER: &str =
    "the endpoint picker exports no load in flight: it needs a producer of it";
const NOT_EXPORTED: &str = "the endpoint picker does not export it";
const UNREADABLE: &str = "some of its samples could not be read, so that their sum is unknown";

impl<'a> EndpointPickerDocument<'a> {
    /// The document; `None` if no endpoint picker is known.
    pub(crate) fn of(reading: &'a Reading<Replicas>) -> Option<Self> {
        let age = |at: Tick| seconds(reading.age_of(at));
        match &reading.value().endpoint_picker {
            EndpointPicker::Responding(load) => Some(Self::responding(load, age(load.sampled_at))),
            EndpointPicker::Silent { since, reason } => {
                let numbers = EndpointPickerLoad::new(Tick::MIN);
                let mut document = Self::responding(&numbers, 0.0);
                document.state = "silent";
                document.age_seconds = since.map(age);
                document.flow_control = None;
                document.reasons.insert("flowControl", reason);
                document.reasons.values_mut().for_each(|known| *known = reason);
                if since.is_none() {
                    document.reasons.insert("ageSeconds", reason);
                }
                Some(document)
            }
            _ => None,
        }
    }

    fn responding(load: &EndpointPickerLoad, age: f64) -> Self {
        let saturation = load.saturation;
        let of_flow_control = |reason| if load.flow_control { reason } else { OFF };
        let reasons = [
            ("queue", load.queued_requests.is_none(), of_flow_control(UNREADABLE)),
            ("queueBytes", load.queued_bytes.is_none(), of_flow_control(UNREADABLE)),
            ("running", load.running_requests.is_none(), UNREADABLE),
            ("inFlightRequests", load.in_flight_requests.is_none(), NO_PRODUCER),
            ("inFlightTokens", load.in_flight_tokens.is_none(), NO_PRODUCER),
            ("saturation", saturation.effective.is_none(), of_flow_control(NOT_EXPORTED)),
            ("saturationPrefill", saturation.prefill.is_none(), of_flow_control(NOT_EXPORTED)),
            ("saturationDecode", saturation.decode.is_none(), of_flow_control(NOT_EXPORTED)),
            ("staleEndpoints", load.stale_endpoints.is_none(), of_flow_control(NOT_EXPORTED)),
            ("rejected", load.rejected_requests.is_none(), of_flow_control(NOT_EXPORTED)),
        ];
        let reasons = reasons.into_iter().filter(|(_, is_null, _)| *is_null);
        Self {
            state: "responding",
            age_seconds: Some(age),
            flow_control: Some(load.flow_control),
            queue: load.queued_requests,
            queue_bytes: load.queued_bytes,
            running: load.running_requests,
            in_flight_requests: load.in_flight_requests,
            in_flight_tokens: load.in_flight_tokens,
            saturation: saturation.effective,
            saturation_prefill: saturation.prefill,
            saturation_decode: saturation.decode,
            stale_endpoints: load.stale_endpoints,
            rejected: load.rejected_requests,
            reasons: reasons.map(|(key, _, reason)| (key, reason)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use collector_core::{Clock as _, FreshnessThresholds, ManualClock, ModelRef, Source};
    use serde_json::{Value, json};

    use super::*;
    use crate::ReplicasDocument;

    fn document(picker: EndpointPicker) -> Value {
        let clock = ManualClock::new();
        let mut replicas =
            Replicas::new(ModelRef::new("m", "n"), Vec::new(), "test".into(), clock.now());
        replicas.endpoint_picker = picker;
        let thresholds = FreshnessThresholds::default();
        let reading = Reading::new(replicas, clock.now(), &thresholds, Source::Cache);
        let document = ReplicasDocument::new(&reading, SystemTime::UNIX_EPOCH);
        serde_json::to_value(document).unwrap()["picker"].clone()
    }

    /// The keys of a document that are null and have no reason.
    fn unexplained(picker: &Value) -> Vec<&String> {
        let keys = picker.as_object().unwrap().iter();
        let null = keys.filter(|(_, value)| value.is_null());
        null.map(|(key, _)| key).filter(|key| picker["reasons"].get(*key).is_none()).collect()
    }

    #[test]
    fn no_null_is_without_a_reason_in_any_state() {
        assert_eq!(document(EndpointPicker::None), Value::Null);
        let now = ManualClock::new().now();
        let mut load = EndpointPickerLoad::new(now);
        let responding = |load: &EndpointPickerLoad| {
            document(EndpointPicker::Responding(Arc::new(load.clone())))
        };
        let off = responding(&load);
        assert_eq!((&off["flowControl"], &off["reasons"]["queue"]), (&json!(false), &json!(OFF)));
        load.flow_control = true;
        load.queued_requests = Some(0);
        let idle = responding(&load);
        assert_eq!((&idle["queue"], &idle["state"]), (&json!(0), &json!("responding")));
        let silent = document(EndpointPicker::silent(Some(now), "connection refused"));
        assert_eq!((&silent["state"], &silent["ageSeconds"]), (&json!("silent"), &json!(0.0)));
        assert_eq!(silent["reasons"]["queue"], "connection refused");
        let never = document(EndpointPicker::silent(None, "connection refused"));
        for picker in [off, idle, silent, never] {
            assert_eq!(unexplained(&picker), Vec::<&String>::new(), "{picker}");
        }
    }
}
