// SPDX-License-Identifier: Apache-2.0
//! A backend that polls an HTTP server which answers in JSON.
//!
//! It is a pattern for backends outside of the collector's own repository: it needs `collector-core` and an
//! HTTP client, and `collector-testkit` for its tests.
//!
//! - [`HttpJson`]: the trait, and nothing but it,
//! - `client`: one request, within its time and its limits,
//! - `document`: what the server answers.

mod backend;
mod client;
mod document;

pub use backend::HttpJson;
pub use client::InvalidToken;
