// SPDX-License-Identifier: Apache-2.0
//! Tests of the backend against scripted servers, TLS servers, a real Prometheus and a real VictoriaMetrics.

mod clock;
mod conformance;
mod connection;
mod empty;
mod endpoint_picker;
mod fake;
mod fetch;
mod gateway;
mod limits;
mod passed;
mod proxy;
mod raw;
mod real;
mod real_cost;
mod real_labels;
mod real_names;
mod real_servers;
mod real_times;
mod requests;
mod tls;
mod truth;
mod ways_in;
mod written;
