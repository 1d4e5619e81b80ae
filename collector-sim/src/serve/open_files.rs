//! Room for as many sockets as the fleet has.

use rustix::process::{Resource, getrlimit, setrlimit};

/// A pod's listener, and up to three connections to it.
const FILES_PER_POD: u64 = 4;
/// For the rest of the process.
const OTHER_FILES: u64 = 256;

/// Raises the process's soft limit of open files when the fleet may need more, as far as the hard
/// limit allows. The soft limit is 1024 on many systems, for the sake of programs that use
/// `select`: programs that do not are meant to raise it.
pub(super) fn make_room_for(pods: usize) {
    let wanted = u64::try_from(pods).unwrap_or(u64::MAX).saturating_mul(FILES_PER_POD);
    let wanted = wanted.saturating_add(OTHER_FILES);
    let mut limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    // `None` is no limit.
    if limit.current.is_some_and(|current| current < allowed) {
        limit.current = Some(allowed);
        // If it fails, the listener that finds no room tells.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
