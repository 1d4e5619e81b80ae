// SPDX-License-Identifier: Apache-2.0
//! The name of this process, by which what it numbers is told from what another replica numbers.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

/// A name that no other process has: eight random hexadecimal digits.
static NAME: LazyLock<String> = LazyLock::new(|| {
    // The keys of a new state are random, and so is what they make of nothing.
    let random = RandomState::new().hash_one(()) & u64::from(u32::MAX);
    format!("{random:08x}")
});

/// Returns the name of this process.
pub(super) fn name() -> &'static str {
    &NAME
}
