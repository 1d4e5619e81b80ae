// SPDX-License-Identifier: Apache-2.0
//! The locks and the atomic of what loom explores: its own under `cfg(loom)`, else those of `std`.
//!
//! Where every step that threads can disagree about is taken under one of these locks, `std`'s `Arc`
//! does: a count of references decides nothing.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};
