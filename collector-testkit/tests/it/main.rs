// SPDX-License-Identifier: Apache-2.0
//! The testkit tested: the suites pass what is right and catch what is wrong.

mod backend_suite;
mod cache_suite;
mod fake_backend;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(feature = "real-servers")]
mod prometheus_server;
mod wrong;
