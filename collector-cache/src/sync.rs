// SPDX-License-Identifier: Apache-2.0
//! The locks of what loom explores: its own under `cfg(loom)`, else those of `std`.
//!
//! Counts of references and of bytes decide nothing that threads can disagree about, and are those of `std`.

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
