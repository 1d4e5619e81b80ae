//! Reads wanted samples out of a Prometheus exposition page.
