// SPDX-License-Identifier: Apache-2.0
//! Text from outside in messages.

/// A name from outside, fit for a terminal and a log line.
pub(crate) fn printable(name: &str) -> String {
    collector_core::text::printable(name).at_most(128).to_string()
}
