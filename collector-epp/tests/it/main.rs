// SPDX-License-Identifier: Apache-2.0
//! The pages of real servers, read as a backend reads them; and the backend, on pods that keep the rules
//! and on pods that do not.

mod bad_input;
mod buckets;
mod captures;
mod conformance;
mod credentials;
mod endpoint_picker;
mod engine_pages;
mod fake_pod;
mod gauges;
mod identity;
mod latencies;
mod live;
mod look;
mod pages;
mod read;
mod silent;
mod user_engines;
mod world;
