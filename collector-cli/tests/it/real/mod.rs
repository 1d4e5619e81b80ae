// SPDX-License-Identifier: Apache-2.0
//! The whole path against a real Prometheus that scrapes a simulated fleet: what the fleet knows of
//! itself is what a reading must say.

#[cfg(all(feature = "keda", feature = "promql"))]
mod autoscalers;
mod both;
mod discovery;
pub(crate) mod fixture;
#[cfg(all(feature = "epp", feature = "promql"))]
mod local;
mod outage;
mod parity;
#[cfg(all(feature = "epp", feature = "promql"))]
mod partial;
#[cfg(feature = "promql")]
mod promql;
mod requests;
#[cfg(feature = "promql")]
mod scaling;
mod truth;
