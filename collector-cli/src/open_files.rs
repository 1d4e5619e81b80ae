// SPDX-License-Identifier: Apache-2.0
//! Raises the limit of open files, because each pod of a fleet has a connection.

use rustix::process::{Resource, getrlimit, setrlimit};

/// For the greatest fleet that is scraped, ten thousand pods, and as many clients as are served.
const WANTED: u64 = 16_384;

/// Raises the process's soft limit of open files, as far as the hard limit allows. The soft limit is
/// 1024 on many systems, for the sake of programs that use `select`: programs that do not are meant to
/// raise it.
pub(crate) fn make_room() {
    let mut limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.map_or(WANTED, |maximum| WANTED.min(maximum));
    // `None` is no limit.
    if limit.current.is_some_and(|current| current < allowed) {
        limit.current = Some(allowed);
        // If this fails, connections beyond the limit fail with an error of their own.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
