// SPDX-License-Identifier: Apache-2.0
//! What is answered locally, and that the answers equal those of a Prometheus server.

mod exact;
mod fixture;
mod rules;
