// SPDX-License-Identifier: Apache-2.0
//! What the endpoint picker (EPP) of a model reports: requests that it holds back, and how full its pool is.
//!
//! An endpoint picker routes the requests of one InferencePool. It is no model server, and none of its numbers is a
//! replica's.

use std::sync::Arc;

use crate::clock::Tick;

/// The endpoint picker of a model, as one fetch found it.
#[derive(Clone, PartialEq, Default, Debug)]
#[non_exhaustive]
pub enum EndpointPicker {
    /// No source knows of one for the model.
    #[default]
    None,
    /// It responds.
    Responding(Arc<EndpointPickerLoad>),
    /// There is one, or there must be, and what it would report is unknown.
    Silent {
        /// When it last responded; `None` if that is not known.
        since: Option<Tick>,
        /// Why, in words: printable and short.
        reason: Arc<str>,
    },
}

/// The numbers of an endpoint picker about one model and its pool. A number that is not exported is `None`, never 0.
///
/// Several replicas of one endpoint picker are one: counts are summed, the saturation is the greatest.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct EndpointPickerLoad {
    /// When the oldest of the numbers was sampled.
    pub sampled_at: Tick,
    /// Whether flow control is on. If it is off, nothing is held back, and there is no saturation.
    pub flow_control: bool,
    /// Requests for the model that flow control holds back. An idle endpoint picker deletes this series; that is 0.
    pub queued_requests: Option<u64>,
    /// Bytes of these requests.
    pub queued_bytes: Option<u64>,
    /// Requests for the model that were sent to a model server and are not answered.
    pub running_requests: Option<u64>,
    /// Requests in flight to live pods of the model; `None` unless a producer of in-flight load is configured.
    pub in_flight_requests: Option<u64>,
    /// Prompt tokens of these requests that no cache had, and estimated output tokens if so configured.
    pub in_flight_tokens: Option<u64>,
    /// How full the pool is.
    pub saturation: Saturation,
    /// Pods of the pool without recent metrics. They may count as full in the saturation.
    pub stale_endpoints: Option<u64>,
    /// Requests of the pool that flow control rejected or evicted since the endpoint picker started.
    pub rejected_requests: Option<u64>,
}

/// How full a pool is for flow control, which holds back requests from 1.0 on. An empty pool reports 1.0.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
#[non_exhaustive]
pub struct Saturation {
    /// The greater one of both stages, which decides.
    pub effective: Option<f64>,
    /// Of the pods that prefill.
    pub prefill: Option<f64>,
    /// Of the pods that decode, and of those that do both.
    pub decode: Option<f64>,
}

impl EndpointPickerLoad {
    /// An endpoint picker that responds and exports none of the numbers.
    pub const fn new(sampled_at: Tick) -> Self {
        Self {
            sampled_at,
            flow_control: false,
            queued_requests: None,
            queued_bytes: None,
            running_requests: None,
            in_flight_requests: None,
            in_flight_tokens: None,
            saturation: Saturation { effective: None, prefill: None, decode: None },
            stale_endpoints: None,
            rejected_requests: None,
        }
    }
}

impl EndpointPicker {
    /// One that does not respond since then, for this reason: printable and short.
    pub fn silent(since: Option<Tick>, reason: impl Into<Arc<str>>) -> Self {
        Self::Silent { since, reason: reason.into() }
    }

    /// Returns the numbers, if it responds.
    pub fn load(&self) -> Option<&EndpointPickerLoad> {
        match self {
            Self::Responding(load) => Some(load),
            Self::None | Self::Silent { .. } => None,
        }
    }

    /// Returns the requests that it holds back for the model: 0 if there is none or flow control is off. `None` if this
    /// is unknown.
    pub fn queued_requests(&self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::Responding(load) if !load.flow_control => Some(0),
            Self::Responding(load) => load.queued_requests,
            Self::Silent { .. } => None,
        }
    }

    /// About how many bytes it holds behind itself.
    pub(crate) fn bytes(&self) -> usize {
        self.load().map_or(0, size_of_val)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_feature_or_an_idle_queue_is_zero() {
        assert_eq!(EndpointPicker::None.queued_requests(), Some(0));
        let mut load = EndpointPickerLoad::new(Tick::MIN);
        let responding =
            |load: &EndpointPickerLoad| EndpointPicker::Responding(Arc::new(load.clone()));
        assert_eq!(responding(&load).queued_requests(), Some(0), "flow control is off");
        load.flow_control = true;
        assert_eq!(responding(&load).queued_requests(), None, "it is on and its queue unknown");
        load.queued_requests = Some(3);
        assert_eq!(responding(&load).queued_requests(), Some(3));
        let silent = EndpointPicker::silent(None, "connection refused");
        assert_eq!(silent.queued_requests(), None);
    }
}
