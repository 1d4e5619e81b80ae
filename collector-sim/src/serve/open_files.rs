// SPDX-License-Identifier: Apache-2.0
//! File descriptors for all sockets of the fleet.

use rustix::process::{Resource, getrlimit, setrlimit};

/// A pod's listener, and up to three connections to it.
const FILES_PER_POD: u64 = 4;
/// For the rest of the process.
const OTHER_FILES: u64 = 256;

/// Raises the process's soft limit of open files if the fleet may need more, as far as the hard limit allows.
/// The soft limit is 1024 on many systems for programs that use `select`; other programs are expected to
/// raise it.
pub(super) fn make_room_for(pods: usize) {
    let wanted = u64::try_from(pods).unwrap_or(u64::MAX).saturating_mul(FILES_PER_POD);
    let wanted = wanted.saturating_add(OTHER_FILES);
    let mut limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    // `None` is no limit.
    if limit.current.is_some_and(|current| current < allowed) {
        limit.current = Some(allowed);
        // If it fails, the listener without a descriptor reports it.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
